"""What a comparison came to: the scores, the costs and the curves of its arms, as read from their runs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from phyla.compare import CURVE_RESAMPLES, Array, Contrast, Estimate, contrast, summary
from phyla.errors import SettingsError
from phyla.events import as_float
from phyla.glance import trained
from phyla.record import Record
from phyla.runs import Run

POINTS = 100
"""Of a curve."""

SAME_STEPS = 0.01
"""Arms may differ in steps by such a part, before it is said that their cost is not equal."""


@dataclass(frozen=True)
class Trial:
    """What one run came to. Scores are those of the metric that is reported; None: there is none.

    best: of the best report ever; final: of the best report that a member stands at, at the end. intervals, steps: trained
    by all members. exploits: copies. seconds: from its beginning to its last report, without what lay between two starts.
    curve: (intervals trained until then, score) whenever there was a new best, as if members took turns in order of id: who
    was first within a turn is nobody's merit.
    """

    seed: int
    path: str
    best: float | None
    final: float | None
    intervals: int
    steps: float
    exploits: int
    seconds: float
    curve: Sequence[tuple[int, float | None]]


def trial(run: Run, seed: int, metric: str | None) -> Trial:
    """Reads a run. metric: a key of `report(metrics=)`, in the place of the score. Raises SettingsError if there is none."""
    records, view = run.records, run.view
    best, final = run.best, run.final
    metric = None if metric == run.settings.metric else metric
    turns = sorted(records, key=lambda record: (record.interval, record.id))
    spans = itertools.accumulate(record.span for record in turns)
    curve, leader = list[tuple[int, float | None]](), (-math.inf, 0, 0)
    for done, record in zip(spans, turns, strict=True):
        if (
            record.finite and (order := (view.value(record), -record.interval, record.id)) > leader
        ):  # as `best` is chosen
            leader = order
            curve.append((done, _number(record, metric)))
    return Trial(
        seed=seed,
        path=str(run.path),
        best=_reported(best, metric, run),
        final=_reported(final, metric, run),
        intervals=trained(view),
        steps=sum(record.steps for record in records),
        exploits=sum(record.donor is not None for record in records),
        seconds=_seconds(records),
        curve=curve,
    )


def _number(record: Record, metric: str | None) -> float | None:
    """What a record says of the metric; None: nothing, or no number."""
    if metric is None:
        return record.score
    value: Any = (record.metrics or {}).get(metric)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return as_float(value) if number or value in ("nan", "inf", "-inf") else None


def _reported(record: Record | None, metric: str | None, run: Run) -> float | None:
    """The same, of a record that stands for its run."""
    if record is None:
        return None
    value = _number(record, metric)
    if value is None and metric is not None:
        names = ", ".join(map(repr, sorted(record.metrics or {}))) or "none"
        raise SettingsError(
            f"--metric {metric}: the report of member {record.id}, interval {record.interval} in {run.path} has no such "
            f"number; it has {names}. Report it in each interval: report(score, metrics={{{metric!r}: …}})"
        )
    return value


def _seconds(records: Sequence[Record]) -> float:
    """Of all that one process after the other has done, with the decisions between two intervals."""
    total, before = 0.0, None
    for record in records:
        same = before is not None and before.worker == record.worker
        total += record.time - before.time if same and before is not None else record.seconds
        before = record
    return total


@dataclass(frozen=True)
class Arm:
    """One way of training, from several seeds. changes: how it differs, in words; settings: what its runs are created with."""

    name: str
    changes: Mapping[str, str]
    settings: Mapping[str, Any]
    trials: Sequence[Trial]  # in order of seed
    sign: float  # 1 where higher is better, else -1

    def values(self, what: Literal["best", "final"]) -> list[float]:
        """By seed; higher is better, and what is missing is the worst."""
        return [_value(getattr(one, what), self.sign) for one in self.trials]

    def estimate(self, what: Literal["best", "final"]) -> Estimate:
        """The interquartile mean over seeds, as scores are reported."""
        return _turned(summary(self.values(what)), self.sign)

    def mean(self, what: Literal["intervals", "steps", "exploits", "seconds"]) -> float:
        """A run's, on average."""
        return float(np.mean([getattr(one, what) for one in self.trials]))

    @cached_property
    def curve(self) -> tuple[Array, Array]:
        """The best so far: intervals trained by all members, [points]; and at each the score's (value, low, high), [3, points].

        nan before most runs have a score.
        """
        total = max(one.intervals for one in self.trials)
        at = np.unique(np.linspace(1, total, min(POINTS, total)).astype(int))
        values = np.array([_steps(one.curve, at, self.sign) for one in self.trials])  # [seeds, points]
        found = [_turned(summary(column, CURVE_RESAMPLES), self.sign) for column in values.T]
        scores = np.array([[one.value, one.low, one.high] for one in found]).T
        return at, np.where(np.isfinite(scores), scores, math.nan)


def _value(score: float | None, sign: float) -> float:
    return sign * score if score is not None and math.isfinite(score) else -math.inf


def _turned(estimate: Estimate, sign: float) -> Estimate:
    low, high = sorted((sign * estimate.low, sign * estimate.high))
    return Estimate(sign * estimate.value, low, high)


def _steps(curve: Sequence[tuple[int, float | None]], at: Array, sign: float) -> Array:
    """A curve's value at each of these places: that of the last point before or there."""
    values = np.array([-math.inf, *(_value(score, sign) for _, score in curve)])
    return values[np.searchsorted([place for place, _ in curve], at, side="right")]


@dataclass(frozen=True)
class Comparison:
    """Arms that were trained from the same seeds at equal cost. The first is the one that the others are held against.

    score: what is compared; selected_by: what members were selected by, which flatters if it is the same. mode: of `score`.
    absent: arms that have no finished run.
    """

    name: str
    score: str
    selected_by: str
    mode: Literal["max", "min"]
    seeds: Sequence[int]
    arms: Sequence[Arm]
    absent: Sequence[str] = ()

    @property
    def held(self) -> Sequence[Arm]:
        """The arms that are held against the first."""
        return [arm for arm in self.arms[1:] if self._common(arm)]

    def contrasts(self, what: Literal["best", "final"]) -> list[Contrast]:
        """Of each of `held`, by the seeds that both have. The difference is of scores as they are reported."""
        found = contrast([self._pair(arm, what) for arm in self.held])
        return [replace(one, difference=_turned(one.difference, self.arms[0].sign)) for one in found]

    def _common(self, arm: Arm) -> list[int]:
        return sorted({one.seed for one in arm.trials} & {one.seed for one in self.arms[0].trials})

    def _pair(self, arm: Arm, what: Literal["best", "final"]) -> tuple[list[float], list[float]]:
        common = self._common(arm)
        ours, others = (
            [value for one, value in zip(each.trials, each.values(what), strict=True) if one.seed in common]
            for each in (arm, self.arms[0])
        )
        return ours, others

    @property
    def warnings(self) -> list[str]:
        """What makes it less than a comparison at equal cost over the same seeds."""
        found = [f"{name}: no run is finished" for name in self.absent]
        first = self.arms[0]
        for arm in self.arms:
            if missing := sorted(set(self.seeds) - {one.seed for one in arm.trials}):
                found.append(
                    f"{arm.name}: without seed {', '.join(map(str, missing))}, whose run is not finished; if its failure has "
                    "to do with its score, the others flatter"
                )
        for arm in self.arms[1:]:
            ours, theirs = arm.mean("intervals"), first.mean("intervals")
            if ours != theirs:
                found.append(
                    f"not at equal cost: {arm.name} trained {ours:,.6g} intervals a run, {first.name} {theirs:,.6g}"
                )
            ours, theirs = arm.mean("steps"), first.mean("steps")
            if abs(ours - theirs) > SAME_STEPS * abs(theirs):
                found.append(
                    f"not at equal cost: {arm.name} trained {ours:,.6g} steps a run, {first.name} {theirs:,.6g}"
                )
        return found

    def as_json(self) -> dict[str, Any]:
        """All of it, for other programs."""
        return {
            "name": self.name,
            "score": self.score,
            "selected_by": self.selected_by,
            "mode": self.mode,
            "seeds": list(self.seeds),
            "arms": [_arm_as_json(arm) for arm in self.arms],
            "against": {
                "arm": self.arms[0].name if self.arms else None,
                **{what: self._contrasts_as_json(what) for what in ("best", "final")},
            },
            "warnings": self.warnings,
        }

    def _contrasts_as_json(self, what: Any) -> list[dict[str, Any]]:
        return [
            {
                "arm": arm.name,
                "seeds": one.seeds,
                "difference": vars(one.difference),
                "probability": vars(one.probability),
                "p": one.p,
                "verdict": one.verdict,
            }
            for arm, one in zip(self.held, self.contrasts(what), strict=True)
        ]


def _arm_as_json(arm: Arm) -> dict[str, Any]:
    at, scores = arm.curve
    return {
        "arm": arm.name,
        "changes": arm.changes,
        "settings": arm.settings,
        **{what: vars(arm.estimate(what)) for what in ("best", "final")},
        **{what: arm.mean(what) for what in ("intervals", "steps", "exploits", "seconds")},
        "runs": [
            {
                **{key: value for key, value in vars(one).items() if key != "curve"},
                "curve": [list(point) for point in one.curve],
            }
            for one in arm.trials
        ],
        "curve": {"intervals": at.tolist(), **dict(zip(("value", "low", "high"), scores.tolist(), strict=True))},
    }
