"""A population as one JAX program comes to what its members come to alone, on one device and on two, compiled once."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import phyla
from phyla.errors import SettingsError
from phyla.testing.simulation import outcome
from phyla.vector.jax import Program, train

SPACE = {"lr": phyla.Float(1e-3, 1.0, log=True), "noise": phyla.Float(0.0, 0.1)}


def init(key: Any, hypers: Any) -> Any:
    return {"w": jax.random.normal(key, (4,)), "t": jnp.zeros((), jnp.int32)}


def step(state: Any, hypers: Any, key: Any) -> Any:
    w = state["w"] - hypers["lr"] * (state["w"] - 1) + hypers["noise"] * jax.random.normal(key, (4,))
    return {"w": w, "t": state["t"] + 1}


def evaluate(state: Any, hypers: Any, key: Any) -> Any:
    return -jnp.square(state["w"] - 1).sum()


def population(**given: Any) -> phyla.Population:
    known: dict[str, Any] = {"size": 8, "intervals": 6, "seed": 4, "max_lead": 0, "progress": False, **given}
    known.setdefault("journal", None if "path" in known else "memory")
    return phyla.Population("jax", SPACE, exploit=phyla.Truncation(0.25), **known)


def decisions(run: phyla.Population) -> dict[Any, Any]:
    return {place: values[2:] for place, values in outcome(run.view).items()}


def scores(run: phyla.Population) -> list[float]:
    return [float(r.score) for history in run.view.history for r in history]


def trained(cohort: int | None = None, **given: Any) -> phyla.Population:
    run = population(**given)
    train(run, init, step, evaluate, steps=5, cohort=cohort)
    return run


def test_cohorts_of_any_size_decide_the_same_and_come_to_the_same() -> None:
    alone, some, together = trained(1), trained(3), trained()
    assert decisions(alone) == decisions(some) == decisions(together)
    assert len(alone.run.lineage().copies) > 5
    np.testing.assert_allclose(scores(alone), scores(together), rtol=1e-5)
    for record in together.run.members:
        assert together.run.load(record)["t"] == 30
        assert record.total_steps == 30


def test_nothing_compiles_again_after_the_first_interval() -> None:
    run = population(intervals=12)
    program = Program(init, step, evaluate, steps=5)
    turns = run.cohorts()
    turn = next(turns)
    program.spread(turn.size, None)
    counts = []
    while turn is not None:
        state, found = program(turn)
        turn.report(found, state, steps=5)
        counts.append((program.compilations, program._interval._cache_size()))
        turn = next(turns, None)
    assert set(counts) == {(1, 1)}
    assert run.run.lineage().copies  # new hyperparameters and gathers among them


def test_a_run_that_was_cut_off_ends_with_the_same_decisions(tmp_path: Path) -> None:
    whole = trained()
    first = population(path=tmp_path)
    program = Program(init, step, evaluate, steps=5)
    for turn in first.cohorts():
        program.spread(turn.size, None)
        state, found = program(turn)
        if turn.interval == 3:
            break
        turn.report(found, state, steps=5)
    first.close()
    second = population(path=tmp_path)
    train(second, init, step, evaluate, steps=5)
    assert decisions(second) == decisions(whole)
    np.testing.assert_allclose(scores(second), scores(whole), rtol=1e-5)


def test_a_nan_replaces_its_own_row_alone() -> None:
    def diverges(state: Any, hypers: Any, key: Any) -> Any:
        bad = (state["t"] == 10) & (hypers["lr"] > 0.5)
        return jnp.where(bad, jnp.nan, evaluate(state, hypers, key))

    run = population()
    train(run, init, step, diverges, steps=5)
    replaced = {r.id for history in run.view.history for r in history if r.replaced}
    diverged = {r.id for history in run.view.history for r in history if not r.finite}
    assert diverged
    assert replaced == diverged


def test_samples_and_dicts_of_scores() -> None:
    run = population(intervals=2, metric="score")
    train(run, init, step, lambda s, h, k: {"score": evaluate(s, h, k), "norm": jnp.square(s["w"]).sum()})
    assert all(record.metrics is not None and "norm" in record.metrics for record in run.run.members)
    run = population(intervals=2)
    train(run, init, step, lambda s, h, k: evaluate(s, h, k) + jax.random.normal(k, (7,)))
    assert all(record.samples is not None and len(record.samples) == 7 for record in run.run.members)


def test_devices_that_do_not_divide_a_cohort() -> None:
    with pytest.raises(SettingsError, match="a cohort of 3 members cannot be spread evenly over 2 devices"):
        Program(init, step, evaluate).spread(3, [jax.devices()[0]] * 2)


TWO = """
    import json, sys
    sys.path.insert(0, TESTS)
    import jax, numpy as np, test_vector_jax as t
    from phyla.vector.jax import Program
    run = t.population()
    program = Program(t.init, t.step, t.evaluate, steps=5)
    for turn in run.cohorts():
        program.spread(turn.size, jax.devices() if "two" in sys.argv else jax.devices()[:1])
        state, found = program(turn)
        places = len(state["w"].sharding.device_set)
        turn.report(found, state, steps=5)
    print(json.dumps([places, t.scores(run), sorted(map(repr, t.decisions(run).items()))]))
"""


def test_two_devices_give_what_one_gives(tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(textwrap.dedent(TWO).replace("TESTS", repr(str(Path(__file__).parent))))
    env = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "PATH": "/usr/bin:/bin", "JAX_PLATFORMS": "cpu"}
    env |= {"PYTHONPATH": str(Path(phyla.__file__).parent.parent)}
    one, two = (
        json.loads(
            subprocess.run([sys.executable, script, n], env=env, capture_output=True, check=True, text=True).stdout
        )
        for n in ("one", "two")
    )
    assert (one[0], two[0]) == (1, 2)
    assert one[2] == two[2]
    np.testing.assert_allclose(one[1], two[1], rtol=1e-5)
