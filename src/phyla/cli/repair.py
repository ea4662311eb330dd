"""What `phyla doctor --repair` does. It appends to the journal what a worker would append, and deletes what `gc` deletes.

Nothing that stands in a journal is ever changed. A damaged checkpoint is recorded as a worker does that meets it: a member
is claimed, by its own decision, and the claim ends with the report that could not be restored.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress

from phyla import host, runs
from phyla.checkpoints import Checkpoints
from phyla.cli.gc import delete, spare_files
from phyla.cli.text import size
from phyla.decide import claimed
from phyla.doctor import abandoned, kept
from phyla.errors import CheckpointError, Conflict
from phyla.events import Checkpoint, Claimed, Recorded, failed
from phyla.journal import Journal
from phyla.record import Record
from phyla.strategies.rebuild import rebuild
from phyla.version import __version__
from phyla.view import View, fold


def mend(run: str, *, dry: bool) -> Iterator[str]:
    """Each thing that is mended, in words; where it is `dry`, that would be."""
    place, opened = runs.find(run), runs.open(run)
    journal = None if dry else runs.open_for_work(place)[0]
    view = fold(Recorded(position, event) for position, event in enumerate(opened.events(), 1))
    me, would = host.new_worker_id(), "would be " if dry else ""
    for claim in abandoned(view, host.is_gone):
        if journal is None or _end(journal, claim, me):
            yield f"member {claim.member}, interval {claim.interval}: {would}freed; its worker {claim.worker} is gone"
    yield from _void(journal, opened.checkpoints, view, me)
    for file in spare_files(place, opened):
        if not dry:
            delete(place, file)
        yield f"{file.path.name}: {would}deleted; {size(file.size)}, {file.why}"
    if journal is not None:
        journal.close()


def _end(journal: Journal, claim: Claimed, me: str) -> bool:
    """Ends a claim whose worker is gone; False if somebody was first."""
    error = f"{claim.worker}: its process is gone"
    try:
        journal.append(failed(claim, "lost", error=error, worker=me, time=time.time()))
    except Conflict:
        return False
    return True


def _void(journal: Journal | None, checkpoints: Checkpoints, view: View, me: str) -> Iterator[str]:
    """Records every checkpoint that is damaged or gone."""
    files = kept(view)
    damaged = [(record, error) for file in files if (error := _damage(checkpoints, file)) for record in files[file]]
    if journal is not None:
        fold(journal.read(view.position), view)  # what was released meanwhile may be gone
    damaged = [(record, error) for record, error in damaged if not record.freed and not record.void]
    if not damaged:
        return
    if len({record.checkpoint.file for record, _ in damaged}) == len(files) > 1:
        yield f"none of the {len(files)} checkpoints can be read: is their disk mounted? Nothing of this is recorded"
        return
    would = "would be " if journal is None else ""
    for record, error in damaged:
        where = f"member {record.id}, interval {record.interval}"
        if reason := _cannot_claim(view) or (journal is not None and not _give_up(journal, view, record, error, me)):
            why = reason if isinstance(reason, str) else "every member is held just now: try again"
            yield f"{where}: its checkpoint cannot be given up ({why}): {error}"
        else:
            yield f"{where}: its checkpoint {would}given up; {error}"


def _damage(checkpoints: Checkpoints, checkpoint: Checkpoint) -> str | None:
    try:
        checkpoints.load(checkpoint)
    except CheckpointError as error:
        return str(error)
    return None


def _cannot_claim(view: View) -> str | None:
    """Why this run's members cannot be claimed here."""
    if view.finished:
        return "the run is finished: restore it from a copy"
    if view.paused:
        return "the run is paused"
    created = view.created
    assert created is not None
    if created.version != __version__:
        return f"the run was begun by phyla {created.version}, and this is {__version__}"
    return "the strategy is the user's own" if rebuild(view.settings.strategy) is None else None


def _give_up(journal: Journal, view: View, record: Record, error: str, me: str) -> bool:
    """Claims a member and ends that claim in one append, so that nobody ever waits for it; False if none can be claimed."""
    strategy = rebuild(view.settings.strategy)
    assert strategy is not None
    while members := view.claimable():
        claim = claimed(view, members[0], strategy, worker=me, time=time.time())
        end = failed(claim, "checkpoint", voids=record.ref, error=error, time=claim.time)
        with suppress(Conflict):  # somebody was first: choose again
            journal.append(claim, end)
        fold(journal.read(view.position), view)
        if record.void or record.freed:
            return True
    return False
