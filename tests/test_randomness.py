"""Many seeds at once are those that are drawn one by one."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from phyla.randomness import Purpose, draw_seed, draw_seeds, generator, generators

words = st.integers(0, 2**32 - 1)


@given(seed=st.integers(0, 2**100), rows=st.lists(st.tuples(words, words, words, words), max_size=4))
def test_many_seeds_are_those_that_are_drawn_one_by_one(seed: int, rows: list[tuple[int, int, int, int]]) -> None:
    members, intervals, replacements, attempts = np.array(rows, np.uint32).reshape(-1, 4).T
    for purpose in Purpose:
        expected = [draw_seed(seed, m, i, purpose, r, a) for m, i, r, a in rows]
        assert draw_seeds(seed, members, intervals, purpose, replacements, attempts).tolist() == expected


@given(seed=st.integers(0, 2**100), rows=st.lists(st.tuples(words, words, words), min_size=1, max_size=4))
def test_many_generators_are_those_that_are_made_one_by_one(seed: int, rows: list[tuple[int, int, int]]) -> None:
    members, intervals, replacements = np.array(rows, np.uint32).T
    many = generators(seed, members, intervals, Purpose.DECIDE, replacements)
    for (m, i, r), rng in zip(rows, many, strict=True):
        one = generator(seed, m, i, Purpose.DECIDE, r)
        assert [rng.integers(7) for _ in range(3)] == [one.integers(7) for _ in range(3)]
        assert [rng.random(), rng.integers(9), rng.normal()] == [one.random(), one.integers(9), one.normal()]


def test_rows_and_columns_are_broadcast() -> None:
    found = draw_seeds(7, [0, 1, 2], [[4], [5]], Purpose.BODY, [0, 0, 1])
    assert found.dtype == np.uint32
    assert found.shape == (2, 3)
    assert found[1, 2] == draw_seed(7, 2, 5, Purpose.BODY, 1)
    assert len(set(found.ravel().tolist())) == 6
