"""Many seeds at once are those that are drawn one by one."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from phyla.randomness import Purpose, draw_seed, draw_seeds

words = st.integers(0, 2**32 - 1)


@given(seed=st.integers(0, 2**100), rows=st.lists(st.tuples(words, words, words, words), max_size=4))
def test_many_seeds_are_those_that_are_drawn_one_by_one(seed: int, rows: list[tuple[int, int, int, int]]) -> None:
    members, intervals, replacements, attempts = np.array(rows, np.uint32).reshape(-1, 4).T
    for purpose in Purpose:
        expected = [draw_seed(seed, m, i, purpose, r, a) for m, i, r, a in rows]
        assert draw_seeds(seed, members, intervals, purpose, replacements, attempts).tolist() == expected


def test_rows_and_columns_are_broadcast() -> None:
    found = draw_seeds(7, [0, 1, 2], [[4], [5]], Purpose.BODY, [0, 0, 1])
    assert found.dtype == np.uint32
    assert found.shape == (2, 3)
    assert found[1, 2] == draw_seed(7, 2, 5, Purpose.BODY, 1)
    assert len(set(found.ravel().tolist())) == 6
