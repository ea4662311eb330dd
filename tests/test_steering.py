"""What is said to a run while it lives: budget, size, bounds, pause, resume, stop."""

from __future__ import annotations

import json

import numpy as np
import pytest

import phyla
import scripts
from phyla import runs, steer
from phyla.cli import main
from phyla.doctor import examine
from phyla.errors import RunDiffers, SettingsError
from phyla.events import Claimed, Paused, Recorded, Resized, Resumed, SpaceChanged
from phyla.strategies.rebuild import rebuild


def train(path, *, size=4, intervals=3, high=1.0, at_end=lambda: None, **options):
    """Trains a small population, and returns it."""
    space = {"lr": phyla.Float(0.0, high)}
    population = phyla.Population(
        "run", space, size, intervals, seed=1, path=path, progress=False, **{"max_lead": 0, **options}
    )
    for member in population:
        w = member.state(lambda member: np.zeros(2))
        member.report(member["lr"] + 0.01 * member.id, w + member["lr"])
        at_end()
    return population


def sound(path):
    """The run, after every invariant was found to hold."""
    run = phyla.open(path / "run")
    events = [Recorded(position, event) for position, event in enumerate(run.events(), 1)]
    assert [str(problem) for problem in examine(events, run.checkpoints, rebuild(run.settings.strategy))] == []
    return run


def test_a_finished_run_that_is_extended_goes_on(tmp_path):
    train(tmp_path)
    assert steer.say(tmp_path / "run", steer.extend(5))[0].intervals == 5
    train(tmp_path)  # the script still names three
    assert set(sound(tmp_path).view.done) == {5}
    assert steer.say(tmp_path / "run", steer.extend(5)) == []


def test_a_smaller_budget_ends_a_run_sooner(tmp_path):
    calls = []

    def shorten():
        calls.append(1)
        if len(calls) == 6:
            steer.say(tmp_path / "run", steer.extend(2))

    train(tmp_path, intervals=50, at_end=shorten)
    assert set(sound(tmp_path).view.done) == {2}


def test_members_that_enter_copy_one_of_the_best_and_train_from_then_on(tmp_path):
    train(tmp_path, intervals=4)
    steer.say(tmp_path / "run", steer.extend(8), steer.resize(6))
    train(tmp_path, intervals=8, size=6)
    view = sound(tmp_path).view
    assert (view.size, list(view.done)) == (6, [8] * 6)
    best = max(record.score for history in view.history for record in history if record.interval == 4)
    for member in (4, 5):
        first = view.history[member][0]
        assert (first.interval, first.replaced) == (5, True)
        assert first.parent.interval == 4
        assert first.parent.score == best
        assert [record.interval for record in view.history[member]] == [5, 6, 7, 8]


def test_the_worst_leave_and_are_copied_no_more(tmp_path):
    train(tmp_path, intervals=4, size=6)
    before = phyla.open(tmp_path / "run").view
    worst = sorted(range(6), key=lambda m: before.history[m][-1].score)[:2]
    (event,) = steer.say(tmp_path / "run", steer.resize(4))
    assert event.retired == sorted(worst)
    steer.say(tmp_path / "run", steer.extend(8))
    train(tmp_path, intervals=8, size=6)
    run = sound(tmp_path)
    assert run.view.size == 4
    assert {int(run.view.done[m]) for m in range(6) if m not in worst} == {8}
    assert {int(run.view.done[m]) for m in worst} == {4}
    copies = [e for e in run.events() if isinstance(e, Claimed) and e.interval > 4 and e.donor is not None]
    assert not {copy.donor.member for copy in copies} & set(worst)


def test_new_bounds_govern_from_the_first_interval_that_nobody_has_begun(tmp_path):
    calls = []

    def narrow():
        calls.append(1)
        if len(calls) == 6:  # amid the second interval
            steer.say(tmp_path / "run", steer.bounds({"lr.high": 0.2}))

    train(tmp_path, intervals=6, at_end=narrow)
    run = sound(tmp_path)
    (event,) = [event for event in run.events() if isinstance(event, SpaceChanged)]
    assert event.first == 3
    values = {interval: [r.hypers["lr"] for r in run.records if r.interval == interval] for interval in range(1, 7)}
    assert max(values[2]) > 0.2
    assert all(max(values[interval]) <= 0.2 for interval in range(3, 7))
    train(tmp_path, intervals=6, high=0.2)  # the new bounds may be named, and the old
    with pytest.raises(RunDiffers, match=r"space\.lr\.high"):
        train(tmp_path, intervals=6, high=0.3)


def test_changes_give_the_same_run_for_any_number_of_workers(tmp_path):
    """With max_lead=0, a change before the run goes on is part of what it is."""
    outcomes = []
    script = scripts.write(
        tmp_path,
        """
        import sys, numpy as np, phyla
        space = {"lr": phyla.Float(0.0, 1.0)}
        population = phyla.Population(
            "run", space, 4, 3, seed=1, path=sys.argv[1], progress=False, max_lead=0, keep=3, lease=60
        )
        for member in population:
            w = member.state(lambda member: np.zeros(2))
            member.report(member["lr"] + 0.01 * member.id, w + member["lr"])
        """,
    )
    for count in (1, 3):
        path = tmp_path / str(count)
        scripts.succeed(script, path)
        steer.say(path / "run", steer.extend(7), steer.resize(6), steer.bounds({"lr.high": 0.5}))
        assert [done.returncode for done in scripts.together(script, count, path)] == [0] * count
        run = sound(path)
        outcomes.append(sorted((r.id, r.interval, r.hypers["lr"], r.checkpoint.digest) for r in run.records))
    assert outcomes[0] == outcomes[1]
    assert len(outcomes[0]) == 4 * 7 + 2 * 4


def test_a_paused_run_waits_and_a_resumed_one_goes_on(tmp_path):
    script = scripts.write(
        tmp_path,
        """
        import time, numpy as np, phyla
        population = phyla.Population("run", {"lr": phyla.Float(0.0, 1.0)}, 4, 10, seed=1, progress=False)
        for member in population:
            w = member.state(lambda member: np.zeros(2))
            time.sleep(0.05)
            member.report(member["lr"], w + 1)
        """,
    )
    process = scripts.start(script)
    where = tmp_path / "runs/run"
    checkpoints = where / "checkpoints"
    scripts.until(lambda: checkpoints.exists() and len(list(checkpoints.iterdir())) > 3)
    assert main(["pause", str(where)]) == 0
    settled = scripts.until(lambda: not (view := phyla.open(where).view).busy.any() and view.position)
    with pytest.raises(AssertionError):
        scripts.until(lambda: phyla.open(where).view.position > settled, timeout=0.5)
    assert process.poll() is None
    assert main(["resume", str(where)]) == 0
    assert scripts.finish(process).returncode == 0
    run = sound(tmp_path / "runs")
    assert set(run.view.done) == {10}
    assert [type(e) for e in run.events() if isinstance(e, Paused | Resumed)] == [Paused, Resumed]


def test_a_stopped_run_ends_and_can_be_resumed(tmp_path):
    calls = []

    def stop():
        calls.append(1)
        if len(calls) == 6:
            assert main(["stop", str(tmp_path / "run")]) == 0

    train(tmp_path, intervals=9, at_end=stop)
    assert len(calls) == 6
    assert sound(tmp_path).view.stopped == "phyla stop"
    assert main(["resume", str(tmp_path / "run")]) == 0
    train(tmp_path, intervals=9)
    assert set(sound(tmp_path).view.done) == {9}


def test_the_command_says_what_it_did(tmp_path, capsys):
    train(tmp_path)
    assert main(["change", str(tmp_path / "run"), "--intervals", "9", "--size", "5", "--space", "lr.high=2"]) == 0
    said = capsys.readouterr().out
    assert "each member trains 9 intervals" in said
    assert "5 members: the new ones copy one of the best, and train from interval 4 on" in said
    assert "from interval 4 on: lr Float(0.0, 2.0)" in said
    assert main(["change", str(tmp_path / "run"), "--intervals", "9", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["change"], "say what is to change"),
        (["change", "--size", "0"], "expected 1 or more"),
        (["change", "--intervals", "0"], "expected 1 or more"),
        (["change", "--size", "9"], "would have nothing to train: give more intervals"),
        (["change", "--space", "lr"], "expected NAME.low=NUMBER"),
        (["change", "--space", "lr.high=x"], "expected NAME.low=NUMBER"),
        (["change", "--space", "momentum.high=1"], "expected NAME.low or NAME.high; the run has lr"),
        (["change", "--space", "lr.high=-1"], "low"),
        (["pause"], "nothing to pause"),
    ],
)
def test_what_a_run_cannot_do_is_refused_before_anything_is_written(tmp_path, capsys, arguments, message):
    train(tmp_path)
    before = phyla.open(tmp_path / "run").view.position
    assert main([arguments[0], str(tmp_path / "run"), *arguments[1:]]) == 1
    assert message in capsys.readouterr().err
    assert phyla.open(tmp_path / "run").view.position == before


def test_two_that_speak_at_once_are_both_heard(tmp_path):
    train(tmp_path)
    journal, _ = runs.open_for_work(runs.find(tmp_path / "run"))
    spoken = []

    def slow(view):
        if not spoken:
            spoken.append(1)
            steer.say(tmp_path / "run", steer.extend(9))  # between its reading and its append
        return steer.extend(11)(view)

    steer._say(journal, [slow])
    journal.close()
    assert phyla.open(tmp_path / "run").view.intervals == 11
    assert phyla.open(tmp_path / "run").view.run_head == 3


def test_a_size_that_cannot_be_is_refused_by_the_fold(tmp_path):
    train(tmp_path)
    journal, _ = runs.open_for_work(runs.find(tmp_path / "run"))
    journal.append(Resized(member=-1, seq=2, size=3, first=4, retired=[7]))
    with pytest.raises(phyla.JournalError, match="are not possible"):
        _ = phyla.open(tmp_path / "run").view
    assert SettingsError
