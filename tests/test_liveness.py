"""Who lives: the pulse, takeovers, bodies that hang or end the script, SIGTERM."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

import phyla
import scripts
from phyla import host, steer
from phyla.errors import JournalError, SettingsError
from phyla.events import Claimed, Failed
from phyla.journal.memory import MemoryJournal
from phyla.view import View
from phyla.worker import Worker

SCRIPT = """
    import ctypes, os, signal, sys, time, numpy as np, phyla
    mark = sys.argv[1]
    population = phyla.Population(
        "run", {{"lr": phyla.Float(0.0, 1.0)}}, 3, 4, seed=1, max_lead=0, lease={lease}, progress=False{options}
    )
    for member in population:
        w = member.state(lambda member: np.zeros(2))
        if not os.path.exists(mark) and member.interval == 2:
            open(mark, "w").close()
            print("in hand", member.id, flush=True)
            {body}
        time.sleep({pause})
        member.report(member["lr"], w + 1)
    print("ended", flush=True)
"""


def script(tmp_path, body, *, lease=60, options="", pause=0.0):
    return scripts.write(tmp_path, SCRIPT.format(body=body, lease=lease, options=options, pause=pause))


def events(tmp_path, kind=object):
    return [event for event in phyla.open(tmp_path / "runs/run").events() if isinstance(event, kind)]


def failures(tmp_path):
    return [(event.why, event.error or "") for event in events(tmp_path, Failed)]


def complete(tmp_path):
    view = phyla.open(tmp_path / "runs/run").view
    return view.finished and list(view.done) == [4, 4, 4] and view.size == 3


# The pulse --------------------------------------------------------------------------------------------------------------


def test_fault_4_a_body_that_holds_the_interpreters_lock_is_not_taken_for_dead(tmp_path):
    """PyDLL keeps the lock while it sleeps: no thread of this process can beat."""
    holding = "ctypes.PyDLL(None).usleep(7_000_000)"
    first = scripts.start(script(tmp_path, holding, lease=2, pause=0.01), tmp_path / "mark")
    scripts.until((tmp_path / "mark").exists)
    second = scripts.start(tmp_path / "script.py", tmp_path / "mark")
    assert [scripts.finish(p).returncode for p in (first, second)] == [0, 0]
    assert failures(tmp_path) == []
    assert complete(tmp_path)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_the_pulse_beats_for_a_running_parent_only_and_ends_with_it(tmp_path):
    process = scripts.start(script(tmp_path, "time.sleep(60)", lease=1), tmp_path / "mark")
    scripts.until((tmp_path / "mark").exists)
    journal = phyla.open(tmp_path / "runs/run")._journal
    (worker,) = {claim.worker for claim in events(tmp_path, Claimed)}

    def moves(seconds):
        before = journal.beats()[worker]
        time.sleep(seconds)
        return journal.beats()[worker] > before

    scripts.until(lambda: journal.beats()[worker] > 4)
    (pulse,) = scripts.children(process.pid)
    os.kill(process.pid, signal.SIGSTOP)
    scripts.until(lambda: not host.runs(process.pid))
    time.sleep(0.3)
    assert not moves(1.0)
    os.kill(process.pid, signal.SIGCONT)
    assert moves(1.5)
    process.kill()
    scripts.finish(process)
    scripts.until(lambda: host.start_time(pulse) is None, timeout=5)


def test_a_pulse_that_was_killed_is_started_again(tmp_path):
    process = scripts.start(script(tmp_path, "time.sleep(5)", lease=2, pause=0.01), tmp_path / "mark")
    scripts.until((tmp_path / "mark").exists)
    (pulse,) = scripts.children(process.pid)
    os.kill(pulse, signal.SIGKILL)
    assert scripts.until(lambda: [pid for pid in scripts.children(process.pid) if pid != pulse])
    assert scripts.finish(process).returncode == 0
    assert failures(tmp_path) == []


def test_fault_3_a_stopped_worker_is_taken_over_and_its_work_is_dropped(tmp_path):
    process = scripts.start(script(tmp_path, "time.sleep(1)", lease=1.5, pause=0.01), tmp_path / "mark")
    scripts.until((tmp_path / "mark").exists)
    os.kill(process.pid, signal.SIGSTOP)
    other = scripts.start(tmp_path / "script.py", tmp_path / "mark")
    assert scripts.finish(other).returncode == 0
    os.kill(process.pid, signal.SIGCONT)
    done = scripts.finish(process)
    assert done.returncode == 0
    assert "the claim was lost while it trained" in done.stderr
    assert [why for why, _ in failures(tmp_path)] == ["lost"]
    assert complete(tmp_path)


# Taking over ------------------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def time(self):
        return self.now - 3600  # and wrong by an hour


class Flaky(MemoryJournal):
    away = False

    def beats(self):
        if self.away:
            raise JournalError("the database is away")
        return super().beats()


def listener(lease=30.0):
    journal, clock = Flaky(), Clock()
    worker = Worker(id="me", journal=journal, checkpoints=None, strategy=None, clock=clock, lease=lease)
    worker.view.open = [Claimed(member=0, seq=2, interval=1, worker="other", saw=1, hypers={})]
    journal.beat("other")
    return worker, journal, clock


def silence(worker):
    return worker._heard["other"][1]


def test_fault_18_silence_counts_only_while_somebody_listens():
    worker, _, clock = listener()
    worker.watch()
    clock.now += 600.0  # this process was stopped, or trained with the lock held: ten minutes
    worker.watch()
    assert silence(worker) <= 15.0
    for _ in range(7):
        clock.now += 5.0
        worker.watch()
    assert silence(worker) > 30.0


def test_fault_18_nobody_is_lost_for_an_outage_of_the_journal():
    worker, journal, clock = listener()
    worker.watch()
    journal.away = True
    for _ in range(12):
        clock.now += 5.0
        with pytest.raises(JournalError):
            worker.watch()
    journal.away = False
    worker.watch()
    assert silence(worker) == 0.0


def test_a_beat_ends_a_silence():
    worker, journal, clock = listener()
    for _ in range(5):
        clock.now += 5.0
        worker.watch()
    assert silence(worker) == 20.0
    journal.beat("other")
    worker.watch()
    assert silence(worker) == 0.0
    assert isinstance(worker.view, View)


# Bodies that hang, or end the script --------------------------------------------------------------------------------------


@pytest.mark.parametrize("hang", ["while True: pass", "ctypes.PyDLL(None).usleep(60_000_000)"])
def test_fault_20_a_body_that_hangs_is_ended_and_its_member_tried_again(tmp_path, hang):
    body = script(tmp_path, hang, lease=4, options=", interval_timeout=2")
    done = scripts.run(body, tmp_path / "mark")
    assert done.returncode == -signal.SIGKILL
    assert "script.py" in done.stderr  # where it hung
    assert "interval 2: trained for longer than interval_timeout=2 s" in done.stderr
    assert failures(tmp_path) == [("hung", "trained for longer than interval_timeout=2 s")]
    assert scripts.succeed(body, tmp_path / "mark").stdout.endswith("ended\n")
    assert complete(tmp_path)


def test_a_body_within_its_time_is_left_alone(tmp_path):
    done = scripts.succeed(script(tmp_path, "pass", options=", interval_timeout=1.5", pause=0.3), tmp_path / "mark")
    assert done.stderr == ""
    assert failures(tmp_path) == []


def test_a_run_in_memory_has_nobody_who_could_end_it():
    with pytest.raises(SettingsError, match="a run in memory would end with it"):
        phyla.Population("x", {"lr": phyla.Float(0, 1)}, 2, 2, journal="memory", interval_timeout=3)


@pytest.mark.parametrize(
    "body", ["sys.exit(3)", "(lambda: sys.exit('enough'))()", "exec('with member: sys.exit(3)')"], ids=str
)
def test_fault_20_a_body_that_ends_the_script_uses_up_a_retry(tmp_path, body):
    done = scripts.run(script(tmp_path, body), tmp_path / "mark")
    assert done.returncode == (1 if "enough" in body else 3)
    ((why, error),) = failures(tmp_path)
    assert (why, error[:10]) == ("raised", "SystemExit")
    scripts.succeed(tmp_path / "script.py", tmp_path / "mark")
    assert complete(tmp_path)


def test_fault_20_a_member_whose_body_always_ends_the_script_is_replaced(tmp_path):
    body = scripts.write(
        tmp_path,
        """
        import sys, numpy as np, phyla
        population = phyla.Population("run", {"lr": phyla.Float(0.0, 1.0)}, 3, 4, seed=1, max_lead=0, progress=False)
        for member in population:
            w = member.state(lambda member: np.zeros(2))
            if member.id == 1 and member.interval == 2 and not population.view.replacements[1]:
                sys.exit(3)
            member.report(member["lr"], w + 1)
        """,
    )
    codes = [scripts.run(body).returncode for _ in range(4)]
    assert codes == [3, 3, 3, 0]
    assert [why for why, _ in failures(tmp_path)] == ["raised"] * 3
    assert complete(tmp_path)


def test_a_break_and_a_caught_ctrl_c_are_no_failures(tmp_path):
    for body in ("break", "os.kill(os.getpid(), signal.SIGINT)"):
        mark = tmp_path / f"mark-{body[:2]}"
        source = SCRIPT.format(body=body, lease=60, options=", fresh=True", pause=0)
        caught = source.replace("for member", "try:\n      for member").replace("\n        ", "\n          ")
        caught = caught.replace('    print("ended"', '    except KeyboardInterrupt: pass\n    print("ended"')
        done = scripts.succeed(scripts.write(tmp_path, caught), mark)
        assert done.stdout.endswith("ended\n")
        assert [why for why, _ in failures(tmp_path)] == ["given_back"]


# SIGTERM ------------------------------------------------------------------------------------------------------------------


def test_fault_21_sigterm_lets_a_short_interval_end(tmp_path):
    body = script(tmp_path, "time.sleep(1)", pause=0.05)
    process = scripts.start(body, tmp_path / "mark")
    scripts.until((tmp_path / "mark").exists)
    process.terminate()
    done = scripts.finish(process)
    assert done.returncode == 143
    assert "this interval is finished first" in done.stderr
    assert "ended" not in done.stdout
    assert failures(tmp_path) == []
    assert len([r for r in phyla.open(tmp_path / "runs/run").records if r.interval == 2]) == 1
    scripts.succeed(body, tmp_path / "mark")
    assert complete(tmp_path)


def test_fault_21_a_second_sigterm_gives_back_at_once(tmp_path):
    process = scripts.start(script(tmp_path, "time.sleep(60)"), tmp_path / "mark")
    scripts.until((tmp_path / "mark").exists)
    process.terminate()
    scripts.until(lambda: "finished first" in process.stderr.readline())
    process.terminate()
    assert scripts.finish(process, timeout=10).returncode == 143
    assert [why for why, _ in failures(tmp_path)] == ["given_back"]


def test_fault_21_an_interval_that_takes_long_is_given_back_at_once(tmp_path):
    wait = "population._hours._took.append(3600.0); time.sleep(60)"
    process = scripts.start(script(tmp_path, wait), tmp_path / "mark")
    scripts.until((tmp_path / "mark").exists)
    time.sleep(0.2)
    process.terminate()
    assert scripts.finish(process, timeout=10).returncode == 143
    assert [why for why, _ in failures(tmp_path)] == ["given_back"]


def test_fault_21_a_worker_that_waits_ends_at_once(tmp_path):
    """The other holds the slowest member, and max_lead=0 makes this one wait for it."""
    first = scripts.start(script(tmp_path, "time.sleep(5)"), tmp_path / "mark")
    scripts.until((tmp_path / "mark").exists)
    second = scripts.start(tmp_path / "script.py", tmp_path / "mark")
    where = tmp_path / "runs/run"
    scripts.until(lambda: len(phyla.open(where).view.records) == 5)
    second.terminate()
    assert scripts.finish(second, timeout=4).returncode == 143
    assert scripts.finish(first).returncode == 0
    assert failures(tmp_path) == []


def test_a_script_that_answers_sigterm_itself_keeps_its_answer(tmp_path):
    source = SCRIPT.format(body="os.kill(os.getpid(), signal.SIGTERM)", lease=60, options="", pause=0)
    source = source.replace("mark = sys.argv[1]", "mark = sys.argv[1]; signal.signal(15, lambda *a: print('mine'))")
    done = scripts.succeed(scripts.write(tmp_path, source), tmp_path / "mark")
    assert "mine" in done.stdout
    assert done.stdout.endswith("ended\n")


def test_nothing_is_claimed_that_cannot_end_by_the_deadline(tmp_path):
    body = script(tmp_path, "pass", pause=0.5)
    begin = time.time()
    done = scripts.run(body, tmp_path / "mark", env={"PHYLA_DEADLINE": str(begin + 3.0)})
    assert done.returncode == 0
    assert done.stdout.endswith("ended\n")
    newest = max(record.time for record in phyla.open(tmp_path / "runs/run").records)
    assert newest < begin + 3.2
    assert not phyla.open(tmp_path / "runs/run").view.finished
    assert failures(tmp_path) == []


def test_fault_21_the_time_that_sigterm_leaves_comes_to_an_end(tmp_path):
    """The first interval of a process: nobody knows how long it takes."""
    source = SCRIPT.format(body="time.sleep(60)", lease=60, options="", pause=0)
    source = source.replace("import ctypes", "import phyla.preempt; phyla.preempt.GRACE_SECONDS = 1.0; import ctypes")
    process = scripts.start(scripts.write(tmp_path, source), tmp_path / "mark")
    scripts.until((tmp_path / "mark").exists)
    process.terminate()
    assert scripts.finish(process, timeout=10).returncode == 143
    assert [why for why, _ in failures(tmp_path)] == ["given_back"]


def test_a_stopped_process_does_not_hang(tmp_path):
    body = script(tmp_path, "time.sleep(1.5)", options=", interval_timeout=3", lease=1.5)
    process = scripts.start(body, tmp_path / "mark")
    scripts.until((tmp_path / "mark").exists)
    time.sleep(0.8)
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(4)
    os.kill(process.pid, signal.SIGCONT)
    assert scripts.finish(process).returncode == 0
    assert failures(tmp_path) == []


def test_a_pulse_that_cannot_live_leaves_the_beating_to_a_thread(tmp_path):
    """As where packages are found by the running process alone."""
    source = SCRIPT.format(body="time.sleep(5)", lease=2, options="", pause=0)
    source = source.replace(
        "import ctypes", "import phyla.pulse; phyla.pulse._PROGRAM = 'raise SystemExit(3)'; import ctypes"
    )
    first = scripts.start(scripts.write(tmp_path, source), tmp_path / "mark")
    scripts.until((tmp_path / "mark").exists)
    second = scripts.start(tmp_path / "script.py", tmp_path / "mark")
    assert [scripts.finish(p).returncode for p in (first, second)] == [0, 0]
    assert failures(tmp_path) == []


def test_fault_20_an_exception_that_passes_through_long_cleaning_up_uses_up_a_retry(tmp_path):
    source = SCRIPT.format(body="raise KeyError('poison')", lease=60, options="", pause=0)
    slow = "class Slow:\n        def __enter__(self): pass\n        def __exit__(self, *error): time.sleep(0.8)\n"
    source = source.replace("for member in", f"{slow}    with Slow():\n     for member in")
    source = source.replace("\n        w =", "\n         w =").replace("\n        if not", "\n         if not")
    source = source.replace("\n        time.sleep", "\n         time.sleep").replace(
        "\n        member.rep", "\n         member.rep"
    )
    assert scripts.run(scripts.write(tmp_path, source), tmp_path / "mark").returncode == 1
    assert [why for why, _ in failures(tmp_path)] == ["raised"]


def test_a_worker_that_waits_ends_when_its_seconds_are_over(tmp_path):
    first = scripts.start(script(tmp_path, "time.sleep(6)"), tmp_path / "mark")
    scripts.until((tmp_path / "mark").exists)
    begin = time.monotonic()
    other = tmp_path / "other.py"
    other.write_text((tmp_path / "script.py").read_text().replace("lease=60", "lease=60, seconds=1.5"))
    done = scripts.succeed(other, tmp_path / "mark")
    assert time.monotonic() - begin < 5
    assert done.stdout.endswith("ended\n")
    assert scripts.finish(first).returncode == 0
    assert failures(tmp_path) == []


def test_a_cell_that_is_run_again_does_not_wait_for_itself(tmp_path):
    def cell():
        space = {"lr": phyla.Float(0.0, 1.0)}
        return phyla.Population(
            "run", space, 1, 3, seed=1, path=tmp_path / "runs", max_lead=0, lease=60, progress=False
        )

    before = cell()
    member = before.claim()
    assert member is not None
    after = cell()
    taken = after.claim()
    assert taken is not None
    assert (taken.id, taken.interval) == (0, 1)
    assert failures(tmp_path) == [("given_back", "")]
    after.close()


def test_a_tool_that_takes_the_excepthook_between_two_loops_breaks_nothing(tmp_path):
    source = """
        import sys, numpy as np, phyla
        def make(name):
            return phyla.Population(name, {"lr": phyla.Float(0.0, 1.0)}, 2, 2, seed=1, progress=False)
        for member in make("other"):
            member.report(member["lr"], {})
        before = sys.excepthook
        sys.excepthook = lambda *error: (print("tool"), before(*error))
        for member in make("run"):
            raise KeyError("poison")
    """
    done = scripts.run(scripts.write(tmp_path, source))
    assert (done.returncode, done.stdout.count("tool"), done.stderr.count("Traceback")) == (1, 1, 1)
    assert [why for why, _ in failures(tmp_path)] == ["raised"]


def test_a_run_that_reaches_its_target_twice_has_a_primary_twice(tmp_path):
    def train():
        population = phyla.Population(
            "run", {"lr": phyla.Float(0.0, 1.0)}, 2, 50, seed=1, path=tmp_path / "runs", target=0.0, progress=False
        )
        for member in population:
            member.report(1.0, {})
        return population.primary

    assert train()
    steer.say(tmp_path / "runs/run", steer.resume)
    assert train()
