"""A journal in the memory of one process: for tests, the simulation and `phyla check`. It is what the others must equal.

What every journal owes stands here too: `as_json`, `settle` and `poll`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence

from phyla.errors import Conflict, JournalError
from phyla.events import Event, Recorded, decode, encode


def as_json(events: Sequence[Event]) -> list[bytes]:
    """Each event as JSON. Raises JournalError for no event, two at one place, or one that nobody could read back."""
    if len(events) != 1 and (not events or len({event.ref for event in events}) < len(events)):
        raise JournalError(f"an append takes one or more events, each at a place of its own, not {events!r}")
    bodies = [encode(event) for event in events]
    for body in bodies:
        decode(body)  # what is in the journal is there for ever: a field of a wrong type would stop every reader
    return bodies


def settle(events: Sequence[Event], held: Mapping[tuple[int, int], tuple[int, str]]) -> int | None:
    """What an append of these events comes to where `held` says at which position, by which uid, each place is taken.

    None: all places are free. A position: these very events are in the journal, the last of them there. Else Conflict with
    the places that others hold. (An append of which only a part is there already can only come from a bug in the caller.
    It is a Conflict too, over that part if nobody else holds anything.)
    """
    taken = {event.ref: event.uid for event in events if event.ref in held}
    if not taken:
        return None
    others = [place for place, uid in taken.items() if held[place][1] != uid]
    if others or len(taken) < len(events):
        raise Conflict(others or list(taken))
    return held[events[-1].ref][0]


def poll(ready: Callable[[], bool], timeout: float, longest: float) -> bool:
    """Asks until the answer is yes (True) or `timeout` seconds have passed (False), at most `longest` seconds apart."""
    deadline = time.monotonic() + timeout
    delay = 0.0005
    while not ready():
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(delay, left))
        delay = min(1.5 * delay, longest)
    return True


class Facts:
    """Events in memory, by position and by place. Not safe between threads."""

    def __init__(self) -> None:
        self._recorded: list[Recorded] = []
        self.held: dict[tuple[int, int], tuple[int, str]] = {}

    @property
    def newest(self) -> int:
        """The position of the newest event, 0 where there is none."""
        return len(self._recorded)

    def add(self, events: Sequence[Event]) -> int:
        """Adds events whose places are free and returns the position of the last."""
        for position, event in enumerate(events, self.newest + 1):
            self._recorded.append(Recorded(position, event))
            self.held[event.ref] = (position, event.uid)
        return self.newest

    def after(self, position: int) -> list[Recorded]:
        return self._recorded[position:]


class MemoryJournal:
    """All handles of this journal are this one object; `close` keeps what is in it. Safe between threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._facts = Facts()
        self._beats: dict[str, int] = {}

    def append(self, *events: Event) -> int:
        kept = [decode(body) for body in as_json(events)]  # what any other journal would give back
        with self._changed:
            position = settle(events, self._facts.held)
            if position is None:
                position = self._facts.add(kept)
                self._changed.notify_all()
            return position

    def read(self, after: int) -> list[Recorded]:
        with self._changed:
            return self._facts.after(after)

    def wait(self, after: int, timeout: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: self._facts.newest > after, timeout)

    def beat(self, worker: str) -> None:
        with self._changed:
            self._beats[worker] = self._beats.get(worker, 0) + 1

    def beats(self) -> dict[str, int]:
        with self._changed:
            return dict(self._beats)

    def sync(self) -> None:
        """Nothing to do: it ends with its process."""

    def close(self) -> None:
        """Nothing to do: other handles are this very object."""
