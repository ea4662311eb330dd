"""What commands print with: inert text, tables that fit, JSON. Where it is no terminal: no colours, and nothing is cut."""

from __future__ import annotations

import itertools
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from phyla.errors import SettingsError
from phyla.events import as_json_number
from phyla.glance import plural as plural
from phyla.inert import inert as inert
from phyla.inert import inert_json as inert_json
from phyla.inert import inert_lines as inert_lines
from phyla.record import Record, show_value

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table
    from rich.text import Text

WIDEST = 24
"""Characters of the widest hyperparameter in a table on a terminal."""
ROWS = 20
"""Rows of a table on a terminal, where nobody asked for all."""
GAP = 2
"""Spaces before each column."""
_UNLIMITED = 1_000_000


def on_terminal() -> bool:
    return sys.stdout.isatty()


def print_json(value: object, indent: int | None = 2) -> None:
    """Prints one JSON document, as `as_json_text` makes it."""
    print(as_json_text(value, indent))


def as_json_text(value: object, indent: int | None = 2) -> str:
    """One JSON document, in ASCII. What JSON has no number for is the text "nan", "inf" or "-inf", as in the journal.

    indent=None: on one line.
    """
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    match value:
        case float() if not math.isfinite(value):
            return as_json_number(value)
        case Mapping():
            return {str(key): _finite(item) for key, item in value.items()}
        case list() | tuple():
            return [_finite(item) for item in value]
    return value


def write(data: str, out: Path | None) -> None:
    """Writes to a file; without one to standard output, in which a terminal finds nothing to obey. Always UTF-8."""
    if out is not None:
        try:
            out.write_bytes(data.encode())
        except OSError as error:
            raise SettingsError(f"{out} cannot be written: {error.strerror}") from None
    elif on_terminal():
        print(inert_json(data), end="")
    else:
        sys.stdout.flush()
        rest = memoryview(data.encode())
        while rest:  # one write may take less, where standard output is unbuffered
            rest = rest[sys.stdout.buffer.write(rest) :]


def show(*parts: RenderableType) -> None:
    """Prints texts and tables, one under the other."""
    from rich.console import Console

    width = None if on_terminal() else _UNLIMITED
    console = Console(file=sys.stdout, width=width, highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        for part in parts:
            console.print(part)
    print("\n".join(line.rstrip() for line in captured.get().removesuffix("\n").split("\n")))


def styled(text: str, style: str) -> Text:
    from rich.text import Text

    return Text(inert(text), style)


def words(*parts: tuple[str, str]) -> Text:
    """A line of (text, style)."""
    from rich.text import Text

    return Text.assemble(*((inert(text), style) for text, style in parts))


def facts(pairs: Iterable[tuple[str, str | Text]]) -> Table:
    """What there is to say, each under its name; long ones go on below themselves."""
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, GAP, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(styled(f"  {name}", "dim"), value if isinstance(value, Text) else Text(inert(value)))
    return grid


class Column(NamedTuple):
    """A column of a table: its cells from the top. One that is optional may be left out where there is no room."""

    title: str
    cells: Sequence[str | Text]
    right: bool = False
    optional: bool = False


def hyperparameter(name: str, values: Sequence[object], styles: Iterable[str] = itertools.repeat("")) -> Column:
    """The column of a hyperparameter."""
    numbers = all(isinstance(value, int | float) for value in values)
    cells = [styled(show_value(value), style) for value, style in zip(values, styles, strict=False)]
    return Column(name, cells, right=numbers, optional=True)


def show_fit(above: Sequence[RenderableType], columns: Sequence[Column], more: str | None = None) -> None:
    """Prints a table of the columns that fit, and below it what it leaves out: `more`, and the columns without room.

    Columns go from the right, if they are optional.
    """
    from rich.console import Console
    from rich.table import Table

    made = [(column, [_cell(cell) for cell in (styled(column.title, "dim"), *column.cells)]) for column in columns]
    left_out: list[str] = []
    if on_terminal():
        room = Console().width
        widths = [GAP + _width(column, cells) for column, cells in made]
        for place in reversed(range(len(made))):
            if sum(widths) > room and made[place][0].optional:
                left_out.insert(0, made.pop(place)[0].title)
                del widths[place]
    table = Table.grid(padding=(0, 0, 0, GAP), pad_edge=True)
    for column, _ in made:
        justify: Literal["left", "right"] = "right" if column.right else "left"
        widest = WIDEST if on_terminal() and column.optional else None
        table.add_column(justify=justify, no_wrap=True, overflow="ellipsis", max_width=widest)
    for row in zip(*(cells for _, cells in made), strict=True):
        table.add_row(*row)
    notes = [more] if more else []
    if left_out:
        notes.append(f"no room for {', '.join(left_out)}: a wider terminal shows them, and --json")
    show(*above, table, *(styled(f"  … {note}", "dim") for note in notes))


def _width(column: Column, cells: Sequence[Text]) -> int:
    width = max(cell.cell_len for cell in cells)
    return min(WIDEST, width) if column.optional else width


def _cell(cell: str | Text) -> Text:
    from rich.text import Text

    return cell if isinstance(cell, Text) else Text(inert(cell))


def size(count: int) -> str:
    """Bytes for people."""
    if count < 1000:
        return plural(count, "byte")
    power = min((len(str(count)) - 1) // 3, 4)
    return f"{count / 1000**power:.1f} {'kMGT'[power - 1]}B"


def plain(record: Record) -> dict[str, Any]:
    """What a report says, for JSON."""
    return {
        "member": record.id,
        "interval": record.interval,
        "score": record.score,
        "steps": record.total_steps,
        "hypers": record.hypers,
        "metrics": record.metrics,
    }
