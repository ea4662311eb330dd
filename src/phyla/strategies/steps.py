"""Explore by whole steps on a grid, as Population Based Augmentation moves its integers.

Ho et al. 2019, "Population Based Augmentation", arXiv 1905.05393; the same on discretised ranges in Dushatskiy et al. 2023,
"Multi-Objective Population Based Training", arXiv 2306.01436.

From the papers: with probability 0.2 a value is redrawn, otherwise it moves up or down by 0, 1, 2 or 3 steps, all equally
likely, and is clipped; a step of 0 stays. phyla's own: what a step is where there is no grid (see below); a Float moves by grid
steps from where it is, and is not rounded onto a grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from phyla.errors import SettingsError
from phyla.space import Hyperparameter, Hypers, Space, Value
from phyla.strategies import given
from phyla.strategies.perturb import each

if TYPE_CHECKING:
    from phyla.view import View


@dataclass(frozen=True, init=False, repr=False)
class Steps:
    """Each hyperparameter independently moves up or down by a number of steps, or is redrawn from its prior.

    sizes: the numbers of steps, all equally likely; given none, 0, 1, 2 and 3. resample: the probability of a redraw.
    levels: how many steps make the whole axis of a number (its logarithm where `log=True`). An Int moves by one for each
        step at least; an ordered Choice, by one place. An unordered one is redrawn, unless the step is 0.
    Raises SettingsError for other values, or if nothing could ever move.

    >>> Steps()
    Steps(0, 1, 2, 3, resample=0.2, levels=10)
    """

    sizes: tuple[int, ...]
    resample: float
    levels: int

    def __init__(self, *sizes: int, resample: float = 0.2, levels: int = 10):
        sizes = sizes or (0, 1, 2, 3)
        given.whole("Steps: levels", levels, 1, None, "the number of steps that make the whole axis, 1 or more")
        for size in sizes:
            given.whole("Steps: a size", size, 0, levels, f"a whole number of steps, from 0 to levels={levels}")
        object.__setattr__(self, "sizes", sizes)
        object.__setattr__(self, "resample", given.probability("Steps: resample", resample))
        object.__setattr__(self, "levels", levels)
        if self.resample == 0 and not any(sizes):
            raise SettingsError(
                f"{self!r} moves nothing: at least one step must be greater than 0, or resample be above 0"
            )

    def __repr__(self) -> str:
        return f"Steps({', '.join(map(repr, self.sizes))}, resample={self.resample!r}, levels={self.levels})"

    def __call__(self, hypers: Hypers, space: Space, view: View, member: int, rng: np.random.Generator) -> Hypers:
        """The donor's hypers, explored: a new dict. Structural hyperparameters stay as they are."""

        def move(name: str, hyperparameter: Hyperparameter, value: Value) -> Value:
            steps = self.sizes[rng.integers(len(self.sizes))] * (1 if rng.random() < 0.5 else -1)
            return hyperparameter.step(value, steps, self.levels, rng)

        return each(hypers, space, self.resample, move, rng)
