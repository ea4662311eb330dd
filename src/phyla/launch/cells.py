"""The runs of a comparison: each in a process of its own, so many at once, until all are finished.

Each cell (an arm, from a seed) has a directory of its own, and in it a lock that its process holds as long as it lives,
whatever becomes of the command that started it. So a comparison that was killed can be started again while its last
processes go on, and two of them in one directory share the work. That a cell is finished, its run says.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from phyla import launched, runs
from phyla.arms import Description, read_description
from phyla.errors import PhylaError, SettingsError
from phyla.glance import trained
from phyla.launch.launcher import CODES, DONE, FAILED
from phyla.launch.signals import Signals
from phyla.launch.words import lasting_error
from phyla.runs import Run

LOOK_SECONDS = 0.5
"""Between two looks at how far they are; the end of a process and a signal are noticed at once."""
TAIL, WIDEST, READ_BYTES = 12, 500, 65_536
"""Lines of a failed cell's log that are shown, characters of each, and how much is read to find them."""

NOT_FOR_CELLS = ("PHYLA_FRESH", launched.VARIABLE, launched.NUMBER, "PHYLA_WORKERS", launched.DESCRIBE, launched.CELL)


@dataclass(frozen=True)
class Cell:
    """One run of a comparison.

    name: of its arm; arm: what its script calls that. command: trains it. intervals: of all members, when it is through.
    """

    name: str
    arm: str
    seed: int
    population: str
    folder: Path
    command: tuple[str, ...]
    intervals: int

    def __str__(self) -> str:
        return f"{self.name}, seed {self.seed}"

    @property
    def path(self) -> Path:
        """Its run's."""
        return self.folder / self.population

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"

    @property
    def failed(self) -> Path:
        """There if its script has failed after its run was finished."""
        return self.folder / "failed"

    def open(self) -> Run | None:
        """Its run; None if it has not begun."""
        try:
            run = runs.open(self.path)
            _ = run.view
        except PhylaError:
            return None
        return run

    @property
    def finished(self) -> bool:
        """Nothing is left to do."""
        run = self.open()
        return run is not None and run.view.finished and not self.failed.exists()

    def variables(self) -> dict[str, str]:
        """The environment of its process."""
        told = launched.Cell(self.population, self.arm, self.seed, str(self.folder)).variable()
        return {"PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1", "OMP_NUM_THREADS": "1", **_outside(), **told}


def _outside() -> dict[str, str]:
    """This process's environment, without what it may have been told itself."""
    return {key: value for key, value in os.environ.items() if key not in NOT_FOR_CELLS}


def lock(folder: Path) -> int | None:
    """Takes a cell's lock, and returns the file that holds it; None if another process has it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        return None
    return file


class Running:
    """A cell's process."""

    def __init__(self, cell: Cell, lock: int):
        self.cell = cell
        cell.failed.unlink(missing_ok=True)
        began = f"--- {datetime.now():%Y-%m-%d %H:%M:%S} {shlex.join(cell.command)} ---\n"
        with open(cell.log, "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as log:
            log.write(began.encode())
            log.flush()
            self._start = log.tell()
            self._process = subprocess.Popen(
                cell.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=cell.variables(),
                pass_fds=(lock,),
                start_new_session=True,  # Ctrl-C is for us to answer
            )
        self._run: Run | None = None

    @property
    def ended(self) -> bool:
        """Whether its process has. What is left of its group is killed then."""
        if self._process.poll() is None:
            return False
        self.kill()
        return True

    def ask(self) -> None:
        """Asks it to end; what it trains just now it may finish."""
        self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    @property
    def done(self) -> int:
        """Intervals that its members have trained."""
        with contextlib.suppress(PhylaError):
            self._run = self._run or self.cell.open()
            return trained(self._run.view) if self._run is not None else 0
        return 0

    def failure(self) -> str | None:
        """After its end: why it has failed; None if it has not."""
        code, run = self._process.returncode, self.cell.open()
        finished = run is not None and run.view.finished
        if code == 0 and finished:
            return None
        if finished:
            self.cell.failed.touch()
            return f"its run is finished, and then the script failed with code {code}"
        if code < 0:
            return f"was killed by signal {-code}"
        return f"failed with code {code}" if code else "ended before its run was finished"

    def tail(self) -> list[str]:
        """The last lines that it has printed."""
        with open(self.cell.log, "rb") as log:
            log.seek(max(self._start, log.seek(0, os.SEEK_END) - READ_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
        return [line[:WIDEST] for line in lasting_error(lines) or lines[-TAIL:]]


@dataclass(frozen=True)
class Standing:
    """How far a comparison is. intervals: (trained, of all). elsewhere: cells that another process trains."""

    cells: int
    finished: int
    failed: int
    running: int
    elsewhere: int
    intervals: tuple[int, int]


class Cells:
    """Trains cells, `workers` at once, in the order given. say: takes lines that stay; show: takes how it stands."""

    def __init__(
        self, cells: Sequence[Cell], workers: int, say: Callable[[str], None], show: Callable[[Standing], None]
    ):
        self.failed: dict[Cell, str] = {}
        self._cells, self._workers = list(cells), workers
        self._say, self._show = say, show
        self._finished = [cell for cell in cells if cell.finished]
        self._waiting = [cell for cell in cells if cell not in self._finished]
        self._running: list[Running] = []
        self._elsewhere = 0
        self._code = DONE
        self._said: list[str] = []

    def run(self) -> int:
        """Trains them; the exit code: that of the signal that has ended it, or 1 if a cell has failed."""
        with Signals() as signals:
            try:
                while self._waiting or self._running:
                    self._start_waiting()
                    self._show(self._standing())
                    signals.wait(LOOK_SECONDS)
                    for number in signals.taken():
                        self._end(CODES[number])
                    self._reap()
            finally:
                for running in self._running:
                    running.kill()
        return self._code or (FAILED if self.failed else DONE)

    def _start_waiting(self) -> None:
        self._elsewhere = 0
        for cell in list(self._waiting):
            if len(self._running) >= self._workers:
                return
            held = lock(cell.folder)
            if held is None:
                self._elsewhere += 1
                continue
            self._waiting.remove(cell)
            try:
                if cell.finished:  # another comparison was first
                    self._finished.append(cell)
                else:
                    self._running.append(Running(cell, held))
            finally:
                os.close(held)  # its process has its own

    def _reap(self) -> None:
        for running in [running for running in self._running if running.ended]:
            self._running.remove(running)
            why = running.failure()
            if why is None:
                self._finished.append(running.cell)
            elif not self._code:  # else it was told to end
                self.failed[running.cell] = why
                self._tell(running, why)

    def _tell(self, running: Running, why: str) -> None:
        said = running.tail()
        same = _without_numbers(said[-1:]) == _without_numbers(self._said[-1:]) and said
        self._say(f"{running.cell}: {why}{', and said the same' if same else ''} (all it printed: {running.cell.log})")
        if not same:
            for line in said:
                self._say(f"  | {line}")
        self._said = said

    def _end(self, code: int) -> None:
        """Somebody wants the end: the first time cells are asked to, the second time they must."""
        self._waiting.clear()
        if not self._code:
            self._say("waiting for what is trained just now; a second Ctrl-C ends at once")
        for running in self._running:
            running.kill() if self._code else running.ask()
        self._code = code

    def _standing(self) -> Standing:
        done = sum(cell.intervals for cell in self._finished) + sum(running.done for running in self._running)
        return Standing(
            cells=len(self._cells),
            finished=len(self._finished),
            failed=len(self.failed),
            running=len(self._running),
            elsewhere=self._elsewhere,
            intervals=(done, sum(cell.intervals for cell in self._cells if cell not in self.failed)),
        )


def _without_numbers(lines: Sequence[str]) -> list[str]:
    return [re.sub(r"\d+|0x[0-9a-f]+", "0", line) for line in lines]


def ask(command: Sequence[str], what: str) -> Description:
    """What a script has to compare, as its first population says. Raises SettingsError if it makes none, or fails before."""
    with tempfile.TemporaryDirectory(prefix="phyla-") as folder:
        file = Path(folder) / "description.json"
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={**_outside(), launched.DESCRIBE: str(file)},
        )
        if file.exists():
            return read_description(file)
    said = (done.stderr or done.stdout).decode(errors="replace").splitlines()
    if done.returncode == 0:
        raise SettingsError(f"{what} makes no phyla.Population: there is nothing to compare")
    tail = "".join(f"\n  | {line[:WIDEST]}" for line in lasting_error(said) or said[-TAIL:])
    raise SettingsError(f"{what} failed before it made a phyla.Population:{tail}")
