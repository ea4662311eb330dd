"""The fold: what a journal means."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journals_by_hand import Story, claimed, created, hypers_of, reported, snapshot
from phyla.errors import JournalError
from phyla.events import (
    RUN,
    Born,
    Event,
    Extended,
    Failed,
    Recorded,
    Ref,
    Stopped,
    as_float,
    as_json_number,
    decode,
    encode,
)
from phyla.view import UNBOUNDED, View, fold

quick = settings(derandomize=True, deadline=None, max_examples=60, database=None)
NAN = float("nan")


# Streams ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (claimed(seq=3), "out of order"),
        (claimed(seq=1), "out of order"),
        (claimed(member=3), "out of order"),
        (claimed(member=RUN), "out of order"),
        (claimed(member=2**70, seq=2**70), "out of order"),
        (reported(seq=2), "there is no open claim to end"),
        (Failed(member=0, seq=2, interval=1, why="lost"), "there is no open claim to end"),
        (Born(member=0, seq=2, hypers={}), "begins with Born, once"),
        (created(), "out of order"),
        (Extended(member=RUN, seq=3, intervals=9), "out of order"),
        (Extended(member=0, seq=2, intervals=9), "out of order"),
        (Stopped(member=RUN, seq=1, why="x"), "out of order"),
    ],
)
def test_an_event_that_cannot_stand_at_its_place_is_refused_and_changes_nothing(event: Event, why: str) -> None:
    story = Story(size=3)
    before = snapshot(story.view)
    with pytest.raises(JournalError, match=why):
        story.add(event)
    assert snapshot(story.view) == before


def test_a_second_claim_while_one_is_open_is_refused_and_changes_nothing() -> None:
    story = Story()
    story.claim(0)
    before = snapshot(story.view)
    with pytest.raises(JournalError, match="claimed while another claim is open"):
        story.add(claimed(seq=3))
    assert snapshot(story.view) == before


@pytest.mark.parametrize("why", ["lost", "given_back", "raised", "checkpoint"])
def test_a_report_after_its_claim_has_ended_is_refused(why: Any) -> None:
    story = Story()
    story.claim(0)
    story.fail(0, why)
    with pytest.raises(JournalError, match="no open claim to end"):
        story.add(reported(seq=4))


@pytest.mark.parametrize(
    "event", [Born(member=0, seq=1, hypers={}), claimed(seq=1), Extended(member=RUN, seq=1, intervals=3)]
)
def test_nothing_stands_before_created(event: Event) -> None:
    with pytest.raises(JournalError, match="out of order"):
        View().fold(Recorded(1, event))


def test_a_member_is_not_claimed_before_it_is_born() -> None:
    view = fold([Recorded(1, created())])
    with pytest.raises(JournalError, match="begins with Born"):
        view.fold(Recorded(2, claimed(seq=1)))


@pytest.mark.parametrize("position", [0, 1, 5, 7, -1])
def test_a_gap_or_a_repetition_of_positions_is_refused(position: int) -> None:
    view = Story(size=4).view  # has read up to 5
    with pytest.raises(JournalError, match="events are missing"):
        view.fold(Recorded(position, claimed()))


def test_streams_do_not_disturb_each_other() -> None:
    one, other = Story(), Story()
    for m in (0, 1, 2):
        one.train(m, float(m))
    for m in (2, 0, 1):
        other.claim(m)
    for m in (1, 2, 0):
        other.report(m, float(m))
    assert one.view.done.tolist() == other.view.done.tolist() == [1, 1, 1]
    assert [r.score for r in one.view.peers(0)] == [r.score for r in other.view.peers(0)]
    assert one.view.best is not None
    assert other.view.best is not None
    assert one.view.best.id == other.view.best.id == 2


# Claimable ----------------------------------------------------------------------------------------------------------


def test_the_free_members_that_are_furthest_behind_are_claimable_in_order_of_id() -> None:
    story = Story(size=4)
    assert story.view.claimable() == [0, 1, 2, 3]
    story.train(1)
    assert story.view.claimable() == [0, 2, 3]
    story.claim(0)
    assert story.view.claimable() == [2, 3]
    story.train(2)
    story.train(3)
    assert story.view.claimable() == [1, 2, 3]  # member 0 is busy: without a lead, nobody waits for it


@pytest.mark.parametrize(("max_lead", "reaches"), [(0, 1), (1, 2), (3, 4), (None, 6)])
def test_max_lead_bounds_how_far_members_get_ahead_of_the_slowest(max_lead: int | None, reaches: int) -> None:
    story = Story(size=3, max_lead=max_lead, keep=9)
    story.claim(0)  # and never reports
    turns = 0
    while turns < 12 and (free := story.view.claimable()):
        story.train(free[0])
        turns += 1
    assert story.view.done.tolist() == [0, reaches, reaches]
    story.report(0)
    assert 0 in story.view.claimable()  # the slowest may always go on


def test_the_barrier_of_max_lead_0_opens_when_the_last_member_reports() -> None:
    story = Story(size=3, max_lead=0)
    story.train(0)
    story.train(1)
    story.claim(2)
    assert list(story.view.claimable()) == []
    story.fail(2, "lost")
    assert story.view.claimable() == [2]
    story.train(2)
    assert story.view.claimable() == [0, 1, 2]


def test_finished_members_hold_nobody_back_and_are_not_claimed() -> None:
    story = Story(size=3, intervals=2, max_lead=0)
    for _ in range(2):
        story.generation(1, 2, 3)
    assert story.view.finished
    assert list(story.view.claimable()) == []
    story.extend(3)
    assert not story.view.finished
    assert story.view.claimable() == [0, 1, 2]
    story.train(0)
    assert story.view.claimable() == [1, 2]  # member 0 is finished; the others are the slowest


def test_a_stopped_run_is_finished_though_an_open_claim_may_still_report() -> None:
    story = Story()
    story.claim(0)
    story.stop("the target was reached")
    assert story.view.finished
    assert list(story.view.claimable()) == []
    assert story.report(0, 3.0).score == 3.0
    assert story.view.stopped == "the target was reached"


def test_a_run_without_a_budget_never_finishes_by_itself() -> None:
    story = Story(size=1, intervals=None)
    story.train(0)
    assert story.view.intervals == UNBOUNDED
    assert not story.view.finished
    assert story.view.claimable() == [0]


@quick
@given(st.integers(0, 2**32 - 1), st.sampled_from([None, 0, 1, 2]))
def test_whoever_follows_claimable_never_breaks_the_lead_nor_runs_out_of_work(seed: int, max_lead: int | None) -> None:
    rng = np.random.default_rng(seed)
    story = Story(size=int(rng.integers(1, 6)), intervals=4, max_lead=max_lead, retries=0)
    view, spread = story.view, 0
    for _ in range(300):
        free, busy = view.claimable(), np.flatnonzero(view.busy)
        if view.finished:
            break
        assert len(free) or len(busy), "nothing is claimable, and nobody trains"
        if len(free) and (not len(busy) or rng.random() < 0.5):
            story.claim(int(rng.choice(free)))
        elif rng.random() < 0.3:
            story.fail(int(rng.choice(busy)), rng.choice(["lost", "raised", "given_back"]))
        else:
            story.report(int(rng.choice(busy)))
        unfinished = view.done[view.done < view.intervals]
        spread = max(spread, int(view.done.max() - unfinished.min()) if len(unfinished) else 0)
    assert view.finished
    assert max_lead is None or spread <= max_lead + 1


# Peers --------------------------------------------------------------------------------------------------------------


def test_members_are_compared_at_equal_progress() -> None:
    story = Story(size=3, keep=9)
    story.history(0, 2)
    story.history(1, 5)
    story.history(2, 1)
    assert [(r.id, r.interval) for r in story.view.peers(0)] == [(0, 2), (1, 2), (2, 1)]
    assert [(r.id, r.interval) for r in story.view.peers(1)] == [(0, 2), (1, 5), (2, 1)]
    assert [(r.id, r.interval) for r in story.view.peers(2)] == [(0, 1), (1, 1), (2, 1)]


def test_a_peer_whose_fitting_report_is_gone_stands_with_the_oldest_that_it_keeps() -> None:
    story = Story(size=2, keep=2)
    story.history(0, 1)
    story.history(1, 5)
    assert story.kept(1) == [4, 5]
    assert [(r.id, r.interval) for r in story.view.peers(0)] == [(0, 1), (1, 4)]


def test_compare_latest_takes_what_each_member_has() -> None:
    story = Story(size=3, keep=9, compare="latest")
    story.history(0, 2)
    story.history(1, 5)
    assert [(r.id, r.interval) for r in story.view.peers(0)] == [(0, 2), (1, 5)]


def test_a_member_without_a_report_is_nobodys_peer_and_compares_itself_with_the_oldest_of_others() -> None:
    story = Story(size=3, keep=9)
    story.history(0, 3)
    assert [(r.id, r.interval) for r in story.view.peers(0)] == [(0, 3)]
    assert [(r.id, r.interval) for r in story.view.peers(2)] == [(0, 1)]


def test_open_claims_are_never_looked_at_as_peers() -> None:
    story = Story(size=2)
    story.generation(1, 2)
    before = [r.ref for r in story.view.peers(0)]
    story.claim(1)
    assert [r.ref for r in story.view.peers(0)] == before


def test_a_void_report_is_nobodys_peer() -> None:
    story = Story(size=2, keep=3, compare="latest")
    story.history(1, 3)
    story.train(0)
    assert [(r.id, r.interval) for r in story.view.peers(0)] == [(0, 1), (1, 3)]
    story.claim(0, source=story.newest(1))
    story.fail(0, "checkpoint", voids=story.newest(1))
    assert [(r.id, r.interval) for r in story.view.peers(0)] == [(0, 1), (1, 2)]


@pytest.mark.parametrize(("mode", "order"), [("max", [3, 4, 0, 1, 2]), ("min", [3, 4, 2, 0, 1])])
def test_ranking_is_worst_first_by_score_then_id_and_what_is_not_finite_is_worst_in_both_modes(
    mode: str, order: list[int]
) -> None:
    story = Story(size=6, mode=mode)
    story.generation(1.0, 1.0, 2.0, NAN, math.inf, None)
    assert [r.id for r in story.view.ranked(0)] == order


@pytest.mark.parametrize("score", [math.inf, -math.inf, NAN])
def test_no_infinity_is_ever_best(score: float) -> None:
    for mode in ("max", "min"):
        story = Story(size=2, mode=mode)
        story.generation(score, -1e308 if mode == "max" else 1e308)
        assert story.view.best is not None
        assert story.view.best.id == 1


# Voids --------------------------------------------------------------------------------------------------------------


def test_a_member_whose_newest_report_is_void_stands_at_the_one_before_and_repeats_the_interval() -> None:
    story = Story(size=1, keep=3)
    story.history(0, 3)
    lost = story.newest(0)
    story.claim(0)
    assert (
        story.fail(0, "checkpoint", voids=lost) == []
    )  # it stays among the newest `keep`, so that what left never returns
    view = story.view
    assert lost.void
    assert view.done[0] == 2
    assert view.best is view.history[0][-1]
    assert story.newest(0).interval == 2
    assert view.claimable() == [0]
    assert story.train(0, 9).interval == 3


def test_all_is_as_if_a_void_report_had_never_been() -> None:
    story = Story(size=1, keep=3, window=5, ready=2)
    story.claim(0)
    story.report(0, 1.0, samples=[1.0, 1.0])
    story.claim(0, ready=True)
    before = story.view
    stood = (before.done.tolist(), list(before.samples[0]), before.last_ready.tolist(), before.newest(0))
    lost = story.report(0, 2.0, samples=[2.0, 2.0])
    assert story.view.samples[0] == [1.0, 1.0, 2.0, 2.0]
    assert story.view.last_ready[0] == 1
    story.claim(0)
    story.fail(0, "checkpoint", voids=lost)
    after = story.view
    assert (after.done.tolist(), after.samples[0], after.last_ready.tolist(), after.newest(0)) == stood


def test_a_donor_that_is_void_by_another_members_restore_steps_back_in_its_own_stream() -> None:
    story = Story(size=2, keep=3)
    story.generation(1, 5)
    story.generation(1, 6)
    lost = story.newest(1)
    story.claim(0, source=lost)
    story.fail(0, "checkpoint", voids=lost)
    assert story.view.done.tolist() == [2, 1]
    assert story.view.claimable() == [1]


def test_a_report_may_be_void_only_once_and_only_if_it_exists() -> None:
    story = Story(size=2, keep=3)
    story.generation(1, 5)
    lost = story.newest(1)
    for m in (0, 1):
        story.claim(m, source=lost)
    for m in (0, 1):
        story.fail(m, "checkpoint", voids=lost)
    assert story.view.done.tolist() == [1, 0]
    story.claim(0)
    story.fail(0, "checkpoint", voids=Ref(1, 55))
    assert story.view.done.tolist() == [1, 0]


def test_a_void_best_gives_way_to_the_best_that_is_still_kept() -> None:
    story = Story(size=2, keep=2)
    story.generation(8, 1)
    story.generation(3, 2)
    story.generation(4, 9)
    story.generation(5, 3)
    best = story.view.best
    assert best is not None
    assert (best.id, best.interval) == (1, 3)
    assert story.kept(0) == [3, 4]  # the 8 was let go when the 9 came
    story.claim(0, source=best)
    story.fail(0, "checkpoint", voids=best)
    assert story.view.best is story.newest(0)
    assert story.view.best.score == 5


def test_a_repeat_of_a_decision_on_a_void_source_is_dropped_and_unpinned() -> None:
    story = Story(size=3, keep=1, mode="min")
    story.generation(9, 9, 5)
    source = story.newest(2)
    story.claim(0, source=source)
    story.claim(1, source=source)
    story.fail(0, "lost")
    story.train(2, 4)
    assert story.view.repeat[0] is not None
    freed = story.fail(1, "checkpoint", voids=source)
    assert story.view.repeat[0] is None
    assert freed == [source.checkpoint.file]
    assert story.kept(2) == [2]


@pytest.mark.parametrize("why", ["lost", "given_back"])
def test_a_lost_claim_whose_source_turned_void_meanwhile_is_decided_anew(why: Any) -> None:
    story = Story(size=3, keep=1, mode="min")
    story.generation(9, 9, 5)
    source = story.newest(2)
    story.claim(0, source=source)
    story.claim(1, source=source)
    story.fail(1, "checkpoint", voids=source)
    story.train(2, 4)
    assert not source.freed  # the open claim may hold its state in memory
    story.fail(0, why)
    assert story.view.repeat[0] is None
    assert source.freed


def test_a_member_that_lost_all_its_reports_begins_again() -> None:
    story = Story(size=1, keep=2)
    story.train(0, 1)
    story.claim(0)
    story.fail(0, "checkpoint", voids=story.newest(0))
    assert story.view.done[0] == 0
    assert story.view.best is None
    assert story.view.newest(0) is None
    assert story.view.restorable(0) is None


def test_a_member_whose_kept_reports_are_all_void_goes_on_from_the_newest_synced_one() -> None:
    story = Story(size=1, keep=1, mode="min")
    first = story.train(0, 5)
    story.claim(0)
    second = story.report(0, 6, synced=[first.ref])
    story.claim(0)
    story.fail(0, "checkpoint", voids=second)
    assert story.view.restorable(0) is first
    assert story.view.done[0] == 1


def test_steps_never_go_back_even_if_a_report_turns_void_while_its_successor_trains() -> None:
    story = Story(size=2, keep=3)
    for m in (0, 1):
        story.claim(m)
        story.report(m, 1.0, steps=10)
    lost = story.newest(1)
    story.claim(1)  # it holds the state in memory
    story.claim(0, source=lost)
    story.fail(0, "checkpoint", voids=lost)
    assert story.report(1, 2.0, steps=10).total_steps == 20


# Retries, losses, replacements --------------------------------------------------------------------------------------


@pytest.mark.parametrize("why", ["raised", "unreported", "crashed", "hung"])
@pytest.mark.parametrize("retries", [0, 1, 2])
def test_failures_consume_retries_then_the_member_is_to_be_replaced(why: Any, retries: int) -> None:
    story = Story(size=1, retries=retries)
    story.train(0)
    for attempt in range(retries):
        story.claim(0)
        story.fail(0, why)
        assert story.view.fails[0] == attempt + 1
        assert not story.view.forced[0]
        assert story.view.repeat[0] is None  # a retry is decided anew
    story.claim(0)
    story.fail(0, why)
    assert story.view.forced[0]
    assert story.view.fails[0] == 0
    assert story.view.replacements[0] == 1
    assert story.view.troubled == {0}
    story.train(0, source=None, replaced=True)
    assert not story.view.forced[0]
    assert story.view.replacements[0] == 1


def test_a_report_gives_the_retries_back() -> None:
    story = Story(size=1, retries=2)
    for _ in range(5):
        for _ in range(2):
            story.claim(0)
            story.fail(0, "raised")
        story.train(0)
    assert story.view.replacements[0] == 0


def test_preemption_never_counts() -> None:
    story = Story(size=1, retries=0, max_lost=1)
    for _ in range(20):
        claim = story.claim(0)
        story.fail(0, "given_back")
        assert story.view.repeat[0] is claim
    assert story.view.fails[0] == story.view.losses[0] == story.view.replacements[0] == 0
    assert not story.view.forced[0]


@pytest.mark.parametrize("max_lost", [1, 2, 3])
def test_max_lost_losses_count_as_one_crash_and_the_decision_is_not_repeated_then(max_lost: int) -> None:
    story = Story(size=1, retries=1, max_lost=max_lost)
    for crash in (1, 2):
        for loss in range(1, max_lost + 1):
            story.claim(0)
            story.fail(0, "lost")
            assert (story.view.repeat[0] is None) == (loss == max_lost)
        assert story.view.fails[0] == (1 if crash == 1 else 0)
        assert story.view.forced[0] == (crash == 2)
    assert story.view.replacements[0] == 1
    assert story.view.troubled == set()  # it may be the machine's fault: the run is not ended for it


def test_a_report_forgets_the_losses() -> None:
    story = Story(size=1, max_lost=2, retries=0)
    for _ in range(4):
        story.claim(0)
        story.fail(0, "lost")
        story.train(0)
    assert story.view.replacements[0] == 0


def test_a_diverged_report_counts_as_a_replacement_so_that_its_successor_draws_anew() -> None:
    story = Story(size=3)
    story.generation(NAN, math.inf, None)
    assert story.view.replacements.tolist() == [1, 1, 0]


@pytest.mark.parametrize("claim", [{"ready": True}, {"replaced": True}])
def test_the_ready_clock_starts_again_at_the_decision_not_at_the_report(claim: dict[str, bool]) -> None:
    story = Story(size=1)
    for _ in range(3):
        story.train(0)
    assert story.view.last_ready[0] == 0
    story.claim(0, span=2, **claim)
    assert story.view.last_ready[0] == 0  # what a claim decided counts when its report lands
    story.report(0)
    assert story.view.last_ready[0] == 3
    assert story.view.done[0] == 5


def test_what_a_failed_claim_decided_is_discarded() -> None:
    story = Story(size=2)
    story.generation(1, 2)
    before = {
        k: v for k, v in snapshot(story.view).items() if k not in ("position", "head", "troubled", "fails", "_steps")
    }
    story.claim(0, source=story.newest(1), hypers=hypers_of(5, story.view.space), ready=True, notes={"a": 1})
    story.fail(0, "raised")
    assert {k: v for k, v in snapshot(story.view).items() if k in before} == before


# Scores, samples, steps ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("score", [0.0, -1.5, 1e308, NAN, math.inf, -math.inf, None])
def test_every_score_survives_the_journal(score: float | None) -> None:
    found = as_float(decode(encode(reported(score=as_json_number(score)))).score)  # type: ignore[union-attr]
    assert found == score or (score is not None and math.isnan(score) and found is not None and math.isnan(found))


def test_a_member_without_a_score_counts_and_is_kept_but_is_not_ranked_nor_best() -> None:
    story = Story(size=2)
    story.generation(None, None)
    assert story.view.best is None
    assert story.view.ranked(0) == []
    assert [r.score for r in story.view.peers(0)] == [None, None]
    assert story.view.done.tolist() == [1, 1]


def test_the_window_holds_the_newest_samples() -> None:
    story = Story(size=1, window=3)
    for samples in ([1.0, 2.0], [3.0], None, [4.0, 5.0]):
        story.claim(0)
        story.report(0, 0.0, samples=samples)
    assert story.view.samples[0] == [3.0, 4.0, 5.0]


@pytest.mark.parametrize("source", ["donor", "fresh", "older"])
def test_a_copy_clears_the_window_since_its_samples_belong_to_weights_that_are_gone(source: str) -> None:
    story = Story(size=2, window=10, keep=5)
    for m in (0, 1, 0):
        story.claim(m)
        story.report(m, 0.0, samples=[float(m), 1.0])
    where = {"donor": story.newest(1), "fresh": None, "older": story.view.history[0][0]}[source]
    story.claim(0, source=where)
    assert story.view.samples[0] == [0.0, 1.0, 0.0, 1.0]
    story.report(0, 0.0, samples=[7.0])
    assert story.view.samples[0] == [7.0]
    story.claim(0)
    story.report(0, 0.0, samples=[8.0])
    assert story.view.samples[0] == [7.0, 8.0]


def test_a_copy_without_new_samples_leaves_an_empty_window() -> None:
    story = Story(size=2)
    for m in (0, 1):
        story.claim(m)
        story.report(m, 0.0, samples=[1.0])
    story.train(0, None, source=story.newest(1))
    assert story.view.samples[0] == []


def test_copying_hyperparameters_alone_keeps_the_window() -> None:
    story = Story(size=2)
    for m in (0, 1):
        story.claim(m)
        story.report(m, 0.0, samples=[1.0])
    story.claim(0, donor=story.newest(1).ref)
    story.report(0, 0.0, samples=[2.0])
    assert story.view.samples[0] == [1.0, 2.0]


def test_steps_add_up_along_the_member_whoever_it_copies() -> None:
    story = Story(size=2)
    for m, steps in ((0, 5), (1, 1000), (0, 7)):
        story.claim(m)
        story.report(m, steps=steps)
    story.claim(0, source=story.newest(1))
    assert story.report(0, steps=2.5).total_steps == 14.5
    story.claim(0, source=None)
    assert story.report(0, steps=0).total_steps == 14.5


def test_a_record_tells_what_its_claim_had_decided() -> None:
    story = Story(size=2)
    story.generation(1, 2)
    donor = story.newest(1)
    hypers = hypers_of(9, story.view.space)
    story.claim(0, source=donor, hypers=hypers, notes={"role": "b"}, worker="me", ready=True, replaced=True)
    record = story.report(0, 3.0, metrics={"loss": "nan"}, seconds=2.0, time=1.0)
    assert record.parent is donor
    assert (record.source, record.donor) == (donor.ref, donor.ref)
    assert (record.hypers, record.notes, record.metrics) == (hypers, {"role": "b"}, {"loss": "nan"})
    assert (record.worker, record.seconds, record.time) == ("me", 2.0, 1.0)
    assert (record.ready, record.replaced) == (True, True)
    assert record.ancestry() == [donor, record]
    assert story.view.records[record.ref] is record
