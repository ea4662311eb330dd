"""IPBT: rounds that begin anew, twice as long each time; their candidates, and what ends them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import phyla
from journals_by_hand import Story
from phyla import snapshot, steer
from phyla.doctor import examine
from phyla.errors import SettingsError
from phyla.events import RUN, Recorded, Ref
from phyla.record import Record
from phyla.settings import Settings
from phyla.space import Choice, Float, Hypers, Int, Space, describe
from phyla.strategies import ipbt
from phyla.strategies.contract import FRESH, KEEP, Decision, Mix
from phyla.strategies.describe import describe as described
from phyla.strategies.evolve import Evolve
from phyla.strategies.ipbt import IPBT, Stage
from phyla.strategies.perturb import Perturb
from phyla.strategies.rebuild import rebuild
from phyla.strategies.truncation import Truncation
from phyla.testing.simulation import Faults, Simulation, outcome
from phyla.view import View

quick = settings(derandomize=True, deadline=None, max_examples=60, database=None)
NAN = math.nan
Score = Callable[[int, int], float | None]


def flat(member: int, interval: int) -> float:
    """Nothing ever gets better."""
    return float(member)


def rising(member: int, interval: int) -> float:
    return 10.0 * interval + member


def play(score: Score, size: int = 4, strategy: Any = None, until: int | None = None, **known: Any) -> Story:
    """Generations that a strategy decides; score(member, interval)."""
    strategy = strategy if strategy is not None else IPBT()
    story = Story(size, strategy.retain, **{"max_lead": 0, "intervals": 60, **known})
    for interval in range(1, (until or story.view.intervals) + 1):
        for member in range(size):
            story.turn(member, score(member, interval), strategy)
    return story


def stages(story: Story, member: int = 0) -> list[Stage]:
    """Where a member stood in each interval."""
    history = story.view.history[member]
    return [ipbt._stage(history[: place + 1]) for place in range(len(history))]


def rounds(story: Story, member: int = 0) -> list[int]:
    """After how many intervals a member began each round."""
    return sorted({stage.start for stage in stages(story, member)})


def seen(story: Story, member: int) -> Decision:
    """What the strategy says, as it says it."""
    return IPBT()(story.view, member, np.random.default_rng(0))


# Rounds ---------------------------------------------------------------------------------------------------------------


def test_a_round_is_two_candidates_what_is_taken_and_evolution() -> None:
    story = play(rising, until=7)
    assert stages(story) == [Stage(0, 0, step) for step in (0, 1, 2, 3, 4, 5, 6)]
    records = story.view.history[0]
    assert [record.source is None for record in records[:3]] == [True, True, False]
    for member in range(4):
        first, second, taken = story.view.history[member][:3]
        assert taken.parent in (first, second)  # its own one
        assert first.hypers != second.hypers
        assert taken.hypers == taken.parent.hypers


def test_a_flat_curve_ends_a_round_after_patience_and_the_next_ones_are_twice_as_long() -> None:
    story = play(flat, intervals=200)
    # Two candidates are one point of the curve; with three more, the last three have not risen.
    assert rounds(story) == [0, 5, 15, 35, 75]
    assert all(rounds(story, member) == rounds(story) for member in range(4))
    lengths = Counter((stage.round, stage.step) for stage in stages(story))
    for number in range(4):
        assert [lengths[number, step] for step in range(5)] == [2**number] * 5
    why = [notes["why"] for record in story.view.history[0] if "why" in (notes := _note(record))]
    assert why == ["no rise in 3 intervals"] * 4


def _note(record: Record) -> dict[str, Any]:
    found: Any = (record.notes or {}).get("ipbt", {})
    return found


@pytest.mark.parametrize("ready", [2, 3])
def test_the_first_interval_is_that_of_the_population(ready: int) -> None:
    story = play(flat, intervals=60 * ready, ready=ready)
    assert rounds(story) == [0, 5 * ready, 15 * ready, 35 * ready]
    assert [stage.step for stage in stages(story)[: 5 * ready]] == [step for step in range(5) for _ in range(ready)]


def test_while_the_curve_rises_no_round_ends() -> None:
    story = play(lambda member, interval: -(0.9**interval) + member / 1000, until=14)
    assert rounds(story) == [0]


def test_a_curve_that_stops_to_rise_ends_the_round_then() -> None:
    story = play(lambda member, interval: float(min(interval, 9)), strategy=IPBT(slow=99), until=20)
    (first, *_) = rounds(story)[1:]
    assert 11 <= first <= 14  # smoothed, a rise shows for a while


@pytest.mark.parametrize("intervals", range(1, 64))
def test_no_round_begins_without_two_of_its_intervals_of_which_the_first_costs_twice(intervals: int) -> None:
    story = play(flat, intervals=intervals)
    possible = [start for number, start in enumerate([5, 15, 35, 75], 1) if start + 3 * 2**number <= intervals]
    assert rounds(story) == [0, *possible]
    assert story.view.done.tolist() == [intervals] * 4  # the budget, to the interval
    assert story.view.finished


@pytest.mark.parametrize("ready", [1, 2])
def test_every_interval_of_the_budget_is_trained_once(ready: int) -> None:
    story = play(flat, intervals=31, ready=ready)
    records = list(story.view.records.values())
    assert len(records) == 31 * 4
    assert {record.total_steps for record in records if record.interval == 31} == {31}


# What ends a round ----------------------------------------------------------------------------------------------------


def test_what_a_stand_is() -> None:
    stands = IPBT().stands
    line = [float(n) for n in range(60)]
    assert [stands(line[:n]) for n in range(1, 40)] == [None] * 39
    assert stands(line) == "less than a standard deviation in 15 intervals"  # of 60, these are a quarter
    assert stands([0.0, 0.0, 0.0]) is None
    assert stands([0.0, 0.0, 0.0, 0.0]) == "no rise in 3 intervals"
    assert stands([0.0, 1.0, 2.0, 3.0, 2.9, 2.8, 2.7, 2.6, 2.5]) == "no rise in 3 intervals"
    assert stands([3.0, 2.0, 1.0, 5.0]) is None
    assert stands([]) is None
    saturates = [1 - math.exp(-n / 3) for n in range(40)]
    assert stands(saturates[:12]) is None
    assert stands(saturates[:25]) == "less than a standard deviation in 15 intervals"


def test_one_interval_that_fails_does_not_hide_a_stand_or_make_one() -> None:
    stands = IPBT().stands
    assert stands([-1e9, *map(float, range(20))]) is None
    assert stands([0.0, -1e9, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]) is not None


def test_patience_and_slow_are_parameters() -> None:
    assert IPBT(patience=1).stands([1.0, 0.0]) == "no rise in 1 intervals"
    assert IPBT(patience=5).stands([1.0] * 5) is None
    assert IPBT(patience=5).stands([1.0] * 6) is not None
    curve = [1 - math.exp(-n / 3) for n in range(20)]
    assert IPBT(slow=5, patience=99).stands(curve) == "less than a standard deviation in 5 intervals"
    assert IPBT(slow=99, patience=99).stands(curve) is None


def test_noise_on_a_slope_ends_no_round_and_on_a_plain_it_does_before_long() -> None:
    rng = np.random.default_rng(0)
    ended = {"slope": 0, "plain": 0}
    for _ in range(8):
        noise = 0.3 * rng.normal(size=16)
        ended["slope"] += any(
            IPBT(slow=99).stands([*(n + x for n, x in enumerate(noise[:k]))]) for k in range(4, 16, 2)
        )
        ended["plain"] += any(IPBT(slow=99).stands([*noise[:k]]) for k in range(4, 16))
    assert ended["slope"] == 0
    assert ended["plain"] >= 4


# Candidates -----------------------------------------------------------------------------------------------------------


def at_a_restart(size: int = 8, **known: Any) -> Story:
    """All are about to begin round 1: members have trained five intervals, and those of higher ids are better."""
    return play(flat, size, until=5, **known)


def test_candidates_are_half_new_and_half_shrunk_from_the_best_quarter() -> None:
    story = at_a_restart()
    sources = set()
    for member in range(8):
        said = seen(story, member)
        assert isinstance(said.weights, Mix)
        assert (said.weights.old, said.weights.fresh) == (0.2, 0.1)
        sources.add(said.weights.record.id)
        assert said.weights.record.id in (6, 7)
        assert said.weights.record.interval == 5
        if member > 5:
            assert said.weights.record.id == member  # its own, which is one of the best
    assert sources == {6, 7}
    for _ in range(2):
        for member in range(8):
            story.turn(member, 0.0, IPBT())
    assert [seen(story, member).weights for member in range(8)] == [FRESH] * 8


def begun(story: Story) -> list[tuple[Record, Record]]:
    """The first reports of the candidates of the second round, of each member."""
    return [(history[5], history[7]) for history in story.view.history]


def test_of_both_kinds_of_weights_a_half_has_what_the_model_expects() -> None:
    both = begun(play(flat, 8, until=8))
    counts = Counter((record.mixed, _note(record)["hypers"]) for candidates in both for record in candidates)
    assert counts == {(mixed, how): 4 for mixed in (True, False) for how in ("random", "expected of a model")}
    assert all(_note(first)["hypers"] != _note(second)["hypers"] for first, second in both)


def test_no_two_candidates_begin_with_the_same_hyperparameters() -> None:
    both = begun(play(flat, 8, until=8))
    assert len({tuple(record.hypers.values()) for candidates in both for record in candidates}) == 16


def deal(scores: Sequence[Sequence[float | None]]) -> tuple[Story, dict[int, Record]]:
    """What is dealt of candidates with these scores, [member][candidate]."""
    story = Story(len(scores), keep=9)
    for candidates in zip(*scores, strict=True):
        story.generation(*candidates)
    return story, ipbt._deal(story.view, dict(enumerate(story.view.history)))


any_score = st.one_of(st.sampled_from([NAN, math.inf, -math.inf]), st.integers(-3, 3).map(float))


@quick
@given(st.lists(st.tuples(any_score, any_score), min_size=1, max_size=12), st.booleans())
def test_the_best_n_of_2n_are_dealt_out_each_once(scores: list[tuple[float, float]], finite: bool) -> None:
    if finite:
        scores = [(0.0 if not math.isfinite(a) else a, 1.0 if not math.isfinite(b) else b) for a, b in scores]
    story, dealt = deal(scores)
    n = len(scores)
    every = [record for history in story.view.history for record in history]
    order = sorted(every, key=lambda r: (story.view.value(r), r.id, r.interval))
    best = [record for record in order[n:] if record.finite]
    assert set(dealt) == (set(range(n)) if best else set())
    assert {record.ref for record in dealt.values()} <= {record.ref for record in best}
    for member, record in dealt.items():
        own = [one for one in best if one.id == member]
        assert record is own[-1] if own else record.id != member
    if len(best) == n:
        assert sorted(record.ref for record in dealt.values()) == sorted(record.ref for record in best)


def test_of_equal_candidates_the_newer_is_kept() -> None:
    _, dealt = deal([(1.0, 1.0)] * 4)
    assert [(member, record.id, record.interval) for member, record in sorted(dealt.items())] == [
        (0, 3, 1), (1, 2, 1), (2, 2, 2), (3, 3, 2),
    ]  # fmt: skip


def test_a_member_without_candidates_is_given_one_too() -> None:
    story = Story(3, keep=9)
    story.generation(1.0, 2.0, 3.0)
    story.generation(6.0, 5.0, 4.0)
    dealt = ipbt._deal(story.view, {0: story.view.history[0], 1: story.view.history[1], 2: []})
    assert dealt[2] in (*story.view.history[0], *story.view.history[1])
    assert ipbt._deal(story.view, {0: [], 1: []}) == {}


def test_in_a_run_exactly_the_best_n_go_on() -> None:
    """Of the second round's candidates, whose first ones no rule but `retain` keeps."""
    rng = np.random.default_rng(3)
    scores = {(member, interval): float(rng.normal()) for member in range(6) for interval in range(1, 30)}

    def score(member: int, interval: int) -> float:
        return flat(member, interval) if interval <= 5 else scores[member, interval]

    story = play(score, 6, until=9, keep=1)
    assert rounds(story) == [0, 5]
    candidates = [history[interval - 1] for history in story.view.history for interval in (7, 9)]
    assert all(record.available for record in candidates)
    for member in range(6):
        story.turn(member, 0.0, IPBT())
    best = sorted(candidates, key=story.view.value)[6:]
    assert sorted(history[9].source or Ref(0, 0) for history in story.view.history) == sorted(r.ref for r in best)
    for history in story.view.history:
        assert history[9].hypers == (history[9].parent or history[9]).hypers


def test_candidates_are_kept_until_everybody_has_taken_one_and_no_longer() -> None:
    strategy = IPBT()
    story = play(flat, 4, until=21, keep=2)  # round 2 began at 15, and has intervals of 4: candidates end at 19 and 23
    assert rounds(story) == [0, 5, 15]
    for interval in (22, 23):
        for member in range(4):
            story.turn(member, flat(member, interval), strategy)
    assert [story.available(member) for member in range(4)] == [[19, 22, 23]] * 3 + [[1, 19, 22, 23]]  # and the best
    for member in range(3):
        story.turn(member, 0.0, strategy)
    assert 19 in story.available(0)
    story.turn(3, 0.0, strategy)
    assert story.available(0) == [23, 24]


def test_who_is_alone_far_behind_keeps_candidates_from_being_dropped() -> None:
    strategy = IPBT()
    story = Story(4, strategy.retain, intervals=60, keep=2)
    for _ in range(5):
        for member in (1, 2, 3):
            story.turn(member, float(member), strategy)
    assert all(1 in story.available(member) and 2 in story.available(member) for member in (1, 2, 3))
    for _ in range(3):
        story.turn(0, 0.0, strategy)
    assert story.newest(0).source in {Ref(m, seq) for m in (1, 2, 3) for seq in (3, 5)}


# Hyperparameters to begin with ----------------------------------------------------------------------------------------

WIDE: Space = {
    "lr": Float(1e-4, 1.0, log=True),
    "units": Int(1, 64),
    "act": Choice("relu", "tanh", "gelu"),
    "batch": Choice(16, 32, 64, ordered=True),
}


def starts(outcome: Callable[[Hypers], float], count: int, space: Space = WIDE) -> list[tuple[Record, float]]:
    """Candidates of the first round, and what they came to."""
    story, rng = Story(1, space=space, keep=99), np.random.default_rng(1)
    found = []
    for _ in range(count):
        hypers = {name: space[name].sample(rng) for name in space}
        found.append((story.train(0, 0.0, None, hypers=hypers), outcome(hypers)))
    return found


def expected(known: Sequence[tuple[Record, float]], before: int = 0, space: Space = WIDE) -> tuple[Hypers, str]:
    return ipbt._expected(known, space, 1, before, np.random.default_rng(0))


def test_the_model_finds_where_descendants_came_to_most() -> None:
    space = {name: WIDE[name] for name in ("lr", "act")}

    def came_to(hypers: Hypers) -> float:
        return -((space["lr"].encode(hypers["lr"]) - 0.7) ** 2) + (0.3 if hypers["act"] == "tanh" else 0.0)

    known = starts(came_to, 24, space)
    found = [expected(known, before, space) for before in range(4)]
    assert {how for _, how in found} == {"expected of a model"}
    assert [hypers["act"] for hypers, _ in found] == ["tanh"] * 4
    assert abs(space["lr"].encode(found[0][0]["lr"]) - 0.7) < 0.1


def test_who_chooses_later_chooses_otherwise() -> None:
    known = starts(lambda hypers: float(WIDE["lr"].encode(hypers["lr"])), 8)
    found = [expected(known, before)[0] for before in range(8)]
    assert len({tuple(hypers.values()) for hypers in found}) == 8


@pytest.mark.parametrize(
    "space", [WIDE, {"act": WIDE["act"]}, {"lr": WIDE["lr"]}, {"depth": Int(1, 8, structural=True)}]
)
@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_what_is_expected_is_in_the_space(space: Space, count: int) -> None:
    hypers, _ = expected(starts(lambda hypers: 0.0, count, space), space=space)
    assert list(hypers) == list(space)
    assert all(h.contains(hypers[name]) for name, h in space.items())


def test_too_few_starts_make_no_model_and_that_is_said() -> None:
    known = starts(lambda hypers: float(hypers["units"]), 3, {"units": Int(1, 64), "lr": Float(0.0, 1.0)})
    best = max(known, key=lambda one: one[1])[0]
    found = [
        ipbt._expected(known, {"units": Int(1, 64), "lr": Float(0.0, 1.0)}, 1, 0, np.random.default_rng(n))
        for n in range(50)
    ]
    assert {how for _, how in found} == {"near the best start: only 3 candidates are known"}
    assert np.mean([hypers["units"] for hypers, _ in found]) == pytest.approx(best.hypers["units"], abs=4)
    assert 0.05 < np.std([hypers["lr"] - best.hypers["lr"] for hypers, _ in found]) < 0.15


def test_a_model_that_cannot_be_computed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise np.linalg.LinAlgError("Singular matrix")

    monkeypatch.setattr(ipbt.gp, "fit", fails)
    _, how = expected(starts(lambda hypers: 0.0, 9))
    assert how == "near the best start: Singular matrix"


def test_a_start_counts_for_the_best_of_its_descendants_and_only_if_somebody_went_on_with_it() -> None:
    story = play(lambda member, interval: float(100 * member - interval), 4, until=6)
    found = ipbt._starts(story.view, story.view.history)
    chosen = {
        record.parent.ref for history in story.view.history for record in history[2:3] if record.parent is not None
    }
    assert {root.ref for root, _ in found} == chosen
    for root, best in found:
        descendants = [r for r in story.view.records.values() if root in r.ancestry()]
        assert best == max(story.view.value(record) for record in descendants)
    restarted = play(flat, 4, until=20)
    for root, _ in ipbt._starts(restarted.view, restarted.view.history):
        assert root.mixed or root.parent is None


def test_the_order_of_reports_in_the_journal_does_not_matter() -> None:
    def told(order: int) -> list[Any]:
        strategy, story = IPBT(), Story(8, IPBT().retain, intervals=60, max_lead=0)
        for _ in range(9):
            for member in range(8)[::order]:
                story.turn(member, float(member), strategy)
        known = ipbt._starts(story.view, story.view.history)
        last = [history[-1].hypers for history in story.view.history]
        return [*((root.id, root.interval, best) for root, best in known), *last]

    assert told(1) == told(-1)


# Members that do not keep step ----------------------------------------------------------------------------------------


def test_who_is_behind_in_an_older_round_is_no_donor_however_good_it_looks() -> None:
    strategy = IPBT()
    story = play(flat, 8, until=5, max_lead=None)
    for interval in range(6, 12):
        for member in range(7):  # and the eighth, which is best, stays behind
            story.turn(member, member / 100 + interval, strategy)
    assert ipbt._stage(story.view.history[0]).round == 1
    for member in range(7):
        story.turn(member, member / 100, strategy)
        record = story.newest(member)
        assert record.source is None or record.source.member != 7


def test_who_comes_late_follows_into_the_round_that_others_have_begun() -> None:
    strategy = IPBT()
    story = Story(6, strategy.retain, intervals=60, keep=99)
    for _ in range(8):
        for member in range(5):
            story.turn(member, float(member), strategy)
    assert rounds(story, 0) == [0, 5]
    for _ in range(9):
        story.turn(5, 100.0 * int(story.view.done[5]), strategy)  # its own curve rises
    assert ipbt._stage(story.view.history[5]).round == 1
    began = next(record for record in story.view.history[5] if "why" in _note(record))
    assert _note(began)["why"] == "others have begun it"
    assert began.mixed


def test_one_that_runs_ahead_does_not_end_a_round_by_itself() -> None:
    strategy = IPBT()
    story = Story(6, strategy.retain, intervals=60)
    for _ in range(30):
        story.turn(0, 0.0, strategy)
    assert rounds(story) == [0]


def test_it_never_stalls_or_raises_whoever_is_where() -> None:
    for seed in range(2):
        rng, strategy = np.random.default_rng(seed), IPBT()
        size = int(rng.integers(4, 9))
        story = Story(size, strategy.retain, intervals=40, keep=1 + seed % 3, ready=1 + seed % 2)
        while unfinished := np.flatnonzero(story.view.unfinished()).tolist():
            member = int(rng.choice(unfinished, p=_uneven(len(unfinished))))
            story.turn(member, [None, NAN, 0.0, 1.0, float(rng.normal())][int(rng.integers(5))], strategy)
            assert ipbt.NOTE in (story.newest(member).notes or {ipbt.NOTE: 1})
            assert "strategy_failed" not in (story.newest(member).notes or {})
        assert max(ipbt._stage(history).round for history in story.view.history) >= 1


def _uneven(n: int) -> np.ndarray:
    weights = np.arange(1, n + 1) ** 2.0
    return weights / weights.sum()


def test_a_newcomer_begins_with_candidates_of_its_own() -> None:
    strategy, story = IPBT(), play(flat, 4, until=8)
    for event in steer.resize(5)(story.view):
        story.add(steer.placed(event, story.view.run_head + 1) if event.member == RUN else event)
    for _ in range(12):
        for member in range(5):
            story.turn(member, float(member), strategy)
    assert ipbt._stage(story.view.history[4]).round >= 1
    assert story.view.history[4][0].replaced
    assert not any("strategy_failed" in (record.notes or {}) for record in story.view.records.values())


# Lost states ----------------------------------------------------------------------------------------------------------


def test_where_all_diverge_everybody_is_born_again_and_the_run_ends() -> None:
    story = play(lambda member, interval: NAN, intervals=20)
    assert story.view.done.tolist() == [20] * 4
    assert all(record.source is None for record in story.view.records.values())
    assert rounds(story) == [0]  # there is no curve


def test_who_diverges_within_a_round_copies_a_member_of_that_round() -> None:
    strategy = IPBT()
    story = play(flat, 8, until=7)
    assert rounds(story) == [0, 5]
    story.turn(0, NAN, strategy)
    story.decide(0, strategy)
    claim = story.view.open[0]
    assert claim is not None
    assert claim.replaced
    assert claim.donor is not None
    assert claim.donor.member != 0
    assert claim.notes == {"ipbt": {"round": 1, "start": 5, "step": 1}}


def test_who_lost_its_second_candidate_goes_on_with_its_first_if_that_is_one_of_the_best() -> None:
    def score(member: int, interval: int) -> float:
        return NAN if (member, interval) == (3, 2) else 10.0 * member - interval

    story = play(score, 4, until=3)
    first, second, taken = story.view.history[3]
    assert second.score is not None
    assert taken.parent is first
    assert taken.hypers == first.hypers


def test_a_candidate_that_crashes_its_member_is_not_dealt_to_it_again() -> None:
    strategy, story = IPBT(), play(rising, 4, until=2, retries=0)
    own = story.newest(3)
    assert story.decide(3, strategy).source == own.ref
    story.fail(3, "crashed")
    claim = story.decide(3, strategy)
    assert claim.replaced
    assert claim.source is not None
    assert claim.source.member != 3


def test_a_candidate_that_crashes_at_once_gets_other_hyperparameters() -> None:
    strategy, story = IPBT(), play(flat, 4, until=7, retries=0)
    for member in range(4):
        claim = story.decide(member, strategy)
        story.fail(member, "crashed")
        again = story.decide(member, strategy)
        assert again.replaced
        assert again.source is None
        assert again.hypers != claim.hypers
        story.report(member, 0.0)


@pytest.mark.parametrize("score", [flat, rising])
def test_who_has_no_score_yet_goes_on_from_its_own_weights(score: Score) -> None:
    story = play(lambda member, interval: None if member == 0 else score(member, interval), until=12)
    assert all(record.donor is None for record in story.view.history[0])
    mixed = [record for record in story.view.history[0] if record.mixed]
    assert [record.source for record in mixed] == [story.view.history[0][4].ref] * (score is flat)


def test_a_checkpoint_that_is_lost_is_not_dealt() -> None:
    strategy, story = IPBT(), play(rising, 4, until=2, keep=9)
    best = story.newest(3)
    claim = story.decide(3, strategy)
    assert claim.source == best.ref
    story.fail(3, "checkpoint", best)
    assert story.decide(3, strategy).source != best.ref


# Parts, parameters, and what it says ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Within:
    """A strategy of a round that says what it is shown, and keeps the first report of everybody."""

    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Decision:
        own = view.restorable(member)
        assert own is not None
        known = [record for history in view.known(member) for record in history]
        shown = {"peers": [r.interval for r in view.peers(member)], "known": min(r.interval for r in known)}
        return Decision(KEEP, own.hypers, notes={"within": shown})

    def retain(self, view: View) -> list[Ref]:
        return [history[0].ref for history in view.history if history]

    needs_samples = True

    def check(self, space: Space, settings: Settings) -> None:
        if settings.size == 13:
            raise SettingsError("thirteen")

    def advise(self, space: Space, settings: Settings) -> list[str]:
        return ["said within"]


def test_what_is_within_is_asked_in_each_interval_of_a_round_and_sees_that_round_only() -> None:
    strategy = IPBT(Within())
    story = play(flat, strategy=strategy, until=16)
    assert rounds(story) == [0, 5, 15]
    asked = [record.interval for record in story.view.history[0] if "within" in (record.notes or {})]
    assert asked == [4, 5, 12, 14]  # after 3, 4, and 11, 13
    late: Any = story.view.history[0][13].notes
    assert late["within"] == {"peers": [13] * 4, "known": 6}
    assert late["ipbt"] == {"round": 1, "start": 5, "step": 4}
    assert all(story.view.records[Ref(member, 3)].available for member in range(4))


def test_pb2_can_be_within() -> None:
    strategy, rng = IPBT(phyla.PB2(), patience=1), np.random.default_rng(0)
    story = play(lambda member, interval: float(rng.normal()), 8, strategy, until=14)
    notes = [record.notes or {} for record in story.view.records.values()]
    assert not any("strategy_failed" in note for note in notes)
    assert any("pb2" in note and "ipbt" in note for note in notes)
    assert len(rounds(story)) > 1
    assert rebuild(described(strategy)) == strategy


def test_what_is_within_says_what_it_needs() -> None:
    strategy = IPBT(Within())
    assert strategy.needs_samples
    assert not IPBT().needs_samples
    assert "said within" in strategy.advise(WIDE, known(size=8))
    with pytest.raises(SettingsError, match="thirteen"):
        strategy.check(WIDE, known(size=13))


def known(**more: Any) -> Settings:
    return Settings(**{"seed": 0, "space": describe(WIDE), "size": 8, "intervals": 100, **more})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"size": 3}, "IPBT needs 4 members or more, got size=3"),
        ({"intervals": None}, r"IPBT needs a budget, intervals=…"),
        ({"burn_in": 2}, "a burn-in of 2 would favour the first one; leave burn_in out"),
    ],
)
def test_what_it_cannot_work_with_is_said(given: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        IPBT().check(WIDE, known(**given))


def test_what_it_can_work_with() -> None:
    IPBT().check(WIDE, known(size=4, intervals=1))
    IPBT().check(WIDE, known(burn_in=3, ready=3))
    assert IPBT().advise(WIDE, known()) == []
    assert IPBT().advise(WIDE, known(intervals=400, ready=4)) == []
    (said,) = IPBT().advise(WIDE, known(intervals=100, ready=4))
    assert said.startswith("IPBT: 25 of the first round's intervals make the budget")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"within": None}, r"IPBT: within must be one such as phyla.PB2\(\), or .*, got None"),
        ({"within": Truncation}, "IPBT: within must be"),
        ({"patience": 0}, "IPBT: patience must be a whole number of intervals, 1 or more, got 0"),
        ({"patience": 1.5}, "patience"),
        ({"slow": 1}, "IPBT: slow must be a whole number of intervals, 2 or more, got 1"),
        ({"slow": True}, "slow"),
        ({"old": -0.1}, "IPBT: old must be a number, 0 or more, got -0.1"),
        ({"fresh": NAN}, "IPBT: fresh must be a number, 0 or more, got nan"),
        ({"fresh": "1"}, "fresh"),
    ],
)
def test_other_parameters_are_refused_with_what_was_given_and_expected(given: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        IPBT(**given)


def test_it_is_rebuilt_from_its_description() -> None:
    for strategy in (IPBT(), IPBT(Evolve(Truncation(0.5), Perturb(2.0)), 2, 9, 0, 1)):
        assert rebuild(described(strategy)) == strategy


def test_a_snapshot_can_be_kept_since_what_retain_does_is_known_from_its_words() -> None:
    assert snapshot._fold_of(IPBT().retain) is not None
    assert snapshot._fold_of(IPBT().retain) == snapshot._fold_of(IPBT().retain)
    assert snapshot._fold_of(IPBT().retain) != snapshot._fold_of(IPBT(patience=4).retain)


# Runs -----------------------------------------------------------------------------------------------------------------


def trained(**options: Any) -> phyla.Population:
    """Weights that must come from 0 to 1 in each of two directions, and shrinking takes them back."""
    known: dict[str, Any] = {"seed": 0, "max_lead": 0, "journal": "memory", "progress": False, "threads": 1}
    known["strategy"] = IPBT()
    population = phyla.Population("ipbt", {"lr": Float(1e-3, 0.5, log=True)}, **{**known, **options})
    for member in population:
        rng, state = np.random.default_rng(member.seed), member.state(lambda newborn: {"w": np.zeros(2)})
        w = 1 + (state["w"] - 1) * (1 - member["lr"]) ** 9 + 0.01 * rng.normal(size=2)
        member.report(-float(np.square(w - 1).sum()), {"w": w})
    return population


def test_a_run_restarts_keeps_its_best_and_every_decision_can_be_made_again() -> None:
    population = trained(size=5, intervals=30)
    run = population.run
    assert max(ipbt._stage(history).round for history in run.view.history) >= 1
    assert any(record.mixed for record in run.records)
    best, final = run.best, run.final
    assert best is not None
    assert final is not None
    assert run.view.value(best) == max(map(run.view.value, run.records)) >= run.view.value(final)
    assert run.load(best)["w"].shape == (2,)
    events = [Recorded(n, event) for n, event in enumerate(run.events(), 1)]
    assert list(examine(events, run.checkpoints, IPBT())) == []


def test_a_run_that_is_left_again_and_again_comes_to_the_same(tmp_path: Any) -> None:
    hasty = IPBT(patience=1)
    whole = trained(size=4, intervals=12, strategy=hasty)
    assert any(record.mixed for record in whole.run.records)
    for _ in range(200):
        broken = trained(size=4, intervals=12, strategy=hasty, journal="sqlite", path=tmp_path, seconds=0.1)
        if broken.view.finished:
            break
    assert outcome(broken.view) == outcome(whole.view)


@pytest.mark.parametrize("known", [{}, {"diverges": 6}, {"ready": 2, "intervals": 26}])
def test_workers_under_bad_luck_decide_the_same_as_one_undisturbed(known: dict[str, Any]) -> None:
    def simulated(seed: int, **more: Any) -> Any:
        simulation = Simulation(seed, members=5, strategy=IPBT(patience=1), **{"intervals": 13, **known}, **more)
        assert not simulation.run(), seed
        assert any(record.mixed for record in simulation.view.records.values())
        return outcome(simulation.view)

    whole = simulated(0, workers=1, faults=Faults.none())
    assert simulated(1, workers=4, faults=Faults(0.02, 0.01, 0.02, 0.02)) == whole


@pytest.mark.parametrize(
    "known",
    [
        {"max_lead": None},
        {"max_lead": None, "keep": 1, "members": 7},
        {"max_lead": 1, "keep": 3, "diverges": 5, "faults": Faults(0.03, 0.02, 0.02, 0.03, 0.05, 0.02)},
        {"max_lead": None, "cohort": 2, "span": 2, "ready": 2, "diverges": 5, "intervals": 24},
    ],
)
def test_no_invariant_is_violated_where_sameness_is_not_promised(known: dict[str, Any]) -> None:
    simulation = Simulation(0, workers=5, strategy=IPBT(patience=1), **{"intervals": 12, **known})
    assert not simulation.run()
    records = simulation.view.records.values()
    assert any(record.mixed for record in records)
    assert not any("strategy_failed" in (record.notes or {}) for record in records)
