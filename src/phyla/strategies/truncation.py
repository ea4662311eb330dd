"""Truncation selection: the worst fraction copies the best.

Jaderberg et al. 2017, "Population Based Training of Neural Networks", arXiv 1711.09846, §4.1.1; of the rules tried there it did
best.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from phyla.errors import SettingsError
from phyla.record import Record
from phyla.settings import Settings
from phyla.space import Space
from phyla.view import View


def group_size(fraction: float, n: int) -> int:
    """min(⌈fraction · n⌉, n // 2): the top and the bottom group of n never meet."""
    return min(math.ceil(fraction * n - 1e-9), n // 2)  # 0.07 * 100 is a little more than 7


def quorum(size: int) -> int:
    """The scored reports that a population of `size` must have before anyone exploits."""
    return max(2, (size + 1) // 2)


@dataclass(frozen=True)
class Truncation:
    """A member in the bottom `fraction` by score copies a member drawn uniformly from the top `fraction`."""

    fraction: float = 0.2

    def __post_init__(self) -> None:
        if (
            isinstance(self.fraction, bool)
            or not isinstance(self.fraction, int | float)
            or not 0 <= self.fraction <= 0.5
        ):
            raise SettingsError(
                f"Truncation({self.fraction!r}): expected a fraction from 0 to 0.5, the share of the population that copies"
            )

    def advise(self, space: Space, settings: Settings) -> list[str]:
        if settings.size < 4 or group_size(self.fraction, settings.size) != 1:
            return []
        two = math.ceil(100 * 1.01 / settings.size) / 100
        return [
            f"{self!r} of {settings.size} members makes groups of one: whoever is replaced copies the same member. "
            f"Truncation({two}) or a larger population gives more donors"
        ]

    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Record | None:
        ranked = view.ranked(member)
        if len(ranked) < quorum(view.size):
            return None
        k = group_size(self.fraction, len(ranked))
        if member not in [record.id for record in ranked[:k]]:
            return None
        donors = [record for record in ranked[len(ranked) - k :] if record.finite]
        return donors[rng.integers(len(donors))] if donors else None
