"""MO-PBT: who copies whom, the front that is kept, and what it is worth."""

from __future__ import annotations

import doctest
import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import phyla
from journals_by_hand import Story
from journals_by_hand import snapshot as everything
from phyla import pareto, snapshot
from phyla.cli import main
from phyla.doctor import examine
from phyla.errors import SettingsError
from phyla.events import Recorded, Ref
from phyla.progress import summary
from phyla.record import Record
from phyla.settings import Settings
from phyla.space import Float, Space, draw
from phyla.strategies.contract import FRESH, Decision, Strategy
from phyla.strategies.describe import describe
from phyla.strategies.evolve import Evolve
from phyla.strategies.mopbt import MOPBT, Front, front
from phyla.strategies.rebuild import rebuild
from phyla.strategies.truncation import Truncation
from phyla.testing.strategies import StrategyConformance
from phyla.view import View, fold

NAN, INF = math.nan, math.inf
TWO = MOPBT({"score": "max", "cost": "min"})
Scored = tuple[float | None, Any]


class First:
    """In the place of a generator: gives each of the numbers that `integers` may draw, one after the other."""

    def __init__(self) -> None:
        self.next = 0
        self.most = 1

    def integers(self, most: int) -> int:
        self.most = most
        return self.next


def told(reports: Sequence[Scored], strategy: MOPBT = TWO, **known: Any) -> Story:
    """One generation, of which each member has this score, and this as its cost; ... : it says nothing of it."""
    story = Story(len(reports), strategy.retain, strategy=describe(strategy), **known)
    for member, (score, cost) in enumerate(reports):
        story.claim(member)
        story.report(member, score, metrics=None if cost is ... else {"cost": cost})
    return story


def donors(story: Story, member: int, strategy: Strategy = TWO) -> list[int]:
    """Every member that this one may copy."""
    rng: Any = First()
    found = []
    while rng.next < rng.most:
        said = strategy(story.view, member, rng)
        if not isinstance(said.weights, Record):
            return []
        found.append(said.weights.id)
        rng.next += 1
    return sorted(found)


def all_donors(story: Story, strategy: Strategy = TWO) -> list[list[int]]:
    return [donors(story, member, strategy) for member in range(len(story.view.history))]


COPY = MOPBT({"score": "max", "cost": "min"}, explore=None)
"""As TWO, but with no draws of its explore."""

EIGHT: list[Scored] = [(10, 5), (9, 4), (5, 1), (1, 0), (8, 6), (5, 5), (4, 2), (0, 9)]
"""Fronts by hand: {0, 1, 2, 3}, {4, 5, 6}, {7}. Ranked: 0, 3 (the other end), 2, 1; 5 (far from all of these), 4, 6; 7."""


# Who copies whom ----------------------------------------------------------------------------------------------------


def test_the_worst_quarter_copies_the_ends_of_the_front() -> None:
    assert all_donors(told(EIGHT), COPY) == [[], [], [], [], [], [], [0, 3], [0, 3]]
    half = MOPBT({"score": "max", "cost": "min"}, 0.5, None)
    assert all_donors(told(EIGHT), half) == [[], [], [], [], *[[0, 1, 2, 3]] * 4]
    assert not any(all_donors(told(EIGHT), MOPBT({"score": "max", "cost": "min"}, 0, None)))


@pytest.mark.parametrize("mode", ["max", "min"])
def test_what_is_to_be_low_mirrors_what_is_to_be_high(mode: Any) -> None:
    sign = 1 if mode == "max" else -1
    for way in ("max", "min"):
        strategy = MOPBT({"loss": mode, "cost": way}, explore=None)  # type: ignore[dict-item]
        cost = -1 if way == "max" else 1
        story = told([(sign * s, cost * c) for s, c in EIGHT], strategy, mode=mode, metric="loss")
        assert all_donors(story, strategy) == all_donors(told(EIGHT), COPY)


@pytest.mark.parametrize("n", [*range(1, 13), 64])
def test_groups_are_disjoint_and_exact_and_no_donor_is_dominated_by_who_copies_it(n: int) -> None:
    rng = np.random.default_rng(n)
    points = [(float(x), float(y)) for x, y in rng.integers(0, 2 + n, (n, 2))]
    story = told([(x, -y) for x, y in points])
    for fraction in (0.07, 0.25, 0.5) if n < 20 else (0.25,):
        k = min(math.ceil(fraction * n - 1e-9), n // 2)
        found = all_donors(story, MOPBT({"score": "max", "cost": "min"}, fraction, None))
        best_first = pareto.rank(points)
        assert [m for m in range(n) if found[m]] == sorted(best_first[n - k :])
        assert all(found[m] == sorted(best_first[:k]) for m in best_first[n - k :])
        assert all(1 in pareto.front([points[m], points[donor]]) for m in range(n) for donor in found[m])


@pytest.mark.parametrize("mode", ["max", "min"])
def test_with_one_objective_it_is_truncation_selection(mode: Any) -> None:
    rng = np.random.default_rng(0)
    for n in range(1, 17):
        scores = [
            [float(rng.integers(0, 6)), NAN, INF, -INF, None][int(rng.choice(5, p=[0.8, *[0.05] * 4]))]
            for _ in range(n)
        ]
        story = Story(n, mode=mode)
        story.generation(*scores)
        for fraction in (0.1, 0.25, 0.5):
            one = all_donors(story, MOPBT({"score": "max"}, fraction, None))  # the run says which way
            assert one == all_donors(story, Evolve(Truncation(fraction), None)), scores


@pytest.mark.parametrize("bad", [NAN, INF, -INF, "nan", "inf", "-inf"])
def test_an_objective_that_is_not_finite_ranks_last_and_is_never_copied(bad: Any) -> None:
    worst = told([(99, bad), *EIGHT[1:]])  # the best score of all
    assert all_donors(worst, COPY)[0] == [1, 3]
    mostly = told([(1, bad), (2, bad), (3, bad), (4, 1)])
    assert all_donors(mostly, MOPBT({"score": "max", "cost": "min"}, 0.5, None)) == [[3], [3], [], []]
    assert not any(all_donors(told([(float(m), bad) for m in range(8)]), COPY))


def test_what_was_not_measured_is_neither_copied_nor_replaced() -> None:
    for missing in (None, ...):
        story = told([(10, missing), *EIGHT[1:7], (0, missing)])
        assert all_donors(story, COPY) == [[], [], [], [], [1, 3], [], [1, 3], []]
    assert not any(all_donors(told([(None, c) for _, c in EIGHT]), COPY))


def test_nobody_copies_before_half_of_the_members_have_all_objectives() -> None:
    assert not any(
        all_donors(told([*EIGHT[:3], *[(1.0, None)] * 5]), MOPBT({"score": "max", "cost": "min"}, 0.5, None))
    )
    assert any(all_donors(told([*EIGHT[:4], *[(1.0, None)] * 4]), MOPBT({"score": "max", "cost": "min"}, 0.5, None)))


def test_a_copy_takes_the_donors_hyperparameters_and_explores_them() -> None:
    story = told(EIGHT)
    donor = story.newest(0)
    copied = COPY(story.view, 7, np.random.default_rng(1))
    assert copied.hypers in (donor.hypers, story.newest(3).hypers)
    assert copied.weights in (donor, story.newest(3))
    moved = {json.dumps(TWO(story.view, 7, np.random.default_rng(n)).hypers, sort_keys=True) for n in range(20)}
    assert len(moved) > 10


def test_a_lost_member_copies_one_of_the_best_or_is_born_again() -> None:
    story = told([(NAN, 1), *EIGHT[1:]])
    said = [COPY.rescue(story.view, 0, np.random.default_rng(n)).weights for n in range(30)]
    assert {record.id for record in said if isinstance(record, Record)} == {1, 3}  # a fifth of the seven others
    said = [COPY.rescue(told(EIGHT).view, 0, np.random.default_rng(n)).weights for n in range(30)]
    assert {record.id for record in said if isinstance(record, Record)} == {2, 3}  # never itself
    alone = told([(NAN, 1), (NAN, 2)])
    assert COPY.rescue(alone.view, 0, np.random.default_rng(0)).weights is FRESH


def test_in_generations_the_order_in_which_members_report_changes_nothing() -> None:
    def play(backwards: bool) -> list[Decision | Any]:
        story, said = Story(8, TWO.retain, max_lead=0), []
        for interval in range(6):
            for m in sorted(range(8), reverse=backwards != bool(interval % 2)):
                rng = np.random.default_rng([m, interval])
                claim = story.decide(m, TWO)
                said.append((interval, m, claim.hypers, claim.donor and claim.donor.member))
                story.report(m, float(rng.random()), metrics={"cost": float(rng.random())})
        assert len({donor for *_, donor in said}) > 3
        return sorted(said, key=lambda one: one[:2])

    assert play(False) == play(True)


# What is asked of a run ---------------------------------------------------------------------------------------------


def settings(**known: Any) -> Settings:
    return Settings(**{"seed": 0, "space": {}, "size": 8, "intervals": 9, **known})


def test_the_score_must_be_one_of_the_objectives_and_go_the_same_way() -> None:
    TWO.check({}, settings())
    MOPBT({"a": "max", "b": "min"}).check({}, settings(metric="b", mode="min"))
    with pytest.raises(SettingsError, match="which are 'a', 'b'; it is called 'score'"):
        MOPBT({"a": "max", "b": "min"}).check({}, settings())
    with pytest.raises(SettingsError, match="which are 'a', 'b'; it is called 'c'"):
        MOPBT({"a": "max", "b": "min"}).check({}, settings(metric="c"))
    with pytest.raises(SettingsError, match="'b' is the score, and is 'min' here, but Population"):
        MOPBT({"a": "max", "b": "min"}).check({}, settings(metric="b"))
    with pytest.raises(SettingsError, match="sigma names 'x'"):
        MOPBT({"score": "max"}, explore=phyla.Gaussian({"x": 0.1})).check({"lr": Float(0, 1)}, settings())


def test_an_objective_that_no_report_has_is_said_at_the_first_decision() -> None:
    strategy = MOPBT({"accuracy": "max", "latncy": "min"})
    story = Story(4, metric="accuracy")
    story.claim(2)
    story.report(2, 1.0, metrics={"latency": 3.0})
    with pytest.raises(
        SettingsError, match=r"a number for the objective 'latncy': that of member 2, interval 1, has 'acc"
    ):
        story.decide(2, strategy)
    story.train(1, None)
    story.decide(1, strategy)  # that one has no score either
    words = Story(4)
    words.claim(0)
    words.report(0, 1.0, metrics={"cost": [1, 2]})
    with pytest.raises(SettingsError, match="no report has a number for the objective 'cost'"):
        words.decide(0, TWO)


def test_too_few_donors_for_the_objectives_are_advised_against() -> None:
    assert TWO.advise({}, settings(size=8)) == []
    assert "groups of 1, too few donors to hold the best in each of 2" in TWO.advise({}, settings(size=4))[0]
    assert MOPBT({"score": "max"}).advise({}, settings(size=4)) == []


@pytest.mark.parametrize(
    "objectives", [{}, [], "accuracy", {"a": "up"}, {"a": None}, {1: "max"}, [("a", "max"), ("a", "min")], [("a",)], 7]
)
def test_objectives_that_are_none_are_refused(objectives: Any) -> None:
    with pytest.raises(SettingsError, match="MOPBT: objectives must be names, each with"):
        MOPBT(objectives)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("fraction", value) for value in (-0.1, 0.6, NAN, "0.2", True, None)],
        *[("explore", value) for value in (1, "Perturb")],
        *[("archive", value) for value in (0, -1, 1.5, True, None)],
        *[
            ("reference", value)
            for value in ({"score": 1}, {"score": 1, "cost": 2, "x": 3}, (1,), (1, NAN), (1, "2"), 5)
        ],
    ],
)
def test_other_values_are_refused_with_what_was_given(name: str, value: Any) -> None:
    with pytest.raises(SettingsError, match=f"MOPBT: {name} must be .*got "):
        MOPBT({"score": "max", "cost": "min"}, **{name: value})


@pytest.mark.parametrize(
    "strategy", [TWO, COPY, MOPBT({"b": "min", "a": "max"}, 0.4, phyla.Gaussian(0.1), 7, {"a": 0, "b": 9.5})]
)
def test_a_run_is_identified_by_its_objectives_in_their_order(strategy: MOPBT) -> None:
    described = json.loads(json.dumps(describe(strategy)))
    assert rebuild(described) == strategy
    assert eval(repr(strategy), {name: getattr(phyla, name) for name in phyla.__all__}) == strategy
    backwards = MOPBT(
        strategy.objectives[::-1],
        strategy.fraction,
        strategy.explore,
        strategy.archive,
        (strategy.reference or ())[::-1] or None,
    )
    assert backwards != strategy
    assert describe(backwards) != described


# The front ----------------------------------------------------------------------------------------------------------


def randomly(seed: int, archive: int, generations: int = 12) -> tuple[Story, MOPBT]:
    """A run whose front moves outwards, with diverged, unmeasured and equal reports, each on its own weights."""
    rng, strategy = np.random.default_rng(seed), MOPBT({"score": "max", "cost": "min"}, archive=archive)
    story = Story(6, strategy.retain, strategy=describe(strategy))
    for generation in range(generations):
        for member in range(6):
            story.claim(member)
            angle, far = rng.random() * math.pi / 2, 1 + generation / 4 + rng.random()
            score, cost = round(far * math.sin(angle), 1), -round(far * math.cos(angle), 1)
            odd = rng.random()
            story.report(member, NAN if odd < 0.05 else score, metrics={"cost": None if odd > 0.95 else cost})
    return story, strategy


def came_to(record: Record) -> tuple[float, float]:
    assert record.score is not None
    assert record.metrics is not None
    return record.score, -record.metrics["cost"]  # type: ignore[operator]


@pytest.mark.parametrize("seed", range(4))
def test_what_is_kept_is_the_front_of_all_reports_so_far(seed: int) -> None:
    story, strategy = randomly(seed, archive=1000)
    view = View(strategy.retain)
    for recorded in story.events:
        view.fold(recorded)
        good = [r for r in view.records.values() if r.finite and r.metrics and r.metrics["cost"] is not None]
        points = [came_to(r) for r in good]
        firsts = {points[i]: good[i].ref for i in reversed(pareto.front(points))}  # of equals the first is kept
        assert set(view.retained) == set(firsts.values())
    assert len(view.retained) > 4
    found = front(view)
    assert found is not None
    assert [came_to(record) for record in found.records] == sorted(firsts, reverse=True)
    assert all(record.available and not record.freed for record in found.records)


@pytest.mark.parametrize("archive", [1, 2, 5])
def test_no_more_are_kept_than_were_asked_for_and_none_is_worse_than_another(archive: int) -> None:
    story, strategy = randomly(0, archive)
    view = View(strategy.retain)
    for recorded in story.events:
        view.fold(recorded)
        points = [came_to(view.records[ref]) for ref in view.retained]
        assert len(points) <= archive
        assert len(pareto.front(points)) == len(points)
    kept = front(view)
    assert kept is not None
    assert {record.ref for record in kept.records} == set(view.retained)
    free = {record.checkpoint.file for record in view.records.values() if record.freed}
    assert set(story.freed) == free
    assert len(view.records) - len(free) <= archive + 6 * 2 + 1  # with the newest two of each, and the best


def test_of_too_many_the_nearest_to_others_goes_and_the_ends_stay() -> None:
    story = told(
        [(0, 0), (10, 10), (5, 5), (4.9, 4.8), (8, 8)], archived := MOPBT({"score": "max", "cost": "min"}, archive=4)
    )
    assert sorted(ref.member for ref in story.view.retained) == [0, 1, 2, 4]
    assert archived.retain(story.view) == {story.newest(m).ref for m in (0, 1, 2, 4)}  # asked again: nothing is new


def test_a_checkpoint_that_was_lost_is_no_part_of_the_front() -> None:
    story = told(EIGHT)
    assert sorted(ref.member for ref in story.view.retained) == [0, 1, 2, 3]
    story.claim(0)
    story.fail(0, "checkpoint", story.newest(0))
    story.claim(0, None)
    story.report(0, 9.5, metrics={"cost": 7})
    assert set(story.view.retained) == {story.newest(m).ref for m in range(4)}
    found = front(story.view)
    assert found is not None
    assert found.values[0] == {"score": 9.5, "cost": 7.0}


def test_hypervolume_from_the_worst_seen_or_a_point_of_the_users() -> None:
    story = told([(3, 1), (0, 2), (1, 0), (NAN, 9), (9, None)])
    found = front(story.view)
    assert found == Front(
        {"score": "max", "cost": "min"},
        [story.newest(0), story.newest(2)],
        [{"score": 3.0, "cost": 1.0}, {"score": 1.0, "cost": 0.0}],
        3 * 1 + 1 * 1,
        {"score": 0.0, "cost": 2.0},
        chosen=False,
    )
    assert str(found) == "2 reports, hypervolume 4 (reference: the worst seen: score 0, cost 2)"
    own = MOPBT({"score": "max", "cost": "min"}, reference={"cost": 3, "score": 0})
    found = front(told([(3, 1), (1, 0), (0, 2)], own).view)
    assert str(found) == "2 reports, hypervolume 7 (reference: score 0, cost 3)"


def test_other_runs_and_runs_without_a_report_have_no_front() -> None:
    assert front(Story(3, strategy=describe(TWO)).view) is None
    assert front(told([(1.0, None), (None, 2.0)]).view) is None
    assert front(Story(3, strategy=describe(Evolve(Truncation(), None))).view) is None
    assert (
        front(Story(3, strategy={"type": "phyla.MOPBT", "objectives": 3, "archive": "x", "reference": []}).view) is None
    )


def test_a_front_with_an_explore_of_the_users_own_is_shown_all_the_same() -> None:
    def mine(hypers: Any, space: Any, view: Any, member: int, rng: Any) -> Any:
        return hypers

    strategy = MOPBT({"score": "max", "cost": "min"}, explore=mine)
    assert rebuild(describe(strategy)) is None
    found = front(told(EIGHT, strategy).view)
    assert found is not None
    assert [record.id for record in found.records] == [0, 1, 2, 3]


def test_a_view_from_a_snapshot_keeps_the_same_front(tmp_path: Path) -> None:
    story, strategy = randomly(3, archive=5)
    events = [Recorded(position, event) for position, event in story.events]
    view = fold(events[:80], View(strategy.retain))
    assert snapshot.save(view, events[79].event.uid, tmp_path / "s")

    class Journal:
        def read(self, after: int) -> Sequence[Recorded]:
            return events[after:]

    loaded = snapshot.load(tmp_path / "s", Journal(), strategy.retain)  # type: ignore[arg-type]
    assert loaded is not None
    assert everything(loaded) == everything(story.view)
    other = MOPBT({"score": "max", "cost": "min"}, archive=6)
    assert snapshot.load(tmp_path / "s", Journal(), other.retain) is None  # type: ignore[arg-type]
    assert "phyla.pareto" in set(snapshot._used_by("phyla.strategies.mopbt"))  # whose code counts, too


# Whole runs ---------------------------------------------------------------------------------------------------------

HERE, THERE = np.array([0.0, 0.0]), np.array([2.0, 0.0])
BETWEEN: Space = {"aim": Float(0.0, 1.0), "lr": Float(1e-3, 1.0, log=True)}


def trained(x: np.ndarray, hypers: Mapping[str, float]) -> np.ndarray:
    """A step of gradient descent on how far x is from between the two places: best with an lr near 1."""
    return x - hypers["lr"] * (x - (1 - hypers["aim"]) * HERE - hypers["aim"] * THERE)


def distances(x: np.ndarray) -> tuple[float, float]:
    """Schaffer's two objectives, in the plane: their front is the line between the places."""
    return float(((x - HERE) ** 2).sum()), float(((x - THERE) ** 2).sum())


def covered(strategy: Strategy, seed: int, members: int = 8, intervals: int = 20) -> tuple[float, float]:
    """The hypervolumes of all reports of a run, and of those at its end. Of the whole line it would be 33.33."""
    rng = np.random.default_rng(seed)
    story = Story(
        *(members, getattr(strategy, "retain", None), BETWEEN),
        births=lambda member, space: draw(space, np.random.default_rng([seed, member])),
        **{"metric": "here", "mode": "min", "seed": seed, "max_lead": 0},
    )
    states: dict[Ref, np.ndarray] = {}
    for _ in range(intervals):
        for member in range(members):
            claim = story.decide(member, strategy)
            x = states[claim.source] if claim.source is not None else 3 + rng.normal(size=2)
            here, there = distances(x := trained(x, claim.hypers))
            states[story.report(member, here, metrics={"there": there}).ref] = x
    last = [states[story.newest(member).ref] for member in range(members)]
    ever, end = ([[-far for far in distances(x)] for x in some] for some in (states.values(), last))
    return pareto.hypervolume(ever, (-6, -6)), pareto.hypervolume(end, (-6, -6))


def test_it_covers_more_than_random_search_and_than_one_objective_at_equal_cost() -> None:
    arms: dict[str, Strategy] = {
        "several": MOPBT({"here": "min", "there": "min"}),
        "random": Evolve(None, None),
        "one": Evolve(Truncation(0.25), phyla.Perturb(resample=0.2)),
    }
    found = {name: [covered(strategy, seed) for seed in range(5)] for name, strategy in arms.items()}
    ever, end = ({name: statistics.median(run[at] for run in runs) for name, runs in found.items()} for at in (0, 1))
    whole = 33.33
    assert whole - ever["several"] < 0.2 * (whole - ever["random"])
    assert whole - end["several"] < 0.5 * (whole - end["random"])
    assert ever["several"] > ever["one"]
    assert end["several"] > end["one"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> phyla.Run:
    """A finished run on disk."""
    population = phyla.Population(
        "two",
        path=tmp_path_factory.mktemp("runs"),
        **{"space": BETWEEN, "size": 8, "intervals": 8, "seed": 1, "metric": "here", "mode": "min", "progress": False},
        strategy=MOPBT({"here": "min", "there": "min"}, archive=6),
    )
    for member in population:
        state = member.state(lambda member: {"x": np.array([3.0, 3.0]), "steps": 0})
        state["x"] = trained(state["x"], member)
        state["steps"] += 1
        here, there = distances(state["x"])
        member.report({"here": here, "there": there}, state)
    return phyla.open(population.run.path)


def test_every_model_of_the_front_can_be_loaded_and_is_what_it_was_said_to_be(run: phyla.Run) -> None:
    found = run.front
    assert found is not None
    assert len(found.records) == 6
    for record, values in zip(found.records, found.values, strict=True):
        state = run.restore(record, lambda member: {"x": np.zeros(2), "steps": 0})
        assert distances(state["x"]) == (values["here"], values["there"])
    assert any(record.interval < 7 for record in found.records)  # which no other rule would have kept


def test_doctor_finds_nothing(run: phyla.Run) -> None:
    events = [Recorded(position, event) for position, event in enumerate(run.events(), 1)]
    strategy = rebuild(run.settings.strategy)
    assert strategy is not None
    assert list(examine(events, run.checkpoints, strategy)) == []


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def test_what_best_says_of_the_front(run: phyla.Run, capsys: pytest.CaptureFixture[str]) -> None:
    found = run.front
    assert found is not None
    out = said(capsys, "best", run.path)
    assert out.startswith(
        f"two  front of 6 reports, hypervolume {found.hypervolume:.4g} (reference: the worst seen: here "
    )
    assert "here, lower is better; there, lower is better" in out
    rows = [line.split() for line in out.splitlines()[4:10]]
    assert [(int(place), int(m), int(i), file) for place, m, i, *_, file in rows] == [
        (place, record.id, record.interval, record.checkpoint.file) for place, record in enumerate(found.records)
    ]
    assert f"run = phyla.open({str(run.path)!r})" in out
    told = json.loads(said(capsys, "best", run.path, "--json"))
    assert run.best is not None
    assert told["score"] == run.best.score
    assert told["front"]["hypervolume"] == found.hypervolume
    assert told["front"]["reference"] == found.reference
    assert [one["values"] for one in told["front"]["reports"]] == found.values
    assert all(Path(one["checkpoint"]["path"]).is_file() for one in told["front"]["reports"])


def test_what_status_and_the_summary_say_of_the_front(run: phyla.Run, capsys: pytest.CaptureFixture[str]) -> None:
    found = run.front
    out = said(capsys, "status", run.path)
    assert f"front        {found}\n" in out
    member = next(line for line in out.splitlines() if line.startswith(f"  {'member':>6}"))
    assert member.split() == ["member", "interval", "score", "there", "aim", "lr", "copied", "worker"]
    assert json.loads(said(capsys, "status", run.path, "--json"))["front"]["objectives"] == {
        "here": "min",
        "there": "min",
    }
    assert f"  front       {found}\n              phyla best {run.path} shows it" in summary(run)
    assert said(capsys, "final", run.path).startswith("two  final ")


def test_doctests() -> None:
    assert doctest.testmod(phyla.strategies.mopbt).failed == 0


class TestTwoObjectives(StrategyConformance):
    strategy = TWO
    metrics = ("cost",)
    plays = 12
