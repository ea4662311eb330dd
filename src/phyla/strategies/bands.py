"""Bands: members far below the population's mean copy members far above it.

The rule of Isaac Lab's Population Based Training (isaac-sim/IsaacLab, `isaaclab_rl/rl_games/pbt`).

From there: leaders score more than μ + max(kσ, gap), underperformers less than μ - max(kσ, gap), and an underperformer copies
a leader drawn uniformly; its own k is 0.1. phyla's own: k is 1 unless it is said otherwise, since with 0.1 nearly half of the
population copies; scores that are not finite are in neither μ nor σ, and below the band; and where there is no leader, nothing
happens (Isaac Lab then changes the hyperparameters of an underperformer that keeps its weights).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from phyla.record import Record
from phyla.settings import Settings
from phyla.space import Space
from phyla.strategies import given
from phyla.strategies.truncation import quorum
from phyla.view import View


@dataclass(frozen=True)
class Bands:
    """A member below the band around the mean score copies a member above it, drawn uniformly.

    sigmas: half the band's width, in standard deviations of the scores. gap: what it is at least, in units of the score; so
    in a population whose members differ by less, nobody copies, where `Truncation` would replace its worst all the same.
    Raises SettingsError for what is negative or not finite.
    """

    sigmas: float = 1.0
    gap: float = 0.0

    def __post_init__(self) -> None:
        for name in ("sigmas", "gap"):
            value = given.number(f"Bands: {name}", getattr(self, name), 0, sys.float_info.max, "a number, 0 or more")
            object.__setattr__(self, name, value)

    def advise(self, space: Space, settings: Settings) -> list[str]:
        # Of n values, one k σ above the mean and one k σ below make n σ² ≥ 2 k² σ².
        if self.sigmas * self.sigmas < settings.size / 2:
            return []
        return [
            f"{self!r} of {settings.size} members: so few cannot lie that far apart, above and below, and nobody ever copies. "
            "Fewer sigmas or a larger population"
        ]

    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Record | None:
        ranked = view.ranked(member)
        own = next((record for record in ranked if record.id == member), None)
        finite = [record for record in ranked if record.finite]
        if own is None or not finite or len(ranked) < quorum(view.size):
            return None
        mean, sigma = spread([view.value(record) for record in finite])
        half = max(self.sigmas * sigma, self.gap)
        leaders = [record for record in finite if view.value(record) > mean + half]
        return leaders[rng.integers(len(leaders))] if leaders and view.value(own) < mean - half else None


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation of a population of finite values, at least one; of any size, though squares overflow."""
    scale = max(map(abs, values)) or 1.0
    scaled = np.divide(values, scale)
    return float(scaled.mean()) * scale, float(scaled.std()) * scale
