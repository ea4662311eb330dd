"""Tournament: a member copies another one, drawn uniformly, if that is better."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drawn import donors, outcomes, told
from journals_by_hand import Story
from phyla.strategies.tournament import Tournament

quick = settings(derandomize=True, deadline=None, max_examples=100, database=None)
NAN, INF = float("nan"), float("inf")
EXPLOIT = Tournament()

any_score = st.one_of(st.none(), st.sampled_from([NAN, INF, -INF]), st.integers(-3, 3).map(float), st.floats())


@quick
@given(st.lists(any_score, min_size=1, max_size=14), st.sampled_from(["max", "min"]))
def test_it_never_copies_a_worse_member_and_any_better_one_may_be_copied(scores: list[float | None], mode: str) -> None:
    story = told(scores, mode=mode)
    sign = 1 if mode == "max" else -1
    rank = {m: (sign * s if math.isfinite(s) else -INF, m) for m, s in enumerate(scores) if s is not None}
    allowed = len(rank) >= max(2, math.ceil(len(scores) / 2))
    for m in range(len(scores)):
        better = [o for o in rank if m in rank and rank[o] > rank[m] and math.isfinite(rank[o][0])]
        assert donors(story, m, EXPLOIT) == (better if allowed else [])
        if allowed and m in rank:
            assert len(outcomes(story, m, EXPLOIT)) == len(rank) - 1  # it meets all others that have a score


def test_of_two_members_exactly_one_is_better_though_their_scores_are_equal() -> None:
    for a, b in itertools.product([1.0, 2.0, NAN], repeat=2):
        story = told([a, b])
        copying = [m for m in range(2) if donors(story, m, EXPLOIT)]
        assert len(copying) == (0 if math.isnan(a) and math.isnan(b) else 1), (a, b)


def test_all_others_are_met_equally_often() -> None:
    story = told([0.0, 1.0, 2.0, 3.0, 4.0])
    rng = np.random.default_rng(0)
    found = Counter(record.id for _ in range(4000) if (record := EXPLOIT(story.view, 2, rng)) is not None)
    assert sorted(found) == [3, 4]
    assert all(abs(count - 1000) < 4 * math.sqrt(4000 * 0.25 * 0.75) for count in found.values())


@pytest.mark.parametrize(("size", "least"), [(2, 2), (3, 2), (5, 3), (8, 4)])
def test_nobody_exploits_before_half_the_population_has_a_score(size: int, least: int) -> None:
    story = Story(size)
    for m in range(least):
        assert not any(donors(story, other, EXPLOIT) for other in range(m))
        story.train(m, float(m))
    assert donors(story, 0, EXPLOIT) == list(range(1, least))


def test_members_are_compared_at_equal_progress() -> None:
    story = Story(2, keep=9)
    story.generation(1.0, 0.0)
    story.train(1, 9.0)
    assert donors(story, 0, EXPLOIT) == []
    story.train(0, 1.0)
    assert [(r.id, r.interval) for r in outcomes(story, 0, EXPLOIT) if r is not None] == [(1, 2)]
