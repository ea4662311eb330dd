"""A journal in one SQLite file: the default, for any number of processes on one machine.

Three things about SQLite shape this file; docs/design/002-sqlite-wal-under-our-own-lock.md has the evidence.

1.  In the versions 3.7.0 to 3.51.2 (except 3.44.6 and 3.50.7) a checkpoint that runs while another connection commits can
    corrupt the database, and in all versions the busy handler starves writers. One lock of our own cures both: every
    transaction and every checkpoint waits for its *turn*, and automatic checkpoints are off.
2.  An fsync takes a scheduler tick (4 ms) on a busy machine. So no append waits for one, unless `durable`: `sync` does it
    in the background, and most of it outside the turn.
3.  SQLite's locks belong to a process, and so does its table of them. A forked child inherits the table, not the locks:
    even a fresh connection of its own is invisible to others, and events get lost. So nothing is open across a fork.
"""

from __future__ import annotations

import errno
import functools
import os
import shutil
import sqlite3
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

from phyla.errors import JournalError
from phyla.events import FORMAT, Event, Recorded, decode
from phyla.journal.disk import fsync, fsync_directory, network_file_system
from phyla.journal.memory import as_json, poll, settle
from phyla.journal.turn import Turn
from phyla.pin import ASIDE, Pin

APPLICATION_ID = int.from_bytes(b"phyl", "big")
PATIENCE = 60.0
"""Seconds that an operation waits for whoever holds the journal."""
CHECKPOINT_AT = 4 << 20
"""Bytes of write-ahead log from which `sync` moves it into the database."""
LOG_LIMIT = 64 << 20
"""Bytes of it from which an append does so itself, where nobody calls `sync`."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events(
    position INTEGER PRIMARY KEY,  -- 1, 2, 3, …: nothing is ever deleted, so that SQLite's "highest + 1" is dense
    member INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    uid TEXT NOT NULL,
    body TEXT NOT NULL,            -- the event as JSON
    UNIQUE(member, seq)            -- lock, lease and fencing token of the whole protocol
);
CREATE TABLE IF NOT EXISTS beats(worker TEXT PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID;
"""
_IDENTITY = """
SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version),
       (SELECT count(*) FROM sqlite_master)
"""
_APPEND = "INSERT INTO events(member, seq, uid, body) VALUES(?, ?, ?, ?)"
_HELD = "SELECT position, uid FROM events WHERE member = ? AND seq = ?"
_READ = "SELECT position, body FROM events WHERE position > ? ORDER BY position"
_NEWER = "SELECT 1 FROM events WHERE position > ? LIMIT 1"
_BEAT = "INSERT INTO beats VALUES(?, 1) ON CONFLICT(worker) DO UPDATE SET count = count + 1"
_BEATS = "SELECT worker, count FROM beats"


class SqliteJournal:
    """The journal in the SQLite database `path`, which is created where there is none.

    readonly: never creates or changes a file; the database must exist, its directory need not be writable.
    durable: an append has survived a power loss when it returns.

    Safe between threads. A forked child may go on using it.
    """

    def __init__(self, path: str | Path, *, readonly: bool = False, durable: bool = False) -> None:
        self.path = Path(path).absolute()
        self._durable = durable
        self._writer = None if readonly else _Writer(self.path)
        self._query = self._writer.query if self._writer else functools.partial(_peek, self.path)
        if readonly and not _version(self.path, self._query(_IDENTITY)):
            raise JournalError(f"{self.path} holds no journal yet: whoever creates it has not got that far. Try again")

    def append(self, *events: Event) -> int:
        writer = self._writing()
        bodies = as_json(events)
        rows = [(event.member, event.seq, event.uid, body.decode()) for event, body in zip(events, bodies, strict=True)]
        position = _inserted(writer, rows)
        if position is None:
            position = settle(events, self._held(events))  # after the transaction: what is taken stays taken
        if position is None:
            raise JournalError(f"{self.path} refused {events!r}, though their places are free: was its schema changed?")
        if self._durable:
            writer.flush()
        return position

    def read(self, after: int) -> list[Recorded]:
        rows = self._query(_READ, after)
        if rows and (rows[0][0], rows[-1][0]) != (after + 1, after + len(rows)):
            missing = next(n for n, row in enumerate(rows, after + 1) if row[0] != n)
            raise JournalError(
                f"a gap in {self.path}: there is no event at position {missing}, and there are some behind it. phyla "
                "never deletes any, so the file was damaged or changed by hand: restore it from a copy"
            )
        return [Recorded(position, decode(body)) for position, body in rows]

    def wait(self, after: int, timeout: float) -> bool:
        return poll(lambda: bool(self._query(_NEWER, after)), timeout, longest=0.025)

    def beat(self, worker: str) -> None:
        with self._writing().transaction() as connection:
            connection.execute(_BEAT, (worker,))

    def beats(self) -> dict[str, int]:
        return dict(self._query(_BEATS))

    def sync(self) -> None:
        writer = self._writing()
        writer.flush()
        writer.shorten_log()

    def close(self) -> None:
        if self._writer:
            self._writer.close()

    def _writing(self) -> _Writer:
        if self._writer is None:
            raise JournalError(f"{self.path} was opened with readonly=True: nothing can be written to it")
        return self._writer

    def _held(self, events: tuple[Event, ...]) -> dict[tuple[int, int], tuple[int, str]]:
        """The position and uid of what stands at these events' places."""
        found = {event.ref: self._query(_HELD, event.member, event.seq) for event in events}
        return {place: rows[0] for place, rows in found.items() if rows}


def _inserted(writer: _Writer, rows: list[tuple[int, int, str, str]]) -> int | None:
    """The position of the last of these rows; None, and nothing is inserted, where one of their places is taken."""
    position: int | None = None
    try:
        with writer.transaction() as connection:
            for row in rows:
                position = connection.execute(_APPEND, row).lastrowid
    except sqlite3.IntegrityError:
        return None
    return position


# --- Writing ----------------------------------------------------------------------------------------------------------

_process = threading.Lock()
"""Held by the one thread of this process that uses SQLite now, and through a fork. It is process-wide because SQLite's
state is: connections to one file share their locks, and one that maps the log's index read-only does so for all."""


class _Writer:
    """A connection that writes when it has its turn."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log_path = Path(f"{path}-wal")
        self._turn = Turn(path.with_suffix(".lock"))
        self._connection: sqlite3.Connection | None = None
        self._log: FileIO | None = None  # unlike SQLite's other two files it carries no locks: we may open and close it
        self._log_limit = LOG_LIMIT
        self._named: FileIO | None = None  # the log whose name in the directory is durable
        self._lost: OSError | None = None  # what an fsync said
        self._closed = False
        self._pin: Pin | None = None  # from the first connection on
        self._create()

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Everything that is executed inside, or nothing."""
        with self._exclusively() as connection:
            if self._log_size() > self._log_limit:
                self._checkpoint(connection)
                self._log_limit = self._log_size() + LOG_LIMIT  # not each time, where a reader is in its way
            try:
                connection.execute("BEGIN IMMEDIATE")
                yield connection
                connection.execute("COMMIT")
            except BaseException:  # KeyboardInterrupt, too: no transaction outlives its turn
                with suppress(sqlite3.Error):  # SQLite itself has ended it after some errors
                    connection.execute("ROLLBACK")
                raise

    def query(self, sql: str, *args: object) -> list[Any]:
        """The rows of one SELECT."""
        with _explaining(self._path), _process:
            return self._connected().execute(sql, args).fetchall()

    def flush(self) -> None:
        """Makes all that was committed durable, outside the turn.

        An fsync of the log is enough: what has left the log was fsynced by the checkpoint that put it into the database.
        """
        if self._lost is None:
            with _explaining(self._path), _process:
                self._connected()
                log = self._log
                assert log is not None
                copy = os.dup(log.fileno())  # a fork on another thread may close the original
            try:
                fsync(copy)
                if log is not self._named:
                    fsync_directory(self._path.parent)
                    self._named = log
            except OSError as error:
                self._lost = error
            finally:
                os.close(copy)
        if self._lost is not None:  # for good: the kernel reports a page that it could not write once, and forgets it
            raise JournalError(
                f"the disk could not keep what was written to {self._path} ({self._lost}): the newest events may be lost "
                "when this machine goes down. Copy the run to another disk, and continue it there"
            )

    def shorten_log(self) -> None:
        """Moves the log into the database if it is long."""
        if self._log_size() > CHECKPOINT_AT:
            with self._exclusively() as connection:
                if self._log_size() > CHECKPOINT_AT:  # nobody else was faster
                    self._checkpoint(connection)

    def close(self) -> None:
        # The last of all connections to close makes a checkpoint. As it does so under SQLite's own exclusive lock, alone,
        # our turn is no matter of safety here: it spares those who open just now a wait. So it is not waited for long.
        with suppress(JournalError, OSError), self._turn.within(1.0), _process:
            self.disconnect()
        with _process:
            self._closed = True
            self.disconnect()
            self._turn.forget()

    def disconnect(self) -> None:
        """The caller holds `_process`."""
        connection, log, self._connection, self._log = self._connection, self._log, None, None
        if log is not None:
            log.close()
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def forked(self) -> None:
        """In a forked child: its parent's turn is not its own."""
        self._turn.forget()

    def holds(self, path: Path) -> bool:
        """Whether this is connected to that very file."""
        return self._connection is not None and self._path.samefile(path)

    @contextmanager
    def _exclusively(self, mode: str = "rw") -> Iterator[sqlite3.Connection]:
        """The turn."""
        with _explaining(self._path), self._turn.within(PATIENCE), _process:
            yield self._connected(mode)

    def _connected(self, mode: str = "rw") -> sqlite3.Connection:
        """The caller holds `_process`."""
        if self._closed:
            raise JournalError(f"this journal was closed ({self._path}): open it again")
        if self._connection is None:
            if self._pin is not None and self._pin.moved:
                raise JournalError(f"the run of {self._path} {ASIDE}")
            connection = _connect(self._path, f"mode={mode}")
            try:
                (kind,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
                if kind != "wal":
                    raise JournalError(f"SQLite can keep no write-ahead log here ({kind}): {self._path}. {_ELSEWHERE}")
                connection.execute("PRAGMA wal_autocheckpoint = 0")
                connection.execute(
                    "PRAGMA synchronous = NORMAL"
                )  # fsync in checkpoints, and for the header of a new log
                connection.execute("PRAGMA checkpoint_fullfsync = ON")  # macOS, where a plain one stops at the drive
                connection.execute(f"PRAGMA journal_size_limit = {CHECKPOINT_AT}")  # a longer file is then a longer log
                connection.execute("SELECT 1 FROM sqlite_master").fetchall()  # opens the log
                self._log = FileIO(self._log_path, "r+")
            except BaseException:
                connection.close()
                raise
            self._connection = connection
            self._pin = self._pin or Pin(self._path)
        return self._connection

    def _create(self) -> None:
        """Opens the database, made where there is none. A foreign or newer one is refused before anything is written."""
        if kind := network_file_system(self._path.parent):
            raise JournalError(
                f"{self._path} lies on a network file system ({kind}), where neither SQLite's locks nor its shared memory "
                f"are safe. {_ELSEWHERE}"
            )
        with _explaining(self._path):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self._path.exists() and self._path.stat().st_size:
                _version(self._path, _peek(self._path, _IDENTITY))
        try:
            with self._exclusively("rwc") as connection:
                _writers.add(self)
                if _version(self._path, connection.execute(_IDENTITY).fetchall()) < FORMAT:
                    connection.executescript(
                        f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA application_id = {APPLICATION_ID}; "
                        f"PRAGMA user_version = {FORMAT}; COMMIT"
                    )
        except BaseException:
            self.close()
            raise

    def _checkpoint(self, connection: sqlite3.Connection) -> None:
        """Copies the log into the database, as far as no reader is in the way; it does not wait for one."""
        _, frames, copied = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        if frames == copied:
            # The next write begins a new log, and waits for an fsync of its header. Let that be this one, which changes
            # nothing, and not somebody's append.
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")

    def _log_size(self) -> int:
        try:
            return self._log_path.stat().st_size
        except FileNotFoundError:  # nobody is connected
            return 0


_writers: weakref.WeakSet[_Writer] = weakref.WeakSet()


def _before_fork() -> None:
    _process.acquire()
    for writer in _writers:
        writer.disconnect()


def _after_fork_in_child() -> None:
    for writer in _writers:
        writer.forked()
    _process.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_process.release, after_in_child=_after_fork_in_child)


# --- Reading without a trace ------------------------------------------------------------------------------------------


class _Files(NamedTuple):
    """What tells whether a database changes while it is looked at: of each file, None or (inode, bytes, changed at)."""

    database: tuple[int, int, int] | None
    log: tuple[int, int, int] | None  # None for an empty one, too: all is in the database
    shared: tuple[int, int, int] | None  # the log's index; only that it is there matters

    @classmethod
    def of(cls, path: Path) -> _Files:
        with _explaining(path):
            database, log, shared = (_stamp(f"{path}{end}") for end in ("", "-wal", "-shm"))
        return cls(database, log if log and log[1] else None, shared and (0, 0, 0))


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        stat = Path(path).stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _peek(path: Path, sql: str, *args: object) -> list[Any]:
    """The rows of one SELECT, without creating or changing a file."""
    deadline = time.monotonic() + PATIENCE
    while True:
        failure = None
        files = _Files.of(path)
        if files.database is None:
            raise JournalError(f"there is no journal at {path}. Is the run's name right, and was it ever started?")
        try:
            with _explaining(path), _process:
                rows, certain = _rows(path, files, sql, args)
            if certain:
                return rows
        except JournalError as error:
            failure = error
        if _Files.of(path) == files or time.monotonic() > deadline:
            if failure is not None:
                raise failure
            return rows
        time.sleep(0.002)


def _rows(path: Path, files: _Files, sql: str, args: tuple[object, ...]) -> tuple[list[Any], bool]:
    """The rows, and whether they are certain; else they are if none of the files has changed meanwhile."""
    if files.log is None:
        return _select(path, "mode=ro&immutable=1", sql, args), False
    if kind := network_file_system(path.parent):
        raise JournalError(
            f"{path} is in use, or was left so, on a network file system ({kind}): read it where it was written"
        )
    if files.shared:
        try:
            return _select(path, "mode=ro&readonly_shm=1", sql, args), True  # under SQLite's own locks
        except sqlite3.OperationalError as error:
            if not error.sqlite_errorname.startswith("SQLITE_READONLY"):
                raise  # else somebody died while writing the index, and it would have to be mended
    if any(writer.holds(path) for writer in _writers):
        raise JournalError(
            f"{path}-shm was removed while this process uses the journal: end all its users, start again"
        )
    with tempfile.TemporaryDirectory(prefix="phyla-") as folder:
        # (Opening and closing the database by hand drops the locks that SQLite holds on it for this process: none.)
        copy = Path(folder, "copy.db")
        shutil.copyfile(path, copy)
        shutil.copyfile(f"{path}-wal", f"{copy}-wal")
        return _select(copy, "mode=rw", sql, args), False


def _select(path: Path, mode: str, sql: str, args: tuple[object, ...]) -> list[Any]:
    with closing(_connect(path, mode)) as connection:
        return connection.execute(sql, args).fetchall()


# --- What both need ---------------------------------------------------------------------------------------------------


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    uri = f"{path.as_uri()}?{mode}"
    connection = sqlite3.connect(uri, uri=True, isolation_level=None, timeout=PATIENCE, check_same_thread=False)
    connection.execute("PRAGMA trusted_schema = OFF")  # whoever sent us this file
    return connection


def _version(path: Path, identity: list[Any]) -> int:
    """The version of the journal's schema, 0 for an empty database. Raises JournalError for a foreign or newer one."""
    ((application, version, tables),) = identity
    if application == APPLICATION_ID and version > FORMAT:
        raise JournalError(
            f"{path} has format {version}, and this phyla knows {FORMAT}: update phyla. Nothing was changed"
        )
    if application != APPLICATION_ID and (application, version, tables) != (0, 0, 0):
        raise JournalError(f"{path} is the database of another program: give another path. Nothing was changed")
    return int(version)


_ELSEWHERE = "Use the directory journal, or a path on a local disk"
_ADVICE = {
    "SQLITE_FULL": "Make room on the disk, and start the run again: it goes on where it was",
    "SQLITE_IOERR": "Is the disk full, or failing? Nothing partial was appended; the run can be started again",
    "SQLITE_READONLY": "Give this user the right to write there, or open it with readonly=True",
    "SQLITE_CANTOPEN": "Does its directory exist, and may this user write there?",
    "SQLITE_BUSY": "Another program holds it. Is a database browser or a backup at work on it?",
    "SQLITE_NOTADB": "It is no SQLite database: give another path. Nothing was changed",
    "SQLITE_CORRUPT": "Copy the run's directory before anything else, then try `sqlite3 journal.db .recover`",
}


def _explained(error: sqlite3.Error | OSError, path: Path) -> JournalError:
    code = getattr(error, "sqlite_errorname", "")
    advice = next((advice for start, advice in _ADVICE.items() if code.startswith(start)), "")
    if isinstance(error, OSError):
        no_locks = error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
        advice = _ELSEWHERE if no_locks else "Is there room on the disk, and may this user write there?"
    return JournalError(f"the journal {path}: {error}{code and f' ({code})'}. {advice}".rstrip())


@contextmanager
def _explaining(path: Path) -> Iterator[None]:
    """Raises JournalError for what SQLite and the disk say; that a place is taken (IntegrityError) passes."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except (sqlite3.Error, OSError) as error:
        raise _explained(error, path) from error
