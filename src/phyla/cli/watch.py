"""`phyla watch`: a run that somebody else trains, as it goes on."""

from __future__ import annotations

import sys
import time
from typing import Any

from phyla import runs
from phyla.cli import INTERRUPTED
from phyla.cli.text import plain, print_json
from phyla.feed import Effect, Exploit, Failure, Feed
from phyla.record import Record
from phyla.runs import Run

SECONDS = 0.25
"""Between two looks at the run."""


def watch(run: str, *, json: bool) -> int:
    """Shows a run until it is finished, or Ctrl-C; the exit code."""
    opened = runs.open(run)
    try:
        if json:
            _print(opened)
        else:
            _show(opened)
    except KeyboardInterrupt:  # the way to leave a run that goes on: nothing to complain of
        return INTERRUPTED
    return 0


def _show(run: Run) -> None:
    from phyla.screen import Screen

    screen = Screen(run)
    try:
        while not run.view.finished:
            screen.refresh()
            time.sleep(SECONDS)
        screen.refresh()
    finally:
        screen.close()


def _print(run: Run) -> None:
    feed = Feed(run)
    while True:
        for effect in feed.read():
            print_json(as_json(effect), indent=None)
        sys.stdout.flush()
        if feed.view.finished:
            return
        time.sleep(SECONDS)


def as_json(effect: Effect) -> dict[str, Any]:
    """What has happened, for other programs."""
    match effect:
        case Exploit():
            donor = effect.donor
            return {
                "kind": "exploit",
                "member": effect.member,
                "interval": effect.interval,
                "donor": {"member": donor.id, "interval": donor.interval, "score": donor.score},
                "score": effect.before.score if effect.before is not None else None,
                "before": effect.before.hypers if effect.before is not None else None,
                "after": effect.hypers,
                "time": effect.time,
            }
        case Failure():
            return {
                "kind": "failure",
                "member": effect.member,
                "interval": effect.interval,
                "why": effect.why,
                "error": effect.error,
                "time": effect.time,
            }
        case report:
            return {"kind": "report", **_report(report.record)}


def _report(record: Record) -> dict[str, Any]:
    return {**plain(record), "worker": record.worker, "seconds": record.seconds, "time": record.time}
