"""The facts of a run. A journal is an append-only list of these; nothing else is shared between workers.

Each event stands in one *stream* at one place, `(member, seq)`, with seq = 1, 2, 3, … without gaps. Stream m holds what
happens to member m; stream RUN holds what happens to the run. One constraint, that a place is taken once, is lock, lease
and fencing token at the same time.

    stream m    Born  ( Claimed  ( Reported | Failed )  |  Failed(checkpoint) )*
    stream RUN  Created  ( Extended | Resized | SpaceChanged | Paused | Resumed | Stopped )*

| event    | written by                                      | may follow                     |
|----------|-------------------------------------------------|--------------------------------|
| Created  | the first worker, with all Born, in one append  | nothing: it is (RUN, 1)        |
| Born     | with Created, or with the Resized that adds it  | nothing: it is (m, 1)          |
| Claimed  | any worker                                      | Born, Reported, Failed         |
| Reported | the holder of the open claim                    | its Claimed                    |
| Failed   | the holder; whoever found it lost or reaped it  | its Claimed                    |
| Failed(checkpoint, voids=…) | the worker whose restore failed  | its Claimed                    |
| Extended, Resized, SpaceChanged | `phyla change`           | anything in stream RUN         |
| Paused, Resumed | `phyla pause`, `phyla resume`            | anything in stream RUN         |
| Stopped  | the worker that saw the target reached; `phyla stop` | anything in stream RUN    |
"""

from __future__ import annotations

import math
import os
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from phyla.errors import JournalError
from phyla.settings import Settings

RUN = -1
"""The stream that holds the run's own events."""

FORMAT = 1
"""The version of the journal's schema. A journal with a higher one is refused before anything is written."""


class Ref(NamedTuple):
    """A report, by its place in the journal."""

    member: int
    seq: int


class Checkpoint(msgspec.Struct, frozen=True, gc=False):
    """Where one immutable state lies. It counts from the Reported event that names it."""

    file: str  # its name in the run's checkpoint store
    digest: str  # xxh3-128 of the whole file, as hex
    size: int  # bytes
    row: int | None = None  # its row, where one file holds the stacked states of a cohort

    @property
    def saved(self) -> bool:
        """False for UNSAVED."""
        return bool(self.file)


UNSAVED = Checkpoint(file="", digest="", size=0)
"""Of a report amid a span that one program has both trained and decided: the state was on its device, and went on from there.

Such a report stands in one append with the later ones of its span, of which the last is saved.
"""


class Origin(msgspec.Struct, frozen=True):
    """A report of another run that a member is born from."""

    run: str  # the other run's path or address
    uid: str  # of the other run's Reported event
    member: int
    seq: int
    checkpoint: Checkpoint


def new_uid() -> str:
    """128 random bits, as 32 hex digits."""
    return os.urandom(16).hex()


class _Event(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", omit_defaults=True, gc=False):
    member: int  # the stream: a member's id from 0, or RUN
    seq: int  # the place in the stream, from 1
    uid: str = msgspec.field(default_factory=new_uid)  # tells my own event, when the answer to an append was lost
    time: float = 0.0  # seconds since 1970 on the writer's clock; for people, never for decisions

    @property
    def kind(self) -> str:
        """The event's kind in lower case, as it stands in the JSON."""
        return str(self.__struct_config__.tag)

    @property
    def ref(self) -> Ref:
        return Ref(self.member, self.seq)


class Created(_Event, frozen=True, kw_only=True, tag="created"):
    """The run begins, with all that it is identified by and that decisions depend on."""

    format: int = FORMAT
    run: str  # the run's name
    version: str  # of phyla
    settings: Settings


class Born(_Event, frozen=True, kw_only=True, tag="born"):
    """A member enters with its first hyperparameters, and with another run's weights if `origin` names them."""

    hypers: dict[str, Any]
    origin: Origin | None = None


class Claimed(_Event, frozen=True, kw_only=True, tag="claimed"):
    """A worker takes a member to train it for `span` intervals, from `interval` on, as decided from what it `saw`."""

    interval: int  # the first interval that is trained under this claim, from 1
    span: int = 1  # how many
    worker: str  # one per incarnation (worker.py)
    saw: int  # the journal's position that the decision was made from
    hypers: dict[str, Any]  # trained with
    source: Ref | None = None  # the report whose weights are trained on; None: a fresh state
    mix: tuple[float, float] | None = None  # trained on are so much of its weights plus so much of fresh ones
    donor: Ref | None = None  # the report that was copied, in weights, hyperparameters or both
    ready: bool = False  # the member was ready when this was decided, so its `ready` clock starts again
    replaced: bool = False  # its own state was given up: diverged, or out of retries
    notes: dict[str, Any] | None = None  # what the strategy wants back through the view
    cohort: int | None = None  # the first of the members claimed together, whose states share one file
    script: str | None = None  # digest of the script, so that a change is seen

    @property
    def renews(self) -> bool:
        """Whether a strategy has the member begin anew, at least in part: with other fresh weights than it had before."""
        return self.ready and not self.replaced and (self.source is None or self.mix is not None)


class Reported(_Event, frozen=True, kw_only=True, tag="reported"):
    """A claim ends well: the member has trained, has a score, and its checkpoint lies in the store."""

    interval: int  # the last interval that was trained
    span: int = 1  # how many intervals this covers
    score: float | Literal["nan", "inf", "-inf"] | None = None  # what ranks it; None: no score yet
    samples: list[float] | None = None  # this interval's, where the score is a mean of samples
    metrics: dict[str, Any] | None = None
    steps: int | float = 1  # trained under this claim, in the user's unit
    seconds: float = 0.0  # from claim to report, by the worker's clock
    checkpoint: Checkpoint  # or UNSAVED
    synced: list[Ref] | None = None  # reports whose checkpoints this worker has since made durable


FailedKind: TypeAlias = Literal["raised", "unreported", "crashed", "hung", "lost", "given_back", "checkpoint"]


class Failed(_Event, frozen=True, kw_only=True, tag="failed"):
    """A claim ends without a report.

    raised, unreported, crashed and hung consume retries. lost and given_back repeat the same decision. checkpoint: the
    source could not be restored; `voids` names the report whose checkpoint is no good (None: it had been released before
    the claim was in the journal), and the decision is made anew.
    """

    interval: int
    why: FailedKind
    voids: Ref | None = None
    error: str | None = None  # for people: the exception's last line, or what was seen
    worker: str | None = None  # who wrote this, if not the holder


def failed(
    claim: Claimed,
    why: FailedKind,
    *,
    time: float,
    voids: Ref | None = None,
    error: str | None = None,
    worker: str | None = None,
) -> Failed:
    """What ends this claim without a report: the next event of its stream."""
    return Failed(
        member=claim.member,
        seq=claim.seq + 1,
        interval=claim.interval,
        why=why,
        voids=voids,
        error=error,
        worker=worker,
        time=time,
    )


class Extended(_Event, frozen=True, kw_only=True, tag="extended"):
    """The run's budget is now `intervals` for each member."""

    intervals: int


class Resized(_Event, frozen=True, kw_only=True, tag="resized"):
    """Members enter, each with its Born in the same append, or leave for good: they train no more and are copied no more.

    Who enters has the next ids, and trains from interval `first` on, on the weights of a donor.
    """

    size: int  # members from now on
    first: int  # the first interval that this governs
    retired: list[int] = []  # the ids of those that leave


class SpaceChanged(_Event, frozen=True, kw_only=True, tag="space"):
    """Other bounds or choices for the same hyperparameters. What lies outside is clipped when it is next decided on."""

    space: dict[str, Any]  # each hyperparameter, described (space.describe)
    first: int  # the first interval that this governs


class Paused(_Event, frozen=True, kw_only=True, tag="paused"):
    """Nothing is claimed until Resumed; open claims may report."""


class Resumed(_Event, frozen=True, kw_only=True, tag="resumed"):
    """What was paused or stopped goes on."""


class Stopped(_Event, frozen=True, kw_only=True, tag="stopped"):
    """The run ends now, whatever its budget; open claims may still report."""

    why: str


RunEvent: TypeAlias = Created | Extended | Resized | SpaceChanged | Paused | Resumed | Stopped
"""The events of stream RUN."""

Event: TypeAlias = Born | Claimed | Reported | Failed | RunEvent


class Recorded(NamedTuple):
    """An event and its position in the journal: 1, 2, 3, …, dense, the same for all readers."""

    position: int
    event: Event


_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


def encode(event: Event) -> bytes:
    """The event as one line of JSON."""
    return _encoder.encode(event)


def decode(data: bytes | str) -> Event:
    """The event that `encode` wrote. Raises JournalError for anything else."""
    try:
        return _decoder.decode(data)
    except (msgspec.MsgspecError, RecursionError, UnicodeError) as error:
        text = data[:80] if isinstance(data, str) else data[:80].decode("utf-8", "replace")
        raise JournalError(
            f"not an event that this version of phyla knows ({error}): {text!r}… "
            "Was the journal written by a newer phyla, or changed by hand?"
        ) from None


def as_json_number(score: float | None) -> float | Literal["nan", "inf", "-inf"] | None:
    """A score as it stands in the journal: JSON has no NaN and no infinity."""
    if score is None or math.isfinite(score):
        return score
    return "nan" if math.isnan(score) else "inf" if score > 0 else "-inf"


def as_float(score: float | Literal["nan", "inf", "-inf"] | None) -> float | None:
    """A journal's score as a float."""
    return float(score) if score is not None else None
