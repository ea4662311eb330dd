"""Where a run lives and how it is opened: the only place where journals and checkpoint stores meet their addresses."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phyla import host, randomness, snapshot
from phyla import lineage as _lineage
from phyla import state as _state
from phyla.checkpoints import Checkpoints, Tree, load_row
from phyla.checkpoints.local import LocalCheckpoints
from phyla.checkpoints.memory import MemoryCheckpoints
from phyla.errors import CheckpointError, JournalError, PhylaError, SettingsError
from phyla.events import Checkpoint, Event, Origin
from phyla.journal import Journal
from phyla.journal.directory import DirectoryJournal
from phyla.journal.memory import MemoryJournal
from phyla.journal.sqlite import SqliteJournal
from phyla.lineage import Lineage, Schedule
from phyla.newborn import Newborn
from phyla.randomness import Purpose
from phyla.record import Record
from phyla.settings import Settings
from phyla.space import Hypers
from phyla.view import View, fold

if TYPE_CHECKING:
    from phyla.strategies.mopbt import Front

_HOMES = {"sqlite": "journal.db", "directory": "journal"}
"""Where in a run's directory its journal lies."""

ROW = ("member", "interval", "score", "steps", "donor", "time")
"""The columns that every row of a run has."""

JOURNALS = ("sqlite", "directory", "memory")


@dataclass(frozen=True)
class Place:
    """Where a run lives: its directory, and what kind of journal it has there."""

    path: Path
    journal: str = "sqlite"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"


def locate(name: str, path: str | Path | None = None, journal: str | None = None) -> Place:
    """The place of the run of this name: under `path`, else under $PHYLA_RUNS, else under ./runs."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", name):
        raise SettingsError(
            f"the run's name is {name!r}; expected letters, digits, '.', '_' and '-', at most 100: it names a directory"
        )
    kind = journal or os.environ.get("PHYLA_JOURNAL") or "sqlite"
    if kind not in JOURNALS:
        raise SettingsError(f"journal={kind!r}; expected one of {', '.join(map(repr, JOURNALS))}")
    return Place(Path(path or os.environ.get("PHYLA_RUNS") or "runs") / name, kind)


def open_for_work(place: Place, *, durable: bool = False) -> tuple[Journal, Checkpoints]:
    """The journal and the checkpoint store of a run, made where they are not there yet."""
    if place.journal == "memory":
        return MemoryJournal(), MemoryCheckpoints()
    try:
        place.path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"the run cannot be kept in {place.path.absolute()}: {error.strerror}. "
            "Give Population(path=…) or $PHYLA_RUNS a directory that can be written"
        ) from None
    if not os.access(place.path, os.W_OK | os.X_OK):
        raise SettingsError(f"the run's directory {place.path.absolute()} cannot be written; reading it still works")
    if elsewhere := os.environ.get("PHYLA_CHECKPOINTS"):
        _link_checkpoints(place, Path(elsewhere))
    journal: Journal
    if place.journal == "directory":
        journal = DirectoryJournal(place.path / _HOMES["directory"])
    else:
        journal = SqliteJournal(place.path / _HOMES["sqlite"], durable=durable)
    return journal, LocalCheckpoints(place.checkpoints, durable=durable)


def _link_checkpoints(place: Place, folder: Path) -> None:
    """Has a new run keep its checkpoints in a directory of its own under this one: `checkpoints` in the run is a link to it."""
    if os.path.lexists(place.checkpoints):
        return  # the run has begun: they lie where they lie
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f"{place.path.name}-", dir=folder)).absolute()
    except OSError as error:
        raise SettingsError(f"checkpoints cannot be kept in {folder.absolute()}: {error.strerror}") from None
    try:
        place.checkpoints.symlink_to(made, target_is_directory=True)
    except FileExistsError:  # another worker was first
        made.rmdir()


def set_aside(place: Place) -> Path | None:
    """Moves a run's directory to NAME.1, NAME.2, … and returns where; None if there is nothing to move.

    Raises SettingsError while another process of this machine trains in it.
    """
    if place.journal == "memory" or not place.path.exists():
        return None
    if training := sorted(_training(place)):
        raise SettingsError(
            f"the run in {place.path} cannot be set aside: process {', '.join(map(str, training))} trains in it. End that "
            f"first (phyla stop {place.path}, or Ctrl-C there), or choose another name"
        )
    for number in range(1, 10_000):
        aside = place.path.with_name(f"{place.path.name}.{number}")
        if not aside.exists():
            place.path.rename(aside)
            return aside
    raise SettingsError(f"{place.path} cannot be set aside: there are 9,999 older runs of this name")


def _training(place: Place) -> set[int]:
    """The other processes of this machine that hold a member of a run."""
    try:
        claims = open(place.path).view.open
    except PhylaError:  # it never got far, or is damaged
        return set()
    found = {host.pid_here(claim.worker) for claim in claims if claim is not None}
    return {pid for pid in found if pid is not None and pid != os.getpid()}


class Run:
    """A run, opened for reading. Nothing here writes; every property shows the run as it stands now."""

    def __init__(
        self,
        journal: Journal,
        checkpoints: Checkpoints,
        path: Path | None,
        look: Callable[[], View] | None = None,
    ):
        """look: gives the view as it stands now, where somebody keeps one already."""
        self.path = path
        self._journal = journal
        self.checkpoints = checkpoints
        self._view = View()
        self._look = look if look is not None else self._read

    def _read(self) -> View:
        with snapshot.no_collection():
            if self.path is not None and not self._view.position:
                self._view = snapshot.load(self.path / snapshot.FILE, self._journal) or self._view
            return fold(self._journal.read(self._view.position), self._view)

    @property
    def view(self) -> View:
        """The run so far, as arrays over members."""
        view = self._look()
        if view.created is None:
            raise JournalError(f"{self.path} holds no run yet: its journal is empty")
        return view

    @property
    def name(self) -> str:
        created = self.view.created
        assert created is not None
        return created.run

    @property
    def settings(self) -> Settings:
        """What the run was created with."""
        return self.view.settings

    @property
    def best(self) -> Record | None:
        """The best report ever; its checkpoint is kept. None before the first score."""
        return self.view.best

    @property
    def final(self) -> Record | None:
        """The best of what the members stand at now."""
        view = self.view
        scored = [record for record in self.members if record.finite]
        return max(scored, key=lambda record: (view.value(record), record.id), default=None)

    @property
    def front(self) -> Front | None:
        """The front of a run with several objectives (`MOPBT`): the best reports ever, of which none is better in all.

        None for other runs, and before the first report that has every objective.
        """
        from phyla.strategies import mopbt  # here: few runs have one

        return mopbt.front(self.view)

    @property
    def members(self) -> list[Record]:
        """The newest report of each member that has one, in order of id."""
        return [history[-1] for history in self.view.history if history]

    @property
    def records(self) -> list[Record]:
        """Every report that counts, in the journal's order."""
        return list(self.lineage().records)

    def events(self, after: int = 0) -> Iterator[Event]:
        """Every event of the journal behind this position, in order."""
        return (recorded.event for recorded in self._journal.read(after))

    def beats(self) -> Mapping[str, int]:
        """How often each worker has beaten: a number that moves while it lives."""
        return self._journal.beats()

    def load(self, what: Record | Checkpoint) -> Tree:
        """The state as saved: a tree of plain values and arrays."""
        return _state.saved_state(self.load_saved(what))

    def load_saved(self, what: Record | Checkpoint) -> Tree:
        """The whole checkpoint: the state, and what `init` had set in it."""
        if isinstance(what, Record) and not what.checkpoint.saved:
            raise CheckpointError(
                f"{what!r} was trained amid a span, and its state was not saved: the last interval of each span is"
            )
        return load_row(self.checkpoints, what.checkpoint if isinstance(what, Record) else what)

    def schedule(self, record: Record | None = None) -> Schedule:
        """The hyperparameters along the true ancestry of a record (default: the best)."""
        return _lineage.schedule(record if record is not None else self._the_best())

    def lineage(self) -> Lineage:
        """The family tree of the run."""
        return _lineage.lineage(self.view)

    def restore(self, record: Record, init: Callable[[Any], Any]) -> Any:
        """Live objects as they were at a report: what `init` makes for its hyperparameters, with the saved state loaded."""
        seed = randomness.draw_seed(self.settings.seed, record.id, 0, Purpose.INIT, 0)
        steps = record.total_steps - record.steps
        newborn = Newborn(
            record.hypers, id=record.id, interval=record.interval, steps=steps, donor=None, seed=seed, read=set()
        )
        raw = init(newborn)
        made = _state.made(raw, record.hypers)
        state, _ = _state.load(_state.unwrap(raw), self.load_saved(record), made)
        return state

    def top(self, k: int = 1) -> list[Heir]:
        """The k best reports that the members stand at, as a start for another run: `Population(start=run.top(4))`."""
        view, path = self.view, self.path
        if path is None:
            raise SettingsError("a run that lives in memory cannot start another")
        best = sorted((r for r in self.members if r.finite), key=lambda r: (view.value(r), r.id), reverse=True)[:k]
        if not best:
            raise SettingsError(f"{path} has no report with a finite score to start from")
        return [Heir(Origin(str(path.absolute()), r.uid, r.id, r.seq, r.checkpoint), dict(r.hypers)) for r in best]

    def to_frame(self) -> Any:
        """Every report as a row of a pandas DataFrame; hyperparameters and metrics as columns of their own."""
        try:
            import pandas as pd  # type: ignore[import-not-found, import-untyped, unused-ignore]
        except ImportError:
            raise SettingsError("to_frame() needs pandas: pip install pandas") from None
        return pd.DataFrame(self.rows())

    def rows(self) -> list[dict[str, Any]]:
        """Every report as a flat dict, in the journal's order; a hyperparameter named like a column gets `hyper.`."""
        return [
            {
                "member": r.id,
                "interval": r.interval,
                "score": r.score,
                "steps": r.total_steps,
                "donor": r.donor.member if r.donor is not None else None,
                "time": r.time,
                **{f"hyper.{name}" if name in ROW else name: value for name, value in r.hypers.items()},
                **{f"metric.{name}": value for name, value in (r.metrics or {}).items()},
            }
            for r in self.records
        ]

    def _the_best(self) -> Record:
        best = self.best
        if best is None:
            raise SettingsError(f"{self.path or 'this run'} has no score yet, so nothing is best")
        return best

    def __repr__(self) -> str:
        return f"<run {self.name} in {self.path}>"


@dataclass(frozen=True)
class Heir:
    """Where a member of a new run may start: another run's report, and the hyperparameters that it had."""

    origin: Origin | None
    hypers: Hypers


def load_origin(origin: Origin) -> Tree:
    """The state of another run that a member is born with."""
    store = LocalCheckpoints(Path(origin.run) / "checkpoints", readonly=True)
    try:
        return load_row(store, origin.checkpoint)
    except CheckpointError as error:
        raise SettingsError(f"start= names a checkpoint of {origin.run} that cannot be loaded: {error}") from None


def open(path: str | Path) -> Run:
    """Opens a run for reading: its directory, or its name under $PHYLA_RUNS or ./runs.

    Raises SettingsError if there is no run, with the runs that are there.
    """
    place = find(path)
    journal: Journal = (
        SqliteJournal(place.path / _HOMES["sqlite"], readonly=True)
        if place.journal == "sqlite"
        else DirectoryJournal(place.path / _HOMES["directory"], readonly=True)
    )
    return Run(journal, LocalCheckpoints(place.checkpoints, readonly=True), place.path)


def find(path: str | Path) -> Place:
    """The place of an existing run, given its directory, or its name under $PHYLA_RUNS or ./runs."""
    given = Path(path)
    for candidate in (given, Path(os.environ.get("PHYLA_RUNS") or "runs") / given):
        for kind, file in _HOMES.items():
            if (candidate / file).exists():
                return Place(candidate, kind)
    there = _runs_beside(given)
    hint = f"; there are: {', '.join(there)}" if there else ""
    raise SettingsError(
        f"there is no run in {given}: expected a directory with a journal.db, such as runs/digits{hint}"
    )


def _runs_beside(given: Path) -> Sequence[str]:
    """Runs that may be meant, those of like names first."""
    roots = (given, given.parent, Path(os.environ.get("PHYLA_RUNS") or "runs"))
    found = {
        str(p.parent) for root in roots if root.is_dir() for kind in _HOMES.values() for p in root.glob(f"*/{kind}")
    }
    return sorted(found, key=lambda path: (-SequenceMatcher(None, Path(path).name, given.name).ratio(), path))[:10]
