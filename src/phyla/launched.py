"""What a worker owes the launcher that started it, if one did: `phyla run` names a private directory in $PHYLA_LAUNCH."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

VARIABLE = "PHYLA_LAUNCH"


class Joined(NamedTuple):
    """A process has joined a run."""

    run: Path  # the run's directory, absolute
    journal: str  # its kind
    worker: str  # the process's worker id there


def folder() -> Path | None:
    """The launch's directory; None if nobody launched this process."""
    given = os.environ.get(VARIABLE)
    return Path(given) if given else None


def announce(joined: Joined) -> None:
    """Tells the launcher which run this process has joined, and as whom."""
    launch = folder()
    if launch is not None:
        line = json.dumps([str(joined.run), joined.journal, joined.worker])
        with open(launch / f"{os.getpid()}.joined", "a", encoding="utf-8") as file:
            file.write(f"{line}\n")


def announced(launch: Path, pid: int) -> list[Joined]:
    """What a process has announced, oldest first; it may be writing just now."""
    try:
        lines = (launch / f"{pid}.joined").read_text(encoding="utf-8").split("\n")[:-1]
    except FileNotFoundError:
        return []
    return [Joined(Path(run), journal, worker) for run, journal, worker in map(json.loads, lines)]


@contextlib.contextmanager
def first(key: str) -> Iterator[bool]:
    """Whether nobody of this launch has been here before; others wait meanwhile. Without a launcher everybody is first."""
    launch = folder()
    if launch is None:
        yield True
        return
    with open(launch / f"{key}.first", "a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        yield not file.read()
        file.write(b"done")
