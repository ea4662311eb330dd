"""Points with several objectives: which are best, how they rank, and how much they cover. Higher is better in each.

What is to be low is negated first. All is exact, for the few objectives and the hundreds of points that a population has; the
libraries for millions of points are larger than phyla (pymoo, pygmo), or C under the LGPL (moocore).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from phyla.errors import SettingsError

if TYPE_CHECKING:
    import numpy.typing as npt

Array: TypeAlias = "npt.NDArray[np.float64]"

Points: TypeAlias = "Array | Sequence[Sequence[float]]"
"""[N, M]: N points with M objectives, all finite."""


def front(points: Points) -> list[int]:
    """The points that no other dominates, by index, ascending. Equal points are in it together.

    One dominates another if it is as good in every objective, and better in one. Raises SettingsError for what is not finite.
    """
    indices: list[int] = _front(_checked(points)).tolist()
    return indices


def fronts(points: Points) -> list[list[int]]:
    """Non-dominated sorting: the front, the front of what is left without it, and so on; indices ascending in each.

    Goldberg 1989; Deb et al. 2002, "A fast and elitist multiobjective genetic algorithm: NSGA-II".
    """
    given = _checked(points)
    at_least = np.all(given[:, None] >= given, axis=2)  # [N, N]
    dominates = at_least & ~at_least.T
    dominators = dominates.sum(axis=0)  # of each, that are left
    found: list[list[int]] = []
    while len(first := np.flatnonzero(dominators == 0)):
        found.append(first.tolist())
        dominators -= dominates[first].sum(axis=0)
        dominators[first] = -1
    return found


def rank(points: Points) -> list[int]:
    """All indices, best first: by fronts, and within a front so that any first few of them are spread out.

    The first of all is the best in the first objective. The next is always the one of its front that is farthest from all that
    come before it, in Euclidean distance, each objective divided by its range. Of equals the one of the highest index comes
    first (the best in the first objective is told from its equals by the second, and so on).
    """
    given = _checked(points)

    def by_first(index: int) -> tuple[float, ...]:
        return (*given[index], index)

    scaled = _scaled(given).T  # [M, N]
    apart = np.sum([(axis[:, None] - axis) ** 2 for axis in scaled], axis=0)  # [N, N]; squares order like distances
    nearest = np.full(len(given), np.inf)  # of each, to those in the order; -inf once it is one of them
    order: list[int] = []
    for members in fronts(given):
        descending = np.array(members[::-1])  # of equals, argmax takes the first
        for _ in members:
            best = int(descending[nearest[descending].argmax()]) if order else max(members, key=by_first)
            order.append(best)
            nearest = np.minimum(nearest, apart[best])
            nearest[best] = -np.inf
    return order


def hypervolume(points: Points, reference: Sequence[float] | Array) -> float:
    """The volume of what is worse than one of the points and better than the reference: the more, the better the points.

    reference: [M]; what is not better than it in every objective adds nothing. In units of the objectives, multiplied.
    Zitzler & Thiele 1998, "Multiobjective optimization using evolutionary algorithms". Exact, by slicing (While et al. 2006);
    the time grows as N^(M-1) at worst. Raises SettingsError if the two do not have the same number of objectives.

    >>> hypervolume([[3, 1], [1, 2]], reference=[0, 0])
    4.0
    """
    given, origin = _checked(points), np.asarray(reference, float)
    if len(given) == 0:
        return 0.0
    if origin.shape != given.shape[1:] or not np.isfinite(origin).all():
        raise SettingsError(
            f"hypervolume: reference must be {given.shape[1]} finite numbers, one for each objective, got {reference!r}"
        )
    return _volume((given - origin)[(given > origin).all(axis=1)])


def _front(points: Array) -> npt.NDArray[np.intp]:
    """`front`: every point that is still there when its turn comes removes those that it dominates."""
    left, place = np.arange(len(points)), 0
    while place < len(left):
        point, others = points[left[place]], points[left]
        stays = (others > point).any(axis=1) | (others == point).all(axis=1)
        place = int(stays[:place].sum()) + 1
        left = left[stays]
    return left


def _volume(corners: Array) -> float:
    """What the boxes from the origin to these corners, all positive, cover together.

    Cut along the last objective, from the highest corner down: between one height and the next, the boxes that reach so high
    cover what they cover in the other objectives.
    """
    corners = corners[np.argsort(-corners[:, -1], kind="stable")]
    thickness = -np.diff(corners[:, -1], append=0.0)
    if corners.shape[1] == 1:
        return float(thickness.sum())
    if corners.shape[1] == 2:
        return float(np.maximum.accumulate(corners[:, 0]) @ thickness)
    flat = corners[:, :-1]
    return sum(
        float(thick) * _volume((slab := flat[: n + 1])[_front(slab)]) for n, thick in enumerate(thickness) if thick > 0
    )


def _scaled(points: Array) -> Array:
    """Each objective as a part of its range, from 0 to 1: units are nothing to compare distances by."""
    if not len(points):
        return points
    halves = points / 2  # the range of finite numbers may be infinite, that of their halves never is
    low, high = halves.min(axis=0), halves.max(axis=0)
    scaled: Array = (halves - low) / np.where(high > low, high - low, 1.0)
    return scaled


def _checked(points: Points) -> Array:
    """The points as an array [N, M]."""
    try:
        given = np.asarray(points, float)
        if given.shape == (0,):
            return given.reshape(0, 1)
        if given.ndim == 2 and given.shape[1] and np.isfinite(given).all():
            return given
    except (TypeError, ValueError):
        pass
    raise SettingsError(f"points must be finite numbers, as many objectives for each point, got {points!r:.200}")
