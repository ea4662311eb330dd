"""MF-PBT: sub-populations that evolve at different frequencies (Doulazmi et al. 2025, arXiv 2506.03225)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import phyla
from phyla import guidance
from phyla.decide import decide
from phyla.errors import SettingsError
from phyla.events import RUN, Resized
from phyla.settings import Settings
from phyla.space import Float, Space, describe
from phyla.steer import placed, resize
from phyla.strategies.contract import advise, check
from phyla.strategies.mfpbt import MFPBT
from phyla.testing.story import Story

SPACE: Space = {"lr": Float(1e-6, 1.0, log=True)}
NAN, INF = math.nan, math.inf


def unchanged(frequencies: Sequence[int]) -> MFPBT:
    """Without an explore it can be seen whose hyperparameters are taken."""
    return MFPBT(frequencies, explore=None)


def told(size: int, **settings: Any) -> Story:
    return Story(size, space=SPACE, **settings)


def lr(member: int) -> float:
    """What it trains with, as long as it copies nobody."""
    return (member + 1) / 1000


def alone(story: Story, member: int, score: float | None) -> None:
    """It trains an interval, was ready before it, and copied nobody."""
    story.train(member, score, ready=True, hypers={"lr": lr(member)})


def stands(scores: Sequence[float | None], intervals: int = 1, **settings: Any) -> Story:
    """All have trained so many intervals alone, and came to these scores, by id."""
    story = told(len(scores), **settings)
    for _ in range(intervals):
        for member, score in enumerate(scores):
            alone(story, member, score)
    return story


def plan(story: Story, strategy: MFPBT, among: Sequence[int] | None = None) -> dict[int, tuple[int, int]]:
    """By the id of each member that copies: whose weights it goes on from, and whose hyperparameters it takes."""
    found = {}
    for member in among or range(len(story.view.done)):
        choice = decide(story.view, member, strategy)
        assert choice.source is not None
        if choice.source.member != member:
            found[member] = (choice.source.member, round(choice.hypers["lr"] * 1000) - 1)
    return found


# Within a sub-population ----------------------------------------------------------------------------------------------


def test_the_worst_quarter_copies_the_best_one_to_one_and_in_order() -> None:
    story = stands([3.0, 1.0, 7.0, 2.0, 8.0, 4.0, 6.0, 5.0])
    assert plan(story, unchanged([1])) == {1: (2, 2), 3: (4, 4)}


def test_what_is_copied_is_explored_and_nothing_else_changes() -> None:
    story = stands([3.0, 1.0, 7.0, 2.0, 8.0, 4.0, 6.0, 5.0])
    found = {m: decide(story.view, m, MFPBT([1])).hypers["lr"] / lr(m) for m in range(8)}
    assert found[1] * lr(1) / lr(2) == pytest.approx(0.8) or found[1] * lr(1) / lr(2) == pytest.approx(1.25)
    assert {m: ratio for m, ratio in found.items() if m not in (1, 3)} == dict.fromkeys([0, 2, 4, 5, 6, 7], 1.0)


def test_members_are_in_a_sub_population_by_their_id_and_do_not_exploit_the_others() -> None:
    """Members 0, 2, 4, 6 against 1, 3, 5, 7; the best of all is in the other one."""
    story = stands([1.0, 20.0, 2.0, 21.0, 3.0, 22.0, 4.0, 23.0])
    assert plan(story, unchanged([1, 50])) == {0: (6, 6), 2: (7, 7)}


@pytest.mark.parametrize("ready", [1, 3])
def test_each_sub_population_evolves_at_its_own_frequency_of_the_times_that_it_is_ready(ready: int) -> None:
    strategy, story = unchanged([1, 3]), told(8, ready=ready, intervals=60)
    copied: dict[int, list[int]] = {0: [], 1: []}
    for interval in range(1, 12 * ready + 2):
        for member in range(8):
            record = story.turn(member, float(member), strategy)
            if record.donor is not None:
                copied[member % 2].append(interval - 1)
    assert sorted(set(copied[0])) == [ready * n for n in range(1, 13)]
    assert sorted(set(copied[1])) == [ready * n for n in range(3, 13, 3)]


def test_a_member_that_was_replaced_in_between_goes_on_evolving() -> None:
    """Since then it is ready at 5, 8, 11, … and never at a multiple of 3 or 6."""
    strategy, story, copies = unchanged([2]), told(4, ready=3), list[int]()
    for interval in range(1, 20):
        for member in range(4):
            record = story.turn(member, NAN if (member, interval) == (0, 2) else float(member), strategy)
            if member == 0 and record.donor is not None and not record.replaced:
                copies.append(interval - 1)
    assert copies == [8, 14]


# Between sub-populations ----------------------------------------------------------------------------------------------

LOW, HIGH = [1.0, 2.0, 3.0, 4.0], [11.0, 12.0, 13.0, 14.0]


def woven(even: Sequence[float | None], odd: Sequence[float | None]) -> list[float | None]:
    """The scores of two sub-populations: members 0, 2, 4, … and 1, 3, 5, …"""
    return [score for pair in zip(even, odd, strict=True) for score in pair]


def test_a_greedier_member_takes_in_who_looks_further_ahead_with_his_hyperparameters() -> None:
    assert plan(stands(woven(LOW, HIGH)), unchanged([1, 50]))[2] == (7, 7)


def test_who_looks_further_ahead_takes_in_the_greedier_ones_weights_with_its_own_best_hyperparameters() -> None:
    story = stands(woven(LOW, HIGH), intervals=50)
    assert plan(story, unchanged([50, 1]))[2] == (7, 6)
    assert decide(story.view, 2, unchanged([50, 1])).notes == {"hypers": list(story.newest(6).ref)}


def test_between_equal_frequencies_each_keeps_its_own_hyperparameters() -> None:
    assert plan(stands(woven(LOW, HIGH)), unchanged([1, 1]))[2] == (7, 2)


def test_migrants_are_not_explored() -> None:
    story = stands(woven(LOW, HIGH))
    assert decide(story.view, 2, MFPBT([1, 50])).hypers == {"lr": lr(7)}


def test_the_third_quarter_takes_in_the_best_outsiders_each_of_them_once_and_the_better_member_first() -> None:
    low, high = [1.0, 2, 3, 4, 5, 6, 7, 8], [11.0, 12, 13, 14, 15, 16, 17, 18]
    assert plan(stands(woven(low, high)), unchanged([1, 50])) == {0: (12, 12), 2: (14, 14), 6: (15, 15), 4: (13, 13)}


def test_only_a_better_outsider_is_taken_in() -> None:
    low, high = [1.0, 2, 3.5, 4, 5, 6, 7, 8], [-1.0, -1, -1, -1, -1, -1, -1, 3.75]
    assert plan(stands(woven(low, high)), unchanged([1, 50])) == {0: (12, 12), 2: (14, 14), 4: (15, 15)}


@pytest.mark.parametrize("bad", [NAN, INF, -INF, None])
def test_nobody_takes_in_who_has_diverged_or_has_no_score(bad: float | None) -> None:
    story = stands(woven(LOW, [bad, bad, bad, bad]))
    assert plan(story, unchanged([1, 50]), among=[0, 2, 4, 6]) == {0: (6, 6)}


# All of it, against the rule once more --------------------------------------------------------------------------------


def by_the_book(scores: np.ndarray, frequencies: Sequence[int], time: int) -> dict[int, tuple[int, int]]:
    """The same for whole quarters, all sub-populations at once, on arrays of places: best first, as the paper has it."""
    groups, found = len(frequencies), {}
    best_first = np.argsort(-scores)
    for group, period in enumerate(frequencies):
        if time % period:
            continue
        ours = best_first[best_first % groups == group]
        theirs = list(best_first[best_first % groups != group])
        quarters = np.split(ours, 4)
        for loser, winner in zip(quarters[3], quarters[0], strict=True):
            found[int(loser)] = (int(winner), int(winner))
        for member in quarters[2]:
            if theirs and scores[theirs[0]] > scores[member]:
                migrant = theirs.pop(0)
                other = frequencies[migrant % groups]
                hypers = migrant if period < other else ours[0] if period > other else member
                found[int(member)] = (int(migrant), int(hypers))
    return found


@pytest.mark.parametrize("seed", range(30))
def test_it_is_the_rule_for_random_scores_sizes_and_times(seed: int) -> None:
    rng = np.random.default_rng(seed)
    frequencies = [int(f) for f in rng.choice([1, 2, 3], int(rng.integers(1, 5)))]
    size, time = 4 * len(frequencies) * int(rng.integers(1, 4)), int(rng.integers(1, 7))
    scores = rng.permutation(size).astype(float)
    story = stands(scores.tolist(), intervals=time)
    assert plan(story, unchanged(frequencies)) == by_the_book(scores, frequencies, time)


# Populations that are not whole ---------------------------------------------------------------------------------------


def test_nobody_evolves_before_half_of_its_sub_population_has_a_score() -> None:
    story = told(16)
    for m in (*range(1, 16, 2), 0, 2, 4):
        alone(story, m, float(m))
    assert plan(story, unchanged([1, 50]), among=[0, 2, 4]) == {}
    alone(story, 6, 6.0)
    assert plan(story, unchanged([1, 50]), among=[0, 2, 4, 6]) == {0: (6, 6), 2: (15, 15)}


@pytest.mark.parametrize("n", range(1, 14))
def test_quarters_are_rounded_and_never_meet(n: int) -> None:
    """Whoever is better off than all of its own half is left alone, and everybody else has a part."""
    story = stands([*map(float, range(n)), *[100.0 + m for m in range(n)]])
    strategy = MFPBT([1, 50], explore=None)
    copying = plan(story, strategy, among=range(0, 2 * n, 2))
    ranked = sorted(range(0, 2 * n, 2), key=lambda m: m + 100 * (m >= n))
    k = min(math.ceil(n / 4), n // 2)
    inside = {m: donor for m, (donor, _) in copying.items() if donor % 2 == 0}
    assert inside == dict(zip(ranked[:k], ranked[n - k :], strict=True))
    assert set(copying) - set(inside) <= set(ranked[k : min(2 * k, n - k)])


def test_members_compare_themselves_at_equal_progress() -> None:
    story = told(8, keep=9)
    for member in range(8):
        for interval in range(1, 2 if member == 0 else 4):
            story.train(member, 100.0 * member + interval)
    choice = decide(story.view, 0, unchanged([1]))
    assert choice.source is not None
    donor = story.view.records[choice.source]
    assert (donor.id, donor.interval) == (6, 1)


def test_who_has_lost_its_state_is_replaced_from_the_best_quarter_of_its_own_sub_population() -> None:
    for seed in range(20):
        story = stands(woven([NAN, *map(float, range(1, 8))], [100.0 + m for m in range(8)]), seed=seed)
        choice = decide(story.view, 0, unchanged([50, 50]))
        assert choice.replaced
        assert choice.source is not None
        assert choice.source.member in (12, 14)


def test_where_all_of_a_sub_population_have_diverged_it_begins_anew() -> None:
    story = stands(woven([NAN] * 4, HIGH))
    choices = [decide(story.view, m, MFPBT([1, 50])) for m in (0, 2, 4, 6)]
    assert [choice.source for choice in choices] == [None] * 4
    assert len({choice.hypers["lr"] for choice in choices}) == 4


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 9, 12, 13])
def test_members_come_and_go_and_those_who_stay_remain_in_their_sub_population(size: int) -> None:
    story, strategy = stands([float(m) for m in range(8)]), unchanged([1, 2])
    for event in resize(size)(story.view):
        story.add(placed(event, story.view.run_head + 1) if event.member == RUN else event)
    active = [int(m) for m in np.flatnonzero(story.view.active)]
    assert len(active) == size
    for interval in range(6):
        for member in active:
            record = story.turn(member, float(member) + interval, strategy)
            within = record.replaced or (member % 2 == 1 and record.notes is None)  # no migrant to the slower half
            if record.donor is not None and within:
                assert record.donor.member % 2 == member % 2
    assert (story.view.done[active] >= 6).all()


def test_where_only_one_of_a_sub_population_is_left_it_goes_on_alone() -> None:
    story = stands([float(m) for m in range(8)])
    story.add(Resized(member=RUN, seq=2, size=5, first=2, retired=[0, 2, 4]))
    assert 6 not in plan(story, unchanged([1, 50]))


# Before a run ---------------------------------------------------------------------------------------------------------


def settings(size: int = 16, intervals: int | None = 1000, **known: Any) -> Settings:
    return Settings(seed=0, space=describe(SPACE), size=size, intervals=intervals, **known)


@pytest.mark.parametrize("size", [16, 20, 24, 28, 32])
def test_with_the_usual_frequencies_these_sizes_work(size: int) -> None:
    check(MFPBT(), SPACE, settings(size))


@pytest.mark.parametrize("size", [1, 4, 12, 15, 18, 30])
def test_a_population_that_makes_no_equal_sub_populations_is_refused_with_those_that_do(size: int) -> None:
    with pytest.raises(SettingsError, match=rf"at least four members.* 16, 20, 24, 28, 32, …; got {size}"):
        phyla.Population("unequal", SPACE, size, 1000, strategy=MFPBT(), journal="memory")


@pytest.mark.parametrize("bad", [(), (0,), (1, -2), (1, 2.0), (True, 2), 4, None, "12", (1, None)])
def test_frequencies_must_be_whole_numbers_from_one(bad: Any) -> None:
    with pytest.raises(SettingsError, match="frequencies must be whole numbers from 1"):
        MFPBT(bad)


def test_explore_must_be_callable() -> None:
    with pytest.raises(SettingsError, match="explore must be one such as"):
        MFPBT(explore=0.8)  # type: ignore[arg-type]


@pytest.mark.parametrize(("intervals", "ready", "times"), [(100, 1, 1), (150, 1, 2), (400, 4, 1), (10, 1, 0)])
def test_a_run_in_which_the_slowest_hardly_evolves_is_advised_against(intervals: int, ready: int, times: int) -> None:
    (said,) = advise(MFPBT(), SPACE, settings(intervals=intervals, ready=ready))
    assert f"evolves every {50 * ready} intervals, which is {times} times in {intervals}" in said
    assert f"takes {150 * ready + 1} intervals and more" in said


@pytest.mark.parametrize(("intervals", "ready"), [(151, 1), (1000, 1), (604, 4), (None, 1)])
def test_a_run_that_is_long_enough_is_not(intervals: int | None, ready: int) -> None:
    assert advise(MFPBT(), SPACE, settings(intervals=intervals, ready=ready)) == []


def test_nobody_is_told_to_look_further_ahead_who_does() -> None:
    """A thousand times ready are too many for a greedy strategy, and what this one was made for."""
    assert guidance.at_start(settings(), SPACE, MFPBT()) == []
    assert "look further ahead" in guidance.at_start(settings(), SPACE, None)[0]
