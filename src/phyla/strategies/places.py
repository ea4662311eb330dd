"""Where to try next: the hyperparameters of which a Gaussian process promises most, in any space."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from phyla.space import Choice, Float, Hyperparameter, Hypers, Space, Value
from phyla.strategies import gp
from phyla.strategies.gp import Array, Inputs, Posterior

FAR, NEAR = 384, 128
"""Places that are compared first: anywhere, and around a given one."""

AROUND, AROUND_OTHERS = 64, 32
"""Places around the best one, in each round after that; and around what others may choose."""

RADII = (0.2, 0.1, 0.05, 0.03, 0.02, 0.01)
"""Standard deviations of those rounds, as shares of each range."""

APART = 0.05
"""The share of a range by which those who choose at the same time differ in one number at least; less if they are many."""


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

    def inputs(self, many: Sequence[Hypers], told: Array, time: Array) -> Inputs:
        """n rows. told [n, k]: what else the process is told of each; time [n]."""
        n = len(many)
        x = np.array([[h.encode(one[name]) for name, h in self.numbers.items()] for one in many], float)
        c = np.array([[number_of(one[name], h) for name, h in self.kinds.items()] for one in many], int)
        return Inputs(np.column_stack([told, x.reshape(n, len(self.numbers))]), time, c.reshape(n, len(self.kinds)))

    def hypers(self, one: Inputs) -> Hypers:
        """What the first row stands for."""
        numbers = zip(self.numbers.items(), one.x[0, -len(self.numbers) :].tolist(), strict=True)
        kinds = zip(self.kinds.items(), one.categories[0].tolist(), strict=True)
        return {name: h.decode(x) for (name, h), x in numbers} | {name: h.values[i] for (name, h), i in kinds}

    def best(
        self, model: Posterior, at: Inputs, free: Collection[str], trust: float, ahead: int, rng: np.random.Generator
    ) -> Hypers:
        """Where mean + trust · std is highest, with any value for what is free, and for the rest those of `at`, one row.

        ahead: so many others choose at the same time. What they would is found first, and counts as tried; what is chosen
        is not the same. The search is random, and narrows: places are compared, not computed, so that a rounding error
        hardly ever changes what comes of it. Values are rounded before they are judged (Garrido-Merchán & Hernández-Lobato
        2020, arXiv 1805.03463).
        """
        offers = _stacked(self._drawn(at, free, FAR, None, rng), self._drawn(at, free, NEAR, RADII[0], rng))
        apart, others = min(APART, 0.25 / (ahead + 1)), _rows(offers, [])
        for place, i in enumerate(model.picks(trust, ahead + 1, apart, *offers)):
            chosen = _rows(offers, [i])
            for radius in RADII:
                n = AROUND if place == ahead else AROUND_OTHERS
                around = _stacked(chosen, self._drawn(chosen, free, n, radius, rng))
                mean, std = model.mean_std(*around)
                taken = gp.PASSED_OVER * gp.near(apart, around, others).any(1)
                chosen = _rows(around, [int(np.argmax(mean + trust * std - taken))])
            model, others = model.pretend(*chosen), _stacked(others, chosen)
        return self.hypers(chosen)

    def _drawn(
        self, at: Inputs, free: Collection[str], n: int, radius: float | None, rng: np.random.Generator
    ) -> Inputs:
        """n places around `at`, one row, in what is free; without a radius anywhere."""
        x, time, c = (np.repeat(array, n, 0) for array in at)
        for column, (name, h) in enumerate(self.numbers.items(), x.shape[1] - len(self.numbers)):
            if name in free:
                drawn = rng.random(n) if radius is None else x[:, column] + radius * rng.normal(size=n)
                x[:, column] = _rounded(h, np.clip(drawn, 0, 1))
        for column, (name, choice) in enumerate(self.kinds.items()):
            if name in free:
                redrawn = rng.random(n) < (1.0 if radius is None else radius)
                c[:, column] = np.where(redrawn, rng.integers(len(choice.values), size=n), c[:, column])
        return Inputs(x, time, c)


def _rounded(h: Hyperparameter, places: Array) -> Array:
    """Where on the axis the values are that these places stand for."""
    return places if isinstance(h, Float) else np.array([h.encode(h.decode(place)) for place in places.tolist()])


def _rows(rows: Inputs, which: list[int]) -> Inputs:
    return Inputs(*(array[which] for array in rows))


def _stacked(a: Inputs, b: Inputs) -> Inputs:
    return Inputs(*(np.concatenate(both) for both in zip(a, b, strict=True)))
