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
from phyla.doctor import examine
from phyla.errors import CheckpointError, SettingsError
from phyla.events import RUN, SpaceChanged
from phyla.space import describe
from phyla.testing.simulation import outcome
from phyla.vector import moves
from phyla.vector.jax import Program, train

jax.config.update(
    "jax_disable_most_optimizations", True
)  # these programs are small, and compile in a third of the time

SPACE = {"lr": phyla.Float(1e-3, 1.0, log=True), "noise": phyla.Float(0.0, 0.1)}


ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "JAX_PLATFORMS": "cpu",
    "PYTHONPATH": str(Path(phyla.__file__).parent.parent),
}


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
    if "strategy" not in known:
        known.setdefault("exploit", phyla.Truncation(0.25))
    return phyla.Population("jax", known.pop("space", SPACE), **known)


def decisions(run: phyla.Population) -> dict[Any, Any]:
    return {place: values[2:] for place, values in outcome(run.view).items()}


def scores(run: phyla.Population) -> list[float]:
    return [float(r.score) for history in run.view.history for r in history]


def trained(
    cohort: int | None = None, span: int = 1, fused: bool = False, score: Any = evaluate, **given: Any
) -> phyla.Population:
    run = population(**given)
    train(run, init, step, score, steps=5, cohort=cohort, span=span, fused=fused)
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
    counts = set()
    for turn in run.cohorts():
        program.spread(turn.size, None)
        program.train_interval(turn)
        counts.add((program.compilations, program._interval._cache_size()))
    assert counts == {(1, 1)}
    assert run.run.lineage().copies  # new hyperparameters and gathers among them


def test_a_run_that_was_cut_off_ends_with_the_same_decisions(tmp_path: Path) -> None:
    whole = trained()
    first = population(path=tmp_path)
    program = Program(init, step, evaluate, steps=5)
    for turn in first.cohorts():
        program.spread(turn.size, None)
        if turn.interval == 3:
            break
        program.train_interval(turn)
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


# Fused: exploit and explore are part of the program -----------------------------------------------------------------

EVERYTHING = {
    **SPACE,
    "low": phyla.Float(0.0, 0.5),  # the step away from zero
    "discount": phyla.Float(0.9, 0.999, log="1-x"),
    "count": phyla.Int(0, 7),
    "batch": phyla.Int(1, 512, log=True),
    "width": phyla.Choice(1, 2, 4, ordered=True),
    "kind": phyla.Choice("a", "b", None),
}


def problems(run: phyla.Population) -> list[Any]:
    worker = run._worker
    assert worker is not None
    return list(examine(list(worker.journal.read(0)), worker.checkpoints, worker.strategy))


@pytest.mark.parametrize(
    ("span", "explore"), [(2, phyla.Perturb()), (5, phyla.Perturb(1, 0.3, 3, resample=0.3)), (20, None)]
)
def test_fused_it_decides_as_the_worker_does(span: int, explore: Any) -> None:
    known = {"space": EVERYTHING, "explore": explore, "intervals": 14, "ready": 2, "burn_in": 3}
    asked, fused = trained(**known), trained(span=span, fused=True, **known)
    assert decisions(fused) == decisions(asked)
    assert sum(r.donor is not None for r in fused.view.records.values()) > 8
    np.testing.assert_allclose(scores(fused), scores(asked), rtol=1e-4, atol=1e-6)
    assert not problems(fused)


def test_fused_minimising_and_by_a_metric() -> None:
    def measure(state: Any, hypers: Any, key: Any) -> Any:
        return {"loss": -evaluate(state, hypers, key), "t": state["t"]}

    known = {"score": measure, "metric": "loss", "mode": "min", "intervals": 9}
    asked, fused = trained(**known), trained(span=4, fused=True, **known)
    assert decisions(fused) == decisions(asked)
    assert len(fused.run.lineage().copies) > 5
    assert [r.metrics["t"] for r in fused.view.history[0] if r.metrics] == [5.0 * n for n in range(1, 10)]


def test_fused_random_search_copies_nobody() -> None:
    fused = trained(span=3, fused=True, exploit=None)
    assert decisions(fused) == decisions(trained(exploit=None))
    assert not fused.run.lineage().copies


def test_a_fused_span_ends_where_a_score_is_not_finite_and_the_worker_replaces_that_member() -> None:
    def diverges(state: Any, hypers: Any, key: Any) -> Any:
        return jnp.where((state["t"] == 15) & (hypers["lr"] > 0.3), jnp.nan, evaluate(state, hypers, key))

    asked, fused = trained(score=diverges), trained(span=6, fused=True, score=diverges)
    assert any(r.replaced for r in fused.view.records.values())
    assert decisions(fused) == decisions(asked)
    saved = {r.interval for r in fused.view.records.values() if r.checkpoint.saved}
    assert saved == {3, 6}
    assert not problems(fused)


def test_a_fused_span_is_one_append_and_one_checkpoint() -> None:
    fused = trained(span=4, fused=True, intervals=8)
    worker = fused._worker
    assert worker is not None
    assert len(worker.checkpoints.files()) == 2
    kinds = [recorded.event.kind for recorded in worker.journal.read(0)]
    first = kinds.index("claimed")
    assert kinds[first : first + 16] == ["claimed"] * 8 + ["reported"] * 8
    assert len(fused.view.records) == 8 * 8
    assert fused.best is not None
    assert fused.best.checkpoint.saved
    for record in fused.view.records.values():
        assert (record.span, record.steps) == (1, 5)
        assert record.freed is not (record.interval in (4, 8))
    assert fused.run.schedule(fused.best).total == fused.best.interval * 5
    with pytest.raises(CheckpointError, match=r"interval 1: .* was trained amid a span, and its state was not saved"):
        fused.run.load(fused.view.history[0][0])


@pytest.mark.parametrize("fused", [False, True])
def test_the_device_holds_at_most_little_more_than_two_states(fused: bool) -> None:
    def start(key: Any, hypers: Any) -> Any:
        return {"w": jax.random.normal(key, (20_000,)), "m": jnp.zeros(20_000)}

    def move(state: Any, hypers: Any, key: Any) -> Any:
        mean = 0.9 * state["m"] + 0.1 * state["w"]
        return {"w": state["w"] - hypers["lr"] * mean, "m": mean}

    run = population()
    program = Program(start, move, lambda s, h, k: -jnp.abs(s["w"]).max(), steps=5, span=4)
    turn = next(run.cohorts(span=4 if fused else 1, ahead=fused))
    program.spread(turn.size, None)
    stack, rows = turn.rows(program._fresh, batched=True)
    if fused:
        ahead = turn.ahead()
        draws, known = moves.given(ahead, 4), (4, ahead.donors, tuple(ahead.space.items()))
        lowered = program._intervals.lower(stack, rows, turn.hypers, draws, *known)
    else:
        lowered = program._interval.lower(stack, rows, turn.hypers, turn.seeds)
    used = lowered.compile().memory_analysis()
    peak = used.argument_size_in_bytes + used.output_size_in_bytes + used.temp_size_in_bytes - used.alias_size_in_bytes
    assert peak < 2.2 * sum(leaf.nbytes for leaf in jax.tree.leaves(stack))


def test_a_fused_program_is_compiled_once() -> None:
    run = population(intervals=11)
    program, counts = Program(init, step, evaluate, steps=5, span=4), set()
    for turn in run.cohorts(span=4, ahead=True):
        program.spread(turn.size, None)
        program.train_span(turn)
        counts.add((program.compilations, program._intervals._cache_size()))
    assert counts == {(1, 1)}  # the last span has three intervals
    assert run.run.lineage().copies


@pytest.mark.parametrize("changed", [False, True])
def test_the_next_span_is_begun_before_this_one_is_written_and_dropped_if_something_else_is_claimed(
    monkeypatch: pytest.MonkeyPatch, changed: bool
) -> None:
    run, begun = population(intervals=12), []
    program = Program(init, step, evaluate, steps=5, span=3)
    begin = program._begin
    monkeypatch.setattr(program, "_begin", lambda ahead, *given: begun.append(ahead) or begin(ahead, *given))
    narrow = {**SPACE, "lr": phyla.Float(1e-3, 0.05, log=True)}
    for turn in run.cohorts(span=3, ahead=True):
        program.spread(turn.size, None)
        worker = run._worker
        assert worker is not None
        if changed and turn.interval == 4:
            seq = worker.view.run_head + 1
            worker.journal.append(SpaceChanged(member=RUN, seq=seq, space=describe(narrow), first=7))
        program.train_span(turn)
    assert len(begun) == 4 + changed
    assert all(r.hypers["lr"] <= 0.05 for r in run.view.records.values() if changed and r.interval >= 7)
    assert not problems(run)
    if not changed:
        assert decisions(run) == decisions(trained(intervals=12))


FUSED_SCRIPT = """
    import sys
    sys.path.insert(0, TESTS)
    import test_vector_jax as t
    t.trained(span=3, fused=True, intervals=12, path=PATH)
"""


@pytest.mark.parametrize(
    "point",
    [
        "publish.trained:crash:2",
        *(pytest.param(point, marks=pytest.mark.slow) for point in ("save.half:crash:3", "publish.appended:crash:2")),
    ],
)
def test_a_process_that_is_killed_amid_fused_spans_resumes_from_the_last_one(tmp_path: Path, point: str) -> None:
    script = tmp_path / "fused.py"
    known = f"TESTS, PATH = {str(Path(__file__).parent)!r}, {str(tmp_path / 'run')!r}"
    script.write_text(known + textwrap.dedent(FUSED_SCRIPT))
    killed = subprocess.run([sys.executable, script], env=ENVIRONMENT | {"PHYLA_FAILPOINT": point}, capture_output=True)
    assert killed.returncode == -9, killed.stderr.decode()
    before = len(phyla.open(tmp_path / "run" / "jax").view.records)
    assert 0 < before < 8 * 12
    subprocess.run([sys.executable, script], env=ENVIRONMENT, capture_output=True, check=True)
    resumed, whole = population(path=tmp_path / "run", intervals=12), trained(intervals=12)
    assert decisions(resumed) == decisions(whole)
    np.testing.assert_allclose(scores(resumed), scores(whole), rtol=1e-4, atol=1e-6)
    resumed.close()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"exploit": phyla.Tournament()}, r"exploit=Tournament\(\) cannot be decided within a program"),
        ({"explore": phyla.Gaussian(0.1)}, r"explore=Gaussian\(0.1\) cannot be decided"),
        ({"strategy": phyla.PB2()}, r"strategy=PB2\(.* cannot be decided"),
        ({"inherit": "weights"}, "inherit='weights' cannot be decided"),
        (
            {"space": {"lr": phyla.Float(-1.0, 1.0)}},
            r"space\['lr'\] = Float\(-1.0, 1.0\), which may leave zero in either",
        ),
        ({"cohort": 4}, "cohorts of 4: who decides ahead must see the whole population, 8"),
    ],
)
def test_what_cannot_be_fused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        trained(span=2, fused=True, **given)


def test_fused_scores_must_be_one_number_a_member() -> None:
    with pytest.raises(SettingsError, match="expected `evaluate` to give a scalar"):
        trained(span=2, fused=True, score=lambda s, h, k: s["w"])


@pytest.mark.parametrize(
    "h",
    [
        *(h for name, h in EVERYTHING.items() if name != "kind"),
        *(phyla.Float(-2.0, 0.0), phyla.Int(-9, 0), phyla.Int(3, 3), phyla.Int(0, 1)),
        *(phyla.Choice(1, 2, ordered=True), phyla.Choice("only", ordered=True)),
    ],
    ids=repr,
)
def test_moves_are_those_of_the_space(h: Any) -> None:
    rng = np.random.default_rng(0)
    edges = [h.decode(0.0), h.decode(1.0), *([0] if not isinstance(h, phyla.Choice) and h.low <= 0 <= h.high else [])]
    values = [h.clip(value) for value in (*edges, *edges, *(h.sample(rng) for _ in range(300)))]
    factors = rng.choice([0.3, 0.8, 1.0, 1.2, 3.0], len(values))
    expected = [h.scale(value, float(factor), rng) for value, factor in zip(values, factors, strict=True)]
    if isinstance(h, phyla.Choice):
        values, expected = [h.index(value) for value in values], [h.index(value) for value in expected]
    dtype = jnp.float32 if isinstance(h, phyla.Float) else jnp.int32
    moved = moves.scale(h, jnp.array(values, dtype), jnp.array(factors, jnp.float32))
    np.testing.assert_allclose(moved, expected, rtol=1e-6, atol=0 if dtype is jnp.int32 else 1e-7)


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
    program = Program(t.init, t.step, t.evaluate, steps=5, span=SPAN)
    for turn in run.cohorts(span=SPAN, ahead=FUSED):
        program.spread(turn.size, jax.devices() if "two" in sys.argv else jax.devices()[:1])
        state = program.train_span(turn) if FUSED else program.train_interval(turn)
    places = len(state["w"].sharding.device_set)
    print(json.dumps([places, t.scores(run), sorted(map(repr, t.decisions(run).items()))]))
"""


@pytest.mark.parametrize("span", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_two_devices_give_what_one_gives(tmp_path: Path, span: int) -> None:
    script = tmp_path / "two.py"
    known = f"TESTS, SPAN, FUSED = {str(Path(__file__).parent)!r}, {span}, {span > 1}"
    script.write_text(known + textwrap.dedent(TWO))
    env = {**ENVIRONMENT, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    one, two = (
        json.loads(
            subprocess.run([sys.executable, script, n], env=env, capture_output=True, check=True, text=True).stdout
        )
        for n in ("one", "two")
    )
    assert (one[0], two[0]) == (1, 2)
    assert one[2] == two[2]
    np.testing.assert_allclose(one[1], two[1], rtol=1e-5)
