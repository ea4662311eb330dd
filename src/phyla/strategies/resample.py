"""Explore by resampling: each hyperparameter is redrawn from its prior, or stays.

Jaderberg et al. 2017, "Population Based Training of Neural Networks", arXiv 1711.09846: one of the two explores there, "with
some fixed probability" that it does not state.
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


@dataclass(frozen=True)
class Resample:
    """Each hyperparameter independently is redrawn from its full prior with this probability, and otherwise stays.

    To perturb those that are not redrawn, see `Perturb(resample=)`. Raises SettingsError for what is no probability above 0.
    """

    probability: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "probability", given.probability("Resample: probability", self.probability))
        if self.probability == 0:
            raise SettingsError("Resample(0) moves nothing: expected a probability above 0")

    def __call__(self, hypers: Hypers, space: Space, view: View, member: int, rng: np.random.Generator) -> Hypers:
        """The donor's hypers, explored: a new dict. Structural hyperparameters stay as they are."""

        def stay(name: str, hyperparameter: Hyperparameter, value: Value) -> Value:
            return hyperparameter.clip(value)

        return each(hypers, space, self.probability, stay, rng)
