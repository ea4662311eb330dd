"""Where to try next: the hyperparameters of which a Gaussian process promises most, in any space."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from phyla.space import Choice, Float, Hyperparameter, Hypers, Space, Value
from phyla.strategies.gp import Array, Inputs, Posterior

FAR, NEAR = 256, 64
"""Places that are compared first: anywhere, and around a given one."""

AROUND = 40
"""Places around the best one, in each round after that."""

RADII = (0.2, 0.1, 0.05, 0.03, 0.02, 0.01)
"""Standard deviations of those rounds, as shares of each range."""

PASSED_OVER = 1e6
"""Standard deviations of the targets, which no place makes up for."""


def unordered(space: Space) -> dict[str, Choice]:
    """The hyperparameters of whose values it can only be said whether they are equal; in order of name."""
    return {name: h for name in sorted(space) if isinstance(h := space[name], Choice) and not h.ordered}


def number_of(value: Value, choice: Choice) -> int:
    """Which of a choice's values this is, from 0."""
    return round(choice.encode(value) * (len(choice.values) - 1))


class Places:
    """Hyperparameters as inputs of a process, beside what else it is told; in order of name.

    numbers: each on its axis, in [0, 1]; the last columns of x. kinds: unordered choices, each by its value's number; those
    that are left out here are not seen.
    """

    def __init__(self, space: Space, kinds: dict[str, Choice]):
        self.numbers = {name: space[name] for name in sorted(space) if name not in unordered(space)}
        self.kinds = kinds

    def inputs(self, many: Sequence[Hypers], told: Any, time: Any) -> Inputs:
        """n rows. told [n]: what else the process is told of each; time [n]."""
        n = len(many)
        x = np.array([[h.encode(one[name]) for name, h in self.numbers.items()] for one in many], float)
        c = np.array([[number_of(one[name], h) for name, h in self.kinds.items()] for one in many], int)
        return Inputs.of(np.column_stack([told, x.reshape(n, len(self.numbers))]), time, c.reshape(n, len(self.kinds)))

    def hypers(self, one: Inputs) -> Hypers:
        """What the first row stands for."""
        numbers = zip(self.numbers.items(), one.x[0, 1:].tolist(), strict=True)
        kinds = zip(self.kinds.items(), one.categories[0].tolist(), strict=True)
        return {name: h.decode(x) for (name, h), x in numbers} | {name: h.values[i] for (name, h), i in kinds}

    def drawn(
        self, at: Inputs, free: Collection[str], n: int, radius: float | None, rng: np.random.Generator
    ) -> Inputs:
        """n places around `at`, one row, in what is free; without a radius anywhere. They are rounded to values that there are.

        (Garrido-Merchán & Hernández-Lobato 2020, arXiv 1805.03463: what is judged should be what is tried.)
        """
        x, time, c = (np.repeat(array, n, 0) for array in at)
        for column, (name, h) in enumerate(self.numbers.items(), 1):
            if name in free:
                drawn = rng.random(n) if radius is None else x[:, column] + radius * rng.normal(size=n)
                x[:, column] = _rounded(h, np.clip(drawn, 0, 1))
        for column, (name, choice) in enumerate(self.kinds.items()):
            if name in free:
                redrawn = rng.random(n) < (1.0 if radius is None else radius)
                c[:, column] = np.where(redrawn, rng.integers(len(choice.values), size=n), c[:, column])
        return Inputs(x, time, c)


class Search:
    """Where mean + trust · std of a process is highest, for several who choose at the same time, one after the other.

    What those before have chosen counts as tried, and is passed over: nothing is chosen that is not further away from it, in
    one number at least, than `apart`, a share of its range, or of another kind, if there is such a place. (Where the process
    has no doubts, all would meet.) The search is random, and narrows. It compares places and does not compute them, so that
    a rounding error hardly ever changes what comes of it.
    """

    def __init__(self, places: Places, model: Posterior, trust: float, apart: float):
        self.places, self.model, self.trust, self.apart = places, model, trust, apart
        self.chosen: Inputs | None = None

    def next(self, at: Inputs, free: Collection[str], rng: np.random.Generator) -> Inputs:
        """The next one's choice: any value for what is free, and for the rest those of `at`; one row each."""
        far, near = (self.places.drawn(at, free, n, radius, rng) for n, radius in ((FAR, None), (NEAR, RADII[0])))
        best = self._best(_stacked(far, near))
        for radius in RADII:
            best = self._best(_stacked(best, self.places.drawn(best, free, AROUND, radius, rng)))
        self.model = self.model.pretend(*best)
        self.chosen = best if self.chosen is None else _stacked(self.chosen, best)
        return best

    def _best(self, offers: Inputs) -> Inputs:
        mean, std = self.model.mean_std(*offers)
        bound = mean + self.trust * std
        if self.chosen is not None:
            bound = bound - PASSED_OVER * _near(self.apart, offers, self.chosen)
        return Inputs(*(array[[np.argmax(bound)]] for array in offers))


def _near(apart: float, a: Inputs, b: Inputs) -> Array:
    """Which of n rows have hyperparameters that are near those of any of m others, bool [n]."""
    close = (np.abs(a.x[:, None, 1:] - b.x[:, 1:]) <= apart).all(2)
    return np.asarray((close & (a.categories[:, None] == b.categories).all(2)).any(1))


def _rounded(h: Hyperparameter, places: Array) -> Array:
    """Where on the axis the values are that these places stand for."""
    return places if isinstance(h, Float) else np.array([h.encode(h.decode(place)) for place in places.tolist()])


def _stacked(a: Inputs, b: Inputs) -> Inputs:
    return Inputs(*(np.concatenate(both) for both in zip(a, b, strict=True)))
