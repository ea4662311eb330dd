"""What it costs to have phyla: time to import, what comes with it, and memory."""

import subprocess
import sys

import pytest

import phyla

FOREIGN = ("torch", "jax", "matplotlib", "rich", "cyclopts", "pandas", "IPython", "sqlalchemy")


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_phyla_loads_no_framework():
    loaded = run("import sys, phyla; print(*sys.modules)").split()
    assert not set(FOREIGN) & set(loaded)


def test_importing_phyla_loads_no_strategy_that_is_not_asked_for():
    loaded = run("import sys, phyla; print(*sys.modules)").split()
    assert "phyla.strategies.pb2" not in loaded
    assert set(phyla.__all__) <= set(dir(phyla))
    assert all(getattr(phyla, name) is not None for name in phyla.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'PB3'"):
        phyla.PB3  # noqa: B018


def test_importing_phyla_is_quick():
    """Measured by what NumPy costs: 0.1 s on a usual machine, where `import phyla` is to take less than 0.3 s."""
    clock = "import time; t = time.process_time(); import {}; print(time.process_time() - t)"
    pairs = [(float(run(clock.format("numpy"))), float(run(clock.format("phyla")))) for _ in range(5)]
    numpy, phyla_s = (min(column) for column in zip(*pairs, strict=True))
    assert phyla_s < 3 * numpy, pairs


def test_a_worker_costs_less_than_60_mb_beyond_python_and_numpy(tmp_path):
    peak = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)"
    bare = float(run(f"import numpy; {peak}"))
    script = f"""
import numpy as np, phyla
space = {{"lr": phyla.Float(0.1, 1.0)}}
population = phyla.Population("m", space, size=8, intervals=40, path={str(tmp_path)!r}, progress=False)
for member in population:
    w = member.state(lambda newborn: np.zeros(1000)) + member["lr"]
    member.report(-float(w.sum()), w)
{peak}"""
    assert float(run(script)) - bare < 60
