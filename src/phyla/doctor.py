"""The invariants of a run, checked on its journal and its checkpoints. Reads only.

I1  one live claim a member; no event after a lost claim by its old holder
I2  every checkpoint that the journal names and has not released exists, whole
I3  lineage is a forest: whatever was copied or trained on had been reported before
I4  effective hyperparameters equal the recorded ones, as far as a checkpoint tells
I5  each (member, interval) is counted once; budgets are exact
I6  the run can go on: somebody can claim something, unless it is finished
I7  at rest, no file is older than the grace period that nobody needs
I8  every decision recomputes from the journal

A run may go on while it is looked at. What its workers do meanwhile is no problem: a checkpoint counts as missing only if
the journal, read again after the file was looked for, still needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from phyla.checkpoints import Checkpoints, Tree, file_name, parse_file_name
from phyla.decide import Choice, decide
from phyla.errors import CheckpointError, PhylaError
from phyla.events import Checkpoint, Claimed, Created, Event, Extended, Failed, Origin, Recorded, Reported
from phyla.record import Record
from phyla.state import Made
from phyla.state.options import Changed, differences
from phyla.strategies.contract import Strategy
from phyla.tree import take_row
from phyla.view import View, fold

GRACE = 120.0
"""Seconds for which a file may lie about that nobody needs: a worker looks for such files every minute."""


class Problem(NamedTuple):
    """One invariant that does not hold: which, where in the run, what was seen, and what to do."""

    invariant: str
    where: str
    what: str
    advice: str

    def __str__(self) -> str:
        return f"{self.invariant} at {self.where}: {self.what}. {self.advice}"


KEEP_A_COPY = "Keep a copy of the run and report this: phyla does not write such a journal."


@dataclass(frozen=True)
class Surroundings:
    """What the journal does not tell. By default nothing is known, and the run is at rest.

    now: seconds since 1970. gone: whether that worker's process is known to have ended. origins: raises where another run's
    state cannot be loaded. read: the journal's events after a position, as they stand by then.
    """

    now: float | None = None
    gone: Callable[[str], bool] = lambda worker: False
    origins: Callable[[Origin], object] = lambda origin: None
    read: Callable[[int], Iterable[Recorded]] = lambda after: ()


def examine(
    events: Sequence[Recorded],
    checkpoints: Checkpoints | None = None,
    strategy: Strategy | None = None,
    around: Surroundings | None = None,
    unchecked: dict[str, str] | None = None,
) -> Iterator[Problem]:
    """Every problem of a run. I2, I4 and I7 need its checkpoints, I8 the strategy that it was created with.

    unchecked: takes up why an invariant could not be checked after all.
    """
    around = around if around is not None else Surroundings()
    try:
        view = fold(events, View(getattr(strategy, "retain", None)))
    except PhylaError as error:
        yield Problem("I1", "the journal", str(error), KEEP_A_COPY)
        return
    if view.created is None:
        yield Problem("I1", "the journal", "it holds no Created event", "The run was never started; begin it again.")
        return
    yield from _claims(events)
    yield from _lineage(events)
    yield from _budgets(view, events)
    yield from _ways_on(view, strategy, around)
    if strategy is not None:
        yield from _decisions(events, strategy)
    if checkpoints is not None:
        yield from _files(view, checkpoints, around, unchecked if unchecked is not None else {})
        yield from _at_rest(view, events, checkpoints, strategy, around)


def _claims(events: Sequence[Recorded]) -> Iterator[Problem]:
    """I1: each report stands right behind its own claim, and names the file that this claim alone writes.

    One without a file stands amid a span: the next claim follows it, and goes on from it or from another.
    """
    claims = {event.ref: event for _, event in events if isinstance(event, Claimed)}
    for _, event in events:
        if not isinstance(event, Reported):
            continue
        claim = claims.get(event.ref._replace(seq=event.seq - 1))
        where = f"member {event.member}, seq {event.seq}"
        if claim is None:
            yield Problem("I1", where, "a report that follows no claim", KEEP_A_COPY)
            continue
        if not event.checkpoint.saved:
            if event.ref._replace(seq=event.seq + 1) not in claims:
                yield Problem("I1", where, "a report without a checkpoint, and nothing follows it", KEEP_A_COPY)
            continue
        first = claim.cohort if claim.cohort is not None else claim.member
        own = event.checkpoint.file == file_name(claim.member, claim.seq)
        if first == claim.member and not own:
            what = f"a report by the holder of another claim: its checkpoint is {event.checkpoint.file}"
            yield Problem("I1", where, what, KEEP_A_COPY)


def _lineage(events: Sequence[Recorded]) -> Iterator[Problem]:
    """I3."""
    reported = set()
    for _, event in events:
        if isinstance(event, Reported):
            reported.add(event.ref)
        elif isinstance(event, Claimed):
            for what, ref in (("trains on", event.source), ("copies", event.donor)):
                if ref is not None and ref not in reported:
                    where = f"member {event.member}, interval {event.interval}"
                    yield Problem("I3", where, f"it {what} {tuple(ref)}, which was not reported before", KEEP_A_COPY)


def _budgets(view: View, events: Sequence[Recorded]) -> Iterator[Problem]:
    """I5. A report whose checkpoint was lost still was an interval, but does not count beside one that replaced it."""
    budgets = [event.intervals for _, event in events if isinstance(event, Extended)]
    budgets += [e.settings.intervals or view.intervals for _, e in events if isinstance(e, Created)]
    void: dict[int, set[int]] = {}
    for record in view.records.values():
        if record.void:
            void.setdefault(record.id, set()).update(_covers(record))
    for member, history in enumerate(view.history):
        where, counted = f"member {member}", [interval for record in history for interval in _covers(record)]
        if len(counted) != len(set(counted)):
            twice = sorted({interval for interval in counted if counted.count(interval) > 1})
            yield Problem("I5", where, f"interval {twice[0]} is counted twice", KEEP_A_COPY)
        expected = set(range(int(view.since[member]) + 1, max(counted, default=0) + 1))
        if missing := expected - set(counted) - void.get(member, set()):
            what = f"interval {min(missing)} was never reported, though later ones were"
            yield Problem("I5", where, what, KEEP_A_COPY)
        if counted and max(counted) > max(budgets):
            yield Problem("I5", where, f"{max(counted)} intervals of {max(budgets)}", KEEP_A_COPY)


def _covers(record: Record) -> range:
    return range(record.interval - record.span + 1, record.interval + 1)


def _ways_on(view: View, strategy: Strategy | None, around: Surroundings) -> Iterator[Problem]:
    """I6: whoever starts the script next finds something to claim, or somebody to wait for; and can begin what it claims."""
    if view.finished or view.paused:
        return
    claimable = view.claimable()
    if not claimable and not view.busy.any():
        yield Problem(
            "I6", "the run", "it is not finished, nobody holds a member, and none can be claimed", KEEP_A_COPY
        )
    for member in claimable:
        where, born = f"member {member}", view.born[member]
        if born is None:
            yield Problem("I6", where, "it was never born", KEEP_A_COPY)
            continue
        if born.origin is not None and view.newest(member) is None and not view.replacements[member]:
            try:
                around.origins(born.origin)
            except PhylaError as error:
                advice = "Bring that run back to where it was: whoever claims this member needs it."
                yield Problem("I6", where, str(error), advice)
        if strategy is not None:
            try:
                decide(view, member, strategy)
            except PhylaError as error:
                advice = "No worker can claim it: see to the strategy, or report this."
                yield Problem("I6", where, f"what it does next cannot be decided: {error}", advice)


def abandoned(view: View, gone: Callable[[str], bool]) -> list[Claimed]:
    """The open claims of workers that are known to be gone: whoever works on the run next ends them."""
    return [claim for claim in view.open if claim is not None and gone(claim.worker)]


def _decisions(events: Sequence[Recorded], strategy: Strategy) -> Iterator[Problem]:
    """I8."""
    view = View(getattr(strategy, "retain", None))
    for saw, at, claim in _decided(events):
        while view.position < min(saw, at - 1):
            view.fold(events[view.position])
        where = f"member {claim.member}, interval {claim.interval}"
        if view.created is None or view.position != saw or _head(view, claim.member) != claim.seq - 1:
            what = f"the claim at position {at} was decided at {saw}, where its place was not the next one"
            yield Problem("I8", where, what, KEEP_A_COPY)
            continue
        try:
            choice = decide(view, claim.member, strategy)
        except PhylaError as error:
            yield Problem("I8", where, f"its decision cannot be recomputed: {error}", KEEP_A_COPY)
            continue
        if not choice.agrees(Choice.of(claim)):
            what = f"recorded {Choice.of(claim)}, but the journal gives {choice}"
            yield Problem("I8", where, what, "Was it written by another version of phyla, or of the strategy?")


def _decided(events: Sequence[Recorded]) -> list[tuple[int, int, Claimed]]:
    """Every claim: from which position it was decided, where it stands, and what it says; in the order of the first.

    A claim that follows a report without a checkpoint was decided before both were appended: from that report and all others
    before it in the append, wherever in the journal this came to stand.
    """
    found, unsaved = [], set()
    for at, event in events:
        if isinstance(event, Reported) and not event.checkpoint.saved:
            unsaved.add(event.ref)
        elif isinstance(event, Claimed):
            amid = event.ref._replace(seq=event.seq - 1) in unsaved
            found.append((at - 1 if amid else event.saw, at, event))
    return sorted(found, key=lambda decided: decided[:2])


def _head(view: View, member: int) -> int | None:
    return int(view.head[member]) if member < len(view.head) else None


# What lies in the checkpoints -----------------------------------------------------------------------------------------


def kept(view: View) -> dict[Checkpoint, list[Record]]:
    """The files that must exist, each with the reports that need it: a cohort's members share one."""
    found: dict[Checkpoint, list[Record]] = {}
    for record in view.records.values():
        if not record.freed and not record.void:
            saved = record.checkpoint
            found.setdefault(Checkpoint(saved.file, saved.digest, saved.size), []).append(record)
    return found


def _files(view: View, checkpoints: Checkpoints, around: Surroundings, unchecked: dict[str, str]) -> Iterator[Problem]:
    """I2 and I4: each file is read once."""
    told = False
    for checkpoint, records in kept(view).items():
        try:
            tree = checkpoints.load(checkpoint)
        except CheckpointError as error:
            fold(around.read(view.position), view)  # a file goes only after the event that releases it
            for record in records:
                if not record.freed and not record.void:
                    where = f"member {record.id}, interval {record.interval}"
                    yield Problem("I2", where, str(error), _advice(view))
            continue
        for record in records:
            row = record.checkpoint.row
            saved = tree if row is None else take_row(tree, row)
            made = Made.of(saved) if isinstance(saved, dict) else Made()
            told = told or bool(made.hypers)
            for what in _not_in_effect(record, saved, made):
                advice = "Does the loop, or a library that it calls, load an older state or set options of its own?"
                yield Problem("I4", f"member {record.id}, interval {record.interval}", what, advice)
    if not told:
        unchecked["I4"] = "no checkpoint says what init has set"


def _advice(view: View) -> str:
    on = "whoever needs it records this and goes on from the one before"
    if view.finished:
        return f"Restore it from a copy of the run: this one is finished. If it is extended, {on}."
    return f"The run can go on all the same: {on}. --repair records it now."


def _not_in_effect(record: Record, saved: Tree, made: Made) -> Iterator[str]:
    """I4: what init was called with, and options that stand at the value that an ancestor had trained with.

    An option that differs from what init made of it may have been moved by the loop's own schedule. But one that stands at
    the very value that an ancestor was recorded with, while init had set the new one, came back with the weights.
    """
    for name, value in record.hypers.items():
        if name in made.hypers and made.hypers[name] != value:
            yield f"{name} was {made.hypers[name]!r} when init made its state; {value!r} is recorded"
    for path, options in made.options.items():
        state = _at(saved.get("state"), path.removeprefix("state"))
        for change in differences(path, state, options) if isinstance(state, dict) else ():
            if _is_moved(state, change):
                continue
            for name, value in record.hypers.items():
                if _is_set_by(change, name, value) and change.saved in _earlier(record, name):
                    yield (
                        f"{change.option} of {path} is {change.saved!r}, which it came with from its donor; "
                        f"{name} {value!r} is recorded"
                    )


def _at(tree: Tree, path: str) -> Tree:
    """What lies in a saved state at the path of a live one, such as ['optimizer'] or .params[0]; None for nothing."""
    if not path:
        return tree
    children: Iterable[tuple[Any, Tree]] = ()
    if isinstance(tree, dict | list | tuple):
        children = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, child in children:
        for step in (f"[{key!r}]", f".{key}"):
            if path.startswith(step) and (found := _at(child, path[len(step) :])) is not None:
                return found
    return None


def _is_moved(state: Tree, change: Changed) -> bool:
    """Whether a scheduler moves this option, which may pass an earlier value on its way: its base is looked at instead."""
    holder = state
    for key in change.keys[:-1]:
        holder = holder[key]
    bases = {"lr": "initial_lr", "momentum": "max_momentum", "betas": "max_momentum"}
    return change.option == "_last_lr" or (isinstance(holder, dict) and bases.get(change.option) in holder)


def _is_set_by(change: Changed, name: str, value: object) -> bool:
    """Whether init had set an option to this hyperparameter. Few values but floats are one's own, so their names must agree."""
    return change.new == value and (change.option == name or (type(value) is float and type(change.new) is float))


def _earlier(record: Record, name: str) -> list[object]:
    values = [ancestor.hypers.get(name) for ancestor in record.ancestry()[:-1]]
    return [value for value in values if value != record.hypers[name]]


# Files that nobody needs ----------------------------------------------------------------------------------------------


class Orphan(NamedTuple):
    """A checkpoint's file that may be deleted."""

    file: str
    why: str  # "released": the journal needs it no more; "never reported": its claim has ended without
    since: float  # seconds since 1970, by the clock of whoever wrote the event


def orphans(events: Iterable[Recorded], files: Iterable[str], strategy: Strategy | None) -> list[Orphan]:
    """Which of these files nobody needs. List the files first, and read the journal then.

    Where the strategy is not known, it may retain what the rules of phyla's own release: only what was never reported is
    certain then.
    """
    view = View(getattr(strategy, "retain", None))
    reported: set[str] = set()
    since: dict[str, float] = {}
    for recorded in events:
        event = recorded.event
        freed = view.fold(recorded)
        since.update(dict.fromkeys(freed, event.time))
        if isinstance(event, Reported):
            reported.add(event.checkpoint.file)
        elif isinstance(event, Failed):
            since[file_name(event.member, event.seq - 1)] = event.time
    named = [(file, *place) for file in files if (place := parse_file_name(file)) is not None]
    found = [
        Orphan(file, "released" if file in reported else "never reported", since.get(file, 0.0))
        for file in view.orphans(named)
    ]
    return [orphan for orphan in found if strategy is not None or orphan.why == "never reported"]


def is_at_rest(view: View, newest: Event, around: Surroundings) -> bool:
    """Whether nobody works on the run, as far as can be known: nobody who may live holds a member, and nothing is new."""
    held = any(claim is not None and not around.gone(claim.worker) for claim in view.open)
    return not held and around.now is not None and around.now - newest.time > GRACE


def _at_rest(
    view: View, events: Sequence[Recorded], checkpoints: Checkpoints, strategy: Strategy | None, around: Surroundings
) -> Iterator[Problem]:
    """I7. While workers are at it, they delete such files themselves, sooner or later."""
    files = checkpoints.files()
    events = [*events, *around.read(events[-1].position)]
    if around.now is None or not is_at_rest(fold(events), events[-1].event, around):
        return
    old = [orphan for orphan in orphans(events, files, strategy) if around.now - orphan.since > GRACE]
    if old:
        there = set(checkpoints.files())  # whoever begins just now may have swept
        for orphan in old:
            if orphan.file in there:
                yield Problem(
                    "I7", orphan.file, f"nobody needs it: {orphan.why}", "`phyla gc` deletes it, or the next worker."
                )
