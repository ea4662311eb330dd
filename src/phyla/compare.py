"""What a handful of runs tell: robust means, their intervals, and whether two ways of training can be told apart.

Pure functions of scores for which higher is better; one that is missing is -inf, the worst there is. The interquartile mean,
percentile bootstrap and the probability of improvement are those of Agarwal et al. 2021, "Deep Reinforcement Learning at the
Edge of the Statistical Precipice", arXiv 2108.13264; with one task there is one stratum. phyla's own: pairs. Arms are trained
from the same seeds, hence the same first hyperparameters, so seeds are resampled for both arms together; and whether they can
be told apart is asked of an exact test (Wilcoxon 1945), because a bootstrap of few runs is too sure of itself.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]
Verdict: TypeAlias = Literal["better", "worse", "alike", "too few"]

RESAMPLES, CURVE_RESAMPLES = 10_000, 2_000
CONFIDENCE = 0.95


def iqm(scores: Any) -> Array:
    """The interquartile mean over the last axis, [..., n] -> [...]: the mean of the middle half.

    Each of n scores has the weight of that part of its share [i/n, (i+1)/n] of the sorted whole that lies within [1/4, 3/4].
    Where n is divisible by 4 this is the mean without the best and the worst quarter; of 1 or 2 scores it is the mean; of 3,
    the middle one counts two thirds. nan where the middle half holds both infinities.
    """
    ordered = np.sort(np.asarray(scores, float), axis=-1)
    edges = np.clip(np.arange(ordered.shape[-1] + 1) / ordered.shape[-1], 0.25, 0.75)
    weights = 2 * np.diff(edges)
    inside = weights > 0  # an infinite score outside has no part in it
    with np.errstate(invalid="ignore"):
        result: Array = (ordered[..., inside] * weights[inside]).sum(axis=-1)
    return result


def improvement(ours: Any, others: Any) -> Array:
    """The probability that a run of ours is better than one of the others': over all pairs, ties count half.

    [..., n] and [..., m] -> [...]; the Mann-Whitney statistic over n · m.
    """
    a, b = np.asarray(ours, float)[..., :, None], np.asarray(others, float)[..., None, :]
    result: Array = ((a > b) + 0.5 * (a == b)).mean(axis=(-2, -1))
    return result


@dataclass(frozen=True)
class Estimate:
    """A value, and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


def bootstrap(statistic: Callable[[Array], Array], n: int, resamples: int = RESAMPLES) -> Estimate:
    """A statistic of n runs with its percentile interval; the same for the same data.

    statistic: takes the places of runs, [..., n] integers below n, and gives a value for each row, [...].
    """
    drawn = np.random.default_rng(n).integers(n, size=(resamples, n))
    values = np.sort(statistic(drawn))
    # One of the values, not between two: an infinite one has no half-way.
    tail = (1 - CONFIDENCE) / 2
    low, high = values[math.floor(tail * resamples)], values[math.ceil((1 - tail) * resamples) - 1]
    return Estimate(float(statistic(np.arange(n))), float(low), float(high))


def summary(scores: Sequence[float], resamples: int = RESAMPLES) -> Estimate:
    """The interquartile mean of some runs, with its interval."""
    values = np.asarray(scores, float)
    return bootstrap(lambda places: iqm(values[places]), len(values), resamples)


@dataclass(frozen=True)
class Contrast:
    """Two arms, by the seeds that both have.

    difference: of the interquartile means, ours minus the other's; above 0 is better. probability: that a run of ours is
    the better one. p: of the signed-rank test over the pairs of equal seeds, two-sided, adjusted for all arms that are held
    against the same one (Holm 1979). verdict: "alike" if this does not tell them apart, "too few" if no outcome of so many
    seeds could.
    """

    seeds: int
    difference: Estimate
    probability: Estimate
    p: float
    verdict: Verdict


def contrast(pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> list[Contrast]:
    """Each arm against the one that it is held against: (ours, the other's) by seed, [n] and [n]; n may differ by pair."""
    arrays = [(np.asarray(ours, float), np.asarray(other, float)) for ours, other in pairs]
    tests = [signed_rank(_minus(ours, other)) for ours, other in arrays]
    adjusted = holm([test.p for test in tests])
    found = []
    for (ours, other), test, p in zip(arrays, tests, adjusted, strict=True):
        verdict: Verdict = "alike"
        if len(pairs) * least_p(len(ours)) > 1 - CONFIDENCE:
            verdict = "too few"
        elif p <= 1 - CONFIDENCE:
            verdict = "better" if test.lead > 0 else "worse"
        found.append(Contrast(len(ours), *_sizes(ours, other), p, verdict))
    return found


def _sizes(ours: Array, other: Array) -> tuple[Estimate, Estimate]:
    """By how much ours is better, and how often."""
    return (
        bootstrap(lambda runs: _minus(iqm(ours[runs]), iqm(other[runs])), len(ours)),
        bootstrap(lambda runs: improvement(ours[runs], other[runs]), len(ours)),
    )


def _minus(a: Array, b: Array) -> Array:
    """a - b; two that are equally bad do not differ."""
    with np.errstate(invalid="ignore"):
        return np.where(a == b, 0.0, a - b)


class SignedRank(NamedTuple):
    """p: two-sided. lead: the sum of the ranks above 0, minus that of those below."""

    p: float
    lead: float


def signed_rank(differences: Any) -> SignedRank:
    """Wilcoxon's signed-rank test that the differences of pairs lie around 0, exactly.

    p is the share of all 2^n ways to give the ranks signs that are as lopsided or more. Zeros are left out; ties share ranks.
    """
    values = np.asarray(differences, float)
    values = values[values != 0]
    if not len(values):
        return SignedRank(1.0, 0.0)
    _, which, counts = np.unique(np.abs(values), return_inverse=True, return_counts=True)
    twice = (2 * np.cumsum(counts) - counts + 1)[which]  # two times the rank: a whole number, also if it is shared
    chances = np.ones(1)  # of each sum of the ranks that are above 0
    for rank in twice:
        chances = (np.pad(chances, (0, rank)) + np.pad(chances, (rank, 0))) / 2
    above = int(twice[values > 0].sum())
    p = min(1.0, 2 * min(chances[: above + 1].sum(), chances[above:].sum()))
    return SignedRank(float(p), float(above - twice.sum() / 2))


def least_p(n: int) -> float:
    """The smallest p that the signed-rank test of n pairs can have."""
    return min(1.0, 2.0 ** (1 - n))


def seeds_needed(arms: int) -> int:
    """Seeds from which on so many arms, all held against one, can be told from it at all."""
    return next(n for n in itertools.count(1) if arms * least_p(n) <= 1 - CONFIDENCE)


def holm(ps: Sequence[float]) -> list[float]:
    """The p of several tests, adjusted so that all of them together err as rarely as one (Holm 1979)."""
    adjusted, worst = list(ps), 0.0
    for place, test in enumerate(sorted(range(len(ps)), key=lambda test: ps[test])):
        worst = max(worst, min(1.0, (len(ps) - place) * ps[test]))
        adjusted[test] = worst
    return adjusted
