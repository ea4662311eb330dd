"""A report, as the view keeps it: what one member came to in one interval, and what had made it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping

import msgspec

from phyla.events import Checkpoint, Ref
from phyla.space import Hypers


class Record(msgspec.Struct, eq=False, gc=False):  # gc=False: a parent is always older, so there are no cycles
    """A report, with what its claim had decided: everything that is known of one trained interval (or span).

    Score, hyperparameters and checkpoint belong together: a donor is one of these.
    """

    id: int  # the member
    seq: int  # of the Reported event in the member's stream
    interval: int  # the last one that this covers, from 1
    span: int  # intervals covered
    score: float | None  # as reported; None: no score yet
    hypers: Hypers  # trained with
    checkpoint: Checkpoint
    steps: int | float  # trained in this span, in the user's unit
    total_steps: int | float  # of this member so far; never goes back, whoever it copies
    source: Ref | None  # the report whose weights were trained on; None: a fresh state
    donor: Ref | None  # the report that was copied before, if any
    parent: Record | None  # the record of `source`
    ready: bool  # it was ready when its claim was decided
    replaced: bool  # its own state had been given up then: diverged, or out of retries
    mixed: bool  # only a part of its source's weights was trained on: the rest was fresh
    samples: list[float] | None
    metrics: dict[str, object] | None
    notes: dict[str, object] | None
    worker: str
    uid: str
    position: int  # in the journal
    time: float  # seconds since 1970, by the worker's clock
    seconds: float  # from claim to report
    void: bool = False  # its checkpoint was found to be no good
    available: bool = True  # its checkpoint is kept for decisions; once False, for ever
    freed: bool = False  # its checkpoint may have been deleted
    peak: Ref | None = None  # the best finite report of its true ancestry, itself included; the earliest of equals

    @property
    def ref(self) -> Ref:
        return Ref(self.id, self.seq)

    @property
    def finite(self) -> bool:
        """Whether it has a score that can make it a donor."""
        return self.score is not None and math.isfinite(self.score)

    def recent(self, k: int) -> list[float]:
        """Its newest k samples, oldest first: of the intervals since its weights were last copied."""
        found: list[float] = []
        record: Record | None = self
        while record is not None and len(found) < k:
            found = [*(record.samples or ()), *found]
            own = record.parent is not None and record.parent.id == record.id and not record.mixed
            record = record.parent if own else None
        return found[-k:] if k > 0 else []

    def ancestry(self) -> list[Record]:
        """The reports whose weights led to this one, oldest first, itself last: through donors, not along the member."""
        path: list[Record] = [self]
        while (parent := path[-1].parent) is not None:
            path.append(parent)
        return path[::-1]

    def __repr__(self) -> str:
        return f"<member {self.id}, interval {self.interval}: {show_score(self.score)}>"

    def __str__(self) -> str:
        return (
            f"score {show_score(self.score)} (member {self.id}, interval {self.interval})\n"
            f"  hyperparameters  {show_hypers(self.hypers)}\n"
            + "".join(f"  {'' if n else 'schedule':16} {line}\n" for n, line in enumerate(schedule_lines(self)))
            + f"  checkpoint       {self.checkpoint.file or 'none, amid a span'}"
        )


def find_peak(record: Record, records: Mapping[Ref, Record], sign: float) -> Ref | None:
    """What `peak` is to be: sign is 1 where higher scores are better, else -1."""
    before = record.parent.peak if record.parent is not None else None
    if not record.finite or record.score is None:
        return before
    best = records[before].score if before is not None else None
    return record.ref if best is None or sign * record.score > sign * best else before


def show_copy(member: int, interval: int, donor: Record, before: Record | None, hypers: Hypers) -> str:
    """A copy in words: of whom, from which interval on, what changed, and by how much the donor was better."""
    old = before.hypers if before is not None else {}
    moves = ", ".join(
        f"{name} {show_value(old[name])} → {show_value(new)}"
        for name, new in hypers.items()
        if name in old and old[name] != new
    )
    was = show_score(before.score) if before is not None else "none"
    changed = moves or "same hyperparameters"
    return f"m{member} ← m{donor.id} at {interval}: {changed}, score {was} → {show_score(donor.score)}"


def show_value(value: object) -> str:
    """A hyperparameter's value for people."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def show_score(score: float | None) -> str:
    return "no score yet" if score is None else f"{score:.6g}"


def show_hypers(hypers: Hypers) -> str:
    return ", ".join(f"{name} {show_value(value)}" for name, value in hypers.items())


def show_schedule(record: Record, most: int = 8) -> str:
    """The schedule that made a record, in words: `lr 0.1 → 0.05 from interval 12 → …`; only what changed."""
    path, parts = record.ancestry(), []
    for name in record.hypers:
        values = [path[0].hypers[name]]
        turns = [show_value(values[0])]
        for before, after in itertools.pairwise(path):
            if after.hypers[name] != values[-1]:
                values.append(after.hypers[name])
                turns.append(f"{show_value(values[-1])} from interval {before.interval + 1}")
        if len(turns) > most:
            turns = [*turns[: most // 2], f"… {len(turns) - most} more …", *turns[-(most - most // 2) :]]
        parts.append(f"{name} {' → '.join(turns)}")
    return "; ".join(parts)


def schedule_lines(record: Record) -> list[str]:
    """The schedule that made a record, a line for each hyperparameter that changed; the others stand together on the last."""
    path = record.ancestry()
    changed = [name for name in record.hypers if any(each.hypers[name] != record.hypers[name] for each in path)]
    lines = [show_schedule(msgspec.structs.replace(record, hypers={name: record.hypers[name]})) for name in changed]
    same = {name: value for name, value in record.hypers.items() if name not in changed}
    return [*lines, f"{show_hypers(same)} throughout"] if same else lines
