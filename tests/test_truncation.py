"""Truncation: the worst fraction copies the best (traps T4, T5 and T6 of PBT)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journals_by_hand import Story
from phyla.errors import SettingsError
from phyla.record import Record
from phyla.strategies.truncation import Truncation, group_size, quorum

quick = settings(derandomize=True, deadline=None, max_examples=100, database=None)
NAN, INF = float("nan"), float("inf")
FRACTIONS = (0, 0.01, 0.05, 0.07, 0.1, 0.125, 0.2, 0.25, 0.28, 0.3, 0.4, 0.45, 0.49, 0.5)


class Every:
    """In the place of a generator: gives each of the numbers that `integers` may draw, one after the other."""

    def __init__(self) -> None:
        self.next = 0
        self.most = 1

    def integers(self, most: int) -> int:
        self.most = most
        return self.next


def donors(story: Story, member: int, fraction: float) -> list[Record]:
    """Every report that the member may copy; empty if it copies nobody."""
    rng: Any = Every()
    found = []
    while rng.next < rng.most:
        donor = Truncation(fraction)(story.view, member, rng)
        if donor is None:
            return []
        found.append(donor)
        rng.next += 1
    return found


def told(scores: Sequence[float | None], **known: Any) -> Story:
    story = Story(len(scores), **known)
    story.generation(*scores)
    return story


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_group_sizes_are_exact_for_every_population(fraction: float) -> None:
    for n in range(1, 65):
        assert group_size(fraction, n) == min(math.ceil(Fraction(str(fraction)) * n), n // 2), n


@pytest.mark.parametrize("n", range(1, 65))
def test_groups_are_disjoint_and_of_the_stated_size_and_every_donor_is_better(n: int) -> None:
    rng = np.random.default_rng(n)
    scores = [float(x) for x in rng.permutation(n)]
    story = told(scores)
    order = sorted(range(n), key=lambda m: scores[m])
    for fraction in (0, 0.07, 0.2, 0.5):
        k = min(math.ceil(Fraction(str(fraction)) * n), n // 2)
        found = {m: sorted(r.id for r in donors(story, m, fraction)) for m in range(n)}
        assert {m for m in found if found[m]} == set(order[:k])
        assert all(found[m] == sorted(order[n - k :]) for m in order[:k])


@pytest.mark.parametrize("n", [2, 3, 4, 5, 8, 10, 33])
@pytest.mark.parametrize("mode", ["max", "min"])
def test_where_all_scores_are_equal_the_highest_ids_win_and_nobody_copies_itself(n: int, mode: str) -> None:
    story = told([1.0] * n, mode=mode)
    k = group_size(0.2, n)
    for m in range(n):
        assert [r.id for r in donors(story, m, 0.2)] == (list(range(n - k, n)) if m < k else [])


def test_a_fraction_of_zero_selects_nobody_not_everybody() -> None:
    story = told([1.0, 2.0, 3.0, 4.0])
    assert [donors(story, m, 0) for m in range(4)] == [[], [], [], []]


@pytest.mark.parametrize("mode", ["max", "min"])
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_what_is_not_finite_ranks_worst_and_is_no_donor_in_both_modes(mode: str, bad: float) -> None:
    story = told([1.0, bad, 2.0, 3.0, 2.5], mode=mode)
    best = 3 if mode == "max" else 0
    assert [[r.id for r in donors(story, m, 0.2)] for m in range(5)] == [[], [best], [], [], []]


def test_the_top_group_may_hold_fewer_donors_than_its_size_but_never_a_diverged_one() -> None:
    story = told([NAN, INF, -INF, 1.0])
    assert [[r.id for r in donors(story, m, 0.5)] for m in range(4)] == [[3], [3], [], []]


@pytest.mark.parametrize("scores", [[NAN] * 4, [INF, -INF, NAN, INF], [None] * 4])
def test_where_nothing_is_finite_nothing_is_copied(scores: list[float | None]) -> None:
    story = told(scores)
    assert not any(donors(story, m, 0.5) for m in range(4))


def test_a_member_without_a_score_is_neither_donor_nor_replaced() -> None:
    story = told([None, 1.0, 2.0, None, 3.0])
    assert [[r.id for r in donors(story, m, 0.5)] for m in range(5)] == [[], [4], [], [], []]


@pytest.mark.parametrize(("size", "least"), [(1, 2), (2, 2), (3, 2), (4, 2), (5, 3), (6, 3), (7, 4), (8, 4), (20, 10)])
def test_nobody_exploits_before_half_the_population_has_a_score(size: int, least: int) -> None:
    assert quorum(size) == least
    story = Story(size)
    for reports, m in enumerate(range(min(least, size)), 1):
        assert not any(donors(story, other, 0.5) for other in range(m)), reports
        story.train(m, float(m))
    assert bool(donors(story, 0, 0.5)) == (size >= least)


def test_reports_without_a_score_do_not_make_a_quorum() -> None:
    story = Story(6)
    for m, score in enumerate([1.0, 2.0, None, None, None]):
        story.train(m, score)
    assert donors(story, 0, 0.5) == []
    story.train(5, 3.0)
    assert [r.id for r in donors(story, 0, 0.5)] == [5]


def test_a_donor_is_drawn_uniformly_from_the_top_group() -> None:
    story = told([float(m) for m in range(20)])
    rng = np.random.default_rng(0)
    found = Counter(record.id for _ in range(4000) if (record := Truncation(0.2)(story.view, 0, rng)) is not None)
    assert sorted(found) == [16, 17, 18, 19]
    assert all(abs(count - 1000) < 4 * math.sqrt(4000 * 0.25 * 0.75) for count in found.values())


def test_equal_generators_draw_equal_donors_and_the_view_is_only_read() -> None:
    story = told([float(m) for m in range(20)])
    first, second = ([Truncation(0.5)(story.view, m, np.random.default_rng(5)) for m in range(20)] for _ in range(2))
    assert first == second


def test_the_donor_is_the_report_at_equal_progress_not_the_newest_one() -> None:
    story = Story(4, keep=9)
    for m in range(4):
        for interval in range(1, 5):
            if m != 0 or interval < 3:
                story.train(m, 100.0 * m + interval)
    assert [(r.id, r.interval) for r in donors(story, 0, 0.25)] == [(3, 2)]


any_score = st.one_of(st.none(), st.sampled_from([NAN, INF, -INF]), st.integers(-3, 3).map(float), st.floats())


@quick
@given(st.lists(any_score, min_size=1, max_size=24), st.sampled_from(FRACTIONS), st.sampled_from(["max", "min"]))
def test_whatever_the_scores_donors_are_finite_and_strictly_better_and_never_copy(
    scores: list[float | None], fraction: float, mode: str
) -> None:
    story = told(scores, mode=mode)
    view = story.view
    scored = [r for r in (story.newest(m) for m in range(len(scores))) if r.score is not None]
    k = group_size(fraction, len(scored))
    copying, copied = set[int](), set[int]()
    for m in range(len(scores)):
        for donor in donors(story, m, fraction):
            own = story.newest(m)
            assert donor.finite
            assert (view.value(donor), donor.id) > (view.value(own), own.id)
            copying.add(m)
            copied.add(donor.id)
    assert not copying & copied
    assert len(copied) <= k
    assert len(copying) == (k if copied else 0)


@pytest.mark.parametrize("fraction", [-0.1, 0.51, 1, NAN, INF, "0.2", None, True, 0.2j])
def test_other_fractions_are_refused_with_what_was_given_and_expected(fraction: Any) -> None:
    with pytest.raises(SettingsError, match=r"Truncation\(.*\): expected a fraction from 0 to 0.5"):
        Truncation(fraction)
