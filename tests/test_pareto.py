"""Fronts, ranks and hypervolumes: against their definitions, and against cases worked out by hand."""

from __future__ import annotations

import doctest
import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import phyla.pareto
from phyla.errors import SettingsError
from phyla.pareto import front, fronts, hypervolume, rank

quick = settings(derandomize=True, deadline=None, max_examples=80, database=None)

Point = tuple[float, ...]


@st.composite
def points(draw: Any, most: int = 12, highest: int = 4) -> list[Point]:
    """1 to 4 objectives, on a small grid: many ties and duplicates."""
    m = draw(st.integers(1, 4))
    one = st.tuples(*[st.integers(0, highest).map(float)] * m)
    found: list[Point] = draw(st.lists(one, max_size=most))
    return found


def dominates(one: Point, other: Point) -> bool:
    return all(a >= b for a, b in zip(one, other, strict=True)) and any(a > b for a, b in zip(one, other, strict=True))


# Fronts -------------------------------------------------------------------------------------------------------------


@quick
@given(points())
def test_the_front_is_what_nobody_dominates(given: list[Point]) -> None:
    assert front(given) == [i for i, one in enumerate(given) if not any(dominates(other, one) for other in given)]


@quick
@given(points())
def test_the_front_that_a_point_is_in_is_the_length_of_the_longest_chain_above_it(given: list[Point]) -> None:
    def depth(one: Point) -> int:
        return 1 + max((depth(other) for other in {*given} if dominates(other, one)), default=-1)

    expected: dict[int, list[int]] = {}
    for index, one in enumerate(given):
        expected.setdefault(depth(one), []).append(index)
    assert fronts(given) == [expected[n] for n in range(len(expected))]


def test_fronts_by_hand() -> None:
    given = [(3, 1), (1, 1), (2, 2), (1, 3), (0, 0), (1, 2), (2, 2)]
    assert fronts(given) == [[0, 2, 3, 6], [5], [1], [4]]
    assert fronts([(1,), (3,), (2,), (3,)]) == [[1, 3], [2], [0]]
    assert fronts([]) == []


def test_a_thousand_random_points_are_all_in_one_front_each() -> None:
    given = np.random.default_rng(0).normal(size=(1000, 3))
    found = fronts(given)
    assert sorted(itertools.chain(*found)) == list(range(1000))
    assert found[0] == front(given)
    left = [i for i in range(1000) if i not in set(found[0])]
    assert found[1] == [left[i] for i in front(given[left])]


# Rank ---------------------------------------------------------------------------------------------------------------


@quick
@given(points())
def test_the_rank_goes_by_fronts_and_each_next_one_is_the_farthest_of_its_front(given: list[Point]) -> None:
    order, levels = rank(given), fronts(given)
    assert sorted(order) == list(range(len(given)))
    level = {index: n for n, indices in enumerate(levels) for index in indices}
    assert [level[index] for index in order] == sorted(level.values())
    if not given:
        return
    assert given[order[0]][0] == max(one[0] for one in given)
    low, high = (tuple(map(limit, zip(*given, strict=True))) for limit in (min, max))
    scaled = [tuple((x - a) / (b - a) if b > a else 0.0 for x, a, b in zip(p, low, high, strict=True)) for p in given]

    def gap(index: int, before: list[int]) -> float:
        return min(math.dist(scaled[index], scaled[other]) for other in before)

    for place in range(1, len(order)):
        rest = [index for index in order[place:] if level[index] == level[order[place]]]
        farthest = max(gap(index, order[:place]) for index in rest)
        assert gap(order[place], order[:place]) == pytest.approx(farthest)


def test_rank_by_hand() -> None:
    line = [(0, 10), (1, 9), (2, 8), (5, 5), (10, 0)]
    assert rank(line) == [
        4,
        0,
        3,
        2,
        1,
    ]  # the best in the first; the other end; the middle; of two equally near the higher
    behind = [(0, 9), (9, 0)]  # the next front begins with whoever is farthest from all of this one
    assert rank([*line, *behind]) == [4, 0, 3, 2, 1, 6, 5]
    assert rank([(3, 0), (3, 1), (3, 1), (0, 5)]) == [2, 3, 1, 0]  # equals: by the second objective, then by index
    assert rank([(3, 5, 0), (3, 0, 5), (2, 6, 6)]) == [0, 2, 1]  # likewise where neither dominates
    assert rank([(1,), (3,), (2,), (3,)]) == [3, 1, 2, 0]


@quick
@given(points(), st.lists(st.sampled_from([2.0**-30, 0.5, 1.0, 1024.0, 2.0**40]), min_size=4, max_size=4))
def test_units_change_no_rank(given: list[Point], units: list[float]) -> None:
    other = [tuple(x * unit for x, unit in zip(point, units, strict=False)) for point in given]
    assert rank(other) == rank(given)


def test_huge_and_tiny_ranges_are_told_apart_like_any_other() -> None:
    line = [(0, 10), (2, 8), (5, 5), (10, 0)]
    for scale in (1e-300, float(np.finfo(float).max)):
        assert rank([((x / 5 - 1) * scale, y) for x, y in line]) == rank(line) == [3, 0, 2, 1]


# Hypervolume --------------------------------------------------------------------------------------------------------


def test_hypervolume_by_hand() -> None:
    assert hypervolume([(2, 3)], (0, 0)) == 6
    assert hypervolume([(3, 1), (1, 2)], (0, 0)) == 4
    assert hypervolume([(3, 1), (1, 2), (2, 1.5), (1, 1)], (0, 0)) == 4.5  # the last is dominated
    assert hypervolume([(3, 1), (1, 2)], (1, -1)) == 4  # (1, 2) is no better than the reference in the first
    assert hypervolume([(1, 1, 1)], (0, 0, 0)) == 1
    assert hypervolume([(3, 1, 1), (1, 3, 1), (1, 1, 3)], (0, 0, 0)) == 7
    assert hypervolume([(2, 1, 1, 1), (1, 2, 1, 1), (1, 1, 2, 1), (1, 1, 1, 2)], (0, 0, 0, 0)) == 5
    assert hypervolume([(3,), (5,), (4,)], (1,)) == 4
    assert hypervolume([(-1.0, -2.0)], (-4.0, -3.0)) == 3


def test_nothing_is_better_than_a_reference_above_it() -> None:
    assert hypervolume([], (0, 0)) == 0
    assert hypervolume([(1, 1), (0, 2)], (1, 1)) == 0
    assert hypervolume([(5, 5)], (5, 0)) == 0


@quick
@given(points(most=8))
def test_the_hypervolume_is_the_number_of_unit_cells_that_are_covered(given: list[Point]) -> None:
    m = len(given[0]) if given else 1
    cells = itertools.product(range(4), repeat=m)
    covered = sum(any(all(c < x for c, x in zip(cell, one, strict=True)) for one in given) for cell in cells)
    assert hypervolume(given, [0.0] * m) == covered


@quick
@given(points(most=8, highest=9), st.randoms(use_true_random=False))
def test_dominated_points_copies_and_orders_change_no_hypervolume(given: list[Point], random: Any) -> None:
    if not given:
        return
    reference = [-1.0] * len(given[0])
    volume = hypervolume(given, reference)
    more = [*given, *given, tuple(x - 1 for x in given[0])]
    random.shuffle(more)
    axes = random.sample(range(len(reference)), len(reference))
    assert hypervolume([[one[axis] for axis in axes] for one in more], reference) == pytest.approx(volume)
    best = tuple(max(one[axis] for one in given) + 1 for axis in range(len(reference)))
    assert hypervolume([*given, best], reference) == pytest.approx(math.prod(x + 1 for x in best))  # it dominates all


@pytest.mark.parametrize("m", [2, 3, 4])
def test_a_front_of_many_points_covers_what_random_points_say(m: int) -> None:
    rng = np.random.default_rng(m)
    found = rng.random((30, m)) ** 0.5
    inside = rng.random((200_000, m))
    hits = np.mean(np.any([(inside < point).all(axis=1) for point in found], axis=0))
    error = 4 * math.sqrt(hits * (1 - hits) / len(inside))
    assert hypervolume(found, [0.0] * m) == pytest.approx(hits, abs=error)


# What is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [[(1, math.nan)], [(math.inf, 1)], [(1, 2), (1,)], [1, 2], [("a", 1)], [()], 3])
def test_points_that_are_none_are_refused(bad: Any) -> None:
    for function in (front, fronts, rank, lambda given: hypervolume(given, (0, 0))):
        with pytest.raises(SettingsError, match="points must be finite numbers"):
            function(bad)


@pytest.mark.parametrize("reference", [(0,), (0, 0, 0), (0, math.nan), 0])
def test_a_reference_of_other_objectives_is_refused(reference: Any) -> None:
    with pytest.raises(SettingsError, match="reference must be 2 finite numbers"):
        hypervolume([(1, 2)], reference)


def test_doctests() -> None:
    assert doctest.testmod(phyla.pareto).failed == 0
