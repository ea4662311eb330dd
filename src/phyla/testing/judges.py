"""What a strategy must do, and must never do, in a single decision: one function for each sentence of strategies.py.

Each judges a `Moment`, and yields what is wrong with it.
"""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

from phyla.decide import needs_rescue
from phyla.record import Record
from phyla.strategies.contract import Mix, retained
from phyla.testing.plays import INF, NAN, Moment

Found: TypeAlias = Iterator[str]
Judge: TypeAlias = Callable[[Moment], Found]


def goes_on_with_the_donors_weights(moment: Moment) -> Found:
    """Katib gives losers the winner's hyperparameters, and leaves their own weights."""
    if moment.donor is not None and moment.choice.source != moment.donor.ref:
        yield f"it copied {moment.donor!r}, and goes on with other weights"


def leaves_the_best_alone(moment: Moment) -> Found:
    view, choice = moment.view, moment.choice
    ranked = view.ranked(moment.member)
    best = ranked[-1] if ranked else None
    if best is None or best is not moment.own or not best.finite or needs_rescue(view, moment.member):
        return
    same = {name: h.clip(best.hypers[name]) for name, h in view.space_of(moment.member).items() if not h.structural}
    if choice.source != best.ref or choice.mix is not None:
        yield f"it is the best, at {best!r}, and its weights were changed"
    elif any(choice.hypers[name] != value for name, value in same.items()):
        yield f"it is the best, at {best!r}, and its hyperparameters were changed"


def copies_only_what_is_better(moment: Moment) -> Found:
    view, donor, newest = moment.view, moment.donor, moment.view.newest(moment.member)
    if donor is None or not donor.finite:
        return  # T5
    if moment.choice.replaced or newest is None:
        if donor.id == moment.member and (newest is None or view.value(donor) <= view.value(newest)):
            yield f"its own state is lost, and it was replaced by its own {donor!r}"
    elif newest.score is None:
        yield f"it has no score yet, and copied {donor!r}"
    elif (view.value(donor), donor.id) <= (view.value(newest), newest.id):
        yield f"it stands at {newest!r}, and copied {donor!r}, which is no better"


def copies_only_what_is_finite(moment: Moment) -> Found:
    donor, source = moment.donor, moment.choice.source
    if donor is not None and not donor.finite:
        yield f"it copied {donor!r}"
    elif moment.choice.replaced and source is not None and not moment.view.records[source].finite:
        yield f"it was to be replaced, and goes on from {moment.view.records[source]!r}"


def stays_in_the_space(moment: Moment) -> Found:
    """Before anything is clipped. What was chosen before the bounds changed may lie outside: it is clipped for it."""
    if moment.said is None or len(moment.view.spaces) > 1:
        return
    for name, h in moment.view.space.items():
        value = moment.said.hypers.get(name)
        if not h.contains(value):
            yield f"{name}={value!r} ({type(value).__name__}) is not in {h!r}"


def decides_on_what_is_kept(moment: Moment) -> Found:
    weights = moment.said.weights if moment.said is not None else None
    record = weights.record if isinstance(weights, Mix) else weights
    if isinstance(record, Record) and record is not moment.own and (record.void or not record.available):
        yield f"it decided on {record!r}, whose checkpoint is not kept"


def retains_what_there_is(moment: Moment) -> Found:
    """Of what it names, some may have been let go before: whether it decides on that is for another judge."""
    strategy, view = moment.play.subject.strategy, moment.view
    if view.position % 3:
        return
    try:
        named = set(retained(strategy, view))
    except Exception as error:
        yield f"retain(view) raised {type(error).__name__}: {error}"
        return
    if named != set(retained(strategy, view)):
        yield "retain(view) names others when it is asked again"
    for ref in named - view.records.keys():
        yield f"retain(view) names {tuple(ref)}, which was never reported"


def looks_no_further_than_its_own_progress(moment: Moment) -> Found:
    """What others claim, and what they report of more intervals than this member has done, changes nothing."""
    view, member = moment.view, moment.member
    if moment.said is None or view.position % 3 or view.settings.compare == "latest":
        return
    if view.settings.keep < 99:
        return  # a newer report may release an older one that decisions look at
    done, other = int(view.done[member]), moment.play.story.retold()
    others = [m for m in range(len(view.done)) if m != member and view.done[m] >= done and view.active[m]]
    for m in others:
        if other.view.open[m] is None:
            other.claim(m)
    if moment.play.ask(member, other).choice != moment.choice:
        yield "the decision changes when others claim something"
        return
    for m, score in zip(others * 2, itertools.cycle([1e6, -1e6, NAN, 1e6, INF])):
        if other.view.open[m] is None:
            other.claim(m)
        samples = [score] * 3 if moment.play.samples and abs(score) < INF else None
        other.report(m, score, samples=samples, metrics=dict.fromkeys(moment.play.subject.metrics, 1e6) or None)
    if moment.play.ask(member, other).choice != moment.choice:
        yield f"the decision changes when others report of more than its {done} intervals"


def draws_from_its_own_generator_only(moment: Moment) -> Found:
    if moment.said is None or moment.view.position % 2:
        return
    np.random.random(), random.random()  # so that seeding them anew is seen
    before = _shared_generators()
    again = moment.play.ask(moment.member)
    if again.choice != moment.choice:
        yield f"asked twice, it decided {moment.choice} and {again.choice}"
    elif _shared_generators() != before:
        yield "it drew from a generator that others share"


def _shared_generators() -> tuple[Any, ...]:
    state: Any = np.random.get_state()
    return random.getstate(), state[1].tobytes(), state[2]


def takes_notes_in_json(moment: Moment) -> Found:
    notes = moment.choice.notes
    try:
        same = json.loads(json.dumps(notes, allow_nan=False)) == notes
    except (TypeError, ValueError) as error:
        yield f"its notes are no JSON ({error}): {notes!r}"
        return
    if not same:
        yield f"its notes come back from JSON otherwise than they were: {notes!r}"


def raises_nothing(moment: Moment) -> Found:
    if moment.error is not None:
        yield f"{type(moment.error).__name__}: {moment.error}"


JUDGES: tuple[Judge, ...] = (
    goes_on_with_the_donors_weights,
    leaves_the_best_alone,
    copies_only_what_is_better,
    copies_only_what_is_finite,
    stays_in_the_space,
    decides_on_what_is_kept,
    retains_what_there_is,
    looks_no_further_than_its_own_progress,
    draws_from_its_own_generator_only,
    takes_notes_in_json,
    raises_nothing,
)
