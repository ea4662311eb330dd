"""What strategies are given, checked once, at construction: each returns the value in the form that is kept."""

from __future__ import annotations

import sys
from typing import Any

from phyla.errors import SettingsError


def number(name: str, value: Any, least: float, most: float, expected: str) -> float:
    """A finite number from `least` to `most`. Raises SettingsError that says what was given and what was `expected`."""
    if not is_number(value) or not least <= value <= most:
        raise SettingsError(f"{name} must be {expected}, got {value!r}")
    return float(value)


def probability(name: str, value: Any) -> float:
    """Raises SettingsError for what is no number from 0 to 1."""
    return number(name, value, 0, 1, "a probability from 0 to 1")


def whole(name: str, value: Any, least: int, most: int | None, expected: str) -> int:
    """A whole number from `least` to `most`, or with no end. Raises SettingsError as `number` does."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least or (most is not None and value > most):
        raise SettingsError(f"{name} must be {expected}, got {value!r}")
    return value


def part(name: str, value: Any, example: str) -> Any:
    """A strategy that another one is made of. Raises SettingsError for what cannot be called, and for a class."""
    if isinstance(value, type) or not callable(value):
        raise SettingsError(f"{name} must be one such as {example}, got {value!r}")
    return value


def is_number(value: object) -> bool:
    """Whether this is a finite number; an int may be too large for math.isfinite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max
