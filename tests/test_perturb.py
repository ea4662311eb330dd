"""Perturb, Gaussian, and strategies described as JSON."""

from __future__ import annotations

import doctest
import json
import math
import pickle
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import phyla.strategies.perturb
from phyla.errors import SettingsError
from phyla.space import Choice, Float, Hypers, Int, Space
from phyla.strategies.describe import describe
from phyla.strategies.perturb import Gaussian, Perturb

quick = settings(derandomize=True, deadline=None, max_examples=100, database=None)

SPACE: Space = {
    "lr": Float(1e-5, 1.0, log=True),
    "dropout": Float(0.0, 0.8),
    "shift": Float(-1.0, 1.0),
    "gamma": Float(0.5, 0.9999, log="1-x"),
    "unroll": Int(1, 50),
    "act": Choice("relu", "gelu", "silu"),
    "batch": Choice(32, 64, 128, ordered=True),
    "width": Int(16, 512, log=True, structural=True),
}
START: Hypers = {
    "lr": 1e-2, "dropout": 0.0, "shift": -0.5, "gamma": 0.99, "unroll": 1, "act": "relu", "batch": 64, "width": 100,
}  # fmt: skip
VIEW: Any = None  # these strategies look at nothing but the hyperparameters


def explore(strategy: Perturb | Gaussian, seed: int, hypers: Hypers = START, space: Space = SPACE) -> Hypers:
    return strategy(hypers, space, VIEW, 0, np.random.default_rng(seed))


strategies = st.one_of(
    st.builds(lambda fs, r: Perturb(*fs, resample=r), st.lists(st.floats(1e-3, 1e3), max_size=3), st.floats(0.01, 1)),
    st.builds(Gaussian, st.floats(1e-6, 1e3), st.floats(0, 1)),
    st.just(Perturb()),
)


@quick
@given(strategies, st.integers(0, 2**32 - 1))
def test_a_chain_of_explorations_stays_in_bounds_and_in_type(strategy: Perturb | Gaussian, seed: int) -> None:
    hypers = START
    for i in range(5):
        before = dict(hypers)
        explored = explore(strategy, seed + i, hypers)
        assert hypers == before  # a new dict; the donor's is not touched
        assert list(explored) == list(START)
        assert all(SPACE[name].contains(value) for name, value in explored.items())
        assert explored["width"] == 100  # structural
        hypers = explored


def test_every_value_can_move() -> None:
    for strategy in (Perturb(), Gaussian(0.1)):
        seen = [explore(strategy, seed) for seed in range(30)]
        for name in set(SPACE) - {"width"}:
            assert any(hypers[name] != START[name] for hypers in seen), name
        assert all(hypers["unroll"] != 1 for hypers in seen)
        assert all(hypers["batch"] in (32, 128) for hypers in seen)


def test_factors_are_drawn_uniformly_and_independently() -> None:
    space: Space = {"a": Float(1e-3, 10.0), "b": Float(1e-3, 10.0)}
    pairs = Counter(
        (round(float(moved["a"]), 9), round(float(moved["b"]), 9))
        for moved in (explore(Perturb(), seed, {"a": 1.0, "b": 1.0}, space) for seed in range(1000))
    )
    assert set(pairs) == {(0.8, 0.8), (0.8, 1.2), (1.2, 0.8), (1.2, 1.2)}
    assert all(abs(n - 250) < 4 * math.sqrt(1000 * 0.25 * 0.75) for n in pairs.values())


def test_resample_redraws_from_the_full_prior() -> None:
    space: Space = {"a": Float(0.0, 1.0, init=0.5), "b": Float(0.0, 1.0)}
    moved = [explore(Perturb(1.0, resample=0.25), seed, {"a": 0.5, "b": 0.5}, space) for seed in range(1000)]
    redrawn = [hypers["a"] for hypers in moved if hypers["a"] != 0.5]
    assert abs(len(redrawn) - 250) < 4 * math.sqrt(1000 * 0.25 * 0.75)
    assert np.mean(redrawn) == pytest.approx(0.5, abs=0.08)
    assert np.std(redrawn) == pytest.approx(12**-0.5, abs=0.05)
    both = sum(hypers["a"] != 0.5 and hypers["b"] != 0.5 for hypers in moved)
    assert abs(both - 62.5) < 4 * math.sqrt(62.5)
    always = [explore(Gaussian(0.1, resample=1.0), seed) for seed in range(20)]
    assert len({hypers["lr"] for hypers in always}) == 20


def test_the_order_of_the_space_changes_nothing() -> None:
    backwards = dict(reversed(SPACE.items()))
    for strategy in (Perturb(resample=0.3), Gaussian(0.1, resample=0.3)):
        assert explore(strategy, 3) == explore(strategy, 3, space=backwards)


def test_gaussian_by_name_leaves_the_others() -> None:
    moved = explore(Gaussian({"lr": 0.1, "unroll": 0.5}), 1)
    assert {name for name in moved if moved[name] != START[name]} == {"lr", "unroll"}


def test_gaussian_sigma_is_a_fraction_of_the_range() -> None:
    space: Space = {"a": Float(-50.0, 50.0)}
    values = [explore(Gaussian(0.02), seed, {"a": 0.0}, space)["a"] for seed in range(2000)]
    assert np.std(values) == pytest.approx(2.0, rel=0.07)


def test_gaussian_names_must_be_in_the_space() -> None:
    with pytest.raises(SettingsError, match="Gaussian: sigma names 'rl'; the space has 'lr', 'dropout'"):
        Gaussian({"rl": 0.1}).check(SPACE)
    with pytest.raises(SettingsError, match="sigma names 'rl'"):
        explore(Gaussian({"rl": 0.1}), 0)
    Gaussian({"lr": 0.1}).check(SPACE)
    Gaussian(0.1).check(SPACE)


def test_values() -> None:
    assert Perturb() == Perturb(0.8, 1.2) != Perturb(0.8, 1.25)
    assert Perturb(2, 0.5) == Perturb(2.0, 0.5)
    assert Perturb(resample=0.25) != Perturb()
    assert hash(Perturb()) == hash(Perturb(0.8, 1.2))
    assert Gaussian({"lr": 1}) == Gaussian({"lr": 1.0})
    assert hash(Gaussian({"lr": 1})) == hash(Gaussian({"lr": 1.0}))
    for strategy in (Perturb(), Perturb(0.5, 2.0, resample=0.1), Gaussian(0.1), Gaussian({"lr": 0.1}, resample=0.2)):
        assert eval(repr(strategy), {"Perturb": Perturb, "Gaussian": Gaussian}) == strategy
        assert pickle.loads(pickle.dumps(strategy)) == strategy
    assert repr(Perturb()) == "Perturb(0.8, 1.2)"
    assert repr(Perturb(resample=0.25)) == "Perturb(0.8, 1.2, resample=0.25)"
    sigmas = {"lr": 0.1}
    strategy = Gaussian(sigmas)
    sigmas["lr"] = 9.0
    assert strategy == Gaussian({"lr": 0.1})


ERRORS: list[tuple[Any, str]] = [
    (lambda: Perturb(0.0, 1.2), "factors must be positive, finite numbers, as in Perturb(0.8, 1.2), got 0.0"),
    (lambda: Perturb(-0.8), "got -0.8"),
    (lambda: Perturb(math.inf), "got inf"),
    (lambda: Perturb(math.nan), "got nan"),
    (lambda: Perturb(10**400), "positive, finite numbers"),
    (lambda: Perturb([0.8, 1.2]), "as in Perturb(0.8, 1.2), got [0.8, 1.2]"),
    (lambda: Perturb(True), "got True"),
    (lambda: Perturb(1.0), "moves nothing: at least one factor must differ from 1, or resample be above 0"),
    (lambda: Perturb(resample=1.5), "Perturb: resample must be a probability from 0 to 1, got 1.5"),
    (lambda: Perturb(resample=None), "Perturb: resample must be a probability from 0 to 1, got None"),
    (lambda: Gaussian(0), "Gaussian: sigma must be a positive, finite number, got 0"),
    (lambda: Gaussian("0.1"), "Gaussian: sigma must be a positive, finite number, got '0.1'"),
    (lambda: Gaussian({"lr": -1}), "Gaussian: sigma['lr'] must be a positive, finite number, got -1"),
    (lambda: Gaussian({}), "name at least one hyperparameter, got {}"),
    (lambda: Gaussian(0.1, resample=-0.1), "Gaussian: resample must be a probability from 0 to 1, got -0.1"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), ERRORS, ids=[message[:60] for _, message in ERRORS])
def test_errors_say_what_was_given_and_expected(call: Any, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        call()
    assert message in str(caught.value)


def test_doctests() -> None:
    assert doctest.testmod(phyla.strategies.perturb).failed == 0


# ---- describe


def a_function() -> None: ...


class Callable_:  # noqa: N801
    def __call__(self) -> None: ...


@dataclass(frozen=True)
class Outer:
    inner: Any
    sizes: Any = (1, 2)
    limit: float = math.inf


def test_describe() -> None:
    here = __name__
    assert describe(None) is None
    assert describe(Perturb()) == {"type": "phyla.Perturb", "factors": [0.8, 1.2], "resample": 0.0}
    assert describe(Gaussian({"lr": 0.1})) == {"type": "phyla.Gaussian", "sigma": {"lr": 0.1}, "resample": 0.0}
    assert describe(a_function) == {"type": f"{here}.a_function"}
    assert describe(Callable_()) == {"type": f"{here}.Callable_"}
    assert describe(Callable_) == {"type": f"{here}.Callable_"}
    assert describe(Outer(Perturb(2.0), np.arange(2))) == {
        "type": f"{here}.Outer",
        "inner": {"type": "phyla.Perturb", "factors": [2.0], "resample": 0.0},
        "sizes": [0, 1],
        "limit": "inf",
    }
    assert describe(Outer(None))["inner"] is None
    assert describe(partial(a_function, 1, b=2)) == {
        "type": "functools.partial", "func": {"type": f"{here}.a_function"}, "args": [1], "keywords": {"b": 2},
    }  # fmt: skip
    described = describe(Outer(Gaussian(np.float64(0.5))))
    assert json.loads(json.dumps(described)) == described


def test_equal_strategies_are_described_equally() -> None:
    assert describe(Perturb(2, 1)) == describe(Perturb(2.0, 1.0))
    assert describe(Perturb(0.8, 1.2)) != describe(Perturb(0.8, 1.25))


def test_a_spawned_script_is_the_same_script() -> None:
    def f() -> None: ...

    f.__module__, f.__qualname__ = "__mp_main__", "f"
    assert describe(f) == {"type": "__main__.f"}


@pytest.mark.parametrize("given", ["truncation", 0.2, {"type": "x"}])
def test_what_is_no_strategy_is_refused(given: object) -> None:
    with pytest.raises(SettingsError, match="a strategy must be a frozen dataclass with __call__, a function, or None"):
        describe(given)


def test_a_field_that_cannot_be_described_is_refused() -> None:
    with pytest.raises(SettingsError, match="got <object object"):
        describe(Outer(object()))
