"""The paper's toy, through phyla's own worker: the values are those of an independent simulation of the same rules.

Grid search and exploit-only have closed forms: 1.2 − 0.81 − 0.81·0.98⁴⁰⁰, and 1.2 − 2·(0.9·0.98¹⁰⁰)² when only weights are
copied. For PBT the 5–95 % band of 1,000 seeds of that simulation is given for intervals of 5, 10 and 20 steps.
"""

import importlib.util
import statistics
from pathlib import Path

import pytest

import phyla

pytestmark = pytest.mark.filterwarnings("ignore:.*did not change")  # with both hyperparameters at zero nothing moves

spec = importlib.util.spec_from_file_location("toy", Path(__file__).parent.parent / "examples" / "toy.py")
toy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toy)


def best(arm, interval=10, seed=0):
    run, _ = toy.train(arm, interval, seed, journal="memory", progress=False)
    return run.best.score


def test_grid_search_reaches_its_closed_form():
    assert best("grid search") == pytest.approx(1.2 - 0.81 - 0.81 * 0.98**400, abs=1e-9)
    assert best("grid search") == pytest.approx(0.3897, abs=5e-5)


@pytest.mark.parametrize("interval", [5, 10, 20])
def test_copying_weights_alone_reaches_its_closed_form(interval):
    assert best("exploit only", interval) == pytest.approx(1.2 - 2 * (0.9 * 0.98**100) ** 2, abs=1e-9)


@pytest.mark.parametrize("interval", [5, 10, 20])
def test_copying_both_without_exploring_collapses_to_grid_search(monkeypatch, interval):
    monkeypatch.setitem(toy.ARMS, "both", {"exploit": phyla.Truncation(0.5), "explore": None})
    assert best("both", interval) == pytest.approx(0.390, abs=5e-4)


@pytest.mark.parametrize(("interval", "low", "high"), [(5, 1.177, 1.200), (10, 0.970, 1.195), (20, 0.612, 1.157)])
def test_pbt_lies_within_the_band_over_50_seeds(interval, low, high):
    assert low <= statistics.median(best("PBT", interval, seed) for seed in range(50)) <= high


def test_pbt_beats_every_other_arm_at_the_shortest_interval():
    pbt = statistics.median(best("PBT", 5, seed) for seed in range(20))
    explore_only = statistics.median(best("explore only", 5, seed) for seed in range(20))
    assert pbt > explore_only > best("grid search", 5)
