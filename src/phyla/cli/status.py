"""`phyla status`: how a run stands, in words and in a table of its members."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from phyla import host, runs
from phyla.cli.front import as_json as front_as_json
from phyla.cli.standing import Holder, Row, Standing, standing
from phyla.cli.text import (
    ROWS,
    Column,
    facts,
    hyperparameter,
    on_terminal,
    plural,
    print_json,
    show_fit,
    size,
    styled,
    words,
)
from phyla.glance import host_of, name_of, one_host, show_pace
from phyla.guidance import diversity, show_diversity
from phyla.progress import duration
from phyla.record import Record, show_hypers, show_score, show_value
from phyla.settings import Settings
from phyla.strategies.mopbt import SCORE, Front, front
from phyla.strategies.rebuild import rebuild_part

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

STYLES = {"training": "bold green", "finished": "bold"} | dict.fromkeys(("paused", "idle", "new"), "bold yellow")


def status(run: str, *, everyone: bool, json: bool) -> int:
    """Prints how a run stands; 0."""
    opened = runs.open(run)
    assert opened.path is not None  # it was opened by its path
    now = time.time()
    found = standing(opened.events(), now, host.is_gone, opened.beats())
    files = _files(runs.Place(opened.path).checkpoints)
    if json:
        print_json(_as_json(found, opened.path, files))
    else:
        _show(found, opened.path, files, now, None if everyone or not on_terminal() else ROWS)
    return 0


def _show(found: Standing, path: Path, files: tuple[int, int], now: float, limit: int | None) -> None:
    rows = found.rows[:limit]
    more = len(found.rows) - len(rows)
    several = front(found.view)
    lines = _facts(found, several, files, now)
    if more and (held := _held(found)):
        lines.insert(1, ("held", held))
    above: list[RenderableType] = [_head(found, now), styled(f"  {path}", "dim"), "", facts(lines), ""]
    show_fit(above, _members(found, several, rows), f"{more} more, of lower scores: --all shows them" if more else None)


# In words ---------------------------------------------------------------------------------------------------------------


def _head(found: Standing, now: float) -> Text:
    assert found.view.created is not None
    return words((f"{found.view.created.run}  ", "bold"), (found.state, STYLES[found.state]), (_why(found, now), ""))


def _why(found: Standing, now: float) -> str:
    quiet = f"{duration(max(0.0, now - found.last))} ago" if found.last else "an unknown time ago"
    gone = sum(1 for row in found.rows if row.holder is not None and row.holder.gone)
    match found.state:
        case "finished":
            return f": {found.view.stopped}, {quiet}" if found.view.stopped else f", {quiet}"
        case "paused":
            assert found.view.created is not None
            wait = plural(len(found.living), "worker") if found.living else "no worker"
            here = f"{wait} on this machine {'waits' if len(found.living) < 2 else 'wait'}"
            again = "" if found.living else " and start its script again"
            return f": {here}; to go on: phyla resume {found.view.created.run}{again}"
        case "new":
            return ": nobody has claimed a member yet"
        case "idle":
            left = f", {plural(gone, 'claim')} left behind" if gone else ""
            return f": nobody trains it{left}; last event {quiet}. To go on, start its script again"
    hosts = {host_of(worker) for worker in found.workers}
    where = f" on {', '.join(sorted(hosts))}" if len(hosts) <= 3 else f" on {len(hosts)} hosts"
    silent = f"; nothing was heard for {duration(found.silent)}" if found.silent else ""
    return f": {plural(len(found.workers), 'worker')}{where}{silent}"


def _facts(found: Standing, several: Front | None, files: tuple[int, int], now: float) -> list[tuple[str, str | Text]]:
    view = found.view
    settings, best = view.settings, view.best
    lines: list[tuple[str, str | Text]] = [("progress", _progress(found))]
    if found.pace:
        left = f", about {duration(found.seconds_left)} left" if found.seconds_left is not None else ""
        lines.append(("pace", f"{show_pace(found.pace)}{left}"))
    if found.began:
        # What a cohort trained together, it trained in the same seconds.
        turns = {(r.worker, r.time, r.interval): r.seconds for r in found.lineage.records}
        trained = sum(turns.values())
        whole = (found.last if found.state == "finished" else now) - found.began
        since = "from its beginning to its end" if found.state == "finished" else "since it began"
        lines.append(("time", f"{duration(max(0.0, whole))} {since}; {duration(trained)} of training"))
    where = f" (member {best.id}, interval {best.interval}): {show_hypers(best.hypers)}" if best is not None else ""
    lines.append(("best", show_score(best.score if best is not None else None) + where))
    if several is not None:
        lines.append(("front", str(several)))
    lines += [
        ("settings", _rules(settings)),
        ("space", "; ".join(f"{name} {part}" for name, part in view.space.items())),
    ]
    copies, newest = len(found.lineage.copies), len(found.lineage.roots())
    alive = f"; the weights descend from {len(found.roots)} of {found.founders} first members" if newest else ""
    lines.append(("exploits", f"{copies:,}{alive}"))
    if (found_now := diversity(view)) is not None:
        lines.append(("diversity", show_diversity(found_now)))
    if found.failed:
        lines.append(("failed", ", ".join(f"{count:,} {kind}" for kind, count in found.failed.items())))
    lines.append(("checkpoints", f"{plural(files[0], 'file')}, {size(files[1])}"))
    return lines


def _progress(found: Standing) -> str:
    view = found.view
    low, high = _span(found)
    where = f"at interval {low}" if low == high else f"at intervals {low} to {high}"
    members = plural(view.size, "member")
    if found.total is None:
        return f"{plural(found.done, 'interval')}: {members} {where}"
    each = f"× {view.intervals}" if found.total == view.size * view.intervals else f"up to interval {view.intervals}"
    line = f"{found.done:,} of {found.total:,} intervals ({found.percent}%): {members} {each}"
    return line if low == high else f"{line}; members are {where}"


def _span(found: Standing) -> tuple[int, int]:
    """The intervals that the members stand at: of the last, and of the first."""
    done = [int(found.view.done[row.member]) for row in found.rows]
    return min(done, default=0), max(done, default=0)


def _rules(settings: Settings) -> str:
    """The settings that matter, in words."""
    better = "higher" if settings.mode == "max" else "lower"
    words = [f"{settings.metric}, {better} is better" if settings.metric else f"a {better} score is better"]
    words.append(strategy_words(settings.strategy))
    ready = "every interval" if settings.ready == 1 else f"every {settings.ready} intervals"
    words.append(f"ready {ready}" + (f" after the first {settings.burn_in}" if settings.burn_in else ""))
    if settings.compare == "latest":
        words.append("compared by the latest reports")
    lead = {None: "asynchronous", 0: "synchronous generations"}
    words.append(
        lead.get(settings.max_lead) or f"at most {plural(settings.max_lead or 0, 'interval')} ahead of the last"
    )
    if settings.target is not None:
        words.append(f"until a score of {show_value(float(settings.target))}")
    return "; ".join([*words, f"seed {settings.seed}"])


def strategy_words(described: Any) -> str:
    """A described strategy, as a user would write it."""
    match described:
        case {"type": "phyla.Evolve", "exploit": None}:
            return "no exploits: random search"
        case {"type": "phyla.Evolve", "exploit": exploit, "explore": explore, "inherit": inherit}:
            copies = {"weights": ", weights only", "hypers": ", hyperparameters only"}.get(inherit, "")
            return f"{strategy_words(exploit)}, {strategy_words(explore) if explore else 'copied unchanged'}{copies}"
        case {"type": kind}:
            known = rebuild_part(described)
            return repr(known) if known is not None else f"{kind} (the user's own)"
    return "a strategy of the user's own"


# The members ------------------------------------------------------------------------------------------------------------


def _members(found: Standing, several: Front | None, rows: Sequence[Row]) -> list[Column]:
    short, score = one_host(found.workers), found.view.settings.metric or SCORE
    beside = [name for name in several.objectives if name != score] if several is not None else []
    return [
        Column("member", [str(row.member) for row in rows], right=True),
        Column("interval", [_interval(row.record) for row in rows], right=True),
        Column("score", [_score(row.record) for row in rows], right=True),
        *(Column(name, [_metric(row.record, name) for row in rows], right=True) for name in beside),
        *(hyperparameter(name, [row.hypers.get(name) for row in rows]) for name in found.view.space),
        Column("copied", [f"m{row.copied[0]} at {row.copied[1]}" if row.copied else "" for row in rows]),
        Column("worker", [_holder(row, short) for row in rows]),
    ]


def _interval(record: Record | None) -> str:
    return str(record.interval) if record is not None else "0"


def _score(record: Record | None) -> str:
    return show_score(record.score) if record is not None and record.score is not None else "none yet"


def _metric(record: Record | None, name: str) -> str:
    metrics = record.metrics if record is not None else None
    return show_value(value) if metrics and (value := metrics.get(name)) is not None else "none yet"


def _holder(row: Row, short: bool) -> str | Text:
    holder = row.holder
    if holder is None:
        return styled("done" if row.done else "free", "dim")
    name = name_of(holder.claim.worker, short=short)
    if holder.gone:
        return styled(f"{name} is gone", "yellow")
    return name if holder.age is None else f"{name} for {duration(holder.age)}"


def _held(found: Standing, most: int = 4) -> str:
    """Who trains what, in a line: the table may not reach so far down."""
    held = sorted((row for row in found.rows if row.holder is not None), key=lambda row: row.member)
    short = one_host(found.workers)
    parts = [f"m{row.member}: {_holder(row, short)}" for row in held[:most]]
    return "; ".join([*parts, f"{len(held) - most} more"] if len(held) > most else parts)


# As JSON ----------------------------------------------------------------------------------------------------------------


def _as_json(found: Standing, path: Path, files: tuple[int, int]) -> dict[str, Any]:
    view, best = found.view, found.view.best
    assert view.created is not None
    return {
        "name": view.created.run,
        "path": str(path),
        "version": view.created.version,
        "state": found.state,
        "stopped": view.stopped,
        "settings": msgspec.to_builtins(view.settings),
        "intervals": {
            "done": found.done,
            "total": found.total,
            "each": view.intervals if found.total is not None else None,
            "first": _span(found)[1],
            "last": _span(found)[0],
        },
        "pace": found.pace,
        "seconds_left": found.seconds_left,
        "began": found.began,
        "last_event": found.last,
        "workers": sorted(found.workers | found.living),
        "best": _record_as_json(best) if best is not None else None,
        "front": front_as_json(several, runs.Place(path).checkpoints) if (several := front(view)) is not None else None,
        "exploits": len(found.lineage.copies),
        "failed": found.failed,
        "roots": sorted(found.roots),
        "diversity": asdict(spread) if (spread := diversity(view)) is not None else None,
        "checkpoints": {"files": files[0], "bytes": files[1]},
        "members": [_member_as_json(row) for row in found.rows],
    }


def _record_as_json(record: Record) -> dict[str, Any]:
    return {"member": record.id, "interval": record.interval, "score": record.score, "hypers": record.hypers}


def _member_as_json(row: Row) -> dict[str, Any]:
    record, copied, holder = row.record, row.copied, row.holder
    return {
        "member": row.member,
        "interval": record.interval if record is not None else 0,
        "score": record.score if record is not None else None,
        "steps": record.total_steps if record is not None else 0,
        "hypers": row.hypers,
        "copied": None if copied is None else {"member": copied[0], "interval": copied[1]},
        "claim": _holder_as_json(holder) if holder is not None else None,
        "done": row.done,
    }


def _holder_as_json(holder: Holder) -> dict[str, Any]:
    claim = holder.claim
    return {
        "worker": claim.worker,
        "interval": claim.interval,
        "span": claim.span,
        "seconds": holder.age,
        "gone": holder.gone,
        "hypers": claim.hypers,
        "donor": claim.donor.member if claim.donor is not None else None,
    }


def _files(directory: Path) -> tuple[int, int]:
    """How many files are there, and their bytes together; they may go while they are counted."""
    count = total = 0
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                try:
                    total += entry.stat(follow_symlinks=False).st_size
                    count += 1
                except FileNotFoundError:
                    continue
    except OSError:
        pass
    return count, total
