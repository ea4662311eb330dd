"""How a run stands at one moment, from its events alone: what `phyla status` says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from phyla import host
from phyla.errors import JournalError
from phyla.events import Event, Failed, Recorded
from phyla.glance import Glance, glance
from phyla.glance import Holder as Holder
from phyla.glance import Row as Row
from phyla.glance import pace as pace
from phyla.lineage import Lineage, lineage
from phyla.view import View


@dataclass(frozen=True)
class Standing(Glance):
    """A run at one moment, with its past."""

    lineage: Lineage
    living: set[str]  # workers that are known to live: those of this machine
    failed: dict[str, int]  # how many claims failed, by kind
    began: float
    last: float  # the time of the newest event

    @property
    def roots(self) -> set[int]:
        """The members whose first weights are alive in somebody who trains."""
        roots = self.lineage.roots()
        return {roots[row.member] for row in self.rows if row.member in roots}

    @property
    def founders(self) -> int:
        """Members that have begun with weights of their own: all but those that entered late."""
        return founders(self.view)


def founders(view: View) -> int:
    return int((view.since == 0).sum())


def standing(events: Iterable[Event], now: float, gone: Callable[[str], bool], beating: Iterable[str] = ()) -> Standing:
    """The run after these events. now: the time; gone: whether a worker's process is known to have ended.

    beating: the workers that have ever beaten.
    """
    view, failed, began, last = View(), Counter[str](), 0.0, 0.0
    for position, event in enumerate(events, 1):
        view.fold(Recorded(position, event))
        began, last = began or event.time, max(last, event.time)
        if isinstance(event, Failed):
            failed[event.why] += 1
    if view.created is None:
        raise JournalError("this run holds nothing yet: its journal is empty")
    ancestry = lineage(view)
    copied = {copy.member: (copy.donor.id, copy.interval) for copy in ancestry.copies}
    seen = glance(view, now, gone, last=last, copied=copied)
    living = {worker for worker in (*beating, *seen.workers) if of_this_machine(worker) and not gone(worker)}
    return Standing(
        **vars(seen), lineage=ancestry, living=living, failed=dict(failed.most_common()), began=began, last=last
    )


def of_this_machine(worker: str) -> bool:
    """Whether it is known here if this worker lives."""
    return bool(host.boot()) and worker.rsplit(".", 4)[3:4] == [host.boot()]
