"""Advice: what works but seldom works well, and populations that have become one model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import phyla
from phyla.cli import main
from phyla.guidance import FEWEST, MOST, at_start, diversity, on_diversity, ready_points
from phyla.settings import Settings
from phyla.space import Choice, Float, Space, describe
from phyla.strategies.evolve import Evolve
from phyla.strategies.perturb import Perturb
from phyla.strategies.truncation import Truncation, group_size
from phyla.testing.story import Story

SPACE: Space = {"lr": Float(0.0, 1.0), "kind": Choice("a", "b")}
PBT = Evolve(Truncation(0.2), Perturb())


def settings(**given: Any) -> Settings:
    return Settings(**{"seed": 0, "space": describe(SPACE), "size": 20, "intervals": 50, **given})


def said(strategy: object = PBT, **given: Any) -> list[str]:
    return at_start(settings(**given), SPACE, strategy)


@pytest.mark.parametrize(
    ("intervals", "ready", "burn_in", "points"),
    [(20, 1, 0, 20), (100, 5, 0, 20), (100, 5, 50, 10), (7, 10, 0, 0), (None, 1, 0, None)],
)
def test_how_often_a_member_becomes_ready(intervals: int | None, ready: int, burn_in: int, points: int | None) -> None:
    assert ready_points(settings(intervals=intervals, ready=ready, burn_in=burn_in)) == points


def test_a_run_of_usual_settings_is_advised_against_nothing() -> None:
    assert said() == []
    assert said(intervals=FEWEST) == []
    assert said(intervals=MOST) == []
    assert said(intervals=None, target=0.9) == []


def test_too_few_and_too_many_times_ready_are_told_apart() -> None:
    (few,) = said(intervals=19)
    assert "becomes ready 19 times" in few
    assert "ready=" not in few
    (many,) = said(intervals=1000, ready=2)
    assert "becomes ready 500 times" in many
    assert "ready=10 " in many


def test_the_advised_ready_is_one_that_is_not_advised_against() -> None:
    for intervals in (101, 250, 999, 12_345):
        (many,) = said(intervals=intervals)
        ready = int(many.split("ready=")[1].split()[0])
        assert said(intervals=intervals, ready=ready) == []


def test_random_search_may_have_any_interval() -> None:
    assert said(Evolve(None, Perturb()), intervals=5) == []


@pytest.mark.parametrize(
    ("metric", "mode", "warned"),
    [
        ("loss", "max", True), ("val_loss", "max", True), ("valLoss", "max", True), ("test/error", "max", True),
        ("loss", "min", False), ("accuracy", "max", False), ("accuracy", "min", True), ("mean_return", "min", True),
        ("closeness", "max", False), ("glossary", "max", False), ("accuracy_loss", "max", False), (None, "max", False),
    ],
)  # fmt: skip
def test_a_metric_whose_name_says_the_other_mode(metric: str | None, mode: str, warned: bool) -> None:
    assert any("is mode=" in line for line in said(metric=metric, mode=mode)) == warned


@pytest.mark.parametrize("size", range(4, 40))
def test_one_donor_is_advised_against_and_the_advised_fraction_gives_more(size: int) -> None:
    found = said(Evolve(Truncation(0.05), Perturb()), size=size)
    assert bool(found) == (group_size(0.05, size) == 1)
    if found:
        fraction = float(found[0].split(". Truncation(")[1].split(")")[0])
        assert group_size(fraction, size) == 2


# Diversity ------------------------------------------------------------------------------------------------------------


def test_before_two_members_have_reported_nothing_is_known_of_their_diversity() -> None:
    story = Story(3, space=SPACE)
    assert diversity(story.view) is None
    story.train(0, 1.0)
    assert diversity(story.view) is None


def test_members_that_never_copied_are_as_many_lineages() -> None:
    story = Story(4, space=SPACE)
    story.generation(1.0, 2.0, 3.0, 4.0)
    found = diversity(story.view)
    assert found is not None
    assert found.ancestors == 4
    assert found.effective == pytest.approx(4)
    assert found.recent == pytest.approx(4)


def test_effective_lineages_are_the_exponential_of_their_entropy() -> None:
    story = Story(4, space=SPACE)
    story.generation(1.0, 2.0, 3.0, 4.0)
    best = story.newest(3)
    story.train(0, 5.0, best)
    story.train(1, 5.0, best)  # lineages are now 3, 3, 2, 3
    found = diversity(story.view)
    assert found is not None
    assert found.ancestors == 2
    assert found.effective == pytest.approx(math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25))))


def test_of_late_only_what_was_copied_since_then_counts() -> None:
    story = Story(2, space=SPACE, keep=30)
    story.generation(1.0, 2.0)
    story.train(0, 1.0, story.newest(1))
    story.train(1, 1.0)
    for _ in range(20):
        story.generation(1.0, 2.0)
    found = diversity(story.view)
    assert found is not None
    assert found.effective == pytest.approx(1)
    assert found.recent == pytest.approx(2)


def test_spread_is_a_share_of_the_range_and_of_the_commonest_choice() -> None:
    story = Story(4, space=SPACE)
    for m, (lr, kind) in enumerate([(0.0, "a"), (1.0, "a"), (0.0, "a"), (1.0, "b")]):
        story.train(m, 1.0, hypers={"lr": lr, "kind": kind})
    found = diversity(story.view)
    assert found is not None
    assert found.spread == {"lr": pytest.approx(0.5), "kind": pytest.approx(0.25)}


def test_a_population_of_one_lineage_and_equal_hyperparameters_has_collapsed() -> None:
    story = Story(4, space=SPACE, keep=30)
    same = {"lr": 0.5, "kind": "a"}
    for m in range(4):
        story.train(m, float(m), hypers=same)
    assert on_diversity(story.view) == []
    best = story.newest(3)
    for m in range(4):
        story.train(m, 1.0, best, hypers=same)
    (line,) = on_diversity(story.view)
    assert "has collapsed" in line
    for m in range(4):
        story.train(m, 1.0, hypers={"lr": m / 4, "kind": "a"})
    assert on_diversity(story.view) == []


# Where it is said -----------------------------------------------------------------------------------------------------


def train(path: Path, **options: Any) -> phyla.Population:
    population = phyla.Population("notes", space={"lr": Float(0.0, 1.0)}, size=4, intervals=3, path=path, **options)
    for member in population:
        member.report(member["lr"], {"weights": np.zeros(2) + member.interval})
    return population


def test_whoever_creates_a_run_is_told_and_nobody_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path)
    assert "notes: note: each member becomes ready 3 times" in capsys.readouterr().err
    train(tmp_path)
    assert "note:" not in capsys.readouterr().err


def test_without_progress_nothing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path, progress=False)
    assert capsys.readouterr().err == ""


def test_doctor_and_status_say_it_of_any_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(tmp_path, progress=False)
    assert main(["doctor", str(tmp_path / "notes"), "--json"]) == 0
    advice = json.loads(capsys.readouterr().out)["advice"]
    assert [line for line in advice if "becomes ready 3 times" in line]
    assert [line for line in advice if "groups of one" in line]
    assert main(["status", str(tmp_path / "notes"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["diversity"]
    assert found["members"] == 4
    assert 1 <= found["effective"] <= 4
