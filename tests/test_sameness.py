"""The promise of sameness: with max_lead=0, one seed gives the same decisions and the same bits, whoever works and whoever dies."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

import phyla
from phyla.doctor import examine
from phyla.failpoints import POINTS
from phyla.testing.simulation import outcome

NUMPY = """
import time
import numpy as np, phyla
space = {"lr": phyla.Float(1e-3, 1.0, log=True), "noise": phyla.Float(0.0, 0.5)}
population = phyla.Population(
    "same", space, size=4, intervals=5, seed=1, max_lead=0, mode="min", progress=False, sync_every=0.05, lease=5
)
def init(member):
    return {"w": np.random.default_rng(member.seed).normal(size=8)}
for member in population:
    w = member.state(init)["w"]
    w = w - member["lr"] * (w + member["noise"] * np.random.normal(size=8))
    time.sleep(0.002)
    member.report(float(w @ w), {"w": w})
"""

TORCH = """
import torch, phyla
from torch import nn
space = {"lr": phyla.Float(1e-3, 0.5, log=True), "dropout": phyla.Float(0.0, 0.8)}
population = phyla.Population("same", space, size=5, intervals=4, seed=2, max_lead=0, threads=1, progress=False)
def init(member):
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(member["dropout"]), nn.Linear(8, 1))
    optimizer = torch.optim.Adam(net.parameters(), lr=member["lr"])
    return {"net": net, "optimizer": optimizer, "decay": torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)}
for member in population:
    state = member.state(init)
    for _ in range(4):
        x = torch.randn(16, 6)
        state["optimizer"].zero_grad()
        loss = ((state["net"](x) - x[:, :1]) ** 2).mean()
        loss.backward()
        state["optimizer"].step()
    state["decay"].step()
    member.report(-loss.item())
"""


def start(script, runs, **environment):
    environment = {**os.environ, "PHYLA_RUNS": str(runs), **environment}
    return subprocess.Popen(
        [sys.executable, "-c", script], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def finish(*workers):
    for worker in workers:
        _, errors = worker.communicate(timeout=120)
        assert worker.returncode == 0, errors


def result(runs):
    """What the run came to; every invariant holds, and no file is left that nobody needs."""
    run = phyla.open(runs / "same")
    assert run.view.finished
    assert list(examine([*run._journal.read(0)], run.checkpoints)) == []
    needed = {record.checkpoint.file for record in run.view.records.values() if not record.freed}
    assert set(run.checkpoints.files()) == needed
    return outcome(run.view)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    runs = tmp_path_factory.mktemp("undisturbed")
    finish(start(NUMPY, runs))
    return result(runs)


@pytest.mark.parametrize("script", [NUMPY, TORCH], ids=["numpy", "torch"])
def test_one_two_and_four_processes_come_to_the_same_bits(script, tmp_path):
    outcomes = []
    for workers in (1, 2, 4):
        finish(*[start(script, tmp_path / str(workers)) for _ in range(workers)])
        outcomes.append(result(tmp_path / str(workers)))
    assert outcomes[0] == outcomes[1] == outcomes[2]


@pytest.mark.parametrize("nth", [1, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("point", POINTS)
def test_a_worker_killed_at_any_point_leaves_a_run_that_ends_the_same(point, nth, tmp_path, undisturbed):
    killed = start(NUMPY, tmp_path, PHYLA_FAILPOINT=f"{point}:crash:{nth}")
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL, "the point was never reached"
    finish(start(NUMPY, tmp_path))
    assert result(tmp_path) == undisturbed


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_workers_killed_at_any_time_leave_a_run_that_ends_the_same(seed, tmp_path, undisturbed):
    chance = random.Random(seed)
    workers = [start(NUMPY, tmp_path) for _ in range(3)]
    for _ in range(4):
        time.sleep(chance.uniform(0.15, 0.4))
        victim = chance.randrange(len(workers))
        workers[victim].kill()
        workers[victim].communicate()
        workers[victim] = start(NUMPY, tmp_path)
    finish(*workers)
    assert result(tmp_path) == undisturbed
