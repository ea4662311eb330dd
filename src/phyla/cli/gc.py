"""`phyla gc`: deletes what the journal has released and what crashed workers left behind. Only files that phyla names.

A report that is released stays so for ever, and a claim that has ended never reports. So what may be deleted once may be
deleted whatever workers do meanwhile, and nobody need be asked to stop.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from phyla import runs
from phyla.checkpoints.local import LocalCheckpoints
from phyla.cli.text import inert, plural, print_json, size
from phyla.doctor import GRACE, orphans
from phyla.errors import SettingsError
from phyla.events import Recorded
from phyla.runs import Place, Run
from phyla.strategies.rebuild import rebuild


class Spare(NamedTuple):
    """A file that nobody needs."""

    path: Path
    why: str  # "released", "never reported", "temporary"
    size: int  # bytes


def gc(run: str, *, dry_run: bool, json: bool) -> int:
    """Prints what is deleted, and how much room that makes."""
    place = runs.find(run)
    spare = spare_files(place, runs.open(run))
    if not dry_run:
        for file in spare:
            delete(place, file)
    freed = sum(file.size for file in spare)
    if json:
        files = [{"file": str(file.path.relative_to(place.path)), "why": file.why, "size": file.size} for file in spare]
        print_json({"path": str(place.path), "deleted": not dry_run, "freed": freed, "files": files})
        return 0
    would = "would be " if dry_run else ""
    for file in spare:
        print(inert(f"{would}deleted: {file.path.relative_to(place.path)}  {size(file.size)}, {file.why}"))
    print(f"{plural(len(spare), 'file')} {would}deleted, {size(freed)} {would}freed")
    return 0


def spare_files(place: Place, run: Run) -> list[Spare]:
    """What may be deleted of a run: checkpoints that nobody needs, and files that somebody died over while writing them."""
    files = run.checkpoints.files()  # first: whatever the journal says afterwards is true of all of them
    events = [Recorded(position, event) for position, event in enumerate(run.events(), 1)]
    found = orphans(events, files, rebuild(run.settings.strategy))
    spare = [Spare(place.checkpoints / orphan.file, orphan.why, 0) for orphan in found]
    spare += [Spare(path, "temporary", 0) for path in _temporary(place)]
    return [file._replace(size=length) for file in spare if (length := _size(file.path)) is not None]


def delete(place: Place, file: Spare) -> None:
    """Deletes one of these."""
    if file.path.parent == place.checkpoints:
        LocalCheckpoints(place.checkpoints).delete([file.path.name])
        return
    try:
        file.path.unlink(missing_ok=True)
    except OSError as error:
        raise SettingsError(f"{file.path} cannot be deleted: {error.strerror}") from None


def _temporary(place: Place) -> Iterator[Path]:
    """What an append to a journal in a directory left there: one that goes on takes no second."""
    if place.journal != "directory":
        return
    for path in sorted((place.path / "journal").glob(".*.tmp")):
        ours = re.fullmatch(r"\.[0-9a-f]{32}\.tmp", path.name, re.ASCII)
        if ours and not path.is_symlink() and time.time() - path.stat().st_mtime > GRACE:
            yield path


def _size(path: Path) -> int | None:
    """Bytes; None if it is gone meanwhile."""
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return None
