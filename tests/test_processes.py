"""Processes started by hand share a run: they come, die, are stopped, and start again."""

import fcntl
import os
import re
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

import phyla
import scripts
from phyla.events import Born, Claimed, Created, Failed, Reported

SCRIPT = """
    import sys, time, numpy as np, phyla
    journal, pause, hold = sys.argv[1], float(sys.argv[2]), float(sys.argv[3])
    population = phyla.Population(
        "run", {"lr": phyla.Float(0.0, 1.0)}, size=4, intervals=3, seed=1, lease=LEASE, journal=journal, progress=False
    )
    for member in population:
        w = member.state(lambda member: np.zeros(2))
        time.sleep(pause)
        if hold:
            print("holds", member.id, flush=True)
            HOLD
            hold = 0
        member.report(member["lr"], w + 1)
    print("ended", flush=True)
"""


@pytest.fixture
def script(tmp_path):
    return scripts.write(tmp_path, SCRIPT.replace("LEASE", "60").replace("HOLD", "time.sleep(hold)"))


def events(tmp_path, kind=object):
    return [event for event in phyla.open(tmp_path / "runs/run").events() if isinstance(event, kind)]


def assert_complete(tmp_path):
    """Everything was trained once, and the run is sound."""
    reports = Counter((event.member, event.interval) for event in events(tmp_path, Reported))
    assert reports == Counter((m, i) for m in range(4) for i in (1, 2, 3))
    run = phyla.open(tmp_path / "runs/run")
    assert run.view.finished
    run.load(run.best)


def holds(process):
    """Waits until this process trains the member that it will not report soon, and returns that."""
    word, member = process.stdout.readline().split()
    assert word == "holds"
    return int(member)


@pytest.mark.parametrize("journal", ["sqlite", "directory"])
def test_four_processes_share_the_work(tmp_path, script, journal):
    for done in scripts.together(script, 4, journal, 0.2, 0):
        assert done.returncode == 0, done.stderr
        assert "ended" in done.stdout
    assert_complete(tmp_path)
    assert len({event.worker for event in events(tmp_path, Claimed)}) > 1
    assert events(tmp_path, Failed) == []


@pytest.mark.parametrize("journal", ["sqlite", "directory"])
def test_a_killed_workers_member_is_taken_over_at_once(tmp_path, script, journal):
    victim = scripts.start(script, journal, 0, 600)
    held = holds(victim)
    scripts.kill(victim)
    killed = time.monotonic()
    scripts.succeed(script, journal, 0, 0)
    assert time.monotonic() - killed < 55, "it waited for the lease"
    (failure,) = events(tmp_path, Failed)
    assert (failure.member, failure.why) == (held, "lost")
    assert "its process is gone" in failure.error
    assert_complete(tmp_path)


def test_a_worker_that_runs_already_takes_over_what_another_leaves(tmp_path, script):
    victim = scripts.start(script, "sqlite", 0, 600)
    held = holds(victim)
    other = scripts.start(script, "sqlite", 0, 0)
    scripts.until(lambda: len(events(tmp_path, Reported)) == 9)  # all but one member are through
    scripts.kill(victim)
    assert scripts.finish(other, 55).returncode == 0
    assert [(event.member, event.why) for event in events(tmp_path, Failed)] == [(held, "lost")]
    assert_complete(tmp_path)


def test_a_stopped_worker_loses_its_member_after_its_lease_and_goes_on_afterwards(tmp_path):
    script = scripts.write(tmp_path, SCRIPT.replace("LEASE", "2").replace("HOLD", "time.sleep(hold)"))
    zombie = scripts.start(script, "sqlite", 0, 1)
    held = holds(zombie)
    zombie.send_signal(signal.SIGSTOP)
    scripts.succeed(script, "sqlite", 0, 0)
    (failure,) = events(tmp_path, Failed)
    assert (failure.member, failure.why) == (held, "lost")
    assert "no sign of life for 2 s" in failure.error
    zombie.send_signal(signal.SIGCONT)
    done = scripts.finish(zombie)
    assert done.returncode == 0
    assert re.search(
        rf"member {held}, interval 1: the claim was lost while it trained .* its work is dropped", done.stderr
    )
    assert "ended" in done.stdout
    assert_complete(tmp_path)


def test_a_stopped_worker_goes_on_with_other_members_when_it_wakes(tmp_path):
    script = scripts.write(tmp_path, SCRIPT.replace("LEASE", "2").replace("HOLD", "time.sleep(hold)"))
    zombie = scripts.start(script, "sqlite", 0, 0.5)
    held = holds(zombie)
    zombie.send_signal(signal.SIGSTOP)
    other = scripts.start(script, "sqlite", 0.7, 0)
    scripts.until(lambda: events(tmp_path, Failed))
    zombie.send_signal(signal.SIGCONT)
    assert scripts.finish(zombie).returncode == 0
    assert scripts.finish(other).returncode == 0
    claims = Counter(event.worker for event in events(tmp_path, Claimed))
    assert len(claims) == 2
    assert min(claims.values()) > 1
    assert [event.member for event in events(tmp_path, Failed)] == [held]
    assert_complete(tmp_path)


def test_a_worker_that_nobody_can_hear_for_longer_than_its_lease_loses_its_member_and_goes_on(tmp_path):
    """Its body holds the interpreter, so that no thread can beat, and the process that beats for it has been stopped."""
    hold = "import ctypes; ctypes.PyDLL(None).sleep(int(hold))"
    script = scripts.write(tmp_path, SCRIPT.replace("LEASE", "1").replace("HOLD", hold))
    blocked = scripts.start(script, "sqlite", 0, 5)
    held = holds(blocked)
    for pulse in scripts.children(blocked.pid):
        os.kill(pulse, signal.SIGSTOP)
    other = scripts.start(script, "sqlite", 0, 0)
    done = scripts.finish(blocked)
    assert done.returncode == 0
    assert scripts.finish(other).returncode == 0
    lost = [event.member for event in events(tmp_path, Failed) if event.why == "lost"]
    assert lost.count(held) == 1
    assert f"member {held}, interval 1: the claim was lost" in done.stderr
    assert_complete(tmp_path)


def test_eight_racing_creators_make_one_run(tmp_path, script):
    source = script.read_text().replace("population =", "sys.stdin.read()\npopulation =")
    script.write_text(source)
    racers = []
    for _ in range(8):
        racers.append(
            subprocess.Popen(
                [scripts.sys.executable, str(script), "sqlite", "0", "0"],
                cwd=tmp_path,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    for racer in racers:
        racer.stdin.close()  # go
        racer.stdin = None
    for racer in racers:
        done = scripts.finish(racer)
        assert done.returncode == 0, done.stderr
    assert len(events(tmp_path, Created)) == 1
    assert sorted(event.member for event in events(tmp_path, Born)) == [0, 1, 2, 3]
    assert_complete(tmp_path)


def test_a_second_script_with_other_settings_is_refused_and_the_run_goes_on(tmp_path, script):
    first = scripts.start(script, "sqlite", 0, 1)
    holds(first)
    other = scripts.write(tmp_path, script.read_text().replace("size=4", "size=5"), "other.py")
    refused = scripts.run(other, "sqlite", 0, 0)
    assert refused.returncode == 1
    assert "size: the run has 4, the script names 5" in refused.stderr
    assert scripts.finish(first).returncode == 0
    assert_complete(tmp_path)


def test_nothing_is_left_behind(tmp_path, script):
    for done in scripts.together(script, 2, "sqlite", 0.05, 0):
        assert done.returncode == 0
    assert not [p for p in Path("/proc").glob("[0-9]*/cmdline") if str(script).encode() in read(p)]
    locks = list((tmp_path / "runs").rglob("*.lock"))
    assert locks
    for lock in locks:
        with lock.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    names = {path.name for path in (tmp_path / "runs/run").iterdir()}
    assert names <= {"journal.db", "journal.lock", "journal.db-wal", "journal.db-shm", "checkpoints", "once", "logs"}
    records = phyla.open(tmp_path / "runs/run").view.records.values()
    kept = {record.checkpoint.file for record in records if not record.freed}
    assert {path.name for path in (tmp_path / "runs/run/checkpoints").iterdir()} == kept


def read(path):
    try:
        return path.read_bytes()
    except OSError:
        return b""


FORKED = {
    "multiprocessing": "import multiprocessing as m; c = m.get_context('fork').Process(target=print); c.start(); c.join()",
    "with exit handlers": "import os; (sys.exit(0) if os.fork() == 0 else os.wait())",
    "with an error": "import os; (1 / 0 if os.fork() == 0 else os.wait())",
    "that leaves the loop": "import os\n            if os.fork() == 0: break\n            os.wait()",
}


@pytest.mark.parametrize("how", FORKED)
def test_children_forked_in_the_body_do_no_harm(tmp_path, how):
    """As data loaders do. However they end, they give nothing back that is their parent's."""
    script = scripts.write(tmp_path, SCRIPT.replace("LEASE", "60").replace("HOLD", FORKED[how]))
    done = scripts.succeed(script, "sqlite", 0, 1)
    if how != "with an error":
        assert done.stderr == ""
    assert events(tmp_path, Failed) == []
    assert_complete(tmp_path)


def test_processes_forked_from_one_that_has_joined_are_workers_of_their_own(tmp_path):
    script = scripts.write(
        tmp_path,
        """
        import multiprocessing, time, numpy as np, phyla
        population = phyla.Population("run", {"lr": phyla.Float(0, 1)}, 4, 3, seed=1, progress=False, fresh=True)
        assert population.best is None

        def train():
            for member in population:
                w = member.state(lambda member: np.zeros(2))
                time.sleep(0.1)
                member.report(member["lr"], w + 1)

        context = multiprocessing.get_context("fork")
        workers = [context.Process(target=train) for _ in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
            assert worker.exitcode == 0
        assert population.best.interval >= 1
        """,
    )
    assert scripts.succeed(script).stderr == ""
    assert len({event.worker for event in events(tmp_path, Claimed)}) == 3
    assert events(tmp_path, Failed) == []
    assert_complete(tmp_path)


def test_a_run_that_somebody_trains_is_not_set_aside(tmp_path, script):
    process = scripts.start(script, "sqlite", 0, 30)
    holds(process)
    fresh = script.with_name("fresh.py")
    fresh.write_text(script.read_text().replace("journal=journal", "journal=journal, fresh=True"))
    refused = scripts.run(fresh, "sqlite", 0, 0)
    assert refused.returncode == 1
    assert f"cannot be set aside: process {process.pid} trains in it" in refused.stderr
    scripts.kill(process)
    scripts.succeed(fresh, "sqlite", 0, 0)
    assert (tmp_path / "runs/run.1").exists()


@pytest.mark.parametrize("journal", ["sqlite", "directory"])
@pytest.mark.parametrize(
    "how", ["time.sleep(hold)", "time.sleep(hold); import os; os.fork() or os._exit(0); os.wait()"]
)
def test_a_worker_whose_run_was_moved_away_leaves_the_new_one_alone(tmp_path, journal, how):
    """It knows its files by more than their names, though a fork has closed them all."""
    script = scripts.write(tmp_path, SCRIPT.replace("LEASE", "60").replace("HOLD", how))
    old = scripts.start(script, journal, 0, 2)
    holds(old)
    (tmp_path / "runs/run").rename(tmp_path / "runs/elsewhere")
    scripts.succeed(script, journal, 0, 0)
    before = phyla.open(tmp_path / "runs/run").view.position
    done = scripts.finish(old)
    assert done.returncode == 1
    assert "was set aside while this process worked in it" in done.stderr
    assert phyla.open(tmp_path / "runs/run").view.position == before
    assert_complete(tmp_path)
