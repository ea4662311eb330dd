"""Training that costs next to nothing, and of which the answer is known: what strategies are measured on. Plain NumPy.

    workloads.deceptive(seed=0)                                       # PBT that exploits after every step
    workloads.deceptive(seed=0, interval=25)                          # … after every 25 steps, of as many in all
    workloads.deceptive(seed=0, interval=25, exploit=None)            # no evolution
    workloads.deceptive(seed=0, strategy=phyla.MFPBT()).final.score   # what it came to

Each function takes what `Population` takes, and returns the finished run, which is in memory only; `run.final` is the best at
the end. interval: the steps of one; steps: of each member in all. A run is a function of its arguments, and under the same seed
and size members are born alike, whatever the arm. An interval of a member costs half a millisecond, nearly all of it phyla's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias, TypeVar

import numpy as np

from phyla.errors import SettingsError
from phyla.population import Population
from phyla.runs import Run
from phyla.space import Float, Space
from phyla.strategies.perturb import Perturb
from phyla.strategies.truncation import Truncation

Array: TypeAlias = np.ndarray[Any, Any]

_State = TypeVar("_State")


@dataclass(frozen=True)
class NoisyQuadratic:
    """Gradient descent with a noisy gradient on the loss ½ Σ hᵢ xᵢ²; the score is minus the loss, without noise.

    curvatures: h, of each direction. shares: what each adds to the loss at the start. noise: the gradient along i is
    hᵢ xᵢ + noise · √hᵢ · N(0, 1), so that a constant rate lr ends at a loss of about lr · noise² / 4 along each.

    The model, and what it shows of schedules, is that of Wu et al. 2018, "Understanding Short-Horizon Bias in Stochastic
    Meta-Optimization", arXiv 1803.02021.
    """

    curvatures: tuple[float, ...]
    shares: tuple[float, ...]
    noise: float = 1.5

    @cached_property
    def h(self) -> Array:
        """The curvatures, [directions]."""
        return np.array(self.curvatures)

    @cached_property
    def start(self) -> Array:
        """Where all begin, [directions]."""
        return np.sqrt(2 * np.array(self.shares) / self.h)

    @cached_property
    def _deviations(self) -> Array:
        """Of the gradient, [directions]."""
        return self.noise * np.sqrt(self.h)

    def step(self, x: Array, lr: float, rng: np.random.Generator) -> Array:
        return x - lr * (self.h * x + self._deviations * rng.normal(size=len(self.h)))

    def score(self, x: Array) -> float:
        return -0.5 * float(self.h @ x**2)

    def expected(self, schedule: Iterable[float]) -> float:
        """The score that a schedule of learning rates, one a step, comes to on average over the noise: exact."""
        second_moments = self.start**2
        for lr in schedule:
            second_moments = (1 - lr * self.h) ** 2 * second_moments + (lr * self._deviations) ** 2
        return -0.5 * float(self.h @ second_moments)


DIRECTIONS = 32

PLAIN = NoisyQuadratic((1.0,) * DIRECTIONS, (20.0 / DIRECTIONS,) * DIRECTIONS)

DECEPTIVE = NoisyQuadratic((*PLAIN.curvatures, 0.02), (*PLAIN.shares, 20.0))


def deceptive(*, interval: int = 1, seed: int = 0, size: int = 16, steps: int = 200, **how: Any) -> Run:
    """What is better soon is worse at last: PBT with a short interval loses to no evolution, and with a long one it wins.

    A noisy quadratic of 32 directions of curvature 1, and one of curvature 0.02. Before long most of the loss lies along the
    last, where the highest learning rate covers a hundredth of the way in a step, and low ones get nowhere in 200. But a lower
    one cuts the noise along the others at once: who lowers it looks better for some 25 steps, and is behind from there on.

    By `DECEPTIVE.expected`, exactly: 0.5 for 155 steps and then down as 1 / step comes to -1.55, about the best there is; the
    best constant (0.24) to -7.83; and the schedule that is the best for the next step, at every step, to -15.6.
    """
    return _descend(DECEPTIVE, "deceptive", interval, seed, size, steps, how)


def plain(*, interval: int = 1, seed: int = 0, size: int = 16, steps: int = 200, **how: Any) -> Run:
    """The control, without the slow direction: what is better soon is better at last, and short intervals win.

    Here the schedule that is best for the next step is the best there is, and comes to -0.178; the best constant to -0.319.
    Who copies after every step comes nearer to zero than that, since it keeps the lucky steps, too.
    """
    return _descend(PLAIN, "plain", interval, seed, size, steps, how)


def _descend(problem: NoisyQuadratic, name: str, interval: int, seed: int, size: int, steps: int, how: Any) -> Run:
    space = {"lr": Float(1e-3, 0.5, log=True)}
    return _train(name, space, problem.start.copy, problem.step, problem.score, interval, seed, size, steps, how)


def triangle(*, interval: int = 4, seed: int = 0, size: int = 16, steps: int = 200, **how: Any) -> Run:
    """An accuracy that rises fastest at a learning rate that depends on it: 0.01 at an accuracy of 100, 0.001 far from that.

    A rate that is off by a factor q adds U(0, 1) / q up to q = 3; beyond, one that is too low adds nothing, and one that is too
    high takes (q - 3) U(0, 1) away. N(0, 2) is added to the accuracy itself, which never falls below zero. So who copies often
    rises by luck alone: the figures say whether PBT is implemented alike, and little of how well it tunes.

    The workload of Ray's and Syne Tune's example `pbt_function`. Unless something else is said, groups are a quarter, and
    hyperparameters are redrawn with probability 0.25, as there.
    """
    space = {"lr": Float(1e-4, 0.02)}
    usual = {} if "strategy" in how else {"exploit": Truncation(0.25), "explore": Perturb(0.8, 1.2, resample=0.25)}
    return _train("triangle", space, lambda: 0.0, _rise, float, interval, seed, size, steps, {**usual, **how})


def _rise(accuracy: float, lr: float, rng: np.random.Generator) -> float:
    best = min(0.01, max(0.001, 0.01 * (1 - abs(accuracy - 100) / 100)))
    q = max(lr, best) / min(lr, best)
    gain = 1 / q if q < 3 else 3 - q if lr > best else 0.0
    return max(0.0, accuracy + gain * rng.random() + rng.normal(scale=2.0))


def _train(
    name: str,
    space: Space,
    start: Callable[[], _State],
    step: Callable[[_State, float, np.random.Generator], _State],
    score: Callable[[_State], float],
    interval: int,
    seed: int,
    size: int,
    steps: int,
    how: dict[str, Any],
) -> Run:
    if not 1 <= interval <= steps or steps % interval:
        raise SettingsError(f"{name}: interval must divide the {steps} steps of a run, got {interval!r}")
    known: dict[str, Any] = {"seed": seed, "max_lead": 0, "journal": "memory", "progress": False, **how}
    population = Population(name, space, size, steps // interval, **known)
    for member in population:
        lr: Any = member["lr"]
        state, rng = member.state(lambda newborn: {"at": start(), "steps": 0}), np.random.default_rng(member.seed)
        for _ in range(interval):
            state = {"at": step(state["at"], lr, rng), "steps": state["steps"] + 1}
        member.report(score(state["at"]), state, steps=interval)
    return population.run
