"""What a run came to: `phyla best`, `final`, `schedule`, `lineage`, `export`."""

from __future__ import annotations

import csv
import io
import itertools
from collections import defaultdict
from pathlib import Path
from typing import Any

import msgspec

from phyla import runs
from phyla.cli.front import as_json as front_as_json
from phyla.cli.front import print_front
from phyla.cli.standing import founders
from phyla.cli.text import (
    Column,
    facts,
    hyperparameter,
    inert,
    on_terminal,
    plain,
    plural,
    print_json,
    show,
    show_fit,
    size,
    words,
    write,
)
from phyla.errors import SettingsError
from phyla.events import as_json_number, encode
from phyla.glance import active
from phyla.lineage import Copy, Schedule
from phyla.record import Record, schedule_lines, show_hypers, show_score
from phyla.runs import Run


def best(run: str, *, final: bool, json: bool) -> int:
    """Prints the best report of a run, or the best of those that its members stand at; of several objectives, the front."""
    opened = runs.open(run)
    word = "final" if final else "best"
    record = opened.final if final else opened.best
    if record is None:
        raise SettingsError(f"{opened.path} has no score yet, so nothing is {word}")
    where = opened.path / "checkpoints" / record.checkpoint.file if opened.path is not None else Path()
    front = opened.front if not final and opened.path is not None else None
    if json:
        found = _as_json(record, opened.schedule(record), where)
        print_json(found if front is None else {**found, "front": front_as_json(front, where.parent)})
        return 0
    if front is not None:
        print_front(opened, front)
        return 0
    settings = opened.settings
    rule = f"{settings.metric or 'score'}, {'higher' if settings.mode == 'max' else 'lower'} is better"
    at = f"  (member {record.id}, interval {record.interval}; {rule})"
    head = words((f"{opened.name}  ", "bold"), (f"{word} {show_score(record.score)}", "bold green"), (at, ""))
    members = _through(record)
    lines = [("hyperparameters", show_hypers(record.hypers))]
    lines += [("" if place else "schedule", line) for place, line in enumerate(schedule_lines(record))]
    lines += [
        ("trained", f"{plural(sum(r.span for r in record.ancestry()), 'interval')}, {_steps(record)} steps; {members}"),
        ("checkpoint", f"{where} ({size(record.checkpoint.size)}{_row(record)})"),
        ("load it", f"run = phyla.open({str(opened.path)!r})"),
        ("", f"state = run.restore(run.{word}, init)  # live objects"),
        ("", f"tree = run.load(run.{word})            # as saved"),
    ]
    show(head, "", facts(lines))
    return 0


def _through(record: Record) -> str:
    """Whose weights these were, in turn."""
    members = [ancestor.id for ancestor in record.ancestry()]
    turns = [member for member, before in zip(members, [None, *members], strict=False) if member != before]
    if len(turns) == 1:
        return f"all as member {turns[0]}"
    shown = turns if len(turns) <= 12 else [*turns[:6], "…", *turns[-5:]]
    return f"as member {' → '.join(map(str, shown))}"


def _steps(record: Record) -> str:
    return f"{sum(ancestor.steps for ancestor in record.ancestry()):g}"


def _row(record: Record) -> str:
    return f", row {record.checkpoint.row}" if record.checkpoint.row is not None else ""


def _as_json(record: Record, schedule: Schedule, where: Path) -> dict[str, Any]:
    return {
        **plain(record),
        "schedule": msgspec.json.decode(schedule.to_json()),
        "checkpoint": {"path": str(where), **msgspec.to_builtins(record.checkpoint)},
    }


def schedule(run: str, *, member: int | None, out: Path | None, json: bool) -> int:
    """Prints or saves the schedule of the best report, or of the one that a member stands at."""
    opened = runs.open(run)
    record = _newest(opened, member) if member is not None else opened.best
    if record is None:
        raise SettingsError(f"{opened.path} has no score yet, so nothing is best; --member M gives the schedule of any")
    found = opened.schedule(record)
    if out is not None:
        write(found.to_json() + "\n", out)
        print(f"saved in {inert(out)}; to use it: phyla.Schedule.load({str(out)!r}).at(steps)")
    elif json:
        print(found.to_json())
    else:
        _show_schedule(opened.name, record, found)
    return 0


def _newest(run: Run, member: int) -> Record:
    last = len(run.view.head) - 1
    if not 0 <= member <= last:
        raise SettingsError(f"--member {member}: this run has members 0 to {last}")
    record = run.view.newest(member)
    if record is None:
        raise SettingsError(f"--member {member}: it has not reported yet, so it has no schedule")
    return record


def _show_schedule(name: str, record: Record, found: Schedule) -> None:
    pieces = [hypers for _, hypers in found]
    columns = [
        Column("from step", [f"{start:g}" for start, _ in found], right=True),
        Column("interval", [str(interval) for interval in _first_intervals(record)], right=True),
    ]
    for title in record.hypers:
        values = [hypers.get(title) for hypers in pieces]
        # What changes stands out; what stays is there, in the background.
        styles = ["", *("dim" if value == before else "" for before, value in itertools.pairwise(values))]
        columns.append(hyperparameter(title, values, styles))
    what = (
        f"  (member {record.id}, interval {record.interval}): {plural(len(found), 'piece')} over {found.total:g} steps"
    )
    score = show_score(record.score)
    show_fit([words((f"{name}  ", "bold"), ("schedule of ", ""), (score, "bold green"), (what, "")), ""], columns)


def _first_intervals(record: Record) -> list[int]:
    """The first interval of each piece of a record's schedule, as `best` names them."""
    found, hypers, done = list[int](), None, 0
    for ancestor in record.ancestry():
        if ancestor.steps and ancestor.hypers != hypers:
            found.append(done + 1)
            hypers = ancestor.hypers
        done = ancestor.interval
    return found or [1]


def lineage(run: str, *, json: bool) -> int:
    """Prints every exploit, and whose first weights are alive."""
    opened = runs.open(run)
    tree = opened.lineage()
    if json:
        print_json([_copy_as_json(copy) for copy in tree.copies])
        return 0
    for copy in tree.copies:
        print(inert(copy))
    families: dict[int, list[int]] = defaultdict(list)
    view = opened.view
    training = set(active(view))
    for member, root in tree.roots().items():
        if member in training:
            families[root].append(member)
    if not families:
        print("no member has reported yet")
        return 0
    if tree.copies:
        print()
    alive = f"the weights descend from {len(families)} of {founders(view)} first members"
    print(f"{plural(len(tree.copies), 'exploit')}; {alive}:")
    for root, members in sorted(families.items(), key=lambda item: (-len(item[1]), item[0])):
        print(f"  m{root} in {plural(len(members), 'member')}: {', '.join(f'm{member}' for member in members)}")
    return 0


def _copy_as_json(copy: Copy) -> dict[str, Any]:
    donor = copy.donor
    return {
        "member": copy.member,
        "interval": copy.interval,
        "donor": {"member": donor.id, "interval": donor.interval, "score": donor.score},
        "score": copy.before.score if copy.before is not None else None,
        "before": copy.before.hypers if copy.before is not None else None,
        "after": copy.after.hypers,
    }


def export(run: str, *, table: bool, out: Path | None) -> int:
    """Prints or saves every event as JSON, one a line; or every report as a row of CSV."""
    opened = runs.open(run)
    if table:
        write(_csv(opened), out)
    else:
        write("".join(encode(event).decode() + "\n" for event in opened.events()), out)
    return 0


def _csv(run: Run) -> str:
    rows = run.rows()
    titles = list(dict.fromkeys(title for row in rows for title in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(titles)
    writer.writerows([_csv_cell(row.get(title)) for title in titles] for row in rows)
    if not on_terminal():
        return text.getvalue()
    return "".join(inert(line) + "\n" for line in text.getvalue().split("\n")[:-1])


def _csv_cell(value: Any) -> Any:
    return as_json_number(value) if isinstance(value, float) else value


def plot(name: str, *, out: Path | None) -> int:
    """A picture of a run."""
    from phyla.plots import plot

    run = runs.open(name)
    file = out if out is not None else Path(f"{run.name}.png")
    plot(run, file)
    print(inert(str(file)))
    return 0
