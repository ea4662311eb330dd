"""How a run stands at one moment, as far as its view tells: what `phyla status` and the live table have in common."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from phyla.events import UNSAVED, Claimed
from phyla.record import Record
from phyla.space import Hypers
from phyla.view import UNBOUNDED, View

State: TypeAlias = Literal["finished", "paused", "training", "idle", "new"]
"""idle: begun, not finished, and no worker that may live holds a member. new: no interval was ever claimed."""

SILENCE = 60.0
"""Seconds without an event, beyond five times the longest interval, after which a run that trains seems to stand still."""

PAUSE = 15.0
"""Seconds between two reports, beyond five times the longest interval, in which nobody trained: rates leave them out."""

NEWEST = 6
"""Reports of a member that its own rate is taken over."""


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
class Glance:
    """A run at one moment. Rows are of the members that train, sorted by score, best first; those without one come last."""

    view: View
    state: State
    rows: list[Row]
    done: int  # intervals that were trained here and count, of all members together, those that have left too
    total: int | None  # what they have to come to; None: only a target ends the run
    resumed: float  # when the first report came after the last pause
    pace: float | None  # intervals a second lately, while it trains
    silent: float | None  # seconds since the newest event, if it is long for a run that trains

    @property
    def workers(self) -> set[str]:
        """Those that hold a member, and may live."""
        return {row.holder.claim.worker for row in self.rows if row.holder is not None and not row.holder.gone}

    @property
    def share(self) -> float:
        """The part of its work that is done, from 0 to 1."""
        return self.done / self.total if self.total else 1.0

    @property
    def percent(self) -> int:
        """The same in whole percent: 100 means that nothing is left."""
        return math.floor(100 * self.share)

    @property
    def seconds_left(self) -> float | None:
        return (self.total - self.done) / self.pace if self.pace and self.total is not None else None


def glance(
    view: View,
    now: float,
    gone: Callable[[str], bool],
    *,
    last: float | None = None,
    copied: Mapping[int, tuple[int, int]] | None = None,
) -> Glance:
    """The run as it stands. now: the time; gone: whether a worker's process is known to have ended.

    last: the time of the newest event, if the caller knows it better than by reports and open claims. copied: each member's
    last copy, where it is known; what an open claim says comes first.
    """
    finished, copies = view.finished, copied or {}
    rows = [_row(view, member, copies.get(member), finished, now, gone) for member in active(view)]
    rows.sort(key=lambda row: _order(view, row))
    state = _state(view, rows, finished)
    newest = newest_records(view, NEWEST * max(2, view.size))
    if last is None:
        last = max((claim.time for claim in view.open if claim is not None), default=0.0)
        last = max([last, *(record.time for record in newest[-1:])])
    silent = now - last if state == "training" and now - last > SILENCE + _longest(newest) else None
    return Glance(
        view=view,
        state=state,
        rows=rows,
        done=trained(view),
        total=budget(view),
        resumed=resumed(newest),
        pace=pace(newest[-max(10, 2 * view.size) :]) if state == "training" and silent is None else None,
        silent=silent,
    )


def active(view: View) -> list[int]:
    """The members that train: those that have not left."""
    return [int(member) for member in view.active.nonzero()[0]]


def trained(view: View) -> int:
    """Intervals that were trained and count: of members that have left too, and of late ones those since they entered."""
    return int((view.done - view.since).sum())


def budget(view: View) -> int | None:
    """What these come to when the run is through; None: only a target ends it."""
    if view.intervals >= UNBOUNDED:
        return None
    left = view.intervals - view.done[view.active]
    return trained(view) + int(left.clip(min=0).sum())


def _row(
    view: View,
    member: int,
    copied: tuple[int, int] | None,
    finished: bool,
    now: float,
    gone: Callable[[str], bool],
) -> Row:
    record, claim, born = view.newest(member), view.open[member], view.born[member]
    holder = None
    if claim is not None:
        if claim.donor is not None:
            copied = claim.donor.member, claim.interval
        holder = Holder(claim, max(0.0, now - claim.time) if claim.time else None, gone(claim.worker))
    hypers = record.hypers if record is not None else born.hypers if born is not None else {}
    return Row(member, record, hypers, copied, holder, finished or bool(view.done[member] >= view.intervals))


def _order(view: View, row: Row) -> tuple[int, float, int]:
    """Best first, ties as they rank; then those that diverged, then those that have no score yet."""
    record = row.record
    if record is None or record.score is None:
        return 2, 0.0, row.member
    return (0, -view.value(record), -row.member) if record.finite else (1, 0.0, row.member)


def _state(view: View, rows: list[Row], finished: bool) -> State:
    if finished:
        return "finished"
    if view.paused:
        return "paused"
    if any(row.holder is not None and not row.holder.gone for row in rows):
        return "training"
    return "idle" if any(view.head > 1) else "new"


def newest_records(view: View, count: int) -> list[Record]:
    """The newest reports that count, in the journal's order: which is that of the view's records."""
    valid = (record for record in reversed(view.records.values()) if not record.void)
    return list(itertools.islice(valid, count))[::-1]


def pace(records: Sequence[Record]) -> float | None:
    """Intervals a second over these reports, which stand in the journal's order; what lies before a pause is left out."""
    return rate(records, resumed(records))


def resumed(records: Sequence[Record]) -> float:
    """When the first of these reports came after the last pause; they stand in the journal's order."""
    pause = PAUSE + _longest(records)
    for later, earlier in itertools.pairwise(reversed(records)):
        if later.time - earlier.time > pause:
            return later.time
    return -math.inf


def rate(records: Sequence[Record], since: float) -> float | None:
    """Intervals a second over those of these reports that came since then.

    What was published together, as a cohort is, was trained together: the clock starts with the first report, and those that
    share its file do not count. None before there are two.
    """
    records = [record for record in records if record.time >= since]
    if not records:
        return None
    first, seconds = records[0], records[-1].time - records[0].time
    with_it = {first.checkpoint.file} - {UNSAVED.file}
    intervals = sum(r.span for r in records if r.time > first.time and r.checkpoint.file not in with_it)
    return intervals / seconds if intervals and seconds > 0 and math.isfinite(seconds) else None


def _longest(records: Sequence[Record]) -> float:
    """Five times the longest of these intervals, in seconds."""
    return 5 * max((record.seconds for record in records), default=0.0)


# In words ---------------------------------------------------------------------------------------------------------------


def plural(count: int, noun: str) -> str:
    """`1 exploit`, `2 exploits`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def host_of(worker: str) -> str:
    """The machine in a worker's id (host.pid.start.boot.number)."""
    return worker.rsplit(".", 4)[0]


def name_of(worker: str, *, short: bool) -> str:
    """A worker's id for people: its pid, with its host where there are several."""
    parts = worker.rsplit(".", 4)
    if len(parts) != 5:
        return worker
    name = parts[1] if parts[4] == "1" else f"{parts[1]}#{parts[4]}"
    return name if short else f"{parts[0]}.{name}"


def one_host(workers: set[str]) -> bool:
    return len({host_of(worker) for worker in workers}) < 2


def show_pace(pace: float) -> str:
    """Intervals a second for people."""
    if pace >= 1:
        return f"{pace:.3g} intervals a second"
    return f"{pace * 60:.3g} intervals a minute" if pace * 60 >= 1 else f"{pace * 3600:.3g} intervals an hour"
