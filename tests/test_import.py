"""What it costs to have phyla: time to import, what comes with it, and memory."""

import subprocess
import sys

FOREIGN = ("torch", "jax", "matplotlib", "rich", "cyclopts", "pandas", "IPython", "sqlalchemy")


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_importing_phyla_loads_no_framework():
    loaded = run("import sys, phyla; print(*sys.modules)").split()
    assert not set(FOREIGN) & set(loaded)


def test_importing_phyla_is_quick():
    clock = "import time; t = time.process_time(); import phyla; print(time.process_time() - t)"
    seconds = sorted(float(run(clock)) for _ in range(5))
    assert seconds[0] < 0.3, seconds  # CPU seconds of the best of five: what a busy machine adds is not ours


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
