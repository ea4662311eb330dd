"""What every journal must do: the contract of phyla.journal.Journal, sentence by sentence."""

from __future__ import annotations

import json
import math
import multiprocessing
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from phyla.errors import Conflict, PhylaError
from phyla.events import (
    RUN,
    Born,
    Checkpoint,
    Claimed,
    Created,
    Event,
    Extended,
    Failed,
    Origin,
    Recorded,
    Ref,
    Reported,
    Stopped,
    as_json_number,
    decode,
    encode,
)
from phyla.journal import Journal
from phyla.settings import Settings

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerContext, SpawnContext

Opener: TypeAlias = Callable[[], Journal]
UNICODE = 'ünï – 日本語 – 🦠 – e\u0301 – \u202e – "quoted" – \\ – \n\r\t\0 – \u2028'


class JournalConformance:
    """Subclass it as Test…, and override `opener`: every call opens one more handle on the same, at first empty journal.

    processes: the opener can be pickled and works in other processes, too.
    """

    processes = True

    @pytest.fixture
    def opener(self) -> Opener:
        raise NotImplementedError("override the fixture `opener`: a function that opens the journal under test")

    @pytest.fixture
    def another(self, opener: Opener) -> Iterator[Opener]:
        """Opens one more handle, which is closed at the end."""
        handles: list[Journal] = []

        def open_another() -> Journal:
            handles.append(opener())
            return handles[-1]

        yield open_another
        for handle in handles:
            handle.close()

    @pytest.fixture
    def journal(self, another: Opener) -> Journal:
        return another()

    # --- append and read ----------------------------------------------------------------------------------------------

    def test_is_empty_at_first(self, journal: Journal) -> None:
        assert list(journal.read(0)) == []
        assert dict(journal.beats()) == {}

    def test_positions_count_from_one_without_gaps(self, journal: Journal) -> None:
        assert journal.append(born(0)) == 1
        assert journal.append(born(1), born(2), born(3)) == 4
        assert journal.append(claimed(2, 2)) == 5
        assert [recorded.position for recorded in journal.read(0)] == [1, 2, 3, 4, 5]

    def test_events_keep_their_order(self, journal: Journal) -> None:
        events = [born(member) for member in (3, 0, 2, 1)]
        journal.append(*events)
        assert [recorded.event for recorded in journal.read(0)] == events

    @pytest.mark.parametrize("after", [0, 1, 2, 3, 4, 5, 100])
    def test_read_begins_after_a_position(self, journal: Journal, after: int) -> None:
        events = [born(member) for member in range(5)]
        journal.append(*events[:2])
        journal.append(*events[2:])
        assert list(journal.read(after)) == [Recorded(n, event) for n, event in enumerate(events, 1)][after:]

    def test_every_kind_of_event_comes_back_as_it_was(self, journal: Journal, another: Opener) -> None:
        events = one_of_each()
        journal.append(*events)
        for handle in (journal, another()):
            assert [recorded.event for recorded in handle.read(0)] == events

    def test_text_of_any_language_comes_back(self, journal: Journal, another: Opener) -> None:
        event = Failed(member=0, seq=1, interval=1, why="raised", error=UNICODE, worker=UNICODE)
        journal.append(event)
        assert another().read(0)[0].event == event

    def test_an_event_of_a_megabyte(self, journal: Journal, another: Opener) -> None:
        event = reported(0, 1, metrics={"curve": [n / 7 for n in range(50_000)], "text": UNICODE * 1000})
        assert len(encode(event)) > 900_000
        journal.append(event)
        assert another().read(0)[0].event == event

    def test_many_events_in_one_append(self, journal: Journal, another: Opener) -> None:
        events = [born(member) for member in range(1000)]
        assert journal.append(*events) == 1000
        assert [recorded.event for recorded in another().read(0)] == events

    def test_large_members_and_seqs(self, journal: Journal) -> None:
        events: list[Event] = [claimed(2**31, 2**40), Stopped(member=RUN, seq=2**31, why="enough")]
        journal.append(*events)
        assert [recorded.event for recorded in journal.read(0)] == events

    def test_events_stay_valid_json(self, journal: Journal) -> None:
        scores = [as_json_number(score) for score in (math.nan, math.inf, -math.inf, 1e308, 5e-324, None)]
        journal.append(
            *(reported(member, 1, score=score, metrics={"x": math.nan}) for member, score in enumerate(scores))
        )
        kept = [recorded.event for recorded in journal.read(0)]
        assert [event.score for event in kept if isinstance(event, Reported)] == scores
        for event in kept:
            json.loads(encode(event), parse_constant=pytest.fail)  # called for NaN and Infinity

    def test_what_is_read_is_the_readers_own(self, journal: Journal) -> None:
        journal.append(born(0))
        first = list(journal.read(0))
        journal.append(born(1))
        assert len(first) == 1
        assert list(journal.read(0))[:1] == first

    # --- all or none --------------------------------------------------------------------------------------------------

    def test_a_place_is_taken_once(self, journal: Journal, another: Opener) -> None:
        event = born(0)
        journal.append(event)
        for handle in (journal, another()):
            with pytest.raises(Conflict) as caught:
                handle.append(born(0))
            assert caught.value.taken == ((0, 1),)
        assert list(journal.read(0)) == [Recorded(1, event)]

    @pytest.mark.parametrize("taken", [{0}, {2}, {4}, {0, 1}, {1, 3}, {0, 2, 4}, {0, 1, 2, 3, 4}])
    def test_a_conflict_names_exactly_what_is_taken_and_adds_nothing(self, journal: Journal, taken: set[int]) -> None:
        before = [born(member) for member in sorted(taken)]
        journal.append(*before)
        with pytest.raises(Conflict) as caught:
            journal.append(*(born(member) for member in range(5)))
        assert sorted(caught.value.taken) == [(member, 1) for member in sorted(taken)]
        assert [recorded.event for recorded in journal.read(0)] == before
        assert journal.append(born(7)) == len(before) + 1

    def test_the_same_seq_of_another_member_is_another_place(self, journal: Journal) -> None:
        journal.append(claimed(0, 1))
        journal.append(claimed(1, 1), claimed(0, 2), claimed(RUN, 1))
        assert len(journal.read(0)) == 4

    @pytest.mark.parametrize("count", [1, 4])
    def test_repeating_my_own_append_has_succeeded(self, journal: Journal, another: Opener, count: int) -> None:
        journal.append(born(100))
        events = [born(member) for member in range(count)]
        position = journal.append(*events)
        journal.append(born(101), born(102))
        for handle in (journal, another()):  # the answer was lost; the writer asks again
            assert handle.append(*events) == position
        assert len(journal.read(0)) == count + 3

    def test_an_append_that_is_partly_there_is_a_conflict(self, journal: Journal) -> None:
        mine, others = born(0), born(1)
        journal.append(mine)
        journal.append(others)
        with pytest.raises(Conflict) as caught:
            journal.append(mine, born(1), born(2))
        assert caught.value.taken == ((1, 1),)  # mine is no other writer's
        with pytest.raises(Conflict):
            journal.append(mine, born(2))
        assert len(journal.read(0)) == 2

    def test_an_append_without_events_or_with_two_at_one_place_is_refused(self, journal: Journal) -> None:
        with pytest.raises(PhylaError):
            journal.append()
        with pytest.raises(PhylaError):
            journal.append(born(0), born(1), born(0))
        assert list(journal.read(0)) == []
        assert journal.append(born(0)) == 1

    def test_an_event_that_nobody_could_read_back_is_refused(self, journal: Journal) -> None:
        with pytest.raises(PhylaError):
            journal.append(born(0), Born(member=1, seq=1, hypers="no dict"))  # type: ignore[arg-type]
        assert list(journal.read(0)) == []

    # --- several handles ----------------------------------------------------------------------------------------------

    def test_an_append_is_visible_to_all_when_it_returns(self, journal: Journal, another: Opener) -> None:
        handles = [journal, another(), another()]
        for n in range(1, 13):
            assert handles[n % 3].append(born(n)) == n
            for handle in handles:
                assert [recorded.position for recorded in handle.read(n - 1)] == [n]

    def test_what_was_appended_is_there_when_it_is_opened_again(self, opener: Opener) -> None:
        events = one_of_each()
        with closing(opener()) as journal:
            journal.append(*events)
            journal.beat("worker")
        with closing(opener()) as journal:
            assert [recorded.event for recorded in journal.read(0)] == events
            assert journal.append(born(77)) == len(events) + 1
            assert "worker" in journal.beats()

    def test_closing_one_handle_leaves_the_others(self, journal: Journal, another: Opener) -> None:
        other = another()
        journal.append(born(0))
        journal.close()
        journal.close()
        assert other.append(born(1)) == 2
        assert len(other.read(0)) == 2

    # --- wait ---------------------------------------------------------------------------------------------------------

    def test_wait_ends_at_once_where_there_is_something(self, journal: Journal) -> None:
        journal.append(born(0), born(1))
        start = time.monotonic()
        assert journal.wait(0, 30)
        assert journal.wait(1, 30)
        assert time.monotonic() - start < 5

    @pytest.mark.parametrize("after", [1, 5])
    def test_wait_ends_with_the_timeout(self, journal: Journal, after: int) -> None:
        journal.append(born(0))
        start = time.monotonic()
        assert not journal.wait(after, 0.1)
        assert 0.09 < time.monotonic() - start < 5
        assert not journal.wait(after, 0)

    def test_wait_ends_with_an_append_through_another_handle(self, journal: Journal, another: Opener) -> None:
        other = another()
        journal.append(born(0))
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(journal.wait, 1, 30)
            time.sleep(0.05)
            assert not waiting.done()
            other.append(born(1))
            assert waiting.result(timeout=5)

    # --- beats and sync -----------------------------------------------------------------------------------------------

    def test_every_beat_moves_the_workers_counter(self, journal: Journal, another: Opener) -> None:
        names = ["host-1:42/a", "…/../x", UNICODE.replace("\0", ""), "."]
        other = another()
        for name in names:
            journal.beat(name)
        seen = dict(other.beats())
        assert set(seen) == set(names)
        for handle in (journal, journal, other, another()):
            handle.beat(names[0])
            now = dict(other.beats())
            assert now[names[0]] != seen[names[0]]
            assert {name: now[name] for name in names[1:]} == {name: seen[name] for name in names[1:]}
            seen = now

    def test_beats_are_no_events(self, journal: Journal) -> None:
        journal.beat("worker")
        assert list(journal.read(0)) == []
        assert not journal.wait(0, 0.01)
        assert journal.append(born(0)) == 1

    def test_beat_and_sync_from_another_thread(self, journal: Journal) -> None:
        ended = threading.Event()

        def background() -> int:
            beats = 0
            while not ended.is_set():
                journal.beat("worker")
                journal.sync()
                beats += 1
            return beats

        with ThreadPoolExecutor(1) as pool:
            beating = pool.submit(background)
            try:
                for n in range(1, 201):
                    assert journal.append(born(n)) == n
                    assert journal.read(n - 1)[0].position == n
            finally:
                ended.set()
            assert beating.result() > 0

    def test_sync_changes_nothing_that_is_read(self, journal: Journal) -> None:
        journal.sync()
        journal.append(*one_of_each())
        before = list(journal.read(0))
        journal.sync()
        assert list(journal.read(0)) == before

    # --- races --------------------------------------------------------------------------------------------------------

    def test_threads_with_a_handle_each_race_for_the_same_places(self, another: Opener) -> None:
        handles = [another() for _ in range(8)]
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(race, handles, range(8)))
        check_race(another(), results)

    def test_threads_that_share_a_handle_race_for_the_same_places(self, journal: Journal, another: Opener) -> None:
        with ThreadPoolExecutor(8) as pool:
            results = list(pool.map(race, [journal] * 8, range(8)))
        check_race(another(), results)

    def test_processes_race_for_the_same_places(self, opener: Opener, another: Opener) -> None:
        if not self.processes:
            pytest.skip("this journal lives in one process")
        context = processes()
        barrier, results = context.Barrier(4), context.Queue()
        racers = [context.Process(target=race_in_process, args=(opener, n, barrier, results)) for n in range(4)]
        for racer in racers:
            racer.start()
        won = [results.get(timeout=60) for _ in racers]
        for racer in racers:
            racer.join(timeout=60)
            assert racer.exitcode == 0
        check_race(another(), won)


# --- events for tests -------------------------------------------------------------------------------------------------


def born(member: int, seq: int = 1) -> Born:
    return Born(member=member, seq=seq, hypers={"lr": 1e-3, "units": 32, "name": "a", "on": True, "none": None})


def claimed(member: int, seq: int) -> Claimed:
    return Claimed(member=member, seq=seq, interval=1, worker="worker", saw=0, hypers={"lr": 1e-3})


def reported(member: int, seq: int, **fields: Any) -> Reported:
    checkpoint = Checkpoint(file=f"m{member}-{seq}.safetensors", digest="0" * 32, size=1)
    return Reported(member=member, seq=seq, interval=1, checkpoint=checkpoint, **fields)


def one_of_each() -> list[Event]:
    """Events of all kinds, with every field set in one or the other."""
    checkpoint = Checkpoint(file="m0-2.safetensors", digest="f" * 32, size=2**40, row=3)
    settings = Settings(
        seed=7, space={"lr": {"kind": "float", "bounds": [0.1, 1.0]}}, size=2, intervals=None, target=0.5
    )
    origin = Origin(run="runs/old", uid="a" * 32, member=5, seq=9, checkpoint=checkpoint)
    return [
        Created(member=RUN, seq=1, time=1.5, run="digits", version="0.1", settings=settings),
        Born(member=0, seq=1, hypers={"lr": 0.1, "act": "relu", "on": False, "n": -3, "none": None}, origin=origin),
        Claimed(
            member=0,
            seq=2,
            interval=4,
            span=2,
            worker="host-1-abc",
            saw=17,
            hypers={"lr": 0.125},
            source=Ref(0, 1),
            donor=Ref(3, 4),
            ready=True,
            replaced=True,
            notes={"sigma": [0.1, {"deep": None}]},
            cohort=0,
            script="e" * 32,
        ),
        Reported(
            member=0,
            seq=3,
            interval=5,
            span=2,
            score="-inf",
            samples=[0.5, -1e300],
            metrics={"loss": 0.25, "tags": ["a", "b"]},
            steps=2.5,
            seconds=0.125,
            checkpoint=checkpoint,
            synced=[Ref(0, 1), Ref(4, 2)],
        ),
        Failed(member=0, seq=4, interval=6, why="checkpoint", voids=Ref(0, 3), error="ValueError: no", worker="w2"),
        Extended(member=RUN, seq=2, intervals=100),
        Stopped(member=RUN, seq=3, why="target reached"),
    ]


# --- other processes --------------------------------------------------------------------------------------------------


def processes() -> ForkServerContext | SpawnContext:
    """How tests start processes: from a small server where there is one, since each spawned one imports for a second."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


# --- the race ---------------------------------------------------------------------------------------------------------

MEMBERS, SEQS = 4, 25


def race(journal: Journal, seed: int) -> list[str]:
    """Appends to random members at what seems their next place until all are full; returns the uids of what it won."""
    rng = random.Random(seed)
    position, heads = 0, [0] * MEMBERS
    won: list[str] = []
    while True:
        for recorded in journal.read(position):
            position += 1
            assert recorded.position == position
            assert recorded.event.seq == heads[recorded.event.member] + 1  # no event is seen before the one it follows
            heads[recorded.event.member] += 1
        free = [member for member in range(MEMBERS) if heads[member] < SEQS]
        if not free:
            return won
        members = rng.sample(free, k=min(len(free), rng.choice([1, 1, 2])))
        events = [born(member, heads[member] + 1) for member in members]
        try:
            journal.append(*events)
        except Conflict as conflict:
            taken = set(conflict.taken)
        else:
            won += [event.uid for event in events]
            continue
        assert taken
        assert taken <= {(event.member, event.seq) for event in events}


def race_in_process(opener: Opener, seed: int, barrier: Any, results: Any) -> None:
    with closing(opener()) as journal:
        barrier.wait(60)
        results.put(race(journal, seed))


def check_race(journal: Journal, results: Sequence[list[str]]) -> None:
    """Every place is taken once, at dense positions; each winner's events are there, and nobody else's."""
    kept = journal.read(0)
    assert [recorded.position for recorded in kept] == list(range(1, MEMBERS * SEQS + 1))
    places = [(recorded.event.member, recorded.event.seq) for recorded in kept]
    assert sorted(places) == [(member, seq) for member in range(MEMBERS) for seq in range(1, SEQS + 1)]
    assert sorted(recorded.event.uid for recorded in kept) == sorted(uid for won in results for uid in won)
    assert [recorded.event for recorded in kept] == [decode(encode(recorded.event)) for recorded in kept]
