"""Curves of scores that begin at different heights: how they are smoothed, aligned and compared.

After Dalibard & Jaderberg 2021, "Faster Improvement Rate Population Based Training", arXiv 2109.13800. Which of two models
improves faster is asked from where both are equally good: where the one that began lower has come to the other's start.

A curve is one score an interval, oldest first, higher is better; intervals are taken to be of equal length.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

OFFSETS = 10
"""How many ways a curve that lies wholly above another is moved down onto it."""

WIDEST = 10
"""Scores to either side that smoothing looks at, at most, so that a score of a long curve costs no more than one of a short."""


class Overlap(NamedTuple):
    """Where two curves run side by side: from which score of each on, and for how many scores."""

    one: int
    other: int
    length: int


@dataclass(frozen=True)
class Curve:
    """scores: at least one, all finite."""

    scores: tuple[float, ...]

    @cached_property
    def smoothed(self) -> np.ndarray:
        return smooth(np.array(self.scores))


def smooth(values: np.ndarray) -> np.ndarray:
    """Local linear regression with tricube weights, over a third of the curve to either side at most, [n] -> [n].

    Where curves meet depends on their first scores, and there a mean over neighbours would be too high on a curve that rises;
    a line is not. It needs no noise level and no fit, and smoothing commutes with moving a curve up or down.
    """
    n = len(values)
    width = max(1, min(WIDEST, n // 3))
    if n == 1:
        return values
    s0, s1, s2, t0, t1 = np.zeros(
        (5, n)
    )  # sums over neighbours at distance d with value y: of w, w·d, w·d², w·y, w·d·y
    for d in range(-width, width + 1):
        w = (1 - abs(d / (width + 1)) ** 3) ** 3
        here, y = slice(max(0, -d), n - max(0, d)), values[max(0, d) : n - max(0, -d)]
        s0[here] += w
        s1[here] += w * d
        s2[here] += w * d * d
        t0[here] += w * y
        t1[here] += w * d * y
    fitted: np.ndarray = (s2 * t0 - s1 * t1) / (s0 * s2 - s1 * s1)
    return fitted


def overlap(one: Curve, other: Curve) -> Overlap | None:
    """From where the one that began lower has come to the other's start, by the smoothed curves; None if it never does."""
    a, b = one.smoothed, other.smoothed
    if a[0] < b[0]:
        swapped = overlap(other, one)
        return Overlap(swapped.other, swapped.one, swapped.length) if swapped is not None else None
    reached = np.flatnonzero(b >= a[0])
    return Overlap(0, int(reached[0]), min(len(a), len(b) - int(reached[0]))) if len(reached) else None


def best_score_diff(one: Curve, other: Curve) -> float:
    """By how much the best score of `one` is above the best of `other` while they run side by side.

    Where they never do, and `one` lies wholly above, it is moved down onto the other in OFFSETS equal steps, first with its
    lowest score at the other's highest, and the largest difference counts that is not negative. Otherwise it is 0: nothing is
    known of a curve that never came to where the other began.
    """
    if (found := _side_by_side(one, other)) is not None:
        return found
    gap, height = min(one.scores) - max(other.scores), max(other.scores) - min(other.scores)
    moves = [gap + height * step / OFFSETS for step in range(OFFSETS)] if gap > 0 else []
    moved = [Curve(tuple(score - move for score in one.scores)) for move in moves]
    return max([0.0, *(_side_by_side(each, other) or 0.0 for each in moved)])


def _side_by_side(one: Curve, other: Curve) -> float | None:
    both = overlap(one, other)
    if both is None:
        return None
    a, b = _cut(one, other, both)
    return max(a) - max(b)


def p_value(one: Curve, other: Curve) -> float:
    """How likely it is that `one` is above `other` at so many scores, or more, if each of them is above as often.

    A one-sided binomial test of the scores that stand side by side; of all from their starts, where the curves never run so.
    """
    a, b = _cut(one, other, overlap(one, other) or Overlap(0, 0, min(len(one.scores), len(other.scores))))
    return binomial_tail(sum(x > y for x, y in zip(a, b, strict=True)), len(a))


def binomial_tail(wins: int, n: int) -> float:
    """The probability of so many heads, or more, in n throws of a fair coin."""
    return sum(math.comb(n, k) for k in range(wins, n + 1)) / (1 << n)


def _cut(one: Curve, other: Curve, both: Overlap) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return one.scores[both.one :][: both.length], other.scores[both.other :][: both.length]
