"""Bands and Gap: who copies is decided by how far scores lie apart, and not by ranks alone."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drawn import donors, outcomes, told
from journals_by_hand import Story
from phyla.errors import SettingsError
from phyla.settings import Settings
from phyla.strategies.bands import Bands, spread
from phyla.strategies.contract import Exploit
from phyla.strategies.gap import Gap

quick = settings(derandomize=True, deadline=None, max_examples=100, database=None)
NAN, INF = float("nan"), float("inf")
ALWAYS = Gap(0.2, 0.3, sigmas=0, relative=0)
"""Copies whatever the lead."""


def groups(story: Story, exploit: Exploit) -> tuple[set[int], set[int]]:
    """Who copies, and who is copied."""
    found = {m: donors(story, m, exploit) for m in range(story.view.size)}
    return {m for m in found if found[m]}, {donor for those in found.values() for donor in those}


def groups_at_once(story: Story, exploit: Exploit) -> tuple[set[int], set[int]]:
    """The same for an exploit under which every member that copies has the same donors: those of two are looked at."""
    copying = {m for m in range(story.view.size) if exploit(story.view, m, np.random.default_rng(m)) is not None}
    ends = {min(copying), max(copying)} if copying else set[int]()
    return copying, {donor for m in ends for donor in donors(story, m, exploit)}


# Bands --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(1, 65))
def test_bands_are_exact_for_every_population(n: int) -> None:
    rng = np.random.default_rng(n)
    scores = [float(x) for x in rng.integers(-20, 20, n)]
    story = told(scores)
    mean, sigma = statistics.fmean(scores), statistics.pstdev(scores)
    for k, gap in ((0.0, 0.0), (0.1, 0.0), (1.0, 0.0), (0.1, 9.7), (1.0, 30.0)):
        half = max(k * sigma, gap)
        low, high = ({m for m in range(n) if sign * (scores[m] - mean) > half + 1e-9} for sign in (-1, 1))
        assert groups_at_once(story, Bands(k, gap)) == ((low, high) if low and high else (set(), set()))


def test_a_band_holds_whoever_lies_on_its_edge_and_all_who_are_equal() -> None:
    assert groups(told([-1.0, 1.0]), Bands(1.0)) == (set(), set())
    assert groups(told([-1.0, 1.0]), Bands(0.99)) == ({0}, {1})
    for scores in ([0.1] * 3, [0.7] * 10, [0.0] * 4):
        assert groups(told(scores), Bands(0.0)) == (set(), set())


def test_a_gap_in_units_of_the_score_lets_near_equals_alone() -> None:
    scores = [0.50, 0.51, 0.52, 0.53]
    assert groups(told(scores), Bands(1.0))[0] == {0}
    assert groups(told(scores), Bands(1.0, gap=0.05)) == (set(), set())
    assert groups(told([0.30, 0.51, 0.52, 0.60]), Bands(1.0, gap=0.05)) == ({0}, {3})


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("mode", ["max", "min"])
def test_what_is_not_finite_is_below_the_band_and_does_not_move_it(bad: float, mode: str) -> None:
    story = told([bad, 0.0, 1.0, 2.0, None], mode=mode)
    worst, best = (1, 3) if mode == "max" else (3, 1)
    assert groups(story, Bands(1.0)) == ({0, worst}, {best})
    assert groups(told([bad] * 4, mode=mode), Bands(0.0)) == (set(), set())


def test_huge_scores_do_not_overflow() -> None:
    assert groups(told([-1e308, 1e308, 0.0]), Bands(1.0)) == ({0}, {1})
    assert groups(told([1e300] * 3 + [1.7e308]), Bands(0.1)) == ({0, 1, 2}, {3})
    assert spread([5e-324, 5e-324]) == (5e-324, 0.0)
    assert spread([0.0, 0.0]) == (0.0, 0.0)


def test_a_leader_is_drawn_uniformly() -> None:
    story = told([-9.0, 0.0, 0.0, 5.0, 6.0])
    rng = np.random.default_rng(0)
    found = Counter(record.id for _ in range(2000) if (record := Bands(0.5)(story.view, 0, rng)) is not None)
    assert sorted(found) == [3, 4]
    assert abs(found[3] - 1000) < 4 * math.sqrt(500)


def test_a_band_too_wide_for_the_population_is_advised_against() -> None:
    def advice(sigmas: float, size: int) -> list[str]:
        return Bands(sigmas).advise({}, Settings(seed=0, space={}, size=size, intervals=9))

    for size in (2, 4, 8, 18):
        widest = math.sqrt(size / 2)
        assert advice(widest, size)
        assert not advice(widest * 0.999, size)
        extreme = told([-1.0] + [0.0] * (size - 2) + [1.0])  # nobody can lie farther out, both ways
        assert groups(extreme, Bands(widest + 1e-9)) == (set(), set())
        assert groups(extreme, Bands(widest * 0.999)) == ({0}, {size - 1})
    assert "nobody ever copies" in advice(1e200, 4)[0]


# Gap ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(1, 65))
def test_groups_of_gap_are_exact_and_disjoint_for_every_population(n: int) -> None:
    rng = np.random.default_rng(n)
    scores = [float(x) for x in rng.permutation(n)]
    story, order = told(scores), sorted(range(n), key=lambda m: scores[m])
    for worst, best in ((0, 0.3), (0.125, 0.3), (0.5, 0.5), (0.07, 0), (0.28, 0.49)):
        low, high = (min(math.ceil(Fraction(str(f)) * n), n // 2) for f in (worst, best))
        copying, copied = groups_at_once(story, Gap(worst, best, sigmas=0, relative=0))
        assert (copying, copied) == ((set(order[:low]), set(order[n - high :])) if low and high else (set(), set()))
        assert not copying & copied


def test_where_all_scores_are_equal_nobody_leads() -> None:
    for n in (2, 5, 16):
        assert groups(told([1.0] * n), ALWAYS) == (set(), set())


def test_the_candidate_must_lead_by_more_than_its_share_of_the_spread() -> None:
    scores = [0.0, 4.0, 5.0, 6.0, 7.0]
    sigma = statistics.pstdev(scores[1:])  # the worst fifth is left out
    for sigmas in (5.99 / sigma, 6.01 / sigma):
        exploit = Gap(0.2, 0.4, sigmas, relative=0)
        assert donors(told(scores), 0, exploit) == ([3, 4] if sigmas * sigma < 6 else [4])
    assert donors(told(scores), 0, Gap(0.2, 0.4, 7.01 / sigma, 0)) == []


def test_and_by_more_than_a_share_of_its_own_score() -> None:
    for sign, shift in ((1, 100.0), (-1, -100.0)):
        story = told([shift, shift + 2, shift + 4, shift + 6, shift + 10], mode="max")
        share = abs(10 / (shift + 10))
        assert donors(story, 0, Gap(0.2, 0.2, 0, share * 0.999)) == [4], sign
        assert donors(story, 0, Gap(0.2, 0.2, 0, share * 1.001)) == [], sign


def test_one_that_has_collapsed_does_not_make_every_gap_look_small() -> None:
    scores = [-1000.0, -999.0, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7]
    assert donors(told(scores), 0, Gap()) == [7, 8, 9]
    scores = [-1000.0, -999.0, 0.0, *scores[3:]]
    assert donors(told(scores), 2, Gap(0.3)) == [7, 8, 9]


def test_the_candidate_is_drawn_before_it_is_judged() -> None:
    """So a member near the best group copies as seldom as it meets one that leads by enough."""
    story = told([5.0, 5.5, 6.0, 6.0, 6.0, 9.0])
    found = outcomes(story, 0, Gap(0.2, 0.5, sigmas=0, relative=0.2))
    assert [record and record.id for record in found] == [None, None, 5]


@pytest.mark.parametrize("mode", ["max", "min"])
def test_a_diverged_member_copies_and_is_not_copied(mode: str) -> None:
    story = told([1.0, NAN, 2.0, 3.0, INF, 4.0], mode=mode)
    best = [2, 3, 5] if mode == "max" else [0, 2, 3]
    assert groups(story, Gap(0.4, 0.5)) == ({1, 4} | ({0} if mode == "max" else {5}), set(best))
    assert groups(told([NAN] * 5, mode=mode), Gap()) == (set(), set())


any_score = st.one_of(st.none(), st.sampled_from([NAN, INF, -INF]), st.integers(-3, 3).map(float), st.floats())
exploits = st.one_of(
    st.builds(Bands, st.floats(0, 3), st.floats(0, 3)),
    st.builds(Gap, st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0, 3), st.floats(0, 1)),
)


@quick
@given(st.lists(any_score, min_size=1, max_size=12), exploits, st.sampled_from(["max", "min"]))
def test_whatever_the_scores_donors_are_finite_and_strictly_better_and_never_copy(
    scores: list[float | None], exploit: Exploit, mode: str
) -> None:
    story = told(scores, mode=mode)
    copying, copied = groups(story, exploit)
    assert not copying & copied
    for m in copying:
        for other in donors(story, m, exploit):
            own, donor = story.newest(m), story.newest(other)
            assert donor.finite
            assert story.view.value(donor) > story.view.value(own)


@pytest.mark.parametrize("exploit", [Bands(0.1), ALWAYS])
def test_nobody_exploits_before_half_the_population_has_a_score(exploit: Exploit) -> None:
    story = Story(10)
    for m in range(4):
        story.train(m, float(m))
    assert groups(story, exploit) == (set(), set())
    story.train(4, 4.0)
    assert groups(story, exploit)[1]


@pytest.mark.parametrize("exploit", [Bands(0.1), ALWAYS])
def test_members_are_compared_at_equal_progress(exploit: Exploit) -> None:
    story = Story(3, keep=9)
    story.generation(2.0, 1.0, 0.0)
    story.train(1, 9.0)
    assert donors(story, 0, exploit) == []


ERRORS: list[tuple[Any, str]] = [
    (lambda: Bands(-1), "Bands: sigmas must be a number, 0 or more, got -1"),
    (lambda: Bands(gap=NAN), "Bands: gap must be a number, 0 or more, got nan"),
    (lambda: Bands(INF), "got inf"),
    (lambda: Bands("1"), "got '1'"),
    (lambda: Gap(0.6), "Gap: worst must be a fraction from 0 to 0.5, got 0.6"),
    (lambda: Gap(best=-0.1), "Gap: best must be a fraction from 0 to 0.5, got -0.1"),
    (lambda: Gap(sigmas=None), "Gap: sigmas must be a number, 0 or more, got None"),
    (lambda: Gap(relative=True), "Gap: relative must be a number, 0 or more, got True"),
]


@pytest.mark.parametrize(("call", "message"), ERRORS, ids=[message[:60] for _, message in ERRORS])
def test_errors_say_what_was_given_and_expected(call: Any, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        call()
    assert message in str(caught.value)
