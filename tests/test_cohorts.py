"""Cohorts: members that train together, as rows of stacked arrays, and come to what they would come to alone."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import phyla
from phyla.doctor import examine
from phyla.errors import LoopError, ScoreError, SettingsError, StateError
from phyla.events import RUN, Claimed, Extended, Paused, Recorded, Reported
from phyla.testing.simulation import outcome

SPACE = {"lr": phyla.Float(1e-3, 1.0, log=True), "n": phyla.Int(1, 9), "act": phyla.Choice("tanh", "relu", None)}


def population(path: Path | None = None, **given: Any) -> phyla.Population:
    known: dict[str, Any] = {
        **{"size": 6, "intervals": 8, "seed": 3, "max_lead": 0, "progress": False, "exploit": phyla.Truncation(0.3)},
        **({"path": path} if path is not None else {"journal": "memory"}),
        **given,
    }
    return phyla.Population("cohorts", space=SPACE, **known)


def init(newborn: Any) -> dict[str, Any]:
    return {"w": np.random.default_rng(newborn.seed).normal(size=3), "t": np.zeros((), np.int64)}


def step(state: dict[str, Any], cohort: phyla.Cohort) -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
    noise = np.stack([np.random.default_rng(int(seed)).normal(size=3) for seed in cohort.seeds])
    pull = cohort.hypers["lr"][:, None] * (1 + cohort.hypers["act"][:, None]) / 4
    w = state["w"] - pull * (state["w"] - 1) + 0.01 * cohort.hypers["n"][:, None] * noise
    return {"w": w, "t": state["t"] + 1}, -((w - 1) ** 2).sum(-1)


def train(run: phyla.Population, size: int | None = None, **given: Any) -> phyla.Population:
    for cohort in run.cohorts(size, **given):
        state, scores = step(cohort.state(init), cohort)
        cohort.report(scores, state, steps=10)
    return run


def decisions(run: phyla.Population) -> dict[Any, Any]:
    """What was decided and what it came to, whatever files it lies in."""
    return {place: values[1:] for place, values in outcome(run.view).items()}


def events(run: phyla.Population) -> list[Recorded]:
    return [Recorded(position, event) for position, event in enumerate(run.run.events(), 1)]


# Sameness -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3, 4, 6, None])
def test_cohorts_of_any_size_decide_the_same_and_train_the_same(size: int | None) -> None:
    alone, together = train(population(), 1), train(population(), size)
    assert decisions(together) == decisions(alone)
    assert len(together.run.lineage().copies) > 5
    for member in range(6):
        one, other = alone.view.newest(member), together.view.newest(member)
        assert one is not None
        assert other is not None
        np.testing.assert_array_equal(alone.run.load(one)["w"], together.run.load(other)["w"])


def test_a_cohort_has_one_checkpoint_an_interval_and_every_member_its_row(tmp_path: Path) -> None:
    run = train(population(tmp_path), 4)
    reports = [event for event in run.run.events() if isinstance(event, Reported)]
    assert len({report.checkpoint.file for report in reports}) == 2 * 8
    assert {report.checkpoint.row for report in reports} == {0, 1, 2, 3}
    for record in run.run.members:
        tree = run.run.load(record)
        assert tree["w"].shape == (3,)
        assert tree["t"] == 8
        assert record.score == pytest.approx(-((tree["w"] - 1) ** 2).sum())
    assert list(examine(events(run), run.run.checkpoints, phyla.Evolve(phyla.Truncation(0.3), phyla.Perturb()))) == []


def test_a_run_goes_on_from_its_checkpoints_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    whole = train(population())
    first = population(tmp_path)
    for turn, cohort in enumerate(first.cohorts(4)):
        state, scores = step(cohort.state(init), cohort)
        if turn == 9:
            break
        cohort.report(scores, state, steps=10)
    first.close()
    second = train(population(tmp_path), 4)
    assert decisions(second) == decisions(whole)


def test_two_cohorts_in_two_populations_of_one_run_exchange_through_the_journal(tmp_path: Path) -> None:
    """As two processes would, each with every other cohort."""
    workers = [population(tmp_path), population(tmp_path)]
    loops = [worker.cohorts(3) for worker in workers]
    turns = [next(loop) for loop in loops]
    assert [list(turn.ids) for turn in turns] in ([[0, 1, 2], [3, 4, 5]], [[3, 4, 5], [0, 1, 2]])
    for _ in range(8):
        for place, _loop in enumerate(loops):
            state, scores = step(turns[place].state(init), turns[place])
            turns[place].report(scores, state, steps=10)
            if place == 1 or turns[place].interval == 8:
                continue
        turns = [turn for loop in loops if (turn := next(loop, None)) is not None]
        if not turns:
            break
    assert decisions(workers[0]) == decisions(train(population(), 1))


def test_a_donor_outside_the_cohort_comes_from_wherever_it_lies() -> None:
    run = train(population(), 3)
    crossed = [c for c in run.run.lineage().copies if c.member // 3 != c.donor.id // 3]
    assert crossed


# Ahead: a program decides amid a span -----------------------------------------------------------------------------------


def train_ahead(run: phyla.Population, span: int) -> phyla.Population:
    """A program in NumPy that trains and decides by itself."""
    for cohort in run.cohorts(span=span, ahead=True):
        ahead, state = cohort.ahead(), cohort.state(init)
        hypers = cohort.given
        scores, sources = [], []
        for j in range(len(ahead.seeds)):
            source = ahead.sources(j, np.array(scores[-1])) if j else np.arange(cohort.size)
            hypers = [
                hypers[row] if one == row else ahead.explored(j, row, hypers[one]) for row, one in enumerate(source)
            ]
            inner = SimpleNamespace(
                hypers={name: np.array([_number(name, one[name]) for one in hypers], np.float32) for name in SPACE},
                seeds=ahead.seeds[j],
            )
            state, found = step({name: array[source] for name, array in state.items()}, inner)  # type: ignore[arg-type]
            scores.append(found)
            sources.append(source)
            if not np.isfinite(found).all():
                break
        cohort.report_ahead(np.array(scores), cohort.decided(ahead, sources), state, steps=10)
    return run


def _number(name: str, value: Any) -> float:
    h = SPACE[name]
    return h.index(value) if isinstance(h, phyla.Choice) else value


@pytest.mark.parametrize("given", [{}, {"ready": 3, "burn_in": 2}, {"explore": None}, {"exploit": None}])
@pytest.mark.parametrize("span", [1, 3, 8])
def test_who_decides_ahead_decides_the_same(span: int, given: dict[str, Any]) -> None:
    asked, ahead = train(population(**given)), train_ahead(population(**given), span)
    assert decisions_alone(ahead) == decisions_alone(asked)
    assert not list(examine(events(ahead), None, ahead._arguments.strategy))
    np.testing.assert_allclose(
        [r.score for r in ahead.view.records.values()], [r.score for r in asked.view.records.values()], rtol=1e-6
    )


def decisions_alone(run: phyla.Population) -> dict[Any, Any]:
    return {(r.id, r.interval): (r.hypers, r.source, r.donor, r.ready, r.replaced) for r in run.view.records.values()}


def test_what_stands_amid_a_span_is_restored_by_nobody_and_is_never_the_best(tmp_path: Path) -> None:
    run = train_ahead(population(tmp_path, keep=2), 4)
    assert run.best is not None
    assert run.best.checkpoint.saved
    assert {path.name for path in (tmp_path / "cohorts" / "checkpoints").iterdir()} == {
        "m0-8.safetensors",
        "m0-16.safetensors",
    }
    (tmp_path / "cohorts" / "checkpoints" / "m0-16.safetensors").unlink()
    worker = run._worker
    assert worker is not None
    worker.journal.append(Extended(member=RUN, seq=worker.view.run_head + 1, intervals=10))
    again = population(tmp_path, intervals=10, keep=2)
    for cohort in again.cohorts():
        assert cohort.interval >= 5  # the last span is trained anew, from the one before
        state, scores = step(cohort.state(init), cohort)
        cohort.report(scores, state)
    assert again.view.done.tolist() == [10] * 6
    assert sum(record.void for record in again.view.records.values()) == 6


def test_another_event_may_come_between_the_claims_and_the_append_of_a_span() -> None:
    run = population(intervals=4)
    turns = run.cohorts(span=4, ahead=True)
    cohort = next(turns)
    worker = run._worker
    assert worker is not None
    ahead, state = cohort.ahead(), cohort.state(init)
    worker.journal.append(Paused(member=RUN, seq=run.view.run_head + 1))
    scores, sources = np.arange(24.0).reshape(4, 6), np.tile(np.arange(6), (4, 1))
    sources[1:] = [ahead.sources(j, scores[j - 1]) for j in range(1, 4)]
    cohort.report_ahead(scores, cohort.decided(ahead, sources), state)
    assert run.view.done.tolist() == [4] * 6
    assert any(r.donor is not None for r in run.view.records.values())
    assert not list(examine(events(run), None, run._arguments.strategy))


def test_ahead_must_be_asked_for_and_takes_no_samples() -> None:
    cohort = next(population().cohorts())
    with pytest.raises(LoopError, match=r"population\.cohorts\(ahead=True\)"):
        cohort.ahead()
    cohort = next(population().cohorts(span=2, ahead=True))
    ahead = cohort.ahead()
    with pytest.raises(ScoreError, match="samples"):
        cohort.report_ahead(np.zeros((2, 6, 5)), cohort.decided(ahead, np.zeros((2, 6), int)), cohort.state(init))


# What a cohort says of its members ------------------------------------------------------------------------------------


def test_hyperparameters_are_arrays_and_choices_are_places_among_their_values() -> None:
    run = population()
    cohort = next(run.cohorts())
    assert {name: array.dtype for name, array in cohort.hypers.items()} == {
        "lr": np.float32, "n": np.int32, "act": np.int32
    }  # fmt: skip
    assert cohort.choices == {"act": ("tanh", "relu", None)}
    for row, member in enumerate(cohort.ids):
        born = run.view.born[member]
        assert born is not None
        assert cohort.hypers["lr"][row] == np.float32(born.hypers["lr"])
        assert cohort.hypers["n"][row] == born.hypers["n"]
        assert cohort.choices["act"][cohort.hypers["act"][row]] == born.hypers["act"]
    run.close()


def test_one_and_true_are_different_choices() -> None:
    run = phyla.Population("c", space={"x": phyla.Choice(1, True, 1.0)}, size=9, intervals=1, journal="memory", seed=0)
    cohort = next(run.cohorts())
    for row, member in enumerate(cohort.ids):
        born = run.view.born[member]
        assert born is not None
        assert type(cohort.choices["x"][cohort.hypers["x"][row]]) is type(born.hypers["x"])
    run.close()


def test_seeds_are_the_members_own_and_new_in_every_interval() -> None:
    alone = population()
    seeds = {}
    for member in alone:
        seeds[member.id, member.interval] = member.seed
        member.report(0.0, {}, steps=0)
        if member.interval == 2:
            break
    alone.close()
    run = population()
    for cohort in run.cohorts():
        assert cohort.seeds.dtype == np.uint32
        for row, member in enumerate(cohort.ids):
            assert seeds.get((int(member), cohort.interval), cohort.seeds[row]) == cohort.seeds[row]
        cohort.report(np.zeros(6), {})
        if cohort.interval == 2:
            break
    run.close()


def test_the_last_cohort_is_padded_and_what_is_reported_for_padding_is_dropped() -> None:
    run = population(size=5, intervals=2)
    seen = []
    for cohort in run.cohorts(3):
        seen.append((cohort.ids.tolist(), cohort.valid.tolist()))
        state, scores = step(cohort.state(init), cohort)
        scores[~cohort.valid] = 1e9
        cohort.report(scores, state)
    assert seen[:2] in (
        [([0, 1, 2], [True] * 3), ([3, 4, 3], [True, True, False])],
        [([3, 4, 3], [True, True, False]), ([0, 1, 2], [True] * 3)],
    )
    assert run.best is not None
    assert run.best.score is not None
    assert run.best.score < 0


def test_copied_says_who_goes_on_from_anothers_weights() -> None:
    run = population()
    copied = set()
    for cohort in run.cohorts():
        copied |= {(int(m), cohort.interval) for m in cohort.ids[cohort.copied]}
        state, scores = step(cohort.state(init), cohort)
        cohort.report(scores, state)
    assert copied == {(copy.member, copy.interval) for copy in run.run.lineage().copies}


# NaN, spans, samples --------------------------------------------------------------------------------------------------


def test_a_nan_replaces_that_row_alone() -> None:
    run = population(exploit=None)
    for cohort in run.cohorts():
        state, scores = step(cohort.state(init), cohort)
        if cohort.interval == 3:
            scores[2] = math.nan
            state["w"][2] = math.nan
        cohort.report(scores, state)
    replaced = [r for history in run.view.history for r in history if r.replaced]
    assert [(r.id, r.interval) for r in replaced] == [(2, 4)]
    newest = run.view.newest(2)
    assert newest is not None
    assert np.isfinite(run.run.load(newest)["w"]).all()
    assert run.run.load(newest)["t"] == 5  # born again after three


def test_a_span_is_one_claim_and_one_checkpoint_and_runs_the_body_for_each_interval() -> None:
    run = population(ready=4)
    bodies = []
    for cohort in run.cohorts(span=2):
        bodies.append(cohort.interval)
        state, scores = step(cohort.state(init), cohort)
        cohort.report(scores, state, steps=10)
    assert bodies == [1, 2, 3, 4, 5, 6, 7, 8]
    claims = [event for event in run.run.events() if isinstance(event, Claimed)]
    assert {(claim.interval, claim.span) for claim in claims} == {(1, 2), (3, 2), (5, 2), (7, 2)}
    for record in run.run.members:
        assert record.total_steps == 80
        assert run.run.load(record)["t"] == 8
    assert decisions(train(population(ready=4))).keys() > decisions(run).keys()


def test_a_span_comes_to_what_single_intervals_come_to() -> None:
    spanned, single = train(population(ready=4), span=2), train(population(ready=4))
    for place, found in decisions(spanned).items():
        assert decisions(single)[place][:2] == found[:2]  # scores and hyperparameters


def test_samples_are_rows_of_numbers_and_their_means_rank() -> None:
    run = population(intervals=2, window=100)
    for cohort in run.cohorts():
        state, scores = step(cohort.state(init), cohort)
        cohort.report(np.stack([scores, scores + 1, scores + 2], axis=1), state)
    first = run.view.history[0][0]
    assert first.samples is not None
    assert len(first.samples) == 3
    assert first.score == pytest.approx(np.mean(first.samples))


def test_a_dict_of_arrays_is_split_by_member() -> None:
    run = population(intervals=1, metric="score")
    for cohort in run.cohorts():
        state, scores = step(cohort.state(init), cohort)
        cohort.report({"score": scores, "other": scores * 2}, state, metrics={"lr": cohort.hypers["lr"], "k": 7})
    for record in run.run.members:
        assert record.score is not None
        assert record.metrics is not None
        assert record.metrics["other"] == pytest.approx(2 * record.score)
        assert record.metrics["lr"] == pytest.approx(record.hypers["lr"])
        assert record.metrics["k"] == 7


# Frameworks -----------------------------------------------------------------------------------------------------------


def test_torch_states_stay_tensors_and_follow_their_donors(tmp_path: Path) -> None:
    def fresh(newborn: Any) -> dict[str, Any]:
        return {"w": torch.full((2,), float(newborn.id)), "t": torch.zeros((), dtype=torch.int64)}

    run = population(tmp_path)
    for cohort in run.cohorts():
        state = cohort.state(fresh)
        assert isinstance(state["w"], torch.Tensor)
        state["w"] += torch.from_numpy(cohort.hypers["lr"])[:, None]
        cohort.report(state["w"].sum(1), {"w": state["w"], "t": state["t"] + 1})
    for record in run.run.members:
        root = record.ancestry()[0].id
        walked = sum(np.float32(r.hypers["lr"]) for r in record.ancestry())
        np.testing.assert_allclose(run.run.load(record)["w"], root + walked, rtol=1e-5)


def test_batched_init_is_called_once_with_arrays() -> None:
    calls = []

    def fresh(newborns: Any) -> dict[str, Any]:
        calls.append((newborns.ids.tolist(), newborns.seeds.dtype))
        return {"w": np.stack([np.random.default_rng(int(s)).normal(size=3) for s in newborns.seeds]), "t": np.zeros(6)}

    run = population(intervals=2)
    for cohort in run.cohorts():
        state, scores = step(cohort.state(fresh, batched=True), cohort)
        cohort.report(scores, state)
    assert calls == [([0, 1, 2, 3, 4, 5], np.uint32)]
    single = train(population(intervals=2))
    assert [r.score for r in run.run.members] == [r.score for r in single.run.members]


# Bad input ------------------------------------------------------------------------------------------------------------


def test_a_cohort_larger_than_the_population() -> None:
    with pytest.raises(SettingsError, match="cohorts of 7: the population has 6 members"):
        population().cohorts(7)


@pytest.mark.parametrize("size", [0, -1, 2.0, True, "all"])
def test_a_cohort_of_a_strange_size(size: Any) -> None:
    with pytest.raises(SettingsError, match="expected a whole number from 1"):
        population().cohorts(size)


def test_a_span_that_does_not_divide_ready() -> None:
    with pytest.raises(SettingsError, match="span=2 does not divide ready=3"):
        population(ready=3).cohorts(2, span=2)
    population(ready=3).cohorts(span=2)  # the whole population may


def test_a_structural_hyperparameter() -> None:
    space = {"width": phyla.Int(1, 9, structural=True), "lr": phyla.Float(0.0, 1.0)}
    run = phyla.Population("c", space=space, size=2, intervals=1, journal="memory")
    with pytest.raises(SettingsError, match="'width': structural hyperparameters shape the state"):
        run.cohorts()


@pytest.mark.parametrize("scores", [np.zeros(5), np.zeros((6, 2, 2)), 0.5, np.zeros((1, 6))])
def test_scores_of_the_wrong_shape(scores: Any) -> None:
    run = population()
    cohort = next(run.cohorts())
    state = cohort.state(init)
    with pytest.raises(ScoreError, match=r"expected \[6\], one for each member, or samples, \[6, E\]"):
        cohort.report(scores, state)
    run.close()


def test_scores_that_are_no_numbers() -> None:
    run = population()
    cohort = next(run.cohorts())
    state = cohort.state(init)
    with pytest.raises(ScoreError, match="expected numbers"):
        cohort.report(["good"] * 6, state)
    run.close()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: {**s, "w": s["w"][:5]}, r"state\['w'\] has the shape \[5, 3\]: expected \[6, ...\]"),
        (lambda s: {**s, "w": s["w"][0, 0]}, r"state\['w'\] is .*: a cohort's state is of arrays"),
        (lambda s: {**s, "k": 3}, r"state\['k'\] is .*: a cohort's state is of arrays"),
    ],
)
def test_leaves_without_the_leading_axis(spoil: Any, message: str) -> None:
    run = population()
    cohort = next(run.cohorts())
    state, scores = step(cohort.state(init), cohort)
    with pytest.raises(StateError, match=message):
        cohort.report(scores, spoil(state))
    run.close()


def test_states_of_different_shapes_cannot_be_stacked() -> None:
    run = population()
    cohort = next(run.cohorts())
    with pytest.raises(StateError, match="differ in shape"):
        cohort.state(lambda newborn: {"w": np.zeros(1 + newborn.id)})
    run.close()


def test_reporting_twice_and_asking_after_the_report() -> None:
    run = population()
    cohort = next(run.cohorts())
    state, scores = step(cohort.state(init), cohort)
    cohort.report(scores, state)
    with pytest.raises(LoopError, match="the cohort of members 0 to 5 has reported interval 1 already"):
        cohort.report(scores, state)
    with pytest.raises(LoopError, match="ask for the state once"):
        cohort.state(init)
    run.close()


def test_a_body_without_a_report_fails_the_whole_cohort(caplog: pytest.LogCaptureFixture) -> None:
    run = population(retries=0)
    loop = run.cohorts(3)
    next(loop).state(init)
    with pytest.raises(LoopError, match=r"ended without calling cohort\.report"):
        next(loop)
    assert "call cohort.report at its end" in caplog.text


def test_phyla_check_says_that_it_does_not_know_cohorts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phyla.Population, "checker", lambda population: iter(()))
    with pytest.raises(LoopError, match="does not know cohorts"):
        population().cohorts()
