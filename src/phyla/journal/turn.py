"""Turns: one lock among all threads of all processes of a machine."""

from __future__ import annotations

import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path

from phyla.errors import JournalError

if sys.platform != "win32":
    import fcntl
else:
    import msvcrt

_jitter = random.Random()
"""Of our own: the global generator belongs to the user's training loop."""


class Turn:
    """A lock on a file (flock), held by one thread of one process at a time.

    Who waits asks again after a random delay of up to 2 ms. That is fair enough (eight processes that do nothing but
    append are served within a factor of 1.5 of each other), and unlike a blocking flock it ends: with patience, or Ctrl-C.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: FileIO | None = None
        self._thread = (
            threading.Lock()
        )  # a lock on a file belongs to the open file, so it cannot tell our threads apart

    def forget(self) -> None:
        """Lets go of the file, whoever may hold the turn.

        A forked child must, for it shares the parent's open file, and would keep it locked when the parent is killed. That
        it closes its copy unlocks nothing.
        """
        file, self._file, self._thread = self._file, None, threading.Lock()
        if file is not None:
            file.close()

    @contextmanager
    def within(self, patience: float) -> Iterator[None]:
        """Holds the turn. Raises JournalError if it has not come within `patience` seconds."""
        deadline = time.monotonic() + patience
        delay = 50e-6
        thread = self._thread
        if not thread.acquire(timeout=patience):
            raise JournalError(f"another thread of this process has held {self._path} for {patience:.0f} s")
        try:
            while not self._locked():
                if time.monotonic() > deadline:
                    raise JournalError(
                        f"{self._path} has been locked for {patience:.0f} s{_holder(self._path)}. Nobody needs it for more "
                        "than milliseconds: is that process stopped, or its disk stuck? Continue it or kill it"
                    )
                time.sleep(delay * _jitter.random())
                delay = min(2 * delay, 0.002)
            yield
        finally:
            if self._file is not None:
                _unlock(self._file)
            thread.release()

    def _locked(self) -> bool:
        if self._file is None:
            self._file = FileIO(self._path, "a")
        try:
            _try_lock(self._file)
        except BlockingIOError:
            return False
        if os.fstat(self._file.fileno()).st_nlink:
            return True
        self._file.close()  # somebody took it for a leftover and removed it: lock the one that others open now
        self._file = None
        return False


if sys.platform != "win32":

    def _try_lock(file: FileIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(file: FileIO) -> None:
        fcntl.flock(file, fcntl.LOCK_UN)
else:

    def _try_lock(file: FileIO) -> None:
        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except PermissionError:
            raise BlockingIOError from None

    def _unlock(file: FileIO) -> None:
        file.seek(0)
        with suppress(OSError):  # it was not locked
            msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)


def _holder(path: Path) -> str:
    """Who holds the lock, from the kernel's table of locks where there is one, as part of a sentence."""
    try:
        stat = path.stat()
        key = f"{os.major(stat.st_dev):02x}:{os.minor(stat.st_dev):02x}:{stat.st_ino}"
        table = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except (OSError, AttributeError):  # os.major: not on Windows
        return ""
    return "".join(f" by process {line[4]}" for line in table if line[1] == "FLOCK" and line[5] == key)
