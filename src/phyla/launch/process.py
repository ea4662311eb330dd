"""One worker's place in a launch: its process, started again and again, its process group, its log."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import IO

from phyla import launched
from phyla.launch.plan import Plan

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds from a death to the next start; doubled from one to the next, until the worker has reported."""

READ_BYTES = 65_536
"""Of a log's end, where its last lines are looked for."""

WITH_HEADER = """printf -- '--- %s pid %s %s\\n' "$0" "$$" "$1"; shift; exec "$@" """
"""A shell's program that writes the header of a log and becomes the worker: who writes first is also who has that pid."""

OWN_SIGNALS = frozenset(
    getattr(signal, name) for name in ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL") if hasattr(signal, name)
)
"""Signals that a process dies of by what it does itself."""


class Process:
    """Worker `number` of a launch. code: how its process ended; None before that."""

    def __init__(self, number: int, plan: Plan, launch: Path):
        self.number = number
        self.code: int | None = None
        self.retired = False  # it is not to be started again
        self.failed = False  # after the end of the run
        self.start_at = 0.0  # on the monotonic clock, if it is not running
        self._plan = plan
        self._launch = launch
        self._deaths = 0  # since it last reported
        self._process: subprocess.Popen[bytes] | None = None
        self._log = launch / launched.log_name(number)

    def __str__(self) -> str:
        return f"w{self.number}"

    @property
    def pid(self) -> int:
        """Of its newest process; 0 before the first."""
        return self._process.pid if self._process is not None else 0

    @property
    def running(self) -> bool:
        return self._process is not None and self.code is None

    @property
    def waiting(self) -> bool:
        """It is to be started when its pause is over."""
        return not self.running and not self.retired

    def start(self, run: Path | None) -> None:
        """Starts a process, whose log is the run's if that is known. It leads a session and so a process group of its own."""
        if run is not None:
            self._log = run / "logs" / launched.log_name(self.number)
            self._log.parent.mkdir(mode=0o700, exist_ok=True)
        command = list(self._plan.command)
        began = f"{datetime.now():%Y-%m-%d %H:%M:%S}: {shlex.join(command)} ---"
        with open(self._log, "ab", opener=_private) as log:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", WITH_HEADER, str(self), began, *command],
                stdin=subprocess.PIPE if self._plan.payload else subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._plan.variables(self.number, self._launch),
                start_new_session=True,
            )
            self.code = None
        if self._process.stdin is not None:
            pipe = self._process.stdin
            threading.Thread(target=_feed, args=(pipe, self._plan.payload), daemon=True).start()

    def has_ended(self) -> bool:
        """Whether its process has just ended. What is left of its group is killed then: data loaders, servers."""
        if self._process is None or self.code is not None or (code := self._process.poll()) is None:
            return False
        self.code = code
        self.kill()
        return True

    def pause(self, *, reported: bool) -> float:
        """After a death: how long until it is to be started again. reported: the process that died had reported before."""
        self._deaths = 0 if reported else self._deaths
        pause: float = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._deaths, 10))
        self._deaths += 1
        self.start_at = time.monotonic() + pause
        return pause

    def ask(self) -> None:
        """Asks the process to end, and not its group: it knows best what its children are in the middle of."""
        if self._process is not None and self.running:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Ends what is left of the process group."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def end(self) -> None:
        """Ends the process, if it still runs."""
        if self._process is not None and self.running:
            self.kill()
            self.code = self._process.wait()

    # How it ended ---------------------------------------------------------------------------------------------------

    @property
    def crashed(self) -> bool:
        """It died of a signal of its own making."""
        return self.code is not None and -self.code in OWN_SIGNALS

    @property
    def how(self) -> str:
        """How its process ended, in words."""
        if self.code is None or self.code >= 0:
            return f"ended with code {self.code}"
        try:
            name = signal.Signals(-self.code).name
        except ValueError:
            name = f"signal {-self.code}"
        return f"was killed ({name}), by a person or for want of memory" if name == "SIGKILL" else f"died of {name}"

    # What it said ---------------------------------------------------------------------------------------------------

    def log(self, run: Path | None) -> Path:
        """Where its process's log lies, once it has joined this run."""
        there = run / "logs" / launched.log_name(self.number) if run is not None else self._log
        return there if there.exists() else self._log

    def lines(self, run: Path | None) -> list[str]:
        """What its process has printed lately."""
        try:
            with open(self.log(run), "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - READ_BYTES))
                lines = file.read().decode(errors="replace").splitlines()
        except OSError:
            return []
        header = f"--- {self} pid {self.pid} "
        begins = [place for place, line in enumerate(lines) if line.startswith(header)]
        return lines[begins[-1] + 1 if begins else 0 :]


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _feed(pipe: IO[bytes], payload: bytes) -> None:
    with contextlib.suppress(OSError), pipe:  # one that died at once reads nothing
        pipe.write(payload)
