"""Explore by one of several explores, drawn anew at each copy.

phyla's own, for mixes that are stated as such: perturb three times in four, and redraw everything otherwise.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from phyla.errors import SettingsError
from phyla.settings import Settings
from phyla.space import Hypers, Space
from phyla.strategies import contract, given
from phyla.strategies.contract import Explore

if TYPE_CHECKING:
    from phyla.view import View


@dataclass(frozen=True, init=False, repr=False)
class Either:
    """One of these explores, drawn for all hyperparameters together.

    explores: two or more. weights: positive, one for each, to be drawn in that proportion; None: all equally likely.
    To choose for each hyperparameter by itself, see `Perturb(resample=)` and `ByName`. Raises SettingsError for other values.

    >>> from phyla import Perturb, Resample
    >>> Either(Perturb(), Resample(), weights=(0.75, 0.25))
    Either(Perturb(0.8, 1.2), Resample(probability=1.0), weights=(0.75, 0.25))
    """

    explores: tuple[Explore, ...]
    weights: tuple[float, ...]

    def __init__(self, *explores: Explore, weights: Sequence[float] | None = None):
        if len(explores) < 2:
            raise SettingsError(f"Either: expected two explores or more, got {len(explores)}")
        for explore in explores:
            given.part("Either: an explore", explore, "phyla.Perturb()")
        weights = [1.0] * len(explores) if weights is None else weights
        if not isinstance(weights, list | tuple) or len(weights) != len(explores):
            raise SettingsError(
                f"Either: weights must be {len(explores)} positive numbers, one for each explore, got {weights!r}"
            )
        found = [
            given.number("Either: a weight", weight, sys.float_info.min, 1e300, "a positive number")
            for weight in weights
        ]
        object.__setattr__(self, "explores", explores)
        object.__setattr__(self, "weights", tuple(found))

    def __repr__(self) -> str:
        weights = f", weights={self.weights!r}" if len(set(self.weights)) > 1 else ""
        return f"Either({', '.join(map(repr, self.explores))}{weights})"

    def check(self, space: Space, settings: Settings) -> None:
        for explore in self.explores:
            contract.check(explore, space, settings)

    def advise(self, space: Space, settings: Settings) -> list[str]:
        return [said for explore in self.explores for said in contract.advise(explore, space, settings)]

    def __call__(self, hypers: Hypers, space: Space, view: View, member: int, rng: np.random.Generator) -> Hypers:
        """The donor's hypers, explored: a new dict."""
        shares = np.divide(self.weights, sum(self.weights))
        return self.explores[rng.choice(len(shares), p=shares)](hypers, space, view, member, rng)
