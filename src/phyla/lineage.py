"""Where a model comes from: its true ancestry through its donors, and the schedule of hyperparameters along it."""

from __future__ import annotations

import bisect
import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from phyla.errors import SettingsError
from phyla.record import Record, show_copy, show_hypers
from phyla.space import Hypers
from phyla.view import View

SCHEDULE_FORMAT = "phyla-schedule-1"


@dataclass(frozen=True)
class Schedule:
    """Hyperparameters as a piecewise constant function of training steps.

    starts: the step at which each piece begins, [P], ascending from 0, in the unit that the run's `report(steps=)` used.
    hypers: the values that hold from there, [P]. total: the steps at which the training that it came from ended.

    The file that `save` writes is plain JSON: `{"format": "phyla-schedule-1", "total": 30.0, "pieces": [{"start": 0.0,
    "hypers": {"lr": 0.1}}, …]}`. At step s the piece with the largest start <= s holds; after `total` the last one does.
    """

    starts: tuple[float, ...]
    hypers: tuple[Hypers, ...]
    total: float

    def at(self, steps: float | None = None, *, fraction: float | None = None) -> Hypers:
        """The hyperparameters after so many steps, or after a fraction (0 to 1) of the whole training."""
        if (steps is None) == (fraction is None):
            raise SettingsError("Schedule.at: give either steps or fraction=, not both or neither")
        if fraction is not None:
            if not 0 <= fraction <= 1:
                raise SettingsError(f"Schedule.at(fraction={fraction!r}): expected a number from 0 to 1")
            steps = fraction * self.total
        assert steps is not None
        if not steps >= 0:
            raise SettingsError(f"Schedule.at({steps!r}): expected steps from 0 on")
        return dict(self.hypers[bisect.bisect_right(self.starts, steps) - 1])

    def __iter__(self) -> Iterator[tuple[float, Hypers]]:
        """(start, hyperparameters) of each piece."""
        return iter(zip(self.starts, (dict(h) for h in self.hypers), strict=True))

    def __len__(self) -> int:
        return len(self.starts)

    def to_json(self) -> str:
        pieces = [{"start": start, "hypers": hypers} for start, hypers in self]
        return json.dumps({"format": SCHEDULE_FORMAT, "total": self.total, "pieces": pieces}, indent=2)

    def save(self, path: str | Path) -> None:
        """Writes the schedule as JSON."""
        Path(path).write_text(self.to_json() + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Schedule:
        """The schedule that `save` wrote."""
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            if data["format"] != SCHEDULE_FORMAT:
                raise ValueError(f"its format is {data['format']!r}")
            pieces = data["pieces"]
            schedule = cls(
                tuple(float(p["start"]) for p in pieces), tuple(dict(p["hypers"]) for p in pieces), float(data["total"])
            )
            if not pieces or schedule.starts[0] != 0 or any(a >= b for a, b in itertools.pairwise(schedule.starts)):
                raise ValueError("its pieces must start at 0 and ascend")
            if not schedule.starts[-1] <= schedule.total < math.inf:
                raise ValueError(f"its total is {schedule.total}, and its last piece starts at {schedule.starts[-1]}")
        except KeyError as error:
            raise SettingsError(f"{path} is not a schedule that phyla wrote ({SCHEDULE_FORMAT}): no {error}") from None
        except (OSError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise SettingsError(f"{path} is not a schedule that phyla wrote ({SCHEDULE_FORMAT}): {error}") from None
        return schedule

    def __str__(self) -> str:
        return "\n".join(f"from step {start:g}: {show_hypers(hypers)}" for start, hypers in self)


def schedule(record: Record) -> Schedule:
    """The hyperparameters along the true ancestry of a record; equal neighbours are one piece."""
    starts: list[float] = []
    pieces: list[Hypers] = []
    steps = 0.0
    for ancestor in record.ancestry():
        if ancestor.steps and (not pieces or ancestor.hypers != pieces[-1]):
            starts.append(steps)
            pieces.append(dict(ancestor.hypers))
        steps += ancestor.steps
    if not pieces:  # nothing was trained: the hyperparameters it has are all there is to say
        starts, pieces = [0.0], [dict(record.hypers)]
    return Schedule(tuple(starts), tuple(pieces), steps)


class Copy(NamedTuple):
    """One exploit: a member went on from another's report, or took its hyperparameters."""

    member: int
    interval: int  # the first one trained after it
    donor: Record  # what was copied
    before: Record | None  # where the member stood
    after: Record  # what the member reported then

    def __str__(self) -> str:
        return show_copy(self.member, self.interval, self.donor, self.before, self.after.hypers)


@dataclass(frozen=True)
class Lineage:
    """The family tree of a run: every report that counts, and every copy between members, in the journal's order."""

    records: Sequence[Record]
    copies: Sequence[Copy]

    def ancestors(self, record: Record) -> list[Record]:
        """The reports whose weights led to this one, oldest first, itself last."""
        return record.ancestry()

    def roots(self) -> dict[int, int]:
        """For each member, the member from whose first weights its newest descend."""
        newest = {record.id: record for record in self.records}
        return {member: record.ancestry()[0].id for member, record in sorted(newest.items())}


def lineage(view: View) -> Lineage:
    """The family tree of all that is reported so far."""
    records = sorted(itertools.chain.from_iterable(view.history), key=lambda record: record.position)
    before: dict[int, Record] = {}
    copies = []
    for record in records:
        if record.donor is not None:
            first = record.interval - record.span + 1
            copies.append(Copy(record.id, first, view.records[record.donor], before.get(record.id), record))
        before[record.id] = record
    return Lineage(records, copies)
