"""`phyla run`: workers are started, reaped, started again and ended; and the run is sound whatever happens to them."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import subprocess
import sys
import tempfile
import termios
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

import phyla
import scripts
from phyla import launched
from phyla.cli import main
from phyla.cli.app import verbatim_after_script
from phyla.errors import LoopError, SettingsError
from phyla.events import Claimed, Created, Failed, Reported
from phyla.launch import plan as planning
from phyla.launch.launcher import distinct
from phyla.launch.plan import assign, plan, seconds

SCRIPT = """
    import os, signal, subprocess, sys, time
    import numpy as np, phyla
    from pathlib import Path
    population = phyla.Population(
        "run", {"lr": phyla.Float(0.0, 1.0)}, size=SIZE, intervals=INTERVALS, seed=1, max_lost=100, progress=False
    )
    def once(name):
        try:
            Path(name).touch(exist_ok=False)
            return True
        except FileExistsError:
            return False
    for member in population:
        w = member.state(lambda member: np.zeros(2))
        print("trains", member.id, flush=True)
        BODY
        member.report(member["lr"], w + 1)
    AFTER
"""


def script(folder: Path, body: str = "pass", *, size: int = 8, intervals: int = 2, after: str = "pass") -> Path:
    """A script whose loop has this body."""
    source = SCRIPT.replace("SIZE", str(size)).replace("INTERVALS", str(intervals))
    return scripts.write(folder, source.replace("BODY", body).replace("AFTER", after))


def start(path: Path, *options: object, args: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """`phyla run`, in the script's folder, with temporary files there too."""
    (path.parent / "tmp").mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "phyla.cli", "run", *map(str, options), path.name, *args],
        cwd=path.parent,
        env={**os.environ, "TMPDIR": str(path.parent / "tmp")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(path: Path, *options: object, code: int = 0, args: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """`phyla run` to its end, which must have this exit code."""
    done = scripts.finish(start(path, *options, args=args), 60)
    assert done.returncode == code, done.stderr
    return done


def events(folder, kind=object):
    return [event for event in phyla.open(folder / "runs/run").events() if isinstance(event, kind)]


def assert_complete(folder, size=8, intervals=2):
    """Everything was trained once, nothing is held, and the run is sound."""
    reports = Counter((event.member, event.interval) for event in events(folder, Reported))
    assert reports == Counter((m, i) for m in range(size) for i in range(1, intervals + 1))
    assert_sound(folder)


def assert_sound(folder):
    assert not phyla.open(folder / "runs/run").view.busy.any(), "somebody's claim is open"
    assert main(["doctor", str(folder / "runs/run")]) == 0


def processes_in(folder: Path) -> list[int]:
    """The processes whose working directory this is."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == folder:
                found.append(int(process.name))
        except OSError:
            continue
    return found


def assert_nothing_left(folder):
    scripts.until(lambda: not processes_in(folder), 5)  # a killed child is init's to collect
    assert list((folder / "tmp").glob("phyla-*")) == []


def training(process: subprocess.Popen[str], folder: Path, workers: int) -> None:
    """Waits until that many workers train."""

    def claimed() -> bool:
        assert process.poll() is None, process.communicate()
        try:
            view = phyla.open(folder / "runs/run").view
        except phyla.PhylaError:
            return False
        return len({claim.worker for claim in view.open if claim is not None}) == workers

    scripts.until(claimed, 20)


# A run without trouble -----------------------------------------------------------------------------------------------


def test_three_workers_train_eight_members(tmp_path):
    after = "phyla.launched.ended(); print('best', population.best.id)"
    done = run(script(tmp_path, "time.sleep(0.05)", after=after), "--workers", 3, "--deadline", "10m")
    assert_complete(tmp_path)
    assert len({event.worker for event in events(tmp_path, Claimed)}) == 3
    best = phyla.open(tmp_path / "runs/run").best
    assert done.stdout == f"best {best.id}\n", "all three have printed it, and it is shown once"
    assert "run is finished: 8 members, 16 intervals" in done.stderr
    assert_nothing_left(tmp_path)


def test_logs_hold_what_each_worker_has_printed(tmp_path):
    path = script(tmp_path, "time.sleep(0.05); print('to stderr', member.id, file=sys.stderr)")
    path.write_text("print('before the run is known')\n" + path.read_text())
    run(path, "--workers", 2, args=("--epochs", "3"))
    logs = sorted((tmp_path / "runs/run/logs").iterdir())
    assert [log.name for log in logs] == ["worker-1.log", "worker-2.log"]
    claims = Counter(event.member for event in events(tmp_path, Claimed))
    lines = [line for log in logs for line in log.read_text().splitlines()]
    for number, log in enumerate(logs, 1):
        header, first = log.read_text().splitlines()[:2]
        assert header.startswith(f"--- w{number} pid ")
        assert header.endswith("script.py --epochs 3 ---")
        assert first == "before the run is known"
        assert log.stat().st_mode & 0o077 == 0
    assert Counter(int(line.split()[1]) for line in lines if line.startswith("trains")) == claims
    assert Counter(int(line.split()[2]) for line in lines if line.startswith("to stderr")) == claims


def test_another_launch_finds_the_run_and_its_logs_and_settings(tmp_path):
    path = script(tmp_path)
    run(path, "--workers", 1)
    before = (tmp_path / "runs/run/logs/worker-1.log").read_text()
    assert "nothing was left to do; --fresh begins anew, phyla change run" in run(path, "--workers", 1).stderr
    after = (tmp_path / "runs/run/logs/worker-1.log").read_text()
    assert after.startswith(before)
    assert after.count("--- w1 pid ") == 2
    done = run(script(tmp_path, size=9), "--workers", 3, code=1)
    assert "size: the run has 8, the script names 9" in done.stderr
    assert_complete(tmp_path)


def test_of_a_stopped_run_it_is_said_that_it_can_be_resumed(tmp_path):
    path = script(tmp_path, "if once('stopped'): subprocess.run([sys.executable, '-m', 'phyla', 'stop', 'run'])")
    run(path, "--workers", 1)
    said = run(path, "--workers", 1).stderr
    assert "nothing was left to do; it was stopped; phyla resume run lets it go on" in said
    assert "--intervals" not in said
    assert main(["resume", str(tmp_path / "runs/run")]) == 0
    run(path, "--workers", 1)
    assert_complete(tmp_path)


def test_where_the_script_prints_the_best_itself_the_summary_is_one_line(tmp_path):
    done = run(script(tmp_path, after="print(population.best)"), "--workers", 1)
    assert "best score" in done.stderr
    assert "checkpoint" not in done.stderr
    assert "checkpoint" in done.stdout


def test_options_behind_the_script_are_its_own_and_a_line_says_so(tmp_path):
    done = run(script(tmp_path, after="assert sys.argv[1:] == ['--workers', '2', '-x']"), args=("--workers", "2", "-x"))
    assert "phyla: --workers after script.py is the script's own; for phyla run it stands before" in done.stderr


def test_fresh_sets_aside_once_with_four_workers(tmp_path):
    path = script(tmp_path, "time.sleep(0.02)")
    (tmp_path / "runs/run").mkdir(parents=True)
    run(path, "--workers", 4, "--fresh")
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["run", "run.1"]
    assert_complete(tmp_path)


def test_a_run_that_is_launched_twice_at_once_is_one_run(tmp_path):
    path = script(tmp_path, "time.sleep(0.1)")
    both = [start(path, "--workers", 2) for _ in range(2)]
    for process in both:
        assert scripts.finish(process, 60).returncode == 0
    assert len(events(tmp_path, Created)) == 1
    assert_complete(tmp_path)


def test_a_script_without_a_run_is_said_to_be_one(tmp_path):
    done = run(scripts.write(tmp_path, "print('hi')"), "--workers", 2, code=1)
    assert done.stdout == "hi\n"
    assert "no population was trained: does the script loop over" in done.stderr


def test_a_script_that_looks_at_its_run_and_has_no_loop_trains_nothing(tmp_path):
    path = script(tmp_path)
    path.write_text(path.read_text().replace("for member in population:", "print(population.best)\nfor member in ():"))
    done = run(path, "--workers", 1, code=1)
    assert done.stderr.endswith("\nno population was trained: does the script loop over a phyla.Population?\n")
    assert "goes on" not in done.stderr


def test_a_module_is_run_with_its_own_arguments_where_and_how_it_was_said(tmp_path):
    path = script(tmp_path, after="assert sys.argv[1:] == ['--workers', '9']")
    options = ["--workers", "1", "--path", "elsewhere", "--journal", "directory"]
    done = subprocess.run(
        [sys.executable, "-m", "phyla.cli", "run", *options, "-m", path.stem, "--workers", "9"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "elsewhere/run/journal").is_dir()
    assert phyla.open(tmp_path / "elsewhere/run").view.finished
    assert (tmp_path / "elsewhere/run/logs/worker-1.log").exists()


def test_worker_becomes_the_script(tmp_path):
    path = script(tmp_path, after="print(sys.argv[1:], os.getpid())")
    process = subprocess.Popen(
        [sys.executable, "-m", "phyla.cli", "worker", "--path", "here", path.name, "--lease", "3"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    out, _ = process.communicate(timeout=60)
    assert out.splitlines()[-1] == f"['--lease', '3'] {process.pid}"
    assert phyla.open(tmp_path / "here/run").view.finished


# Workers that die ----------------------------------------------------------------------------------------------------


def test_a_killed_worker_is_reaped_at_once_and_replaced(tmp_path):
    path = script(tmp_path, "if once('killed'): os.kill(os.getpid(), signal.SIGKILL)", intervals=3)
    done = run(path, "--workers", 1)
    (failure,) = events(tmp_path, Failed)
    assert failure.why == "lost"
    assert "was killed (SIGKILL)" in failure.error
    assert "w1 was killed (SIGKILL), by a person or for want of memory, with member" in done.stderr
    assert "w1 | trains" in done.stderr
    assert "w1 starts again in 0.5 s" in done.stderr
    assert len({event.worker for event in events(tmp_path, Claimed)}) == 2
    assert_complete(tmp_path, intervals=3)


def test_the_others_take_a_killed_workers_member_while_it_starts_again(tmp_path):
    body = "time.sleep(0.05)\n        if once('killed'): os.kill(os.getpid(), signal.SIGKILL)"
    run(script(tmp_path, body, intervals=4), "--workers", 3)
    (failure,) = events(tmp_path, Failed)
    (claim,) = [e for e in events(tmp_path, Claimed) if e.ref._replace(seq=e.seq + 1) == failure.ref]
    assert failure.why == "lost"
    assert failure.time - claim.time < 10, "it did not wait for the lease"
    assert_complete(tmp_path, intervals=4)


@pytest.mark.parametrize(("how", "why"), [("os.abort()", "crashed"), ("os._exit(0)", "lost")])
def test_what_a_worker_died_of_is_recorded(tmp_path, how, why):
    """Its exit code does not decide: one that ends with 0 in a body has not ended well."""
    run(script(tmp_path, f"if once('died'): {how}"), "--workers", 1)
    assert [event.why for event in events(tmp_path, Failed)] == [why]
    assert_complete(tmp_path)


def test_a_script_that_cannot_be_imported_ends_soon_and_shows_why(tmp_path):
    path = scripts.write(tmp_path, "import nothing_of_this_name\n")
    began = time.monotonic()
    done = run(path, "--workers", 4, code=1)
    assert time.monotonic() - began < 10
    assert done.stderr.splitlines() == [
        "Traceback (most recent call last):",
        f'  File "{path}", line 1, in <module>',
        "    import nothing_of_this_name",
        "ModuleNotFoundError: No module named 'nothing_of_this_name'",
        "nothing was trained: starting the script again as it is would not help",
    ]
    assert_nothing_left(tmp_path)


def test_a_script_that_dies_of_itself_before_it_claims_is_tried_again_and_its_words_are_kept(tmp_path):
    done = run(scripts.write(tmp_path, "raise ConnectionError('no data yet')"), "--workers", 3, code=1)
    assert "and said the same" in done.stderr
    (kept,) = (tmp_path / "tmp").glob("phyla-*")
    assert str(kept) in done.stderr
    assert "ConnectionError" in (kept / "worker-1.log").read_text()


def test_a_script_that_differs_from_its_run_is_started_once_and_nothing_contradicts_it(tmp_path):
    run(script(tmp_path), "--workers", 1)
    done = run(script(tmp_path, size=9), "--workers", 1, code=1)
    said = done.stderr.splitlines()
    assert "size: the run has 8, the script names 9" in done.stderr
    assert "/phyla/" not in done.stderr, "the frames are the script's own"
    assert "script.py" in done.stderr
    assert said[-1] == "nothing was trained: starting the script again as it is would not help"
    assert "starts again" not in done.stderr
    assert "nothing was left to do" not in done.stderr
    assert_nothing_left(tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--path", "script.py"], "the run cannot be kept in "),
        (["-m", "nothing_of_this_name"], "No module named nothing_of_this_name"),
    ],
)
def test_what_cannot_begin_is_said_and_not_tried_again(tmp_path, options, said):
    done = run(script(tmp_path), "--workers", 1, *options, code=1)
    assert said in done.stderr
    assert "starts again" not in done.stderr
    assert len(done.stderr.splitlines()) < 10, done.stderr
    assert_nothing_left(tmp_path)


def test_an_error_of_the_body_ends_its_process_and_the_way_out_is_said_once(tmp_path):
    body = "if member.interval == 2 and (once('a') or once('b')): raise ValueError('bad luck')"
    done = run(script(tmp_path, body, size=3, intervals=3), "--workers", 1)
    assert done.stderr.count("w1 starts again") == 2
    assert done.stderr.count("put `with member:` around the body") == 1
    assert_complete(tmp_path, size=3, intervals=3)


def test_bodies_that_only_ever_raise_end_the_launch(tmp_path):
    done = run(script(tmp_path, "undefined_name"), "--workers", 3, code=1)
    assert "NameError: name 'undefined_name' is not defined" in done.stderr
    assert "none has ever reported" in done.stderr
    assert {event.why for event in events(tmp_path, Failed)} <= {"raised", "given_back"}
    assert_sound(tmp_path)
    run(script(tmp_path), "--workers", 2)  # corrected, it goes on
    assert_complete(tmp_path)


def test_a_script_that_fails_after_its_loop_fails_the_launch_once(tmp_path):
    done = run(script(tmp_path, after="raise RuntimeError('no plot')"), "--workers", 2, code=1)
    assert "RuntimeError: no plot" in done.stderr
    assert "starts again" not in done.stderr
    assert_complete(tmp_path)


@pytest.mark.slow
def test_a_worker_that_dies_in_a_scripts_second_run_is_started_again(tmp_path):
    path = script(tmp_path, "if once('died'): os._exit(3)", size=2)
    first = path.read_text().replace('"run"', '"first"').replace("if once('died'): os._exit(3)", "pass")
    path.write_text(first + path.read_text())
    done = run(path, "--workers", 1)
    assert "first is finished: 2 members" in done.stderr
    assert "w1 starts again" in done.stderr
    assert_complete(tmp_path, size=2)


def test_what_a_worker_printed_is_inert(tmp_path):
    done = run(scripts.write(tmp_path, r"raise SystemExit('\x1b[31mred\u202e')"), "--workers", 3, code=1)
    assert r" | \x1b[31mred\u202e" in done.stderr
    assert "\x1b" not in done.stderr


def test_a_worker_that_a_script_has_forked_is_reaped_as_well(tmp_path):
    source = """
        import multiprocessing, os, time, numpy as np, phyla
        population = phyla.Population("run", {"lr": phyla.Float(0, 1)}, 8, 2, seed=1, progress=False)

        def train(dies):
            for member in population:
                w = member.state(lambda member: np.zeros(2))
                time.sleep(0.05)
                if dies:
                    os._exit(1)
                member.report(member["lr"], w + 1)

        context = multiprocessing.get_context("fork")
        workers = [context.Process(target=train, args=(dies,)) for dies in (True, False)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    """
    run(scripts.write(tmp_path, source), "--workers", 1)
    assert [event.why for event in events(tmp_path, Failed)] == ["lost"]
    assert_complete(tmp_path)


def test_no_process_is_left_behind(tmp_path):
    """A body's children are ended with it, however it ends."""
    child = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])"
    run(script(tmp_path, f"{child}\n        if once('died'): os._exit(7)", size=2), "--workers", 2)
    assert_nothing_left(tmp_path)
    assert_complete(tmp_path, size=2)


# The end -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_first_signal_asks_workers_to_end(tmp_path, number, code):
    process = start(script(tmp_path, "time.sleep(0.2)", intervals=1000), "--workers", 3)
    training(process, tmp_path, 3)
    process.send_signal(number)
    done = scripts.finish(process, 20)
    assert done.returncode == code, done.stderr
    assert "waiting for 3 workers to finish what they train" in done.stderr
    assert "ending" not in done.stderr, "nobody insisted"
    assert "run is not finished" in done.stderr
    assert {event.why for event in events(tmp_path, Failed)} <= {"given_back"}
    assert_sound(tmp_path)
    assert_nothing_left(tmp_path)


def test_ctrl_c_at_a_terminal_reaches_the_launcher_alone(tmp_path):
    """Workers are no part of the terminal's foreground: they end when the launcher says so, and write no tracebacks."""
    path = script(tmp_path, "time.sleep(0.2)", intervals=1000)
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "phyla.cli", "run", "--workers", "2", path.name],
        cwd=tmp_path,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(theirs)
    shown: list[bytes] = []

    def read():
        try:
            while data := os.read(ours, 65_536):
                shown.append(data)
        except OSError:
            return  # the terminal's other end is closed

    reader = threading.Thread(target=read)
    reader.start()
    training(process, tmp_path, 2)
    os.write(ours, b"\x03")
    assert process.wait(20) == 130
    reader.join(20)
    os.close(ours)
    assert b"Ctrl-C again ends at once" in b"".join(shown)
    logs = "".join(log.read_text() for log in (tmp_path / "runs/run/logs").iterdir())
    assert "KeyboardInterrupt" not in logs
    assert_sound(tmp_path)


STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


@pytest.mark.slow
def test_the_second_ctrl_c_ends_workers_that_do_not_want_to_within_five_seconds(tmp_path):
    process = start(script(tmp_path, STUBBORN), "--workers", 2)
    training(process, tmp_path, 2)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None, "the first one waits"
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    done = scripts.finish(process, 20)
    assert done.returncode == 130
    assert 4 < time.monotonic() - began < 10
    assert [event.why for event in events(tmp_path, Failed)] == ["given_back"] * 2, "this never counts against a member"
    assert_sound(tmp_path)
    assert_nothing_left(tmp_path)


@pytest.mark.slow
def test_a_third_ctrl_c_kills_at_once(tmp_path):
    process = start(script(tmp_path, STUBBORN), "--workers", 1)
    training(process, tmp_path, 1)
    began = time.monotonic()
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        time.sleep(0.2)
    assert scripts.finish(process, 20).returncode == 130
    assert time.monotonic() - began < 4
    assert_sound(tmp_path)


def test_the_deadline_ends_the_launch_with_work_left(tmp_path):
    began = time.monotonic()
    done = run(script(tmp_path, "time.sleep(0.1)", intervals=1000), "--workers", 2, "--deadline", 2, code=75)
    assert time.monotonic() - began < 12
    assert "run is not finished" in done.stderr
    assert_sound(tmp_path)


def test_the_workers_of_a_launcher_that_is_killed_go_on(tmp_path):
    process = start(script(tmp_path, "time.sleep(0.1)"), "--workers", 2)
    training(process, tmp_path, 2)
    scripts.kill(process)
    scripts.until(lambda: phyla.open(tmp_path / "runs/run").view.finished, 20)
    scripts.until(lambda: not processes_in(tmp_path), 20)
    assert_complete(tmp_path)


# Functions -----------------------------------------------------------------------------------------------------------


def test_a_local_function_trains_in_workers_of_its_own(tmp_path, capfd):
    rate = 0.5  # of the function's own scope

    def train(population):
        import numpy as np

        for member in population:
            state = member.state(lambda member: np.zeros(2))
            member.report(member["lr"] * rate, state + 1)

    population = phyla.Population(
        "run",
        {"lr": phyla.Float(0.0, 1.0)},
        8,
        2,
        path=tmp_path / "runs",
        exploit=phyla.Truncation(0.25),
        fresh=True,
        progress=False,
    )
    run = phyla.run(train, population, workers=2)
    assert run.view.finished
    assert capfd.readouterr() == ("", ""), "progress=False is silent"
    assert population.best.score == population.best.hypers["lr"] * rate
    assert_complete(tmp_path)
    assert os.getpid() not in {int(event.worker.split(".")[-4]) for event in events(tmp_path, Claimed)}
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["run"], "looking at it has set nothing aside"


def test_a_function_that_fails_says_so_where_it_was_called(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # the logs of workers that never joined a run are kept

    def train(population):
        raise ValueError("no data")

    population = phyla.Population("run", {"lr": phyla.Float(0.0, 1.0)}, 2, 1, path=tmp_path / "runs")
    failures = []

    def call():  # in another thread no signal can be taken; all else holds
        try:
            phyla.run(train, population, workers=3)
        except LoopError as error:
            failures.append(str(error))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join(30)
    assert len(failures) == 1
    assert "ValueError: no data" in failures[0]
    population.close()


def test_what_cannot_be_handed_over_is_named(tmp_path):
    population = phyla.Population("run", {"lr": phyla.Float(0.0, 1.0)}, 2, 1, path=tmp_path)
    lock = threading.Lock()
    with pytest.raises(SettingsError, match=r"cannot be handed to other processes.*lock"):
        phyla.run(lambda population: lock.acquire(), population)
    with pytest.raises(SettingsError, match="expected a function"):
        phyla.run(None, population)
    memory = phyla.Population("run", {"lr": phyla.Float(0.0, 1.0)}, 2, 1, journal="memory")
    with pytest.raises(SettingsError, match="of one process alone"):
        phyla.run(print, memory)
    for each in (population, memory):
        each.close()


# What is asked for ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "0", "SCRIPT"], "--workers 0: expected 1 or more"),
        (["nowhere.py"], "there is no script nowhere.py"),
        ([], "which script?"),
        (["--deadline", "soon", "SCRIPT"], "--deadline soon: expected a time from now"),
        (["--journal", "memory", "SCRIPT"], "--journal memory: expected sqlite or directory"),
        (["--lease", "0", "SCRIPT"], "--lease 0: expected seconds above 0"),
        (["--gpus-per-worker", "1", "--workers", "3", "SCRIPT"], "there are devices for 2 workers and not for 3"),
        (["--gpus-per-worker", "1.5", "SCRIPT"], "expected a whole number of devices, or a part of one"),
        (["--gpus-per-worker", "0", "SCRIPT"], "expected a number above 0"),
    ],
)
def test_what_cannot_be_launched_is_refused_before_anything_starts(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    monkeypatch.chdir(tmp_path)
    path = script(tmp_path)
    assert main(["run", *(str(path) if a == "SCRIPT" else a for a in arguments)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_what_follows_the_script_is_its_own():
    assert verbatim_after_script(["run", "--workers", "2", "s.py", "--workers"]) == [
        *("run", "--workers", "2", "--", "s.py", "--workers")
    ]
    assert verbatim_after_script(["run", "-m", "a.b", "--fresh"]) == ["run", "-m", "a.b", "--", "--fresh"]


@pytest.mark.parametrize(
    ("workers", "each", "there", "expected"),
    [
        (4, 0.25, "0", ["0"] * 4),
        (5, 0.25, "0 1", ["0", "1", "0", "1", "0"]),
        (3, 0.3, "7", ["7"] * 3),
        (2, 1, "0 1 2", ["0", "1"]),
        (2, 2, "0 1 2 3", ["0,1", "2,3"]),
        (1, 1, "GPU-5a MIG-7b", ["GPU-5a"]),
    ],
)
def test_devices_are_dealt_out(workers, each, there, expected):
    assert assign(workers, each, there.split()) == expected


def test_each_worker_sees_its_own_devices(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 5,-1,6")
    planned = plan(["true"], gpus_per_worker=0.5)
    assert planned.workers == 4, "as many as the devices hold"
    seen = [planned.variables(number, tmp_path)["CUDA_VISIBLE_DEVICES"] for number in (1, 2, 3, 4)]
    assert seen == ["2", "5", "2", "5"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(SettingsError, match="devices that are visible: none"):
        plan(["true"], gpus_per_worker=1)


def test_workers_are_told_what_the_launch_was_asked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_END_TIME", "2000000000")
    planned = plan(
        ["true"], workers=3, fresh=True, path=Path("there"), journal="directory", checkpoints=Path("far"), lease=7.0
    )
    variables = planned.variables(2, tmp_path)
    assert {key: variables[key] for key in variables if key.startswith("PHYLA_")} == {
        "PHYLA_LAUNCH": str(tmp_path),
        "PHYLA_WORKER": "2",
        "PHYLA_WORKERS": "3",
        "PHYLA_RUNS": str(Path("there").absolute()),
        "PHYLA_JOURNAL": "directory",
        "PHYLA_CHECKPOINTS": str(Path("far").absolute()),
        "PHYLA_LEASE": "7.0",
        "PHYLA_DEADLINE": "2000000000.0",
        "PHYLA_FRESH": "1",
    }
    assert plan(["true"], deadline="2h").deadline == pytest.approx(time.time() + 7200, abs=5), "the option comes first"
    assert plan(["true"]).workers == min(planning.cores(), 8)


def test_durations():
    assert [seconds(text) for text in ("90", "90s", "1.5m", "2h", "1d")] == [90, 90, 90, 7200, 86400]
    for text in ("", "0", "-5", "2 weeks", "h", "1h30m"):
        with pytest.raises(SettingsError, match="expected a time from now"):
            seconds(text)


def test_different_outputs_are_shown_once_each():
    assert distinct(["best 3", "best 3\nplotted", "best 3", ""]) == ["best 3\nplotted"]
    assert distinct(["a", "b", "a"]) == ["a", "b"]


def test_only_streams_that_the_launcher_gave_are_moved(tmp_path, monkeypatch, capfd):
    """A script may have sent its output elsewhere before it joined."""
    monkeypatch.setenv(launched.VARIABLE, str(tmp_path))
    monkeypatch.setenv(launched.NUMBER, "1")
    (tmp_path / "worker-1.log").write_text("said before\n")
    (tmp_path / "runs/run").mkdir(parents=True)
    launched.announce(launched.Joined(tmp_path / "runs/run", "sqlite", "me"))
    print("still here", flush=True)
    assert capfd.readouterr().out == "still here\n"
    assert launched.announcements(tmp_path) == {os.getpid(): [(tmp_path / "runs/run", "sqlite", "me")]}
    launched.forget(tmp_path, os.getpid())
    assert launched.announcements(tmp_path) == {}
