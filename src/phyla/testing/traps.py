"""What a strategy must do in whole runs: one function for each sentence of strategies.py that no single decision can show.

Each goes through runs of a `Trial`, and yields what it found wrong, with what is needed to see it again.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import msgspec
import numpy as np

from phyla.decide import Choice
from phyla.errors import SettingsError
from phyla.events import Claimed, Event
from phyla.record import Record
from phyla.space import Choice as ChoiceOf
from phyla.space import Float, Hyperparameter, Hypers, Space, Value, draw
from phyla.strategies.describe import describe
from phyla.strategies.rebuild import rebuild
from phyla.strategies.truncation import group_size
from phyla.testing.judges import JUDGES, Found, Judge, raises_nothing
from phyla.testing.plays import INF, NAN, Moment, Play, Subject
from phyla.testing.story import snapshot
from phyla.testing.worlds import simulate, train

FEWEST = 8
"""Copies from which on it is no accident that all are alike."""


class Copied(NamedTuple):
    """A copy: the donor's hyperparameters, the new ones, and whether others would have come of others of the donor's."""

    donors: Hypers
    chosen: Hypers
    depends: bool


class Judged(NamedTuple):
    """What came of the plays."""

    wrong: dict[Judge, list[str]]  # with single decisions
    changed: list[str]  # views that decisions did not leave as they were
    copies: list[Copied]
    choices: list[list[Choice]]  # of each play


@dataclass
class Trial:
    """A strategy on trial. plays: runs that it decides. What was found is kept, for all that ask."""

    subject: Subject
    plays: int

    @cached_property
    def judged(self) -> Judged:
        found = Judged({judge: [] for judge in JUDGES}, [], [], [])
        for number in range(self.plays):
            play = Play(self.subject, number)
            found.choices.append([])
            try:
                for moment in play.moments():
                    found.choices[-1].append(moment.choice)
                    for judge, said in found.wrong.items():
                        said += [f"{moment}: {what}" for what in judge(moment)]
                    if moment.copied and moment.donor is not None:
                        told = len(found.copies) > 40 or any(copy.depends for copy in found.copies)
                        depends = not told and _depends_on(moment, moment.donor)
                        found.copies.append(Copied(moment.donor.hypers, moment.choice.hypers, depends))
                before = snapshot(play.story.view)
                for member in range(len(play.story.view.done)):
                    play.ask(member)
                if snapshot(play.story.view) != before:
                    found.changed.append(f"{play}: after decisions at its end, the view is another")
            except Exception as error:
                found.wrong[raises_nothing].append(f"{play}: {type(error).__name__}: {error}, as the story went on")
        return found

    @cached_property
    def simulated(self) -> dict[str, list[str]]:
        return simulate(self.subject)

    @cached_property
    def trained(self) -> dict[str, list[str]]:
        return train(self.subject)


def _depends_on(moment: Moment, donor: Record) -> bool:
    """Whether the hyperparameters would be others, had the donor been trained with others."""
    space = moment.play.subject.space

    def other(event: Event) -> Event:
        if not isinstance(event, Claimed) or (event.member, event.seq + 1) != donor.ref:
            return event
        drawn = draw(space, np.random.default_rng([97, *donor.ref]))
        same = {name: event.hypers[name] for name, h in space.items() if h.structural}
        return msgspec.structs.replace(event, hypers={**drawn, **same})

    again = moment.play.ask(moment.member, moment.play.story.retold(other)).choice.hypers
    return any(again[name] != value for name, value in moment.choice.hypers.items() if not space[name].structural)


def hypers_come_from_the_donor(trial: Trial) -> Found:
    """hypersweeper copies weights, and keeps the loser's hyperparameters."""
    copies = trial.judged.copies
    if len(copies) >= FEWEST and not any(copy.depends for copy in copies):
        yield f"in none of {len(copies)} copies did the new hyperparameters depend on the donor's"


def perturbations_are_independent(trial: Trial) -> Found:
    """EvoRL draws once for all hyperparameters.

    Of two that start away from their bounds, one must move up at times while the other moves down, and at times not.
    """
    space, ways = trial.subject.space, defaultdict[tuple[str, str], list[bool]](list)
    for copy in trial.judged.copies:
        up = {}
        for name in sorted(trial.subject.moves):
            h = space[name]
            if not isinstance(h, ChoiceOf) and copy.chosen[name] != copy.donors[name] and h.contains(copy.chosen[name]):
                before, after = h.encode(copy.donors[name]), h.encode(copy.chosen[name])
                if 0.1 < before < 0.9:
                    up[name] = after > before
        for a, b in itertools.combinations(up, 2):
            ways[a, b].append(up[a] == up[b])
    for (a, b), same in ways.items():
        if len(same) >= 2 * FEWEST and len(set(same)) == 1:
            yield f"{a} and {b} moved {'the same way' if same[0] else 'opposite ways'} in all of {len(same)} copies"


def ranks_alike_under_both_modes(trial: Trial) -> Found:
    """The mirrored scores under the other mode: the same story, so the same decisions."""
    for number in range(0, trial.plays, 3):
        play = Play(trial.subject, number, mode="min")
        if trial.subject.accepts(play.size, mode="min"):
            yield from _differences(trial, play, "under the other mode, with mirrored scores")


def names_in_any_order(trial: Trial) -> Found:
    for number in range(0, trial.plays, 3):
        play = Play(trial.subject, number, backwards=True)
        yield from _differences(trial, play, "where the space names its hyperparameters in another order")


def _differences(trial: Trial, play: Play, where: str) -> Found:
    for moment, choice in zip(play.moments(), trial.judged.choices[play.number], strict=False):
        if replace(moment.choice, notes=None) != replace(choice, notes=None):  # notes may hold scores
            yield f"{moment}: {where}, the decision is another: {moment.choice}, not {choice}"
            return


def where_all_have_diverged_nobody_copies(trial: Trial) -> Found:
    for size in trial.subject.accepted[:6]:
        bad = [(NAN, INF, -INF)[member % 3] for member in range(size)]
        play = generations(trial.subject, size, [bad])
        for member in range(size):
            if (moment := play.ask(member)).donor is not None:
                yield f"all {size} members have diverged, and member {member} copied {moment.donor!r}"


def generations(subject: Subject, size: int, scores: Collection[Collection[float]], **known: Any) -> Play:
    """A play that stands where all members have trained so many intervals, and came to these scores; [interval][member]."""
    known = {"settings": {"keep": 2}, **known}
    play = Play(subject, known.pop("number", 0), size=size, wild=False, trouble=False, **known)
    for generation in scores:
        for member, score in enumerate(generation):
            play.claim(play.ask(member))
            play.report(member, score)
    return play


def groups_are_disjoint(trial: Trial) -> Found:
    """For a strategy with a `fraction`: those who copy and those who are copied are no more than it says, and never meet.

    For all: of members with equal scores, the one with the highest id is best, and does not copy.
    """
    rng = np.random.default_rng(6)
    for fraction, size in [*itertools.product((None, 0.0, 0.07, 0.5), (1, 2, 3, 8, 21)), (0.2, 64)]:
        subject = trial.subject if fraction is None else _with_fraction(trial.subject, fraction)
        if subject is None or not subject.accepts(size):
            continue
        for kind, scores in (("distinct", rng.permutation(size).astype(float)), ("equal", np.ones(size))):
            play = generations(subject, size, [scores.tolist()])
            moments = [play.ask(member) for member in range(size)]
            copying = {m.member for m in moments if m.donor is not None}
            copied = {m.donor.id for m in moments if m.donor is not None}
            where = f"{size} members with {kind} scores" + (f", fraction {fraction}" if fraction is not None else "")
            if kind == "equal" and size - 1 in copying:
                yield f"{where}: member {size - 1} copied, and none is better"
            if fraction is None:
                continue
            most = group_size(fraction, size)
            if both := copying & copied:
                yield f"{where}: {sorted(both)} copy, and are copied"
            if max(len(copying), len(copied)) > most:
                yield f"{where}: {sorted(copying)} copy {sorted(copied)}, where groups have {most}"


def _with_fraction(subject: Subject, fraction: float) -> Subject | None:
    """The same strategy with another fraction, wherever in it there is one; None where there is none, or not this one."""
    try:
        changed = _changed(subject.strategy, fraction)
    except SettingsError:
        return None
    return replace(subject, strategy=changed) if changed is not subject.strategy else None


def _changed(part: Any, fraction: float) -> Any:
    if not is_dataclass(part) or isinstance(part, type):
        return part
    found = {}
    for field in fields(part):
        value = getattr(part, field.name)
        new = fraction if field.name == "fraction" and isinstance(value, float) else _changed(value, fraction)
        if new is not value:
            found[field.name] = new
    return replace(part, **found) if found else part


def all_that_moves_can_leave_any_value(trial: Trial) -> Found:
    """From zero, from negative values, from the integers 1 and 2, from strings (Ray leaves none of these).

    A strategy may hand out some copies unchanged: they count only where all are.
    """
    edges = {name: _edges(trial.subject.space[name]) for name in sorted(trial.subject.moves)}
    copies = [pair for number in range(trial.plays // 2) for pair in _copies_of_edges(trial.subject, edges, number)]
    changed = [pair for pair in copies if any(pair[0][name] != pair[1][name] for name in edges)]
    moved: dict[tuple[str, Value], list[bool]] = defaultdict(list)
    for before, after in changed or copies:
        for name, values in edges.items():
            if before[name] in values:
                moved[name, before[name]].append(after[name] != before[name])
    for (name, value), found in moved.items():
        if len(found) >= FEWEST and not any(found):
            yield f"{name}: no copy of {value!r} ever became another value, of {len(found)}"


def _edges(h: Hyperparameter) -> list[Value]:
    if isinstance(h, ChoiceOf):
        return [h.values[0], h.values[-1]]
    wanted = (0.0, -0.5, 0.5) if isinstance(h, Float) else (0, 1, 2)
    found: list[Value] = [value for value in wanted if h.contains(value)]
    return found or [h.decode(0.5)]


def _copies_of_edges(
    subject: Subject, edges: Mapping[str, list[Value]], number: int
) -> Iterator[tuple[Hypers, Hypers]]:
    """Hyperparameters of donors, and of their copies. Who is better is born with such values, the others with any."""
    size = subject.size_near(8)

    def births(member: int, space: Space) -> Hypers:
        drawn = draw(space, np.random.default_rng([number, member]))
        chosen = {name: values[number % len(values)] for name, values in edges.items()} if member >= size // 2 else {}
        return {**drawn, **chosen}

    scores = [float(member) for member in range(size)]
    play = generations(subject, size, [], births=births, number=number)
    for _ in range(subject.intervals):
        for member, score in enumerate(scores):
            moment = play.ask(member)
            if moment.copied and moment.donor is not None:
                yield moment.donor.hypers, moment.choice.hypers
            play.claim(moment)
            play.report(member, score)


def ready_recurs(trial: Trial) -> Found:
    """Every `ready` intervals past `burn_in`; and whoever goes on being worse is asked, and may copy, again and again."""
    size, copies = trial.subject.size_near(5), [0, 0]
    play = generations(trial.subject, size, [], settings={"ready": 2, "burn_in": 3, "keep": 2})
    last = dict.fromkeys(range(size), 0)
    for interval, member in itertools.product(range(14), range(size)):
        moment = play.ask(member)
        expected = interval >= 3 and interval - last[member] >= 2
        if moment.choice.ready != expected:
            yield f"{moment}: ready is {moment.choice.ready}, where it was ready before at {last[member]}"
        if moment.choice.ready or moment.choice.replaced:
            last[member] = interval
        elif moment.donor is not None:
            yield f"{moment}: it is not ready, and copied"
        copies[interval > 8] += moment.copied
        play.claim(moment)
        play.report(member, NAN if (interval, member) == (4, 0) else member + interval / 10)
    if copies[0] and not copies[1]:
        yield f"of 14 intervals, {copies[0]} copies were made in the first 9, and none in the others"


def only_reads_the_view(trial: Trial) -> Found:
    yield from trial.judged.changed


def is_described_by_plain_json(trial: Trial) -> Found:
    """What a run is identified by; and phyla's own come back from it."""
    strategy = trial.subject.strategy
    described = describe(strategy)
    if json.loads(json.dumps(described, allow_nan=False)) != described:
        yield f"its description comes back from JSON otherwise than it was: {described}"
    again = rebuild(described)
    if again is not None and again != strategy:
        yield f"it is rebuilt as {again!r}"
