"""Resample, Either, ByName and Steps: what they move, how often, and that it stays in the space."""

from __future__ import annotations

import doctest
import math
import pickle
from collections import Counter
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import phyla.strategies.byname
import phyla.strategies.either
import phyla.strategies.protect
import phyla.strategies.steps
from phyla.errors import SettingsError
from phyla.settings import Settings
from phyla.space import Choice, Float, Hypers, Int, Space
from phyla.strategies.byname import ByName
from phyla.strategies.contract import Explore
from phyla.strategies.either import Either
from phyla.strategies.perturb import Gaussian, Perturb
from phyla.strategies.resample import Resample
from phyla.strategies.steps import Steps

quick = settings(derandomize=True, deadline=None, max_examples=100, database=None)

SPACE: Space = {
    "lr": Float(1e-5, 1.0, log=True),
    "dropout": Float(0.0, 0.8),
    "shift": Float(-1.0, 1.0),
    "gamma": Float(0.5, 0.9999, log="1-x"),
    "unroll": Int(1, 50),
    "batch": Int(16, 4096, log=True),
    "fixed": Int(3, 3),
    "act": Choice("relu", "gelu", "silu"),
    "width": Choice(32, 64, 128, ordered=True),
    "only": Choice(None),
    "depth": Int(1, 8, structural=True),
    "norm": Choice("batch", "layer", structural=True),
}
START: Hypers = {
    "lr": 1e-2, "dropout": 0.0, "shift": -0.5, "gamma": 0.99, "unroll": 1, "batch": 64, "fixed": 3, "act": "relu", "width": 64,
    "only": None, "depth": 4, "norm": "layer",
}  # fmt: skip
VIEW: Any = None  # these look at nothing but the hyperparameters


def explore(strategy: Explore, seed: int, hypers: Hypers = START, space: Space = SPACE) -> Hypers:
    return strategy(hypers, space, VIEW, 0, np.random.default_rng(seed))


def near(count: int, n: int, p: float) -> bool:
    return abs(count - n * p) < 4 * math.sqrt(n * p * (1 - p))


# All of them --------------------------------------------------------------------------------------------------------

simple = st.one_of(
    st.builds(Resample, st.floats(0.01, 1)),
    st.builds(lambda sizes, r: Steps(*sizes, resample=r), st.lists(st.integers(0, 10), max_size=4), st.floats(0.01, 1)),
    st.builds(lambda levels: Steps(1, resample=0, levels=levels), st.integers(1, 10**6)),
    st.just(Perturb()),
    st.builds(Gaussian, st.floats(1e-6, 1e3)),
)
names = st.sampled_from(["lr", "dropout", "shift", "gamma", "unroll", "batch", "act", "width"])
explores = st.one_of(
    simple,
    st.builds(ByName, st.dictionaries(names, simple, min_size=1), st.one_of(st.none(), simple)),
    st.builds(lambda parts: Either(*parts), st.lists(simple, min_size=2, max_size=4)),
)

floats = st.one_of(
    st.builds(lambda a, b: Float(min(a, b), max(a, b) + 1), *[st.floats(-1e6, 1e6)] * 2),
    st.builds(lambda a, f: Float(a, a * f, log=True), st.floats(1e-9, 1e3), st.floats(1.5, 1e6)),
    st.builds(lambda a, b: Float(1 - a - b, 1 - a, log="1-x"), st.floats(1e-6, 0.1), st.floats(0.01, 0.9)),
)
integers = st.one_of(
    st.builds(lambda a, w: Int(a, a + w), st.integers(-1000, 1000), st.integers(0, 2000)),
    st.builds(lambda a, w: Int(a, a + w, log=True), st.integers(1, 1000), st.integers(0, 10**6)),
)
values = st.lists(st.one_of(st.text(max_size=3), st.integers(-9, 9), st.booleans(), st.none()), min_size=1, max_size=6)
choices = st.builds(
    lambda values, ordered: Choice(*{repr(v): v for v in values}.values(), ordered=ordered), values, st.booleans()
)
spaces = st.dictionaries(st.text(min_size=1, max_size=3), st.one_of(floats, integers, choices), min_size=1, max_size=6)


@quick
@given(explores, st.integers(0, 2**32 - 1))
def test_a_chain_of_explorations_stays_in_bounds_and_in_type_and_leaves_structure(strategy: Explore, seed: int) -> None:
    hypers = START
    for i in range(5):
        before = dict(hypers)
        explored = explore(strategy, seed + i, hypers)
        assert hypers == before  # a new dict; the donor's is not touched
        assert list(explored) == list(START)
        assert all(SPACE[name].contains(value) for name, value in explored.items())
        assert (explored["depth"], explored["norm"]) == (4, "layer")
        hypers = explored


@quick
@given(spaces, simple, st.integers(0, 2**32 - 1))
def test_so_it_does_in_any_space(space: Space, strategy: Explore, seed: int) -> None:
    rng = np.random.default_rng(seed)
    hypers = {name: hyperparameter.sample(rng) for name, hyperparameter in space.items()}
    for _ in range(5):
        hypers = strategy(hypers, space, VIEW, 0, rng)
        assert all(space[name].contains(value) for name, value in hypers.items())


@quick
@given(explores, st.integers(0, 2**32 - 1))
def test_the_order_in_which_a_space_names_them_changes_nothing(strategy: Explore, seed: int) -> None:
    backwards = dict(reversed(SPACE.items()))
    assert explore(strategy, seed) == explore(strategy, seed, dict(reversed(START.items())), backwards)


@quick
@given(explores, st.integers(0, 2**32 - 1))
def test_equal_generators_draw_equal_values_and_a_copy_is_the_same_strategy(strategy: Explore, seed: int) -> None:
    again = pickle.loads(pickle.dumps(strategy))
    assert again == strategy
    assert hash(again) == hash(strategy)
    assert eval(repr(strategy), {name: getattr(phyla, name) for name in phyla.__all__}) == strategy
    assert explore(again, seed) == explore(strategy, seed)


@pytest.mark.parametrize("strategy", [Resample(0.5), Steps(), ByName({"a": Steps()}, Resample(0.5))])
def test_each_moves_by_itself(strategy: Explore) -> None:
    space: Space = {"a": Float(0.0, 1.0), "b": Float(0.0, 1.0)}
    moved = [explore(strategy, seed, {"a": 0.5, "b": 0.5}, space) for seed in range(1500)]
    a, b = (np.array([hypers[name] for hypers in moved]) for name in ("a", "b"))
    for x, y in ((a, b), (a != 0.5, b != 0.5)):
        assert abs(np.corrcoef(x, y)[0, 1]) < 4 / math.sqrt(len(moved))


def test_values_from_before_the_bounds_changed_are_clipped() -> None:
    space: Space = {"a": Float(0.0, 1.0), "n": Int(1, 4)}
    for strategy in (Resample(0.01), Steps(0, resample=0.01), Steps(), ByName({"a": Steps()})):
        for seed in range(10):
            explored = explore(strategy, seed, {"a": 7.0, "n": 90}, space)
            assert all(space[name].contains(value) for name, value in explored.items())


# Resample -----------------------------------------------------------------------------------------------------------


def test_resample_redraws_each_with_this_probability_from_its_full_prior() -> None:
    space: Space = {"a": Float(1e-4, 1.0, log=True, init=0.5), "b": Choice("x", "y")}
    moved = [explore(Resample(0.25), seed, {"a": 0.5, "b": "x"}, space) for seed in range(2000)]
    redrawn = [hypers["a"] for hypers in moved if hypers["a"] != 0.5]
    assert near(len(redrawn), 2000, 0.25)
    assert np.mean(np.log10(redrawn)) == pytest.approx(-2, abs=0.2)
    assert near(sum(hypers["b"] == "y" for hypers in moved), 2000, 0.125)
    always = [explore(Resample(), seed)["lr"] for seed in range(50)]
    assert len(set(always)) == 50


# Either -------------------------------------------------------------------------------------------------------------


def test_either_draws_one_explore_for_all_hyperparameters_in_proportion_to_its_weight() -> None:
    space: Space = {name: Float(1e-6, 1e6, log=True) for name in "abc"}
    start: Hypers = dict.fromkeys("abc", 1.0)
    strategy = Either(Perturb(2.0), Perturb(3.0), Perturb(5.0), weights=(3, 1, 0.5))
    found = Counter(tuple(explore(strategy, seed, start, space).values()) for seed in range(1200))
    assert set(found) == {(2.0,) * 3, (3.0,) * 3, (5.0,) * 3}
    for factor, weight in ((2.0, 3), (3.0, 1), (5.0, 0.5)):
        assert near(found[(factor,) * 3], 1200, weight / 4.5)
    alike = Counter(explore(Either(Perturb(2.0), Perturb(3.0)), seed, start, space)["a"] for seed in range(400))
    assert near(alike[2.0], 400, 0.5)


# ByName -------------------------------------------------------------------------------------------------------------


def test_by_name_each_moves_in_its_own_way_and_the_others_otherwise() -> None:
    strategy = ByName({"lr": Perturb(2.0), "unroll": Perturb(10.0)}, otherwise=Perturb(0.5))
    moved = explore(strategy, 0)
    assert (moved["lr"], moved["unroll"], moved["shift"]) == (2e-2, 10, -0.25)
    alone = explore(ByName({"lr": Perturb(2.0)}, otherwise=None), 0)
    assert alone == {**START, "lr": 2e-2}
    assert ByName({"lr": Perturb(2.0), "act": Steps()}) == ByName({"act": Steps(), "lr": Perturb(2.0)})
    by_default = [explore(ByName({"lr": Perturb(2.0)}), seed)["shift"] for seed in range(30)]
    assert set(by_default) == {-0.4, -0.6}


def test_a_discount_moves_by_its_distance_from_one_whatever_the_explore() -> None:
    space: Space = {"gamma": Float(0.9, 0.9999, log="1-x"), "lr": Float(0.0, 1.0)}
    start: Hypers = {"gamma": 0.99, "lr": 0.1}
    found = Counter(
        (round(moved["gamma"], 9), round(moved["lr"], 9))
        for moved in (explore(ByName({"gamma": Perturb(0.5, 2.0)}), seed, start, space) for seed in range(100))
    )
    assert set(found) == {(0.995, 0.08), (0.995, 0.12), (0.98, 0.08), (0.98, 0.12)}
    for strategy in (Steps(1, resample=0), Gaussian(0.1), Resample()):
        assert all(explore(strategy, seed, start, space)["gamma"] < 1 for seed in range(50))
    up, down = sorted({explore(Steps(1, resample=0), seed, start, space)["gamma"] for seed in range(20)}, reverse=True)
    assert (1 - down) / 0.01 == pytest.approx(0.01 / (1 - up)) == pytest.approx(1000**0.1)


def test_by_name_refuses_names_that_it_cannot_move() -> None:
    settings = Settings(seed=0, space={}, size=4, intervals=9)
    ByName({"lr": Perturb(), "act": Steps()}).check(SPACE, settings)
    with pytest.raises(SettingsError, match="ByName: it names 'rl'; the space has 'lr', 'dropout', 'shift'"):
        ByName({"rl": Perturb()}).check(SPACE, settings)
    with pytest.raises(SettingsError, match="it names 'depth', which is structural: it follows the weights"):
        ByName({"depth": Perturb()}).check(SPACE, settings)
    for wrong in (ByName({"lr": Gaussian({"unroll": 0.1})}), ByName({"lr": Perturb()}, Gaussian({"lr": 0.1}))):
        with pytest.raises(SettingsError, match="Gaussian: sigma names"):
            wrong.check(SPACE, settings)
    with pytest.raises(SettingsError, match="Gaussian: sigma names 'x'"):
        Either(Perturb(), Gaussian({"x": 0.1})).check(SPACE, settings)
    known: dict[str, Any] = {"explore": ByName({"x": Perturb()}), "journal": "memory", "progress": False}
    with pytest.raises(SettingsError, match="ByName: it names 'x'"):
        phyla.Population("b", {"lr": Float(0.0, 1.0)}, 4, 9, **known)


# Steps --------------------------------------------------------------------------------------------------------------


def test_an_integer_moves_by_zero_to_three_up_or_down_and_is_clipped() -> None:
    space: Space = {"magnitude": Int(0, 9), "probability": Int(0, 10)}
    n = 1200
    for name, value in (("magnitude", 5), ("probability", 5), ("magnitude", 9), ("probability", 1)):
        start = {"magnitude": 5, "probability": 5, name: value}
        found = Counter(explore(Steps(resample=0), seed, start, space)[name] for seed in range(n))
        expected = Counter[int]()
        for size in range(4):
            for sign in (-1, 1):
                high = 9 if name == "magnitude" else 10
                expected[min(max(value + sign * size, 0), high)] += 1
        assert set(found) == set(expected)
        assert all(near(found[v], n, expected[v] / 8) for v in expected)


def test_a_fifth_is_redrawn() -> None:
    found = Counter(explore(Steps(0), seed, {"n": 500}, {"n": Int(0, 999)})["n"] for seed in range(800))
    assert near(800 - found[500], 800, 0.2 * 999 / 1000)


def test_what_a_step_is_to_each_kind() -> None:
    def ends(h: Any, value: Any, *sizes: int, levels: int = 10) -> list[Any]:
        strategy = Steps(*sizes, resample=0, levels=levels)
        return sorted({explore(strategy, seed, {"h": value}, {"h": h})["h"] for seed in range(60)})

    assert ends(Float(0.0, 2.0), 1.0, 3) == pytest.approx([0.4, 1.6])
    assert ends(Float(0.0, 2.0), 1.0, 3, levels=4) == [0.0, 2.0]
    assert ends(Float(1e-5, 1.0, log=True), 1e-3, 2) == pytest.approx([1e-4, 1e-2])
    assert ends(Float(0.0, 1.0), 0.05, 1) == pytest.approx([0.0, 0.15])
    assert ends(Int(1, 5), 3, 1, 2) == [1, 2, 4, 5]  # by one at least, though a tenth of the range is less
    assert ends(Int(0, 1000), 500, 1) == [400, 600]
    assert ends(Int(1, 1024, log=True), 32, 2) == [8, 128]
    assert ends(Int(3, 3), 3, 1) == [3]
    assert ends(Choice("a", "b", "c", "d", "e", ordered=True), "c", 1) == ["b", "d"]
    assert ends(Choice("a", "b", "c", "d", "e", ordered=True), "b", 3) == ["a", "e"]
    assert ends(Choice("a", "b", "c"), "c", 1) == ["a", "b", "c"]


def test_a_step_of_zero_stays_for_every_kind() -> None:
    for seed in range(30):
        explored = explore(Steps(0, resample=1e-12), seed)
        assert explored == START


# Bad input ----------------------------------------------------------------------------------------------------------

ERRORS: list[tuple[Any, str]] = [
    (lambda: Resample(0), "Resample(0) moves nothing: expected a probability above 0"),
    (lambda: Resample(1.5), "Resample: probability must be a probability from 0 to 1, got 1.5"),
    (lambda: Resample("1"), "got '1'"),
    (lambda: Either(Perturb()), "Either: expected two explores or more, got 1"),
    (lambda: Either(), "Either: expected two explores or more, got 0"),
    (lambda: Either(Perturb(), None), "Either: an explore must be one such as phyla.Perturb(), got None"),
    (lambda: Either(Perturb(), Perturb), "Either: an explore must be one such as phyla.Perturb(), got <class"),
    (lambda: Either(Perturb(), Steps(), weights=(1,)), "weights must be 2 positive numbers, one for each explore, got (1,)"),
    (lambda: Either(Perturb(), Steps(), weights=0.5), "weights must be 2 positive numbers, one for each explore, got 0.5"),
    (lambda: Either(Perturb(), Steps(), weights=(1, 0)), "Either: a weight must be a positive number, got 0"),
    (lambda: Either(Perturb(), Steps(), weights=(1, math.nan)), "got nan"),
    (lambda: ByName({}), 'expected explores by name, as in ByName({"lr": phyla.Perturb(0.5, 2.0)}), got {}'),
    (lambda: ByName(Perturb()), "expected explores by name"),
    (lambda: ByName({1: Perturb()}), "expected explores by name"),
    (lambda: ByName("lr"), "expected explores by name"),
    (lambda: ByName({"lr": 0.1}), "ByName: the move of 'lr' must be one such as phyla.Perturb(0.5, 2.0), got 0.1"),
    (lambda: ByName({"lr": Perturb()}, 0.1), "ByName: otherwise must be one such as phyla.Perturb(), or None, got 0.1"),
    (lambda: Steps(-1), "Steps: a size must be a whole number of steps, from 0 to levels=10, got -1"),
    (lambda: Steps(1.0), "got 1.0"),
    (lambda: Steps(11), "got 11"),
    (lambda: Steps([1, 2]), "got [1, 2]"),
    (lambda: Steps(levels=0), "Steps: levels must be the number of steps that make the whole axis, 1 or more, got 0"),
    (lambda: Steps(resample=-1), "Steps: resample must be a probability from 0 to 1, got -1"),
    (lambda: Steps(0, 0, resample=0), "moves nothing: at least one step must be greater than 0, or resample be above 0"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), ERRORS, ids=[message[:60] for _, message in ERRORS])
def test_errors_say_what_was_given_and_expected(call: Any, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        call()
    assert message in str(caught.value)


@pytest.mark.parametrize("module", ["byname", "either", "protect", "steps"])
def test_doctests(module: str) -> None:
    found: ModuleType = getattr(phyla.strategies, module)
    assert doctest.testmod(found).failed == 0
