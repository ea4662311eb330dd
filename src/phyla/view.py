"""What the journal means: a fold of its events into arrays over members.

The fold is a pure function of the events and their order, and incremental: `View.fold` takes the next one, in constant time,
and says which files nobody needs from there on. Every worker that has read as far as another sees the same view.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from phyla.errors import JournalError
from phyla.events import (
    RUN,
    Born,
    Claimed,
    Created,
    Event,
    Extended,
    Failed,
    Paused,
    Recorded,
    Ref,
    Reported,
    Resized,
    Resumed,
    RunEvent,
    SpaceChanged,
    Stopped,
    as_float,
)
from phyla.record import Record, find_peak
from phyla.settings import Settings
from phyla.space import Space, space_from

UNBOUNDED = 2**62
"""The intervals of a run that only its target ends."""

_ARRAYS = ("head", "done", "since", "until", "busy", "last_ready", "fails", "losses", "replacements", "forced")
"""What View holds as an array over members."""

CONSUMES_RETRIES = ("raised", "unreported", "crashed", "hung")


Retain: TypeAlias = "Callable[[View], Collection[Ref]]"


class _Standing(NamedTuple):
    """How the population stands for a member that has done so many intervals."""

    peers: list[Record]
    ranked: list[Record]


class View:
    """The state of a run after a number of events. Arrays are indexed by member id, [size]. Read it; only `fold` writes.

    retain: what a strategy may still ask for, beside what is always kept; must be a pure function of the view.
    """

    def __init__(self, retain: Retain | None = None):
        self.position = 0  # of the last event folded
        self.run_head = 0  # the last seq in stream RUN
        self.created: Created | None = None
        self.intervals = 0
        self.stopped: str | None = None
        self.paused = False
        self._resized = False
        self.best: Record | None = None  # the best report ever whose checkpoint is kept
        self.records: dict[Ref, Record] = {}  # every report, by its place
        self.troubled: set[int] = set()  # members whose body has failed by its own fault
        self.retain_error: str | None = None  # what `retain` raised last
        self._retain = retain
        self._retained: frozenset[Ref] = frozenset()
        self._pins: dict[Ref, int] = {}
        self._files: dict[str, int] = {}  # how many reports need each file
        self._standings: dict[int, _Standing] = {}  # by intervals done; found anew after each event

    def _begin(self, created: Created) -> None:
        self.created = created
        self.settings: Settings = created.settings
        self.size = 0  # members that train
        self.intervals = UNBOUNDED if created.settings.intervals is None else created.settings.intervals
        self.sign = 1.0 if created.settings.mode == "max" else -1.0
        self.spaces: list[tuple[int, Space]] = [(1, space_from(created.settings.space))]  # from which interval on
        self.head = np.zeros(0, np.int64)  # the last seq in the member's stream
        self.done = np.zeros(0, np.int64)  # the newest interval that is reported and not void
        self.since = np.zeros(0, np.int64)  # intervals done when it entered
        self.until = np.zeros(0, np.int64)  # the first interval that it is no longer part of
        self.busy = np.zeros(0, np.bool_)  # has an open claim
        self.last_ready = np.zeros(0, np.int64)  # intervals done when it was last ready
        self.fails = np.zeros(0, np.int64)  # that consumed retries of the interval it stands at
        self.losses = np.zeros(0, np.int64)  # since its last report
        self.replacements = np.zeros(0, np.int64)  # of its state, for whatever reason but an exploit; keys randomness
        self.forced = np.zeros(0, np.bool_)  # out of retries, or entered late: to be replaced
        self.born: list[Born | None] = []
        self.open: list[Claimed | None] = []
        self.late: list[bool] = []  # the open claim's source had been released before the claim was in
        self.repeat: list[Claimed | None] = []  # a decision that a loss or a give-back ended
        self.history: list[list[Record]] = []  # reports that are not void, oldest first
        self.samples: list[list[float]] = []  # since its weights last changed hands
        self._kept: list[deque[Record]] = []  # the newest `keep` that are saved, void or not, and what is not saved yet
        self._synced: list[Record | None] = []
        self._steps: list[int | float] = []  # trained before its newest claim
        self._enter(created.settings.size, first=1)

    def _enter(self, n: int, first: int) -> None:
        """Makes room for n more members that train from interval `first` on."""
        for name in _ARRAYS:
            array = getattr(self, name)
            setattr(self, name, np.concatenate([array, np.zeros(n, array.dtype)]))
        new = slice(len(self.head) - n, None)
        self.done[new] = self.since[new] = self.last_ready[new] = first - 1
        self.until[new] = UNBOUNDED + 1
        self.forced[new] = first > 1
        for _ in range(n):
            self.born.append(None)
            self.open.append(None)
            self.late.append(False)
            self.repeat.append(None)
            self.history.append([])
            self.samples.append([])
            self._kept.append(deque())
            self._synced.append(None)
            self._steps.append(0)
        self.size += n

    # What a reader asks ---------------------------------------------------------------------------------------------

    def newest(self, member: int) -> Record | None:
        """The report at which a member stands; None before its first."""
        history = self.history[member]
        return history[-1] if history else None

    @property
    def space(self) -> Space:
        """The newest space; `space_of` gives the one that a decision is made in."""
        return self.spaces[-1][1]

    def space_of(self, member: int) -> Space:
        """The space that governs a member's next interval."""
        return next(space for first, space in reversed(self.spaces) if first <= max(1, self.done[member] + 1))

    @property
    def finished(self) -> bool:
        """Nothing is left to claim, and nothing that is claimed counts any more."""
        return self.stopped is not None or not self.unfinished().any()

    def unfinished(self) -> np.ndarray:
        """Which members have something left to train, bool [ids]."""
        unfinished: np.ndarray = (self.done < self.intervals) & self.active
        return unfinished

    @property
    def active(self) -> np.ndarray:
        """Which members have not left, bool [ids]."""
        active: np.ndarray = self.until > UNBOUNDED
        return active

    def claimable(self) -> Sequence[int]:
        """The free members that are furthest behind, if `max_lead` lets them go on; in order of id."""
        if self.stopped is not None or self.paused:
            return ()
        unfinished = self.unfinished()
        free = unfinished & ~self.busy
        if not free.any():
            return ()
        low = self.done[free].min()
        lead = self.settings.max_lead
        if lead is not None and low > self.done[unfinished].min() + lead:
            return ()
        return [int(m) for m in np.flatnonzero(free & (self.done == low))]

    def peers(self, member: int) -> list[Record]:
        """What each member is compared by when this one decides, in order of id; members that have nothing are left out.

        That is its newest report with no more intervals than this member has done; if that is no longer kept, the oldest
        that is. With `compare="latest"` it is simply the newest. A member's own is its newest.
        """
        return list(self._standing(member).peers)

    def known(self, member: int) -> list[list[Record]]:
        """By id, each member's reports that this one may look at when it decides, oldest first; void ones are left out.

        Those are the reports of no more intervals than it has done itself (all, with `compare="latest"`), so that what it
        decides does not depend on how far the others happen to be. Most of their checkpoints are gone: see `available`.
        """
        if self.settings.compare == "latest":
            return [list(history) for history in self.history]
        done = int(self.done[member])
        return [history[: bisect_right(history, done, key=lambda record: record.interval)] for history in self.history]

    def value(self, record: Record) -> float:
        """The score as it ranks: higher is better under both modes, and what is not finite is worst."""
        score = record.score
        return self.sign * score if score is not None and math.isfinite(score) else -math.inf

    def ranked(self, member: int) -> list[Record]:
        """The peers that have a score, worst first. Order is (score, id), so ties have one winner."""
        return list(self._standing(member).ranked)

    def restorable(self, member: int) -> Record | None:
        """The own report that a member goes on from: where it stands, or what is left of it."""
        for record in reversed(self.history[member]):
            if not record.freed:
                return record
        return None

    @property
    def retained(self) -> Collection[Ref]:
        """What `retain` named last; while it is asked again, what it named for the report before."""
        return self._retained

    def needed(self, ref: Ref) -> bool:
        """Whether the checkpoint of this report must still exist."""
        record = self.records.get(ref)
        return record is not None and not record.freed

    def orphans(self, files: Iterable[tuple[str, int, int]]) -> list[str]:
        """Which of these (file, member, seq of its claim) nobody needs, and nobody is about to report."""
        return [
            file
            for file, member, seq in files
            if file not in self._files
            and 0 <= member < len(self.head)
            and (seq < self.head[member] or (seq == self.head[member] and not self.busy[member]))
        ]

    def _standing(self, member: int) -> _Standing:
        """Found once for all members that have done as many intervals, until the next event."""
        done = int(self.done[member])
        found = self._standings.get(done)
        if found is None:
            peers = self._peers(done)
            ranked = sorted((r for r in peers if r.score is not None), key=self.value)  # stable: ids ascend
            found = self._standings[done] = _Standing(peers, ranked)
        return found

    def _peers(self, done: int) -> list[Record]:
        limit = UNBOUNDED if self.settings.compare == "latest" else done
        found = []
        for other, kept in enumerate(self._kept):
            oldest = None
            if self._resized and (self.until[other] <= done + 1 or self.since[other] >= limit > 0):
                continue  # it is no longer part of what this one trains next, or was not yet of what it has trained
            for record in reversed(kept):
                if not record.void:
                    oldest = record
                    if record.interval <= limit:
                        break
            if oldest is not None:
                found.append(oldest)
        return found

    # The fold -------------------------------------------------------------------------------------------------------

    def fold(self, recorded: Recorded) -> list[str]:
        """Takes the next event, and returns the files that nobody needs from here on."""
        position, event = recorded
        if position != self.position + 1:
            raise JournalError(f"the journal goes from position {self.position} to {position}: events are missing")
        freed: list[str] = []
        self._standings.clear()
        match event:
            case Claimed():
                self._next(event, position, busy=False)
                self._claimed(event, freed)
            case Reported():
                self._next(event, position, busy=True)
                self._reported(event, position, freed)
            case Failed():
                self._next(event, position, busy=True)
                self._failed(event, freed)
            case Born():
                self._next(event, position, busy=False)
                self.born[event.member] = event
            case _:
                self._run_event(event, position, freed)
        self._standings.clear()  # `retain` may have asked amid the event
        self.position = position
        return freed

    def _run_event(self, event: RunEvent, position: int, freed: list[str]) -> None:
        first = isinstance(event, Created)
        if event.member != RUN or event.seq != self.run_head + 1 or first != (event.seq == 1):
            raise _out_of_order(event, position)
        self.run_head = event.seq
        match event:
            case Created():
                self._begin(event)
            case Extended():
                self.intervals = event.intervals
            case Resized():
                self._leave(event, position, freed)
                self._enter(event.size - self.size, event.first)
            case SpaceChanged():
                self.spaces.append((event.first, space_from(event.space)))
            case Paused():
                self.paused = True
            case Resumed():
                self.paused, self.stopped = False, None
            case Stopped():
                self.stopped = event.why

    def _leave(self, event: Resized, position: int, freed: list[str]) -> None:
        leaving = [m for m in set(event.retired) if 0 <= m < len(self.until) and self.until[m] > UNBOUNDED]
        if len(leaving) < len(event.retired) or event.size < self.size - len(leaving):
            raise JournalError(f"position {position}: {event.size} members, without {event.retired}, are not possible")
        self._resized = True
        self.size -= len(leaving)
        for m in leaving:
            self.until[m] = event.first
            if (repeat := self.repeat[m]) is not None:
                self.repeat[m] = None
                self._unpin(repeat.source, freed)

    def _next(self, event: Born | Claimed | Reported | Failed, position: int, busy: bool) -> None:
        """Takes the next place in a member's stream. Raises JournalError, and changes nothing, where the event cannot stand."""
        m, seq = event.member, event.seq
        if self.created is None or not 0 <= m < len(self.head) or self.head[m] != seq - 1:
            raise _out_of_order(event, position)
        if isinstance(event, Born) != (seq == 1):
            raise JournalError(f"position {position}: (member {m}, seq {seq}): a stream begins with Born, once")
        if busy is (self.open[m] is None):
            what = "there is no open claim to end" if busy else "claimed while another claim is open"
            raise JournalError(f"position {position}: (member {m}, seq {seq}): {what}")
        self.head[m] = seq

    def _claimed(self, claim: Claimed, freed: list[str]) -> None:
        m, before, stands = claim.member, self.repeat[claim.member], self.newest(claim.member)
        self._steps[m] = stands.total_steps if stands is not None else 0
        self.late[m] = claim.source is not None and not self.needed(claim.source)
        self.open[m], self.repeat[m], self.busy[m] = claim, None, True
        if not self.late[m]:
            self._pin(claim.source)
        if before is not None:
            self._unpin(before.source, freed)

    def _reported(self, event: Reported, position: int, freed: list[str]) -> None:
        m, late = event.member, self.late[event.member]
        claim, before = self._end_claim(m), self.newest(m)
        record = Record(
            id=m,
            seq=event.seq,
            interval=event.interval,
            span=event.span,
            score=as_float(event.score),
            hypers=claim.hypers,
            checkpoint=event.checkpoint,
            steps=event.steps,
            total_steps=event.steps + self._steps[m],
            source=claim.source,
            donor=claim.donor,
            parent=self.records.get(claim.source) if claim.source is not None else None,
            ready=claim.ready,
            replaced=claim.replaced,
            mixed=claim.mix is not None,
            samples=event.samples,
            metrics=event.metrics,
            notes=claim.notes,
            worker=claim.worker,
            uid=event.uid,
            position=position,
            time=event.time,
            seconds=event.seconds,
        )
        record.peak = find_peak(record, self.records, self.sign)
        self.records[event.ref] = record
        self.history[m].append(record)
        if saved := event.checkpoint.saved:
            self._files[event.checkpoint.file] = self._files.get(event.checkpoint.file, 0) + 1
        self.samples[m] = self._window(self.samples[m], before, record)
        if claim.ready or claim.replaced:
            self.last_ready[m] = claim.interval - 1
        self.done[m] = event.interval
        self.fails[m] = self.losses[m] = 0
        self.forced[m] = False
        self.replacements[m] += claim.renews
        if record.score is not None and not record.finite:
            self.replacements[m] += 1
        gone = self._keep(record)
        if saved and record.finite and (self.best is None or self._beats(record, self.best)):
            gone += [self.best] if self.best is not None else []
            self.best = record
        for ref in event.synced or ():
            gone += self._sync(Ref(*ref))
        if self._retain is not None:
            was, self._retained = self._retained, self._named(self._retain)
            gone += [self.records[ref] for ref in was - self._retained]
        if not late:
            self._unpin(claim.source, freed)
        for old in gone:
            self._release(old, freed)

    def _named(self, retain: Retain) -> frozenset[Ref]:
        """What `retain` names. One that fails ends no run: what it has named before is kept."""
        try:
            named = {ref: self.records[ref] for ref in retain(self) if ref in self.records}
            return frozenset(ref for ref, record in named.items() if record.checkpoint.saved)
        except Exception as error:
            self.retain_error = f"{type(error).__name__}: {error!s:.300}"
            return self._retained

    def _failed(self, event: Failed, freed: list[str]) -> None:
        m, late = event.member, self.late[event.member]
        claim = self._end_claim(m)
        again = event.why in ("lost", "given_back")
        if event.why in CONSUMES_RETRIES:
            self.fails[m] += 1
            self.troubled.add(m)
        elif event.why == "lost":
            self.losses[m] += 1
            if self.losses[m] >= self.settings.max_lost:  # this is no accident: it dies of what it does
                again = False
                self.losses[m] = 0
                self.fails[m] += 1
        if self.fails[m] > self.settings.retries:
            self.fails[m] = 0
            self.replacements[m] += 1
            self.forced[m] = True
        if event.voids is not None:
            self._void(Ref(*event.voids), freed)
        source = self.records.get(claim.source) if claim.source is not None else None
        again = again and self.until[m] > UNBOUNDED  # who has left does not come back
        if again and not late and not (source is not None and source.void):
            self.repeat[m] = claim  # it keeps the claim's pin
        elif not late:
            self._unpin(claim.source, freed)

    def _window(self, samples: list[float], before: Record | None, record: Record) -> list[float]:
        """The newest samples after this report. They are of these weights only: a copy clears them."""
        kept = samples if before is not None and record.source == before.ref and not record.mixed else []
        return (kept + record.samples)[-self.settings.window :] if record.samples else kept

    def _end_claim(self, member: int) -> Claimed:
        claim = self.open[member]
        assert claim is not None  # _next has seen to it
        self.open[member], self.busy[member], self.late[member] = None, False, False
        return claim

    def _void(self, ref: Ref, freed: list[str]) -> None:
        """A checkpoint was found to be no good: the member stands at its newest report that is."""
        record = self.records.get(ref)
        if record is None or record.void:
            return
        m, stood = record.id, self.newest(record.id)
        record.void = True
        self.history[m].remove(record)
        if record is stood:
            self._step_back(m)
        if self._synced[m] is record:
            self._synced[m] = None
        if self.best is record:
            usable = (r for history in self.history for r in history if r.available and r.finite)
            self.best = max(usable, key=self._order, default=None)
        for other, repeat in enumerate(self.repeat):
            if repeat is not None and repeat.source == ref:
                self.repeat[other] = None
                self._unpin(ref, freed)
        self._release(record, freed)

    def _step_back(self, m: int) -> None:
        """All is as if the newest report had never been, but for the steps and the draws that it has used up."""
        history = self.history[m]
        self.done[m] = history[-1].interval if history else self.since[m]
        self.last_ready[m] = max((r.interval - r.span for r in history if r.ready or r.replaced), default=self.since[m])
        self.samples[m] = []
        for before, record in zip([None, *history], history, strict=False):
            self.samples[m] = self._window(self.samples[m], before, record)

    # What is kept ---------------------------------------------------------------------------------------------------

    def _order(self, record: Record) -> tuple[float, int, int]:
        return self.value(record), -record.interval, record.id

    def _beats(self, record: Record, other: Record) -> bool:
        return self._order(record) > self._order(other)

    def _pin(self, ref: Ref | None) -> None:
        if ref is not None:
            self._pins[ref] = self._pins.get(ref, 0) + 1

    def _unpin(self, ref: Ref | None, freed: list[str]) -> None:
        if ref is None:
            return
        self._pins[ref] -= 1
        if not self._pins[ref]:
            del self._pins[ref]
            self._release(self.records[ref], freed)

    def _keep(self, record: Record) -> list[Record]:
        """Keeps a member's newest reports, and returns those that go. What is not saved is kept until the next that is."""
        kept = self._kept[record.id]
        unsaved = [old for old in kept if not old.checkpoint.saved] if record.checkpoint.saved else []
        for old in unsaved:
            kept.remove(old)
        kept.append(record)
        full = record.checkpoint.saved and len(kept) > self.settings.keep
        return [*unsaved, kept.popleft()] if full else unsaved

    def _sync(self, ref: Ref) -> list[Record]:
        """A checkpoint is durable now; the older one that stood in for it may go."""
        record = self.records.get(ref)
        if record is None or record.freed or record.void:
            return []
        older = self._synced[record.id]
        if older is not None and older.seq >= record.seq:
            return []
        self._synced[record.id] = record
        return [older] if older is not None else []

    def _release(self, record: Record, freed: list[str]) -> None:
        """Lets a report go, for ever, if no rule names it any longer."""
        if record.freed or record is self.best or record in self._kept[record.id]:
            return
        ref = record.ref
        if ref in self._pins or ref in self._retained:
            return
        record.available = False
        if self._synced[record.id] is record:
            return
        record.freed = True
        if not record.checkpoint.saved:
            return
        file = record.checkpoint.file
        self._files[file] -= 1
        if not self._files[file]:
            del self._files[file]
            freed.append(file)


def _out_of_order(event: Event, position: int) -> JournalError:
    return JournalError(
        f"position {position}: {event.kind} at (member {event.member}, seq {event.seq}) is out of order"
    )


def fold(events: Iterable[Recorded], view: View | None = None) -> View:
    """The view after these events; continues the given one."""
    view = view if view is not None else View()
    for recorded in events:
        view.fold(recorded)
    return view
