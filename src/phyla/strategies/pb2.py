"""PB2: who is replaced goes on with the hyperparameters that a model of what others have gained promises most of.

Parker-Holder, Nguyen & Roberts 2020, "Provably Efficient Online Hyperparameter Optimization with Population-Based Bandits",
arXiv 2002.02518; with categories: Parker-Holder, Nguyen, Desai & Roberts 2021, "Tuning Mixed Input Hyperparameters on the Fly
for Efficient Population Based AutoRL", arXiv 2106.15883.

From the papers: the worst quarter copies the best; a Gaussian process that forgets (gp.py) models the score gained per step
over an interval, given the score before and the hyperparameters; the next ones are where its upper confidence bound is
highest; those who are replaced together count one another as pending. What an interval has gained is counted from the score of
the report that its weights came from, so no copy is taken for a gain. PB2-Mix draws categories first (bandit.py), and the
model, which sees them, chooses the rest.

phyla's own:
- The bound is mean + √β · standard deviation, with β = 0.2 · ln(1 + 0.4 n) for n rows. (The papers' code takes the variance,
  and ln(0.4 n), which is negative for n ≤ 2.)
- Numbers are on their axis, logarithmic where that is theirs; time counts intervals; no window is chosen, since the rate at
  which the model forgets is fitted.
- Those who are replaced together draw the same numbers, so each finds out what those worse than itself choose, and then chooses
  something else. No claims are read.
- The first fits have few rows: where there are too few, or a fit fails, `fallback` explores, and the notes say so.
"""

from __future__ import annotations

import heapq
import itertools
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

from phyla import randomness
from phyla.errors import SettingsError
from phyla.randomness import Purpose
from phyla.record import Record
from phyla.settings import Settings
from phyla.space import Choice, Hypers, Space, draw
from phyla.strategies import bandit, contract, given, gp
from phyla.strategies.contract import FRESH, KEEP, Decision, Explore
from phyla.strategies.perturb import Perturb
from phyla.strategies.places import Places, Search, number_of, unordered
from phyla.strategies.truncation import group_size, quorum
from phyla.view import View

NOTE = "pb2"
"""The note of how hyperparameters were found: {"rows": known gains, "gp": fitted parameters}, or {"fallback": why}."""

MORE_ROWS = 2
"""So many more gains than numbers, and the score before, make a model."""

APART = 0.05
"""The share of a range by which those who are replaced together differ in one number at least; less if they are many."""

TOGETHER = 2**32 - 1
"""In the place of a member, for what is drawn for several."""

Notes: TypeAlias = dict[str, Any]


class Gain(NamedTuple):
    """What an interval has brought."""

    rate: float  # score gained per step; higher is better
    before: float  # the score that it began with; higher is better
    time: int  # intervals that the member had done before
    hypers: Hypers


def gains(view: View, member: int, most: int) -> list[Gain]:
    """The newest `most` gains that a member knows of, oldest first.

    Nothing is known of the first interval of new weights, of weights that were mixed with such, and where a score is not
    finite.
    """
    return list(itertools.islice(_gains(view, member), most))[::-1]


def _gains(view: View, member: int) -> Iterator[Gain]:
    for record in _newest_first(view, member):
        parent = record.parent
        if parent is None or record.mixed or not (record.finite and parent.finite and record.steps > 0):
            continue
        before = view.value(parent)
        if math.isfinite(rate := (view.value(record) - before) / record.steps):
            yield Gain(rate, before, record.interval - record.span, record.hypers)


def _newest_first(view: View, member: int) -> Iterator[Record]:
    return heapq.merge(*map(reversed, view.known(member)), key=lambda record: (-record.interval, -record.id))


class Chooser(NamedTuple):
    """Somebody who is replaced."""

    donor: Record
    rng: np.random.Generator  # draws what it chooses


class _NoModel(Exception):
    """Why there is none."""


@dataclass(frozen=True)
class _Bandits(ABC):
    """What PB2 and PB2Mix have in common."""

    fraction: float = 0.25
    rows: int = 1000
    fallback: Explore = Perturb()  # noqa: RUF009 (it is frozen)

    def __post_init__(self) -> None:
        name = type(self).__name__
        given.number(f"{name}: fraction", self.fraction, 0, 0.5, "a number from 0 to 0.5, the share that copies")
        given.whole(f"{name}: rows", self.rows, 1, None, "a whole number, 1 or more")
        given.part(f"{name}: fallback", self.fallback, "phyla.Perturb(0.8, 1.2)")

    def check(self, space: Space, settings: Settings) -> None:
        contract.check(self.fallback, space, settings)

    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Decision:
        choosers = self._choosers(view, member)
        if member not in choosers:
            own = view.restorable(member)
            assert own is not None  # decide.py sees to it
            return Decision(KEEP, own.hypers)
        return self._copy(choosers, view, member, rng)

    def rescue(self, view: View, member: int, rng: np.random.Generator) -> Decision:
        """For a member whose own state is lost: copies one of the best, or is born again where nobody can be copied."""
        choosers = self._choosers(view, member)
        if member not in choosers:
            donors = [record for record in view.ranked(member) if record.finite and record.id != member]
            if not donors:
                return Decision(FRESH, draw(view.space_of(member), rng))
            best = donors[-max(1, group_size(self.fraction, len(donors))) :]
            choosers[member] = Chooser(best[rng.integers(len(best))], rng)
        return self._copy(choosers, view, member, rng)

    def _choosers(self, view: View, member: int) -> dict[int, Chooser]:
        """Who is replaced together with this member, worst first, by id. Who copies whom is as in Truncation.

        One generator draws for all of them, and it is the same for each: so they know of one another what they choose.
        """
        ranked, interval = view.ranked(member), int(view.done[member]) + 1
        k = group_size(self.fraction, len(ranked)) if len(ranked) >= quorum(view.size) else 0
        best = [record for record in ranked[len(ranked) - k :] if record.finite]
        if not best:
            return {}
        together = randomness.generator(view.settings.seed, TOGETHER, interval, Purpose.DECIDE, 0)
        return {loser.id: Chooser(best[together.integers(len(best))], together) for loser in ranked[:k]}

    def _copy(self, choosers: dict[int, Chooser], view: View, member: int, rng: np.random.Generator) -> Decision:
        donor = choosers[member].donor
        try:
            with gp.one_thread():
                hypers, notes = self._explore(choosers, view, member)
        except (_NoModel, np.linalg.LinAlgError) as error:
            hypers = self.fallback(donor.hypers, view.space_of(member), view, member, rng)
            notes = {"fallback": str(error)}
        return Decision(donor, hypers, notes={NOTE: notes})

    def _explore(self, choosers: dict[int, Chooser], view: View, member: int) -> tuple[Hypers, Notes]:
        """What the member goes on with, and how that was found. Raises _NoModel, or np.linalg.LinAlgError."""
        space, known = view.space_of(member), gains(view, member, self.rows)
        places = Places(space, unordered(space) if self._sees_kinds else {})
        needed = 1 + len(places.numbers) + MORE_ROWS
        if len(known) < needed:
            raise _NoModel(f"{len(known)} rows of {needed} needed")
        peers = {record.id: view.value(record) for record in view.ranked(member) if record.finite}
        before = _scaled([*(gain.before for gain in known), *peers.values()])
        now = dict(zip(peers, before[len(known) :], strict=True))
        times, gained = [gain.time for gain in known], gp.standardised([gain.rate for gain in known])
        rows = places.inputs([gain.hypers for gain in known], before[: len(known)], times)
        model = gp.fit(rows.x, gained, rows.time, rows.categories, start=_fitted(view, member))
        search = Search(places, model, _trust(len(known)), min(APART, 0.25 / len(choosers)))
        for other, (donor, rng) in choosers.items():
            first = self._first(known, gained, view, member, rng)
            at = places.inputs([{**donor.hypers, **first}], [now[donor.id]], view.done[member])
            free = {
                name for name in (*places.numbers, *places.kinds) if name not in first and not space[name].structural
            }
            found = search.next(at, free, rng)
            if other == member:
                break
        return {**donor.hypers, **places.hypers(found), **first}, {"rows": len(known), "gp": model.parameters.as_json()}

    @property
    @abstractmethod
    def _sees_kinds(self) -> bool:
        """Whether the model is told of unordered choices."""

    @abstractmethod
    def _first(
        self, known: Sequence[Gain], gained: gp.Array, view: View, member: int, rng: np.random.Generator
    ) -> Hypers:
        """What is chosen before the model is asked. gained [n]: the known gains' rates, standardised."""


@dataclass(frozen=True)
class PB2(_Bandits):
    """The worst `fraction` copies the best, and goes on with the numbers that a Gaussian process promises most of.

    fraction: of the population that copies, and that is copied. The papers' population has four members.
    rows: newest gains that the model is made of; its cost grows with their third power.
    fallback: explores where there is no model, as in the first intervals.
    redraw: the probability with which an unordered Choice is redrawn; the model does not know of them (the second paper's
        PB2-Rand). PB2Mix chooses them.
    Raises SettingsError for values that cannot work.
    """

    redraw: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        given.probability("PB2: redraw", self.redraw)

    def advise(self, space: Space, settings: Settings) -> list[str]:
        kinds = ", ".join(map(repr, _free_kinds(space)))
        said = (
            f"PB2's model knows nothing of unordered choices ({kinds}), and redraws them: phyla.PB2Mix() chooses them"
        )
        return [*contract.advise(self.fallback, space, settings), *([said] if kinds else [])]

    @property
    def _sees_kinds(self) -> bool:
        return False

    def _first(
        self, known: Sequence[Gain], gained: gp.Array, view: View, member: int, rng: np.random.Generator
    ) -> Hypers:
        kinds = _free_kinds(view.space_of(member))
        return {name: h.sample(rng) for name, h in kinds.items() if rng.random() < self.redraw}


@dataclass(frozen=True)
class PB2Mix(_Bandits):
    """PB2 for spaces with unordered choices: the model knows of them too.

    fraction, rows, fallback: as in PB2.
    choices: "bandit" draws their values first, by what each has gained (the paper's rule), and the model chooses the rest;
        with "model" it chooses all of them together (Wan et al. 2021, "Think Global and Act Local", arXiv 2102.07188).
    Raises SettingsError for values that cannot work.
    """

    choices: Literal["bandit", "model"] = "bandit"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.choices not in ("bandit", "model"):
            raise SettingsError(f'PB2Mix: choices must be "bandit" or "model", got {self.choices!r}')

    @property
    def _sees_kinds(self) -> bool:
        return True

    def _first(
        self, known: Sequence[Gain], gained: gp.Array, view: View, member: int, rng: np.random.Generator
    ) -> Hypers:
        if self.choices == "model":
            return {}
        rounds, horizon = np.array([gain.time for gain in known]), min(view.intervals, self.rows)
        first: Hypers = {}
        for name, h in _free_kinds(view.space_of(member)).items():
            plays = np.array([number_of(gain.hypers[name], h) for gain in known])
            odds = bandit.odds(plays, _scaled(gained), rounds, len(h.values), horizon)
            first[name] = h.values[rng.choice(len(odds), p=odds)]
        return first


def _trust(n: int) -> float:
    """The standard deviations that are added to what is expected, with a model of n rows: √β."""
    return math.sqrt(0.2 * math.log1p(0.4 * n))


def _free_kinds(space: Space) -> dict[str, Choice]:
    return {name: h for name, h in unordered(space).items() if not h.structural}


def _scaled(values: Sequence[float] | gp.Array) -> gp.Array:
    """From 0 to 1; their range may be more than a float can hold."""
    x = np.asarray(values, float)
    x = x / max(np.abs(x).max(), sys.float_info.min)
    return np.asarray((x - x.min()) / (np.ptp(x) or 1.0))


def _fitted(view: View, member: int) -> gp.Parameters | None:
    """What the newest model had come to: a fit goes on from there."""
    for record in _newest_first(view, member):
        match record.notes:
            case {"pb2": {"gp": dict(found)}}:
                return gp.Parameters.from_json(found)
    return None
