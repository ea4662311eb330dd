"""The turn of a worker. There is no coordinator: whoever runs this loop on a run's journal is a worker of the run.

    claim    read what is new; choose among the free members that are furthest behind; decide; append Claimed
    restore  load the checkpoint that the decision names, unless this process already holds exactly that state
    train    the body of the user's loop (not here)
    publish  save the checkpoint; append Reported

Each step is a generator that yields the name of the point it has reached, or a Wait. `drive` runs it for real, and hits a
failpoint of that name; the simulation (testing/simulation.py) runs many at once and may end, delay or freeze any of them at
every yield. Journal, checkpoints and clock are parameters, so both run this very code.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar
from zlib import crc32

import msgspec

from phyla import failpoints
from phyla.checkpoints import Checkpoints, Rows, Tree, file_name, parse_file_name
from phyla.decide import Choice, claimed, followed
from phyla.errors import CheckpointError, Conflict, JournalError
from phyla.events import (
    RUN,
    UNSAVED,
    Checkpoint,
    Claimed,
    Event,
    Failed,
    FailedKind,
    Origin,
    Recorded,
    Ref,
    Reported,
    Stopped,
    as_json_number,
    failed,
)
from phyla.journal import Journal
from phyla.snapshot import Snapshots
from phyla.strategies.contract import Strategy
from phyla.view import View

T = TypeVar("T")

WATCH_SECONDS = 1.0
"""How often a worker looks whether the others live."""

SWEEP_SECONDS = 60.0
"""How often it looks for files that nobody needs and that a crash left behind."""


class Wait(NamedTuple):
    """A step that goes on when the journal has grown past `after`, or after `seconds`."""

    after: int
    seconds: float


Steps: TypeAlias = Generator[str | Wait, None, T]


class Clock(Protocol):
    def monotonic(self) -> float: ...
    def time(self) -> float: ...


class Held:
    """Stands for a state that this process holds in memory: nothing was loaded."""


HELD = Held()


@dataclass
class Claim:
    """What a worker holds while it trains: its open claims (one, or a cohort's), and the states to go on from."""

    events: tuple[Claimed, ...]
    trees: tuple[Tree | Held | None, ...]  # as saved; HELD; None: fresh
    attempts: tuple[int, ...]  # retries consumed before, and
    replacements: tuple[int, ...]  # replacements before: both enter a member's seeds
    started: float  # on the worker's clock

    @property
    def file(self) -> str:
        return file_name(self.events[0].member, self.events[0].seq)


class Outcome(NamedTuple):
    """What one member's training came to; the fields are those of Reported."""

    score: float | None
    samples: list[float] | None = None
    metrics: dict[str, Any] | None = None
    steps: int | float = 1


class Passed(NamedTuple):
    """An interval amid a span that one program has trained and decided: what its members came to, and what they did next."""

    outcomes: Sequence[Outcome]
    choices: Sequence[Choice]


@dataclass
class Worker:
    """One process's part in a run.

    id: one per incarnation. gone(id): whether that worker is known to be dead, for a reason better than silence.
    held(claim): whether this process holds the very state that this claim goes on from. prefers(member): equals are
    claimed in this order. origins(origin): a state of another run. lease: seconds of silence after which another worker
    counts as lost. cohort, span: members claimed together, and intervals a claim. stacked: states are the rows of stacked
    arrays, even where a cohort has come down to one member. snapshots: of the view, to begin
    with. over(): whether this worker is to claim no more.
    """

    id: str
    journal: Journal
    checkpoints: Checkpoints
    strategy: Strategy
    clock: Clock = time
    gone: Callable[[str], bool] = lambda worker: False
    held: Callable[[Claimed], bool] = lambda claim: False
    prefers: Callable[[int], float] = lambda member: 0
    origins: Callable[[Origin], Tree] = lambda origin: None
    lease: float = 30.0
    cohort: int = 1
    span: int = 1
    stacked: bool = False
    script: str | None = None
    snapshots: Snapshots | None = None
    over: Callable[[], bool] = lambda: False

    def __post_init__(self) -> None:
        retain = getattr(self.strategy, "retain", None)
        self.view = (self.snapshots and self.snapshots.load(self.journal, retain)) or View(retain)
        self.claim_held: Claim | None = None
        self._open: dict[int, Claimed] = {}  # my claims that the journal has open
        self._mine: set[str] = set()  # uids that I appended and have not folded yet
        self._garbage: list[str] = []
        self._unsynced: dict[int, tuple[Ref, str]] = {}  # my newest report of each member
        self._synced: list[Ref] = []
        self._best_synced: Ref | None = None
        self._heard: dict[str, tuple[int, float]] = {}  # beats, and the seconds that I have listened since they moved
        self._looked = self.clock.monotonic()
        self._shared = threading.Lock()  # with the thread that watches and syncs
        self._next_watch = self._next_sweep = 0.0

    # The turn -------------------------------------------------------------------------------------------------------

    def claim(self) -> Steps[Claim | None]:
        """The next claim, with what it goes on from; None when the run has nothing left to claim."""
        while True:
            self.read()
            yield "claim.read"
            self.give_back_strays()
            if self.view.finished or self.clock.monotonic() >= self._next_watch:
                self._take_over()
            if self.view.finished or self.over():
                return None
            members = self._choose()
            if not members:
                yield Wait(self.view.position, min(WATCH_SECONDS, self.lease / 4))
                continue
            events = tuple(self._decide(member, members) for member in members)
            yield "claim.decided"
            if not self._append(*events):
                continue  # somebody was first
            yield "claim.appended"
            claim = yield from self._restore(events)
            if claim is not None:
                self.claim_held = claim
                return claim

    def publish(
        self, claim: Claim, tree: Tree, outcomes: Sequence[Outcome], passed: Sequence[Passed] | None = None
    ) -> Steps[bool]:
        """Saves the state and reports; False if the claim was lost meanwhile, and the work is dropped.

        outcomes: of the whole span that was claimed. If `passed` is given, of one interval, after those; then each interval
        is reported by itself, in one append, and only the last is saved.
        """
        yield "publish.trained"
        seconds, now = (self.clock.monotonic() - claim.started) / (len(passed or ()) + 1), self.clock.time()
        between, last = self._between(claim, passed or (), seconds, now)
        saved = self.checkpoints.save(file_name(last[0].member, last[0].seq), tree)
        yield "publish.saved"
        synced, self._synced = self._synced, []
        rows = self.stacked or len(claim.events) > 1
        events = [
            msgspec.structs.replace(
                _report(event, outcome, seconds, now, event.span if passed is None else 1),
                checkpoint=Checkpoint(saved.file, saved.digest, saved.size, row) if rows else saved,
                synced=(synced or None) if row == 0 else None,
            )
            for row, (event, outcome) in enumerate(zip(last, outcomes, strict=True))
        ]
        published = self._append(*between, *events)
        self.claim_held = None
        yield "publish.appended"
        if not published:
            self._synced = synced + self._synced
        if published:
            with self._shared:
                self._unsynced.update({event.member: (event.ref, saved.file) for event in events})
            self._stop_at_target(itertools.chain(*(each.outcomes for each in passed or ()), outcomes))
        else:
            self._garbage.append(saved.file)
        self._collect()
        yield "publish.released"
        return published

    def _between(
        self, claim: Claim, passed: Sequence[Passed], seconds: float, now: float
    ) -> tuple[list[Event], Sequence[Claimed]]:
        """The reports of what has passed, with the claims that follow them; and the claims of the last interval."""
        events, claims = list[Event](), claim.events
        for outcomes, choices in passed:
            events += [
                _report(event, outcome, seconds, now, 1) for event, outcome in zip(claims, outcomes, strict=True)
            ]
            saw = self.view.position + len(events)
            claims = tuple(followed(e, c, saw, now) for e, c in zip(claims, choices, strict=True))
            events += claims
        return events, claims

    def fail(self, why: FailedKind, error: str | None = None) -> bool:
        """Ends the open claim without a report; False if it was lost before."""
        claim, self.claim_held = self.claim_held, None
        if claim is None:
            return False
        return self._append(*(self._failed(event, why, error=error) for event in claim.events))

    def tidy(self) -> bool:
        """Whether the run is finished still; ends claims that workers which are gone have left in it."""
        self.read()
        self._take_over()
        return self.view.finished

    # Reading and writing --------------------------------------------------------------------------------------------

    def read(self) -> None:
        """Folds what is new in the journal into the view."""
        try:
            for recorded in self.journal.read(self.view.position):
                self._fold(recorded)
        except JournalError:
            self._heard.clear()  # who cannot read cannot say that others are silent
            raise

    def _fold(self, recorded: Recorded) -> None:
        freed, event = self.view.fold(recorded), recorded.event
        if isinstance(event, Claimed):
            if event.worker == self.id:
                self._open[event.member] = event
        elif isinstance(event, Reported | Failed):
            self._open.pop(event.member, None)
        if event.uid in self._mine:
            self._mine.discard(event.uid)
            self._garbage += freed
            if self.snapshots is not None:
                self.snapshots.note(self.view, event.uid)

    def _append(self, *events: Event) -> bool:
        """Appends and folds; False if another's events stand in one of these places."""
        self._mine.update(event.uid for event in events)
        try:
            last = self.journal.append(*events)
        except Conflict:
            self._mine.difference_update(event.uid for event in events)
            self.read()
            return False
        first = last - len(events) + 1
        if first == self.view.position + 1:  # nobody came between: what I wrote is what I would read
            for position, event in enumerate(events, first):
                self._fold(Recorded(position, event))
        else:
            self.read()
        return True

    # Claiming -------------------------------------------------------------------------------------------------------

    def _choose(self) -> Sequence[int]:
        """The members to claim: furthest behind first, then what I hold already, then by a hash so that workers differ."""
        free = self.view.claimable()
        if self.cohort == 1:
            return [min(free, key=self._order)] if free else ()
        behind, done = self.view.unfinished(), self.view.done
        for first in sorted({m - m % self.cohort for m in free}, key=self._order):
            group = [m for m in range(first, min(first + self.cohort, len(done))) if behind[m]]
            if not any(self.view.busy[m] for m in group):
                low = min(done[m] for m in group)  # one that had to step back catches up by itself
                return [m for m in group if done[m] == low]
        return ()

    def _order(self, member: int) -> tuple[float, int]:
        return self.prefers(member), crc32(f"{self.id}/{member}".encode())

    def _decide(self, member: int, together: Sequence[int]) -> Claimed:
        time, span, script = self.clock.time(), self.span, self.script
        return claimed(
            self.view, member, self.strategy, worker=self.id, time=time, span=span, together=together, script=script
        )

    def _restore(self, events: tuple[Claimed, ...]) -> Steps[Claim | None]:
        """The claim with its states; None if it did not hold, and the worker must choose again.

        A claim can come to nothing in three ways: it was taken from us at once; its source had been released before it
        stood in the journal; its source's checkpoint is no good. A cohort's other claims are then given back.
        """
        view = self.view
        if any(open_ is None or open_.uid != event.uid for event in events for open_ in [view.open[event.member]]):
            return None
        ends, trees = {}, []
        load = Rows(self.checkpoints)
        for event in events:
            if view.late[event.member]:
                ends[event.uid] = self._failed(
                    event, "checkpoint", error="its source was released before the claim was in"
                )
            elif event.source is None:
                trees.append(self._inherited(event.member))
            elif self.held(event):
                trees.append(HELD)
            else:
                try:
                    trees.append(load.row(view.records[event.source].checkpoint))
                except CheckpointError as error:
                    ends[event.uid] = self._failed(event, "checkpoint", voids=event.source, error=str(error))
        yield "restore.loaded"
        if ends:
            self._append(*(ends.get(event.uid) or self._failed(event, "given_back") for event in events))
            return None
        attempts = tuple(int(view.fails[event.member]) for event in events)
        replacements = tuple(int(view.replacements[event.member]) + event.renews for event in events)
        return Claim(events, tuple(trees), attempts, replacements, self.clock.monotonic())

    def _inherited(self, member: int) -> Tree | None:
        """What a member is born with: another run's state, or nothing."""
        born, begins = self.view.born[member], self.view.newest(member) is None and not self.view.replacements[member]
        if born is None or born.origin is None or not begins:
            return None
        return self.origins(born.origin)

    # Other workers --------------------------------------------------------------------------------------------------

    def _take_over(self) -> None:
        """Ends the claims of workers that are gone, or that have been silent for longer than the lease."""
        self._next_watch = self.clock.monotonic() + min(WATCH_SECONDS, self.lease / 4)
        claims = [claim for claim in self.view.open if claim is not None and claim.worker != self.id]
        if not claims:
            return
        self.watch()
        for worker in sorted({claim.worker for claim in claims}):
            _, silent = self._heard.get(worker, (0, 0.0))
            if (dead := self.gone(worker)) or silent > self.lease:
                error = "its process is gone" if dead else f"no sign of life for {self.lease:g} s"
                for claim in claims:
                    if claim.worker == worker and self.view.open[claim.member] is claim:
                        self._append(self._failed(claim, "lost", error=f"{worker}: {error}"))

    def watch(self) -> None:
        """Looks who has beaten since the last look. May be called from another thread.

        Silence counts only while somebody listens: who has not looked for a while, because it was stopped, or its journal
        was away, cannot say whether the others could have been heard.
        """
        with self._shared:
            now = self.clock.monotonic()
            try:
                beats = self.journal.beats()
            except JournalError:
                self._heard.clear()
                raise
            passed, self._looked = min(now - self._looked, self.lease / 2), now
            for worker in {claim.worker for claim in self.view.open if claim is not None} | beats.keys():
                count, silent = self._heard.get(worker, (None, 0.0))
                same = beats.get(worker, 0) == count
                self._heard[worker] = beats.get(worker, 0), silent + passed if same else 0.0

    def give_back_strays(self) -> None:
        """A claim whose append seemed to fail may be in the journal all the same: nobody else would ever end it."""
        for claim in list(self._open.values()):
            self._append(self._failed(claim, "given_back", error="its holder had not noticed that it stood"))

    def _failed(self, claim: Claimed, why: FailedKind, *, voids: Ref | None = None, error: str | None = None) -> Failed:
        worker = self.id if self.id != claim.worker else None
        return failed(claim, why, voids=voids, error=error, worker=worker, time=self.clock.time())

    def _stop_at_target(self, outcomes: Iterable[Outcome]) -> None:
        target, view = self.view.settings.target, self.view
        if target is None or view.stopped is not None:
            return
        if any(o.score is not None and view.sign * o.score >= view.sign * target for o in outcomes):
            why = f"the target of {target:g} was reached"
            self._append(Stopped(member=RUN, seq=view.run_head + 1, why=why, time=self.clock.time()))

    # Files ----------------------------------------------------------------------------------------------------------

    def _collect(self) -> None:
        """Deletes the files that my own events freed; now and then also what crashed workers left behind."""
        if self._garbage:
            garbage, self._garbage = self._garbage, []
            self.checkpoints.delete(garbage)
        if self.clock.monotonic() >= self._next_sweep:
            self.sweep()

    def sweep(self) -> None:
        """Deletes every file that nobody needs and nobody is about to report."""
        self._next_sweep = self.clock.monotonic() + SWEEP_SECONDS
        named = [(file, *place) for file in self.checkpoints.files() if (place := parse_file_name(file)) is not None]
        self.checkpoints.delete(self.view.orphans(named))

    def sync(self) -> None:
        """Makes my newest checkpoints and the best durable, then the journal. May be called from another thread."""
        waiting, best = list(self._unsynced.items()), self.view.best
        files = [file for _, (_, file) in waiting]
        if best is not None and best.ref != self._best_synced:  # nobody may ever load it before the run's end
            files.append(best.checkpoint.file)
        safe = set(self.checkpoints.sync(files))
        self.journal.sync()
        if best is not None and best.checkpoint.file in safe:
            self._best_synced = best.ref
        for member, (ref, file) in waiting:
            with self._shared:
                if self._unsynced.get(member) == (ref, file):
                    del self._unsynced[member]
            if file in safe:
                self._synced.append(ref)
        if self.snapshots is not None:
            self.snapshots.write()


def _report(claim: Claimed, outcome: Outcome, seconds: float, time: float, span: int) -> Reported:
    """What this claim came to in `span` intervals; the state is not saved yet."""
    return Reported(
        member=claim.member,
        seq=claim.seq + 1,
        interval=claim.interval + span - 1,
        span=span,
        score=as_json_number(outcome.score),
        samples=outcome.samples,
        metrics=outcome.metrics,
        steps=outcome.steps,
        seconds=seconds,
        checkpoint=UNSAVED,
        time=time,
    )


def drive(steps: Steps[T], journal: Journal) -> T:
    """Runs a step of the turn for real."""
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        if isinstance(step, Wait):
            journal.wait(*step)
        else:
            failpoints.point(step)
