"""The doctor: each invariant on real runs, at rest and while they go on; what it repairs; and what gc deletes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import phyla
import scripts
from phyla import host, randomness
from phyla.checkpoints import file_name
from phyla.checkpoints.local import LocalCheckpoints
from phyla.cli import main
from phyla.doctor import GRACE, Problem, Surroundings, examine, orphans
from phyla.events import RUN, Born, Created, Failed, Paused, Recorded, Ref
from phyla.journal.directory import DirectoryJournal
from phyla.journal.sqlite import SqliteJournal
from phyla.randomness import Purpose
from phyla.settings import Settings
from phyla.space import Space, describe, draw
from phyla.strategies.describe import describe as describe_strategy
from phyla.strategies.evolve import Evolve
from phyla.strategies.perturb import Perturb
from phyla.strategies.truncation import Truncation
from phyla.testing.simulation import outcome
from phyla.version import __version__
from phyla.worker import Outcome, Worker, drive

SPACE: Space = {"lr": phyla.Float(1e-4, 1.0, log=True)}
STRATEGY = Evolve(Truncation(0.25), Perturb())


class Trained:
    """A run in a directory, begun or gone on with, trained turn by turn by a worker of this process; a state is one number."""

    def __init__(
        self,
        path: Path,
        journal: Any = SqliteJournal,
        size: int = 4,
        intervals: int = 6,
        strategy: Evolve = STRATEGY,
        **settings: Any,
    ):
        self.path = path
        home = path / ("journal.db" if journal is SqliteJournal else "journal")
        known = {"max_lead": 0, "strategy": describe_strategy(strategy), **settings}
        made = Settings(seed=3, space=describe(SPACE), size=size, intervals=intervals, **known)
        rng = [randomness.generator(3, m, 0, Purpose.BIRTH, 0) for m in range(size)]
        born = [Born(member=m, seq=1, hypers=draw(SPACE, rng[m])) for m in range(size)]
        opened = journal(home)
        begins = not opened.read(0)
        if begins:
            opened.append(Created(member=RUN, seq=1, run="run", version=__version__, settings=made), *born)
        store = LocalCheckpoints(path / "checkpoints")
        id = "the first" if begins else "the second"  # equals are claimed in an order that follows from it
        self.worker = Worker(id, opened, store, strategy, gone=lambda worker: True)

    def train(self, turns: int, hypers: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> Trained:
        for _ in range(turns):
            claim = drive(self.worker.claim(), self.worker.journal)
            assert claim is not None
            tree: Any = claim.trees[0]
            event = claim.events[0]
            x = ((tree["state"]["x"] if tree else event.member / 7) * 1.7 + 0.1) % 1.0
            saved: dict[str, Any] = {"state": {"x": x}}
            if hypers is not None:
                saved["made"] = {"options": {}, "classes": {}, "hypers": hypers(event.hypers)}
            assert drive(self.worker.publish(claim, saved, [Outcome(x)]), self.worker.journal)
        return self

    @property
    def events(self) -> list[Recorded]:
        return list(self.worker.journal.read(0))

    @property
    def files(self) -> list[str]:
        return self.worker.checkpoints.files()

    def newest_file(self, member: int) -> Path:
        record = self.worker.view.newest(member)
        assert record is not None
        return self.path / "checkpoints" / record.checkpoint.file

    def problems(self, **around: Any) -> list[Problem]:
        given = Surroundings(**{"gone": host.is_gone, "read": self.worker.journal.read, **around})
        return list(examine(self.events, self.worker.checkpoints, self.worker.strategy, given))


def checks(path: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """What `phyla doctor` says of each invariant."""
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("builtins.print", lambda *args, **kwargs: said.extend(map(str, args)))
        code = main(["doctor", str(path), "--json", *options])
    found = json.loads("".join(said))
    return code, {**{check["invariant"]: check for check in found["checks"]}, "repaired": found["repaired"]}


def results(path: Path) -> dict[str, str]:
    code, found = checks(path)
    given = {invariant: check["result"] for invariant, check in found.items() if invariant != "repaired"}
    assert code == int("problems" in given.values())
    return given


SOUND = dict.fromkeys(("I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8"), "ok")


# I4: what a checkpoint says of its hyperparameters --------------------------------------------------------------------


class Optimizer:
    """What looks like one of torch's."""

    def __init__(self, lr: float):
        self.param_groups = [{"params": [], "lr": lr, "momentum": 0.9}]

    def state_dict(self) -> dict[str, Any]:
        return {"state": {}, "param_groups": [dict(group) for group in self.param_groups]}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.param_groups = [dict(group) for group in saved["param_groups"]]


def train(path: Path, body: Callable[[phyla.Member, Any], object]) -> Path:
    """A run of four members whose states hold an optimizer; `body` does something to it."""
    population = phyla.Population(
        "run", SPACE, size=4, intervals=4, seed=1, max_lead=0, path=path, progress=False, exploit=phyla.Truncation(0.25)
    )
    for member in population:
        state = member.state(lambda newborn: {"optimizers": [Optimizer(newborn["lr"])], "x": float(newborn.id)})
        body(member, state["optimizers"][0])
        member.report(state["x"] + member.interval / 100, {**state, "x": state["x"] + 0.01})
    return path / "run"


def test_hyperparameters_that_are_in_effect(tmp_path: Path) -> None:
    assert results(train(tmp_path, lambda member, optimizer: None)) == SOUND


def test_a_schedule_of_the_loops_own_is_no_problem(tmp_path: Path) -> None:
    def decay(member: phyla.Member, optimizer: Optimizer) -> None:
        optimizer.param_groups[0]["lr"] = float(member["lr"] or 0) * 0.9**member.interval

    assert results(train(tmp_path, decay)) == SOUND


def test_a_hyperparameter_that_came_back_with_its_donors_weights(tmp_path: Path) -> None:
    donors: dict[int, float] = {}

    def put_back(member: phyla.Member, optimizer: Optimizer) -> None:
        if member.donor is not None:
            donors[member.id] = member.donor.hypers["lr"]
        optimizer.param_groups[0]["lr"] = donors.get(member.id, member["lr"])

    with pytest.warns(phyla.PhylaWarning, match="its donor's value"):
        path = train(tmp_path, put_back)
    code, found = checks(path)
    assert code == 1
    assert {invariant for invariant, check in found.items() if invariant != "repaired" and check["problems"]} == {"I4"}
    whats = [problem["what"] for problem in found["I4"]["problems"]]
    assert all("lr of state['optimizers'][0] is" in what and "recorded" in what for what in whats)
    assert any(repr(lr) in what for what in whats for lr in donors.values())


def test_a_state_that_was_made_with_other_hyperparameters(tmp_path: Path) -> None:
    sound = Trained(tmp_path / "sound").train(9, lambda hypers: hypers)
    assert sound.problems() == []
    found = Trained(tmp_path / "wrong").train(9, lambda hypers: {"lr": 2.0}).problems()
    assert {problem.invariant for problem in found} == {"I4"}
    assert "lr was 2.0 when init made its state" in found[0].what


def test_states_that_tell_nothing_are_not_checkable(tmp_path: Path) -> None:
    _, found = checks(Trained(tmp_path).train(5).path)
    assert (found["I4"]["result"], found["I4"]["why"]) == ("not checked", "no checkpoint says what init has set")


# I6: the run can go on ------------------------------------------------------------------------------------------------


def test_a_paused_run_and_one_whose_worker_is_gone_are_no_problem(tmp_path: Path) -> None:
    run = Trained(tmp_path).train(5)
    run.worker.id = host.new_worker_id().replace(f".{os.getpid()}.", ".4194999.")
    drive(run.worker.claim(), run.worker.journal)
    code, found = checks(tmp_path)
    assert (code, found["I6"]["result"]) == (0, "ok")
    assert "1 claim of processes that are gone" in found["I6"]["note"]
    run.worker.journal.append(Paused(member=RUN, seq=2))
    assert "phyla resume" in checks(tmp_path)[1]["I6"]["note"]


def test_a_member_that_cannot_be_born(tmp_path: Path) -> None:
    old = Trained(tmp_path / "old").train(8)
    heirs = phyla.open(old.path).top(2)
    population = phyla.Population("new", SPACE, size=2, intervals=2, start=heirs, path=tmp_path, progress=False)
    assert not population.view.finished
    path = tmp_path / "new"
    assert results(path)["I6"] == "ok"
    gone = old.path / "checkpoints" / heirs[0].origin.checkpoint.file  # type: ignore[union-attr]
    gone.unlink()
    code, found = checks(path)
    assert code == 1
    assert [problem["where"] for problem in found["I6"]["problems"]] == ["member 0"]
    assert f"{gone} is missing" in found["I6"]["problems"][0]["what"]


def test_members_that_are_missing_from_the_journal(tmp_path: Path) -> None:
    run = Trained(tmp_path)
    found = list(examine(run.events[:3]))  # of four members, two were born
    assert [(problem.invariant, problem.where) for problem in found] == [("I6", "member 2"), ("I6", "member 3")]


# I7: files that nobody needs ------------------------------------------------------------------------------------------


def leave(run: Trained, seq: int = 2) -> str:
    """A file that the journal has released, as a worker leaves it that dies before it has deleted it."""
    file = file_name(0, seq)
    assert file not in run.files
    (run.path / "checkpoints" / file).write_bytes(b"x" * 1500)
    return file


def test_files_that_nobody_needs_at_rest(tmp_path: Path) -> None:
    run = Trained(tmp_path).train(16)
    file, now = leave(run), run.events[-1].event.time
    (found,) = run.problems(now=now + GRACE + 1)
    assert (found.invariant, found.where) == ("I7", file)
    assert run.problems(now=now + GRACE - 1) == []  # somebody may be about to delete it
    claim = drive(run.worker.claim(), run.worker.journal)
    assert claim is not None
    (run.path / "checkpoints" / claim.file).write_bytes(b"half")
    assert run.problems(now=now + 10**6) == []  # workers sweep as they go on
    found, own = run.problems(now=now + 10**6, gone=lambda worker: True)[0], claim.file
    assert (found.where, own in run.files) == (file, True)  # what is being written is nobody's orphan
    assert "nobody needs 1 file" in checks(tmp_path)[1]["I7"]["note"]


def test_what_a_strategy_of_the_users_own_may_retain_is_no_orphan(tmp_path: Path) -> None:
    run = Trained(tmp_path).train(16)
    released = leave(run)
    claim = drive(run.worker.claim(), run.worker.journal)
    assert claim is not None
    run.worker.fail("raised")
    leftover = claim.file
    (run.path / "checkpoints" / leftover).write_bytes(b"half")
    assert {orphan.file for orphan in orphans(run.events, run.files, STRATEGY)} == {released, leftover}
    assert {orphan.file for orphan in orphans(run.events, run.files, None)} == {leftover}


# A run that goes on meanwhile -----------------------------------------------------------------------------------------


def test_nothing_that_workers_do_meanwhile_is_a_problem(tmp_path: Path) -> None:
    run = Trained(tmp_path, size=3, intervals=40).train(12)

    class Going(LocalCheckpoints):
        """Whoever looks at a checkpoint finds that the run has gone on by a turn or two."""

        def load(self, checkpoint: Any) -> Any:
            run.train(2)
            return super().load(checkpoint)

        def files(self) -> list[str]:
            found = super().files()
            run.train(3)
            return found

    around = Surroundings(now=time.time() + 10**6, gone=lambda worker: True, read=run.worker.journal.read)
    events = run.events
    for _ in range(3):
        assert list(examine(events, Going(tmp_path / "checkpoints", readonly=True), STRATEGY, around)) == []
    alone = replace(around, read=lambda after: ())
    assert {p.invariant for p in examine(events, run.worker.checkpoints, STRATEGY, alone)} >= {"I2"}


# Repairs --------------------------------------------------------------------------------------------------------------

SCRIPT = """
    import sys, numpy as np, phyla
    population = phyla.Population(
        "run", {"lr": phyla.Float(1e-3, 1.0, log=True)}, size=3, intervals=6, seed=4, max_lead=0, path=sys.argv[1],
        threads=1, progress=False,
    )
    for member in population:
        state = member.state(lambda newborn: {"w": np.random.normal(size=3)})
        w = state["w"] * (1 - member["lr"])
        member.report(-float((w**2).sum()), {"w": w})
"""


def test_what_a_killed_worker_left_is_repaired_and_the_run_goes_on(tmp_path: Path) -> None:
    script = scripts.write(tmp_path, SCRIPT)
    killed = scripts.run(script, tmp_path, env={"PHYLA_FAILPOINT": "publish.saved:crash:5"})
    assert killed.returncode == -9
    run = tmp_path / "run"
    before = len(list(phyla.open(run).events()))
    files = {path.name for path in (run / "checkpoints").iterdir()}

    dry = checks(run, "--repair", "--dry-run")[1]
    assert ["would be freed" in line for line in dry["repaired"]] == [True]
    assert len(list(phyla.open(run).events())) == before

    code, found = checks(run, "--repair")
    assert code == 0
    assert [line.split(":")[1].split(";")[0] for line in found["repaired"]] == [" freed", " deleted"]
    assert found["I6"]["note"] is None
    assert files - {path.name for path in (run / "checkpoints").iterdir()}
    last = list(phyla.open(run).events())[-1]
    assert isinstance(last, Failed)
    assert last.why == "lost"
    assert checks(run, "--repair")[1]["repaired"] == []
    scripts.succeed(script, tmp_path)
    assert phyla.open(run).view.finished
    assert "problems" not in results(run).values()


def test_damaged_checkpoints_are_given_up_and_the_run_goes_on(tmp_path: Path) -> None:
    run = Trained(tmp_path, intervals=8, keep=3).train(18)
    best = run.worker.view.best
    assert best is not None
    (tmp_path / "checkpoints" / best.checkpoint.file).unlink()
    torn = run.newest_file(0 if best.id else 1)
    torn.write_bytes(torn.read_bytes()[:-1])
    code, found = checks(tmp_path)
    assert code == 1
    assert len(found["I2"]["problems"]) == 2
    assert "--repair" in found["I2"]["problems"][0]["advice"]

    dry = checks(tmp_path, "--repair", "--dry-run")
    assert dry[0] == 1
    assert sum("would be given up" in line for line in dry[1]["repaired"]) == 2
    code, found = checks(tmp_path, "--repair")
    assert code == 0, found
    newest = phyla.open(tmp_path).best
    assert newest is not None
    assert newest.ref != best.ref
    phyla.open(tmp_path).load(newest)
    run.worker.read()
    while not run.worker.view.finished:
        run.train(1)
    assert run.problems() == []
    voided = {Ref(*e.voids) for _, e in run.events if isinstance(e, Failed) and e.voids is not None}
    assert best.ref in voided


def test_a_finished_run_is_not_begun_again_to_repair_it(tmp_path: Path) -> None:
    run = Trained(tmp_path, intervals=3).train(12)
    run.newest_file(2).unlink()
    before = len(run.events)
    code, found = checks(tmp_path, "--repair")
    assert code == 1
    assert "restore it from a copy" in found["repaired"][0]
    assert "Restore it from a copy" in found["I2"]["problems"][0]["advice"]
    assert len(run.events) == before


def test_a_disk_that_is_not_there_is_not_taken_for_damage(tmp_path: Path) -> None:
    run = Trained(tmp_path).train(9)
    before = len(run.events)
    (tmp_path / "checkpoints").rename(tmp_path / "elsewhere")
    code, found = checks(tmp_path, "--repair")
    assert code == 1
    assert "is their disk mounted?" in found["repaired"][0]
    assert len(run.events) == before


def test_dry_run_alone_is_a_mistake(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(Trained(tmp_path).path), "--dry-run"]) == 2
    assert "--dry-run goes with --repair" in capsys.readouterr().err


# gc -------------------------------------------------------------------------------------------------------------------

FOREIGN = ("notes.txt", "m0-2.safetensors.bak", "m-1.safetensors", "M0-2.safetensors", "m99-2.safetensors", ".m0-2.tmp")


def test_gc_deletes_what_nobody_needs_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = Trained(tmp_path).train(16)
    needed = run.files
    claim = drive(run.worker.claim(), run.worker.journal)
    assert claim is not None
    folder = tmp_path / "checkpoints"
    for name in (*FOREIGN, claim.file):  # what is being written just now
        (folder / name).write_bytes(b"mine")
    file = leave(run)
    outside = tmp_path / "precious"
    outside.write_bytes(b"precious")
    (folder / file_name(1, 2)).symlink_to(outside)

    assert main(["gc", str(tmp_path), "--dry-run"]) == 0
    assert f"would be deleted: checkpoints/{file}  1.5 kB, released\n" in capsys.readouterr().out
    assert file in run.files
    assert main(["gc", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert said.splitlines()[-1].startswith("2 files deleted, 1.6 kB freed")
    assert {path.name for path in folder.iterdir()} == {*needed, *FOREIGN, claim.file}
    assert outside.read_bytes() == b"precious"
    assert main(["gc", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"path": str(tmp_path), "deleted": True, "freed": 0, "files": []}


def test_gc_deletes_what_an_append_left_in_a_journals_directory(tmp_path: Path) -> None:
    run = Trained(tmp_path, journal=DirectoryJournal).train(5)
    folder = tmp_path / "journal"
    left, young, foreign = (folder / f".{name}.tmp" for name in ("a" * 32, "b" * 32, "notes"))
    for path in (left, young, foreign):
        path.write_text("{}")
    for path in (left, foreign):
        os.utime(path, (0, 0))
    events = len(run.events)
    assert main(["gc", str(tmp_path)]) == 0
    assert [path.exists() for path in (left, young, foreign)] == [False, True, True]
    assert len(DirectoryJournal(folder).read(0)) == events


def test_looking_at_a_run_and_cleaning_up_change_nothing_while_it_goes_on(tmp_path: Path) -> None:
    source = SCRIPT.replace("size=3, intervals=6", "size=4, intervals=25").replace(
        "state =", "time.sleep(0.004); state ="
    )
    script = scripts.write(tmp_path, source.replace("import sys", "import sys, time"))
    scripts.succeed(script, tmp_path / "alone")
    workers = [scripts.start(script, tmp_path) for _ in range(2)]
    run, looks = tmp_path / "run", 0
    scripts.until(lambda: list(run.glob("checkpoints/*")))
    while any(worker.poll() is None for worker in workers):
        assert "problems" not in results(run).values()
        assert main(["gc", str(run)]) == 0
        looks += 1
    assert [scripts.finish(worker).returncode for worker in workers] == [0, 0]
    assert looks > 1
    assert outcome(phyla.open(run).view) == outcome(phyla.open(tmp_path / "alone/run").view)
