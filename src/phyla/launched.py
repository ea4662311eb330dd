"""What a worker owes the launcher that started it, if one did: `phyla run` names a private directory in $PHYLA_LAUNCH.

`phyla compare` says in $PHYLA_CELL what a process is to train, or in $PHYLA_DESCRIBE where to say what there is to compare.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from phyla.errors import SettingsError

VARIABLE = "PHYLA_LAUNCH"
NUMBER = "PHYLA_WORKER"
"""Names the variable that says which of the launch's workers a process is, from 1."""
CELL, DESCRIBE = "PHYLA_CELL", "PHYLA_DESCRIBE"


class Joined(NamedTuple):
    """A process has joined a run."""

    run: Path  # the run's directory, absolute
    journal: str  # its kind
    worker: str  # the process's worker id there


class Cell(NamedTuple):
    """What a comparison has a script train: one arm of it, from one seed."""

    population: str  # the name of the one that is compared
    arm: str
    seed: int
    path: str  # the directory that holds its run, absolute

    def variable(self) -> dict[str, str]:
        """The environment by which a process is told so."""
        return {CELL: json.dumps(self)}


def cell() -> Cell | None:
    """What `phyla compare` has started this process for; None if it did not."""
    given = os.environ.get(CELL)
    return Cell(*json.loads(given)) if given else None


def description() -> Path | None:
    """Where the first population of this process is to say what can be compared, instead of being trained."""
    given = os.environ.get(DESCRIBE)
    return Path(given) if given else None


def folder() -> Path | None:
    """The launch's directory; None if nobody launched this process."""
    given = os.environ.get(VARIABLE)
    return Path(given) if given else None


def announce(joined: Joined) -> None:
    """Tells the launcher which run this process has joined, and as whom; from here on its log lies with that run."""
    launch = folder()
    if launch is not None:
        with contextlib.suppress(OSError):
            _move_log(launch, joined.run)
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


def announcements(launch: Path) -> dict[int, list[Joined]]:
    """What every process of a launch has announced, by its pid, the first that joined first."""
    files = sorted(launch.glob("*.joined"), key=lambda file: file.stat().st_ctime_ns)
    return {int(file.stem): announced(launch, int(file.stem)) for file in files}


def forget(launch: Path, pid: int) -> None:
    """Drops what a process has announced, so that a later one of the same pid is not taken for it."""
    for ending in ("joined", "ended"):
        (launch / f"{pid}.{ending}").unlink(missing_ok=True)


def log_name(number: int | str) -> str:
    """What the log of a launch's worker is called, in the launch's directory and in a run's."""
    return f"worker-{number}.log"


def _move_log(launch: Path, run: Path) -> None:
    """Sends what this process prints from here on to the run's own log; what it has printed so far goes before.

    The process does so itself, and no pipe is between: its log is whole, whatever happens to the launcher. Only the streams
    that the launcher gave it are moved, not those that the script has sent elsewhere.
    """
    number = os.environ.get(NUMBER)
    if number is None:
        return
    here = launch / log_name(number)
    status = here.stat()
    streams = [file for file in (1, 2) if os.path.samestat(os.fstat(file), status)]
    if not streams:
        return
    _flush()
    (run / "logs").mkdir(mode=0o700, exist_ok=True)
    there = os.open(run / "logs" / here.name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with open(there, "ab", buffering=0) as log:
        log.write(here.read_bytes())
        for file in streams:
            os.dup2(there, file)
    os.truncate(here, 0)


def ended() -> None:
    """Tells the launcher that the loop is over: what this process prints from here on is what the script has to say."""
    launch = folder()
    if launch is not None:
        _flush()
        with contextlib.suppress(OSError):
            (launch / f"{os.getpid()}.ended").write_text(str(os.fstat(1).st_size))


def said_after(launch: Path, pid: int, log: Path) -> str:
    """What a process has printed after its (last) loop; nothing if its loop was left before its end."""
    try:
        start = int((launch / f"{pid}.ended").read_text())
        with open(log, "rb") as file:
            file.seek(start)
            return file.read().decode(errors="replace")
    except (OSError, ValueError):
        return ""


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.flush()


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


def deadline() -> float | None:
    """When this process should have ended, in seconds since 1970: nothing is claimed that cannot end by then."""
    return _number("PHYLA_DEADLINE")


def lease() -> float | None:
    """The lease that the launcher was given, in seconds."""
    return _number("PHYLA_LEASE")


def wants_fresh() -> bool:
    """Whether the launcher was told to begin anew."""
    return os.environ.get("PHYLA_FRESH") == "1"


def _number(variable: str) -> float | None:
    given = os.environ.get(variable)
    try:
        return float(given) if given else None
    except ValueError:
        raise SettingsError(f"${variable}={given!r}; expected a number of seconds") from None
