"""Welch's t-test: a member copies another one only if that is significantly better.

Jaderberg et al. 2017, "Population Based Training of Neural Networks", arXiv 1711.09846, §4.1.1. The test: Welch 1947, "The
generalization of 'Student's' problem when several different population variances are involved".

From the paper: one peer is drawn uniformly, and copied if the mean of its last 10 samples is higher and the test passes. It
states no threshold; 0.05 is the convention. phyla's own: the test is one-sided, so that `threshold` is just the share of
meetings of equals that end in a copy; and both windows must be full.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from phyla.record import Record
from phyla.strategies import given
from phyla.strategies.tournament import is_better, meet
from phyla.view import View


@dataclass(frozen=True)
class TTest:
    """A member copies another one, drawn uniformly, if the last `k` samples of that have a significantly better mean.

    threshold: copied if p < threshold, by Welch's one-sided test. Members that are equal copy one another with this
        probability a meeting (a two-sided test that also asks for the higher mean copies half as often). From 0, which
        never copies, to 0.5.
    k: the samples compared, such as episode returns, 2 or more; those of several intervals add up. A member with fewer
        since its weights were last copied is neither copied nor replaced, since older ones are of other weights. So whoever
        reports few an interval waits for long; a smaller k, or more samples, makes that shorter.
    The peer must be better by score too, which `Population(window=)` samples make; they agree where window equals k.
    `report` must be given samples: it raises ScoreError for a plain number. Raises SettingsError for other values.
    """

    threshold: float = 0.05
    k: int = 10

    needs_samples: ClassVar[bool] = True

    def __post_init__(self) -> None:
        threshold = given.number("TTest: threshold", self.threshold, 0, 0.5, "an error rate from 0 to 0.5")
        object.__setattr__(self, "threshold", threshold)
        given.whole("TTest: k", self.k, 2, None, "a whole number of samples, 2 or more")

    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Record | None:
        met = meet(view, member, rng)
        if met is None:
            return None
        own, peer = met
        if not is_better(view, peer, own):
            return None
        mine, theirs = ([view.sign * sample for sample in record.recent(self.k)] for record in met)
        if min(len(mine), len(theirs)) < self.k:
            return None
        return peer if welch(theirs, mine) < self.threshold else None


def welch(xs: Sequence[float], ys: Sequence[float]) -> float:
    """The p-value of Welch's test that the mean of xs is no higher than that of ys, of two samples or more on each side.

    Where neither side varies there is nothing to doubt: 0 if the mean of xs is higher, else 1.
    """
    scale = max(map(abs, [*xs, *ys])) or 1.0  # squares of large samples would overflow; the test does not know units
    a, b = np.divide(xs, scale), np.divide(ys, scale)
    difference = float(a.mean() - b.mean())
    of_a, of_b = float(a.var(ddof=1)) / len(a), float(b.var(ddof=1)) / len(b)
    if of_a + of_b == 0:
        return 0.0 if difference > 0 else 1.0
    share = of_a / (of_a + of_b)
    freedom = 1 / (share**2 / (len(a) - 1) + (1 - share) ** 2 / (len(b) - 1))
    return student_tail(difference / math.sqrt(of_a + of_b), freedom)


def student_tail(t: float, freedom: float) -> float:
    """P(T > t) for Student's t with so many degrees of freedom."""
    ratio = t * t / freedom
    half = incomplete_beta(freedom / 2, 0.5, 1 / (1 + ratio), 1 / (1 + 1 / ratio) if ratio else 0.0) / 2
    return half if t > 0 else 1 - half


def incomplete_beta(a: float, b: float, x: float, rest: float) -> float:
    """The regularised incomplete beta function I_x(a, b), where x + rest = 1: whichever is small is given exactly.

    By its continued fraction (Abramowitz & Stegun 26.5.8), which converges fast up to (a + 1) / (a + b + 2); beyond,
    I_x(a, b) = 1 - I_rest(b, a). The steps that it needs grow with the square root of a and b.
    """
    if x <= 0:
        return 0.0
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(b, a, rest, x)
    fraction = 1.0
    for m in range(20 + 3 * math.isqrt(int(a + b)), 0, -1):  # from the inside
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        fraction = 1 + even / (1 + odd / fraction)
    fraction = 1 - (a + b) * x / (a + 1) / fraction
    log_beta = math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
    return math.exp(a * math.log(x) + b * math.log(rest) - log_beta) / a / fraction
