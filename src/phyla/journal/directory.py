"""A journal in a directory: for network file systems, where SQLite is not safe. Slower, and it needs no locks.

    000000000001.json   the events of one append, one JSON object a line; named by the position of the first
    000000000130.json   the next append: the one before holds 129 events
    format              the version of this layout
    beats/              one file a worker, replaced at every beat
    .….tmp              being written, or left by somebody who died meanwhile

An append is written to a temporary file, which then gets its name with a hard link: the file is whole when it appears, and
of several writers one alone succeeds. The others read what it holds; if none of their places is taken, they try the next
position. Where an answer is lost on the way, the file that is there already turns out to be the writer's own.
"""

from __future__ import annotations

import os
import re
import threading
import time
import urllib.parse
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from phyla.errors import JournalError
from phyla.events import FORMAT, Event, Recorded, decode, new_uid
from phyla.journal.disk import fsync, fsync_directory
from phyla.journal.memory import Facts, as_json, poll, settle
from phyla.pin import ASIDE, Pin

PATIENCE = 60.0
"""Seconds until a file that others have made must be visible here."""


class DirectoryJournal:
    """The journal in the directory `path`, which is created where there is none.

    readonly: never creates or changes a file; the journal must exist.

    Every append is durable but for its name in the directory, which `sync` sees to: a file that is there after a power
    loss must be whole. What was read stays in memory. Safe between threads, and in forked children.
    """

    def __init__(self, path: str | Path, *, readonly: bool = False) -> None:
        self.path = Path(path).absolute()
        self._readonly = readonly
        self.forked()
        _journals.add(self)
        with self._explaining():
            self._open()
            self._pin = Pin(self.path)
            self._check_for_gap()

    def append(self, *events: Event) -> int:
        self._may_write()
        if self._pin.moved:
            raise JournalError(f"the run of {self.path} {ASIDE}")
        lines = b"".join(body + b"\n" for body in as_json(events))
        with self._explaining(), self._temporary(lines) as temporary, self._lock:
            seen, deadline = -1, 0.0
            while True:
                self._refresh()
                position = settle(events, self._facts.held)
                if position is not None:
                    return position
                with suppress(FileExistsError):
                    os.link(temporary, self._file(self._facts.newest + 1))
                    return self._add(lines)
                if self._facts.newest > seen:
                    seen, deadline = self._facts.newest, time.monotonic() + PATIENCE
                elif time.monotonic() > deadline:
                    raise JournalError(
                        f"{self._file(seen + 1)} exists, but has not been visible here for {PATIENCE:.0f} s. Is this file "
                        "system mounted with long caching (actimeo, lookupcache)? All machines must see what others write"
                    )
                else:
                    time.sleep(0.001)

    def read(self, after: int) -> list[Recorded]:
        with self._explaining(), self._lock:
            self._refresh()
            return self._facts.after(after)

    def wait(self, after: int, timeout: float) -> bool:
        return poll(lambda: bool(self.read(after)), timeout, longest=0.1)

    def beat(self, worker: str) -> None:
        self._may_write()
        file = self.path / "beats" / f"w-{urllib.parse.quote(worker, safe='')}"
        with self._explaining(), self._temporary(b"%d" % (_count(file) + 1), durable=False) as temporary:
            temporary.replace(file)

    def beats(self) -> dict[str, int]:
        folder = self.path / "beats"
        with self._explaining():
            files = [file for file in folder.iterdir() if file.name.startswith("w-")] if folder.exists() else []
            return {urllib.parse.unquote(file.name[2:]): _count(file) for file in files}

    def sync(self) -> None:
        self._may_write()
        with self._explaining():
            fsync_directory(self.path)
            fsync_directory(self.path.parent)

    def close(self) -> None:
        """Nothing is open between two calls."""

    def forked(self) -> None:
        """Begins anew: another thread of a forked child's parent may have held the lock, in the middle of a change."""
        self._lock = threading.Lock()
        self._facts = Facts()

    # --- files --------------------------------------------------------------------------------------------------------

    def _file(self, position: int) -> Path:
        return self.path / f"{position:012d}.json"

    def _open(self) -> None:
        """Refuses what is not ours, or too new, before anything is written."""
        format_file = self.path / "format"
        ours = f"phyla journal, format {FORMAT}\n"
        if not self._readonly:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = [file.name for file in self.path.iterdir() if not file.name.startswith(".")]
            if not format_file.exists():  # asked after the listing, so that it is there if a creator's other files are
                if found:
                    raise JournalError(f"{self.path} is no journal, and not empty ({found[0]}): give another path")
                with self._temporary(ours.encode()) as temporary, suppress(FileExistsError):
                    os.link(temporary, format_file)
        if not format_file.exists():
            raise JournalError(f"there is no journal at {self.path}. Is the run's name right, and was it ever started?")
        content = format_file.read_text(errors="replace")
        version = re.fullmatch(r"phyla journal, format (\d+)\n", content)
        if not version:
            raise JournalError(
                f"{format_file} should say {ours!r}, and says {content[:80]!r}: this is no journal of phyla's"
            )
        if int(version[1]) > FORMAT:
            raise JournalError(
                f"{self.path} has format {version[1]}, and this phyla knows {FORMAT}: update phyla. Nothing was changed"
            )
        if not self._readonly:
            (self.path / "beats").mkdir(mode=0o700, exist_ok=True)
            if int(version[1]) < FORMAT:
                with self._temporary(ours.encode()) as temporary:
                    temporary.replace(format_file)

    def _check_for_gap(self) -> None:
        newest = max((int(file.stem) for file in self.path.glob("[0-9]*.json") if file.stem.isdecimal()), default=0)
        with self._lock:
            self._refresh()
            if self._facts.newest < newest:
                missing = self._file(self._facts.newest + 1).name
                raise JournalError(
                    f"a gap in {self.path}: {missing} is missing, and {self._file(newest).name} is there. phyla never deletes "
                    "any: restore it from a copy"
                )

    def _refresh(self) -> None:
        """Reads the files that are new. The caller holds the lock."""
        # NFS remembers for a minute that a name did not exist, but asks the server anew when its directory was opened.
        os.close(os.open(self.path, os.O_RDONLY))
        while True:
            try:
                lines = self._file(self._facts.newest + 1).read_bytes()
            except FileNotFoundError:
                return
            self._add(lines)

    def _add(self, lines: bytes) -> int:
        """Takes over the content of the next file, and returns the position of its last event."""
        name = self._file(self._facts.newest + 1)
        try:
            if not lines.endswith(b"\n"):
                raise JournalError("it ends in the middle of a line")
            events = [decode(line) for line in lines.splitlines()]
            places = {event.ref for event in events}
            if len(places) < len(events) or not places.isdisjoint(self._facts.held):
                raise JournalError("it holds a second event at a place")
            return self._facts.add(events)
        except JournalError as error:
            raise JournalError(f"{name} is damaged, or not phyla's: {error}. Restore it from a copy") from None
        except BaseException:  # KeyboardInterrupt: what is half taken over is read again
            self._facts = Facts()
            raise

    @contextmanager
    def _temporary(self, content: bytes, durable: bool = True) -> Iterator[Path]:
        path = self.path / f".{new_uid()}.tmp"
        try:
            with path.open("xb") as file:
                file.write(content)
                if durable:
                    file.flush()
                    fsync(file.fileno())
            yield path
        finally:
            path.unlink(missing_ok=True)

    def _may_write(self) -> None:
        if self._readonly:
            raise JournalError(f"{self.path} was opened with readonly=True: nothing can be written to it")

    @contextmanager
    def _explaining(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise JournalError(
                f"the journal {self.path}: {error}. Is there room on the disk, may this user write there, and does the file "
                "system know hard links?"
            ) from error


def _count(file: Path) -> int:
    try:
        return int(file.read_bytes() or 0)  # empty after a power loss
    except FileNotFoundError:
        return 0
    except ValueError:
        raise JournalError(f"{file} should hold a number: it is damaged, or not phyla's. Remove it") from None


_journals: weakref.WeakSet[DirectoryJournal] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for journal in _journals:
        journal.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
