"""A strategy from its description: what `describe` wrote, for phyla's own kinds. No name from a journal is ever imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from phyla.errors import SettingsError
from phyla.strategies.contract import Strategy
from phyla.strategies.describe import describe
from phyla.strategies.evolve import Evolve
from phyla.strategies.perturb import Gaussian, Perturb
from phyla.strategies.truncation import Truncation


def rebuild(described: object) -> Strategy | None:
    """The strategy that a run was created with; None if it, or a part of it, is not phyla's own."""
    found = rebuild_part(described)
    return found if isinstance(found, Evolve) else None


def rebuild_part(described: object) -> Any:
    """The same for what strategies are made of: exploit and explore too."""
    if not isinstance(described, Mapping) or not isinstance(kind := described.get("type"), str) or kind not in _KINDS:
        return None
    try:
        found = _KINDS[kind](**{name: value for name, value in described.items() if name != "type"})
        # What is written otherwise than it would be today was not written by these classes.
        return found if describe(found) == described else None
    except (SettingsError, TypeError):
        return None


def _evolve(exploit: object, explore: object, inherit: Any) -> Evolve | None:
    found = Evolve(rebuild_part(exploit), rebuild_part(explore), inherit)
    foreign = (found.exploit is None) != (exploit is None) or (found.explore is None) != (explore is None)
    return None if foreign else found


def _perturb(factors: Any, resample: Any) -> Perturb:
    return Perturb(*factors, resample=resample)


_KINDS: Mapping[str, Callable[..., Any]] = {
    "phyla.Evolve": _evolve,
    "phyla.Truncation": Truncation,
    "phyla.Perturb": _perturb,
    "phyla.Gaussian": Gaussian,
}
