"""The command line: what each command prints, as text and as JSON; its exit codes; and that nothing it prints is obeyed."""

from __future__ import annotations

import csv
import fcntl
import gc
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import phyla
from phyla import host, randomness
from phyla.checkpoints.local import LocalCheckpoints
from phyla.cli import main
from phyla.cli.app import verbatim_after_script
from phyla.cli.doctor import diagnose
from phyla.cli.standing import pace, standing
from phyla.cli.text import inert, inert_json, size
from phyla.events import RUN, Born, Created, Recorded, Reported, Stopped, decode
from phyla.journal.sqlite import SqliteJournal
from phyla.randomness import Purpose
from phyla.settings import Settings
from phyla.space import Space, describe, draw
from phyla.strategies.describe import describe as describe_strategy
from phyla.strategies.evolve import Evolve
from phyla.strategies.perturb import Gaussian, Perturb
from phyla.strategies.rebuild import rebuild
from phyla.strategies.truncation import Truncation
from phyla.version import __version__
from phyla.worker import Outcome, Worker, drive

STRATEGY = Evolve(Truncation(0.25), Perturb(0.8, 1.2))
SPACE: Space = {
    "lr": phyla.Float(1e-4, 1.0, log=True),
    "units": phyla.Int(1, 64),
    "activation": phyla.Choice("relu", "gelu"),
}
EVIL = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp[red]x[/red][link=http://evil]y[/]\r\nz\x00\x7f"
READERS = (["status"], ["best"], ["final"], ["schedule"], ["lineage"], ["export"], ["export", "--csv"], ["doctor"])
AS_JSON = (["status"], ["best"], ["final"], ["schedule"], ["lineage"], ["doctor"])


class Made(NamedTuple):
    """A run under construction."""

    path: Path
    worker: Worker

    def other(self, id: str) -> Worker:
        return Worker(id, self.worker.journal, self.worker.checkpoints, self.worker.strategy)

    def train(self, claims: int, score: Callable[[float, Any], Any] = lambda x, event: x % 1.0) -> Made:
        """Trains so many intervals; a state is one number."""
        for _ in range(claims):
            claim = drive(self.worker.claim(), self.worker.journal)
            if claim is None:
                break
            tree: Any = claim.trees[0]
            event = claim.events[0]
            x = (tree["state"]["x"] if tree else event.member / 7) * 1.7 + 0.1
            outcome = Outcome(score(x, event), steps=2, metrics={"loss": 1 - x % 1.0})
            assert drive(self.worker.publish(claim, {"state": {"x": x}}, [outcome]), self.worker.journal)
        return self


def make(path: Path, members: int = 6, intervals: int = 5, *, version: str = __version__, **given: Any) -> Made:
    """Begins a run. `given` goes to its settings, but for name=, space=, strategy= and described=."""
    space, strategy = given.pop("space", SPACE), given.pop("strategy", STRATEGY)
    settings = Settings(
        seed=given.pop("seed", 3),
        space=describe(space),
        size=members,
        intervals=intervals,
        strategy=given.pop("described", describe_strategy(strategy)),
        **{"max_lead": 0, "metric": "accuracy", **{key: value for key, value in given.items() if key != "name"}},
    )
    journal = SqliteJournal(path / "journal.db")
    births = (draw(space, randomness.generator(settings.seed, m, 0, Purpose.BIRTH, 0)) for m in range(members))
    born = [Born(member=m, seq=1, hypers=hypers, time=time.time()) for m, hypers in enumerate(births)]
    name = given.get("name", path.name)
    journal.append(Created(member=RUN, seq=1, run=name, version=version, settings=settings, time=time.time()), *born)
    return Made(path, Worker(host.new_worker_id(), journal, LocalCheckpoints(path / "checkpoints"), strategy))


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def toy(runs: Path) -> Path:
    """A finished run of 6 members and 5 intervals."""
    return make(runs / "toy").train(30).path


@pytest.fixture(scope="module")
def busy(runs: Path) -> Path:
    """A run half way: member by member held by this process, by one that is gone, and by one on another machine."""
    made = make(runs / "busy", max_lead=None).train(14, lambda x, e: float("nan") if e.member == 4 else x % 1.0)
    drive(made.worker.claim(), made.worker.journal)
    made.worker.fail("raised", f"ValueError: {EVIL}")
    mine = host.new_worker_id()
    for worker in (mine, mine.replace(f".{os.getpid()}.", ".4194999."), "far-away.12.34.abcd.1"):
        drive(made.other(worker).claim(), made.worker.journal)
    return made.path


@pytest.fixture(scope="module")
def hostile(runs: Path) -> Path:
    """A run whose every name and value is an attack on the terminal."""
    space: Space = {EVIL: phyla.Choice(EVIL, EVIL[::-1]), "lr": phyla.Float(0.1, 1.0)}
    made = make(runs / "hostile", space=space, name=EVIL, metric=EVIL, described={"type": EVIL, "x": EVIL}).train(20)
    drive(made.worker.claim(), made.worker.journal)
    made.worker.fail("raised", EVIL)
    drive(made.other(f"{EVIL}.1.2.3.4").claim(), made.worker.journal)
    made.worker.journal.append(Stopped(member=RUN, seq=2, why=EVIL, time=time.time()))
    return made.path


@pytest.fixture(scope="module")
def large(runs: Path) -> Path:
    space = {f"hyperparameter_{i}": phyla.Float(0.0, 1.0) for i in range(12)}
    made = make(runs / "large", 200, 3, space=space).train(230)
    drive(made.worker.claim(), made.worker.journal)
    return made.path


class Said(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def phyla_(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Runs a command in this process."""

    def call(*arguments: object) -> Said:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Said(code, *capsys.readouterr())

    return call


def environment() -> dict[str, str]:
    source = str(Path(phyla.__file__).parents[1])
    kept = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "NO_COLOR", "FORCE_COLOR")}
    return kept | {"PYTHONPATH": source, "TERM": "xterm-256color"}


def process(*arguments: object) -> Said:
    """Runs a command in a process of its own, with pipes."""
    command = [sys.executable, "-m", "phyla.cli", *map(str, arguments)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60)
    return Said(done.returncode, done.stdout, done.stderr)


def terminal(columns: int, *arguments: object) -> Said:
    """Runs a command on a terminal of this width."""
    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    command = [sys.executable, "-m", "phyla.cli", *map(str, arguments)]
    child = subprocess.Popen(command, env=environment(), stdin=its, stdout=its, stderr=its)
    os.close(its)
    output = b""
    try:
        while piece := os.read(ours, 65536):
            output += piece
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    return Said(child.wait(timeout=60), output.decode().replace("\r\n", "\n"), "")


def without_styles(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


# What each command says -------------------------------------------------------------------------------------------------


def test_status_of_a_finished_run(toy: Path, phyla_: Callable[..., Said]) -> None:
    code, out, err = phyla_("status", toy)
    run = phyla.open(toy)
    assert (code, err) == (0, "")
    assert out.startswith("toy  finished, ")
    assert "30 of 30 intervals (100%): 6 members × 5" in out
    assert "accuracy, higher is better; Truncation(fraction=0.25), Perturb(0.8, 1.2); ready every interval" in out
    assert "synchronous generations; seed 3" in out
    copies = run.lineage()
    assert f"{len(copies.copies)}; the weights descend from {len(set(copies.roots().values()))} of 6" in out
    files = list((toy / "checkpoints").iterdir())
    assert f"{len(files)} files, {size(sum(file.stat().st_size for file in files))}" in out
    rows = [line.split() for line in out.splitlines()[-6:]]
    assert [float(row[2]) for row in rows] == sorted((float(row[2]) for row in rows), reverse=True)
    assert {row[-1] for row in rows} == {"done"}


def test_status_as_json(toy: Path, phyla_: Callable[..., Said]) -> None:
    code, out, err = phyla_("status", toy, "--json")
    run, said = phyla.open(toy), json.loads(out)
    assert (code, err) == (0, "")
    assert (said["name"], said["state"], said["path"]) == ("toy", "finished", str(toy))
    assert said["intervals"] == {"done": 30, "total": 30, "each": 5, "first": 5, "last": 5}
    assert run.best is not None
    assert said["best"]["score"] == run.best.score
    assert said["exploits"] == len(run.lineage().copies) > 0
    assert said["roots"] == sorted(set(run.lineage().roots().values()))
    assert {m["member"]: m["hypers"] for m in said["members"]} == {r.id: r.hypers for r in run.members}
    assert all(m["done"] and m["claim"] is None and m["steps"] == 10 for m in said["members"])


def test_status_says_who_holds_a_member(busy: Path, phyla_: Callable[..., Said]) -> None:
    said = json.loads(phyla_("status", busy, "--json").out)
    claims = [member["claim"] for member in said["members"] if member["claim"]]
    assert sorted(claim["gone"] for claim in claims) == [False, False, True]
    assert all(0 <= claim["seconds"] < 60 for claim in claims)
    assert said["state"] == "training"
    assert said["failed"] == {"raised": 1}
    assert said["pace"] > 0
    assert len(said["workers"]) == 2
    out = phyla_("status", busy).out
    assert "training: 2 workers on far-away, " in out
    assert "1 raised" in out
    assert re.search(r"4194999(#\d+)? is gone$", out, re.MULTILINE)
    assert re.search(r"far-away\.12 for \d+ s$", out, re.MULTILINE)
    assert re.search(r" free$", out, re.MULTILINE)


def test_status_puts_members_without_a_good_score_last(runs: Path, phyla_: Callable[..., Said]) -> None:
    made = make(runs / "odd", 4, 3, max_lead=None)
    scores = iter((float("nan"), 0.5, None))
    made.train(3, lambda x, event: next(scores))
    members = json.loads(phyla_("status", made.path, "--json").out)["members"]
    assert [member["score"] for member in members[:2]] == [0.5, "nan"]
    assert [member["score"] for member in members[2:]] == [None, None]
    assert [line.split()[2] for line in phyla_("status", made.path).out.splitlines()[-4:]] == [
        "0.5",
        "nan",
        "none",
        "none",
    ]


def test_status_of_a_run_that_nobody_trains(runs: Path, phyla_: Callable[..., Said]) -> None:
    made = make(runs / "new", 4, 3)
    out = phyla_("status", made.path).out
    assert out.startswith("new  new: nobody has claimed a member yet")
    assert "no score yet" in out
    made.train(2)
    assert phyla_("status", made.path).out.startswith("new  idle: nobody trains it; last event ")


def test_a_paused_run_says_so_who_waits_and_how_it_goes_on(runs: Path, phyla_: Callable[..., Said]) -> None:
    made = make(runs / "paused", 4, 3).train(2)
    gone = host.new_worker_id().replace(f".{os.getpid()}.", ".4194999.")
    for worker in (gone, "far-away.12.34.abcd.1"):
        made.worker.journal.beat(worker)
    assert "\n" + f"{made.path}: workers on other machines see it" in phyla_("pause", made.path).out
    again = "to go on: phyla resume paused"
    assert f"paused: no worker on this machine waits; {again} and start its script" in phyla_("status", made.path).out
    made.worker.journal.beat(made.worker.id)
    assert f"paused: 1 worker on this machine waits; {again}\n" in phyla_("status", made.path).out
    said = json.loads(phyla_("status", made.path, "--json").out)
    assert (said["state"], said["workers"]) == ("paused", [made.worker.id])
    assert "it is paused still: phyla resume paused" in phyla_("change", made.path, "--intervals", 9).out
    assert "workers see it before their next claim" in phyla_("resume", made.path).out


def test_a_change_where_no_worker_lives_says_how_to_go_on(runs: Path, phyla_: Callable[..., Said]) -> None:
    made = make(runs / "alone", 4, 3).train(2)
    made.worker.journal.beat(host.new_worker_id().replace(f".{os.getpid()}.", ".4194999."))
    assert phyla_("change", made.path, "--intervals", 5).out.splitlines() == [
        "each member trains 5 intervals",
        f"{made.path}: no worker lives: start its script again to go on",
    ]
    assert phyla_("change", made.path).err == "phyla: say what is to change, with --intervals, --size or --space\n"
    assert "members are at intervals 0 to 1" in phyla_("status", made.path).out


def test_weights_descend_from_first_members_whoever_has_left_or_entered(
    runs: Path, phyla_: Callable[..., Said]
) -> None:
    made = make(runs / "resized", 6, 8).train(12)
    assert phyla_("change", made.path, "--size", 8).code == 0
    made.train(8)
    assert phyla_("change", made.path, "--size", 3).code == 0
    said = json.loads(phyla_("status", made.path, "--json").out)
    out, tree = phyla_("status", made.path).out, phyla_("lineage", made.path).out
    assert f"the weights descend from {len(said['roots'])} of 6 first members" in out
    assert f"the weights descend from {len(said['roots'])} of 6 first members:" in tree
    assert sum(int(count) for count in re.findall(r"in (\d+) member", tree)) == 3
    assert said["intervals"]["done"] == 20
    done, total = said["intervals"]["done"], said["intervals"]["total"]
    assert f"{done} of {total} intervals ({100 * done // total}%): 3 members up to interval 8" in out


def test_a_picture_in_a_format_that_there_is_not(toy: Path, tmp_path: Path, phyla_: Callable[..., Said]) -> None:
    code, _, err = phyla_("plot", toy, "--out", tmp_path / "a.xyz")
    assert (code, err.count("\n")) == (1, 1)
    assert "there is no format .xyz; expected one of " in err
    assert " png, " in err
    assert "cannot be written" in phyla_("plot", toy, "--out", tmp_path / "not" / "there.png").err


def test_the_package_is_the_command_line() -> None:
    command = [sys.executable, "-m", "phyla", "--version"]
    assert subprocess.run(command, env=environment(), capture_output=True, text=True).stdout == f"{__version__}\n"


@pytest.mark.parametrize("word", ["best", "final"])
def test_best_and_final(toy: Path, phyla_: Callable[..., Said], word: str) -> None:
    run = phyla.open(toy)
    record = getattr(run, word)
    said = json.loads(phyla_(word, toy, "--json").out)
    assert {key: said[key] for key in ("member", "interval", "score", "hypers")} == {
        "member": record.id,
        "interval": record.interval,
        "score": record.score,
        "hypers": record.hypers,
    }
    assert said["schedule"] == json.loads(run.schedule(record).to_json())
    assert Path(said["checkpoint"]["path"]).stat().st_size == said["checkpoint"]["size"]
    code, out, err = phyla_(word, toy)
    assert (code, err) == (0, "")
    assert f"toy  {word} {record.score:.6g}  (member {record.id}, interval {record.interval}; accuracy, " in out
    assert said["checkpoint"]["path"] in out
    known: dict[str, Any] = {"phyla": phyla}
    for line in re.findall(r"(?:run|tree) = .*", out):
        exec(line, known)
    assert isinstance(known["run"], phyla.Run)


def test_schedule_is_exactly_the_schedules_json(toy: Path, tmp_path: Path, phyla_: Callable[..., Said]) -> None:
    run = phyla.open(toy)
    assert phyla_("schedule", toy, "--json").out == run.schedule().to_json() + "\n"
    assert phyla_("schedule", toy, "--member", 2, "--json").out == run.schedule(run.members[2]).to_json() + "\n"
    out = tmp_path / "schedule.json"
    assert phyla_("schedule", toy, "--out", out).code == 0
    assert phyla.Schedule.load(out) == run.schedule()
    table = phyla_("schedule", toy).out.splitlines()
    assert table[2].split() == ["from", "step", "interval", "lr", "units", "activation"]
    assert [float(line.split()[0]) for line in table[3:]] == list(run.schedule().starts)
    intervals = [int(line.split()[1]) for line in table[3:]]
    assert intervals == [start // 2 + 1 for start in run.schedule().starts], "an interval has two steps here"
    named = {int(place) for place in re.findall(r"from interval (\d+)", phyla_("best", toy).out)}
    assert named == set(intervals[1:]), "`best` names the same ones"


def test_lineage(toy: Path, phyla_: Callable[..., Said]) -> None:
    tree = phyla.open(toy).lineage()
    lines = phyla_("lineage", toy).out.splitlines()
    assert lines[: len(tree.copies)] == [str(copy) for copy in tree.copies]
    said = json.loads(phyla_("lineage", toy, "--json").out)
    assert said == [
        {
            "member": copy.member,
            "interval": copy.interval,
            "donor": {"member": copy.donor.id, "interval": copy.donor.interval, "score": copy.donor.score},
            "score": copy.before.score if copy.before else None,
            "before": copy.before.hypers if copy.before else None,
            "after": copy.after.hypers,
        }
        for copy in tree.copies
    ]
    living = set(tree.roots().values())
    assert f"descend from {len(living)} of 6 first members:" in "\n".join(lines)
    assert {int(m) for m in re.findall(r"^  m(\d+) in", "\n".join(lines), re.MULTILINE)} == living


def test_export_is_exact(toy: Path, tmp_path: Path) -> None:
    events = [phyla.events.encode(event) for event in phyla.open(toy).events()]
    whole = b"".join(event + b"\n" for event in events)
    command = [sys.executable, "-m", "phyla.cli", "export", str(toy), "--json"]
    assert subprocess.run(command, env=environment(), capture_output=True, timeout=60).stdout == whole
    out = tmp_path / "events.jsonl"
    assert main(["export", str(toy), "--out", str(out)]) == 0
    assert out.read_bytes() == whole
    assert [decode(line) for line in whole.splitlines()] == list(phyla.open(toy).events())


def test_export_as_csv(busy: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.csv"
    assert main(["export", str(busy), "--csv", "--out", str(out)]) == 0
    rows, told = phyla.open(busy).rows(), list(csv.DictReader(io.StringIO(out.read_text())))
    assert len(rows) == len(told) == 14
    assert [float(row["metric.loss"]) for row in told] == [row["metric.loss"] for row in rows]
    assert [row["donor"] for row in told] == ["" if row["donor"] is None else str(row["donor"]) for row in rows]
    assert "nan" in {row["score"] for row in told}


# The doctor -------------------------------------------------------------------------------------------------------------


def results(out: str) -> dict[str, str]:
    return {check["invariant"]: check["result"] for check in json.loads(out)["checks"]}


def test_doctor_finds_nothing_wrong(toy: Path, busy: Path, phyla_: Callable[..., Said]) -> None:
    for path in (toy, busy):
        code, out, err = phyla_("doctor", path)
        assert (code, err) == (0, "")
        assert re.findall(r"^  (I\d) .* ok$", out, re.MULTILINE) == ["I1", "I2", "I3", "I5", "I6", "I7", "I8"]
        found = results(phyla_("doctor", path, "--json").out)
        assert found == {**dict.fromkeys(found, "ok"), "I4": "not checked"}  # such states tell nothing of what init set


def test_doctor_finds_a_checkpoint_that_is_gone_and_one_that_changed(runs: Path, phyla_: Callable[..., Said]) -> None:
    path = make(runs / "damaged").train(30).path
    gone, changed = sorted((path / "checkpoints").iterdir())[:2]
    gone.unlink()
    changed.write_bytes(changed.read_bytes()[:-1] + b"\xff")
    code, out, _ = phyla_("doctor", path)
    assert code == 1
    assert "2 problems" in out
    assert f"{gone} is missing" in out
    assert f"{changed} has changed since it was reported" in out
    assert "goes on from the one before" in out
    code, out, _ = phyla_("doctor", path, "--json")
    assert code == 1
    assert results(out) == {**dict.fromkeys(results(out), "ok"), "I2": "problems", "I4": "not checked"}
    assert not json.loads(out)["ok"]


def test_doctor_of_a_run_that_goes_on_meanwhile(runs: Path) -> None:
    made = make(runs / "going", 4, 9).train(10)
    run = phyla.open(made.path)
    events = [Recorded(position, event) for position, event in enumerate(run.events(), 1)]
    before = set(made.worker.checkpoints.files())
    made.train(12)
    assert before - set(made.worker.checkpoints.files())  # what was kept then has been released and deleted since
    checks, _ = diagnose(run, events)
    assert [check.invariant for check in checks if check.result != "ok"] == ["I4"]


def test_doctor_says_why_decisions_are_not_checkable(hostile: Path, runs: Path, phyla_: Callable[..., Said]) -> None:
    assert "the strategy is the user's own" in phyla_("doctor", hostile).out
    older = make(runs / "older", version="0.0.1").train(6).path
    code, out, _ = phyla_("doctor", older)
    assert code == 0
    assert f"the run was begun by phyla 0.0.1, and this is {__version__}" in out
    assert results(phyla_("doctor", older, "--json").out)["I8"] == "not checked"


def test_doctor_recomputes_decisions(runs: Path, phyla_: Callable[..., Said]) -> None:
    other = describe_strategy(Evolve(Truncation(0.5), Perturb(0.5, 2.0)))
    code, out, _ = phyla_("doctor", make(runs / "other", described=other).train(30).path)
    assert code == 1
    assert "I8" in out
    assert "Was it written by another version of phyla, or of the strategy?" in out


def test_doctor_of_a_journal_that_cannot_be_followed(runs: Path, phyla_: Callable[..., Said]) -> None:
    made = make(runs / "broken").train(3)
    claim = next(event for event in phyla.open(made.path).events() if isinstance(event, Reported))
    made.worker.journal.append(Reported(member=5, seq=9, interval=1, checkpoint=claim.checkpoint))
    code, out, _ = phyla_("doctor", made.path)
    assert code == 1
    assert re.search(r"the journal: position 14: .*out of order", out)
    assert out.count("the journal cannot be followed (I1)") == 1
    assert results(phyla_("doctor", made.path, "--json").out) == {
        "I1": "problems",
        **dict.fromkeys(("I2", "I3", "I4", "I5", "I6", "I7", "I8"), "not checked"),
    }


# Usage and errors -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [command[0] for command in READERS])
def test_a_run_that_is_not_there(command: str, tmp_path: Path, toy: Path, phyla_: Callable[..., Said]) -> None:
    code, out, err = phyla_(command, toy.parent / "toi")
    assert (code, out) == (1, "")
    assert err.startswith("phyla: there is no run in ")
    assert str(toy) in err  # what there is
    assert err.count("\n") == 1


def test_a_run_without_a_score(runs: Path, phyla_: Callable[..., Said]) -> None:
    path = make(runs / "scoreless", 3, 2).path
    for command in ("best", "final", "schedule"):
        code, out, err = phyla_(command, path)
        assert (code, out) == (1, "")
        assert "has no score yet, so nothing is " in err
    for command in ("status", "lineage", "export", "doctor"):
        assert phyla_(command, path).code == 0
    assert "it has not reported yet" in phyla_("schedule", path, "--member", 1).err
    assert "this run has members 0 to 2" in phyla_("schedule", path, "--member", 3).err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["statu", "x"], 'Did you mean "status"?'),
        (["status"], "RUN requires an argument"),
        (["status", "a", "b"], "b"),
        (["status", "x", "--al"], "Did you mean --all?"),
        (["schedule", "x", "--member", "two"], "two"),
        (["export", "x", "--json", "--csv"], "give one of them"),
        (["check"], "SCRIPT requires an argument"),
        (["--frobnicate"], "--frobnicate"),
        (["status", EVIL], "there is no run in"),
    ],
)
def test_bad_usage(arguments: list[str], says: str, phyla_: Callable[..., Said]) -> None:
    code, out, err = phyla_(*arguments)
    assert (code, out) == (1 if EVIL in arguments else 2, "")
    assert err.startswith("phyla: ")
    assert says in err
    assert printable(err)


def test_a_file_that_cannot_be_written(toy: Path, tmp_path: Path, phyla_: Callable[..., Said]) -> None:
    for command in ("schedule", "export"):
        code, _, err = phyla_(command, toy, "--out", tmp_path / "not" / "there")
        assert code == 1
        assert "cannot be written: No such file or directory" in err


def test_help_teaches(phyla_: Callable[..., Said]) -> None:
    whole = phyla_("--help")
    assert whole.code == 0
    assert phyla_().out == whole.out
    for command in ("status", "best", "final", "schedule", "lineage", "export", "doctor", "gc", "check"):
        assert re.search(rf"^  {command} +\S", whole.out, re.MULTILINE)
        code, out, _ = phyla_(command, "--help")
        assert code == 0
        assert re.search(rf"^    phyla {command} ", out, re.MULTILINE)
    assert phyla_("--version").out == f"{__version__}\n"


def test_check_leaves_a_scripts_arguments_alone(monkeypatch: pytest.MonkeyPatch, phyla_: Callable[..., Said]) -> None:
    calls = []

    def check(script: Path, args: list[str], *, json: bool) -> int:
        calls.append((script, args, json))
        return 1

    monkeypatch.setattr("phyla.check.check", check)
    for before, json_ in (([], False), (["--json"], True)):
        assert phyla_("check", *before, "s.py", "--json", "-x", "--", "--help", "3").code == 1
        assert calls.pop() == (Path("s.py"), ["--json", "-x", "--", "--help", "3"], json_)
    assert phyla_("check", "s.py").code == 1
    assert calls.pop() == (Path("s.py"), [], False)
    assert "phyla check" in phyla_("check", "--help").out


def test_options_of_a_command_that_takes_a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phyla.cli.app.SCRIPTED", {"run": frozenset({"--workers"})})
    assert verbatim_after_script(["run", "--workers", "4", "s.py", "--workers", "9"]) == [
        *("run", "--workers", "4", "--", "s.py", "--workers", "9")
    ]
    assert verbatim_after_script(["run", "--workers=4", "s.py"]) == ["run", "--workers=4", "--", "s.py"]
    assert verbatim_after_script(["run", "--", "s.py"]) == ["run", "--", "s.py"]
    assert verbatim_after_script(["status", "digits"]) == ["status", "digits"]


def test_ctrl_c(monkeypatch: pytest.MonkeyPatch, toy: Path, phyla_: Callable[..., Said]) -> None:
    def interrupt(path: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("phyla.runs.open", interrupt)
    assert phyla_("status", toy) == (130, "", "phyla: interrupted\n")


# Terminals, pipes, and what is hostile to them --------------------------------------------------------------------------


def printable(text: str) -> bool:
    return all(char.isprintable() or char == "\n" for char in text)


@pytest.mark.parametrize("command", READERS, ids=" ".join)
def test_nothing_in_a_journal_is_obeyed(hostile: Path, command: list[str], phyla_: Callable[..., Said]) -> None:
    code, out, err = phyla_(command[0], hostile, *command[1:])
    assert (code, err) == (0, "")
    if command[0] == "export":  # a file in another form; escaped on terminals only
        return
    assert printable(out)
    if command != ["doctor"]:
        assert r"\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp[red]x[/red][link=http://evil]y[/]\r\nz\x00\x7f" in out


@pytest.mark.parametrize("command", AS_JSON, ids=" ".join)
def test_json_is_plain_ascii(hostile: Path, command: list[str], phyla_: Callable[..., Said]) -> None:
    out = phyla_(command[0], hostile, "--json").out
    json.loads(out)
    assert out.isascii()
    assert printable(out)


def test_a_hostile_run_on_a_terminal(hostile: Path) -> None:
    for command in (["status", hostile], ["export", hostile], ["export", hostile, "--csv"]):
        code, out, _ = terminal(100, *command)
        assert code == 0
        assert printable(without_styles(out))
    events = terminal(80, "export", hostile).out.splitlines()
    assert [decode(line) for line in events] == list(phyla.open(hostile).events())


@pytest.mark.parametrize("columns", [80, 200])
def test_a_large_run_on_a_terminal(large: Path, columns: int) -> None:
    code, out, _ = terminal(columns, "status", large)
    lines = without_styles(out).splitlines()
    assert code == 0
    assert "\x1b[1;32mtraining" in out
    assert max(map(len, lines)) <= columns
    table = [line for line in lines if re.match(r" +\d+ +\d", line)]
    assert len(table) == 20
    assert "  … 180 more, of lower scores: --all shows them" in lines
    assert any("no room for hyperparameter_" in line for line in lines)
    assert any(line.startswith("  held") for line in lines)


def test_all_rows_on_a_terminal(large: Path) -> None:
    out = without_styles(terminal(300, "status", large, "--all").out)
    assert len(re.findall(r"^ +\d+ +[0-3] +", out, re.MULTILINE)) == 200
    assert "more" not in out


def test_in_a_pipe_nothing_is_cut(large: Path) -> None:
    code, out, err = process("status", large)
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert printable(out)
    header = next(place for place, line in enumerate(lines) if line.split()[:1] == ["member"])
    assert lines[header].split() == ["member", "interval", "score", *SPACE_OF_LARGE, "copied", "worker"]
    assert len(lines) - header - 1 == 200
    assert not any(line.endswith(" ") for line in lines)


SPACE_OF_LARGE = [f"hyperparameter_{i}" for i in range(12)]


def test_errors_end_a_process_with_one_line(tmp_path: Path) -> None:
    code, out, err = process("best", tmp_path / "nowhere")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "Traceback" not in err


def test_a_reader_that_has_had_enough(large: Path) -> None:
    command = [sys.executable, "-m", "phyla.cli", "export", str(large)]
    child = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.read(10)
    child.stdout.close()
    assert (child.wait(timeout=60), child.stderr.read()) == (141, b"")
    child.stderr.close()


def test_a_terminal_that_knows_no_arrows(toy: Path) -> None:
    command = [sys.executable, "-m", "phyla.cli", "lineage", str(toy)]
    done = subprocess.run(command, env=environment() | {"PYTHONIOENCODING": "ascii"}, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert rb"\u2190" in done.stdout


def test_import_phyla_leaves_the_command_line_out() -> None:
    code = "import sys, phyla; print([m for m in ('cyclopts', 'rich', 'phyla.cli') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n"


def test_reading_never_writes(toy: Path, phyla_: Callable[..., Said]) -> None:
    def state() -> list[tuple[str, int, int]]:
        return sorted((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in [toy, *toy.rglob("*")])

    gc.collect()  # the population that made the run closes its journal with its end
    before = state()
    for command in READERS:
        assert phyla_(command[0], toy, *command[1:]).code == 0
    assert state() == before


# Pieces -----------------------------------------------------------------------------------------------------------------


def test_inert() -> None:
    assert inert("naïve ← 日本 [x]") == "naïve ← 日本 [x]"
    assert inert("a\x1b[31m\n\u200b\ud800") == r"a\x1b[31m\n\u200b\ud800"
    for text in (EVIL, "\U000e0041\ue000\x85", '"\\'):
        assert printable(inert_json(json.dumps(text, ensure_ascii=False)))
        assert json.loads(inert_json(json.dumps(text, ensure_ascii=False))) == text


@pytest.mark.parametrize(
    ("count", "words"), [(0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1000, "1.0 kB"), (12_345_678, "12.3 MB")]
)
def test_size(count: int, words: str) -> None:
    assert size(count) == words


def test_pace_counts_from_the_last_pause(toy: Path) -> None:
    records = phyla.open(toy).records
    assert pace([]) is None
    for place, record in enumerate(records):
        record.time = (0.0 if place < 10 else 50_000.0) + place * 2
    assert pace(records) == pytest.approx(0.5)


def test_silence_is_no_pace(busy: Path) -> None:
    events = list(phyla.open(busy).events())
    later = standing(events, max(event.time for event in events) + 3600, lambda worker: False)
    assert later.state == "training"
    assert later.pace is None
    assert later.silent == pytest.approx(3600)
    assert standing(events, time.time(), lambda worker: True).state == "idle"


@pytest.mark.parametrize(
    "strategy",
    [
        Evolve(Truncation(), Perturb()),
        Evolve(None, None),
        Evolve(Truncation(0.5), None, "weights"),
        Evolve(Truncation(0.1), Perturb(0.5, 1.0, 3.0, resample=0.25), "hypers"),
        Evolve(Truncation(), Gaussian(0.1)),
        Evolve(Truncation(), Gaussian({"lr": 0.1, "units": 0.2}, resample=0.5)),
    ],
    ids=repr,
)
def test_rebuild_is_the_inverse_of_describe(strategy: Evolve) -> None:
    assert rebuild(json.loads(json.dumps(describe_strategy(strategy)))) == strategy


def a_users_own(view: Any, member: int, rng: Any) -> None: ...


def foreign() -> Iterator[object]:
    known = describe_strategy(Evolve(Truncation(), Perturb()))
    assert known is not None
    yield None
    yield describe_strategy(a_users_own)
    yield describe_strategy(Truncation())  # no whole strategy
    yield describe_strategy(Evolve(a_users_own, Perturb()))
    yield known | {"type": "os.system"}
    yield known | {"type": ["phyla.Evolve"]}
    yield known | {"inherit": "all", "more": 1}
    yield known | {"exploit": {"type": "phyla.Truncation", "fraction": 7}}
    yield known | {"explore": {"type": "phyla.Perturb", "factors": 3, "resample": 0}}
    yield known | {"explore": {"type": "phyla.Perturb", "factors": ["0.8"], "resample": 0}}
    yield known | {"explore": {"type": "phyla.Gaussian"}}
    yield {"type": "phyla.Evolve"}
    yield [known]


@pytest.mark.parametrize("described", list(foreign()), ids=repr)
def test_rebuild_knows_only_phylas_own(described: object) -> None:
    assert rebuild(described) is None
