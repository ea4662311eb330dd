"""The workloads that strategies are measured on: what is true of them, and what PBT comes to on each."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import phyla
from phyla.errors import SettingsError
from phyla.runs import Run
from phyla.testing import workloads
from phyla.testing.workloads import DECEPTIVE, PLAIN, NoisyQuadratic, deceptive, plain, triangle

RATES = np.geomspace(1e-3, 0.5, 200)
STEPS = 200


def scores(workload: Callable[..., Run], seeds: int, **how: Any) -> list[float]:
    """What the best member comes to at the end, for each seed."""
    found = []
    for seed in range(seeds):
        final = workload(seed=seed, **how).final
        assert final is not None
        assert final.score is not None
        found.append(final.score)
    return found


def median(workload: Callable[..., Run], seeds: int, **how: Any) -> float:
    return statistics.median(scores(workload, seeds, **how))


# The noisy quadratic --------------------------------------------------------------------------------------------------


def best_constant(problem: NoisyQuadratic) -> float:
    return max(problem.expected([lr] * STEPS) for lr in RATES)


def greedy(problem: NoisyQuadratic) -> float:
    """Of the schedule that, at every step, is the best for the next one."""
    schedule: list[float] = []
    h, second = np.array(problem.curvatures), problem.start**2
    for _ in range(STEPS):
        after = [(1 - lr * h) ** 2 * second + lr**2 * h * problem.noise**2 for lr in RATES]
        place = int(np.argmin([h @ moments for moments in after]))
        schedule.append(float(RATES[place]))
        second = after[place]
    return problem.expected(schedule)


PATIENT = [0.5] * 155 + [1 / (2 + step) for step in range(1, 46)]
"""As high as can be while the slow direction matters, and then down as 1 / step."""


def test_on_the_deceptive_toy_what_is_best_for_the_next_step_is_worse_than_a_constant_and_patience_better() -> None:
    assert greedy(DECEPTIVE) == pytest.approx(-15.6, abs=0.05)
    assert best_constant(DECEPTIVE) == pytest.approx(-7.83, abs=0.005)
    assert DECEPTIVE.expected(PATIENT) == pytest.approx(-1.55, abs=0.01)


def test_on_the_plain_toy_what_is_best_for_the_next_step_is_the_best_there_is() -> None:
    """Along one direction that is the rate x² / (x² + noise²), as in a Kalman filter, and no schedule does better."""
    assert greedy(PLAIN) == pytest.approx(-0.178, abs=5e-4)
    assert best_constant(PLAIN) == pytest.approx(-0.319, abs=5e-4)
    by_formula, second = [], PLAIN.start[0] ** 2
    for _ in range(STEPS):
        by_formula.append(second / (second + PLAIN.noise**2))
        second = (1 - by_formula[-1]) ** 2 * second + by_formula[-1] ** 2 * PLAIN.noise**2
    assert greedy(PLAIN) == pytest.approx(PLAIN.expected(by_formula), rel=1e-3)


@pytest.mark.parametrize("problem", [DECEPTIVE, PLAIN])
def test_the_expected_score_is_the_mean_of_what_steps_come_to(problem: NoisyQuadratic) -> None:
    rng, schedule = np.random.default_rng(0), [0.5, 0.3, 0.1] * 10
    found = []
    for _ in range(400):
        x = problem.start
        for lr in schedule:
            x = problem.step(x, lr, rng)
        found.append(problem.score(x))
    error = statistics.stdev(found) / len(found) ** 0.5
    assert abs(statistics.mean(found) - problem.expected(schedule)) < 3 * error


def test_all_begin_at_the_same_loss_half_of_it_along_the_slow_direction() -> None:
    assert DECEPTIVE.score(DECEPTIVE.start) == pytest.approx(-40)
    assert PLAIN.score(PLAIN.start) == pytest.approx(-20)


def test_pbt_with_a_short_interval_loses_to_no_evolution_and_with_a_long_one_wins() -> None:
    short, long = (median(deceptive, 3, interval=interval) for interval in (4, 25))
    assert short < median(deceptive, 3, interval=100, exploit=None) - 1 < long - 2


def test_on_the_control_the_shorter_interval_wins() -> None:
    short, long = (median(plain, 3, interval=interval) for interval in (10, 50))
    assert short > long > median(plain, 3, interval=100, exploit=None)


def test_arms_begin_with_the_same_members_and_a_run_can_be_repeated() -> None:
    runs = [deceptive(seed=3, interval=50, exploit=exploit) for exploit in (None, phyla.Truncation(), None)]
    births = [{r.id: r.hypers for r in run.view.records.values() if r.interval == 1} for run in runs]
    assert births[0] == births[1]
    first, again = (sorted((r.interval, r.id, r.score) for r in run.view.records.values()) for run in runs[::2])
    assert first == again
    assert first != sorted(
        (r.interval, r.id, r.score) for r in deceptive(seed=4, interval=50, exploit=None).view.records.values()
    )


def test_every_member_trains_the_same_steps_whatever_the_interval() -> None:
    for interval in (50, 100):
        run = deceptive(interval=interval, size=4)
        assert {record.total_steps for record in run.members} == {STEPS}


@pytest.mark.parametrize("interval", [0, -5, 3, 201, 400])
def test_an_interval_must_divide_the_steps(interval: int) -> None:
    with pytest.raises(SettingsError, match=f"interval must divide the 200 steps of a run, got {interval}"):
        deceptive(interval=interval)


@pytest.mark.slow
def test_mfpbt_comes_near_the_best_fixed_interval_and_loses_nothing_on_the_control() -> None:
    """Near: within a tenth of what lies between the best fixed interval and the shortest. Medians of 20 seeds."""
    shortest, *fixed = (median(deceptive, 20, interval=interval) for interval in (1, 2, 5, 10, 25, 50))
    assert median(deceptive, 20, strategy=phyla.MFPBT()) > max(fixed) - 0.1 * (max(fixed) - shortest)
    assert median(plain, 20, strategy=phyla.MFPBT()) > median(plain, 20, interval=5)


# The triangle ---------------------------------------------------------------------------------------------------------


class Certain:
    """In the place of a generator: the most that a step can gain, and no noise."""

    def random(self) -> float:
        return 1.0

    def normal(self, scale: float) -> float:
        return 0.0 * scale


@pytest.mark.parametrize(
    ("accuracy", "lr", "after"),
    [
        (100.0, 0.01, 101.0),  # the peak
        (100.0, 0.02, 100.5),  # twice as high
        (100.0, 0.005, 100.5),  # half
        (50.0, 0.005, 51.0),
        (150.0, 0.005, 151.0),
        (0.0, 0.001, 1.0),  # the lowest that is ever best
        (300.0, 0.001, 301.0),
        (50.0, 0.001, 50.0),  # too low: nothing
        (50.0, 0.02, 49.0),  # four times too high: loses one
        (2.0, 0.02, 0.0),  # and never falls below zero
    ],
)
def test_a_step_gains_by_how_near_the_rate_is_to_the_best(accuracy: float, lr: float, after: float) -> None:
    rng: Any = Certain()
    assert workloads._rise(accuracy, lr, rng) == pytest.approx(after)


# (interval, size): the median of 200 seeds of another implementation of the same rules, and its standard error. An interval of
# 200 is random search.
TABLE = {
    (200, 4): (20, 7.4),
    (200, 8): (49, 3.4),
    (200, 16): (66, 1.6),
    (20, 4): (80, 4.5),
    (20, 8): (103, 2.7),
    (20, 16): (128, 2.0),
    (4, 4): (168, 2.5),
    (4, 8): (194, 1.2),
    (4, 16): (218, 1.6),
}


def agrees(interval: int, size: int, seeds: int) -> bool:
    """Whether our median lies within two standard errors of the difference between two such medians."""
    expected, error = TABLE[interval, size]
    band = 2 * error * (1 + 200 / seeds) ** 0.5
    return abs(median(triangle, seeds, interval=interval, size=size) - expected) <= band


@pytest.mark.parametrize(("interval", "size", "seeds"), [(200, 8, 40), (20, 8, 10), (4, 4, 5)])
def test_the_triangle_comes_to_the_known_medians(interval: int, size: int, seeds: int) -> None:
    assert agrees(interval, size, seeds)


@pytest.mark.slow
@pytest.mark.parametrize(("interval", "size"), TABLE)
def test_the_triangle_comes_to_the_known_medians_over_200_seeds(interval: int, size: int) -> None:
    assert agrees(interval, size, 200)
