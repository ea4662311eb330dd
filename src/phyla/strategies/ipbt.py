"""IPBT: training that begins anew when it has come to a stand, and then looks twice as far ahead.

Chebykin, Alderliesten & Bosman 2025, "Iterated Population Based Training with Task-Agnostic Restarts", arXiv 2511.09190.

From the paper and its published code: rounds of Population Based Training, each with an interval twice as long as the one
before. A round begins with two candidates for each member, of which the better half goes on, so its first interval costs twice;
half of them have new weights, and half those of the best quarter, shrunk and perturbed; half have random hyperparameters, and
half those of which a Gaussian process expects most, which learns from what earlier candidates began with and what the best of
their descendants came to. A round ends when its best score, smoothed by such a process, has not risen for 3 intervals, or has
gained less than a standard deviation in 15. Eight members, and a first interval of 1 % of the budget.
phyla's own: within a round plain truncation (theirs has the explore of BG-PBT; `within` takes any strategy). The members that
there are train their candidates one after the other, and both kinds of weights are crossed with both of hyperparameters. The
worst quarter is not replaced at once when candidates have been chosen, but an interval later. A round begins if two of its
intervals are left, of which the first is counted twice here, too. A best score counts when half of the population has come as
far, since members need not keep step.
"""

from __future__ import annotations

import functools
import math
from bisect import bisect_right
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple

import numpy as np

from phyla import randomness
from phyla.errors import SettingsError
from phyla.events import Ref
from phyla.randomness import Purpose
from phyla.record import Record
from phyla.settings import Settings
from phyla.space import Hypers, Space, draw
from phyla.strategies import contract, given, gp
from phyla.strategies.contract import FRESH, KEEP, Decision, Mix, Strategy, Weights
from phyla.strategies.evolve import Evolve
from phyla.strategies.perturb import Perturb
from phyla.strategies.places import Places, Search, unordered
from phyla.strategies.truncation import Truncation, group_size, quorum
from phyla.view import View

NOTE = "ipbt"
"""The note that says where a member stands."""

QUARTER = 0.25
"""The share of the best whose weights go into the next round."""

FEWEST_MEMBERS, FEWEST_INTERVALS = 4, 40
"""Members, of whom a quarter copies a quarter; and intervals of the first round in a budget, for two rounds or more."""

FEWEST_ROWS = 4
"""Earlier candidates from which a model is made."""

TOGETHER = 2**32 - 1
"""In the place of a member, for what is drawn for all."""

HOPE, APART, NEAR = math.sqrt(3), 0.02, 0.1
"""Standard deviations that a model adds to what it expects; the share of a range by which its choices differ in one number at
least; and without a model, the standard deviation of what is drawn near the best start, as such a share."""


class Stage(NamedTuple):
    """Where a member stands: in a round, which it began after `start` intervals of its own, and at a step of that round.

    A step is as long as the round's interval. In 0 it trains one candidate and in 1 the other; 2 begins with the one that it
    was given to go on with, and each later one with a step of `within`.
    """

    round: int = 0
    start: int = 0
    step: int = 0


@dataclass(frozen=True)
class IPBT:
    """Rounds of `within`, each with an interval twice as long as the one before, and begun anew from the best of candidates.

    The first round's interval is `Population(ready=…)`: have 1 % of all intervals there. A new round gives up good weights on
    purpose, so the answer of such a run is `run.best`, the best report ever; `run.final` is where the last round has come to.

    within: the strategy of a round, which sees nobody but the members of that round, such as phyla.PB2().
    patience: a round ends when its best score, smoothed, has not risen for so many of its intervals,
    slow: or has gained less than one standard deviation in so many.
    old, fresh: half of the candidates have old × the weights of one of the best, plus fresh × new ones; see phyla.Mix.
    Raises SettingsError for other values; `check`, for a run without a budget, with a burn-in, or fewer than four members.
    """

    within: Strategy = Evolve(Truncation(0.25), Perturb())  # noqa: RUF009 (it is frozen)
    patience: int = 3
    slow: int = 15
    old: float = 0.2
    fresh: float = 0.1

    exempt: ClassVar[Mapping[str, str]] = {
        "T3": "a round begins anew for all, the best too; what was best stays the answer of the run",
    }

    def __post_init__(self) -> None:
        given.part("IPBT: within", self.within, "phyla.PB2(), or phyla.Evolve(exploit, explore)")
        given.whole("IPBT: patience", self.patience, 1, None, "a whole number of intervals, 1 or more")
        given.whole("IPBT: slow", self.slow, 2, None, "a whole number of intervals, 2 or more")
        for name in ("old", "fresh"):
            share = given.number(f"IPBT: {name}", getattr(self, name), 0, math.inf, "a number, 0 or more")
            object.__setattr__(self, name, share)

    @property
    def needs_samples(self) -> bool:
        return contract.needs_samples(self.within)

    def check(self, space: Space, settings: Settings) -> None:
        contract.check(self.within, space, settings)
        if settings.intervals is None:
            raise SettingsError("IPBT needs a budget, intervals=…: a round begins only if there is enough left for it")
        if settings.size < FEWEST_MEMBERS:
            raise SettingsError(f"IPBT needs {FEWEST_MEMBERS} members or more, got size={settings.size}")
        if settings.burn_in > settings.ready:
            raise SettingsError(
                f"IPBT begins with two candidates, each trained for ready={settings.ready} intervals: a burn-in of "
                f"{settings.burn_in} would favour the first one; leave burn_in out"
            )

    def advise(self, space: Space, settings: Settings) -> list[str]:
        said = contract.advise(self.within, space, settings)
        if settings.intervals is not None and (found := settings.intervals // settings.ready) < FEWEST_INTERVALS:
            said.append(
                f"IPBT: {found} of the first round's intervals make the budget, and each round's are twice as long as those "
                f"of the one before; fewer than {FEWEST_INTERVALS} have hardly room for two rounds, and the paper has 100"
            )
        return said

    def retain(self, view: View) -> Collection[Ref]:
        """The candidates of the newest round, as long as anybody is to be given one; and what `within` asks for."""
        kept = set(contract.retained(self.within, view))
        stages = [_stage(history) for history in view.history]
        newest = max((stage.round for stage in stages), default=0)
        waits = [stage.round < newest or stage.step < 2 for stage in stages]
        if (view.unfinished() & waits).any():
            for history, stage in zip(view.history, stages, strict=True):
                kept |= {record.ref for record in _candidates(view, history, stage)} if stage.round == newest else set()
        return kept

    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Decision:
        seen = _Seen(view, member)
        return self._next_round(seen, rng) or self._next_step(seen, self.within, rng) or seen.stays()

    def rescue(self, view: View, member: int, rng: np.random.Generator) -> Decision:
        """For a member whose own state is lost: what is due is due all the same; otherwise `within` replaces it."""
        seen, within = _Seen(view, member), getattr(self.within, "rescue", RESCUE)
        return self._next_round(seen, rng) or self._next_step(seen, within, rng) or seen.asks(within, rng)

    def _next_round(self, seen: _Seen, rng: np.random.Generator) -> Decision | None:
        """The first candidate of a new round, if others have begun one, or this one has come to a stand."""
        number = max(stage.round for stage in seen.stages)
        why: str | None = "others have begun it"
        if number == seen.stage.round:
            number, why = number + 1, self.stands(seen.curve) if seen.due > 2 else None
        if why is None or seen.left < 3 * seen.length(number):
            return None
        source, stage = seen.one_of_the_best(rng), Stage(number, seen.done)
        weights = Mix(source, self.old, self.fresh) if source is not None else FRESH
        return seen.begins(weights, stage, rng, why=why)

    def _next_step(self, seen: _Seen, within: Strategy, rng: np.random.Generator) -> Decision | None:
        """What the next step of the round begins with, if that is due."""
        if not seen.due:
            return None
        stage = seen.stage._replace(step=seen.due)
        if seen.due == 1:
            return seen.begins(FRESH, stage, rng)
        if seen.due == 2 and (dealt := seen.dealt()) is not None:
            return _noted(Decision(dealt, dealt.hypers), stage)
        return seen.asks(within, rng, stage)

    def stands(self, curve: Sequence[float]) -> str | None:
        """Why a round is to end that had these best scores, one an interval; None where it is to go on."""
        if len(curve) >= self.slow:
            scores = gp.standardised(curve)
            if scores.max() - scores[: len(scores) - self.slow + 1].max() < 1:
                return f"less than a standard deviation in {self.slow} intervals"
        lately = [tuple(curve[: len(curve) - back]) for back in range(self.patience)]
        if len(curve) > self.patience and not any(map(_rises, lately)):
            return f"no rise in {self.patience} intervals"
        return None


RESCUE = Evolve(Truncation(QUARTER), Perturb()).rescue
"""Where `within` has none of its own."""


# What a member sees ---------------------------------------------------------------------------------------------------


class _Seen:
    """What a member goes by. stages: where each stands, as far as this one knows; due: the step that begins now, or 0."""

    def __init__(self, view: View, member: int):
        self.view, self.member, self.done = view, member, int(view.done[member])
        self.left = view.intervals - self.done
        self.known = view.known(member)
        self.stages = [_stage(history) for history in self.known]
        self.stage = self.stages[member]
        self.steps = (self.done - self.stage.start) // self.length(self.stage.round)
        self.due = self.stage.step + 1 if self.steps > self.stage.step else 0
        self.round = _Round(view, {m: one.start for m, one in enumerate(self.stages) if one.round == self.stage.round})

    def length(self, number: int) -> int:
        """Of a round's interval, in those of the run."""
        return _length(self.view, number)

    @property
    def curve(self) -> tuple[float, ...]:
        """The best score at the end of each interval of this round, that of all candidates first."""
        best: list[float] = []
        for step in range(self.steps):
            ended = [r for m in self.round.begun if (r := _end(self.view, self.known[m], self.stages[m], step))]
            if len(ended) < quorum(self.view.size):
                break
            best.append(max(map(self.view.value, ended)))
        return tuple(score for score in (max(best[:2], default=-math.inf), *best[2:]) if math.isfinite(score))

    def stays(self) -> Decision:
        own = self.view.restorable(self.member)
        assert own is not None  # decide.py sees to it
        return _noted(Decision(KEEP, own.hypers), self.stage)

    def asks(self, within: Strategy, rng: np.random.Generator, stage: Stage | None = None) -> Decision:
        """What a strategy says that sees this round only."""
        return _noted(within(self.round, self.member, rng), stage or self.stage)

    def begins(self, weights: Weights | Mix, stage: Stage, rng: np.random.Generator, **said: str) -> Decision:
        """A candidate. A model chooses for every other member's first one, and for the second ones of the others."""
        hypers, how = draw(self.view.space_of(self.member), rng), "random"
        place, guided = divmod(self.member + stage.step, 2)
        crashed = self.view.forced[self.member]  # a model would choose the same for it again
        starts = _starts(self.view, self.known) if guided and not crashed else []
        if starts:
            before = place + stage.step * (self.view.size // 2)
            # The same for all who choose in this round, so that each knows what those before it have chosen.
            shared = randomness.generator(self.view.settings.seed, TOGETHER, stage.start, Purpose.DECIDE, stage.round)
            hypers, how = _expected(starts, self.view.space_of(self.member), stage.round, before, shared)
        return _noted(Decision(weights, hypers), stage, hypers=how, **said)

    def one_of_the_best(self, rng: np.random.Generator) -> Record | None:
        """A report of the best quarter, the own one if that is among them; None where there is none."""
        newest, crashed = self.view.newest(self.member), bool(self.view.forced[self.member])
        if newest is not None and newest.score is None and not crashed:
            return self.view.restorable(self.member)  # nobody knows yet how good it is
        ranked = [r for r in self.round.ranked(self.member) if r.finite and not (crashed and r.id == self.member)]
        best = ranked[-max(1, group_size(QUARTER, len(ranked))) :]
        own = [record for record in best if record.id == self.member]
        return (own or best)[rng.integers(len(own or best))] if best else None

    def dealt(self) -> Record | None:
        """What the member is given to go on with; None where no candidate is any good, or where its own has crashed it."""
        view, newest = self.view, self.view.newest(self.member)
        if view.forced[self.member]:
            return None
        if newest is None or newest.score is None:
            return view.restorable(self.member)
        candidates = {m: _candidates(view, self.known[m], self.stages[m]) for m in self.round.begun}
        if newest not in candidates[self.member]:  # it was not asked in time, and has gone on with the second one
            candidates[self.member].append(newest)
        return _deal(view, candidates).get(self.member)


class _Round(View):
    """A view of a round: of who is in it, and what they have reported since they began it. begun: when, by id."""

    def __init__(self, view: View, begun: Mapping[int, int]):
        vars(self).update(vars(view), _standings={})
        self.begun = begun

    def _peers(self, done: int) -> list[Record]:
        return [record for record in super()._peers(done) if self._belongs(record)]

    def known(self, member: int) -> list[list[Record]]:
        return [[record for record in history if self._belongs(record)] for history in super().known(member)]

    def _belongs(self, record: Record) -> bool:
        return record.id in self.begun and record.interval > self.begun[record.id]


# Stages and candidates ------------------------------------------------------------------------------------------------


def _noted(decision: Decision, stage: Stage, **said: str) -> Decision:
    return replace(decision, notes={**(decision.notes or {}), NOTE: {**stage._asdict(), **said}})


def _stage_of(record: Record) -> Stage | None:
    """What was noted when this was decided; there is a note whenever a member was ready."""
    match record.notes:
        case {"ipbt": {"round": int(number), "start": int(start), "step": int(step)}}:
            return Stage(number, start, step)
    return None


def _stage(history: Sequence[Record]) -> Stage:
    """Where a member stands after these reports: it is born to train the first candidate of the first round."""
    return next((stage for record in reversed(history) if (stage := _stage_of(record)) is not None), Stage())


def _length(view: View, number: int) -> int:
    """Of the interval of round `number`, in those of the run."""
    return view.settings.ready << number


def _end(view: View, history: Sequence[Record], stage: Stage, step: int) -> Record | None:
    """A member's last report of a step of the round that it is in; None while it is not through with that."""
    length = _length(view, stage.round)
    begun = stage.start + step * length
    place = bisect_right(history, begun + length, key=lambda record: record.interval) - 1
    through = place >= 0 and history[-1].interval >= begun + length
    return history[place] if through and history[place].interval > begun else None


def _candidates(view: View, history: Sequence[Record], stage: Stage) -> list[Record]:
    """What a member has made of its candidates of this round, as far as it is through with them and they are kept."""
    ends = (_end(view, history, stage, step) for step in (0, 1))
    return [record for record in ends if record is not None and record.available]


def _deal(view: View, candidates: Mapping[int, Sequence[Record]]) -> dict[int, Record]:
    """The better half of all candidates, by the member that goes on with it, so that each goes to one member.

    Who made one of them keeps it, or the better one of two. The others are given the worse ones of two, best first, in order
    of id; if there are too few, because candidates have diverged or are not known, several are given the same better one.
    """
    every = sorted((r for some in candidates.values() for r in some), key=lambda r: (view.value(r), r.id, r.interval))
    better = [record for record in reversed(every[len(every) // 2 :]) if record.finite]
    dealt: dict[int, Record] = {}
    spare = [record for record in better if dealt.setdefault(record.id, record) is not record] or better
    without = [m for m in sorted(candidates) if m not in dealt]
    return dealt | {m: spare[place % len(spare)] for place, m in enumerate(without) if spare}


@functools.lru_cache(maxsize=256)  # all members ask for the same curves
def _rises(curve: tuple[float, ...]) -> bool:
    """Whether a curve still rises at its end, once a Gaussian process has smoothed it."""
    at = np.linspace(0, 1, len(curve))[:, None]
    with gp.one_thread():
        mean, _ = gp.fit(at, gp.standardised(curve)).mean_std(at[-2:])
    return bool(mean[1] > mean[0])


# Where a round begins -------------------------------------------------------------------------------------------------


def _starts(view: View, known: Sequence[Sequence[Record]]) -> list[tuple[Record, float]]:
    """The first report of every candidate that somebody went on with, and the best that its descendants have come to."""
    roots: dict[Ref, Record] = {}
    best: dict[Ref, float] = {}
    chosen: dict[Ref, Record] = {}
    for record in sorted((r for history in known for r in history), key=lambda r: r.position):
        parent = record.parent if not record.mixed else None
        root = roots[record.ref] = roots.get(parent.ref, record) if parent is not None else record
        best[root.ref] = max(view.value(record), best.get(root.ref, -math.inf))
        if (stage := _stage_of(record)) is not None and stage.step > 1:
            chosen[root.ref] = root
    found = [(root, best[ref]) for ref, root in chosen.items() if math.isfinite(best[ref])]
    return sorted(found, key=lambda one: (one[0].interval, one[0].id))


def _expected(
    starts: Sequence[tuple[Record, float]], space: Space, number: int, before: int, rng: np.random.Generator
) -> tuple[Hypers, str]:
    """Hyperparameters for a candidate of round `number`, and how they came about. before: how many others choose first."""
    best, _ = max(starts, key=lambda one: one[1])
    try:
        if len(starts) < FEWEST_ROWS:
            raise np.linalg.LinAlgError(f"only {len(starts)} candidates are known")
        with gp.one_thread():
            found, how = _promised(starts, best.hypers, space, number, before, rng), "expected of a model"
    except np.linalg.LinAlgError as error:
        for _ in range(before + 1):
            found = {name: space[name].shift(best.hypers[name], NEAR, rng) for name in sorted(space)}
        how = f"near the best start: {error}"
    return {name: found[name] for name in space}, how


def _promised(
    starts: Sequence[tuple[Record, float]], at: Hypers, space: Space, number: int, before: int, rng: np.random.Generator
) -> Hypers:
    """What a model of all starts expects most of, near `at` or anywhere, where others have chosen first, by the same draws."""
    places, same = Places(space, unordered(space)), np.zeros(len(starts))
    rounds = [(_stage_of(root) or Stage()).round for root, _ in starts]
    rows = places.inputs([root.hypers for root, _ in starts], same, rounds)
    model = gp.fit(rows.x, gp.standardised([best for _, best in starts]), rows.time, rows.categories)
    search = Search(places, model, HOPE, APART)
    for _ in range(before + 1):
        found = search.next(places.inputs([at], same[:1], number), set(space), rng)
    return places.hypers(found)
