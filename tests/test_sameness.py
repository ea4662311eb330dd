"""One seed, one outcome: for any number of processes, and whatever dies on the way."""

import random
import time

import pytest

import phyla
import scripts
from phyla.checkpoints.local import LocalCheckpoints
from phyla.doctor import examine
from phyla.events import Failed, Recorded
from phyla.failpoints import POINTS
from phyla.testing.simulation import outcome

NUMPY = """
    import random, sys, time, numpy as np, phyla
    population = phyla.Population(
        "run", {"lr": phyla.Float(1e-3, 1.0, log=True), "noise": phyla.Float(0.0, 1.0)}, size=4, intervals=5, seed=11,
        max_lead=0, max_lost=100, threads=1, path=sys.argv[1], exploit=phyla.Truncation(0.25), progress=False, sync_every=0.05,
    )

    def init(member):
        return {"w": np.random.normal(size=3), "rng": np.random.default_rng(member.seed), "steps": 0}

    for member in population:
        state = member.state(init)
        w = state["w"] - member["lr"] * (state["w"] - 1) + member["noise"] * state["rng"].normal(size=3) * 0.01
        w = w + np.random.normal(size=3) * 1e-3 + random.random() * 1e-3
        time.sleep(float(sys.argv[2]) if len(sys.argv) > 2 else 0)
        member.report(-float(((w - 1) ** 2).sum()), {**state, "w": w, "steps": state["steps"] + 1})
"""

TORCH = """
    import sys, torch, phyla
    population = phyla.Population(
        "run", {"lr": phyla.Float(1e-3, 1.0, log=True), "dropout": phyla.Float(0.0, 0.8)}, size=4, intervals=4, seed=5,
        max_lead=0, threads=1, path=sys.argv[1], exploit=phyla.Truncation(0.25), progress=False,
    )

    def init(member):
        model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(member["dropout"]), torch.nn.Linear(8, 1))
        optimizer = torch.optim.SGD(model.parameters(), lr=member["lr"], momentum=0.9)
        return {"model": model, "optimizer": optimizer, "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 2)}

    for member in population:
        state = member.state(init, reuse="reuse" in sys.argv, apply=apply if "reuse" in sys.argv else None)
        for _ in range(3):
            x = torch.randn(16, 4)
            loss = (state["model"](x).squeeze() - x.sum(1)).square().mean()
            state["optimizer"].zero_grad()
            loss.backward()
            state["optimizer"].step()
        state["scheduler"].step()
        member.report(-loss)
"""
TORCH = TORCH.replace(
    "    for member in population:",
    """
    def apply(state, member):
        state["model"][1].p = member["dropout"]

    for member in population:""",
)


def outcome_of(path):
    """What a run came to; a run that is not finished, or not sound, fails."""
    run = phyla.open(path / "run")
    assert run.view.finished
    events = [Recorded(position, event) for position, event in enumerate(run.events(), 1)]
    assert list(examine(events, LocalCheckpoints(path / "run/checkpoints", readonly=True))) == []
    return outcome(run.view)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Each script's outcome in a single process that nothing happens to."""
    known = {}

    def find(source):
        if source not in known:
            folder = tmp_path_factory.mktemp("undisturbed")
            scripts.succeed(scripts.write(folder, source), folder / "runs")
            known[source] = outcome_of(folder / "runs")
        return known[source]

    return find


@pytest.mark.parametrize("count", [1, 2, 4])
def test_any_number_of_processes_comes_to_the_same(tmp_path, undisturbed, count):
    script = scripts.write(tmp_path, NUMPY)
    for done in scripts.together(script, count, tmp_path, 0.01):
        assert done.returncode == 0, done.stderr
    run = phyla.open(tmp_path / "run")
    assert any(record.donor for record in run.records)
    assert outcome_of(tmp_path) == undisturbed(NUMPY)


def test_any_number_of_processes_comes_to_the_same_with_torch_and_with_reused_objects(tmp_path):
    zygote, script, outcomes = scripts.Zygote("torch._dynamo", "phyla"), scripts.write(tmp_path, TORCH), []
    for count, *args in ((1,), (2,), (4,), (1, "reuse"), (2, "reuse")):
        path = tmp_path / f"runs{len(outcomes)}"
        zygote.succeed(script, count, path, *args)
        outcomes.append(outcome_of(path))
    zygote.close()
    assert any(donor for *_, donor in outcomes[0].values())
    assert all(one == outcomes[0] for one in outcomes)


def test_the_journal_in_a_directory_comes_to_the_same(tmp_path, undisturbed):
    script = scripts.write(tmp_path, NUMPY.replace('"run", {', '"run", journal="directory", space={'))
    for done in scripts.together(script, 2, tmp_path):
        assert done.returncode == 0, done.stderr
    assert outcome_of(tmp_path) == undisturbed(NUMPY)


@pytest.mark.parametrize("nth", [1, 7])
@pytest.mark.parametrize("point", POINTS)
def test_a_process_that_is_killed_anywhere_changes_nothing(tmp_path, undisturbed, point, nth):
    script = scripts.write(tmp_path, NUMPY)
    killed = scripts.run(script, tmp_path, env={"PHYLA_FAILPOINT": f"{point}:crash:{nth}"})
    assert killed.returncode == -9, "the failpoint was not reached"
    assert not phyla.open(tmp_path / "run").view.finished
    scripts.succeed(script, tmp_path)
    assert outcome_of(tmp_path) == undisturbed(NUMPY)


@pytest.mark.slow
@pytest.mark.parametrize("point", POINTS)
def test_a_process_that_is_killed_anywhere_again_and_again_changes_nothing(tmp_path, undisturbed, point):
    """Each incarnation gets one turn further."""
    script = scripts.write(tmp_path, NUMPY)
    for _ in range(60):
        if scripts.run(script, tmp_path, env={"PHYLA_FAILPOINT": f"{point}:crash:2"}).returncode == 0:
            break
    assert outcome_of(tmp_path) == undisturbed(NUMPY)


@pytest.mark.parametrize("point", ["save.created", "save.half", "save.written"])
def test_a_write_that_fails_is_said_and_a_rerun_goes_on(tmp_path, undisturbed, point):
    script = scripts.write(tmp_path, NUMPY)
    failed = scripts.run(script, tmp_path, env={"PHYLA_FAILPOINT": f"{point}:raise:5"})
    assert failed.returncode == 1
    assert "cannot be written" in failed.stderr
    scripts.succeed(script, tmp_path)
    run = phyla.open(tmp_path / "run")
    assert run.view.finished
    why = [event.why for event in run.events() if isinstance(event, Failed)]
    assert why in (["raised"], ["given_back"])


def holders(path):
    """The processes that hold a member now."""
    try:
        claims = phyla.open(path / "run").view.open
    except phyla.PhylaError:  # it is being created
        return set()
    return {int(claim.worker.rsplit(".", 4)[1]) for claim in claims if claim is not None}


def test_workers_that_die_at_random_while_they_train_change_nothing(tmp_path, undisturbed):
    script, rng = scripts.write(tmp_path, NUMPY), random.Random(3)
    running = [scripts.start(script, tmp_path, 0.1) for _ in range(3)]
    deaths = 0
    while running:
        time.sleep(rng.uniform(0.02, 0.2))
        for process in [process for process in running if process.poll() is not None]:
            assert scripts.finish(process).returncode == 0
            running.remove(process)
        training = holders(tmp_path) if deaths < 8 else ()
        if victims := [process for process in running if process.pid in training]:
            victim = rng.choice(victims)
            scripts.kill(victim)
            deaths += 1
            running[running.index(victim)] = scripts.start(script, tmp_path, 0.1)
    lost = [event for event in phyla.open(tmp_path / "run").events() if isinstance(event, Failed)]
    assert len(lost) >= 3, "too few died while they trained"
    assert outcome_of(tmp_path) == undisturbed(NUMPY)


def test_the_global_generators_of_the_script_do_not_matter(tmp_path, undisturbed):
    source = NUMPY.replace("    for member in", "    np.random.seed(99); random.seed(99)\n\n    for member in")
    scripts.succeed(scripts.write(tmp_path, source), tmp_path)
    assert outcome_of(tmp_path) == undisturbed(NUMPY)


def test_a_run_that_ends_at_any_interval_and_is_begun_again_comes_to_the_same(tmp_path, undisturbed):
    """`seconds` ends every process after a moment; reruns go on until all is done."""
    script = scripts.write(tmp_path, NUMPY.replace("threads=1,", "threads=1, seconds=0.05,"))
    for _ in range(30):
        scripts.succeed(script, tmp_path, 0.02)
        if phyla.open(tmp_path / "run").view.finished:
            break
    assert outcome_of(tmp_path) == undisturbed(NUMPY)
