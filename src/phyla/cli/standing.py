"""How a run stands at one moment, from its events alone: what `phyla status` says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

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
    failed: dict[str, int]  # how many claims failed, by kind
    began: float
    last: float  # the time of the newest event

    @property
    def roots(self) -> set[int]:
        """The members whose first weights are alive in somebody."""
        return set(self.lineage.roots().values())


def standing(events: Iterable[Event], now: float, gone: Callable[[str], bool]) -> Standing:
    """The run after these events. now: the time; gone: whether a worker's process is known to have ended."""
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
    return Standing(**vars(seen), lineage=ancestry, failed=dict(failed.most_common()), began=began, last=last)
