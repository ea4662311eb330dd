"""`phyla check` finds what reaches a body beside its state, its hyperparameters and its member, and names it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"

SCRIPT = """
import sys
import numpy as np, torch, phyla
from torch import nn

plant = sys.argv[1]
population = phyla.Population(
    "planted",
    space={"lr": phyla.Float(1e-4, 1e-2, log=True), "dropout": phyla.Float(0.0, 0.8)},
    size=4, intervals=5, seed=0,
)
average = 0.0
generator = np.random.default_rng(3)

def init(member):
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(member["dropout"]), nn.Linear(16, 1))
    return {"net": net, "optimizer": torch.optim.SGD(net.parameters(), lr=member["lr"])}

for member in population:
    state = member.state(init, reuse=plant == "reuse")
    x = torch.randn(32, 8)
    if plant == "generator":
        x = torch.tensor(generator.normal(size=(32, 8))).float()
    for _ in range(5):
        state["optimizer"].zero_grad()
        loss = ((state["net"](x) - x.sum(1, keepdim=True)) ** 2).mean()
        loss.backward()
        state["optimizer"].step()
    if plant == "variable":
        average = 0.9 * average + 0.1 * min(loss.item(), 1.0)
        with torch.no_grad():
            state["net"][0].bias += average * 1e-3
    member.report(-loss.item())
"""


def check(script, *args, cwd):
    command = [sys.executable, "-W", "ignore", "-m", "phyla.cli", "check", "--json", str(script), *args]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(SCRIPT)
    return path


def test_a_sound_script_is_the_same_to_the_bit_and_nothing_is_written(script, tmp_path):
    code, found = check(script, "nothing", cwd=tmp_path)
    assert (code, found["same"]) == (0, True)
    assert [path.name for path in tmp_path.iterdir()] == ["script.py"]


def test_a_dropout_rate_that_only_init_takes_is_named_under_reuse(script, tmp_path):
    code, found = check(script, "reuse", cwd=tmp_path)
    assert code == 1
    assert "reuse=True" in found["cause"]
    assert "'dropout'" in found["cause"]
    assert "'lr'" not in found["cause"]
    assert any("net" in path for path in found["differs"])


def test_a_variable_that_is_carried_from_one_turn_into_the_next_is_named(script, tmp_path):
    code, found = check(script, "variable", cwd=tmp_path)
    assert code == 1
    assert found["cause"] == "the loop carries 'average' from one member's turn into the next"


def test_a_generator_that_is_not_seeded_for_the_member_is_found(script, tmp_path):
    code, found = check(script, "generator", cwd=tmp_path)
    assert code == 1
    assert "seed" in found["advice"]


@pytest.mark.parametrize("example", ["numpy_only.py", "toy.py", pytest.param("digits.py", marks=pytest.mark.slow)])
def test_the_examples_are_sound(example, tmp_path):
    code, found = check(EXAMPLES / example, cwd=tmp_path)
    assert (code, found["same"]) == (0, True), found


def test_a_script_that_never_loops_is_told_so(tmp_path):
    path = tmp_path / "idle.py"
    path.write_text("import phyla\nphyla.Population('idle', {'lr': phyla.Float(0, 1)}, intervals=1)\n")
    command = [sys.executable, "-m", "phyla.cli", "check", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert "no loop iterated over a Population" in done.stderr
