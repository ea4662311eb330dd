"""A snapshot of the fold, so that a long journal opens fast: a view as it was after some event, as columns in one file.

A snapshot is no part of the record. It may be deleted at any time, it is written without haste, and whatever is doubtful
about one is a reason to fold the journal from its beginning, never an error. It is trusted only if

    its digest is right                           no torn or damaged file
    it was folded by this very code               `_FOLD`, a digest of the modules that give events their meaning
    under the same `retain`                       what is released depends on it; see `_fold_of`
    the journal has the same event at its end     positions are dense and uids are random: so all before is the same, too

The event at its end is event number 20,000, 40,000, … and whoever has appended that one takes the snapshot (`Snapshots`).
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import logging
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Annotated, Any, NamedTuple, TypeAlias

import msgspec
import numpy as np
import xxhash

from phyla.checkpoints import file_name
from phyla.events import Born, Checkpoint, Claimed, Created, Ref
from phyla.journal import Journal
from phyla.record import Record, find_peak
from phyla.space import describe, space_from
from phyla.view import Retain, View, fold

log = logging.getLogger("phyla")

FILE = "snapshot.bin"
"""Its name in the run's directory."""

EVERY = 20_000
"""Events from one snapshot to the next; more where the journal is so long that one would be as much as 1/50 of it."""

_NEW = (f"{FILE}.", ".new")
"""How the name begins and ends under which one is written."""

_MAGIC = b"phyla snapshot 1"
_HEAD = len(_MAGIC) + 2 * 16
_FLAGS = ("void", "available", "freed")  # of a Record, all that changes after its report

Column: TypeAlias = list[Any]
"""Values of one kind as msgpack can hold them: the kind's name, and what `_unpacked` needs to give the values back."""


# When, and by whom ----------------------------------------------------------------------------------------------------


def due(position: int) -> bool:
    """Whether a snapshot is taken after the event at this position."""
    step = EVERY
    while step * 50 < position:
        step *= 2
    return position > 0 and position % step == 0


class Snapshots:
    """The snapshots of a run, as one of its workers takes them.

    The worker that has appended an event that is due takes one, so exactly one does, and none needs to ask the others.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waiting: Picture | None = None

    def load(self, journal: Journal, retain: Retain | None) -> View | None:
        """What to begin from; None: fold the journal from its first event."""
        return load(self._path, journal, retain)

    def note(self, view: View, uid: str) -> None:
        """Takes a picture if one is due; called on the thread that folds, after an own event, with that event's uid."""
        if due(view.position):
            self._waiting = take(view, uid)

    def write(self) -> None:
        """Writes the picture that was taken, if there is a new one. May be called from another thread.

        One that is taken at this very moment may be missed: then the next one is written.
        """
        picture, self._waiting = self._waiting, None
        if picture is not None:
            write(picture, self._path)


# What others call -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Picture:
    """A view that stands still: its containers are copies, its records are shared. The fold may go on meanwhile."""

    fold: bytes  # what has folded it
    uid: str  # of the last event that is in it
    values: dict[str, Any]  # of the view, by attribute
    records: dict[Ref, Record]  # that are in it
    flags: dict[str, list[bool]]  # of these, in order


def take(view: View, uid: str) -> Picture | None:
    """The view after the event of this uid; None if it is not of the kind that can be saved."""
    fold, values = _fold_of(view._retain), vars(view)
    if fold is None or view.created is None or values.keys() != _ATTRIBUTES.keys():
        return None
    still = {name: _copied(value) for name, value in values.items() if _ATTRIBUTES[name] is not None}
    flags = {flag: [getattr(record, flag) for record in view.records.values()] for flag in _FLAGS}
    return Picture(fold, uid, still, view.records.copy(), flags)


def write(picture: Picture, path: Path) -> bool:
    """Puts the snapshot in the place of the one before; False if that was not possible, which harms nobody.

    What is new since the one before is packed; the rest is copied from there. So it takes as long as the run is wide, and
    little more for each event that it is long.
    """
    try:
        _remove_left(path)
        body = msgspec.msgpack.encode(_packed_picture(picture, _body_of(path, picture.fold)))
        with tempfile.NamedTemporaryFile(prefix=_NEW[0], suffix=_NEW[1], dir=path.parent, delete=False) as file:
            new = Path(file.name)
            try:
                file.write(_head(picture.fold, body))
                file.write(body)
                file.close()
                new.replace(path)  # not synced: what a power loss leaves of it has another digest
            except BaseException:
                new.unlink(missing_ok=True)
                raise
    except Exception as error:
        log.debug("no snapshot was written to %s: %r", path, error)
        return False
    return True


def save(view: View, uid: str, path: Path) -> bool:
    """Writes a snapshot of the view, whose last event has this uid; False if there is none to be had."""
    picture = take(view, uid)
    return picture is not None and write(picture, path)


def load(path: Path, journal: Journal, retain: Retain | None = None) -> View | None:
    """The view of this journal as it stands now, begun from the snapshot; None if there is none that can be trusted."""
    fold_here = _fold_of(retain)
    with no_collection():
        body = _body_of(path, fold_here) if fold_here is not None else None
        if body is None:
            return None
        tail = journal.read(body.position - 1)
        if not tail or tail[0].event.uid != body.uid:
            return None  # another run's, or of an end that the journal has lost
        try:
            view = _unpacked_view(body, retain)
        except Exception as error:  # only a file that was made to deceive comes here
            log.debug("%s is no snapshot: %r", path, error)
            return None
    return fold(tail[1:], view)


class _Chunk(msgspec.Struct, array_like=True, gc=False):
    """Some successive reports of a run, packed. They never change again, but for their flags."""

    count: int
    uid: str  # of the last of them
    data: bytes  # their columns, in msgpack


class _Body(msgspec.Struct, gc=False):
    """What stands in the file behind its head."""

    position: Annotated[int, msgspec.Meta(ge=1)]
    uid: str  # of the event there
    view: dict[str, Any]  # by attribute
    flags: dict[str, list[Any]]  # of all reports, as columns
    chunks: list[_Chunk]  # all reports


def _body_of(path: Path, fold: bytes) -> _Body | None:
    """What the file holds, if it is what was once written for this fold."""
    try:
        data = path.read_bytes() if path.is_file() else b""  # no device, which would never end
        body = memoryview(data)[_HEAD:]
        return msgspec.msgpack.decode(body, type=_Body) if data[:_HEAD] == _head(fold, body) else None
    except (OSError, msgspec.MsgspecError, RecursionError):
        return None


def _head(fold: bytes, body: bytes | memoryview) -> bytes:
    hasher = xxhash.xxh3_128(fold)
    hasher.update(body)
    return _MAGIC + fold + hasher.digest()


def _remove_left(path: Path) -> None:
    """Removes what writers that died have left; nobody writes for as long as an hour."""
    for left in path.parent.glob("*".join(_NEW)):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > 3600:
                left.unlink()


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Python looks for garbage the more often, the more objects are made; here all of them stay."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


# What folds -----------------------------------------------------------------------------------------------------------


def _sources(modules: Iterable[str]) -> bytes | None:
    """A digest of the source of these modules; None if one cannot be found."""
    hasher = xxhash.xxh3_128()
    for name in modules:
        file = getattr(sys.modules.get(name), "__file__", None)
        try:
            hasher.update(Path(file).read_bytes() if file is not None else b"")
        except OSError:
            return None
        if file is None and name not in sys.builtin_module_names:
            return None
    return hasher.digest()


_FOLD = _sources([f"phyla.{name}" for name in ("view", "record", "events", "settings", "space")] + [__name__])
"""What gives events their meaning, and what packs it. Read at import, so that it is the code that runs."""


def _fold_of(retain: Retain | None) -> bytes | None:
    """What folds under this `retain`, as a digest; None if that cannot be said, and then there are no snapshots.

    `retain` is code of a strategy, and what was released under one is not what would be under another. So it counts by
    the source of the strategy's class, with what that imports of its own package, and by its repr, which for a dataclass
    has all its parameters. A function, or a repr with an address in it, does not tell what it depends on.
    """
    if retain is None or _FOLD is None:
        return _FOLD
    strategy = getattr(retain, "__self__", None)
    classes = dict.fromkeys(cls.__module__ for cls in type(strategy).__mro__)
    source = _sources([*classes, *sorted({used for name in classes for used in _used_by(name)})])
    if strategy is None or source is None or " at 0x" in repr(strategy):
        return None
    return xxhash.xxh3_128_digest(_FOLD + source + f"{type(strategy).__qualname__} {strategy!r}".encode())


def _used_by(module: str) -> Iterator[str]:
    """The modules of the same package that this one takes functions, classes or all from."""
    for thing in list(vars(sys.modules[module]).values()):
        kind = type(thing)  # not isinstance: there are objects that act on it
        if issubclass(kind, ModuleType | FunctionType | type):
            name = str(thing.__name__ if issubclass(kind, ModuleType) else thing.__module__)
            if name.split(".")[0] == module.split(".")[0] and name in sys.modules:
                yield name


# A view, attribute by attribute ---------------------------------------------------------------------------------------


class _Kind(NamedTuple):
    """How attributes of one kind are packed, given the positions of all records; and unpacked, given the records and a None."""

    packed: Callable[[Any, np.ndarray], Any]
    unpacked: Callable[[Any, list[Record | None]], Any]


def _copied(value: Any) -> Any:
    """A container that the fold changes, as it is now."""
    match value:
        case list():
            return [list(item) if isinstance(item, list | deque) else item for item in value]
        case np.ndarray() | dict() | set():
            return value.copy()
    return value


def _places(found: Iterable[Record | None], positions: np.ndarray) -> list[int]:
    """Records as their places among all; -1 for None."""
    those = np.array([record.position if record is not None else 0 for record in found], np.int64)
    places: list[int] = np.where(those > 0, np.searchsorted(positions, those), -1).tolist()
    return places


def _of_json(kind: Any) -> _Kind:
    """By way of the journal's own JSON, so that what a worker wrote itself becomes what others read."""
    decoder = msgspec.json.Decoder(kind)
    return _Kind(lambda value, _: msgspec.json.encode(value), lambda data, _: decoder.decode(data))


_PLAIN = _Kind(lambda value, _: value, lambda data, _: data)
_SET = _Kind(lambda value, _: sorted(value), lambda data, _: set(data))
_ARRAY = _Kind(lambda value, _: _packed_array(value), lambda data, _: _unpacked_array(data).copy())
_SPACES = _Kind(
    lambda value, _: [(first, describe(one)) for first, one in value],
    lambda data, _: [(first, space_from(one)) for first, one in data],
)
_RECORD = _Kind(lambda value, all_: _places([value], all_)[0], lambda place, all_: all_[place])
_RECORDS = _Kind(_places, lambda places, all_: [all_[place] for place in places])
_DEQUES = _Kind(
    lambda value, all_: [_places(records, all_) for records in value],
    lambda data, all_: [deque(all_[place] for place in places) for places in data],
)
_PINS = _Kind(lambda value, _: [(*ref, n) for ref, n in value.items()], lambda data, _: {Ref(*r): n for *r, n in data})
_REFS = _Kind(lambda value, _: sorted(value), lambda data, _: frozenset(Ref(*ref) for ref in data))
_CREATED, _BORN, _CLAIMS = (_of_json(kind) for kind in (Created, list[Born | None], list[Claimed | None]))

_ATTRIBUTES: dict[str, _Kind | None] = {
    **dict.fromkeys(("position", "run_head", "intervals", "stopped", "paused", "_resized", "size", "sign"), _PLAIN),
    **dict.fromkeys(("head", "done", "since", "until", "busy", "last_ready", "fails", "losses"), _ARRAY),
    **dict.fromkeys(("replacements", "forced"), _ARRAY),
    **dict.fromkeys(("late", "samples", "_steps", "_files", "retain_error"), _PLAIN),
    "troubled": _SET,
    "created": _CREATED,
    "born": _BORN,
    "open": _CLAIMS,
    "repeat": _CLAIMS,
    "spaces": _SPACES,
    "best": _RECORD,
    "_synced": _RECORDS,
    "_kept": _DEQUES,
    "_pins": _PINS,
    "_retained": _REFS,
    "records": None,  # in chunks
    "history": None,  # the records that are not void
    "settings": None,  # those of `created`
    "_retain": None,  # a function, which is given again
    "_standings": None,  # found anew
}
"""Every attribute of a View. A view that has others is not saved; a test says so when the table is out of date."""


def _packed_picture(picture: Picture, before: _Body | None) -> _Body:
    """before: an older snapshot, of this run or another."""
    every = list(picture.records.values())
    positions = np.array([record.position for record in every], np.int64)
    chunks, end = [], 0
    for chunk in before.chunks if before is not None else ():
        end += chunk.count
        if end > len(every) or every[end - 1].uid != chunk.uid:
            end -= chunk.count
            break
        chunks.append(chunk)
    if end < len(every):
        chunks.append(_packed_chunk(picture.records, every[end:], positions))
    view = {
        name: kind.packed(picture.values[name], positions) for name, kind in _ATTRIBUTES.items() if kind is not None
    }
    flags = {flag: _packed(column) for flag, column in picture.flags.items()}
    return _Body(picture.values["position"], picture.uid, view, flags, chunks)


def _unpacked_view(body: _Body, retain: Retain | None) -> View:
    view = View(retain)
    every, refs = _unpacked_chunks(body.chunks)
    for flag, column in body.flags.items():
        for record, value in zip(every, _unpacked(column, len(every)), strict=True):
            setattr(record, flag, value)
    places = [*every, None]
    for name, kind in _ATTRIBUTES.items():
        if kind is not None:
            setattr(view, name, kind.unpacked(body.view[name], places))
    view.records = dict(zip(refs, every, strict=True))
    view.history = [[] for _ in view.head]
    for record in every:
        if not record.void:
            view.history[record.id].append(record)
    assert view.created is not None
    view.settings = view.created.settings
    for record in every:
        record.peak = find_peak(record, view.records, view.sign)
    return view


# Records, field by field ----------------------------------------------------------------------------------------------

_FIELDS = (
    *("id", "seq", "interval", "span", "score", "hypers", "steps", "total_steps", "ready", "replaced", "mixed"),
    *("samples", "metrics", "notes", "worker", "uid", "position", "time", "seconds"),
)
"""The fields of a Record that are columns as they are. The others: _FLAGS, checkpoint, source, donor, parent, peak."""


def _packed_chunk(records: dict[Ref, Record], new: list[Record], positions: np.ndarray) -> _Chunk:
    """The last of all records. They name others by their places; what was not reported before them (`strange`) by itself."""
    columns: dict[str, Any] = {name: _packed([getattr(record, name) for record in new]) for name in _FIELDS}
    for name in ("digest", "size", "row"):
        columns[name] = _packed([getattr(record.checkpoint, name) for record in new])
    files = [(record.checkpoint.file, file_name(record.id, record.seq - 1)) for record in new]
    columns["file"] = _packed([file if file != usual else None for file, usual in files])
    strange = []
    for name in ("source", "donor"):
        refs = [getattr(record, name) for record in new]
        places = _places((records.get(ref) for ref in refs), positions)
        for i, (ref, place) in enumerate(zip(refs, places, strict=True)):
            if ref is not None and not 0 <= place < len(positions) - len(new) + i:
                places[i] = -1
                strange.append((i, name, *ref))
        columns[name] = _packed(places)
    return _Chunk(len(new), new[-1].uid, msgspec.msgpack.encode({**columns, "strange": strange}))


def _unpacked_chunks(chunks: list[_Chunk]) -> tuple[list[Record], list[Ref]]:
    """All records, in order, and their places in the journal."""
    every: list[Record] = []
    refs: list[Any] = []
    for chunk in chunks:
        packed = msgspec.msgpack.decode(chunk.data)
        strange = packed.pop("strange")
        ids = _unpacked(packed["id"], 0)
        columns: dict[str, Iterable[Any]] = {name: _unpacked(column, len(ids)) for name, column in packed.items()}
        seqs, sources = list(columns["seq"]), list(columns["source"])
        files = [file or file_name(m, seq - 1) for file, m, seq in zip(columns["file"], ids, seqs, strict=True)]
        columns["checkpoint"] = map(Checkpoint, files, *(columns[name] for name in ("digest", "size", "row")))
        refs += map(tuple.__new__, itertools.repeat(Ref), zip(ids, seqs, strict=True))  # Ref(…), faster
        for name in ("source", "donor"):
            columns[name] = [refs[place] if place >= 0 else None for place in columns[name]]
        columns["parent"] = itertools.repeat(None)
        fields = [field for field in Record.__struct_fields__ if field not in (*_FLAGS, "peak")]
        new = list(map(Record, *(columns[field] for field in fields)))
        every += new
        for record, place in zip(new, sources, strict=True):
            if place >= 0:
                record.parent = every[place]
        for i, name, *ref in strange:
            setattr(new[i], name, Ref(*ref))
    return every, refs


# Columns --------------------------------------------------------------------------------------------------------------


def _packed(values: list[Any]) -> Column:
    """Values as a column, in the smallest of the forms that give back exactly these (or what the journal makes of them)."""
    types = set(map(type, values))
    if types <= {type(None)}:
        return ["nothing"]
    if type(None) in types:
        there = [value is not None for value in values]
        return ["some", _packed(there), _packed([value for value in values if value is not None])]
    if types == {int} and (low := min(values)) >= -(2**63) and (high := max(values)) < 2**63:
        fits = next(d for d in ("i1", "<i2", "<i4", "<i8") if np.iinfo(d).min <= low and high <= np.iinfo(d).max)
        return _packed_array(np.array(values, fits))
    if types in ({float}, {bool}):
        return _packed_array(np.array(values))
    if types == {str} and set(map(len, values)) == {32}:
        with contextlib.suppress(ValueError):
            raw = bytes.fromhex(joined := "".join(values))
            if raw.hex() == joined:
                return ["hex", raw]
    table: dict[bytes, int] = {}
    encode = msgspec.json.Encoder().encode
    places = [table.setdefault(encode(value), len(table)) for value in values]
    return ["table", _packed(places) if len(table) < len(values) else None, b"[" + b",".join(table) + b"]"]


def _unpacked(column: Column, count: int) -> list[Any]:
    """The values. count: how many, which a column of nothing does not say: no file may ask for more memory than it takes."""
    match column:
        case ["nothing"]:
            return [None] * count
        case ["some", there, packed]:
            values = iter(_unpacked(packed, 0))
            return [next(values) if one else None for one in _unpacked(there, count)]
        case ["array", _, _]:
            found: list[Any] = _unpacked_array(column).tolist()
            return found
        case ["hex", raw]:
            digits = raw.hex()
            return [digits[i : i + 32] for i in range(0, len(digits), 32)]
        case ["table", places, json]:
            table: list[Any] = msgspec.json.decode(json)
            return table if places is None else list(map(table.__getitem__, _unpacked(places, count)))
    raise ValueError(f"not a column: {column!r:.80}")


def _packed_array(array: np.ndarray) -> Column:
    return ["array", array.dtype.str, array.tobytes()]


def _unpacked_array(column: Column) -> np.ndarray:
    _, dtype, data = column
    return np.frombuffer(data, np.dtype(dtype))
