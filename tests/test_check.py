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


FRAME = """
import random
import numpy as np, phyla

population = phyla.Population("planted", {"lr": phyla.Float(0.01, 0.1)}, size=4, intervals=5, seed=0)

BEFORE

def init(member):
    return {"w": np.zeros(3), "n": 0}

INIT

def step(member, state, more=0.0):
    w = state["w"] + member["lr"] * np.random.normal(size=3) + more
    member.report(-float(w @ w), {**state, "w": w, "n": state["n"] + 1})

LOOP
"""

PLAIN = """
for member in population:
    step(member, member.state(init))
"""

SOUND = {
    "a plain loop": {},
    "a loop in a function": {
        "LOOP": """
def main():
    for member in population:
        step(member, member.state(init))
main()
"""
    },
    "claims": {
        "LOOP": """
while (member := population.claim()) is not None:
    step(member, member.state(init))
"""
    },
    "with member": {
        "LOOP": """
for member in population:
    with member:
        step(member, member.state(init))
"""
    },
    "a run that is looked at before": {
        "BEFORE": "population.once('data', lambda: None); assert population.best is None"
    },
    "a population of one": {
        "BEFORE": "population = phyla.Population('one', {'lr': phyla.Float(0, 1)}, size=1, target=0.5)"
    },
    "variables that reach nobody": {
        "LOOP": """
turns, log = 0, []
for member in population:
    turns += 1
    log.append(turns)
    step(member, member.state(init))
"""
    },
    "a Local that reaches nobody": {
        "INIT": "def init(member): return {'w': np.zeros(3), 'n': 0, 'log': phyla.Local(list)}",
        "LOOP": """
for member in population:
    state = member.state(init)
    state["log"].append(1)
    step(member, state)
""",
    },
}


@pytest.mark.parametrize("plan", SOUND)
def test_a_sound_script_is_called_sound_however_it_loops_and_writes_nothing(tmp_path, plan):
    code, found = check_planted(tmp_path, SOUND[plan])
    assert found["same"], found
    assert code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["script.py"]


UNSOUND = {
    "a variable of the module": (
        {
            "LOOP": """
mean, other = 0.0, 0.0
for member in population:
    other = member["lr"]
    mean += member["lr"]
    step(member, member.state(init), mean)
"""
        },
        "the loop carries 'mean' from one member's turn into the next",
    ),
    "a variable of a function": (
        {
            "LOOP": """
def main():
    mean, other = 0.0, 0.0
    for member in population:
        other = member["lr"]
        mean += member["lr"]
        step(member, member.state(init), mean)
main()
"""
        },
        "the loop carries 'mean' from one member's turn into the next",
    ),
    "a global variable that a function changes": (
        {
            "BEFORE": "turns = 0",
            "LOOP": """
def main():
    global turns
    for member in population:
        turns += 1
        step(member, member.state(init), turns)
main()
""",
        },
        "the loop carries 'turns' from one member's turn into the next",
    ),
    "a list": (
        {
            "LOOP": """
seen = []
for member in population:
    seen.append(member.id)
    step(member, member.state(init), len(seen))
"""
        },
        "the loop carries 'seen' from one member's turn into the next",
    ),
    "an attribute of an object": (
        {
            "LOOP": """
class Trainer:
    def __init__(self):
        self.mean = 0.0
        self.other = 0
    def fit(self):
        for member in population:
            self.other += 1
            self.mean += member["lr"]
            step(member, member.state(init), self.mean)
Trainer().fit()
"""
        },
        "the loop carries 'self.mean' from one member's turn into the next",
    ),
    "a generator of its own": (
        {
            "BEFORE": "rng = np.random.default_rng(3)",
            "LOOP": "for member in population: step(member, member.state(init), rng.normal())",
        },
        "does not give the same result twice",
    ),
    "an iterator from before the loop": (
        {
            "BEFORE": "batches = iter(range(1000))",
            "LOOP": "for member in population: step(member, member.state(init), next(batches))",
        },
        "does not give the same result twice",
    ),
    "a clock": (
        {"LOOP": "import time\nfor member in population: step(member, member.state(init), time.time())"},
        "does not give the same result twice",
    ),
    "an unseeded generator in init": (
        {"INIT": "def init(member): return {'w': np.random.default_rng().normal(size=3), 'n': 0}"},
        "init does not make the same state twice for the same member",
    ),
    "a global array in init": (
        {
            "INIT": "shared = np.zeros(3)\ndef init(member): return {'w': shared, 'n': 0}",
            "LOOP": """
for member in population:
    state = member.state(init)
    state["w"] += member["lr"]
    step(member, state)
""",
        },
        "init does not make the same state twice for the same member",
    ),
    "a Local that matters": (
        {
            "INIT": "def init(member): return {'w': np.zeros(3), 'n': 0, 'log': phyla.Local(list)}",
            "LOOP": """
for member in population:
    state = member.state(init)
    state["log"].append(1)
    step(member, state, len(state["log"]))
""",
        },
        "state['log'] is a Local",
    ),
    "a hyperparameter that init takes, with reuse": (
        {
            "INIT": """
class Net:
    def __init__(self, lr):
        self.lr, self.w = lr, np.zeros(3)
    def state_dict(self):
        return {"w": self.w}
    def load_state_dict(self, saved):
        self.w = saved["w"]
def init(member):
    return Net(member["lr"])
""",
            "LOOP": """
for member in population:
    net = member.state(init, reuse=True)
    net.w = net.w + net.lr
    member.report(0.0)
""",
        },
        "reuse=True keeps the objects of one member for all, and 'lr' is taken by init alone",
    ),
}


@pytest.mark.parametrize("plan", UNSOUND)
def test_what_reaches_a_body_is_named(tmp_path, plan):
    parts, cause = UNSOUND[plan]
    code, found = check_planted(tmp_path, parts)
    assert code == 1
    assert cause in found["cause"], found
    assert found["advice"]
    assert any(path.startswith("state") for path in found["differs"])


def check_planted(tmp_path, parts):
    source = FRAME
    for place, code in {"BEFORE": "", "INIT": "", "LOOP": PLAIN, **parts}.items():
        source = source.replace(f"\n{place}\n", f"\n{code}\n")
    (tmp_path / "script.py").write_text(source)
    return check(tmp_path / "script.py", cwd=tmp_path)


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


def test_of_a_body_that_raises_only_the_scripts_own_frames_are_shown(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(
        "import phyla\n"
        "for member in phyla.Population('r', {'lr': phyla.Float(0, 1)}, 4, 2, seed=0):\n"
        "    member.state(lambda member: 1 / 0)\n"
    )
    command = [sys.executable, "-m", "phyla", "check", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert [line for line in lines if not line.startswith("    ")] == [
        "Traceback (most recent call last):",
        f'  File "{path}", line 3, in <module>',
        f'  File "{path}", line 3, in <lambda>',
        "ZeroDivisionError: division by zero",
    ]
