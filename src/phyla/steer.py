"""What may be said to a run while it lives: change its budget, size or bounds; pause, resume, stop it.

Each is an event of the run's own stream, which every worker reads before its next claim. None touches what was reported.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from phyla import randomness, runs
from phyla.errors import Conflict, SettingsError
from phyla.events import RUN, Born, Event, Extended, Paused, Resized, Resumed, SpaceChanged, Stopped
from phyla.journal import Journal
from phyla.randomness import Purpose
from phyla.space import Float, Int, Space, describe, draw
from phyla.view import View, fold

Speech: TypeAlias = Callable[[View], Sequence[Event]]
"""The events that say something to a run as this view shows it; none where there is nothing to say."""


def say(path: str | Path, *speeches: Speech) -> list[Event]:
    """Appends what is said, in one append, and returns it. Raises SettingsError if the run cannot do it."""
    journal, _ = runs.open_for_work(runs.find(path))
    try:
        return _say(journal, speeches)
    finally:
        journal.close()


def _say(journal: Journal, speeches: Sequence[Speech]) -> list[Event]:
    view = View()
    while True:
        fold(journal.read(view.position), view)
        if view.created is None:
            raise SettingsError("the run has not begun: its journal is empty")
        # Each is said as if those before it stood already: they follow one another in one append.
        events: list[Event] = []
        for speech in speeches:
            said = [placed(event, view.run_head + 1) if event.member == RUN else event for event in speech(view)]
            events += said
            for event in said:
                if event.member == RUN:
                    view.run_head += 1
                if isinstance(event, Extended):
                    view.intervals = event.intervals
        if not events:
            return []
        try:
            journal.append(*events)
        except Conflict:  # somebody else has just said something
            view = View()
            continue
        return events


def placed(event: Event, seq: int) -> Event:
    """The event at this place of the run's stream, now."""
    return msgspec.structs.replace(event, seq=seq, time=time.time())


def extend(intervals: int) -> Speech:
    """A budget of so many intervals for each member; less than before ends the run sooner."""
    if intervals < 1:
        raise SettingsError(f"--intervals {intervals}: expected 1 or more")

    def speech(view: View) -> Sequence[Event]:
        return [Extended(member=RUN, seq=0, intervals=intervals)] if intervals != view.intervals else []

    return speech


def resize(size: int) -> Speech:
    """So many members. Who enters copies one of the best and explores; who leaves are the worst."""
    if size < 1:
        raise SettingsError(f"--size {size}: expected 1 or more")

    def speech(view: View) -> Sequence[Event]:
        active = [int(member) for member in view.active.nonzero()[0]]
        first = int(view.done[active].min()) + 1
        if size < view.size:
            worst = sorted(active, key=lambda m: (_standing(view, m), m))[: view.size - size]
            return [Resized(member=RUN, seq=0, size=size, first=first, retired=sorted(worst))]
        if size == view.size:
            return []
        if first > view.intervals:
            raise SettingsError(
                f"all members have trained their {view.intervals} intervals, so new ones would have nothing to train: "
                f"give more intervals at the same time, as in --size {size} --intervals {2 * view.intervals}"
            )
        entered = range(len(view.done), len(view.done) + size - view.size)
        return [Resized(member=RUN, seq=0, size=size, first=first), *(_birth(view, member) for member in entered)]

    return speech


def _standing(view: View, member: int) -> float:
    newest = view.newest(member)
    return view.value(newest) if newest is not None else float("-inf")


def _birth(view: View, member: int) -> Born:
    rng = randomness.generator(view.settings.seed, member, 0, Purpose.BIRTH, 0)
    return Born(member=member, seq=1, hypers=draw(view.space, rng), time=time.time())


def bounds(changes: Mapping[str, float]) -> Speech:
    """Other bounds, as in {"lr.high": 0.1}, from the first interval on that nobody has begun."""

    def speech(view: View) -> Sequence[Event]:
        space = _with_bounds(view.space, changes)
        if space == view.space:
            return []
        begun = [claim.interval + claim.span - 1 for claim in (*view.open, *view.repeat) if claim is not None]
        first = max([int(view.done.max()), *begun]) + 1
        return [SpaceChanged(member=RUN, seq=0, space=describe(space), first=first)]

    return speech


def _with_bounds(space: Space, changes: Mapping[str, float]) -> Space:
    changed: dict[str, Any] = dict(space)
    for key, value in changes.items():
        name, _, end = key.rpartition(".")
        hyperparameter = changed.get(name)
        if hyperparameter is None or end not in ("low", "high"):
            raise SettingsError(f"--space {key}: expected NAME.low or NAME.high; the run has {', '.join(space)}")
        if not isinstance(hyperparameter, Float | Int):
            raise SettingsError(f"--space {key}: {name} is a {type(hyperparameter).__name__}, which has no bounds")
        if hyperparameter.structural:
            raise SettingsError(f"--space {key}: {name} is structural, so its value follows the weights")
        given: Any = int(value) if isinstance(hyperparameter, Int) and float(value).is_integer() else value
        changed[name] = dataclasses.replace(hyperparameter, **{end: given, "init": None})
    return changed


def pause(view: View) -> Sequence[Event]:
    """Nobody claims anything until `resume`; what is being trained is reported."""
    if view.finished:
        raise SettingsError("the run is finished, so there is nothing to pause")
    return [] if view.paused else [Paused(member=RUN, seq=0)]


def resume(view: View) -> Sequence[Event]:
    """What was paused or stopped goes on."""
    return [Resumed(member=RUN, seq=0)] if view.paused or view.stopped is not None else []


def stop(why: str) -> Speech:
    """The run ends; what is being trained may still be reported."""

    def speech(view: View) -> Sequence[Event]:
        return [] if view.finished else [Stopped(member=RUN, seq=0, why=why)]

    return speech
