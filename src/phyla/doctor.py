"""The invariants of a run, checked on its journal and its checkpoints. Reads only.

I1  one live claim a member; no event after a lost claim by its old holder
I2  every checkpoint that the journal names and has not released exists, whole
I3  lineage is a forest: whatever was copied or trained on had been reported before
I5  each (member, interval) is counted once; budgets are exact
I8  every decision recomputes from the journal
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from phyla.checkpoints import Checkpoints, file_name
from phyla.decide import Choice, decide
from phyla.errors import CheckpointError, PhylaError
from phyla.events import Claimed, Recorded, Reported
from phyla.record import Record
from phyla.strategies.contract import Strategy
from phyla.view import View, fold


class Problem(NamedTuple):
    """One invariant that does not hold: which, where in the run, what was seen, and what to do."""

    invariant: str
    where: str
    what: str
    advice: str

    def __str__(self) -> str:
        return f"{self.invariant} at {self.where}: {self.what}. {self.advice}"


KEEP_A_COPY = "Keep a copy of the run and report this: phyla does not write such a journal."


def examine(
    events: Sequence[Recorded], checkpoints: Checkpoints | None = None, strategy: Strategy | None = None
) -> Iterator[Problem]:
    """Every problem of a run. I2 needs its checkpoints, I8 the strategy that it was created with."""
    try:
        view = fold(events, View(getattr(strategy, "retain", None)))
    except PhylaError as error:
        yield Problem("I1", "the journal", str(error), KEEP_A_COPY)
        return
    if view.created is None:
        yield Problem("I1", "the journal", "it holds no Created event", "The run was never started; begin it again.")
        return
    yield from _claims(events)
    if checkpoints is not None:
        yield from _files(view, checkpoints)
    yield from _lineage(events)
    yield from _budgets(view)
    if strategy is not None:
        yield from _decisions(events, strategy)


def _claims(events: Sequence[Recorded]) -> Iterator[Problem]:
    """I1: each report stands right behind its own claim, and names the file that this claim alone writes."""
    claims = {event.ref: event for _, event in events if isinstance(event, Claimed)}
    for _, event in events:
        if not isinstance(event, Reported):
            continue
        claim = claims.get(event.ref._replace(seq=event.seq - 1))
        where = f"member {event.member}, seq {event.seq}"
        if claim is None:
            yield Problem("I1", where, "a report that follows no claim", KEEP_A_COPY)
            continue
        first = claim.cohort[0] if claim.cohort else claim.member
        own = event.checkpoint.file == file_name(claim.member, claim.seq)
        if first == claim.member and not own:
            what = f"a report by the holder of another claim: its checkpoint is {event.checkpoint.file}"
            yield Problem("I1", where, what, KEEP_A_COPY)


def _files(view: View, checkpoints: Checkpoints) -> Iterator[Problem]:
    """I2."""
    for record in view.records.values():
        if record.freed or record.void:
            continue
        try:
            checkpoints.load(record.checkpoint)
        except CheckpointError as error:
            advice = "The next worker that needs it records this and goes on from the one before."
            yield Problem("I2", f"member {record.id}, interval {record.interval}", str(error), advice)


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


def _budgets(view: View) -> Iterator[Problem]:
    """I5. A report whose checkpoint was lost still was an interval, but does not count beside one that replaced it."""
    void: dict[int, set[int]] = {}
    for record in view.records.values():
        if record.void:
            void.setdefault(record.id, set()).update(_covers(record))
    for member, history in enumerate(view.history):
        where, counted = f"member {member}", [interval for record in history for interval in _covers(record)]
        if len(counted) != len(set(counted)):
            twice = sorted({interval for interval in counted if counted.count(interval) > 1})
            yield Problem("I5", where, f"interval {twice[0]} is counted twice", KEEP_A_COPY)
        if missing := set(range(int(view.since[member]) + 1, max(counted, default=0) + 1)) - set(counted) - void.get(member, set()):
            yield Problem(
                "I5", where, f"interval {min(missing)} was never reported, though later ones were", KEEP_A_COPY
            )
        if counted and max(counted) > view.intervals:
            yield Problem("I5", where, f"{max(counted)} intervals of {view.intervals}", KEEP_A_COPY)


def _covers(record: Record) -> range:
    return range(record.interval - record.span + 1, record.interval + 1)


def _decisions(events: Sequence[Recorded], strategy: Strategy) -> Iterator[Problem]:
    """I8."""
    claims = sorted(((at, e) for at, e in events if isinstance(e, Claimed)), key=lambda found: found[1].saw)
    view = View(getattr(strategy, "retain", None))
    for at, claim in claims:
        while view.position < min(claim.saw, at - 1):
            view.fold(events[view.position])
        where = f"member {claim.member}, interval {claim.interval}"
        if view.created is None or view.position != claim.saw or view.head[claim.member] != claim.seq - 1:
            what = f"the claim at position {at} was decided at {claim.saw}, where its place was not the next one"
            yield Problem("I8", where, what, KEEP_A_COPY)
            continue
        try:
            choice = decide(view, claim.member, strategy)
        except PhylaError as error:
            yield Problem("I8", where, f"its decision cannot be recomputed: {error}", KEEP_A_COPY)
            continue
        if choice != Choice.of(claim):
            what = f"recorded {Choice.of(claim)}, but the journal gives {choice}"
            yield Problem("I8", where, what, "Was it written by another version of phyla, or of the strategy?")
