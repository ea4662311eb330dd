"""Explore by perturbing: each hyperparameter by itself, by a factor or with Gaussian noise, or redrawn from its prior.

Jaderberg et al. 2017, "Population Based Training of Neural Networks", arXiv 1711.09846: perturb (each hyperparameter
independently × 1.2 or × 0.8) and resample (each redrawn from its original prior with some fixed probability).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from phyla.errors import SettingsError
from phyla.settings import Settings
from phyla.space import Hyperparameter, Hypers, Space, Value
from phyla.strategies.given import is_number, probability

if TYPE_CHECKING:
    from phyla.view import View


@dataclass(frozen=True, init=False, repr=False)
class Perturb:
    """Each hyperparameter independently times one of the factors, all equally likely (the paper's explore).

    factors: positive; what they mean to each kind says its `scale`. Given none, 0.8 and 1.2. A factor of 1 stays.
    resample: the probability with which each is redrawn from its prior instead.
    Raises SettingsError for factors that are not positive and finite, or if nothing could ever move.

    >>> Perturb()
    Perturb(0.8, 1.2)
    """

    factors: tuple[float, ...]
    resample: float

    def __init__(self, *factors: float, resample: float = 0.0):
        factors = factors or (0.8, 1.2)
        for factor in factors:
            if not is_number(factor) or factor <= 0:
                raise SettingsError(
                    f"Perturb: factors must be positive, finite numbers, as in Perturb(0.8, 1.2), got {factor!r}"
                )
        object.__setattr__(self, "factors", tuple(float(factor) for factor in factors))
        object.__setattr__(self, "resample", probability("Perturb: resample", resample))
        if self.resample == 0 and all(factor == 1 for factor in factors):
            raise SettingsError(
                f"{self!r} moves nothing: at least one factor must differ from 1, or resample be above 0"
            )

    def __repr__(self) -> str:
        return f"Perturb({', '.join(map(repr, self.factors))}{_shown(self.resample)})"

    def __call__(self, hypers: Hypers, space: Space, view: View, member: int, rng: np.random.Generator) -> Hypers:
        """The donor's hypers, explored: a new dict. Structural hyperparameters stay as they are."""

        def move(name: str, hyperparameter: Hyperparameter, value: Value) -> Value:
            return hyperparameter.scale(value, self.factors[rng.integers(len(self.factors))], rng)

        return each(hypers, space, self.resample, move, rng)


@dataclass(frozen=True, repr=False)
class Gaussian:
    """Each hyperparameter independently plus Gaussian noise, on the axis that it is encoded on (log where `log=True`).

    sigma: the noise's standard deviation as a fraction of the range, for all or by name; names left out get no noise.
    resample: the probability with which each is redrawn from its prior instead.
    Raises SettingsError for a sigma that is not positive and finite; `check`, for a name that the space does not have.

    >>> Gaussian({"lr": 0.1}, resample=0.25)
    Gaussian({'lr': 0.1}, resample=0.25)
    """

    sigma: float | Mapping[str, float] = field(hash=False)  # a dict has no hash; what is equal still hashes equally
    resample: float = 0.0

    def __post_init__(self) -> None:
        by_name = isinstance(self.sigma, Mapping)
        sigmas = dict(self.sigma) if isinstance(self.sigma, Mapping) else {"sigma": self.sigma}
        for name, sigma in sigmas.items():
            if not is_number(sigma) or sigma <= 0:
                what = f"sigma[{name!r}]" if by_name else "sigma"
                raise SettingsError(f"Gaussian: {what} must be a positive, finite number, got {sigma!r}")
            sigmas[name] = float(sigma)
        if not sigmas:
            raise SettingsError("Gaussian: sigma must be a number or name at least one hyperparameter, got {}")
        object.__setattr__(self, "sigma", sigmas if by_name else sigmas["sigma"])
        object.__setattr__(self, "resample", probability("Gaussian: resample", self.resample))

    def __repr__(self) -> str:
        return f"Gaussian({self.sigma!r}{_shown(self.resample)})"

    def check(self, space: Space, settings: Settings | None = None) -> None:
        """Raises SettingsError if sigma names a hyperparameter that this space does not have."""
        if isinstance(self.sigma, Mapping) and (unknown := sorted(self.sigma.keys() - space.keys())):
            raise SettingsError(f"Gaussian: sigma names {unknown[0]!r}; the space has {', '.join(map(repr, space))}")

    def __call__(self, hypers: Hypers, space: Space, view: View, member: int, rng: np.random.Generator) -> Hypers:
        """The donor's hypers, explored: a new dict. Structural hyperparameters stay as they are."""
        self.check(space)

        def move(name: str, hyperparameter: Hyperparameter, value: Value) -> Value:
            sigma = self.sigma.get(name) if isinstance(self.sigma, Mapping) else self.sigma
            return value if sigma is None else hyperparameter.shift(value, sigma, rng)

        return each(hypers, space, self.resample, move, rng)


def each(
    hypers: Hypers,
    space: Space,
    resample: float,
    move: Callable[[str, Hyperparameter, Value], Value],
    rng: np.random.Generator,
) -> Hypers:
    """Each hyperparameter that is not structural, by itself: redrawn with probability `resample`, moved otherwise.

    By name, since the order in which a script or a journal lists the space must not change what is drawn.
    """
    free = sorted(name for name, hyperparameter in space.items() if not hyperparameter.structural)
    explored = {
        name: space[name].sample(rng) if rng.random() < resample else move(name, space[name], hypers[name])
        for name in free
    }
    return {**hypers, **explored}


def _shown(resample: float) -> str:
    return f", resample={resample!r}" if resample else ""
