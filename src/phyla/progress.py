"""What a run says of itself: a line while it trains, and a summary at its end."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from phyla.glance import budget, plural, trained
from phyla.record import schedule_lines, show_hypers, show_score
from phyla.runs import Run
from phyla.view import View

EVERY_SECONDS = 0.2


class Progress:
    """One line that stays in place on a terminal; nothing elsewhere, unless `enabled` is True."""

    def __init__(self, name: str, enabled: bool | None, stream: TextIO | None = None):
        self._name = name
        self._stream = stream if stream is not None else sys.stderr
        self._terminal = self._stream.isatty()
        self._enabled = self._terminal if enabled is None else enabled
        self._next = 0.0
        self._began: tuple[float, int] | None = None
        self._width = 0

    def show(self, view: View) -> None:
        """Shows how far the run is, a few times a second (every 30 seconds where it is not a terminal)."""
        now = time.monotonic()
        if not self._enabled or now < self._next:
            return
        self._next = now + (EVERY_SECONDS if self._terminal else 30.0)
        done = trained(view)
        if self._began is None:
            self._began = now, done
        line = self._line(view, done, now)
        if self._terminal:
            self._stream.write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def _line(self, view: View, done: int, now: float) -> str:
        assert self._began is not None
        parts = [self._name]
        rate = (done - self._began[1]) / (now - self._began[0]) if now > self._began[0] else 0.0
        total = budget(view)
        parts.append(f"{done}/{total} intervals" if total is not None else plural(done, "interval"))
        if view.best is not None:
            parts.append(f"best {show_score(view.best.score)} (member {view.best.id}, interval {view.best.interval})")
        if rate > 0:
            parts.append(f"{rate:.3g}/s")
            if total is not None:
                parts.append(f"{duration((total - done) / rate)} left")
        return "  ".join(parts)

    def close(self) -> None:
        """Clears the line."""
        if self._enabled and self._terminal and self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._stream.flush()
        self._width = 0


def duration(seconds: float) -> str:
    """Seconds for people."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return (
        f"{whole // 60} min {whole % 60:02d} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    )


def summary(run: Run, *, whole: bool = True) -> str:
    """What a run came to: the best model, its schedule, and how to load it. Not whole: one line."""
    view, best = run.view, run.best
    why = f" ({view.stopped})" if view.stopped else ""
    head = f"{run.name} is finished{why}: {plural(view.size, 'member')}, {plural(trained(view), 'interval')}"
    if best is None:
        return f"{head}; {_without_best(view)}"
    if not whole:
        return f"{head}; best score {show_score(best.score)}"
    where = str(run.path) if run.path is not None else None
    lines = [
        f"{head}, {plural(len(run.lineage().copies), 'exploit')}",
        f"  best score  {show_score(best.score)} (member {best.id}, interval {best.interval})",
        f"  trained at  {show_hypers(best.hypers)}",
        *(f"  {'' if place else 'schedule':10}  {line}" for place, line in enumerate(schedule_lines(best))),
    ]
    if (front := run.front) is not None:
        lines.append(f"  front       {front}")
        lines += [f"  {'':10}  phyla best {where} shows it, and how to load it"] if where is not None else []
    if where is not None:
        lines += [
            f"  checkpoint  {where}/checkpoints/{best.checkpoint.file}",
            f"  load it     run = phyla.open({where!r}); state = run.restore(run.best, init)",
        ]
    return "\n".join(lines)


def _without_best(view: View) -> str:
    if all(record.score is None for record in view.records.values()):
        return "no score was reported"
    if not any(record.finite for record in view.records.values()):
        return "every score was NaN or infinite: all members have diverged"
    return "no checkpoint with a finite score is left"
