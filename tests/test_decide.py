"""What a member does next: ready, then exploit, then explore; and rescue where its own state is lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journals_by_hand import SPACE, Story, hypers_of, random_story, snapshot
from phyla.decide import Choice, decide, is_ready, needs_rescue
from phyla.errors import SettingsError
from phyla.record import Record
from phyla.space import Hypers, Space
from phyla.strategies.contract import FRESH, KEEP, Decision, Strategy
from phyla.strategies.evolve import Evolve
from phyla.strategies.perturb import Gaussian, Perturb
from phyla.strategies.truncation import Truncation
from phyla.view import View, fold

quick = settings(derandomize=True, deadline=None, max_examples=80, database=None)
NAN = float("nan")
PBT = Evolve(Truncation(0.5), Perturb())
RANDOM_SEARCH = Evolve(None, Perturb())


@dataclass(frozen=True)
class Marked:
    """An explore that can be recognised: every number becomes its lowest."""

    def __call__(self, hypers: Hypers, space: Space, view: View, member: int, rng: np.random.Generator) -> Hypers:
        return {**hypers, "lr": 1e-4, "units": 1, "depth": 1}


def never(hypers: Hypers, space: Space, view: View, member: int, rng: np.random.Generator) -> Hypers:
    raise AssertionError("explored without a copy")


def a_worst_and_a_best(**known: Any) -> Story:
    """Member 0 is worst, member 3 is best; with other hyperparameters each."""
    story = Story(4, **known)
    story.generation(0.0, 1.0, 2.0, 3.0)
    return story


# Ready --------------------------------------------------------------------------------------------------------------


def when_ready(intervals: int, strategy: Strategy = RANDOM_SEARCH, **known: Any) -> list[int]:
    """After how many intervals member 0, the worst of four, is ready."""
    story = Story(4, keep=9, **known)
    found = []
    for interval in range(intervals):
        if is_ready(story.view, 0):
            found.append(interval)
        for m in range(4):
            story.turn(m, float(m), strategy)
    return found


@pytest.mark.parametrize(
    ("ready", "burn_in", "expected"),
    [
        (1, 0, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]),
        (3, 0, [3, 6, 9]),
        (3, 5, [5, 8, 11]),
        (4, 1, [4, 8]),
        (1, 9, [9, 10, 11]),
        (20, 0, []),
    ],
)
def test_ready_recurs_every_so_many_intervals_past_burn_in(ready: int, burn_in: int, expected: list[int]) -> None:
    assert when_ready(12, ready=ready, burn_in=burn_in) == expected


def test_ready_counts_from_when_the_member_was_last_ready_whether_it_copied_or_not() -> None:
    assert when_ready(10, PBT, ready=3) == when_ready(10, RANDOM_SEARCH, ready=3) == [3, 6, 9]


def test_a_member_that_has_not_trained_is_not_ready() -> None:
    story = Story(2, burn_in=0)
    assert not is_ready(story.view, 0)
    assert decide(story.view, 0, PBT) == Choice(hypers_of(0, SPACE), None, None, False, False, None)


def test_a_member_that_is_not_ready_goes_on_unchanged_however_bad_it_is() -> None:
    story = a_worst_and_a_best(ready=2)
    own = story.newest(0)
    assert decide(story.view, 0, Evolve(Truncation(0.5), never)) == Choice(
        own.hypers, own.ref, None, False, False, None
    )


def test_after_a_rescue_the_ready_clock_starts_again() -> None:
    story = Story(2, ready=3)
    story.generation(NAN, 1.0)
    assert not is_ready(story.view, 0)
    story.turn(0, 0.0, PBT)  # at 1: rescued, though not ready
    assert [story.view.last_ready[0], story.view.done[0]] == [1, 2]
    ready = []
    for _ in range(5):
        ready.append(is_ready(story.view, 0))
        story.turn(0, 0.0, PBT)
    assert ready == [False, False, True, False, False]  # at 4


# Exploit and explore ------------------------------------------------------------------------------------------------


def test_a_clone_goes_on_from_the_donors_weights_with_hyperparameters_explored_from_the_donors() -> None:
    story = a_worst_and_a_best()
    choice = decide(story.view, 0, Evolve(Truncation(0.25), Perturb(0.5)))
    donor = story.newest(3)
    assert choice.source == choice.donor == donor.ref
    assert choice.ready
    assert not choice.replaced
    assert choice.hypers == {
        "lr": max(1e-4, donor.hypers["lr"] * 0.5),
        "units": max(1, round(donor.hypers["units"] * 0.5)),
        "depth": donor.hypers["depth"],
    }


def test_nothing_is_explored_without_a_copy() -> None:
    story = a_worst_and_a_best()
    for m in (1, 2, 3):
        own = story.newest(m)
        choice = decide(story.view, m, Evolve(Truncation(0.25), never))
        assert choice == Choice(own.hypers, own.ref, None, True, False, None)


@pytest.mark.parametrize("inherit", ["both", "weights", "hypers"])
def test_inherit_says_whose_weights_and_whose_hyperparameters_go_on(inherit: Any) -> None:
    story = a_worst_and_a_best()
    own, donor = story.newest(0), story.newest(3)
    choice = decide(story.view, 0, Evolve(Truncation(0.25), None, inherit))
    weights = own if inherit == "hypers" else donor
    hypers = own if inherit == "weights" else donor
    assert choice.source == weights.ref
    assert choice.donor == donor.ref
    assert choice.hypers == {**hypers.hypers, "depth": weights.hypers["depth"]}


@pytest.mark.parametrize("inherit", ["both", "weights", "hypers"])
def test_what_is_inherited_is_explored_but_structure_follows_the_weights(inherit: Any) -> None:
    story = a_worst_and_a_best()
    own, donor = story.newest(0), story.newest(3)
    assert own.hypers["depth"] != donor.hypers["depth"]
    choice = decide(story.view, 0, Evolve(Truncation(0.25), Marked(), inherit))
    depth = (own if inherit == "hypers" else donor).hypers["depth"]
    assert choice.hypers == {"lr": 1e-4, "units": 1, "depth": depth}


def test_random_search_never_copies() -> None:
    story = a_worst_and_a_best()
    for m in range(4):
        own = story.newest(m)
        assert decide(story.view, m, RANDOM_SEARCH) == Choice(own.hypers, own.ref, None, True, False, None)


@pytest.mark.parametrize("mode", ["max", "min"])
def test_the_best_member_is_never_perturbed_nor_replaced(mode: str) -> None:
    for seed in range(20):
        story = random_story(np.random.default_rng(seed), 60, size=6, mode=mode, compare="latest", ready=1, burn_in=0)
        ranked = story.view.ranked(0)
        best = ranked[-1] if ranked else None
        if best is None or not best.finite or story.view.forced[best.id] or story.view.repeat[best.id]:
            continue
        if story.view.restorable(best.id) is not best:
            continue
        choice = decide(story.view, best.id, Evolve(Truncation(0.5), never))
        assert (choice.hypers, choice.source, choice.donor) == (best.hypers, best.ref, None)


def test_other_seeds_members_and_intervals_draw_otherwise_and_equal_ones_equally() -> None:
    def chosen(seed: int, generations: int) -> list[Hypers]:
        story = Story(6, seed=seed)
        for _ in range(generations):
            story.generation(*map(float, range(6)))
        return [decide(story.view, m, Evolve(Truncation(0.5), Gaussian(0.2))).hypers for m in range(3)]

    found = [hypers for key in ((0, 1), (1, 1), (0, 2)) for hypers in chosen(*key)]
    assert len({tuple(h.values()) for h in found}) == len(found)
    assert chosen(0, 1) == chosen(0, 1)


# Rescue -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [NAN, float("inf"), -float("inf")])
@pytest.mark.parametrize("mode", ["max", "min"])
def test_a_diverged_member_is_replaced_at_its_next_claim_even_if_it_is_not_ready(bad: float, mode: str) -> None:
    story = Story(4, ready=50, mode=mode)
    story.generation(bad, 1.0, 2.0, 3.0)
    choice = decide(story.view, 0, PBT)
    donor = story.newest(3 if mode == "max" else 1)
    assert choice.source == choice.donor == donor.ref
    assert choice.replaced
    assert not choice.ready
    assert choice.hypers["depth"] == donor.hypers["depth"]
    assert choice.hypers["lr"] != donor.hypers["lr"]


def test_a_diverged_member_needs_no_quorum_to_be_replaced() -> None:
    story = Story(10)
    story.train(0, NAN)
    story.train(1, 1.0)
    assert decide(story.view, 0, PBT).donor == story.newest(1).ref


def test_the_donor_of_a_rescue_is_one_of_the_best_fifth_and_never_the_member_itself() -> None:
    found = set()
    for seed in range(60):
        story = Story(11, seed=seed)
        story.generation(NAN, *map(float, range(10)))
        donor = decide(story.view, 0, PBT).donor
        assert donor is not None
        found.add(donor.member)
    assert found == {9, 10}


def test_where_all_have_diverged_each_is_born_again_with_hyperparameters_of_its_own() -> None:
    story = Story(4)
    story.generation(NAN, NAN, float("inf"), NAN)
    choices = [decide(story.view, m, PBT) for m in range(4)]
    assert all(c.source is None and c.donor is None and c.replaced for c in choices)
    assert len({c.hypers["lr"] for c in choices}) == 4
    assert all(c.hypers["lr"] != hypers_of(m, SPACE)["lr"] for m, c in enumerate(choices))
    assert all(set(c.hypers) == set(SPACE) and all(SPACE[k].contains(v) for k, v in c.hypers.items()) for c in choices)


def test_a_member_that_diverges_again_and_again_is_born_differently_each_time() -> None:
    story, seen = Story(1), []
    for _ in range(4):
        seen.append(story.turn(0, NAN, PBT).hypers["lr"])
    assert len(set(seen)) == 4


def test_random_search_never_copies_even_for_a_diverged_member() -> None:
    story = Story(3)
    story.generation(NAN, 1.0, 2.0)
    choice = decide(story.view, 0, RANDOM_SEARCH)
    assert (choice.source, choice.donor, choice.replaced) == (None, None, True)
    assert choice.hypers not in [r.hypers for r in story.view.records.values()]


def test_a_member_out_of_retries_is_replaced_by_a_donor_even_if_it_is_the_best() -> None:
    story = a_worst_and_a_best(retries=1)
    for _ in range(2):
        story.decide(3, PBT)
        story.fail(3, "raised")
    assert needs_rescue(story.view, 3)
    choice = decide(story.view, 3, PBT)
    assert choice.replaced
    assert choice.donor == story.newest(2).ref


def test_a_member_out_of_retries_before_any_report_is_born_again() -> None:
    story = Story(2, retries=0)
    story.decide(0, PBT)
    story.fail(0, "crashed")
    choice = decide(story.view, 0, PBT)
    assert (choice.source, choice.replaced) == (None, True)
    assert choice.hypers != hypers_of(0, SPACE)
    again = story.turn(0, 1.0, PBT)
    assert (again.hypers, again.replaced) == (choice.hypers, True)
    assert decide(story.view, 0, PBT).source == again.ref


def test_within_its_retries_a_member_decides_anew_but_is_not_replaced() -> None:
    story = a_worst_and_a_best(retries=2)
    first = story.decide(1, Evolve(Truncation(0.25), never))
    story.fail(1, "raised")
    assert decide(story.view, 1, Evolve(Truncation(0.25), never)) == Choice.of(first)
    assert story.view.repeat[1] is None


def test_no_score_yet_is_no_reason_to_be_replaced() -> None:
    story = Story(3)
    story.generation(None, 1.0, 2.0)
    own = story.newest(0)
    assert decide(story.view, 0, PBT) == Choice(own.hypers, own.ref, None, True, False, None)


def test_a_member_with_no_checkpoint_left_is_replaced() -> None:
    story = Story(2, keep=1, mode="min")
    story.train(1, 1.0)
    story.train(0, 9.0)
    lost = story.train(0, 8.0)
    story.claim(0)
    story.fail(0, "checkpoint", voids=lost)
    assert story.view.done[0] == 1
    assert story.view.restorable(0) is None
    choice = decide(story.view, 0, PBT)
    assert choice.replaced
    assert choice.donor == story.newest(1).ref
    assert story.turn(0, 7.0, PBT).interval == 2


@pytest.mark.parametrize("ready", [1, 9])
def test_a_member_that_goes_on_from_an_older_checkpoint_has_its_hyperparameters_too(ready: int) -> None:
    story = Story(2, keep=1, ready=ready)
    records = [story.train(0, score, hypers=hypers_of(20 + int(score), SPACE)) for score in (9.0, 1.0, 2.0)]
    story.claim(0)
    story.fail(0, "checkpoint", voids=records[2])
    assert story.view.newest(0) is records[1]  # which is gone
    assert story.view.restorable(0) is records[0]  # the best ever
    choice = decide(story.view, 0, Evolve(Truncation(0.5), never))
    assert (choice.source, choice.hypers, choice.replaced) == (records[0].ref, records[0].hypers, False)


# Repeats ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("why", ["lost", "given_back"])
def test_a_lost_or_given_back_decision_is_repeated_whatever_was_reported_since(why: Any) -> None:
    story = a_worst_and_a_best(keep=2)
    claim = story.decide(0, PBT)
    assert claim.donor is not None
    story.fail(0, why)
    for m in (1, 2, 3):
        story.train(m, 100.0 + m)
        story.train(m, -100.0 - m)
    assert decide(story.view, 0, PBT) == Choice.of(claim)
    story.decide(0, PBT)
    story.fail(0, why)
    assert decide(story.view, 0, PBT) == Choice.of(claim)


def test_a_repeated_birth_is_the_same_birth() -> None:
    story = Story(2)
    story.generation(NAN, NAN)
    claim = story.decide(0, PBT)
    story.fail(0, "lost")
    story.train(1, 5.0)  # there would be a donor now
    assert decide(story.view, 0, PBT) == Choice.of(claim)


def test_after_a_lost_file_the_decision_is_made_anew() -> None:
    story = Story(4, keep=3)
    story.generation(0.0, 1.0, 2.0, 3.0)
    story.generation(0.0, 1.0, 2.0, 3.0)
    claim = story.decide(0, Evolve(Truncation(0.25), Perturb()))
    lost = story.newest(3)
    assert claim.source == lost.ref
    story.fail(0, "checkpoint", voids=lost)
    assert decide(story.view, 0, Evolve(Truncation(0.25), Perturb())).source == story.newest(3).ref != lost.ref


# Strategies of others -----------------------------------------------------------------------------------------------


def test_a_strategy_may_decide_all_by_itself_and_its_notes_come_back() -> None:
    def leader(view: View, member: int, rng: np.random.Generator) -> Decision:
        donor = view.peers(member)[0]
        return Decision(donor, {"lr": 55.0, "units": -3, "depth": 8}, notes={"round": 1})

    story = a_worst_and_a_best()
    choice = decide(story.view, 2, leader)
    first = story.newest(0)
    assert choice.hypers == {"lr": 1.0, "units": 1, "depth": first.hypers["depth"]}  # clipped; structure follows
    assert (choice.source, choice.donor, choice.notes) == (first.ref, first.ref, {"round": 1})
    assert story.turn(2, 1.0, leader).notes == {"round": 1}


def test_fresh_and_keep_are_no_copies() -> None:
    story = a_worst_and_a_best()
    hypers = {"lr": 0.5, "units": 2, "depth": 3}
    own = story.newest(1)
    fresh = decide(story.view, 1, lambda view, member, rng: Decision(FRESH, hypers))
    assert (fresh.source, fresh.donor, fresh.hypers, fresh.replaced) == (None, None, hypers, False)
    kept = decide(story.view, 1, lambda view, member, rng: Decision(KEEP, hypers))
    assert (kept.source, kept.donor, kept.hypers) == (own.ref, None, {**hypers, "depth": own.hypers["depth"]})
    named = decide(story.view, 1, lambda view, member, rng: Decision(own, hypers))
    assert (named.source, named.donor) == (own.ref, None)


@pytest.mark.parametrize("weights", [None, (3, 3), "keep", 3])
def test_a_strategy_that_decides_on_no_report_is_told_what_was_expected(weights: Any) -> None:
    story = a_worst_and_a_best()
    with pytest.raises(SettingsError, match="expected KEEP, FRESH, a report or a Mix"):
        decide(story.view, 0, lambda view, member, rng: Decision(weights, story.newest(0).hypers))


def test_a_strategy_that_decides_on_a_report_that_is_gone_is_told_so_rather_than_asked_again_for_ever() -> None:
    story = Story(2, keep=1, mode="min")
    gone = story.train(1, 2.0)
    story.train(1, 1.0)
    story.train(0, 1.0)
    with pytest.raises(SettingsError, match=r"<member 1, interval 1: 2>, whose checkpoint is not kept.*retain"):
        decide(story.view, 0, lambda view, member, rng: Decision(gone, gone.hypers))


@pytest.mark.parametrize("hypers", [{}, {"lr": 0.1}, {"lr": 0.1, "units": 2, "depth": 3, "more": 1}])
def test_a_strategy_that_gives_other_hyperparameters_is_told_which_there_are(hypers: Hypers) -> None:
    story = a_worst_and_a_best()
    with pytest.raises(SettingsError, match=r"the space has \['depth', 'lr', 'units'\]"):
        decide(story.view, 0, lambda view, member, rng: Decision(KEEP, hypers))


def test_a_strategy_without_a_rescue_of_its_own_gets_the_usual_one() -> None:
    story = Story(2)
    story.generation(NAN, 1.0)
    choice = decide(story.view, 0, lambda view, member, rng: Decision(KEEP, view.peers(member)[0].hypers))
    assert choice.donor == story.newest(1).ref
    assert choice.replaced


def test_a_strategy_with_a_rescue_of_its_own_is_asked() -> None:
    @dataclass(frozen=True)
    class Stubborn:
        def __call__(self, view: View, member: int, rng: np.random.Generator) -> Decision:
            raise AssertionError("it was not ready")

        def rescue(self, view: View, member: int, rng: np.random.Generator) -> Decision:
            return Decision(FRESH, {"lr": 0.25, "units": 5, "depth": 5})

    story = Story(2)
    story.generation(NAN, 1.0)
    choice = decide(story.view, 0, Stubborn())
    assert (choice.hypers["lr"], choice.source, choice.replaced) == (0.25, None, True)


# Whatever happens ---------------------------------------------------------------------------------------------------

STRATEGIES: list[Strategy] = [
    PBT,
    RANDOM_SEARCH,
    Evolve(Truncation(0.2), None),
    Evolve(Truncation(0.5), Gaussian(0.3, resample=0.2), "weights"),
    Evolve(Truncation(0.5), Perturb(0.5, 2.0, resample=0.5), "hypers"),
]


@quick
@given(st.integers(0, 2**32 - 1), st.sampled_from(STRATEGIES))
def test_every_decision_is_sound(seed: int, strategy: Evolve) -> None:
    story = random_story(np.random.default_rng(seed), 80)
    view = story.view
    for m in (m for m in range(view.size) if not view.busy[m] and view.repeat[m] is None):
        choice, own = decide(view, m, strategy), view.restorable(m)
        assert set(choice.hypers) == set(SPACE)
        assert all(SPACE[name].contains(value) for name, value in choice.hypers.items())
        assert choice.replaced == needs_rescue(view, m)
        source = view.records[choice.source] if choice.source is not None else None
        if source is not None:
            assert not source.void
            assert not source.freed
            assert choice.hypers["depth"] == source.hypers["depth"]
        if choice.donor is None:
            assert choice.replaced or choice.source == (own.ref if own else None)
            assert choice.replaced or choice.hypers == (own.hypers if own else hypers_of(m, SPACE))
            continue
        donor = view.records[choice.donor]
        assert strategy.exploit is not None
        assert donor.finite
        assert donor.id != m
        assert not donor.void
        assert donor.available
        assert choice.replaced or choice.ready
        mine = next((r for r in view.peers(m) if r.id == m), None)
        if not choice.replaced:
            assert mine is not None
            assert (view.value(donor), donor.id) > (view.value(mine), m)


@quick
@given(st.integers(0, 2**32 - 1), st.sampled_from(STRATEGIES))
def test_a_decision_is_a_pure_function_of_the_view(seed: int, strategy: Evolve) -> None:
    story = random_story(np.random.default_rng(seed), 60)
    view, before = story.view, snapshot(story.view)
    free = [m for m in range(view.size) if not view.busy[m]]
    choices = [decide(view, m, strategy) for m in free]
    assert snapshot(view) == before
    np.random.default_rng(0).random()
    np.random.seed(seed % 2**32)
    again = fold(story.events)
    assert [decide(again, m, strategy) for m in reversed(free)] == choices[::-1]


def test_a_decision_does_not_depend_on_what_others_have_claimed_meanwhile() -> None:
    story = a_worst_and_a_best()
    before = decide(story.view, 0, PBT)
    for m in (1, 2, 3):
        story.decide(m, PBT)
    assert decide(story.view, 0, PBT) == before
    story.fail(1, "raised")
    story.fail(2, "lost")
    assert decide(story.view, 0, PBT) == before


def test_hyperparameters_of_a_donor_are_not_shared_with_its_clone() -> None:
    story = a_worst_and_a_best()
    donor: Record = story.newest(3)
    before = dict(donor.hypers)
    choice = decide(story.view, 0, Evolve(Truncation(0.25), None))
    choice.hypers["lr"] = 77.0
    assert donor.hypers == before
