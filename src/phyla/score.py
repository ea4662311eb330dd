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
    if metrics is not None and not isinstance(metrics, Mapping):
        raise ScoreError(f"report was given metrics={_short(metrics)}; expected a dict of names and values")
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
    return Score(value, samples, {_text(str(key)): _metric(key, value) for key, value in extra.items()} or None)


def _number_or_samples(score: Any) -> tuple[float | None, list[float] | None]:
    if score is None:
        return None, None
    if isinstance(score, str | bytes | bytearray | memoryview | complex):
        raise ScoreError(f"report was given {_short(score)} as a score; {EXPECTED}")
    if getattr(score, "requires_grad", False):
        score = score.detach()  # a loss of torch's: it is a number, whatever it needs gradients for
    shape = getattr(score, "shape", None)
    if shape is not None and len(shape) > 1:
        raise ScoreError(f"report was given a score of shape {tuple(shape)}; {EXPECTED}")
    if isinstance(score, Sequence) or (shape is not None and len(shape) == 1):
        samples = [_number(sample, score) for sample in score]
        if not samples:
            return None, None
        finite = all(map(math.isfinite, samples))
        return _mean(samples), samples if finite else None  # else it has diverged: these count for nothing
    return _number(score, score), None


def _number(value: Any, given: Any) -> float:
    try:
        if isinstance(value, str | bytes) or _is_complex(value):
            raise TypeError
        return float(value)
    except _NO_NUMBER:
        raise ScoreError(f"report was given {_short(given)} as a score; {EXPECTED}") from None


_NO_NUMBER = (TypeError, ValueError, OverflowError, RuntimeError)  # the last is torch's


def _is_complex(value: Any) -> bool:
    """Some libraries convert complex numbers with a warning, and drop half of them."""
    return "complex" in str(getattr(value, "dtype", ""))


def _mean(samples: Sequence[float]) -> float:
    """Finite if all samples are: their sum may be too large."""
    mean = sum(samples) / len(samples)
    return mean if math.isfinite(mean) else sum(sample / len(samples) for sample in samples)


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except Exception:  # whose repr fails, or an int of too many digits
        text = object.__repr__(value)
    return f"{text[:77]}… ({type(value).__name__})" if len(text) > 78 else f"{text} ({type(value).__name__})"


def _metric(name: Any, value: Any) -> Any:
    """A metric as JSON: numbers of any library, strings, and lists and dicts of them."""
    try:
        return _plain(value)
    except _NO_NUMBER:  # RecursionError is a RuntimeError
        raise ScoreError(
            f"report was given the metric {name!r} = {_short(value)}; expected numbers, strings, lists, dicts"
        ) from None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_text(str(key)): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, bool) or (type(value) is int and -(2**63) <= value < 2**63):
        return value
    if hasattr(value, "tolist") and type(plain := value.tolist()) is not type(value):
        return _plain(plain)
    if isinstance(value, bytes | bytearray):
        raise TypeError
    return as_json_number(float(value))


def _text(text: str) -> str:
    """As UTF-8 can hold it: half a surrogate pair, as in a file's name, becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


def check_steps(steps: Any) -> int | float:
    """The steps of one report as a plain number."""
    try:
        plain = steps.item() if hasattr(steps, "item") else steps
        if isinstance(plain, bool) or not isinstance(plain, int | float):
            raise TypeError
        finite = math.isfinite(plain) and plain >= 0
    except _NO_NUMBER:
        raise ScoreError(f"report was given steps={_short(steps)}; expected a number") from None
    if not finite:
        raise ScoreError(
            f"report was given steps={plain!r}; expected a finite number, 0 or more: this interval's own steps"
        )
    return int(plain) if isinstance(plain, int) else float(plain)


def windowed(before: Sequence[float], samples: Sequence[float], window: int) -> float:
    """The mean of the newest `window` samples: what ranks a member that reports samples."""
    return _mean([*before, *samples][-window:])
