"""What must be done once: by one worker of a host, by one of the run, or by one after the run's end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Literal

from phyla import host
from phyla.errors import SettingsError


class Once:
    """Locks and marks in the run's directory; a lock goes with the process that held it. None: a run of one process."""

    def __init__(self, run: Path | None):
        self._folder = run / "once" if run is not None else None
        self._done: set[str] = set()
        self._primary: bool | None = None
        self._held: IO[bytes] | None = None

    def call(self, key: str, fn: Callable[[], object], per: Literal["host", "run"]) -> None:
        """Calls fn unless a call under this key has succeeded; waits for one that is under way."""
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", key):
            raise SettingsError(f"once({key!r}): expected letters, digits, '.', '_' and '-' as the key")
        if per not in ("host", "run"):
            raise SettingsError(f"once(per={per!r}): expected 'host' or 'run'")
        name = f"{key}.run" if per == "run" else f"{key}.{host.boot() or 'host'}"
        if name in self._done:
            return
        if self._folder is None:
            fn()
        else:
            with self._locked(name):
                mark = self._folder / f"{name}.done"
                if not mark.exists():
                    fn()
                    mark.touch()
        self._done.add(name)

    def primary(self, end: str | None, *, again: bool) -> bool:
        """Whether this process is the one; the answer does not change while it lives.

        end: which end of the run this is; an extended run has another. None: it was left before its end. again: the run
        had ended before this process began. It is the one if nobody was before, or if whoever was is gone: it may be the
        first of another launch.
        """
        if self._primary is None:
            first = self._folder is None or (end is not None and self._be_first(end))
            self._primary = first or ((again or end is None) and self._lock_for_life())
        return self._primary

    def _be_first(self, end: str) -> bool:
        assert self._folder is not None
        self._folder.mkdir(mode=0o700, exist_ok=True)
        try:
            os.close(os.open(self._folder / f"primary.{end}", os.O_CREAT | os.O_EXCL, 0o600))
        except FileExistsError:
            return False
        self._lock_for_life()  # who comes late to this launch finds it taken
        return True

    def _lock_for_life(self) -> bool:
        assert self._folder is not None
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._held = open(self._folder / "primary.lock", "ab")  # noqa: SIM115 — held for as long as the process lives
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    @contextlib.contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        assert self._folder is not None
        self._folder.mkdir(mode=0o700, exist_ok=True)
        with open(self._folder / f"{name}.lock", "ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.flock(file, fcntl.LOCK_UN)  # a process that fn has forked would hold it on
