"""Gaussian process regression that forgets: the model behind PB2, for tens to a thousand rows, in NumPy alone.

The kernel is a squared exponential with a length scale for each input (ARD), times a factor that decays with time:

    k = v · exp(-½ Σᵢ (xᵢ - xᵢ')² / ℓᵢ²) · exp(-r |t - t'|),    where (1 - ε)^(|t - t'| / 2) is how papers write the last

Bogunovic, Scarlett & Cevher 2016, "Time-Varying Gaussian Process Bandit Optimization", arXiv 1601.06650; as used by
Parker-Holder, Nguyen & Roberts 2020, arXiv 2002.02518. With categories too, as in Parker-Holder et al. 2021, arXiv 2106.15883:

    k = v · ((1 - λ)/2 · (k_x + k_c) + λ · k_x · k_c),    k_c = the share of equal categories · exp(-r_c |t - t'|)

phyla's own: the parameters are fitted with log-normal priors, since the first fits have a handful of rows; from the newest
`LEARN_FROM` rows only, because each step costs n³; and they are rounded, so that rounding errors elsewhere, which differ
from one machine to the next, do not show in what is decided.
"""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]

LEARN_FROM = 300
"""The parameters are fitted to so many of the newest rows; what is predicted with them uses all."""

STEPS = 40
"""Of the fit, at most."""

LEAST_NOISE = 1e-6
"""Keeps equal inputs apart: the kernel's matrix stays positive definite."""


@dataclass(frozen=True)
class Parameters:
    """What is fitted, as plain floats, for targets of unit variance.

    variance: v, of the function. noise: the variance of what is observed around it. lengths: ℓ, [d]. decay: r, per unit
    of time. decay_categories: r_c. mix: λ, from the sum of both kernels (0) to their product (1). Without categories, the
    last two mean nothing.
    """

    variance: float
    noise: float
    lengths: tuple[float, ...]
    decay: float
    decay_categories: float
    mix: float

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "lengths": list(self.lengths)}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Parameters:
        return cls(**{**found, "lengths": tuple(found["lengths"])})


class Inputs(NamedTuple):
    """n rows: x [n, d]; time [n]; categories [n, c], integers."""

    x: Array
    time: Array
    categories: Array

    @classmethod
    def of(cls, x: Any, time: Any = None, categories: Any = None) -> Inputs:
        """What is left out is the same for all rows."""
        x = np.asarray(x, float)
        n = len(x)
        return cls(
            x,
            np.zeros(n) if time is None else np.broadcast_to(np.asarray(time, float), n),
            np.zeros((n, 0), int) if categories is None else np.asarray(categories, int),
        )


@dataclass(frozen=True)
class Posterior:
    """What is known of the function after some rows. log_marginal_likelihood: of those rows, without the priors."""

    parameters: Parameters
    log_marginal_likelihood: float
    inputs: Inputs
    _inverse: Array  # of the lower Cholesky factor of the rows' covariance, [n, n]
    _weights: Array  # that covariance's inverse times the targets, [n]

    def mean_std(self, x: Any, time: Any = None, categories: Any = None) -> tuple[Array, Array]:
        """Mean and standard deviation of the function, without noise, at m places, [m] each."""
        at = Inputs.of(x, time, categories)
        covariance = _kernel(self.parameters, self.inputs, at)
        explained = np.square(self._inverse @ covariance).sum(0)
        return covariance.T @ self._weights, np.sqrt(np.maximum(self.parameters.variance - explained, 0.0))

    def pretend(self, x: Any, time: Any = None, categories: Any = None) -> Posterior:
        """As if the function had been seen at one place, [d] or [1, d], and had been as expected: only std changes.

        Desautels, Krause & Burdick 2014, "Parallelizing Exploration-Exploitation Tradeoffs in Gaussian Process Bandit
        Optimization", JMLR 15. In O(n²).
        """
        at = Inputs.of(np.atleast_2d(x), time, None if categories is None else np.atleast_2d(categories))
        column = self._inverse @ _kernel(self.parameters, self.inputs, at)[:, 0]
        size = math.sqrt(max(self.parameters.variance + self.parameters.noise - column @ column, LEAST_NOISE))
        n = len(column)
        inverse = np.zeros((n + 1, n + 1))
        inverse[:n, :n] = self._inverse
        inverse[n, :n] = -column @ self._inverse / size
        inverse[n, n] = 1 / size
        inputs = Inputs(*(np.concatenate([old, new]) for old, new in zip(self.inputs, at, strict=True)))
        return Posterior(self.parameters, self.log_marginal_likelihood, inputs, inverse, np.append(self._weights, 0.0))


def fit(x: Any, y: Any, time: Any = None, categories: Any = None, start: Parameters | None = None) -> Posterior:
    """The process after n rows, oldest first, its parameters fitted to them.

    x [n, d], each input of a range of about 1; y [n], of mean 0 and variance 1 (`standardised`); time [n]; categories
    [n, c], integers. start: parameters of an earlier fit, to go on from. Raises np.linalg.LinAlgError where that cannot
    be computed, as with numbers that are not finite.
    """
    inputs, y = Inputs.of(x, time, categories), np.asarray(y, float)
    if not all(np.isfinite(array).all() for array in (*inputs, y)):
        raise np.linalg.LinAlgError("some of the rows are not finite")
    d = inputs.x.shape[1]
    newest = Inputs(*(array[-LEARN_FROM:] for array in inputs))
    begin = _pack(start) if start is not None and len(start.lengths) == d else _prior(d)[0]
    sharpness = 1 + len(newest.x) / 8  # of the minimum, at a guess: without one, the first steps are far too long
    theta = _minimise(lambda theta: _loss(theta, newest, y[-LEARN_FROM:]), begin, sharpness)
    return condition(_rounded(_unpack(theta)), x, y, time, categories)


def condition(parameters: Parameters, x: Any, y: Any, time: Any = None, categories: Any = None) -> Posterior:
    """The process after n rows, with these parameters. Raises np.linalg.LinAlgError as `fit` does."""
    inputs, y = Inputs.of(x, time, categories), np.asarray(y, float)
    covariance = _kernel(parameters, inputs, inputs)
    covariance[np.diag_indices(len(y))] += parameters.noise
    lower = np.linalg.cholesky(covariance)
    inverse = np.linalg.inv(lower)
    weights = inverse.T @ (inverse @ y)
    return Posterior(parameters, _log_likelihood(lower, y, weights), inputs, inverse, weights)


def standardised(y: Any) -> Array:
    """y [n] with mean 0 and variance 1, as `fit` wants it; what lies far out beyond nearly all the others is drawn in.

    Far out is farther than the range of the middle 80 % from either end of that range: one failure of -1e9 must not make
    all the others look alike.
    """
    y = np.asarray(y, float) / 4  # their range may be more than a float can hold
    low, high = np.quantile(y, [0.1, 0.9])
    if (range_ := high - low) > 0:
        y = np.clip(y, low - range_, high + range_)
    y = y / max(np.abs(y).max(), sys.float_info.min)  # and so may their squares
    spread = y.std()
    return np.asarray((y - y.mean()) / spread if spread > 0 else np.zeros(len(y)))


_ALONE = threading.RLock()  # the limit is the process's: it must be restored in the order in which it was set


@contextmanager
def one_thread() -> Iterator[None]:
    """Meanwhile BLAS uses one thread.

    For matrices of this size more gain little, and cost a lot where other processes use the cores; and sums would depend
    on how many there are, but what is decided should not.
    """
    from threadpoolctl import threadpool_limits

    with _ALONE, threadpool_limits(1, "blas"):
        yield


# The kernel and its derivatives ---------------------------------------------------------------------------------------


def _parts(p: Parameters, a: Inputs, b: Inputs) -> tuple[Array, Array | None, Array]:
    """k_x, k_c (None without categories) and |t - t'|, each [n, m]."""
    scale = np.asarray(p.lengths)
    u, w = a.x / scale, b.x / scale
    square = np.square(u).sum(1)[:, None] + np.square(w).sum(1) - 2 * u @ w.T
    apart = np.abs(a.time[:, None] - b.time)
    k_x = np.exp(-0.5 * np.maximum(square, 0.0) - p.decay * apart)
    if not a.categories.shape[1]:
        return k_x, None, apart
    equal = (a.categories[:, None] == b.categories[None]).mean(2)
    return k_x, equal * np.exp(-p.decay_categories * apart), apart


def _kernel(p: Parameters, a: Inputs, b: Inputs) -> Array:
    k_x, k_c, _ = _parts(p, a, b)
    return p.variance * (k_x if k_c is None else (1 - p.mix) / 2 * (k_x + k_c) + p.mix * k_x * k_c)


def _log_likelihood(lower: Array, y: Array, weights: Array) -> float:
    return float(-0.5 * y @ weights - np.log(np.diag(lower)).sum() - 0.5 * len(y) * math.log(2 * math.pi))


# The fit --------------------------------------------------------------------------------------------------------------

# It is over θ = (log v, log noise, log r, log r_c, log odds of λ, log ℓ₁, …, log ℓ_d). Each has a normal prior; what the
# rows say nothing about stays where the prior has its mean.
_HEAD_CENTRE = (0.0, math.log(0.1), math.log(0.05), math.log(0.05), 0.0)
_HEAD_WIDTH = (1.0, 1.5, 1.0, 1.0, 1.0)
_LENGTH_WIDTH = 1.0
_FARTHEST = 2.0
"""The most that any of θ moves in one step."""


def _prior(d: int) -> tuple[Array, Array]:
    """Mean and standard deviation of θ. Typical distances grow with √d, and so do the lengths."""
    length = math.log(0.4 * math.sqrt(max(d, 1)))
    return np.array([*_HEAD_CENTRE, *[length] * d]), np.array([*_HEAD_WIDTH, *[_LENGTH_WIDTH] * d])


def _pack(p: Parameters) -> Array:
    head = (p.variance, p.noise, p.decay, p.decay_categories, p.mix / (1 - p.mix))
    return np.log([*head, *p.lengths])


def _unpack(theta: Array) -> Parameters:
    variance, noise, decay, decay_categories, odds, *lengths = np.exp(theta).tolist()
    return Parameters(variance, noise + LEAST_NOISE, tuple(lengths), decay, decay_categories, odds / (1 + odds))


def _rounded(p: Parameters) -> Parameters:
    """To four digits; λ stays between 0 and 1."""
    numbers = {name: _four_digits(value) for name, value in asdict(p).items() if name != "lengths"}
    numbers["mix"] = min(max(numbers["mix"], 1e-4), 1 - 1e-4)
    return Parameters(lengths=tuple(map(_four_digits, p.lengths)), **numbers)


def _four_digits(value: float) -> float:
    return float(f"{value:.4g}")


def _loss(theta: Array, inputs: Inputs, y: Array) -> tuple[float, Array]:
    """-log(likelihood × prior) of n rows, and its derivative by θ; infinite where it cannot be computed."""
    p, (centre, width) = _unpack(theta), _prior(inputs.x.shape[1])
    k_x, k_c, apart = _parts(p, inputs, inputs)
    # Without categories k = v · k_x: as if there were one that is always equal, and λ were 1.
    mix, k_c = (1.0, np.ones_like(k_x)) if k_c is None else (p.mix, k_c)
    k = p.variance * ((1 - mix) / 2 * (k_x + k_c) + mix * k_x * k_c)
    try:
        lower = np.linalg.cholesky(k + p.noise * np.eye(len(y)))
    except np.linalg.LinAlgError:
        return math.inf, np.zeros_like(theta)
    inverse = np.linalg.inv(lower)
    inverse = inverse.T @ inverse
    weights = inverse @ y
    by_k = 0.5 * (np.outer(weights, weights) - inverse)  # the derivative of the log likelihood by the covariance
    by_x = by_k * p.variance * ((1 - mix) / 2 + mix * k_c) * k_x  # by log k_x, and
    by_c = by_k * p.variance * ((1 - mix) / 2 + mix * k_x) * k_c  # by log k_c
    by_mix = p.variance * (by_k * (k_x * k_c - (k_x + k_c) / 2)).sum()
    # Σ by_x (xₐ - x_b)² for each input, without an array [n, n, d].
    squares = 2 * (by_x.sum(1) @ np.square(inputs.x) - (inputs.x * (by_x @ inputs.x)).sum(0))
    slope = [
        (by_k * k).sum(),
        np.trace(by_k) * (p.noise - LEAST_NOISE),
        -(by_x * apart).sum() * p.decay,
        -(by_c * apart).sum() * p.decay_categories if inputs.categories.shape[1] else 0.0,
        by_mix * mix * (1 - mix),
        *(squares / np.square(p.lengths)),
    ]
    surprise = (theta - centre) / width
    return 0.5 * float(surprise @ surprise) - _log_likelihood(lower, y, weights), surprise / width - np.array(slope)


def _minimise(loss: Callable[[Array], tuple[float, Array]], theta: Array, sharpness: float) -> Array:
    """A minimum near theta, by BFGS with backtracking (Nocedal & Wright, "Numerical Optimization", algorithm 6.1).

    sharpness: about the second derivative there.
    """
    value, slope = loss(theta)
    curvature = np.eye(len(theta)) / sharpness  # the inverse of the second derivative, as far as it is known
    for _ in range(STEPS):
        step = -curvature @ slope
        step *= min(1.0, _FARTHEST / max(np.abs(step).max(), 1e-12))
        for _ in range(10):
            after, slope_after = loss(theta + step)
            if after <= value + 1e-4 * step @ slope:
                break
            step = step / 4
        else:
            return theta
        turn, gain = slope_after - slope, value - after
        theta, value, slope = theta + step, after, slope_after
        if (bend := step @ turn) > 1e-12:
            keep = np.eye(len(theta)) - np.outer(step, turn) / bend
            curvature = keep @ curvature @ keep.T + np.outer(step, step) / bend
        if gain < 1e-3:
            break
    return theta
