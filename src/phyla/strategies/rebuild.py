"""A strategy from its description: what `describe` wrote, for phyla's own kinds. No name from a journal is ever imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

from phyla.errors import SettingsError
from phyla.strategies.contract import Strategy
from phyla.strategies.describe import describe
from phyla.strategies.table import EXPLOITS, EXPLORES, STRATEGIES


def rebuild(described: object) -> Strategy | None:
    """The strategy that a run was created with; None if it, or a part of it, is not phyla's own."""
    found = rebuild_part(described)
    known: Strategy | None = found if type(found) in map(type, STRATEGIES) else None
    return known


def rebuild_part(described: object) -> Any:
    """The same for what strategies are made of: exploit and explore too."""
    try:
        found = _revived(described)
        # What is written otherwise than it would be today was not written by these classes.
        return found if isinstance(described, Mapping) and describe(found) == described else None
    except (_Foreign, SettingsError, TypeError):
        return None


class _Foreign(Exception):
    """A part is the user's own."""


def _revived(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(map(_revived, value))
    if not isinstance(value, Mapping):
        return value
    if "type" not in value:
        return {key: _revived(item) for key, item in value.items()}
    if not isinstance(kind := value["type"], str) or kind not in _KINDS:
        raise _Foreign(kind)
    return _made(_KINDS[kind], {name: _revived(item) for name, item in value.items() if name != "type"})


def _made(kind: Callable[..., Any], fields: dict[str, Any]) -> Any:
    """One of this kind. What its constructor takes as `*factors` is kept in the field `factors`."""
    call = signature(kind).bind_partial()
    call.arguments.update(fields)
    return kind(*call.args, **call.kwargs)


_KINDS: Mapping[str, Callable[..., Any]] = {
    f"phyla.{type(one).__name__}": type(one) for one in (*EXPLOITS, *EXPLORES, *STRATEGIES)
}
