"""How a run stands at one moment, from its events alone: what `phyla status` says."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from phyla.errors import JournalError
from phyla.events import Claimed, Event, Failed, Recorded
from phyla.lineage import Lineage, lineage
from phyla.record import Record
from phyla.space import Hypers
from phyla.view import UNBOUNDED, View

State: TypeAlias = Literal["finished", "training", "idle", "new"]
"""idle: begun, not finished, and no worker that may live holds a member. new: no interval was ever claimed."""

PAUSE = 60.0
"""Seconds without a report, beyond five times the longest interval, after which a run seems to pause."""


@dataclass(frozen=True)
class Holder:
    """Who has a member now, and for what."""

    claim: Claimed
    age: float | None  # seconds since the claim, between this clock and the holder's
    gone: bool  # its process has ended; whoever works next takes over


@dataclass(frozen=True)
class Row:
    """A member: where it stands, and who has it."""

    member: int
    record: Record | None  # its newest report; None: it has none yet
    hypers: Hypers  # trained with; before the first report, born with
    copied: tuple[int, int] | None  # its last copy: of whom, and the first interval that was trained after it
    holder: Holder | None
    done: bool  # nothing is left to train: all its intervals are reported, or the run is finished


@dataclass(frozen=True)
class Standing:
    """A run at one moment. Rows are sorted by score, best first; those without one come last."""

    view: View
    lineage: Lineage
    state: State
    rows: list[Row]
    failed: dict[str, int]  # how many claims failed, by kind
    total: int | None  # intervals of all members together; None: only a target ends it
    pace: float | None  # intervals a second lately, while it trains
    began: float
    last: float  # the time of the newest event
    silent: float | None  # seconds since then, if it is long for a run that trains

    @property
    def done(self) -> int:
        """Intervals that are reported and count, of all members together."""
        return int(self.view.done.sum())

    @property
    def workers(self) -> set[str]:
        """Those that hold a member, and may live."""
        return {row.holder.claim.worker for row in self.rows if row.holder is not None and not row.holder.gone}

    @property
    def seconds_left(self) -> float | None:
        return (self.total - self.done) / self.pace if self.pace and self.total is not None else None

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
    rows = [_row(view, member, copied.get(member), now, gone) for member in range(view.size)]
    rows.sort(key=lambda row: _order(view, row))
    state = _state(view, rows)
    newest = ancestry.records[-max(10, 2 * view.size) :]
    silent = now - last if state == "training" and now - last > _pause(newest) else None
    return Standing(
        view=view,
        lineage=ancestry,
        state=state,
        rows=rows,
        failed=dict(failed.most_common()),
        total=view.intervals * view.size if view.intervals < UNBOUNDED else None,
        pace=pace(newest) if state == "training" and silent is None else None,
        began=began,
        last=last,
        silent=silent,
    )


def _row(view: View, member: int, copied: tuple[int, int] | None, now: float, gone: Callable[[str], bool]) -> Row:
    record, claim, born = view.newest(member), view.open[member], view.born[member]
    holder = None
    if claim is not None:
        if claim.donor is not None:
            copied = claim.donor.member, claim.interval
        holder = Holder(claim, max(0.0, now - claim.time) if claim.time else None, gone(claim.worker))
    hypers = record.hypers if record is not None else born.hypers if born is not None else {}
    return Row(member, record, hypers, copied, holder, view.finished or bool(view.done[member] >= view.intervals))


def _order(view: View, row: Row) -> tuple[int, float, int]:
    """Best first, ties as they rank; then those that diverged, then those that have no score yet."""
    record = row.record
    if record is None or record.score is None:
        return 2, 0.0, row.member
    return (0, -view.value(record), -row.member) if record.finite else (1, 0.0, row.member)


def _state(view: View, rows: list[Row]) -> State:
    if view.finished:
        return "finished"
    if any(row.holder is not None and not row.holder.gone for row in rows):
        return "training"
    return "idle" if any(view.head > 1) else "new"


def pace(records: Sequence[Record]) -> float | None:
    """Intervals a second over these reports, which stand in the journal's order; what lies before a pause is left out."""
    pause = _pause(records)
    for place in range(len(records) - 1, 0, -1):
        if records[place].time - records[place - 1].time > pause:
            records = records[place:]
            break
    if not records:
        return None
    first, last = records[0].time, records[-1].time
    intervals = sum(record.span for record in records if record.time > first)
    return intervals / (last - first) if last > first and math.isfinite(last - first) else None


def _pause(records: Sequence[Record]) -> float:
    return PAUSE + 5 * max((record.seconds for record in records), default=0.0)
