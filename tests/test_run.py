"""Reading a run: what `phyla.open` gives, and that it never writes."""

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
