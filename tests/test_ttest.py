"""TTest: Welch's test is exact, it errs as often as it says, and it compares samples of one set of weights only."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import phyla
from drawn import donors
from journals_by_hand import Story
from phyla.strategies.contract import needs_samples
from phyla.strategies.evolve import Evolve
from phyla.strategies.protect import Protect
from phyla.strategies.ttest import TTest, student_tail, welch

quick = settings(derandomize=True, deadline=None, max_examples=100, database=None)
NAN, INF = float("nan"), float("inf")


# The test itself ----------------------------------------------------------------------------------------------------


def test_it_is_scipys_test_on_all_sizes_and_spreads() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(0)
    for n, m in [(2, 2), (2, 50), (3, 7), (10, 10), (10, 4), (60, 60), (500, 1000)]:
        xs = rng.normal(rng.normal(size=(20, 1)), 10 ** rng.uniform(-3, 3, (20, 1)), (20, n))
        ys = rng.normal(rng.normal(size=(20, 1)), 10 ** rng.uniform(-3, 3, (20, 1)), (20, m))
        expected = stats.ttest_ind(xs, ys, axis=1, equal_var=False, alternative="greater").pvalue
        found = [welch(x.tolist(), y.tolist()) for x, y in zip(xs, ys, strict=True)]
        assert np.abs(found - expected).max() < 1e-12


def test_the_tail_of_students_distribution_is_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    ts = np.array([*np.geomspace(1e-6, 60, 30), *-np.geomspace(1e-6, 60, 30), 0.0, 1e200])
    for freedom in np.geomspace(1, 5000, 40):
        found = np.array([student_tail(float(t), float(freedom)) for t in ts])
        assert np.allclose(found, stats.t.sf(ts, freedom), rtol=1e-9, atol=1e-300)


def test_the_tail_is_known_in_closed_form_for_one_and_two_degrees_of_freedom() -> None:
    for t in (-7.0, -0.5, 0.0, 0.1, 1.0, 30.0):
        assert student_tail(t, 1) == pytest.approx(0.5 - math.atan(t) / math.pi, abs=1e-14)
        assert student_tail(t, 2) == pytest.approx(0.5 - t / 2 / math.sqrt(2 + t * t), abs=1e-14)


def test_where_neither_side_varies_only_the_means_count() -> None:
    assert welch([1.0, 1.0], [1.0, 1.0, 1.0]) == 1.0
    assert welch([2.0, 2.0], [1.0, 1.0]) == 0.0
    assert welch([1.0, 1.0], [2.0, 2.0]) == 1.0
    assert welch([0.0, 0.0], [0.0, 0.0]) == 1.0
    assert welch([0.1] * 10, [0.1] * 10) >= 0.5
    assert welch([1.0, 1.0, 1.0], [0.0, 0.1, 0.2]) < 0.01  # one side varies


numbers = st.lists(st.floats(-1e3, 1e3).map(lambda x: round(x, 3)), min_size=2, max_size=20)


@quick
@given(numbers, numbers, st.sampled_from([1e-300, 1e-3, 7.0, 1e300]))
def test_it_knows_no_units_and_the_two_sides_add_up(xs: list[float], ys: list[float], unit: float) -> None:
    p = welch(xs, ys)
    assert 0 <= p <= 1
    assert welch([unit * x for x in xs], [unit * y for y in ys]) == pytest.approx(p, abs=1e-6)
    if len({*xs}) > 1 or len({*ys}) > 1:
        assert p + welch(ys, xs) == pytest.approx(1, abs=1e-12)


# The exploit --------------------------------------------------------------------------------------------------------


def sampled(samples: list[list[float]], **known: Any) -> Story:
    """Every member reports these samples; the score is their mean."""
    story = Story(len(samples), **known)
    for member, its in enumerate(samples):
        story.claim(member)
        story.report(member, float(np.mean(its)), samples=its)
    return story


def copied_shares(thresholds: Sequence[float], deviations: Sequence[float]) -> list[float]:
    """The shares of meetings that end in a copy, where all members have the same mean."""
    copies, meetings = np.zeros(len(thresholds)), 0
    for seed in range(45):
        rng = np.random.default_rng([seed, 3])
        story = sampled([rng.normal(5, deviations[m % len(deviations)], 10).tolist() for m in range(32)])
        for member in range(32):
            meetings += 1
            found = [TTest(each)(story.view, member, np.random.default_rng([seed, member])) for each in thresholds]
            copies += [record is not None for record in found]
    return [float(share) for share in copies / meetings]


def test_equal_members_copy_one_another_as_often_as_the_threshold_says() -> None:
    thresholds = (0.05, 0.25)
    for threshold, share in zip(thresholds, copied_shares(thresholds, [2.0]), strict=True):
        assert abs(share - threshold) < 4 * math.sqrt(threshold * (1 - threshold) / (45 * 32)), (threshold, share)


def test_so_do_members_of_equal_means_that_vary_by_different_amounts() -> None:
    """Student's own test, which pools the variances, would copy too often where few samples vary much."""
    (share,) = copied_shares([0.05], [0.1, 10.0])
    assert abs(share - 0.05) < 4 * math.sqrt(0.05 * 0.95 / (45 * 32))


def test_a_member_that_is_clearly_better_is_copied_nearly_always_and_a_worse_one_never() -> None:
    rng = np.random.default_rng(1)
    found = [
        [donors(story, m, TTest()) for m in range(2)]
        for story in (sampled([rng.normal(0, 1, 10).tolist(), rng.normal(2, 1, 10).tolist()]) for _ in range(200))
    ]
    assert sum(first == [1] for first, _ in found) > 190
    assert not any(second for _, second in found)


LOW, HIGH = [0.9, 1.0, 1.1, 1.0, 1.0], [2.9, 3.0, 3.1, 3.0, 3.0]


def test_the_mode_says_which_mean_is_better() -> None:
    for mode, copying in (("max", [[1], []]), ("min", [[], [0]])):
        story = sampled([LOW, HIGH], mode=mode)
        assert [donors(story, m, TTest(k=5)) for m in range(2)] == copying


@pytest.mark.parametrize("short", [0, 1])
def test_who_has_fewer_than_k_samples_neither_copies_nor_is_copied(short: int) -> None:
    samples = [LOW, HIGH]
    samples[short] = samples[short][:4]
    story = sampled(samples)
    assert donors(story, 0, TTest(k=5)) == []
    assert donors(story, 0, TTest(k=4)) == [1]
    story.claim(short)
    story.report(short, float(np.mean(samples[short])), samples=samples[short][:1])
    story.train(1 - short, float(np.mean(samples[1 - short])))
    assert donors(story, 0, TTest(k=5)) == [1]  # samples of several intervals count together


def test_after_a_copy_nothing_is_compared_until_the_window_is_full_again() -> None:
    story = sampled([LOW, HIGH, HIGH])
    exploit = TTest(k=5)
    story.claim(0, source=story.newest(1))
    story.report(0, 1.0, samples=[1.0, 1.1])
    for m in (1, 2):
        story.claim(m)
        story.report(m, 3.0, samples=HIGH)
    assert donors(story, 0, exploit) == []
    assert 0 not in donors(story, 1, exploit)
    story.claim(0)
    story.report(0, 1.0, samples=[1.0, 1.1, 0.9])
    for m in (1, 2):
        story.claim(m)
        story.report(m, 3.0, samples=HIGH)
    assert donors(story, 0, exploit) == [1, 2]


def test_only_the_newest_k_samples_count() -> None:
    story = sampled([HIGH, LOW])
    for m, its in enumerate([LOW, HIGH]):
        story.claim(m)
        story.report(m, float(np.mean(its)), samples=its)
    assert donors(story, 0, TTest(k=5)) == [1]


def test_it_looks_at_the_samples_of_others_up_to_its_own_progress() -> None:
    story = sampled([LOW, LOW], keep=9)
    story.claim(1)
    story.report(1, 3.0, samples=HIGH)
    assert donors(story, 0, TTest(k=5)) == []


def test_it_never_goes_against_the_ranking() -> None:
    """The peer's last ten samples are better, but its score is of the last five, and those are worse."""
    story = Story(2, window=5)
    fair = [1.2, 1.3, 1.2, 1.3, 1.2]
    for m, (old, new) in enumerate([(LOW, fair), (HIGH, LOW)]):
        for its in (old, new):
            story.claim(m)
            story.report(m, float(np.mean(its)), samples=its)
    assert welch(HIGH + LOW, LOW + fair) < 0.05
    assert donors(story, 0, TTest(0.5, k=10)) == []
    assert donors(story, 1, TTest(0.05, k=5)) == [0]


def test_diverged_members_and_ties() -> None:
    story = sampled([LOW, HIGH, HIGH])
    story.generation(NAN, NAN, INF)
    assert [donors(story, m, TTest(k=5)) for m in range(3)] == [[], [], []]
    same = sampled([[1.0] * 5, [1.0] * 5])
    assert [donors(same, m, TTest(0.5, k=5)) for m in range(2)] == [[], []]
    apart = sampled([[1.0] * 5, [2.0] * 5])
    assert [donors(apart, m, TTest(1e-9, k=5)) for m in range(2)] == [[1], []]
    assert donors(apart, 0, TTest(0, k=5)) == []


def test_a_plain_number_is_no_sample_and_is_refused_at_the_first_report() -> None:
    for exploit in (TTest(), Protect(TTest(), 1)):
        assert needs_samples(exploit)
        assert needs_samples(Evolve(exploit, None))
    population = phyla.Population(
        "t", {"lr": phyla.Float(0.0, 1.0)}, 2, 3, exploit=TTest(), journal="memory", progress=False
    )
    member = next(iter(population))
    with pytest.raises(phyla.ScoreError, match="samples"):
        member.report(1.0, {"x": 1})


ERRORS: list[tuple[Any, str]] = [
    (lambda: TTest(-0.1), "TTest: threshold must be an error rate from 0 to 0.5, got -0.1"),
    (lambda: TTest(0.51), "got 0.51"),
    (lambda: TTest(NAN), "got nan"),
    (lambda: TTest(True), "got True"),
    (lambda: TTest("0.05"), "got '0.05'"),
    (lambda: TTest(k=1), "TTest: k must be a whole number of samples, 2 or more, got 1"),
    (lambda: TTest(k=10.0), "got 10.0"),
    (lambda: TTest(k=True), "got True"),
]


@pytest.mark.parametrize(("call", "message"), ERRORS, ids=[message[:60] for _, message in ERRORS])
def test_errors_say_what_was_given_and_expected(call: Any, message: str) -> None:
    with pytest.raises(phyla.SettingsError) as caught:
        call()
    assert message in str(caught.value)
