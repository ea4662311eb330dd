"""The snapshot of the fold: whoever begins from one sees, then and later, what they would see from the first event."""

from __future__ import annotations

import dataclasses
import functools
import gc
import os
import stat
import threading
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import phyla
from journals_by_hand import Story, random_story
from journals_by_hand import snapshot as everything
from phyla import snapshot
from phyla.checkpoints.memory import MemoryCheckpoints
from phyla.decide import decide
from phyla.events import RUN, Born, Extended, Paused, Recorded, Ref, Resized, Resumed, SpaceChanged, decode, encode
from phyla.journal.sqlite import SqliteJournal
from phyla.record import Record
from phyla.runs import Run
from phyla.space import Float, Int, describe
from phyla.strategies.evolve import Evolve
from phyla.strategies.perturb import Perturb
from phyla.strategies.truncation import Truncation
from phyla.testing.simulation import Faults, Simulation
from phyla.view import Retain, View, fold
from phyla.worker import Worker

quick = settings(derandomize=True, deadline=None, max_examples=40, database=None)


class UpTo:
    """A journal that ends after `end` events."""

    def __init__(self, events: Sequence[Recorded], end: int):
        self.events = events[:end]
        self.reads: list[int] = []

    def read(self, after: int) -> Sequence[Recorded]:
        self.reads.append(after)
        return self.events[after:]


def loaded(path: Path, events: Sequence[Recorded], end: int | None = None, retain: Retain | None = None) -> View | None:
    return snapshot.load(path, UpTo(events, len(events) if end is None else end), retain)  # type: ignore[arg-type]


def saved_at(position: int, events: Sequence[Recorded], path: Path, retain: Retain | None = None) -> View:
    """The view at a position, which it is saved at."""
    view = fold(events[:position], View(retain))
    assert snapshot.save(view, events[position - 1].event.uid, path)
    return view


def assert_same(view: View, other: View) -> None:
    """Equal in every attribute, to the type of each value; and what is one object in one is one in the other."""
    one, two = ({**everything(v), "_retained": sorted(v._retained)} for v in (view, other))
    for name in one | two:
        assert repr(one[name]) == repr(two[name]), name
    for name, value in vars(view).items():
        assert type(value) is type(getattr(other, name)), name
        if isinstance(value, np.ndarray):
            assert value.dtype == getattr(other, name).dtype
            assert getattr(other, name).flags.writeable
    assert other.created is not None
    assert other.settings is other.created.settings
    for record in in_use(other):
        assert record is other.records[record.ref]


def in_use(view: View) -> Iterator[Record]:
    """Every record that a view names, wherever it does."""
    yield from (record for records in (*view.history, *view._kept) for record in records)
    yield from (record for record in (view.best, *view._synced) if record is not None)
    yield from (record.parent for record in view.records.values() if record.parent is not None)


def assert_goes_on_alike(events: Sequence[Recorded], path: Path, cut: int, retain: Retain | None = None) -> None:
    """The view that was saved after `cut` events, loaded and folded on, is the one that never was; at every step."""
    view = saved_at(cut, events, path, retain)
    other = loaded(path, events, cut, retain)
    assert other is not None
    assert_same(view, other)
    for recorded in events[cut:]:
        assert view.fold(recorded) == other.fold(recorded)  # the same files are freed
    assert_same(view, other)


def journals() -> Iterator[Any]:
    """Journals of the real worker under bad luck, short enough to be cut everywhere."""
    for name, known in {
        "plain": {"faults": Faults.none()},
        "bad luck": {"faults": Faults(0.02, 0.02, 0.05, 0.02, raises=0.1)},
        "torn files": {"faults": Faults(tear=0.05), "keep": 3},
        "diverging": {"diverges": 3, "settings": {"mode": "min", "window": 3}},
        "asynchronous": {"max_lead": None, "workers": 7, "settings": {"compare": "latest"}},
        "cohorts": {"cohort": 3, "span": 2, "ready": 2},
    }.items():
        yield pytest.param({"members": 4, "intervals": 5, **known}, id=name)


@pytest.mark.parametrize("known", list(journals()))
def test_a_run_that_is_cut_anywhere_goes_on_from_a_snapshot_as_if_there_were_none(
    known: dict[str, Any], tmp_path: Path
) -> None:
    for seed in range(2):
        simulation = Simulation(seed, **known)
        simulation.run()
        for cut in range(1, len(simulation.events) + 1):
            assert_goes_on_alike(simulation.events, tmp_path / "s", cut)


@quick
@given(seed=st.integers(0, 2**32), cut=st.floats(0, 1))
def test_journals_in_which_everything_happens_go_on_alike(
    seed: int, cut: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    events = random_story(np.random.default_rng(seed), turns=150).events
    read = [Recorded(position, decode(encode(event))) for position, event in events]
    place = tmp_path_factory.mktemp("s") / "s"
    assert_goes_on_alike(read, place, 1 + int(cut * (len(events) - 1)))


def test_what_was_said_to_the_run_stands_in_a_snapshot_too(tmp_path: Path) -> None:
    story = Story(size=3, space={"lr": Float(0.1, 1.0), "units": Int(1, 64)})
    story.generation(1, 2, 3)
    narrower = describe({"lr": Float(0.2, 0.5), "units": Int(2, 8)})
    story.add(Extended(member=RUN, seq=2, intervals=50))
    story.add(Resized(member=RUN, seq=3, size=3, first=2, retired=[0]))
    story.add(Born(member=3, seq=1, hypers={"lr": 0.3, "units": 3}))
    story.add(SpaceChanged(member=RUN, seq=4, space=narrower, first=3))
    story.add(Paused(member=RUN, seq=5))
    story.add(Resumed(member=RUN, seq=6))
    story.train(1, 5.0)
    for cut in range(1, len(story.events) + 1):
        assert_goes_on_alike(story.events, tmp_path / "s", cut)


def test_a_view_that_was_loaded_decides_the_same(tmp_path: Path) -> None:
    strategy = Evolve(Truncation(0.5), Perturb())
    story = random_story(np.random.default_rng(3), turns=120, size=5)
    saved_at(len(story.events), story.events, tmp_path / "s")
    view = loaded(tmp_path / "s", story.events)
    assert view is not None
    assert view.claimable() == story.view.claimable()
    free = [m for m in range(5) if story.view.open[m] is None]
    assert free
    for m in free:
        assert repr(decide(view, m, strategy)) == repr(decide(story.view, m, strategy))


def test_every_attribute_of_a_view_and_every_field_of_a_record_is_in_the_tables() -> None:
    assert vars(Story().view).keys() == snapshot._ATTRIBUTES.keys()
    known = {*snapshot._FIELDS, *snapshot._FLAGS, "checkpoint", "source", "donor", "parent", "peak"}
    assert set(Record.__struct_fields__) == known


def test_a_view_with_an_attribute_that_is_not_known_is_not_saved(tmp_path: Path) -> None:
    view = Story().view
    view.colour = "blue"  # type: ignore[attr-defined]
    assert not snapshot.save(view, "uid", tmp_path / "s")
    assert list(tmp_path.iterdir()) == []


def test_an_empty_view_is_not_saved(tmp_path: Path) -> None:
    assert not snapshot.save(View(), "uid", tmp_path / "s")


# What is not trusted ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def story() -> Story:
    return random_story(np.random.default_rng(1), turns=80, size=3)


def test_a_snapshot_that_is_not_there_is_none(tmp_path: Path, story: Story) -> None:
    assert loaded(tmp_path / "s", story.events) is None
    assert loaded(tmp_path, story.events) is None  # a directory


def test_a_snapshot_that_was_cut_is_ignored_wherever(tmp_path: Path, story: Story) -> None:
    path = tmp_path / "s"
    saved_at(60, story.events, path)
    data = path.read_bytes()
    for length in {*range(0, len(data), 97), *range(64), len(data) - 1}:
        path.write_bytes(data[:length])
        assert loaded(path, story.events) is None
    path.write_bytes(data + b"\0")
    assert loaded(path, story.events) is None
    path.write_bytes(data)
    assert loaded(path, story.events) is not None


@quick
@given(place=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_one_flipped_bit_is_enough(
    place: float, flip: int, story: Story, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("s") / "s"
    saved_at(60, story.events, path)
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= flip
    path.write_bytes(data)
    assert loaded(path, story.events) is None


@pytest.mark.parametrize("body", [b"", b"\xc1", b"\x80", b"\x81\xa4view\x81\xa8position\x05", b"\x93" * 100_000])
def test_a_body_that_is_none_is_ignored_though_its_digest_is_right(body: bytes, story: Story, tmp_path: Path) -> None:
    fold_here = snapshot._FOLD
    assert fold_here is not None
    (tmp_path / "s").write_bytes(snapshot._head(fold_here, body) + body)
    assert loaded(tmp_path / "s", story.events) is None


def test_no_file_asks_for_more_memory_than_it_takes(story: Story, tmp_path: Path) -> None:
    saved_at(60, story.events, tmp_path / "s")
    fold_here = snapshot._FOLD
    assert fold_here is not None
    body = snapshot._body_of(tmp_path / "s", fold_here)
    assert body is not None
    columns = {**msgspec.msgpack.decode(body.chunks[0].data), "uid": ["nothing"], "id": ["nothing"]}
    body.chunks = [snapshot._Chunk(10**12, "", msgspec.msgpack.encode(columns))]
    data = msgspec.msgpack.encode(body)
    (tmp_path / "s").write_bytes(snapshot._head(fold_here, data) + data)
    assert loaded(tmp_path / "s", story.events) is None
    (tmp_path / "s").unlink()
    (tmp_path / "s").symlink_to("/dev/zero")
    assert loaded(tmp_path / "s", story.events) is None


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collection_of_garbage_is_as_it_was_after_loading(enabled: bool, story: Story, tmp_path: Path) -> None:
    saved_at(60, story.events, tmp_path / "s")
    was = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        assert loaded(tmp_path / "s", story.events) is not None
        assert loaded(tmp_path / "s", []) is None
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if was else gc.disable)()


def test_only_what_is_new_is_packed_and_the_rest_comes_from_the_snapshot_before(story: Story, tmp_path: Path) -> None:
    path, fold_here = tmp_path / "s", snapshot._FOLD
    assert fold_here is not None
    saved_at(60, story.events, path)
    before = snapshot._body_of(path, fold_here)
    assert before is not None
    view = saved_at(80, story.events, path)
    after = snapshot._body_of(path, fold_here)
    assert after is not None
    assert after.chunks[0].data == before.chunks[0].data
    assert [chunk.count for chunk in after.chunks] == [
        before.chunks[0].count,
        len(view.records) - before.chunks[0].count,
    ]
    saved_at(40, story.events, path)  # by one that has read less: nothing of it can be used
    shorter = snapshot._body_of(path, fold_here)
    assert shorter is not None
    assert len(shorter.chunks) == 1


def test_a_snapshot_of_other_code_is_ignored(tmp_path: Path, story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as other:
        other.setattr(snapshot, "_FOLD", b"another phyla..!")
        saved_at(60, story.events, tmp_path / "s")
        assert loaded(tmp_path / "s", story.events) is not None
    assert loaded(tmp_path / "s", story.events) is None


def test_a_snapshot_of_another_run_is_ignored(tmp_path: Path, story: Story) -> None:
    saved_at(60, story.events, tmp_path / "s")
    twin = random_story(np.random.default_rng(1), turns=80, size=3)  # the same but for its uids
    assert loaded(tmp_path / "s", twin.events) is None


def test_a_snapshot_ahead_of_the_journal_is_ignored(tmp_path: Path, story: Story) -> None:
    saved_at(60, story.events, tmp_path / "s")
    assert loaded(tmp_path / "s", story.events, end=59) is None
    assert loaded(tmp_path / "s", story.events, end=60) is not None
    assert loaded(tmp_path / "s", [], end=0) is None


def test_a_journal_that_has_lost_its_end_and_went_on_otherwise_is_folded_from_its_beginning(tmp_path: Path) -> None:
    story, other = Story(size=2), Story(size=2)
    for score in range(5):
        story.train(0, float(score))
    other.events, other.view = story.events[:9], fold(story.events[:9])
    other.train(1, 1.0)
    assert other.view.position == 11
    saved_at(11, story.events, tmp_path / "s")
    assert loaded(tmp_path / "s", story.events) is not None
    assert loaded(tmp_path / "s", other.events) is None


# Retention ----------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Keeps:
    """Keeps the first n reports of the run."""

    n: int = 3

    def retain(self, view: View) -> Collection[Ref]:
        return list(view.records)[: self.n]


class Nameless:
    def retain(self, view: View) -> Collection[Ref]:
        return list(view.records)[:1]


def first(view: View) -> Collection[Ref]:
    return list(view.records)[:1]


def test_a_view_under_a_strategys_retain_goes_on_alike(tmp_path: Path) -> None:
    story = random_story(np.random.default_rng(5), turns=80, size=3)
    for cut in range(4, len(story.events), 5):
        assert_goes_on_alike(story.events, tmp_path / "s", cut, Keeps(4).retain)


def test_views_share_a_snapshot_only_under_the_same_retain(tmp_path: Path, story: Story) -> None:
    saved_at(60, story.events, tmp_path / "s", Keeps(3).retain)
    assert loaded(tmp_path / "s", story.events, retain=Keeps(3).retain) is not None
    assert loaded(tmp_path / "s", story.events, retain=Keeps(4).retain) is None
    assert loaded(tmp_path / "s", story.events) is None
    saved_at(60, story.events, tmp_path / "s")
    assert loaded(tmp_path / "s", story.events) is not None
    assert loaded(tmp_path / "s", story.events, retain=Keeps(3).retain) is None


@pytest.mark.parametrize("retain", [first, Nameless().retain, Keeps(Nameless()).retain, functools.partial(first)])  # type: ignore[arg-type]
def test_a_view_under_a_retain_that_does_not_tell_what_it_depends_on_is_not_saved(
    retain: Retain, tmp_path: Path, story: Story
) -> None:
    assert not snapshot.save(fold(story.events[:4], View(retain)), "uid", tmp_path / "s")
    saved_at(60, story.events, tmp_path / "s")
    assert loaded(tmp_path / "s", story.events, retain=retain) is None


# When, and by whom --------------------------------------------------------------------------------------------------


def test_the_longer_a_journal_is_the_rarer_are_snapshots() -> None:
    assert [p for p in range(100_001) if snapshot.due(p)] == [20_000, 40_000, 60_000, 80_000, 100_000]
    assert snapshot.due(1_000_000)
    assert not snapshot.due(1_020_000)
    assert snapshot.due(1_040_000)
    assert not snapshot.due(10_000_000 + 20_000)


class Photographer(Worker):
    """A worker with the lines that take snapshots."""

    folder: Path
    taken: list[tuple[int, str]]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.snapshots = snapshot.Snapshots(self.folder / "s")

    def _fold(self, recorded: Recorded) -> None:
        own = recorded.event.uid in self._mine
        super()._fold(recorded)
        if own:
            self.snapshots.note(self.view, recorded.event.uid)
            if snapshot.due(recorded.position):
                self.taken.append((recorded.position, self.id))

    def sync(self) -> None:
        super().sync()
        self.snapshots.write()


def test_of_many_workers_one_takes_each_snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "EVERY", 10)
    taken: list[tuple[int, str]] = []
    kind = type("Kind", (Photographer,), {"folder": tmp_path, "taken": taken})
    simulation = Simulation(1, workers=5, faults=Faults.none(), worker_type=kind)
    assert simulation.run() == []
    assert [position for position, _ in taken] == list(range(10, len(simulation.events) + 1, 10))
    assert len({worker for _, worker in taken}) > 1
    view = loaded(tmp_path / "s", simulation.events)
    assert view is not None
    assert_same(view, fold(simulation.events))


def test_what_is_written_is_what_was_taken_though_the_view_goes_on(tmp_path: Path, story: Story) -> None:
    view = fold(story.events[:60])
    picture = snapshot.take(view, story.events[59].event.uid)
    assert picture is not None
    writer = threading.Thread(target=snapshot.write, args=(picture, tmp_path / "s"))
    fold(story.events[60:70], view)
    writer.start()
    fold(story.events[70:], view)
    writer.join()
    other = loaded(tmp_path / "s", story.events, end=60)
    assert other is not None
    assert_same(fold(story.events[:60]), other)


def test_a_snapshot_that_cannot_be_written_harms_nobody(tmp_path: Path, story: Story) -> None:
    assert not snapshot.save(story.view, "uid", tmp_path / "nowhere" / "s")
    (tmp_path / "s").mkdir()
    assert not snapshot.save(story.view, "uid", tmp_path / "s")
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_a_snapshot_is_its_owners_and_what_dead_writers_left_is_removed(tmp_path: Path, story: Story) -> None:
    old, young, foreign = (tmp_path / f"{snapshot.FILE}.{name}" for name in ("a.new", "b.new", "bak"))
    for path in (old, young, foreign):
        path.write_bytes(b"half")
    for path in (old, foreign):
        os.utime(path, (0, 0))
    path = tmp_path / snapshot.FILE
    saved_at(60, story.events, path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert set(tmp_path.iterdir()) == {path, young, foreign}


# Reading a run ------------------------------------------------------------------------------------------------------


def test_a_run_is_opened_from_its_snapshot_and_reading_writes_none(tmp_path: Path) -> None:
    simulation = Simulation(2)
    assert simulation.run() == []
    events, path = simulation.events, tmp_path / snapshot.FILE
    journal = SqliteJournal(tmp_path / "journal.db")
    journal.append(*(event for _, event in events))
    journal.close()
    assert_same(fold(events), phyla.open(tmp_path).view)
    assert not path.exists()
    saved_at(100, events, path)
    assert_same(fold(events), phyla.open(tmp_path).view)

    ahead = UpTo(events, len(events))
    run = Run(ahead, MemoryCheckpoints(), tmp_path)  # type: ignore[arg-type]
    assert run.view.position == len(events)
    assert ahead.reads == [99, len(events)]  # nothing that is in the snapshot but its last event
    assert run.view.position == len(events)
    assert ahead.reads == [99, len(events), len(events)]


def test_a_damaged_snapshot_beside_a_run_costs_time_and_nothing_else(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.db")
    story = random_story(np.random.default_rng(2), turns=40)
    journal.append(*(event for _, event in story.events))
    journal.close()
    (tmp_path / snapshot.FILE).write_bytes(snapshot._MAGIC + b"damaged")
    assert_same(story.view, phyla.open(tmp_path).view)
    assert (tmp_path / snapshot.FILE).exists()


# Columns ------------------------------------------------------------------------------------------------------------

values = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(-1e9, 1e9), st.text(st.characters(codec="utf-8")))
objects = st.lists(values, max_size=3) | st.dictionaries(st.sampled_from("abc"), values, max_size=3)
digests = st.binary(min_size=16, max_size=16).map(bytes.hex)


@settings(derandomize=True, deadline=None, max_examples=300, database=None)
@given(
    st.one_of(
        *(st.lists(one, max_size=8) for one in (st.integers(), st.integers(-200, 200), st.floats(), st.booleans())),
        *(st.lists(st.none() | one, max_size=8) for one in (digests, digests.map(str.upper), objects, st.floats())),
        st.lists(st.integers() | st.booleans() | objects, max_size=8),
    )
)
def test_a_column_gives_back_exactly_what_was_packed(column: list[Any]) -> None:
    packed = msgspec.msgpack.decode(msgspec.msgpack.encode(snapshot._packed(column)))
    assert repr(snapshot._unpacked(packed, len(column))) == repr(column)
