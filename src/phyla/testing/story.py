"""Journals written by hand, tersely, for tests of strategies: each method appends one event and folds it.

story = Story(size=3, keep=2)
story.train(0, 1.5)                     # member 0 is claimed, and reports a score of 1.5
story.claim(1, source=story.newest(0))  # member 1 is claimed to go on from that
story.fail(1, "lost")
story.freed                             # the files that nobody needs any more
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping
from copy import copy
from typing import Any

import numpy as np

from phyla.checkpoints import file_name
from phyla.decide import decide
from phyla.events import (
    RUN,
    Born,
    Checkpoint,
    Claimed,
    Created,
    Event,
    Extended,
    Failed,
    FailedKind,
    Recorded,
    Ref,
    Reported,
    Stopped,
    as_json_number,
)
from phyla.record import Record
from phyla.settings import Settings
from phyla.space import Float, Hypers, Int, Space, describe
from phyla.strategies.contract import Strategy
from phyla.view import View

SPACE: Space = {"lr": Float(1e-4, 1.0), "units": Int(1, 64), "depth": Int(1, 8, structural=True)}
"""What a story searches, if nothing else is said."""


class Story:
    """A run, event by event. size, space and other settings as in Settings; retain as in View.

    births: what a member is born with, if not `hypers_of`.
    """

    def __init__(
        self,
        size: int = 3,
        retain: Callable[[View], Collection[Ref]] | None = None,
        space: Space = SPACE,
        births: Callable[[int, Space], Hypers] | None = None,
        **settings: Any,
    ):
        self.retain = retain
        self.view = View(retain)
        self.events: list[Recorded] = []
        self.freed: list[str] = []
        known = {"seed": 0, "intervals": 100, **settings}
        created = Settings(space=describe(space), size=size, **known)
        self.add(Created(member=RUN, seq=1, run="story", version="0", settings=created))
        for m in range(size):
            self.add(Born(member=m, seq=1, hypers=(births or hypers_of)(m, space)))

    def retold(self, change: Callable[[Event], Event] = lambda event: event) -> Story:
        """Another story of the same events, each changed; what is added to one is not in the other."""
        other = copy(self)
        other.view, other.events, other.freed = View(self.retain), [], []
        for _, event in self.events:
            other.add(change(event))
        return other

    def add(self, event: Event) -> list[str]:
        """Appends any event; returns the files that it freed."""
        recorded = Recorded(self.view.position + 1, event)
        freed = self.view.fold(recorded)
        self.events.append(recorded)
        self.freed += freed
        return freed

    def newest(self, member: int) -> Record:
        record = self.view.newest(member)
        assert record is not None
        return record

    def kept(self, member: int) -> list[int]:
        """The intervals of a member whose checkpoints must exist."""
        return [record.interval for record in self.view.records.values() if record.id == member and not record.freed]

    def available(self, member: int) -> list[int]:
        """The intervals of a member that decisions may use."""
        mine = (record for record in self.view.records.values() if record.id == member)
        return [record.interval for record in mine if record.available and not record.void]

    def history(self, member: int, intervals: int) -> None:
        """The member trains so many intervals, and gets ever better."""
        for interval in range(1, intervals + 1):
            self.train(member, 10.0 * member + interval)

    def next_seq(self, member: int) -> int:
        return int(self.view.head[member]) + 1

    def claim(self, member: int, source: Record | Ref | str | None = "own", **changes: Any) -> Claimed:
        """The member is claimed to go on from its own newest report, from another's, or (None) from a fresh state."""
        own = self.view.restorable(member)
        if source == "own":
            source = own
        ref = source.ref if isinstance(source, Record) else source
        known: dict[str, Any] = {
            "interval": int(self.view.done[member]) + 1,
            "worker": "w0",
            "saw": self.view.position,
            "source": ref,
            "donor": ref if isinstance(ref, Ref) and ref.member != member else None,
            **changes,
        }
        if "hypers" not in known:
            known["hypers"] = own.hypers if own is not None else hypers_of(member, self.view.space)
        claim = Claimed(member=member, seq=self.next_seq(member), **known)
        self.add(claim)
        return claim

    def report(self, member: int, score: float | None = 0.0, **changes: Any) -> Record:
        """The member's open claim ends well."""
        claim = self.view.open[member]
        assert claim is not None
        known: dict[str, Any] = {
            "interval": claim.interval + claim.span - 1,
            "span": claim.span,
            "score": as_json_number(score),
            "checkpoint": Checkpoint(file_name(member, claim.seq), f"{member:016x}{claim.seq:016x}", 1),
            **changes,
        }
        self.add(Reported(member=member, seq=self.next_seq(member), **known))
        return self.newest(member)

    def fail(self, member: int, why: FailedKind = "lost", voids: Record | Ref | None = None) -> list[str]:
        """The member's open claim ends badly; returns the files that this freed."""
        claim = self.view.open[member]
        assert claim is not None
        ref = voids.ref if isinstance(voids, Record) else voids
        return self.add(Failed(member=member, seq=self.next_seq(member), interval=claim.interval, why=why, voids=ref))

    def train(
        self, member: int, score: float | None = 0.0, source: Record | Ref | str | None = "own", **claim: Any
    ) -> Record:
        """A whole turn."""
        self.claim(member, source, **claim)
        return self.report(member, score)

    def decide(self, member: int, strategy: Strategy) -> Claimed:
        """The member is claimed as the strategy decides."""
        choice = decide(self.view, member, strategy)
        return self.claim(
            member,
            choice.source,
            hypers=choice.hypers,
            donor=choice.donor,
            ready=choice.ready,
            replaced=choice.replaced,
            notes=choice.notes,
            mix=choice.mix,
        )

    def turn(self, member: int, score: float | None, strategy: Strategy, **report: Any) -> Record:
        """A whole turn, as the strategy decides."""
        self.decide(member, strategy)
        return self.report(member, score, **report)

    def generation(self, *scores: float | None) -> list[Record]:
        """Every member trains for an interval, and they report these scores, in order of id."""
        return [self.train(member, score) for member, score in enumerate(scores)]

    def extend(self, intervals: int) -> None:
        self.add(Extended(member=RUN, seq=self.view.run_head + 1, intervals=intervals))

    def stop(self, why: str = "enough") -> None:
        self.add(Stopped(member=RUN, seq=self.view.run_head + 1, why=why))


def hypers_of(member: int, space: Space) -> Hypers:
    """What this member is born with: other values for each."""
    rng = np.random.default_rng(member)
    return {name: hyperparameter.sample(rng) for name, hyperparameter in space.items()}


def snapshot(view: View) -> dict[str, Any]:
    """All that a view holds, as values that compare: two views are the same if these are equal."""

    def plain(value: Any) -> Any:
        match value:
            case Record():
                fields = {name: getattr(value, name) for name in value.__struct_fields__ if name != "parent"}
                return {**{name: plain(field) for name, field in fields.items()}, "parent": place(value.parent)}
            case np.ndarray():
                return value.tolist()
            case Mapping():
                return {key: plain(item) for key, item in value.items()}
            case set():
                return sorted(value)
            case list() | deque():
                return [place(item) if isinstance(item, Record) else plain(item) for item in value]
            case float() if value != value:
                return "NaN"  # which does not equal itself
        return value

    def place(record: Record | None) -> Ref | None:
        return record.ref if record is not None else None

    return {
        name: place(value) if isinstance(value, Record) else plain(value)
        for name, value in vars(view).items()
        if name not in ("_retain", "space", "_standings")
    }
