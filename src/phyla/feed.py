"""What happens in a run, for whoever watches it: the effects of its new events, and how long its workers have been silent."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from phyla import host
from phyla.events import Claimed, Event, Failed, FailedKind, Ref, Reported
from phyla.record import Record, show_copy, show_score
from phyla.runs import Run
from phyla.space import Hypers
from phyla.view import View

LISTEN_SECONDS = 1.0
"""How often the workers' beats are read, and their processes looked for."""

ERROR_WIDTH = 300
"""Characters of an error that are shown."""


@dataclass(frozen=True)
class Exploit:
    """A member is about to go on from another's report, or with its hyperparameters."""

    member: int
    interval: int  # the first one that is trained after it
    donor: Record
    before: Record | None  # where the member stood
    hypers: Hypers  # that it goes on with
    time: float

    def __str__(self) -> str:
        return show_copy(self.member, self.interval, self.donor, self.before, self.hypers)


@dataclass(frozen=True)
class Failure:
    """A claim has ended without a report."""

    member: int
    interval: int
    why: FailedKind
    error: str | None
    time: float

    def __str__(self) -> str:
        said = _WORDS[self.why].format(at=f"at {self.interval}")
        error = _short(self.error) if self.error else ""
        return f"m{self.member} {said}" + (f"{' ' if said.endswith('raised') else ': '}{error}" if error else "")


_WORDS = {
    "raised": "failed {at}: raised",
    "unreported": "failed {at}: it made no report",
    "crashed": "crashed {at}",
    "hung": "hung {at}",
    "lost": "lost {at}",
    "given_back": "given back {at}",
    "checkpoint": "could not be restored {at}",
}


def _short(error: str) -> str:
    """What was seen, without the id of the worker that it was seen of."""
    worker, colon, rest = error.partition(": ")
    if colon and len(worker.rsplit(".", 4)) == 5 and " " not in worker:
        error = rest
    return error if len(error) <= ERROR_WIDTH else f"{error[: ERROR_WIDTH - 1]}…"


@dataclass(frozen=True)
class Report:
    """A member has trained, and has a score."""

    record: Record

    def __str__(self) -> str:
        return f"m{self.record.id} at {self.record.interval}: score {show_score(self.record.score)}"


Effect: TypeAlias = Exploit | Failure | Report


class Feed:
    """Follows a run without writing to it, from where it stands at the first `read` on."""

    view: View  # the run as it stood at the last one

    def __init__(self, run: Run, clock: Callable[[], float] = time.monotonic):
        self._run = run
        self._clock = clock
        self._position: int | None = None
        self._decided: dict[int, tuple[int, Ref]] = {}  # each member's newest exploit: interval and donor
        self._beats: dict[str, tuple[int | None, float]] = {}  # each worker's counter, and when it was seen to move
        self._gone: dict[str, bool] = {}
        self._next_listen = 0.0

    def read(self) -> list[Effect]:
        """The effects of what has happened since the last call, in order; none at the first. Reads new events only."""
        self._listen()
        self.view = view = self._run.view
        position, self._position = self._position, view.position
        if position is None or position == view.position:
            return []
        events = itertools.islice(self._run.events(position), view.position - position)
        return list(self._effects(view, events))

    def _effects(self, view: View, events: Iterator[Event]) -> Iterator[Effect]:
        for event in events:
            match event:
                case Claimed(donor=donor) if donor is not None:
                    # A decision that a loss or a give-back ended is repeated, and is the same exploit.
                    if self._decided.get(event.member) != (event.interval, donor) and Ref(*donor) in view.records:
                        self._decided[event.member] = event.interval, donor
                        before = _before(view.history[event.member], event.seq)
                        copied = view.records[Ref(*donor)]
                        yield Exploit(event.member, event.interval, copied, before, event.hypers, event.time)
                case Failed():
                    yield Failure(event.member, event.interval, event.why, event.error, event.time)
                case Reported():
                    yield Report(view.records[event.ref])

    def silence(self, worker: str) -> float:
        """Seconds, by this process's clock, since a worker's newest beat; it counts from when the worker was first seen."""
        now = self._clock()
        return now - self._beats.setdefault(worker, (None, now))[1]

    def gone(self, worker: str) -> bool:
        """Whether a worker's process is known to have ended, at most a second ago."""
        if worker not in self._gone:
            self._gone[worker] = host.is_gone(worker)
        return self._gone[worker]

    def _listen(self) -> None:
        now = self._clock()
        if now < self._next_listen:
            return
        self._next_listen = now + LISTEN_SECONDS
        self._gone.clear()
        for worker, count in self._run.beats().items():
            if self._beats.get(worker, (None, now))[0] != count:
                self._beats[worker] = count, now


def _before(history: Sequence[Record], seq: int) -> Record | None:
    """Where a member stood when the claim at this place of its stream was decided."""
    return next((record for record in reversed(history) if record.seq < seq), None)
