"""What is kept, and the fold as a whole: a pure function of the events, held against the rules of DESIGN.md §3."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journals_by_hand import Story, random_story, snapshot
from phyla.events import Checkpoint, Claimed, Created, Failed, Recorded, Ref, Reported, as_float, decode, encode
from phyla.testing.simulation import Faults, Simulation
from phyla.view import View, fold

quick = settings(derandomize=True, deadline=None, max_examples=60, database=None)


@pytest.mark.parametrize("keep", [1, 2, 3, 5])
def test_the_newest_keep_reports_of_each_member_are_kept(keep: int) -> None:
    story = Story(size=1, keep=keep, mode="min")
    for score in range(8, 0, -1):  # the newest is always the best, too
        story.train(0, float(score))
    assert story.kept(0) == list(range(9 - keep, 9))
    assert story.freed == [f"m0-{2 * i}.safetensors" for i in range(1, 9 - keep)]


def test_the_best_ever_is_kept_until_it_is_beaten_and_a_tie_does_not_beat_it() -> None:
    story = Story(size=1, keep=1)
    for score in (1, 5, 5, 2, 3):
        story.train(0, score)
    assert story.kept(0) == [2, 5]
    assert story.view.best is story.view.history[0][1]
    story.train(0, 6)
    assert story.kept(0) == [6]


def test_the_best_ever_does_not_count_for_decisions_unless_it_is_among_the_newest() -> None:
    story = Story(size=2, keep=2)
    story.generation(1, 99)
    for score in (3, 4, 5):
        story.train(1, score)
    assert story.kept(1) == [1, 3, 4]
    assert [(r.id, r.interval) for r in story.view.peers(0)] == [(0, 1), (1, 3)]


@pytest.mark.parametrize("ends", ["reported", "raised", "checkpoint"])
def test_the_source_of_an_open_claim_is_kept_until_the_claim_ends(ends: Any) -> None:
    story = Story(size=2, keep=1, mode="min")
    story.generation(9, 5)
    source = story.newest(1)
    story.claim(0, source=source)
    for score in (4, 3, 2):
        story.train(1, score)
    assert story.kept(1) == [1, 4]
    if ends == "reported":
        story.report(0, 8)
    else:
        story.fail(0, ends)
    assert story.kept(1) == [4]
    assert story.freed.count(source.checkpoint.file) == 1


@pytest.mark.parametrize("why", ["lost", "given_back"])
def test_a_decision_that_will_be_repeated_keeps_its_source_until_the_members_next_report(why: Any) -> None:
    story = Story(size=2, keep=1, mode="min")
    story.generation(9, 5)
    source = story.newest(1)
    story.claim(0, source=source)
    story.train(1, 4)
    story.fail(0, why)
    story.train(1, 3)
    assert story.kept(1) == [1, 3]
    story.claim(0, source=source)  # the same decision again
    story.train(1, 2)
    assert story.kept(1) == [1, 4]
    story.report(0, 8)
    assert story.kept(1) == [4]


def test_two_claims_of_one_source_pin_it_twice() -> None:
    story = Story(size=3, keep=1, mode="min")
    story.generation(9, 9, 5)
    source = story.newest(2)
    story.claim(0, source=source)
    story.claim(1, source=source)
    story.train(2, 4)
    story.report(0, 7)
    assert story.kept(2) == [1, 2]
    story.report(1, 7)
    assert story.kept(2) == [2]


def test_what_was_released_never_returns_though_a_pin_would_hold_it_now() -> None:
    story = Story(size=2, keep=1, mode="min")
    story.generation(9, 5)
    gone = story.newest(1)
    story.train(1, 4)
    assert gone.freed
    assert not gone.available
    story.claim(0, source=gone)
    assert story.view.late[0]
    assert gone.freed
    story.train(1, 3)
    story.fail(0, "checkpoint")
    assert gone.freed
    assert story.freed.count(gone.checkpoint.file) == 1


def test_a_claim_whose_source_was_released_before_it_is_void_on_arrival_and_not_repeated() -> None:
    story = Story(size=2, keep=1, mode="min", retries=0)
    story.generation(9, 5)
    gone = story.newest(1)
    story.train(1, 4)
    story.claim(0, source=gone)
    story.fail(0, "lost")
    assert story.view.repeat[0] is None
    story.claim(0, source=gone)
    story.fail(0, "checkpoint")
    assert story.view.fails[0] == 0  # no retry is consumed
    assert not story.view.forced[0]
    assert story.view.done[0] == 1


def test_a_claim_of_a_report_that_never_was_is_void_on_arrival() -> None:
    story = Story()
    story.claim(0, source=Ref(1, 2))
    assert story.view.late[0]
    story.fail(0, "checkpoint")
    story.claim(0, source=Ref(77, 2))
    assert story.view.late[0]


def test_a_claim_that_is_void_on_arrival_keeps_nothing() -> None:
    story = Story(size=2, keep=1, mode="min")
    story.claim(0, source=Ref(1, 3))  # not reported yet
    story.train(1, 3)
    story.train(1, 2)
    assert story.kept(1) == [2]
    story.fail(0, "checkpoint")
    assert story.kept(1) == [2]


def test_the_newest_synced_report_of_each_member_is_kept_but_no_decision_uses_it() -> None:
    story = Story(size=1, keep=1, mode="min")
    story.train(0, 9)
    first = story.newest(0)
    story.claim(0)
    story.report(0, 8, synced=[first.ref])
    story.train(0, 7)
    third = story.newest(0)
    assert story.kept(0) == [1, 3]
    assert story.available(0) == [3]
    story.claim(0)
    story.report(0, 6, synced=[third.ref])
    assert story.kept(0) == [3, 4]
    assert story.available(0) == [4]


def test_syncing_what_is_older_or_gone_or_unknown_changes_nothing() -> None:
    story = Story(size=1, keep=1, mode="min")
    first, second = story.train(0, 9), story.train(0, 8)
    story.claim(0)
    story.report(0, 7, synced=[second.ref, first.ref, Ref(0, 99), Ref(9, 9)])
    assert story.kept(0) == [2, 3]
    assert first.freed


def test_what_the_strategy_retains_is_kept_as_long_as_it_names_it() -> None:
    def first_of_each(view: View) -> list[Ref]:
        return [found[0].ref for found in view.history if found and len(found) < 4]

    story = Story(size=2, keep=1, mode="min", retain=first_of_each)
    for score in (9, 8, 7):
        story.train(0, score)
    assert story.kept(0) == story.available(0) == [1, 3]
    story.train(0, 6)
    assert story.kept(0) == [4]


def test_a_file_that_holds_the_states_of_a_cohort_is_freed_when_the_last_of_them_goes() -> None:
    story = Story(size=2, keep=1, mode="min")
    shared = [Checkpoint("m0-2.safetensors", "0" * 32, 2, row=row) for row in (0, 1)]
    for m in (0, 1):
        story.claim(m, cohort=0)
    for m in (0, 1):
        story.report(m, 5, checkpoint=shared[m])
    story.train(0, 4)
    assert story.freed == []
    story.train(1, 4)
    assert story.freed == ["m0-2.safetensors"]


def test_orphans_are_files_whose_claim_has_ended_and_that_no_report_needs() -> None:
    story = Story(size=2, keep=1, mode="min")
    story.train(0, 5)  # claim at seq 2
    story.claim(0)  # at seq 4
    story.fail(0)  # at 5: what the holder had saved is an orphan
    story.claim(0)  # at 6, open
    files = [(f"m0-{seq}.safetensors", 0, seq) for seq in (2, 4, 6, 8)]
    strange = [("m7-2.safetensors", 7, 2), ("m1-2.safetensors", 1, 2)]
    assert story.view.orphans(files + strange) == ["m0-4.safetensors"]


# The fold is a function of the events -------------------------------------------------------------------------------


def expected_retention(events: list[Recorded]) -> tuple[set[Ref], set[Ref]]:
    """(available, not freed), by the words of DESIGN.md §3 and nothing of view.py: slow, and plain.

    After every event, all that some rule names stays; what no rule names goes, for ever.
    """
    first = events[0].event
    assert isinstance(first, Created)
    run = first.settings
    order: list[Ref] = []  # every report
    score: dict[Ref, float | None] = {}
    interval: dict[Ref, int] = {}
    void, gone, freed = set[Ref](), set[Ref](), set[Ref]()
    claims: dict[int, tuple[Ref | None, bool]] = {}  # open: source, late
    repeats: dict[int, Ref | None] = {}
    losses: dict[int, int] = {}
    synced: dict[int, Ref] = {}

    def best() -> set[Ref]:
        usable = [r for r in order if r not in void | gone and score[r] is not None and math.isfinite(score[r] or 0)]
        sign = 1 if run.mode == "max" else -1
        return {max(usable, key=lambda r: (sign * (score[r] or 0), -interval[r], r.member))} if usable else set()

    for _, event in events:
        m = event.member
        if isinstance(event, Claimed):
            late = event.source is not None and (event.source not in order or event.source in freed)
            claims[m] = event.source, late
            repeats.pop(m, None)
        elif isinstance(event, Reported):
            claims.pop(m)
            order.append(event.ref)
            score[event.ref], interval[event.ref] = as_float(event.score), event.interval
            losses[m] = 0
            for ref in event.synced or ():
                known = ref in order and ref not in void | freed
                if known and (ref.member not in synced or synced[ref.member].seq < ref.seq):
                    synced[ref.member] = ref
        elif isinstance(event, Failed):
            source, late = claims.pop(m)
            again = event.why in ("lost", "given_back")
            if event.why == "lost":
                losses[m] = losses.get(m, 0) + 1
                if losses[m] == run.max_lost:
                    losses[m], again = 0, False
            if event.voids in order:
                void.add(event.voids)
                synced = {k: v for k, v in synced.items() if v != event.voids}
            if again and not late and source not in void:
                repeats[m] = source
        repeats = {k: v for k, v in repeats.items() if v not in void}
        newest = {r for k in range(run.size) for r in [ref for ref in order if ref.member == k][-run.keep :]}
        pins = {source for source, late in claims.values() if not late} | set(repeats.values())
        named = newest | pins | best()
        gone |= set(order) - named
        freed |= gone - set(synced.values())
    return set(order) - gone, set(order) - freed


@quick
@given(st.integers(0, 2**32 - 1))
def test_what_is_kept_is_what_the_rules_name_without_a_break(seed: int) -> None:
    story = random_story(np.random.default_rng(seed), 120)
    still_available, still_there = expected_retention(story.events)
    records = story.view.records
    assert {ref for ref, record in records.items() if record.available} == still_available
    assert {ref for ref, record in records.items() if not record.freed} == still_there
    assert sorted(story.freed) == sorted(records[ref].checkpoint.file for ref in records.keys() - still_there)


@quick
@given(st.integers(0, 2**32 - 1))
def test_in_every_legal_journal_the_views_parts_agree(seed: int) -> None:
    story = random_story(np.random.default_rng(seed), 120)
    view = story.view
    for m, found in enumerate(view.history):
        assert [r.interval for r in found] == sorted({r.interval for r in found}) or any(
            r.void for r in view.records.values()
        )
        assert view.done[m] == (found[-1].interval if found else 0)
        assert (view.open[m] is not None) == view.busy[m]
        assert not (view.open[m] and view.repeat[m])
        assert view.last_ready[m] <= view.done[m]
        assert len(view.samples[m]) <= view.settings.window
        assert not any(r.void for r in found)
        totals = [r.total_steps for r in view.records.values() if r.id == m]
        assert all(total >= 0 for total in totals)
        own = view.restorable(m)
        assert own is None or (own.id == m and not own.freed and not own.void)
    for m in range(view.size):
        peers = view.peers(m)
        assert [r.id for r in peers] == sorted({r.id for r in peers})
        assert all(r.available and not r.void and not r.freed for r in peers)
        values = [view.value(r) for r in view.ranked(m)]
        assert values == sorted(values)
    assert view.best is None or (view.best.finite and view.best.available and not view.best.void)
    for claim in (c for c in view.open if c is not None):
        if not view.late[claim.member] and claim.source is not None:
            assert view.needed(claim.source)


@quick
@given(st.integers(0, 2**32 - 1), st.data())
def test_a_fold_that_goes_on_equals_a_fold_from_scratch(seed: int, data: st.DataObject) -> None:
    story = random_story(np.random.default_rng(seed), 100)
    cut = data.draw(st.integers(0, len(story.events)))
    view = fold(story.events[:cut])
    prefix = snapshot(view) if cut else None
    assert snapshot(fold(story.events[cut:], view)) == snapshot(fold(story.events)) == snapshot(story.view)
    if cut:  # and the events that both views were folded from are as they were
        assert snapshot(fold(story.events[:cut])) == prefix


SIMULATED: dict[int, list[Recorded]] = {}


def simulated(seed: int) -> list[Recorded]:
    if seed not in SIMULATED:
        faults = Faults(crash=0.03, freeze=0.02, give_back=0.03, lost_answer=0.02, raises=0.05, tear=0.02)
        kinds: list[dict[str, Any]] = [
            {"max_lead": None},
            {"max_lead": 1, "keep": 3},
            {"cohort": 2, "span": 2, "ready": 2},
        ]
        simulation = Simulation(seed, workers=5, intervals=6, faults=faults, **kinds[seed % 3])
        simulation.run()
        SIMULATED[seed] = list(simulation.events)
    return SIMULATED[seed]


@quick
@given(st.integers(0, 8), st.data())
def test_whoever_has_read_as_far_sees_the_same_however_often_it_read(seed: int, data: st.DataObject) -> None:
    events = simulated(seed)
    cuts = sorted(data.draw(st.lists(st.integers(1, len(events)), min_size=1, max_size=5)))
    view, at = View(), 0
    for cut in cuts:
        view = fold(events[at:cut], view)
        at = cut
        assert snapshot(view) == snapshot(fold(Recorded(p, decode(encode(e))) for p, e in events[:cut]))


@quick
@given(st.integers(0, 8))
def test_retention_of_simulated_runs_is_what_the_rules_name(seed: int) -> None:
    events = simulated(seed)
    view = fold(events)
    still_available, still_there = expected_retention(events)
    assert {ref for ref, record in view.records.items() if record.available} == still_available
    assert {ref for ref, record in view.records.items() if not record.freed} == still_there
