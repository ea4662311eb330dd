"""MO-PBT: several objectives, and no weights between them. The population becomes a front, not one model.

Dushatskiy et al. 2023, "Multi-Objective Population Based Training", arXiv 2306.01436.

From the paper and its published code: the rank (fronts, and then whoever is farthest from those before), groups of a quarter,
a donor drawn uniformly, and the explore, which is that of PBA (`Steps`); its experiments have 32 members and 50 intervals.
phyla's own: each objective is divided by its range before distances are taken (in that code it is not, and units decide);
members with an objective that is not finite rank last; and the front of all reports so far keeps its checkpoints, since it is
the answer of such a run.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from phyla import pareto
from phyla.errors import SettingsError
from phyla.events import Ref
from phyla.record import Record, show_value
from phyla.settings import Settings
from phyla.space import Space, draw
from phyla.strategies import contract, given
from phyla.strategies.contract import FRESH, KEEP, Decision, Explore
from phyla.strategies.evolve import RESCUE_FRACTION
from phyla.strategies.steps import Steps
from phyla.strategies.truncation import group_size, quorum
from phyla.view import View

SCORE = "score"
"""What the score is called among the objectives, where `Population(metric=)` gives it no other name."""

Way: TypeAlias = Literal["max", "min"]

Values: TypeAlias = tuple[float, ...]
"""What a report came to in each objective, in their order; higher is better in each, whatever its way."""

_Axes: TypeAlias = list[tuple[str | None, float]]
"""Of each objective the metric that it is (None: the score), and the sign that makes higher better."""


@dataclass(frozen=True, init=False, repr=False)
class MOPBT:
    """A member in the worst `fraction` copies a member drawn uniformly from the best `fraction`, and explores.

    objectives: each one's name, and whether it is to be "max" or "min". One of them is the score: the one that
        Population(metric=…) names, or "score" itself. The others are read from what else `report` is given, a number each;
        None says that it was not measured, and then the member is neither donor nor replaced.
    fraction: from 0 to 0.5. Members rank by non-dominated fronts, and within one as `phyla.pareto.rank` says.
    explore: as in Population; None copies unchanged.
    archive: how many reports of the front of all so far keep their checkpoints, at most; see `retain`.
    reference: by name, the values from which the front's hypervolume is measured; None: the worst that was reported. It is
        shown to readers, and decides nothing.
    Raises SettingsError for other values; `check`, where the score is none of the objectives, or has the other mode.

    >>> MOPBT({"accuracy": "max", "latency": "min"}, archive=20)
    MOPBT({'accuracy': 'max', 'latency': 'min'}, explore=Steps(0, 1, 2, 3, resample=0.2, levels=10), archive=20)
    """

    objectives: tuple[tuple[str, Way], ...]
    fraction: float
    explore: Explore | None
    archive: int
    reference: tuple[float, ...] | None  # in the order of the objectives

    def __init__(
        self,
        objectives: Mapping[str, Way] | Sequence[tuple[str, Way]],
        fraction: float = 0.25,
        explore: Explore | None = Steps(),  # noqa: B008 (it is frozen)
        archive: int = 32,
        reference: Mapping[str, float] | Sequence[float] | None = None,
    ):
        share, most = "a share from 0 to 0.5, of the members that copy", "a whole number of checkpoints, 1 or more"
        if explore is not None:
            given.part("MOPBT: explore", explore, "phyla.Steps(), or None")
        object.__setattr__(self, "objectives", pairs := _pairs(objectives))
        object.__setattr__(self, "fraction", given.number("MOPBT: fraction", fraction, 0, 0.5, share))
        object.__setattr__(self, "explore", explore)
        object.__setattr__(self, "archive", given.whole("MOPBT: archive", archive, 1, None, most))
        object.__setattr__(self, "reference", _reference(reference, [name for name, _ in pairs]))

    def __repr__(self) -> str:
        shown = [repr(dict(self.objectives)), f"explore={self.explore!r}"]
        if self.fraction != 0.25:
            shown.insert(1, f"fraction={self.fraction!r}")
        if self.archive != 32:
            shown.append(f"archive={self.archive!r}")
        if self.reference is not None:
            shown.append(f"reference={dict(zip(dict(self.objectives), self.reference, strict=True))!r}")
        return f"MOPBT({', '.join(shown)})"

    def check(self, space: Space, settings: Settings) -> None:
        """Raises SettingsError if the score is none of the objectives, or is to be high here and low there."""
        contract.check(self.explore, space, settings)
        score, ways = settings.metric or SCORE, dict(self.objectives)
        if score not in ways:
            raise SettingsError(
                f"MOPBT: the score must be one of the objectives, which are {_listed(ways)}; it is called {score!r}. "
                "Name one of them in Population(metric=…), and report all of them in a dict"
            )
        if ways[score] != settings.mode:
            raise SettingsError(
                f"MOPBT: the objective {score!r} is the score, and is {ways[score]!r} here, but "
                f"Population(mode={settings.mode!r}): make them agree"
            )

    def advise(self, space: Space, settings: Settings) -> list[str]:
        said, k = contract.advise(self.explore, space, settings), group_size(self.fraction, settings.size)
        if 0 < k < len(self.objectives):
            said.append(
                f"MOPBT: {self.fraction} of {settings.size} members makes groups of {k}, too few donors to hold the best in "
                f"each of {len(self.objectives)} objectives. A larger fraction or a larger population holds more"
            )
        return said

    @property
    def exempt(self) -> dict[str, str]:
        """The traps of `phyla.testing.strategies` that speak of one score; with one objective they hold."""
        if len(self.objectives) == 1:
            return {}
        better = "a donor is better by fronts over all objectives, and may be worse in the score"
        return {
            "T3": f"{better}: so whoever is best by score may be among the worst",
            "T4": better,
            "T6": f"{better}: members of equal scores are not equal",
        }

    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Decision:
        own = view.restorable(member)
        assert own is not None  # decide.py sees to it
        self._check_names(view, member, own)
        diverged, others = self.ranked(view, member)
        worst_first = [record.id for record in (*diverged, *reversed(others))]
        k = group_size(self.fraction, len(worst_first))
        donors = others[:k]
        if len(worst_first) < quorum(view.size) or member not in worst_first[:k] or not donors:
            return Decision(KEEP, own.hypers)
        return self._copy(donors[rng.integers(len(donors))], view, member, rng)

    def rescue(self, view: View, member: int, rng: np.random.Generator) -> Decision:
        """For a member whose own state is lost: copies one of the best, or is born again where nobody can be copied."""
        donors = [record for record in self.ranked(view, member)[1] if record.id != member]
        if not donors:
            return Decision(FRESH, draw(view.space_of(member), rng))
        k = max(1, group_size(RESCUE_FRACTION, len(donors)))
        return self._copy(donors[rng.integers(k)], view, member, rng)

    def _copy(self, donor: Record, view: View, member: int, rng: np.random.Generator) -> Decision:
        if self.explore is None:
            return Decision(donor, donor.hypers)
        return Decision(donor, self.explore(donor.hypers, view.space_of(member), view, member, rng))

    def ranked(self, view: View, member: int) -> tuple[list[Record], list[Record]]:
        """The peers that have every objective: those with one that is not finite, by id; and the others, best first."""
        axes = self._axes(view.settings)
        known = [(r, values) for r in view.peers(member) if (values := _values(r, axes)) is not None]
        good = [(record, values) for record, values in known if _finite(values)]
        best_first = [good[index][0] for index in pareto.rank([values for _, values in good])]
        return [record for record, values in known if not _finite(values)], best_first

    def retain(self, view: View) -> Collection[Ref]:
        """The front of all reports so far: what is kept already and the newest report, so it takes no longer in a long run.

        Where there are more than `archive`, the one goes that ranks last among them: the nearest to others. Then something may
        come in later that it would have dominated.
        """
        axes, kept = self._axes(view.settings), dict[Ref, Values]()
        for ref in view.retained:
            record = view.records[ref]
            if not record.void and (values := _values(record, axes)) is not None:
                kept[ref] = values
        newest = next(reversed(view.records.values()), None)
        if newest is None:
            return ()
        return self._admit(kept, newest.ref, _values(newest, axes)).keys()

    def _admit(self, kept: dict[Ref, Values], ref: Ref, values: Values | None) -> dict[Ref, Values]:
        """What is kept after one more report. Of equals the first stays."""
        if values is None or not _finite(values) or any(all(map(operator.ge, one, values)) for one in kept.values()):
            return kept
        found = {one: before for one, before in kept.items() if not all(map(operator.le, before, values))}
        found[ref] = values
        if len(found) > self.archive:
            refs = sorted(found)
            del found[refs[pareto.rank([found[one] for one in refs])[-1]]]
        return found

    def front(self, view: View) -> Front | None:
        """The front of a run as it stands; None if no report has every objective yet."""
        axes, kept, worst = self._axes(view.settings), dict[Ref, Values](), None
        for ref, record in view.records.items():
            if record.void or (values := _values(record, axes)) is None or not _finite(values):
                continue
            kept = self._admit(kept, ref, values)
            worst = tuple(map(min, worst, values)) if worst is not None else values
        if worst is None:
            return None
        signs = [sign for _, sign in axes]
        reference = worst if self.reference is None else tuple(map(operator.mul, signs, self.reference))
        volume = pareto.hypervolume(list(kept.values()), reference)

        def by_name(values: Values) -> dict[str, float]:
            names = [name for name, _ in self.objectives]
            return {name: sign * value + 0.0 for name, sign, value in zip(names, signs, values, strict=True)}  # no -0.0

        refs = sorted(kept, key=lambda ref: (kept[ref], ref), reverse=True)
        records, came_to = [view.records[ref] for ref in refs], [by_name(kept[ref]) for ref in refs]
        return Front(dict(self.objectives), records, came_to, volume, by_name(reference), self.reference is not None)

    def _axes(self, settings: Settings) -> _Axes:
        score = settings.metric or SCORE
        ways = [(None, settings.mode) if name == score else (name, way) for name, way in self.objectives]
        return [(name, 1.0 if way == "max" else -1.0) for name, way in ways]

    def _check_names(self, view: View, member: int, own: Record) -> None:
        """Raises SettingsError for an objective that nobody has reported: a misspelt one is found at the first decision."""
        if own.score is None:
            return
        peers = view.peers(member)
        for name, _ in self._axes(view.settings):
            if name is not None and not any(_has(record, name) for record in peers):
                where = f"that of member {own.id}, interval {own.interval}"
                there = _listed([view.settings.metric or SCORE, *(own.metrics or ())])
                raise SettingsError(
                    f"MOPBT: no report has a number for the objective {name!r}: {where}, has {there}. Report it too, "
                    "as None where it was not measured, and begin anew with fresh=True"
                )


@dataclass(frozen=True)
class Front:
    """What a run with several objectives came to: reports of which none is better than another in every objective.

    objectives: by name, whether higher or lower is better. records: the reports, whose checkpoints are kept; the best in the
    first objective first. values: of each, what it came to, by objective. hypervolume: what they cover from `reference` on, in
    the units of the objectives, multiplied. reference: by objective; the worst reported so far, unless it was `chosen`.
    """

    objectives: dict[str, Way]
    records: list[Record]
    values: list[dict[str, float]]
    hypervolume: float
    reference: dict[str, float]
    chosen: bool

    def __str__(self) -> str:
        count = f"{len(self.records)} report{'' if len(self.records) == 1 else 's'}"
        reference = ", ".join(f"{name} {show_value(value)}" for name, value in self.reference.items())
        whose = "" if self.chosen else "the worst seen: "
        return f"{count}, hypervolume {self.hypervolume:.4g} (reference: {whose}{reference})"


def front(view: View) -> Front | None:
    """The front of a run as it stands, by what its journal says; None if its strategy is not MOPBT, or nothing is in it yet.

    What `retain` has kept; only if a checkpoint was lost may one be named that had gone before for its sake.
    """
    match view.settings.strategy:
        case {"type": "phyla.MOPBT", "objectives": objectives, "archive": archive, "reference": reference}:
            with suppress(SettingsError):  # whatever else it was made of: explore may be the user's own
                return MOPBT(objectives, explore=None, archive=archive, reference=reference).front(view)
    return None


def _values(record: Record, axes: _Axes) -> Values | None:
    """What a report came to; None if one of the objectives was not measured."""
    found, metrics = [], record.metrics or {}
    for name, sign in axes:
        value = record.score if name is None else _number(metrics.get(name))
        if value is None:
            return None
        found.append(sign * value)
    return tuple(found)


def _has(record: Record, name: str) -> bool:
    """Whether it has a number for this metric, or says that it was not measured."""
    value = (record.metrics or {}).get(name, "")
    return value is None or _number(value) is not None


def _finite(values: Values) -> bool:
    return all(map(math.isfinite, values))


def _number(value: object) -> float | None:
    """A metric as a number: in a journal, NaN and infinities are words. None for what is no number."""
    if isinstance(value, int | float):
        return float(value)
    return float(value) if value in ("nan", "inf", "-inf") else None


def _pairs(objectives: Any) -> tuple[tuple[str, Way], ...]:
    """The objectives, in order, which counts: dicts are equal whatever theirs is."""
    expected = 'names, each with "max" or "min", as in {"accuracy": "max", "latency": "min"}'
    try:
        pairs = tuple(
            (name, way) for name, way in (objectives.items() if isinstance(objectives, Mapping) else objectives)
        )
    except (TypeError, ValueError):
        raise SettingsError(f"MOPBT: objectives must be {expected}, got {objectives!r}") from None
    good = all(isinstance(name, str) and way in ("max", "min") for name, way in pairs)
    if not pairs or not good or len(dict(pairs)) < len(pairs):
        raise SettingsError(f"MOPBT: objectives must be {expected}, each once, got {objectives!r}")
    return pairs


def _reference(reference: Any, names: list[str]) -> tuple[float, ...] | None:
    """The reference point, in the order of the objectives."""
    if reference is None:
        return None
    if isinstance(reference, Mapping):
        values = [reference[name] for name in names] if set(reference) == set(names) else []
    else:
        values = list(reference) if isinstance(reference, list | tuple) else []
    if len(values) != len(names) or not all(map(given.is_number, values)):
        raise SettingsError(
            f"MOPBT: reference must be a finite number for each objective, {_listed(names)}, by name; got {reference!r}"
        )
    return tuple(map(float, values))


def _listed(names: Collection[str]) -> str:
    return ", ".join(map(repr, names))
