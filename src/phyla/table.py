"""The live table as lines of styled text: fitted to so many columns and rows, so that nothing wraps and nothing scrolls.

What there is no room for is narrowed or left out, and a line below says so. Numbers are never cut.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from rich.cells import cell_len, set_cell_size

from phyla.glance import NEWEST, Glance, Row, name_of, one_host, plural, rate, show_pace
from phyla.inert import inert
from phyla.progress import duration
from phyla.record import show_score, show_value
from phyla.view import UNBOUNDED

Line: TypeAlias = list[tuple[str, str]]
"""A line of (text, style), narrower than the terminal."""

GAP = 2
"""Spaces between two columns, and between two facts."""
WIDEST = 24
"""Characters of the widest hyperparameter, and of a run's name where the line is full."""
NARROWEST = 6
"""Characters that a name or a text is narrowed to before its column is left out."""
LONGEST_BAR, SHORTEST_BAR = 40, 8
QUIET_SECONDS, SILENT_SECONDS = 10.0, 15.0
"""A worker beats every five seconds at least: from here on its silence is shown, and in a colour."""


def lines(glance: Glance, silence: Callable[[str], float], width: int, height: int) -> list[Line]:
    """How a run stands, in at most `height` lines of at most `width` columns. silence: seconds since a worker's last beat."""
    room = max(1, height - 3)  # below two lines on the run, and the titles
    rows = glance.rows[:room]
    columns, left_out = fit(_columns(glance, rows, silence), width)
    if len(glance.rows) > room or (left_out and len(rows) == room):  # a line has to say so
        rows = rows[:-1]
        columns, left_out = fit(_columns(glance, rows, silence), width)
    more = len(glance.rows) - len(rows)
    notes = [plural(more, "more member")] if more else []
    if left_out:
        names = f"no room for {', '.join(left_out)}"
        fits = cell_len("; ".join([*notes, names])) + 2 <= width
        notes.append(names if fits else f"no room for {plural(len(left_out), 'column')}")
    note: list[Line] = [[(cut(f"… {'; '.join(notes)}", width), "dim")]] if notes else []
    return [*head(glance, width), *(_cut(line, width) for line in _grid(columns)), *note][:height]


# The run ----------------------------------------------------------------------------------------------------------------


def head(glance: Glance, width: int) -> list[Line]:
    """Two lines on the run: how far it is, and how it does."""
    said, count = facts(glance), _count(glance)
    name = cut(said[0], max(NARROWEST, min(max(WIDEST, width // 3), width - cell_len(count) - GAP)))
    first: Line = [(name, "bold")]
    bar_width = min(LONGEST_BAR, width - cell_len(name) - cell_len(count) - len(" 100%") - 2 * GAP)
    if glance.total is not None and bar_width >= SHORTEST_BAR:
        full = math.floor(glance.share * bar_width)
        first += [(" " * GAP, ""), ("━" * full, "green"), ("─" * (bar_width - full), "dim")]
        first.append((f" {glance.percent:3d}%", ""))
    if cell_len(name) + GAP + cell_len(count) <= width:
        first.append((" " * GAP + count, ""))
    second: Line = []
    for style, fact in zip(("", "bold", "", ""), said[2:], strict=False):
        taken = sum(cell_len(text) for text, _ in second)
        gap = " " * GAP if second else ""
        if taken + len(gap) + cell_len(fact) <= width:
            second += [(gap, ""), (fact, style)]
    return [_cut(first, width), _cut(second, width)]


def facts(glance: Glance) -> list[str]:
    """The run in words: its name; how far it is; and then, each if there is something to say, how it does."""
    view = glance.view
    assert view.created is not None
    found = [inert(view.created.run), _count(glance, percent=True)]
    workers = len(glance.workers)
    match glance.state:
        case "finished":
            found.append("finished" + (f": {inert(view.stopped)}" if view.stopped else ""))
        case "paused":
            found.append("paused")
        case "new":
            found.append("nobody has claimed a member yet")
        case "idle":
            found.append("nobody trains it")
        case _ if glance.silent is not None:
            found.append(f"nothing was heard for {duration(glance.silent)}")
        case _ if glance.pace is None:
            found.append("training")
        case _:
            found.append(show_pace(glance.pace))
    best = view.best
    if best is not None:
        found.append(f"best {show_score(best.score)} (m{best.id} at {best.interval})")
    else:
        diverged = any(record.score is not None for record in view.records.values())
        found.append("no finite score yet" if diverged else "no score yet")
    if glance.seconds_left is not None:
        found.append(f"{duration(glance.seconds_left)} left")
    if workers:
        found.append(plural(workers, "worker"))
    return found


def _count(glance: Glance, *, percent: bool = False) -> str:
    if glance.total is None:
        return plural(glance.done, "interval")
    return f"{glance.done:,} of {glance.total:,} intervals" + (f" ({glance.percent}%)" if percent else "")


# Its members ------------------------------------------------------------------------------------------------------------


@dataclass
class Column:
    """A column of the table, in the order of its rows."""

    title: str
    cells: Sequence[str]
    styles: Sequence[str] = ()
    right: bool = True
    least: int = 0  # characters, so that it does not jump when a number gets longer
    whole: bool = True  # its cells may not be cut
    narrows: bool = False  # it may be narrower than its title, and is no wider than WIDEST
    rank: int = 0  # of those that may be left out the highest goes first; 0: stays
    width: int = field(init=False)

    def __post_init__(self) -> None:
        self.widen()

    def widen(self) -> None:
        """Takes the room that it would like to have."""
        widest = max(map(cell_len, (self.title, *self.cells)))
        self.width = max(self.least, min(WIDEST, widest) if self.narrows else widest)

    @property
    def floor(self) -> int:
        """The width that it may be narrowed to."""
        cells = max(map(cell_len, self.cells), default=0)
        return min(self.width, max(NARROWEST, cells) if self.whole else NARROWEST)


RANKS = {"interval": 1, "worker": 5, "beat": 6, "rate": 7, "left": 8}
FIRST_RANKS, LATER_RANK, EMPTY_RANK = (2, 3, 4), 10, 1000
"""The first few hyperparameters are worth more than who trains and how fast; the others go before, and what is empty first."""


def _columns(glance: Glance, rows: Sequence[Row], silence: Callable[[str], float]) -> list[Column]:
    view, short = glance.view, one_host(glance.workers)
    of = f"/{view.intervals}" if view.intervals < UNBOUNDED else ""
    rates = [rate(view.history[row.member][-NEWEST:], glance.resumed) if not row.done else None for row in rows]
    lefts = [_left(view.intervals, row, rate) for row, rate in zip(rows, rates, strict=True)]
    beats = [_beat(row, silence) for row in rows]
    holders = [_holder(row, short) for row in rows]
    columns = [
        Column("member", [f"m{row.member}" for row in rows]),
        Column("score", [_score(row) for row in rows], [_score_style(glance, row) for row in rows], least=8),
        Column("interval", [f"{row.record.interval if row.record is not None else 0}{of}" for row in rows]),
        Column("rate", [_rate(rate) for rate in rates], least=6),
        Column("left", lefts, least=5),
        *(
            _hyperparameter(inert(name), [row.hypers.get(name) for row in rows], place)
            for place, name in enumerate(view.space)
        ),
        Column("worker", *_unzip(holders), right=False),
        Column("beat", *_unzip(beats), least=5),
    ]
    for column in columns:
        if not column.narrows:
            column.rank = RANKS.get(column.title, 0) if any(column.cells) else EMPTY_RANK
    return columns


def _hyperparameter(name: str, values: Sequence[object], place: int) -> Column:
    numbers = all(isinstance(value, int | float) for value in values)
    cells = [inert(show_value(value)) for value in values]
    rank = FIRST_RANKS[place] if place < len(FIRST_RANKS) else LATER_RANK + place
    return Column(name, cells, right=numbers, whole=numbers, narrows=True, rank=rank)


def _unzip(cells: Sequence[tuple[str, str]]) -> tuple[list[str], list[str]]:
    return [text for text, _ in cells], [style for _, style in cells]


def _score(row: Row) -> str:
    return show_score(row.record.score) if row.record is not None and row.record.score is not None else "none yet"


def _score_style(glance: Glance, row: Row) -> str:
    record = row.record
    if record is None or record.score is None:
        return "dim"
    if not record.finite:
        return "red"
    return "bold green" if record is glance.view.best else ""


def _left(intervals: int, row: Row, rate: float | None) -> str:
    if row.done or intervals >= UNBOUNDED or not rate:
        return ""
    return clock((intervals - (row.record.interval if row.record is not None else 0)) / rate)


def _holder(row: Row, short: bool) -> tuple[str, str]:
    if row.holder is None:
        return ("done" if row.done else "free"), "dim"
    return inert(name_of(row.holder.claim.worker, short=short)), "yellow" if row.holder.gone else ""


def _beat(row: Row, silence: Callable[[str], float]) -> tuple[str, str]:
    if row.holder is None:
        return "", ""
    if row.holder.gone:
        return "gone", "yellow"
    seconds = silence(row.holder.claim.worker)
    if seconds < QUIET_SECONDS:
        return "ok", "dim"
    return clock(seconds) if seconds >= 60 else f"{int(seconds)} s", "yellow" if seconds > SILENT_SECONDS else "dim"


def _rate(pace: float | None) -> str:
    if pace is None:
        return ""
    for seconds, unit in ((1, "s"), (60, "min"), (3600, "h")):
        if pace * seconds >= 1:
            return f"{pace * seconds:.2g}/{unit}" if pace * seconds < 100 else f"{pace * seconds:,.0f}/{unit}"
    return f"{pace * 86400:.2g}/d"


def clock(seconds: float) -> str:
    """Seconds as a clock shows them, `0:05` or `3:02:05`; from a hundred hours on in days."""
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02d}"
    if whole < 360_000:
        return f"{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"
    return f"{whole // 86400:,} d"


# Fitting ----------------------------------------------------------------------------------------------------------------


def fit(columns: Sequence[Column], width: int) -> tuple[list[Column], list[str]]:
    """The columns that fit, as wide as they may be, and the titles of those that do not.

    Hyperparameters are narrowed, from the right; then the column of the highest rank is left out, and the others are as wide
    as they may be again. Nothing is missed where a column was empty.
    """
    kept, left_out = list(columns), list[str]()
    while True:
        for column in kept:
            column.widen()
        excess = sum(column.width + GAP for column in kept) - GAP - width
        for column in sorted(kept, key=lambda column: -column.rank):
            if column.narrows and excess > 0:
                give = min(excess, column.width - column.floor)
                column.width -= give
                excess -= give
        last = max(kept, key=lambda column: column.rank)
        if excess <= 0 or not last.rank:
            return kept, left_out
        kept.remove(last)
        if last.rank < EMPTY_RANK:
            left_out.insert(0, last.title)


def _grid(columns: Sequence[Column]) -> Iterable[Line]:
    """The titles, and a line a row."""
    painted = [
        [_padded(cut_middle(c.title, c.width), c), *(_padded(cut(x, c.width), c) for x in c.cells)] for c in columns
    ]
    for place, texts in enumerate(zip(*painted, strict=True)):
        line: Line = []
        for column, text in zip(columns, texts, strict=True):
            style = "dim" if place == 0 else column.styles[place - 1] if column.styles else ""
            line += [(" " * GAP if line else "", ""), (text, style)]
        yield line


def _padded(text: str, column: Column) -> str:
    padding = " " * (column.width - cell_len(text))
    return padding + text if column.right else text + padding


def cut(text: str, width: int) -> str:
    """The text, with an ellipsis for its end if it is wider."""
    return text if cell_len(text) <= width else set_cell_size(text, width - 1) + "…"


def cut_middle(text: str, width: int) -> str:
    """The text, with an ellipsis for its middle if it is wider: names often differ in their ends."""
    if cell_len(text) <= width:
        return text
    back = (width - 1) // 2
    return set_cell_size(text, width - 1 - back) + "…" + set_cell_size(text[::-1], back)[::-1]


def _cut(line: Line, width: int) -> Line:
    """The line, without what is beyond the width."""
    kept: Line = []
    for text, style in line:
        text = cut(text, width)
        width -= cell_len(text)
        if text:
            kept.append((text, style))
        if width <= 0:
            break
    return kept
