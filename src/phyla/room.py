"""How much room a run's checkpoints take on their disk, and a word in time where there is less.

What is kept at one time follows from the view's retention rules (`View._release`). Of each member: its newest `keep`; the
newest that is synced, where that is older; the source of its open claim, or of one that was lost or given back, where that
is older or another's; and the file that is being written. Of the run: the best ever. What a strategy retains comes on top.
"""

from __future__ import annotations

import itertools
import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from phyla.view import View

log = logging.getLogger("phyla")

EVERY_SECONDS = 5.0
"""How often the disk is looked at, at most."""

BESIDE = 3
"""Files of a member beside its newest `keep`: the synced one, the source of its claim, the one that is being written."""


class Need(NamedTuple):
    """Bytes of a run's checkpoints."""

    each: int  # of one member's, lately
    there: int  # that members stand at and fall back on now
    usual: int  # at one time, when workers keep up with syncing and hold few members
    most: int  # at one time, by the rules
    soon: int  # more than now, before every member has trained its next interval


def need(view: View) -> Need | None:
    """What a run needs, going by the newest checkpoint of each member; None before the first."""
    records = [history[-1] for history in view.history if history]
    if not records:
        return None
    rows = Counter(record.checkpoint.file for record in records)  # a cohort's members share a file
    each = max(record.checkpoint.size // rows[record.checkpoint.file] for record in records)
    keep, trains = view.settings.keep, False
    there, usual, most, grows = 0, 1, 1, 0  # one for the best
    for member, history in enumerate(view.history):
        saved = (record for record in reversed(history) if record.checkpoint.saved)
        count = sum(not record.freed for record in itertools.islice(saved, keep))
        on = view.active[member] and view.stopped is None
        left = max(0, int(view.intervals - view.done[member])) if on else 0
        there += count
        usual += max(count, min(keep, count + left))
        most += min(keep + BESIDE, count + left + 2)  # it may have a synced one and a source beside those already
        grows += left > 0 and count < keep
        trains = trains or left > 0
    held = max(1, sum(claim is not None for claim in view.open))  # written before an older one goes
    soon = grows + held if trains else 0
    return Need(each, each * there, each * usual, each * most, each * soon)


class Room:
    """Looks whether there is room for a run, every few seconds, and says once what is wrong.

    root: the directory of its checkpoints; None where they are in memory. free: bytes that are free on the disk of a
    directory.
    """

    def __init__(self, root: Path | None, free: Callable[[Path], int] = lambda root: shutil.disk_usage(root).free):
        self._root = root
        self._free = free
        self._next = 0.0
        self._begun = self._low = False

    def look(self, view: View) -> None:
        """To be called after each report: mostly it is a glance at the clock."""
        now = time.monotonic()
        if self._root is None or now < self._next:
            return
        self._next = now + EVERY_SECONDS
        needed = need(view)
        if needed is None:
            return
        try:
            free = self._free(self._root)
        except OSError:
            return
        if free < needed.soon:
            if not self._low:
                log.warning("%s", _nearly_full(self._root, needed, free))
            self._low = True
        elif not self._begun and free < needed.most - needed.there:
            log.warning("%s", _may_fill(self._root, needed, free, view))
        self._low = self._low and free < 2 * needed.soon  # it has to be told again only if there was room meanwhile
        self._begun = True


WAYS_OUT = (
    "Make room; or stop the run, move its directory to a larger disk, and name that: Population(path=…) or $PHYLA_RUNS"
)


def _may_fill(root: Path, needed: Need, free: int, view: View) -> str:
    rule = f"{view.size} members × up to {view.settings.keep + BESIDE} of {_bytes(needed.each)}, and the best"
    return (
        f"{root.absolute()}: this run's checkpoints may come to {_bytes(needed.most)} ({rule}; mostly {_bytes(needed.usual)}). "
        f"{_bytes(needed.there)} are there, and {_bytes(free)} are free on that disk. {WAYS_OUT}. A new run needs less with "
        "fewer members or a smaller keep"
    )


def _nearly_full(root: Path, needed: Need, free: int) -> str:
    return (
        f"{root.absolute()}: the disk is nearly full. {_bytes(free)} are free, and the next interval of all members needs "
        f"{_bytes(needed.soon)} more ({_bytes(needed.each)} a checkpoint). {WAYS_OUT}. If it fills up, the script ends with an "
        "error, nothing is lost, and it goes on from there when it is started again"
    )


def _bytes(count: int) -> str:
    """Bytes for people."""
    if count < 1000:
        return f"{count} bytes"
    power = min((len(str(count)) - 1) // 3, 4)
    return f"{count / 1000**power:.1f} {'kMGT'[power - 1]}B"
