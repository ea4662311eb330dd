"""GPBT-PL: a loser takes a winner's weights, and its hyperparameters move towards the winner's at a velocity of their own."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drawn import told
from journals_by_hand import Story, random_story
from phyla.decide import decide
from phyla.errors import SettingsError
from phyla.settings import Settings
from phyla.space import Choice, Float, Hypers, Int, Space
from phyla.steer import bounds, placed
from phyla.strategies.contract import KEEP, Decision
from phyla.strategies.describe import describe
from phyla.strategies.gpbt import GPBT, VELOCITY, velocities
from phyla.strategies.rebuild import rebuild
from phyla.strategies.truncation import Truncation, group_size

quick = settings(derandomize=True, deadline=None, max_examples=30, database=None)
NAN = float("nan")
LEARNS = GPBT(resample=0)

SPACE: Space = {
    "lr": Float(1e-4, 1.0, log=True),
    "x": Float(0.0, 10.0),
    "n": Int(0, 100),
    "act": Choice("a", "b", "c"),
    "size": Choice(1, 2, 4, 8, 16, ordered=True),
    "depth": Int(1, 8, structural=True),
}
LOSER: Hypers = {"lr": 1e-4, "x": 0.0, "n": 0, "act": "a", "size": 1, "depth": 2}
WINNER: Hypers = {"lr": 1.0, "x": 10.0, "n": 100, "act": "b", "size": 16, "depth": 5}


def a_loser_and_a_winner(**known: Any) -> Story:
    story = Story(2, space=SPACE, **known)
    story.train(0, 0.0, hypers=LOSER)
    story.train(1, 1.0, hypers=WINNER)
    return story


def asked(story: Story, member: int, strategy: GPBT, seed: int) -> Decision:
    return strategy(story.view, member, np.random.default_rng(seed))


def velocity_of(decision: Decision) -> dict[str, float]:
    assert decision.notes is not None
    return dict(decision.notes[VELOCITY])


# One step -----------------------------------------------------------------------------------------------------------


def test_a_loser_takes_the_winners_weights_and_moves_part_of_the_way_on_each_axis() -> None:
    story = a_loser_and_a_winner()
    places: dict[str, list[float]] = {"lr": [], "x": [], "n": []}
    for seed in range(250):
        decision = asked(story, 0, LEARNS, seed)
        assert decision.weights is story.newest(1)
        for name, found in places.items():
            place = SPACE[name].encode(decision.hypers[name])
            found.append(place)
            assert place == pytest.approx(velocity_of(decision)[name], abs=0.006)  # from 0, at velocity 0; n is rounded
    for found in places.values():  # r₂ is uniform on (0, 1), and the way is 1
        assert np.mean(found) == pytest.approx(0.5, abs=4 * 0.29 / math.sqrt(250))
        assert np.std(found) == pytest.approx(12**-0.5, abs=0.04)
    assert abs(np.corrcoef(places["lr"], places["x"])[0, 1]) < 0.2  # each by itself


def test_an_ordered_choice_moves_by_its_places_and_an_unordered_one_takes_the_winners_half_of_the_time() -> None:
    story = a_loser_and_a_winner()
    decisions = [asked(story, 0, LEARNS, seed) for seed in range(400)]
    assert {decision.hypers["size"] for decision in decisions} == {1, 2, 4, 8, 16}
    acts = Counter(decision.hypers["act"] for decision in decisions)
    assert set(acts) == {"a", "b"}
    assert abs(acts["b"] - 200) < 4 * math.sqrt(100)
    assert all(set(velocity_of(decision)) == {"lr", "x", "n", "size"} for decision in decisions)


def test_structure_follows_the_weights() -> None:
    story = a_loser_and_a_winner()
    choice = decide(story.view, 0, GPBT())
    assert choice.hypers["depth"] == 5
    assert choice.source == choice.donor == story.newest(1).ref


def test_a_fourth_is_redrawn_and_has_no_velocity() -> None:
    story = a_loser_and_a_winner()
    redrawn = [
        name not in velocity_of(asked(story, 0, GPBT(), seed)) for seed in range(200) for name in ("lr", "x", "n")
    ]
    assert abs(sum(redrawn) - 150) < 4 * math.sqrt(600 * 0.25 * 0.75)


def test_the_weights_of_the_two_terms_are_parameters() -> None:
    story = a_loser_and_a_winner()
    for seed in range(20):
        half, whole = (velocity_of(asked(story, 0, GPBT(resample=0, attraction=w), seed)) for w in (0.5, 1.0))
        assert half["x"] == pytest.approx(whole["x"] / 2)
        stays = asked(story, 0, GPBT(resample=0, attraction=0), seed)
        assert {**stays.hypers, "depth": 2} == LOSER


# Velocities over time -----------------------------------------------------------------------------------------------


def test_the_next_step_goes_on_as_the_last_one_went_whatever_lies_between() -> None:
    story = a_loser_and_a_winner(keep=4)
    first = story.turn(0, 2.0, LEARNS)
    assert first.notes is not None
    noted = dict(first.notes[VELOCITY])  # type: ignore[call-overload]
    story.train(1, 1.0)
    story.turn(0, 0.5, LEARNS)  # it was the best, and copied nobody
    story.train(0, 0.0)  # it was not ready, and not asked
    story.train(1, 1.0)
    story.train(1, 1.0)
    own, winner = story.newest(0), story.newest(1)
    assert own.notes is None
    assert velocities(own) == noted
    for seed in range(20):
        rng, found = np.random.default_rng(seed), velocity_of(asked(story, 0, LEARNS, seed))
        rng.integers(1)  # the winner is drawn
        for name in sorted(SPACE):
            if name == "depth":
                continue
            rng.random()  # to resample or not
            on, towards = rng.random(2)
            if name == "act":
                rng.random()
                continue
            way = SPACE[name].encode(winner.hypers[name]) - SPACE[name].encode(own.hypers[name])
            assert found[name] == pytest.approx(on * noted[name] + towards * way)


def test_a_velocity_belongs_to_the_member_not_to_the_weights_that_it_copies() -> None:
    story = a_loser_and_a_winner()
    fast = story.turn(0, 5.0, LEARNS)
    story.train(1, 1.0)
    assert velocities(fast)
    assert velocities(story.newest(1)) == {}
    for seed in range(10):
        way = SPACE["x"].encode(fast.hypers["x"]) - 1
        found = velocity_of(asked(story, 1, LEARNS, seed))["x"]
        assert way <= found <= 0  # towards the winner, which itself was moving up


def test_a_velocity_never_exceeds_the_axis() -> None:
    story = a_loser_and_a_winner()
    for _ in range(40):
        record = story.turn(0, 0.0, GPBT(inertia=1000, attraction=1000, resample=0))
        story.train(1, 1.0)
        assert record.notes is not None
        found = dict(record.notes[VELOCITY])  # type: ignore[call-overload]
        assert all(-1 <= v <= 1 for v in found.values())
        assert json.loads(json.dumps(found)) == found


def test_the_bounds_may_change_under_a_velocity() -> None:
    story = a_loser_and_a_winner()
    story.turn(0, 0.0, LEARNS)
    story.train(1, 1.0)
    for event in bounds({"x.high": 5.0, "n.low": 50})(story.view):
        story.add(placed(event, story.view.run_head + 1))
    for _ in range(5):
        record = story.turn(0, 0.0, LEARNS)
        story.train(1, 1.0)
        assert 0 <= record.hypers["x"] <= 5
    assert record.hypers["n"] >= 50


# Rescue -------------------------------------------------------------------------------------------------------------


def test_a_member_whose_state_is_lost_copies_one_of_the_best_and_starts_at_velocity_zero() -> None:
    story = a_loser_and_a_winner()
    story.turn(0, NAN, LEARNS)
    story.train(1, 1.0)
    choice = decide(story.view, 0, LEARNS)
    assert choice.replaced
    assert choice.source == choice.donor == story.newest(1).ref
    assert choice.hypers == WINNER  # with resample=0
    record = story.turn(0, 0.0, LEARNS)
    assert velocities(record) == {}
    resampled = [asked_rescue(story, seed).hypers["x"] for seed in range(200)]
    assert 20 < sum(x != 10.0 for x in resampled) < 80


def test_nor_does_it_get_the_velocity_of_whom_it_copies_then() -> None:
    story = a_loser_and_a_winner()
    fast = story.turn(0, 5.0, LEARNS)
    assert velocities(fast)
    story.train(1, NAN)
    saved = story.turn(1, 1.0, LEARNS)
    assert saved.parent is fast
    assert velocities(saved) == {}


def asked_rescue(story: Story, seed: int) -> Decision:
    return GPBT().rescue(story.view, 0, np.random.default_rng(seed))


def test_where_all_have_diverged_each_is_born_again_at_velocity_zero() -> None:
    story = a_loser_and_a_winner()
    story.turn(0, NAN, LEARNS)
    story.train(1, NAN)
    choice = decide(story.view, 0, GPBT())
    assert (choice.source, choice.donor, choice.replaced) == (None, None, True)
    assert velocities(story.turn(0, 1.0, GPBT())) == {}


# Groups and everything ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", range(1, 65))
def test_losers_and_winners_are_the_worst_and_the_best_quarter(n: int) -> None:
    rng = np.random.default_rng(n)
    scores = [float(x) for x in rng.permutation(n)]
    story, order, k = told(scores), sorted(range(n), key=lambda m: scores[m]), group_size(0.25, n)
    found = {m: {asked(story, m, LEARNS, seed).weights for seed in range(2)} for m in range(n)}
    assert {m for m in range(n) if found[m] != {KEEP}} == set(order[:k])
    winners = {record.id for m in order[:k] for record in found[m]}  # type: ignore[union-attr]
    assert winners <= set(order[n - k :])


@quick
@given(st.integers(0, 2**32 - 1), st.floats(0, 0.5), st.floats(0, 3), st.floats(0, 1))
def test_every_decision_is_sound(seed: int, fraction: float, inertia: float, resample: float) -> None:
    strategy = GPBT(fraction, inertia, resample=resample)
    story = random_story(np.random.default_rng(seed), 60, space=SPACE)
    for m in range(story.view.size):
        if story.view.busy[m]:
            continue
        choice = decide(story.view, m, strategy)
        assert all(SPACE[name].contains(value) for name, value in choice.hypers.items())
        assert json.loads(json.dumps(choice.notes)) == choice.notes


def test_values_and_description() -> None:
    for strategy in (GPBT(), GPBT(0.1, 0.5, 2, 0)):
        assert rebuild(json.loads(json.dumps(describe(strategy)))) == strategy
        assert eval(repr(strategy), {"GPBT": GPBT}) == strategy
    assert GPBT(attraction=1) == GPBT(attraction=1.0)
    few = Settings(seed=0, space={}, size=4, intervals=9)
    assert GPBT().advise({}, few) == Truncation(0.25).advise({}, few) != []


ERRORS: list[tuple[Any, str]] = [
    (lambda: GPBT(0.6), "GPBT: fraction must be from 0 to 0.5, the share of the population that learns, got 0.6"),
    (lambda: GPBT(inertia=-1), "GPBT: inertia must be a number from 0 to 1000, got -1"),
    (lambda: GPBT(attraction=NAN), "GPBT: attraction must be a number from 0 to 1000, got nan"),
    (lambda: GPBT(resample=1.1), "GPBT: resample must be a probability from 0 to 1, got 1.1"),
    (lambda: GPBT(resample=None), "got None"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("call", "message"), ERRORS, ids=[message[:60] for _, message in ERRORS])
def test_errors_say_what_was_given_and_expected(call: Any, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        call()
    assert message in str(caught.value)
