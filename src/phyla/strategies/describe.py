"""A strategy as plain JSON: part of what a run is identified by, so the same one must always give the same words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from typing import Any

import numpy as np

from phyla.errors import SettingsError


def describe(strategy: object) -> dict[str, Any] | None:
    """{"type": qualified name, **fields} for a frozen dataclass, {"type": qualified name} for another callable.

    Fields are described in turn: numbers, strings, sequences, mappings, arrays, and strategies within strategies; None
    is None. phyla's own are named as users name them (`phyla.Perturb`), so that moving one to another file does not
    rename it. What any other callable keeps to itself is not seen: a strategy with settings is best a frozen dataclass.
    Raises SettingsError for what is no strategy, or holds what cannot be described.
    """
    if strategy is None:
        return None
    if is_dataclass(strategy) and not isinstance(strategy, type):
        public = [field.name for field in fields(strategy) if not field.name.startswith("_")]
        return {"type": _name(type(strategy)), **{name: _plain(getattr(strategy, name)) for name in public}}
    if isinstance(strategy, partial):
        bound = {"args": _plain(strategy.args), "keywords": _plain(strategy.keywords)}
        return {"type": _name(partial), "func": describe(strategy.func), **bound}
    if callable(strategy):
        return {"type": _name(strategy if hasattr(strategy, "__qualname__") else type(strategy))}
    raise SettingsError(
        f"a strategy must be a frozen dataclass with __call__, a function, or None, got {strategy!r} "
        f"({type(strategy).__name__})"
    )


def _name(thing: Any) -> str:
    """module.qualname. A script is `__main__`, in spawned processes too; what is phyla's is `phyla.` and its name."""
    module = "__main__" if thing.__module__ == "__mp_main__" else thing.__module__
    return f"{'phyla' if module.startswith('phyla.') else module}.{thing.__qualname__}"


def _plain(value: object) -> Any:
    match value:
        case np.ndarray() | np.generic():
            return _plain(value.tolist())
        case float() if not math.isfinite(value):
            return repr(value)  # JSON has neither NaN nor infinity
        case None | bool() | int() | float() | str():
            return value
        case list() | tuple():
            return [_plain(item) for item in value]
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
    return describe(value)
