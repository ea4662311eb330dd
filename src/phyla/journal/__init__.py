"""The journal: what workers share, as a contract of a few verbs. One backend a file; this page is all that `worker` knows.

Positions are assigned under the run's own lock, which is held to the commit, so that no reader can skip an event that
commits late.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from phyla.events import Event, Recorded


class Journal(Protocol):
    """What workers share. `phyla.testing.JournalConformance` holds every implementation to this.

    Several handles may be open on one journal, in any threads and processes. JournalError says that it cannot be read or
    written; nothing was appended then, unless only the answer was lost.
    """

    def append(self, *events: Event) -> int:
        """Adds all events, one or more, in this order, or none; returns the position of the last.

        Raises Conflict with every (member, seq) that another writer's event holds. Where all places are held by these very
        events (the same uids), an earlier append of theirs has succeeded and its position is returned. The append is
        visible to every reader when this returns.
        """
        ...

    def read(self, after: int) -> Sequence[Recorded]:
        """The events at positions after + 1, after + 2, … up to the newest, without a gap."""
        ...

    def wait(self, after: int, timeout: float) -> bool:
        """Blocks until there may be an event after that position (True), or for `timeout` seconds (False)."""
        ...

    def beat(self, worker: str) -> None:
        """Says that a worker lives: moves its counter. May be called from another thread than the rest."""
        ...

    def beats(self) -> dict[str, int]:
        """The counters, by worker. Only that they move has a meaning."""
        ...

    def sync(self) -> None:
        """Makes what was appended so far survive a power loss. May be called from another thread."""
        ...

    def close(self) -> None:
        """Lets go of what this handle has open; others go on. Closing it again does nothing."""
        ...
