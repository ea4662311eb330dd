"""Initiator: whoever is ready meets another; the better is the parent of what it trains next; the best go on unchanged."""

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
from journals_by_hand import SPACE, Story, random_story
from phyla.decide import decide
from phyla.errors import SettingsError
from phyla.settings import Settings
from phyla.strategies.contract import KEEP, Decision
from phyla.strategies.describe import describe
from phyla.strategies.initiator import Initiator
from phyla.strategies.perturb import Gaussian, Perturb
from phyla.strategies.rebuild import rebuild

quick = settings(derandomize=True, deadline=None, max_examples=30, database=None)
NAN, INF = float("nan"), float("inf")
PAPER = Initiator(Perturb(0.5), elite=0)


def asked(story: Story, member: int, strategy: Initiator, seed: int = 0) -> Decision:
    return strategy(story.view, member, np.random.default_rng(seed))


def test_the_child_is_that_of_the_better_one_with_its_hyperparameters_explored() -> None:
    story = told([1.0, 2.0])
    loser, winner = (asked(story, m, PAPER) for m in range(2))
    assert loser.weights is story.newest(1)
    assert winner.weights is KEEP
    for decision in (loser, winner):
        assert decision.hypers["lr"] == max(1e-4, story.newest(1).hypers["lr"] * 0.5)
        assert decision.donor is None


def test_a_child_of_its_own_is_no_copy_but_one_of_another_is() -> None:
    story = told([1.0, 2.0])
    first, second = (decide(story.view, m, PAPER) for m in range(2))
    assert first.source == first.donor == story.newest(1).ref
    assert (second.source, second.donor) == (story.newest(1).ref, None)
    assert first.hypers["depth"] == second.hypers["depth"] == story.newest(1).hypers["depth"]


def test_all_others_are_met_equally_often() -> None:
    story = told([0.0, 1.0, 2.0, 3.0, 4.0])
    found = Counter(
        record.weights if record.weights is KEEP else record.weights.id  # type: ignore[union-attr]
        for record in (asked(story, 2, PAPER, seed) for seed in range(800))
    )
    assert set(found) == {KEEP, 3, 4}
    assert abs(found[KEEP] - 400) < 4 * math.sqrt(200)
    assert abs(found[3] - 200) < 4 * math.sqrt(800 * 0.25 * 0.75)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 17, 32])
@pytest.mark.parametrize("mode", ["max", "min"])
def test_just_the_best_go_on_unchanged_also_among_equals(n: int, mode: str) -> None:
    rng = np.random.default_rng(n)
    for scores in ([float(x) for x in rng.permutation(n)], [1.0] * n):
        story = told(scores, mode=mode)
        sign = 1 if mode == "max" else -1
        best_first = sorted(range(n), key=lambda m: (sign * scores[m], m), reverse=True)
        for elite in (0, 1, 2, n):
            unchanged = {
                m
                for m in range(n)
                if (decision := asked(story, m, Initiator(Perturb(0.5), elite))).weights is KEEP
                and decision.hypers == story.newest(m).hypers
            }
            assert unchanged == (set(best_first[:elite]) if n > 1 else {0})


@quick
@given(
    st.lists(
        st.one_of(st.none(), st.sampled_from([NAN, INF, -INF]), st.integers(-3, 3).map(float)), min_size=1, max_size=20
    ),
    st.sampled_from(["max", "min"]),
    st.integers(0, 3),
)
def test_nobody_becomes_the_child_of_a_worse_one(scores: list[float | None], mode: str, elite: int) -> None:
    story = told(scores, mode=mode)
    view = story.view
    for m in range(len(scores)):
        own = story.newest(m)
        for seed in range(4):
            decision = asked(story, m, Initiator(elite=elite), seed)
            if decision.weights is KEEP:
                continue
            assert decision.weights.finite  # type: ignore[union-attr]
            assert (view.value(decision.weights), decision.weights.id) > (view.value(own), m)  # type: ignore[arg-type, union-attr]
            assert own.score is not None


def test_who_has_no_score_yet_or_nobody_to_meet_goes_on_unchanged() -> None:
    for story in (told([None, 1.0, 2.0]), told([1.0]), told([1.0, None])):
        assert asked(story, 0, PAPER) == Decision(KEEP, story.newest(0).hypers)
    story = Story(10)
    for m in range(4):
        story.train(m, float(m))
    assert asked(story, 0, PAPER) == Decision(KEEP, story.newest(0).hypers)
    story.train(4, 4.0)
    assert asked(story, 0, PAPER).weights is not KEEP


def test_members_are_compared_at_equal_progress() -> None:
    story = Story(2, keep=9)
    story.generation(2.0, 1.0)
    story.train(1, 9.0)
    assert asked(story, 0, Initiator()) == Decision(KEEP, story.newest(0).hypers)


def test_without_explore_nothing_is_mutated() -> None:
    story = told([1.0, 2.0])
    assert asked(story, 0, Initiator(None, 0)).hypers == story.newest(1).hypers
    assert asked(story, 1, Initiator(None, 0)) == Decision(KEEP, story.newest(1).hypers)


def test_a_member_whose_state_is_lost_is_replaced() -> None:
    story = told([NAN, 1.0])
    choice = decide(story.view, 0, Initiator(Perturb(0.5)))
    assert choice.replaced
    assert choice.source == choice.donor == story.newest(1).ref
    alone = told([NAN, NAN])
    assert decide(alone.view, 0, Initiator()).source is None


@quick
@given(st.integers(0, 2**32 - 1), st.integers(0, 3))
def test_every_decision_is_sound(seed: int, elite: int) -> None:
    story = random_story(np.random.default_rng(seed), 60)
    for m in range(story.view.size):
        if not story.view.busy[m]:
            choice = decide(story.view, m, Initiator(Gaussian(0.2, resample=0.1), elite))
            assert all(SPACE[name].contains(value) for name, value in choice.hypers.items())


def test_what_it_is_made_of_is_asked_too_and_comes_back() -> None:
    settings = Settings(seed=0, space={}, size=2, intervals=9)
    with pytest.raises(SettingsError, match="Gaussian: sigma names 'x'"):
        Initiator(Gaussian({"x": 0.1})).check(SPACE, settings)
    assert "all 2 members are elite, and none ever changes" in Initiator(elite=2).advise(SPACE, settings)[0]
    assert Initiator().advise(SPACE, settings) == []
    for strategy in (Initiator(), Initiator(None, 0), Initiator(Gaussian(0.1), 3)):
        assert rebuild(json.loads(json.dumps(describe(strategy)))) == strategy


ERRORS: list[tuple[Any, str]] = [
    (lambda: Initiator(elite=-1), "Initiator: elite must be a whole number of members, 0 or more, got -1"),
    (lambda: Initiator(elite=0.1), "got 0.1"),  # type: ignore[arg-type]
    (lambda: Initiator(0.1), "Initiator: explore must be one such as phyla.Perturb(), or None, got 0.1"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("call", "message"), ERRORS, ids=[message[:60] for _, message in ERRORS])
def test_errors_say_what_was_given_and_expected(call: Any, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        call()
    assert message in str(caught.value)
