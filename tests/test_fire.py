"""FIRE PBT: roles, evaluations and their curves, and what P1, P2 and evaluators decide on them."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

import phyla
from journals_by_hand import SPACE, Story
from phyla.decide import Choice, decide
from phyla.doctor import examine
from phyla.errors import SettingsError
from phyla.events import Recorded
from phyla.settings import Settings
from phyla.space import describe as describe_space
from phyla.strategies.contract import Strategy
from phyla.strategies.curves import Curve, Overlap, best_score_diff, binomial_tail, overlap, p_value, smooth
from phyla.strategies.describe import describe
from phyla.strategies.fire import FIRE, Role, _Seen
from phyla.strategies.perturb import Gaussian, Perturb
from phyla.strategies.rebuild import rebuild
from phyla.testing import workloads
from phyla.testing.simulation import Faults, Simulation, outcome

NAN, INF = float("nan"), float("inf")
EVERY = FIRE(every=1, max_eval=8, explore=None)
"""A round each interval, so that stories are short, and copies that can be recognised."""

P1, P2, EVALUATORS = (0, 3, 6), (1, 4, 7), (2, 5)
"""The roles of eight members."""


def curve(*scores: float) -> Curve:
    return Curve(tuple(map(float, scores)))


# Curves ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 7, 30, 100])
def test_a_straight_line_is_smooth_already_up_to_its_ends(n: int) -> None:
    line = 3.0 - 0.7 * np.arange(n)
    assert smooth(line) == pytest.approx(line)


@pytest.mark.parametrize("n", [4, 9, 12, 40])
def test_smoothing_is_weighted_least_squares_around_each_score(n: int) -> None:
    values, width = np.random.default_rng(n).normal(size=n), min(10, n // 3)
    for at, smoothed in enumerate(smooth(values)):
        near = np.arange(max(0, at - width), min(n, at + width + 1))
        weights = (1 - np.abs((near - at) / (width + 1)) ** 3) ** 3
        line = np.polyfit(near - at, values[near], 1, w=np.sqrt(weights))
        assert smoothed == pytest.approx(line[1])


def test_smoothing_takes_noise_away_and_moves_with_the_curve() -> None:
    rng = np.random.default_rng(0)
    values = np.linspace(0, 1, 60) + rng.normal(size=60)
    assert np.std(smooth(values) - np.linspace(0, 1, 60)) < 0.5
    assert smooth(values + 5) == pytest.approx(smooth(values) + 5)


def test_curves_run_side_by_side_from_where_the_lower_one_has_come_to_the_others_start() -> None:
    low, high = curve(0, 1, 2, 3, 4), curve(1.9, 2.4, 2.9)
    assert overlap(low, high) == Overlap(2, 0, 3)
    assert overlap(high, low) == Overlap(0, 2, 3)
    assert overlap(low, curve(3.9, 4, 4.1)) == Overlap(4, 0, 1)
    assert overlap(low, low) == Overlap(0, 0, 5)
    assert overlap(low, curve(4.5, 5)) is None
    assert overlap(curve(4.5, 5), low) is None


def test_noise_above_the_others_start_is_not_yet_there() -> None:
    noisy = curve(0, 0.3, 2.2, 0.7, 0.9, 1.3, 1.4, 1.8, 2.1, 2.3, 2.6, 2.9)
    both = overlap(noisy, curve(2, 2, 2))
    assert both is not None
    assert both.one > 5


def test_the_difference_is_that_of_the_best_scores_side_by_side() -> None:
    low, high = curve(0, 1, 2, 3, 4), curve(1.9, 2.4, 2.9)
    assert best_score_diff(low, high) == pytest.approx(4 - 2.9)
    assert best_score_diff(high, low) == pytest.approx(2.9 - 4)
    longer = curve(0, 1, 2, 3, 4, 5, 6, 7)  # what came after does not count
    assert best_score_diff(longer, high) == pytest.approx(4 - 2.9)
    lucky = curve(*range(8), 20, *range(9, 13))  # best is not last
    assert overlap(lucky, curve(*range(13))) == Overlap(0, 0, 13)
    assert best_score_diff(lucky, curve(*range(13))) == 20 - 12


def test_a_curve_wholly_above_is_moved_down_and_the_largest_difference_counts() -> None:
    low, high = curve(0, 3, 6, 9), curve(100, 110, 120)
    # Moved to begin at 9, 8.1, …, 0.9; at 2.7 the lower one comes in at its second score, and 22.7 stands against 9.
    assert best_score_diff(high, low) == pytest.approx(13.7)
    assert best_score_diff(low, high) == best_score_diff(curve(0, 30, 60, 90), high) == 0  # below, however steep
    assert best_score_diff(curve(100, 99), low) == 0  # falling, it is better nowhere; but never below 0


def test_the_test_counts_the_scores_that_are_better_side_by_side() -> None:
    stats = pytest.importorskip("scipy.stats")
    low = curve(*range(12))
    high = curve(4.9, 5.9, 6.9, 7.9, 10.5, 10.6)
    assert overlap(low, high) == Overlap(5, 0, 6)
    wins = 4 + 0 + 0  # 5 > 4.9, …, 8 > 7.9; then 9 < 10.5, and 10 < 10.6
    assert p_value(low, high) == pytest.approx(stats.binomtest(wins, 6, alternative="greater").pvalue)
    assert p_value(high, low) == pytest.approx(stats.binomtest(2, 6, alternative="greater").pvalue)


def test_without_an_overlap_the_test_goes_from_the_starts() -> None:
    low, high = curve(0, 1, 2), curve(9, 9, 9, 9)
    assert p_value(high, low) == 0.5**3
    assert p_value(low, high) == 1
    assert p_value(curve(*[0.0] * 9), curve(*[0.0] * 9)) == 1  # equal is not better


def test_the_tail_is_that_of_the_binomial_distribution() -> None:
    stats = pytest.importorskip("scipy.stats")
    for n in (1, 2, 7, 30, 41):
        for wins in range(n + 1):
            assert binomial_tail(wins, n) == pytest.approx(stats.binomtest(wins, n, alternative="greater").pvalue)
    assert binomial_tail(0, 0) == 1
    assert binomial_tail(1000, 2000) == pytest.approx(0.5, abs=0.01)


# Roles ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shares", [(8, 8, 6), (1, 1, 1), (5, 3, 2), (0.6, 0.25, 0.15)])
def test_every_member_has_one_role_and_the_roles_have_their_shares(shares: tuple[float, float, float]) -> None:
    fire = FIRE(shares)
    for n in range(1, 65):
        roles = fire.roles(n)
        assert len(roles) == n
        for share, (role, size) in zip(shares, fire.sizes(n).items(), strict=True):
            assert size == roles.count(role)
            assert abs(size - n * share / sum(shares)) < 1
        assert roles == fire.roles(64)[:n]  # a larger population changes nobody's


def test_the_published_sizes_come_out() -> None:
    def sizes(n: int) -> list[int]:
        return list(FIRE().sizes(n).values())

    assert [sizes(n) for n in (22, 8, 6)] == [[8, 8, 6], [3, 3, 2], [2, 2, 2]]
    ids: dict[Role, tuple[int, ...]] = {"P1": P1, "P2": P2, "evaluator": EVALUATORS}
    assert FIRE().roles(8) == [role for m in range(8) for role, members in ids.items() if m in members]


def settings(size: int, **known: Any) -> Settings:
    return Settings(**{"seed": 0, "space": describe_space(SPACE), "size": size, "intervals": 500, **known})


@pytest.mark.parametrize("size", range(1, 6))
def test_fewer_members_than_two_for_each_role_are_refused_with_what_is_needed(size: int) -> None:
    with pytest.raises(
        SettingsError, match=rf"FIRE: {size} members are .* it needs 2 of each.* A size of 6 gives 2 of P1"
    ):
        FIRE().check(SPACE, settings(size))


def test_what_it_is_made_of_is_asked_too() -> None:
    FIRE().check(SPACE, settings(6))
    with pytest.raises(SettingsError, match=r"sigma names 'decay'"):
        FIRE(explore=Gaussian({"decay": 0.1})).check(SPACE, settings(6))


def test_too_few_rounds_in_a_run_are_advised_against() -> None:
    assert FIRE().advise(SPACE, settings(8, intervals=200)) == []
    assert FIRE().advise(SPACE, settings(8, intervals=None)) == []
    assert "a round takes 10 intervals" in FIRE().advise(SPACE, settings(8, intervals=100))[0]
    assert "there are 8, and fewer than 20" in FIRE().advise(SPACE, settings(8, intervals=200, ready=25))[0]


# Stories --------------------------------------------------------------------------------------------------------------

ALONE = phyla.Evolve(None, None)
"""Nobody copies anybody."""

FLAT = -100.0
"""The score of an evaluator that stays below everything, so that nothing is known before its time is up."""

BEGINNING = {0: 0.5, 3: 1.0, 6: 0.6, 1: 9.0, 4: 8.0, 7: 7.0, 2: FLAT, 5: FLAT}


def told(**known: Any) -> Story:
    return Story(8, **{"keep": 3, **known})


def generation(story: Story, scores: Mapping[int, float | None], strategy: Strategy = EVERY) -> list[Choice]:
    """Everybody decides on the same reports, and then comes to these scores; to those of the beginning, if none is given."""
    choices = [decide(story.view, m, strategy) for m in range(len(story.view.done))]
    for m, choice in enumerate(choices):
        fields = ("hypers", "donor", "ready", "replaced", "notes", "mix")
        score = {**BEGINNING, **scores}[m]
        story.claim(m, choice.source, **{name: getattr(choice, name) for name in fields})
        story.report(m, score if score is None else story.view.sign * score)
    return choices


def begun(**known: Any) -> Story:
    """All have trained for an interval. 2 is to evaluate 1, and 5 is to evaluate 4, for the best of P1, which is 3."""
    story = told(**known)
    generation(story, {}, ALONE)
    return story


def go_on(story: Story, two: Sequence[float], five: float = FLAT, child: Sequence[float] | None = None) -> None:
    """The evaluators, and member 3, come to these scores, one an interval."""
    for mine, its in itertools.zip_longest(two, child or [], fillvalue=1.0):
        generation(story, {2: mine, 5: five, 3: its})


def donor(story: Story, member: int, strategy: Strategy = EVERY) -> int | None:
    """Whom it copies now."""
    choice = decide(story.view, member, strategy)
    return choice.donor.member if choice.donor is not None else None


def evaluated(choice: Choice) -> tuple[int, int]:
    """Parent and child of an evaluation that begins."""
    assert choice.notes is not None
    return choice.notes["fire"]["parent"][0], choice.notes["fire"]["child"][0]


# What evaluators do ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["max", "min"])
def test_evaluators_train_weights_of_p2_with_the_hyperparameters_of_the_best_of_p1(mode: str) -> None:
    story = begun(mode=mode)
    child = story.newest(3)
    for evaluator, parent in ((2, 1), (5, 4)):
        choice, weights = decide(story.view, evaluator, EVERY), story.newest(parent)
        assert choice.source == choice.donor == weights.ref
        assert choice.hypers == {**child.hypers, "depth": weights.hypers["depth"]}  # structural: it follows the weights
        assert choice.notes == {"fire": {"parent": list(weights.ref), "child": list(child.ref)}}


def test_an_evaluation_goes_on_with_what_it_began_with_though_another_is_best_by_then() -> None:
    story = begun()
    generation(story, {})
    began = story.newest(2)
    generation(story, {6: 2.0})
    choice = decide(story.view, 2, EVERY)
    assert (choice.source, choice.donor, choice.hypers) == (story.newest(2).ref, None, began.hypers)


def test_who_has_just_copied_is_nobodys_child() -> None:
    story = begun()
    story.train(6, 9.0, source=story.newest(3))  # the best by now
    for m in (0, 1, 2, 3, 4, 5, 7):
        story.train(m, BEGINNING[m])
    assert evaluated(decide(story.view, 2, EVERY)) == (1, 3)


def test_but_if_all_of_p1_have_just_copied_the_best_of_them_is() -> None:
    story = begun()
    for m in range(8):
        story.train(m, BEGINNING[m], source=story.newest(7) if m in P1 else "own")
    assert evaluated(decide(story.view, 2, EVERY)) == (1, 3)


def test_the_longest_unevaluated_is_next_and_no_two_evaluators_take_the_same() -> None:
    story = begun()
    go_on(story, [FLAT] * 8)  # their time is up: 7 was never evaluated, and 1 and 4 were until now
    assert [donor(story, e) for e in EVALUATORS] == [7, 1]
    go_on(story, [FLAT] * 8)
    assert [donor(story, e) for e in EVALUATORS] == [4, 1]


@pytest.mark.parametrize(("copies", "expected"), [(False, 7), (True, 1)])
def test_who_copies_waits_from_then_on(copies: bool, expected: int) -> None:
    story = begun()
    generation(story, {})
    sources = {2: story.newest(1), 7: story.newest(4) if copies else "own"}  # so 2 evaluates nobody any more
    for m in range(8):
        story.train(m, BEGINNING[m], sources.get(m, "own"))
    assert donor(story, 2) == expected  # 1 was evaluated until the second interval


@pytest.mark.parametrize("score", [NAN, INF, -INF, None])
def test_nobody_evaluates_who_has_no_score_or_has_diverged(score: float | None) -> None:
    story = told()
    generation(story, {1: score}, ALONE)
    assert [donor(story, e) for e in EVALUATORS] == [4, 7]


@pytest.mark.parametrize("lost", [P1, P2])
def test_evaluators_go_on_as_they_are_where_nobody_can_be_evaluated(lost: Sequence[int]) -> None:
    story = told()
    generation(story, dict.fromkeys(lost, NAN), ALONE)
    for e in EVALUATORS:
        choice, own = decide(story.view, e, EVERY), story.newest(e)
        assert (choice.source, choice.hypers, choice.donor) == (own.ref, own.hypers, None)


# How evaluations end --------------------------------------------------------------------------------------------------


def test_without_an_overlap_an_evaluation_ends_when_its_time_is_up() -> None:
    story = begun()
    generation(story, {})
    for _ in range(7):
        assert donor(story, 2) is None
        generation(story, {})
    assert donor(story, 2) == 7


def test_an_evaluation_that_looks_worse_ends_before() -> None:
    story = begun()
    go_on(story, [2.5], child=[2.0])
    assert donor(story, 2) is None  # one score is no curve
    go_on(story, [2.5], child=[3.0])  # the child has come from 1.0 to where the evaluator began, and goes further
    assert donor(story, 2) == 7


@pytest.mark.parametrize(("rounds", "goes_on", "ends"), [
    (1, 10, 9),  # p is 0.67 or 0.81, against 0.01 + 2/3
    (2, 12, 11),  # 0.33 or 0.5, against 0.01 + 1/3
    (2.9, 13, 11),
])  # fmt: skip
def test_the_threshold_of_p_falls_with_time(rounds: float, goes_on: int, ends: int) -> None:
    """21 scores, of which the first 8 are equal: so far smoothing looks from the first."""
    child = curve(*range(21))

    def better(wins: int) -> Curve:
        return curve(*range(8), *(8.0 + i + (0.5 if i < wins else -0.5) for i in range(13)))

    assert overlap(better(13), child) == Overlap(0, 0, 21)
    assert FIRE().gives_up(rounds, better(ends), child)
    assert FIRE().gives_up(rounds, better(goes_on), child) == (rounds == 2.9)  # 0.19, against 0.01 + 1/30
    assert FIRE(max_eval=9).gives_up(3 * rounds, better(ends), child)


def test_an_evaluation_ends_when_the_weights_of_its_parent_or_its_child_are_gone() -> None:
    for gone, other in ((1, 4), (3, 6)):
        story = begun()
        go_on(story, [FLAT] * 2)
        assert donor(story, 2) is None
        for m in range(8):
            story.train(m, BEGINNING[m], source=story.newest(other) if m == gone else "own")
        assert donor(story, 2) is not None
        assert (donor(story, 5) is None) == (gone == 1)  # both have the same child


def test_an_evaluator_that_diverged_begins_anew() -> None:
    story = begun()
    go_on(story, [FLAT, NAN])
    choice = decide(story.view, 2, EVERY)
    assert choice.replaced
    assert evaluated(choice) == (7, 3)
    assert donor(story, 5) is None


def test_evaluators_that_diverged_and_that_are_free_share_out_who_waits() -> None:
    story = begun()
    generation(story, {})
    for m in range(8):
        story.train(m, NAN if m == 2 else BEGINNING[m], source=story.newest(1) if m == 4 else "own")
    assert [donor(story, e) for e in EVALUATORS] == [7, 1]


# Success --------------------------------------------------------------------------------------------------------------

RISING = [0.5 + i for i in range(8)]
"""An evaluator that comes to where the child began after an interval, and is better seven times then: p is 0.0078."""


@pytest.mark.parametrize("mode", ["max", "min"])
def test_a_child_takes_the_weights_of_an_evaluation_that_succeeds_and_keeps_its_own_hyperparameters(mode: str) -> None:
    story = begun(mode=mode)
    go_on(story, RISING[:7])
    assert decide(story.view, 3, EVERY).source == story.newest(3).ref  # six times are not enough
    go_on(story, RISING[7:])
    own, weights, choice = story.newest(3), story.newest(2), decide(story.view, 3, EVERY)
    assert choice.source == choice.donor == weights.ref
    assert choice.hypers == {**own.hypers, "depth": weights.hypers["depth"]}
    assert choice.notes == {"fire": {"taken": list(weights.ref)}}
    assert donor(story, 6) is None  # whose curve is beaten as well, but who is not the child


def test_success_takes_a_better_best_score_and_not_only_better_ones_most_of_the_time() -> None:
    mine, calm, lucky = curve(*(0.5 + i for i in range(12))), [1.0] * 12, [1.0] * 8 + [50.0] + [1.0] * 3
    assert overlap(mine, curve(*lucky)) == overlap(mine, curve(*calm)) == Overlap(1, 0, 11)
    assert p_value(mine, curve(*lucky)) < 0.01
    assert FIRE().beats(mine, curve(*calm))
    assert not FIRE().beats(mine, curve(*lucky))
    assert not FIRE().beats(curve(*calm), mine)


def test_a_curve_leaves_out_what_has_no_score() -> None:
    story = begun()
    generation(story, {2: 1.0})
    generation(story, {2: None})
    generation(story, {2: 3.0})
    seen = _Seen(EVERY, story.view, 3)
    assert seen.curve(story.newest(2)) == curve(1, 3)
    assert seen.evaluations[2].rounds == 3


def test_the_evaluation_goes_on_until_the_child_has_taken_them_and_no_longer() -> None:
    story = begun()
    go_on(story, RISING)
    assert donor(story, 2) is None
    go_on(story, [9.0], child=[8.0])
    assert story.newest(3).donor is not None
    assert donor(story, 2) in P2
    assert donor(story, 3) is None


def test_the_curve_of_a_child_goes_on_from_its_evaluators() -> None:
    story = begun()
    go_on(story, RISING)
    go_on(story, [9.0], child=[8.5])
    assert evaluated(decide(story.view, 2, EVERY))[1] == 3  # with its own hyperparameters, it was not perturbed
    go_on(story, [FLAT], child=[9.5])
    assert _Seen(EVERY, story.view, 3).curve(story.newest(3)) == curve(*RISING, 8.5, 9.5)


def test_of_two_that_succeed_at_once_the_better_one_is_taken() -> None:
    faster = [0.4 + 3 * i for i in range(8)]
    for two, five, winner in ((RISING, faster, 5), (faster, RISING, 2)):
        story = begun()
        for i in range(8):
            generation(story, {2: two[i], 5: five[i], 3: 1.0}, ALONE if i else EVERY)
        assert donor(story, 3) == winner


def test_a_member_in_the_bottom_of_p1_copies_the_top_even_if_its_evaluation_succeeds() -> None:
    story = begun()
    go_on(story, RISING[:7])
    generation(story, {2: RISING[7], 3: 0.1})
    assert donor(story, 3) == 6


# P1 and P2 ------------------------------------------------------------------------------------------------------------


def test_p1_is_truncation_selection_on_the_score_among_its_own() -> None:
    story = begun()
    fire = FIRE(every=1, max_eval=8, explore=Perturb(0.5))
    choice, best = decide(story.view, 0, fire), story.newest(3)
    assert choice.source == choice.donor == best.ref  # though all of P2 are better
    assert choice.hypers["lr"] == max(1e-4, best.hypers["lr"] / 2)
    assert [donor(story, m) for m in P1] == [3, None, None]
    assert FIRE().explore == Perturb(0.5, 2.0)


def test_nobody_in_p1_copies_before_half_of_it_has_a_score() -> None:
    story = Story(22)
    for m in (0, 3, 6):
        story.train(m, float(m))
        assert donor(story, 0) is None
    story.train(9, 9.0)
    assert donor(story, 0) == 9


def test_p2_goes_by_improvement_and_not_by_score() -> None:
    story = begun()
    assert [donor(story, m) for m in P2] == [None, None, None]  # nothing is known yet
    for i in range(4):
        generation(story, {2: 0.5 + 0.1 * i, 5: 0.3 + 0.5 * i, 3: 1.0}, ALONE if i else EVERY)
    best, worst = story.newest(4), story.newest(1)
    assert best.score == 8.0 < worst.score == 9.0  # type: ignore[operator]
    assert [donor(story, m) for m in P2] == [4, None, None]
    choice = decide(story.view, 1, EVERY)
    assert choice.source == best.ref
    assert choice.hypers == best.hypers


def test_the_fitness_is_the_sum_over_all_other_evaluators() -> None:
    """In eleven, 2, 5 and 8 evaluate 1, 4 and 7: from the same start, at 1, 2 and 4 more an interval."""
    story, slopes = Story(11, keep=3), {2: 1.0, 5: 2.0, 8: 4.0}
    generation(story, dict.fromkeys(range(11), 0.0), ALONE)
    choices = generation(story, dict.fromkeys(range(11), 0.0))
    assert {m: evaluated(choices[m])[0] for m in slopes} == {2: 1, 5: 4, 8: 7}
    for i in range(1, 4):
        generation(story, {m: slopes.get(m, 0.0) * i for m in range(11)}, ALONE)
    rates = _Seen(EVERY, story.view, 1).rates  # three intervals on, they are at 3, 6 and 12
    assert rates == pytest.approx({1: (3 - 6) + (3 - 12), 4: (6 - 3) + (6 - 12), 7: (12 - 3) + (12 - 6)})
    assert [donor(story, m) for m in (1, 4, 7, 10)] == [7, None, None, None]


def test_members_of_p2_whose_rates_are_equal_do_not_copy_one_another() -> None:
    story = begun()
    go_on(story, [FLAT] * 7)
    assert [donor(story, m) for m in P2] == [None, None, None]


@pytest.mark.parametrize("size", [6, 8, 22])
def test_in_every_round_copies_are_within_a_part_and_groups_are_disjoint(size: int) -> None:
    fire, rng = FIRE(every=1, max_eval=8), np.random.default_rng(size)
    story, roles, copies = Story(size, keep=3), fire.roles(size), Counter[Role]()
    for _ in range(25):
        choices = generation(story, dict(enumerate(rng.normal(size=size).tolist())), fire)
        copied = {
            m: c.donor.member
            for m, c in enumerate(choices)
            if c.donor and "taken" not in (c.notes or {}).get("fire", {})
        }
        for role, size_of in fire.sizes(size).items():
            donors = {m: donor for m, donor in copied.items() if roles[m] == role}
            copies[role] += len(donors)
            if role == "evaluator":
                assert {roles[one] for one in donors.values()} <= {"P2"}
                assert len(set(donors.values())) == len(donors)
            else:
                assert {roles[one] for one in donors.values()} <= {role}
                assert not donors.keys() & set(donors.values())
                assert len(donors) <= math.ceil(size_of / 4)
    assert min(copies.values()) > 0


# When -----------------------------------------------------------------------------------------------------------------


def test_all_this_goes_on_every_ten_intervals_as_if_ready_were_ten() -> None:
    runs = []
    for ready in (1, 10):
        story, rng = told(ready=ready), np.random.default_rng(0)
        choices = [generation(story, dict(enumerate(rng.normal(size=8).tolist())), FIRE()) for _ in range(60)]
        runs.append([[(c.hypers, c.source, c.donor, c.notes) for c in each] for each in choices])
        copied = [any(choice.donor for choice in each) for each in choices]
        assert [i for i in range(60) if copied[i]] == [10, 20, 30, 40, 50]
    assert runs[0] == runs[1]


@pytest.mark.parametrize(("every", "ready", "expected"), [
    (10, 3, [12, 21, 30, 42, 51]), (10, 20, [20, 40]), (4, 4, [4, 8, 12]), (3, 2, [4, 6]),
])  # fmt: skip
def test_whatever_ready_is_a_round_ends_the_first_time_ready_after_so_many_intervals(
    every: int, ready: int, expected: list[int]
) -> None:
    story, fire = told(ready=ready), FIRE(every=every, max_eval=8)
    found = [i for i in range(expected[-1] + 1) if generation(story, {}, fire)[0].donor is not None]
    assert found == expected


def test_max_eval_counts_rounds() -> None:
    story = told(ready=2)
    fire = FIRE(every=1, max_eval=4, significance=0.1)
    begins = [i for i in range(21) if generation(story, {}, fire)[2].donor is not None]
    assert begins == [2, 10, 18]  # a round is `ready` intervals here


# Rescue, and what is missing ------------------------------------------------------------------------------------------


def test_a_member_whose_state_is_lost_is_rescued_by_its_role() -> None:
    story = told()
    generation(story, {0: NAN, 1: NAN, 2: NAN}, ALONE)
    assert donor(story, 0) == 3  # the best of P1
    assert donor(story, 1) in (4, 7)  # any of P2
    assert donor(story, 2) == 4  # an evaluator begins with who is left to be evaluated
    assert evaluated(decide(story.view, 2, EVERY)) == (4, 3)
    assert all(decide(story.view, m, EVERY).replaced for m in (0, 1, 2))


def test_where_a_part_is_lost_as_a_whole_the_other_one_helps() -> None:
    story = told()
    generation(story, dict.fromkeys(P1, NAN), ALONE)
    assert {donor(story, m) for m in P1} <= set(P2)
    story = told()
    generation(story, {**dict.fromkeys(P2, NAN), 2: NAN}, ALONE)
    assert [donor(story, m) for m in (*P2, 2)] == [3, 3, 3, 3]
    story = told()
    generation(story, dict.fromkeys(range(8), NAN), ALONE)
    assert all(decide(story.view, m, EVERY).source is None for m in range(8))


@pytest.mark.parametrize("m", range(8))
def test_who_is_alone_in_what_it_sees_goes_on(m: int) -> None:
    story = told()
    story.train(m, 1.0)
    choice = decide(story.view, m, EVERY)
    assert (choice.source, choice.hypers, choice.donor) == (story.newest(m).ref, story.newest(m).hypers, None)


def test_members_without_a_score_neither_copy_nor_are_copied() -> None:
    story = told()
    for _ in range(12):
        choices = generation(story, {0: None, 1: None})
        for choice in (choices[0], choices[1]):
            assert choice.donor is None
        assert not {0, 1} & {choice.donor.member for choice in choices if choice.donor is not None}


def test_a_child_ahead_of_its_evaluator_takes_what_that_has_reported() -> None:
    story = begun()
    go_on(story, RISING)
    weights = story.newest(2)
    story.train(3, 1.0)
    story.train(3, 1.0)
    choice = decide(story.view, 3, EVERY)
    assert choice.source == weights.ref
    story.decide(3, EVERY)
    story.report(3, 8.0)
    assert donor(story, 3) is None  # it does not take them again


# Whole runs -----------------------------------------------------------------------------------------------------------


def debts(size: int, intervals: int, fire: FIRE, **known: Any) -> phyla.Run:
    """Who trains with a high rate gets better, but is in debt, which is paid back soon where the rate is low."""
    how: dict[str, Any] = {"seed": 2, "max_lead": 0, "journal": "memory", "progress": False, **known}
    space = {"rate": phyla.Float(1e-3, 1.0, log=True)}
    population = phyla.Population("debts", space, size, intervals, strategy=fire, **how)
    for member in population:
        skill, debt = member.state(lambda newborn: np.zeros(2))
        rate = float(member["rate"])  # type: ignore[arg-type]
        state = np.array([skill + rate, 0.7 * debt + 20 * rate])
        member.report(float(state[0] - state[1]), state)
    return population.run


@pytest.mark.parametrize(("size", "lead"), [(6, 0), (13, 0), (6, None)])
def test_a_whole_run_can_be_recomputed_and_does_all_that_there_is(size: int, lead: int | None) -> None:
    fire = FIRE(every=4)
    run = debts(size, 40, fire, max_lead=lead)
    events = [Recorded(n, event) for n, event in enumerate(run.events(), 1)]
    assert list(examine(events, run.checkpoints, fire)) == []
    records = [record for history in run.view.history for record in history]
    notes: list[Any] = [record.notes["fire"] for record in records if record.notes]
    assert set[str]().union(*notes) == {"parent", "child", "taken"}
    roles, copied = fire.roles(size), Counter[Role]()
    for record in records:
        copied[roles[record.id]] += record.donor is not None
    assert min(copied.values()) > 0


def test_the_order_in_which_workers_come_changes_no_decision() -> None:
    known: dict[str, Any] = {"members": 8, "intervals": 14, "strategy": FIRE(every=2, max_eval=4), "diverges": 40}
    runs = [
        Simulation(1, workers=1, faults=Faults.none(), **known),
        Simulation(2, workers=4, faults=Faults(crash=0.02, freeze=0.01, give_back=0.02, lost_answer=0.02), **known),
    ]
    assert [run.run() for run in runs] == [[], []]
    assert outcome(runs[0].view) == outcome(runs[1].view)
    taken = [record for history in runs[0].view.history for record in history if record.notes]
    assert taken


@pytest.mark.parametrize("seed", range(3))
def test_an_asynchronous_run_ends(seed: int) -> None:
    known: dict[str, Any] = {"max_lead": None, "ready": 1 + seed, "diverges": 30, "settings": {"compare": "progress"}}
    assert Simulation(seed, 5, 8, 14, strategy=FIRE(every=2, max_eval=4), **known).run() == []


# What it is given -----------------------------------------------------------------------------------------------------


def test_it_comes_back_from_its_description() -> None:
    for fire in (FIRE(), FIRE([1, 1.5, 1], 0.3, None, 5, 4, 0.05)):  # type: ignore[arg-type]
        assert rebuild(describe(fire)) == fire
        assert eval(repr(fire), {"FIRE": FIRE, "Perturb": Perturb}) == fire


@pytest.mark.parametrize(("wrong", "expected"), [
    ({"shares": (8, 8)}, r"shares must be three numbers above 0.*got \(8, 8\)"),
    ({"shares": (8, 8, 0)}, r"shares must be three numbers above 0"),
    ({"shares": "886"}, r"shares must be three numbers above 0.*got '886'"),
    ({"shares": (8, 3, 4)}, r"more evaluators than members of P2"),
    ({"fraction": 0.6}, r"fraction must be from 0 to 0.5.*got 0.6"),
    ({"fraction": True}, r"fraction must be from 0 to 0.5.*got True"),
    ({"explore": 0.8}, r"explore must be one such as phyla.Perturb\(\), or None, got 0.8"),
    ({"every": 0}, r"every must be a whole number, 1 or more, got 0"),
    ({"max_eval": 2.5}, r"max_eval must be a whole number, 1 or more, got 2.5"),
    ({"every": 2}, r"no evaluation can succeed in max_eval=3 rounds of every=2 intervals.*p of 0.016.*significance=0.01"),
    ({"significance": 0}, r"significance must be a probability.*got 0"),
    ({"significance": NAN}, r"significance must be a probability.*got nan"),
])  # fmt: skip
def test_other_values_are_refused_with_what_was_given_and_expected(wrong: dict[str, Any], expected: str) -> None:
    with pytest.raises(SettingsError, match=f"^FIRE: .*{expected}"):
        FIRE(**wrong)


@pytest.mark.slow
def test_as_it_is_by_default_greed_does_not_win_where_it_deceives() -> None:
    def median(**how: Any) -> float:
        finals = [workloads.deceptive(seed=seed, **how).final for seed in range(8)]
        return float(np.median([record.score for record in finals if record is not None and record.score is not None]))

    best_interval = median(interval=20)  # for PBT, of all
    assert median(strategy=FIRE()) > best_interval > median(interval=20, exploit=None) > median(interval=1)
