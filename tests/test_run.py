"""Reading a run: what `phyla.open` gives, and that it never writes."""

import gc
import stat
import sys

import numpy as np
import pytest

import phyla


def train(path, name="read", **options):
    population = phyla.Population(
        name,
        {"lr": phyla.Float(0.01, 1.0, log=True), "kind": phyla.Choice("a", "b")},
        size=4,
        intervals=6,
        seed=3,
        max_lead=0,
        path=path,
        progress=False,
        **options,
    )
    for member in population:
        w = member.state(init)["w"] * (1 - member["lr"])
        member.report(-float(w @ w), {"w": w, "kind": member["kind"]}, steps=10, metrics={"norm": np.sqrt(w @ w)})
    return population


def init(member):
    return {"w": np.full(3, 1.0), "kind": ""}


@pytest.fixture
def run(tmp_path):
    train(tmp_path)
    return phyla.open(tmp_path / "read")


def test_a_run_is_found_by_path_and_by_name(run, tmp_path, monkeypatch):
    monkeypatch.setenv("PHYLA_RUNS", str(tmp_path))
    assert phyla.open("read").best.uid == run.best.uid
    assert run.name == "read"


def test_a_missing_run_is_an_error_that_names_those_that_are_there(run, tmp_path):
    with pytest.raises(phyla.SettingsError, match=r"there is no run in .*; there are: .*read"):
        phyla.open(tmp_path / "raed")


def test_members_are_records_of_score_hyperparameters_and_checkpoint(run):
    assert [record.id for record in run.members] == [0, 1, 2, 3]
    for record in run.members:
        assert record.interval == 6
        assert set(record.hypers) == {"lr", "kind"}
        tree = run.load(record.checkpoint)
        assert -float(tree["w"] @ tree["w"]) == record.score
        assert tree["kind"] == record.hypers["kind"]


def test_the_best_is_the_best_of_all_and_its_checkpoint_is_kept(run):
    scores = [event.score for event in run.events() if event.kind == "reported"]
    assert run.best.score == max(scores)
    assert -float(run.load(run.best)["w"] @ run.load(run.best)["w"]) == run.best.score
    assert run.final.score == max(record.score for record in run.members)


def test_events_are_those_of_the_journal_in_order(run):
    events = list(run.events())
    assert [event.kind for event in events[:5]] == ["created"] + ["born"] * 4
    assert sum(event.kind == "reported" for event in events) == 24
    first = next(event for event in events if event.kind == "reported")
    assert (first.seq, first.interval) == (3, 1)


def test_training_along_the_schedule_reproduces_the_score(run):
    schedule, w = run.schedule(), np.full(3, 1.0)
    for interval in range(int(schedule.total) // 10):
        w = w * (1 - schedule.at(10 * interval)["lr"])
    assert -float(w @ w) == pytest.approx(run.best.score, rel=1e-12)


def test_restore_gives_live_objects_with_the_saved_state(run):
    state = run.restore(run.best, init)
    np.testing.assert_array_equal(state["w"], run.load(run.best)["w"])


def test_rows_have_hyperparameters_and_metrics_as_columns(run):
    rows = run.rows()
    assert len(rows) == 24
    assert {"member", "interval", "score", "steps", "donor", "time", "lr", "kind", "metric.norm"} == set(rows[0])


def test_another_run_can_start_from_the_best_of_this_one(run, tmp_path):
    ends = {record.uid: record for record in run.members}
    heirs = run.top(2)
    population = phyla.Population(
        "next", {"lr": phyla.Float(0.01, 0.1)}, size=4, intervals=1, start=heirs, path=tmp_path, progress=False
    )
    for member in population:
        w = member.state(init)["w"]
        heir = heirs[member.id % 2]
        np.testing.assert_array_equal(w, run.load(ends[heir.origin.uid])["w"])
        if member.id < 2:
            assert member["lr"] == min(max(heir.hypers["lr"], 0.01), 0.1)
        member.report(member["lr"], {"w": w * 2, "kind": ""})
    born = [event for event in population.run.events() if event.kind == "born"]
    assert [event.origin.uid for event in born] == [heirs[m % 2].origin.uid for m in range(4)]


def test_reading_never_writes(run):
    def snapshot():
        return sorted((path, path.stat().st_mtime_ns) for path in run.path.rglob("*"))

    gc.collect()  # the population that made the run closes its journal with its end
    before = snapshot()
    again = phyla.open(run.path)
    assert again.best is not None
    again.load(again.best)
    list(again.events())
    again.lineage()
    assert snapshot() == before


def test_a_run_can_be_read_while_it_trains(tmp_path):
    seen = []
    population = phyla.Population(
        "live", {"lr": phyla.Float(0, 1)}, size=2, intervals=3, path=tmp_path, progress=False, max_lead=0
    )
    for member in population:
        seen.append(len(phyla.open(tmp_path / "live").records))
        member.state(lambda newborn: None)
        member.report(member["lr"])
    assert seen == [0, 1, 2, 3, 4, 5]


def test_a_directory_journal_is_found_too(tmp_path):
    train(tmp_path, "shared", journal="directory")
    assert len(phyla.open(tmp_path / "shared").records) == 24
    assert (tmp_path / "shared" / "journal").is_dir()
    assert not (tmp_path / "shared" / "journal.db").exists()


def test_the_best_says_score_hyperparameters_schedule_and_checkpoint(run):
    text = str(run.best)
    for word in ("score -", "hyperparameters  lr ", "schedule", "checkpoint       m"):
        assert word in text


def test_a_relative_path_a_name_and_a_path_are_the_same_run(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path.parent)
    uids = {phyla.open(way).best.uid for way in (tmp_path / "read", str(tmp_path / "read"), f"{tmp_path.name}/read")}
    uids.add(run.best.uid)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "read").rename(tmp_path / "runs/read")
    assert len(uids | {phyla.open("read").best.uid}) == 1


def test_a_run_that_was_moved_opens_and_loads(run, tmp_path):
    (tmp_path / "read").rename(tmp_path / "elsewhere")
    moved = phyla.open(tmp_path / "elsewhere")
    assert moved.name == "read"
    moved.load(moved.best)


@pytest.mark.parametrize("name", ["", "nowhere", "/nowhere/at/all"])
def test_where_there_is_no_run_the_error_says_what_was_expected(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        phyla.SettingsError, match=r"there is no run in .*expected a directory with a journal.db, such as runs/digits"
    ):
        phyla.open(name)


def test_a_run_of_which_only_the_file_is_there_says_so(tmp_path):
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun/journal.db").touch()
    with pytest.raises(phyla.PhylaError, match=r"journal\.db.* Try again"):
        phyla.open(tmp_path / "begun").best  # noqa: B018


def test_a_best_before_the_first_score_is_none_and_has_no_schedule(tmp_path):
    population = phyla.Population("none", {"lr": phyla.Float(0, 1)}, size=2, intervals=1, path=tmp_path, progress=False)
    population.claim()
    run = phyla.open(tmp_path / "none")
    assert run.best is None
    assert run.final is None
    assert run.members == []
    with pytest.raises(phyla.SettingsError, match="no score yet"):
        run.schedule()
    with pytest.raises(phyla.SettingsError, match="no report with a finite score"):
        run.top(2)


def test_records_events_and_rows_tell_the_same(run):
    reported = [event for event in run.events() if event.kind == "reported"]
    assert [record.uid for record in run.records] == [event.uid for event in reported]
    assert [row["score"] for row in run.rows()] == [event.score for event in reported]
    assert [row["steps"] for row in run.rows()] == [10 * event.interval for event in reported]


def test_every_checkpoint_that_is_kept_can_be_loaded_and_one_that_was_released_says_so(run):
    kept = [record for record in run.view.records.values() if not record.freed]
    released = [record for record in run.view.records.values() if record.freed]
    assert kept
    assert released
    for record in kept:
        run.load(record)
    with pytest.raises(phyla.CheckpointError, match="missing"):
        run.load(released[0])


def test_a_damaged_checkpoint_is_never_loaded(run):
    file = run.path / "checkpoints" / run.best.checkpoint.file
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(phyla.CheckpointError, match="changed since it was reported"):
        run.load(run.best)
    file.write_bytes(data[:-1])
    with pytest.raises(phyla.CheckpointError, match="bytes"):
        run.restore(run.best, init)


def test_restore_with_an_init_that_does_not_fit_says_where(run):
    with pytest.raises(phyla.StateError, match=r"state\['w'\] does not fit"):
        run.restore(run.best, lambda newborn: {"w": np.zeros(4), "kind": ""})


def test_a_schedule_is_saved_and_loaded_without_a_run(run, tmp_path):
    schedule = run.schedule()
    schedule.save(tmp_path / "schedule.json")
    again = phyla.Schedule.load(tmp_path / "schedule.json")
    assert again == schedule
    assert again.at(0) == schedule.hypers[0]
    assert again.at(fraction=1.0) == run.best.hypers
    with pytest.raises(phyla.SettingsError, match="either steps or fraction"):
        again.at()
    (tmp_path / "other.json").write_text('{"lr": 0.1}')
    with pytest.raises(phyla.SettingsError, match="is not a schedule that phyla wrote"):
        phyla.Schedule.load(tmp_path / "other.json")


def test_to_frame_without_pandas_says_what_to_install(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(phyla.SettingsError, match="pip install pandas"):
        run.to_frame()


def listing(path):
    """Everything that a write would change, whoever may look: names, sizes, modes, times of writing."""
    names = [path, *sorted(path.rglob("*"))]
    return [(name, s.st_size, s.st_mode, s.st_mtime_ns) for name in names for s in [name.stat()]]


def look(path):
    run = phyla.open(path)
    run.load(run.best)
    run.restore(run.best, init)
    return run.final, run.schedule(), run.lineage(), run.rows(), run.members, list(run.events()), run.top(1), repr(run)


@pytest.mark.parametrize("journal", ["sqlite", "directory"])
def test_reading_changes_nothing_in_the_directory_not_even_times(tmp_path, journal):
    train(tmp_path, journal=journal)
    before = listing(tmp_path)
    look(tmp_path / "read")
    assert listing(tmp_path) == before


def test_reading_changes_nothing_while_a_worker_holds_a_member(tmp_path):
    population = train(tmp_path)
    other = phyla.Population("busy", {"lr": phyla.Float(0, 1)}, size=2, intervals=9, path=tmp_path, progress=False)
    for _ in range(2):
        member = other.claim()
        member.report(member["lr"], member.state(init))
    other.claim()
    assert population.best is not None
    before = listing(tmp_path / "busy/checkpoints")
    names = {path.name for path in (tmp_path / "busy").iterdir()}
    for _ in range(3):
        run = phyla.open(tmp_path / "busy")
        run.load(run.best)
        assert len(list(run.events())) == 8
    assert listing(tmp_path / "busy/checkpoints") == before
    assert {path.name for path in (tmp_path / "busy").iterdir()} == names


def test_a_run_that_nobody_may_write_can_be_read(run):
    for path in [*run.path.rglob("*"), run.path]:
        path.chmod(stat.S_IRUSR | (stat.S_IXUSR if path.is_dir() else 0))
    try:
        look(run.path)
    finally:
        for path in [run.path, *run.path.rglob("*")]:
            path.chmod(stat.S_IRWXU)


def test_an_open_run_shows_what_has_happened_since(tmp_path):
    population = phyla.Population("live", {"lr": phyla.Float(0, 1)}, size=2, intervals=2, path=tmp_path, progress=False)
    member = population.claim()
    run, seen = phyla.open(tmp_path / "live"), []
    while member is not None:
        member.report(member["lr"], {**member.state(init), "w": np.full(3, float(member.seed))})
        seen.append(len(run.records))
        member = population.claim()
    assert seen == [1, 2, 3, 4]
    assert run.best.score == population.best.score


def test_a_reader_does_not_keep_a_worker_from_writing(tmp_path):
    """An iteration over events that was begun and left must not hold the database."""
    population = phyla.Population("live", {"lr": phyla.Float(0, 1)}, size=2, intervals=2, path=tmp_path, progress=False)
    member = population.claim()
    events = phyla.open(tmp_path / "live").events()
    assert next(events).kind == "created"
    member.report(member["lr"], member.state(init))
    assert len(phyla.open(tmp_path / "live").records) == 1


def test_checkpoints_may_lie_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("PHYLA_CHECKPOINTS", str(tmp_path / "far"))
    train(tmp_path / "runs")
    (far,) = (tmp_path / "far").iterdir()
    assert (tmp_path / "runs/read/checkpoints").readlink() == far
    monkeypatch.delenv("PHYLA_CHECKPOINTS")
    run = phyla.open(tmp_path / "runs/read")
    assert run.load(run.best) is not None
    train(tmp_path / "runs", fresh=True)
    assert {path.name for path in far.iterdir()}, "the old run keeps its files"
    assert not (tmp_path / "runs/read/checkpoints").is_symlink()


def test_checkpoints_that_cannot_lie_there(tmp_path, monkeypatch):
    monkeypatch.setenv("PHYLA_CHECKPOINTS", "/proc/far")
    with pytest.raises(phyla.SettingsError, match="checkpoints cannot be kept in /proc/far"):
        train(tmp_path / "runs")
