"""What `report` takes as a score, turned into plain numbers; and the errors for everything else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from phyla.errors import ScoreError
from phyla.events import as_json_number


class Score(NamedTuple):
    """value: a number, NaN for a diverged member, or None for no score yet. samples: this interval's, where given."""

    value: float | None
    samples: list[float] | None
    metrics: dict[str, Any] | None


EXPECTED = "expected a number, this interval's samples as a flat sequence of numbers, None for no score yet, or a dict"


def parse(score: Any, metric: str | None, metrics: Mapping[str, Any] | None) -> Score:
    """A score as the user gives it: see `Member.report`. Raises ScoreError."""
    extra = dict(metrics) if metrics is not None else {}
    if isinstance(score, Mapping):
        keys = ", ".join(map(repr, score)) or "nothing"
        if metric is None:
            raise ScoreError(
                f"report was given a dict with {keys}: name the score among them with Population(metric=…)"
            )
        if metric not in score:
            raise ScoreError(
                f"report was given a dict with {keys}, but Population(metric={metric!r}) is not among them"
            )
        extra = {**{key: value for key, value in score.items() if key != metric}, **extra}
        score = score[metric]
    value, samples = _number_or_samples(score)
    return Score(value, samples, {str(k): _plain(k, v) for k, v in extra.items()} or None)


def _number_or_samples(score: Any) -> tuple[float | None, list[float] | None]:
    if score is None:
        return None, None
    if isinstance(score, str | bytes | complex):
        raise ScoreError(f"report was given {score!r} as a score, a {type(score).__name__}; {EXPECTED}")
    shape = getattr(score, "shape", None)
    if shape is not None and len(shape) > 1:
        raise ScoreError(f"report was given a score of shape {tuple(shape)}; {EXPECTED}")
    if isinstance(score, Sequence) or (shape is not None and len(shape) == 1):
        samples = [_number(sample, score) for sample in score]
        return (sum(samples) / len(samples), samples) if samples else (None, None)
    return _number(score, score), None


def _number(value: Any, given: Any) -> float:
    try:
        if isinstance(value, str | bytes):
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ScoreError(f"report was given {_short(given)} as a score; {EXPECTED}") from None


def _short(value: Any) -> str:
    text = repr(value)
    return f"{text[:77]}…" if len(text) > 78 else f"{text} ({type(value).__name__})"


def _plain(name: Any, value: Any) -> Any:
    """A metric as JSON: numbers of any library, strings, and lists and dicts of them."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, Mapping):
        return {str(k): _plain(name, v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(name, v) for v in value]
    if getattr(value, "shape", None):
        return _plain(name, value.tolist())
    try:
        return as_json_number(float(value))
    except (TypeError, ValueError):
        raise ScoreError(
            f"report was given the metric {name!r} = {_short(value)}; expected numbers, strings, lists, dicts"
        ) from None


def check_steps(steps: Any) -> int | float:
    """The steps of one report as a plain number."""
    if isinstance(steps, bool) or not isinstance(steps, int | float):
        try:
            steps = steps.item()
        except AttributeError:
            raise ScoreError(f"report was given steps={_short(steps)}; expected a number") from None
    if not (math.isfinite(steps) and steps >= 0):
        raise ScoreError(
            f"report was given steps={steps!r}; expected a finite number, 0 or more: this interval's own steps"
        )
    return steps  # type: ignore[no-any-return]


def windowed(before: Sequence[float], samples: Sequence[float], window: int) -> float:
    """The mean of the newest `window` samples: what ranks a member that reports samples."""
    newest = [*before, *samples][-window:]
    return sum(newest) / len(newest)
