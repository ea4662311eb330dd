"""A worker's pulse: a small process that beats for it, even while the worker's body holds the interpreter's lock.

It beats only for a parent that runs: a stopped one (SIGSTOP, a suspended job) falls silent, so that others take over, and
when the parent is gone it ends. It also ends a parent that trains one interval for longer than `interval_timeout`: a body
that hangs cannot end itself.

The parent tells it on its standard input what it has in hand: a JSON list of [member, seq, interval], and the seconds that this
may take from now on; an empty list when that has ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from phyla import host, runs
from phyla.errors import Conflict, PhylaError
from phyla.events import Claimed, Failed
from phyla.journal import Journal
from phyla.runs import Place

LOOK_SECONDS = 0.25
"""How often it looks whether its parent still lives."""

_PROGRAM = """
import os, sys, time
end = time.monotonic() + {every!r}  # the first beat was its parent's; what ends before the second costs next to nothing
while time.monotonic() < end:
    time.sleep({look!r})
    if os.getppid() != {parent!r}:
        sys.exit()
sys.path[:] = {path!r}  # its parent's, however it came about
from phyla.pulse import main
main({arguments!r})
"""

_PARENTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that are the parent's to answer, though a terminal sends them to both."""


class Pulse:
    """The process that beats for this one, as seen from here."""

    def __init__(self, place: Place, worker: str, every: float):
        arguments = {"parent": os.getpid(), "path": str(place.path.absolute()), "journal": place.journal}
        arguments |= {"worker": worker, "every": every}
        path, given = [*sys.path, str(Path(__file__).parent.parent)], json.dumps(arguments)
        program = _PROGRAM.format(every=every, look=LOOK_SECONDS, parent=os.getpid(), path=path, arguments=given)
        unblocked = signal.pthread_sigmask(
            signal.SIG_BLOCK, _PARENTS
        )  # which the child inherits, from its first moment on
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-S", "-P", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, bufsize=0
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)

    @property
    def beats(self) -> bool:
        """Whether it lives."""
        return self._process.poll() is None

    def watch(self, claims: Sequence[Claimed], seconds: float) -> None:
        """From now on these claims are trained, and after so many seconds they hang; none: nothing is in hand."""
        self._tell([[[claim.member, claim.seq, claim.interval] for claim in claims], seconds])

    def _tell(self, message: Any) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):  # it is gone, or behind: what it does not hear it does not judge
            self._process.stdin.write(json.dumps(message).encode() + b"\n")

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()


# The process itself ------------------------------------------------------------------------------------------------------


def main(arguments: str) -> None:
    """Beats until the parent is gone."""
    given = json.loads(arguments)
    parent, worker, every = given["parent"], given["worker"], given["every"]
    place = Place(Path(given["path"]), given["journal"])
    if os.getppid() != parent or not place.path.exists():
        return  # a run that is gone is not to come back
    journal, _ = runs.open_for_work(place)
    orders, next_beat = _Orders(), 0.0
    while os.getppid() == parent and not orders.closed:
        lives = host.runs(parent)
        if lives and time.monotonic() >= next_beat:
            with contextlib.suppress(PhylaError):  # the next one may succeed; whoever cannot read either does not judge
                journal.beat(worker)
            next_beat = time.monotonic() + every
        orders.wait(LOOK_SECONDS, lives)
        if orders.overdue and os.getppid() == parent:
            _end_hanging(journal, parent, orders)


class _Orders:
    """What the parent has in hand, and for how long it has worked on it: while it is stopped, no time passes."""

    def __init__(self) -> None:
        self.claims: list[list[int]] = []
        self.seconds = 0.0
        self.closed = False  # the parent is another program now
        self._spent = 0.0
        self._buffer = b""

    @property
    def overdue(self) -> bool:
        return bool(self.claims) and self._spent > self.seconds

    def wait(self, timeout: float, lives: bool) -> None:
        """Takes what the parent says within this time. lives: it is not stopped."""
        began = time.monotonic()
        told = select.select([0], [], [], timeout)[0]
        if lives:
            self._spent += min(time.monotonic() - began, 2 * timeout)
        if not told:
            return
        data = os.read(0, 65536)
        self.closed = not data
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        if lines:
            self.claims, self.seconds = json.loads(lines[-1])
            self._spent = 0.0


def _end_hanging(journal: Journal, parent: int, orders: _Orders) -> None:
    """Records that these claims hang, and kills the parent."""
    error = f"trained for longer than interval_timeout={orders.seconds:g} s"
    events = [
        Failed(member=member, seq=seq + 1, interval=interval, why="hung", error=error, time=time.time())
        for member, seq, interval in orders.claims
    ]
    try:
        journal.append(*events)
    except Conflict:  # it has just reported, or has lost them
        orders.claims = []
        return
    except PhylaError:
        return  # the journal is away; tried again soon
    names = ", ".join(f"member {member}, interval {interval}" for member, _, interval in orders.claims)
    print(f"phyla: {names}: {error}; this process is killed", file=sys.stderr, flush=True)
    os.kill(parent, signal.SIGKILL)
