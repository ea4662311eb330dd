"""The space: every value that comes out of it is in bounds and in type, and every value can move (FAULTS.md, T7)."""

from __future__ import annotations

import doctest
import json
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import phyla.space
from phyla.errors import SettingsError
from phyla.space import Choice, Float, Hyperparameter, Int, describe, space_from, validate_space

quick = settings(derandomize=True, deadline=None, max_examples=100, database=None)

seeds = st.integers(0, 2**32 - 1)
factors = st.one_of(st.sampled_from([0.5, 0.8, 1.2, 2.0]), st.floats(1e-3, 1e3))
sigmas = st.one_of(st.sampled_from([0.01, 0.1, 1.0]), st.floats(1e-12, 1e6))
scalars = st.one_of(st.text(max_size=3), st.integers(-3, 3), st.floats(-3, 3), st.booleans(), st.none())


@st.composite
def floats(draw: st.DrawFn) -> Float:
    log = draw(st.sampled_from([False, True, "1-x"]))
    smallest, largest = {False: (-1e300, 1e300), True: (1e-300, 1.7e308), "1-x": (-1e6, 1 - 1e-12)}[log]
    bounds = st.one_of(st.sampled_from([x for x in (0.0, 0.3, -0.7, 1.1) if smallest <= x <= largest]), st.none())
    low, high = (draw(bounds) for _ in range(2))
    low = draw(st.floats(smallest, largest)) if low is None else low
    high = draw(st.floats(smallest, largest)) if high is None else high
    low, high = min(low, high), max(low, high)
    try:
        return Float(low, high, log)
    except SettingsError:  # equal, or too near to each other
        return Float(0.1, 0.9, log)


@st.composite
def ints(draw: st.DrawFn) -> Int:
    log = draw(st.booleans())
    limit = draw(st.sampled_from([3, 1000, 10**12]))
    a, b = (draw(st.integers(1 if log else -limit, limit)) for _ in range(2))
    return Int(min(a, b), max(a, b), log)


def choices() -> st.SearchStrategy[Choice]:
    values = st.lists(scalars, min_size=1, max_size=5, unique_by=lambda v: (type(v), v))
    return st.builds(lambda values, ordered: Choice(*values, ordered=ordered), values, st.booleans())


hyperparameters = st.one_of(floats(), ints(), choices())


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def same(a: object, b: object) -> bool:
    return type(a) is type(b) and a == b


# ---- closed under all operations


@quick
@given(hyperparameters, seeds, factors, sigmas, st.floats(0, 1))
def test_all_that_comes_out_is_in_bounds_and_in_type(
    h: Hyperparameter, seed: int, factor: float, sigma: float, x: float
) -> None:
    generator = rng(seed)
    for value in (h.sample(generator), h.start(generator), h.decode(x), h.decode(0.0), h.decode(1.0)):
        for result in (
            value,
            h.clip(value),
            h.scale(value, factor, generator),
            h.shift(value, sigma, generator),
            h.decode(h.encode(value)),
        ):
            assert h.contains(result), result
            assert type(result) in (float, int, str, bool, type(None))
        assert 0 <= h.encode(value) <= 1
        assert type(h.encode(value)) is float


@quick
@given(hyperparameters, seeds, factors)
def test_a_long_walk_stays_inside(h: Hyperparameter, seed: int, factor: float) -> None:
    generator = rng(seed)
    value = h.start(generator)
    for _ in range(20):
        value = h.scale(value, factor, generator)
        assert h.contains(value)


@quick
@given(st.one_of(floats(), ints()), st.one_of(st.floats(allow_nan=False), st.integers()), seeds)
def test_any_number_is_clipped_to_the_nearest(h: Float | Int, number: float, seed: int) -> None:
    clipped = h.clip(number)
    assert h.contains(clipped)
    assert (
        clipped == h.low if number <= h.low else clipped == h.high if number >= h.high else abs(clipped - number) <= 0.5
    )
    assert h.contains(h.scale(number, 1.2, rng(seed)))
    assert h.contains(h.shift(number, 0.1, rng(seed)))


@quick
@given(hyperparameters, seeds)
def test_the_same_generator_draws_the_same(h: Hyperparameter, seed: int) -> None:
    value = h.sample(rng(seed))
    assert same(value, h.sample(rng(seed)))
    assert same(h.scale(value, 0.8, rng(seed)), h.scale(value, 0.8, rng(seed)))
    assert same(h.shift(value, 0.1, rng(seed)), h.shift(value, 0.1, rng(seed)))


def test_rounding_at_the_bounds() -> None:
    for high in np.random.default_rng(1).uniform(1e-3, 0.999, 200):
        h = Float(1e-4, high, log=True)  # exp(log(high)) > high for some of these
        assert h.decode(1.0) == h.high == high
        assert h.decode(0.0) == 1e-4
        assert h.contains(h.decode(1 - 1e-16))
    assert Float(1e-300, 1.7976931348623157e308, log=True).decode(1 - 2**-53) < math.inf


# ---- encode and decode


@quick
@given(st.one_of(ints(), choices()), seeds)
def test_decode_undoes_encode_exactly(h: Int | Choice, seed: int) -> None:
    value = h.sample(rng(seed))
    assert same(h.decode(h.encode(value)), value)


@quick
@given(st.floats(-100, 100), st.floats(1e-3, 100), st.sampled_from([False, True, "1-x"]), st.floats(0, 1))
def test_decode_undoes_encode_for_floats(low: float, width: float, log: Any, x: float) -> None:
    h = {
        False: Float(low, low + width),
        True: Float(width * 1e-4, width, log=True),
        "1-x": Float(-width, 1 - width * 1e-6, log="1-x"),
    }[log]
    assert h.encode(h.decode(x)) == pytest.approx(x, abs=1e-7)
    assert h.decode(h.encode(h.decode(x))) == pytest.approx(h.decode(x), rel=1e-7, abs=1e-7 * width)
    assert (h.encode(h.low), h.encode(h.high)) == (0.0, 1.0)


def test_axes() -> None:
    assert Float(0.0, 10.0).decode(0.5) == 5.0
    assert Float(1e-4, 1.0, log=True).decode(0.5) == pytest.approx(1e-2)
    assert Float(0.9, 0.9999, log="1-x").decode(1 / 3) == pytest.approx(0.99)
    assert Int(1, 64, log=True).decode(0.5) == 8
    assert Choice("a", "b", "c").encode("b") == 0.5
    assert Choice("only").decode(Choice("only").encode("only")) == "only"
    assert Int(3, 3).decode(Int(3, 3).encode(3)) == 3
    assert Float(0.0, 1.0).decode(7.0) == 1.0


# ---- sampling


def log_uniform_deviation(values: np.ndarray) -> float:
    """The Kolmogorov–Smirnov distance of values in [0, 1] to the uniform distribution."""
    return float(np.abs(np.sort(values) - (np.arange(len(values)) + 0.5) / len(values)).max())


@pytest.mark.parametrize(
    ("h", "cdf"),
    [
        (Float(-3.0, 5.0), lambda x: (x + 3) / 8),
        (Float(1e-5, 1e-1, log=True), lambda x: (np.log10(x) + 5) / 4),
        (Float(0.9, 0.9999, log="1-x"), lambda x: (-1 - np.log10(1 - x)) / 3),
    ],
)
def test_samples_are_uniform_on_the_axis(h: Float, cdf: Any) -> None:
    generator = rng(3)
    values = np.array([h.sample(generator) for _ in range(4000)])
    assert log_uniform_deviation(cdf(values)) < 1.63 / math.sqrt(len(values))  # 1 % level


def test_both_ends_of_an_int_are_as_likely_as_the_rest() -> None:
    generator = rng(4)
    counts = np.bincount([Int(0, 4).sample(generator) for _ in range(5000)], minlength=5)
    assert (np.abs(counts - 1000) < 4 * math.sqrt(800)).all()
    counts = np.bincount([Int(1, 8, log=True).sample(generator) for _ in range(5000)], minlength=9)[1:]
    k = np.arange(1, 9)
    expected = 5000 * np.log((k + 0.5) / (k - 0.5)) / np.log(17)
    assert (np.abs(counts - expected) < 4 * np.sqrt(expected)).all()


def test_choices_are_equally_likely() -> None:
    generator = rng(5)
    drawn = [Choice("a", None, 3).sample(generator) for _ in range(3000)]
    assert all(abs(drawn.count(v) - 1000) < 4 * math.sqrt(667) for v in ("a", None, 3))


@pytest.mark.parametrize(
    ("h", "narrow", "wide"),
    [
        (Float(0.0, 1.0, init=(0.2, 0.3)), (0.2, 0.3), 0.5),
        (Float(1e-6, 1.0, log=True, init=(1e-4, 1e-3)), (1e-4, 1e-3), 0.1),
        (Float(0.0, 0.99, log="1-x", init=0.9), (0.9, 0.9), 0.5),
        (Int(0, 100, init=(7, 9)), (7, 9), 50),
        (Int(1, 100, log=True, init=5), (5, 5), 50),
    ],
)
def test_init_narrows_only_the_start(h: Float | Int, narrow: tuple[float, float], wide: float) -> None:
    generator = rng(6)
    starts = [h.start(generator) for _ in range(200)]
    assert all(narrow[0] <= value <= narrow[1] and h.contains(value) for value in starts)
    if isinstance(h, Int):
        assert set(starts) == set(range(int(narrow[0]), int(narrow[1]) + 1))
    assert max(h.sample(generator) for _ in range(200)) > wide
    assert h.clip(h.high) == h.high
    assert max(h.scale(narrow[1], factor, generator) for factor in (0.8, 1.2)) > narrow[1]


def test_init_of_a_choice_narrows_only_the_start() -> None:
    generator = rng(7)
    h = Choice("a", "b", "c", None, init=("a", None))
    assert {h.start(generator) for _ in range(50)} == {"a", None}
    assert {h.sample(generator) for _ in range(50)} == {"a", "b", "c", None}
    assert {Choice(1, 2, init=2).start(generator) for _ in range(50)} == {2}
    assert {Choice(1, None, init=(None,)).start(generator) for _ in range(50)} == {None}


# ---- moves


def test_a_float_is_multiplied_in_its_natural_coordinate() -> None:
    assert Float(0.0, 1.0).scale(0.5, 1.2, rng()) == 0.6
    assert Float(1e-4, 1.0, log=True).scale(0.5, 0.8, rng()) == 0.4
    assert Float(0.9, 0.9999, log="1-x").scale(0.99, 0.8, rng()) == pytest.approx(0.992)
    assert Float(-1.0, 1.0).scale(-0.5, 1.2, rng()) == -0.6  # above 1 is away from zero
    assert Float(-1.0, 1.0).scale(-0.5, 0.8, rng()) == -0.4
    assert Float(0.0, 1.0).scale(0.9, 1.2, rng()) == 1.0  # clipped, as in the paper
    assert Float(0.0, 1.0).scale(1.0, 1.2, rng()) == 1.0
    assert Float(0.1, 1.0).scale(0.1, 0.8, rng()) == 0.1


@quick
@given(st.floats(-1e6, 0), st.floats(0, 1e6), st.sampled_from([0.5, 0.8, 1.2, 2.0]), seeds)
def test_zero_is_not_absorbing(low: float, high: float, factor: float, seed: int) -> None:
    if high - low < 1e-200:
        high = 1.0
    moved = Float(low, high).scale(0.0, factor, rng(seed))
    assert moved != 0
    assert Float(low, high).scale(moved, factor, rng(seed)) != 0
    assert Int(math.floor(low), math.ceil(high)).scale(0, factor, rng(seed)) != 0


def test_zero_moves_as_a_tenth_of_the_range_would() -> None:
    assert Float(0.0, 0.8).scale(0.0, 1.2, rng()) == pytest.approx(0.016)
    assert Float(0.0, 0.8).scale(0.0, 0.8, rng()) == pytest.approx(0.016)
    assert Float(-0.8, 0.0).scale(0.0, 1.2, rng()) == pytest.approx(-0.016)
    assert {round(Float(-1.0, 1.0).scale(0.0, 1.2, rng(seed)), 9) for seed in range(20)} == {0.04, -0.04}
    assert Float(0.0, 1.0).scale(5e-324, 0.8, rng()) == pytest.approx(0.02)  # 5e-324 × 0.8 == 5e-324
    assert Float(1e-30, 1.0, log=True).scale(1e-29, 1.2, rng()) == pytest.approx(1.2e-29)  # small, but not zero


@quick
@given(ints(), seeds, factors, sigmas)
def test_ints_always_move(h: Int, seed: int, factor: float, sigma: float) -> None:
    value = h.sample(rng(seed))
    if h.low == h.high:
        assert h.scale(value, 1.2, rng(seed)) == h.shift(value, 0.1, rng(seed)) == value
        return
    assert h.shift(value, sigma, rng(seed)) != value
    if factor != 1:
        assert h.scale(value, factor, rng(seed)) != value


def test_ints_move_where_the_factor_points() -> None:
    h = Int(-10, 10)
    assert [h.scale(n, 1.2, rng()) for n in (1, 2, 9, -1, -2)] == [2, 3, 10, -2, -3]
    assert [h.scale(n, 0.8, rng()) for n in (1, 2, 9, -1, -2)] == [0, 1, 7, 0, -1]
    assert h.scale(10, 1.2, rng()) == 9  # at the bound, the other way
    assert h.scale(-10, 1.2, rng()) == -9
    assert Int(1, 2).scale(1, 0.8, rng()) == 2
    assert Int(32, 1024, log=True).scale(100, 1.2, rng()) == 120
    assert {Int(-1, 1).scale(0, 1.2, rng(seed)) for seed in range(20)} == {-1, 1}


def test_shift_is_gaussian_on_the_axis() -> None:
    generator = rng(8)
    linear = np.array([Float(0.0, 10.0).shift(5.0, 0.05, generator) for _ in range(3000)])
    assert linear.mean() == pytest.approx(5, abs=0.04)
    assert linear.std() == pytest.approx(0.5, rel=0.06)
    log = np.log10([Float(1e-4, 1.0, log=True).shift(1e-2, 0.05, generator) for _ in range(3000)])
    assert log.mean() == pytest.approx(-2, abs=0.02)
    assert log.std() == pytest.approx(0.2, rel=0.06)
    tiny = [Int(0, 100).shift(50, 1e-9, generator) for _ in range(400)]
    assert set(tiny) == {49, 51}
    assert abs(tiny.count(49) - 200) < 50


def test_an_ordered_choice_moves_to_a_neighbour() -> None:
    h = Choice("s", "m", "l", ordered=True)
    assert [h.scale(v, 1.2, rng()) for v in "sml"] == ["m", "l", "m"]
    assert [h.scale(v, 0.8, rng()) for v in "sml"] == ["m", "s", "m"]
    assert {h.shift("m", 0.1, rng(seed)) for seed in range(20)} == {"s", "l"}
    assert {h.shift("l", 0.1, rng(seed)) for seed in range(20)} == {"m"}
    assert Choice("only", ordered=True).scale("only", 1.2, rng()) == "only"


def test_an_unordered_choice_is_redrawn_among_all() -> None:
    h = Choice("relu", "gelu", None)
    assert {h.scale("relu", 1.2, rng(seed)) for seed in range(30)} == {"relu", "gelu", None}
    assert {h.shift("relu", 0.1, rng(seed)) for seed in range(30)} == {"relu", "gelu", None}


@quick
@given(hyperparameters, seeds)
def test_a_factor_of_one_stays(h: Hyperparameter, seed: int) -> None:
    value = h.sample(rng(seed))
    after = h.scale(value, 1.0, rng(seed))
    assert after == pytest.approx(value, rel=1e-9) if isinstance(h, Float) else same(after, value)


# ---- values of the right type


def test_contains_is_exact_in_type() -> None:
    assert Int(0, 1).contains(1)
    assert not Int(0, 1).contains(True)
    assert not Int(0, 1).contains(1.0)
    assert not Int(0, 1).contains(2)
    assert Float(0, 1).contains(1.0)
    assert not Float(0, 1).contains(1)
    assert not Float(0, 1).contains(math.nan)
    assert not Float(0, 1).contains("0.5")
    assert not Float(0, 1).contains(np.float64(0.5))
    assert Choice(1, "1").contains("1")
    assert not Choice(1, "1").contains(True)
    assert not Choice(1, "1").contains([1])


def test_one_and_true_are_different_choices() -> None:
    h = Choice(1, True, 1.0, ordered=True)
    assert [type(h.clip(v)) for v in (1, True, 1.0)] == [int, bool, float]
    assert [h.encode(v) for v in (1, True, 1.0)] == [0.0, 0.5, 1.0]
    assert Choice(1, 2) != Choice(True, 2)
    assert Choice(1, 2) != Choice(1.0, 2)


def test_numpy_scalars_become_plain() -> None:
    h = Choice(*np.arange(3))
    assert h == Choice(0, 1, 2)
    assert type(h.clip(np.int64(2))) is int
    assert Float(np.float32(0.5), np.int64(2)) == Float(0.5, 2.0)
    assert type(Int(np.int32(1), np.int64(9)).low) is int
    assert type(Float(0, 1).clip(np.float32(0.5))) is float


ALL = [
    Float(1e-4, 1.0, log=True),
    Float(0, 1, init=0.0, structural=True),
    Float(0.0, 0.99, log="1-x", init=(0.1, 0.2)),
    Int(1, 8),
    Int(1, 8, log=True, init=(2, 4), structural=True),
    Int(0, 8, init=0),
    Choice("relu", 1, 1.0, True, None),
    Choice("a", "b", ordered=True, init="b"),
    Choice("a", "b", None, init=(None,), structural=True),
    Choice("a", "b", None, init=("a", None)),
]


@pytest.mark.parametrize("h", ALL, ids=repr)
def test_frozen_hashable_comparable_and_shown_as_written(h: Any) -> None:
    again = eval(repr(h), {"Float": Float, "Int": Int, "Choice": Choice})
    assert again == h
    assert hash(again) == hash(h)
    assert repr(again) == repr(h)
    assert pickle.loads(pickle.dumps(h)) == h
    assert [other for other in ALL if other == h] == [h]
    with pytest.raises(AttributeError):
        h.structural = True


def test_repr() -> None:
    assert repr(Float(1e-4, 1, log=True)) == "Float(0.0001, 1.0, log=True)"
    assert repr(Int(1, 8, init=2)) == "Int(1, 8, init=2)"
    assert repr(Choice("a", 1, ordered=True, init="a")) == "Choice('a', 1, ordered=True, init='a')"


def test_describe_is_json_and_comes_back() -> None:
    space: dict[str, Hyperparameter] = {f"h{i}": h for i, h in enumerate(ALL)}
    described = describe(space)
    assert json.loads(json.dumps(described)) == described
    assert space_from(json.loads(json.dumps(described))) == space
    assert described["h0"] == {
        "type": "Float", "low": 1e-4, "high": 1.0, "log": True, "init": None, "structural": False,
    }  # fmt: skip


def test_doctests() -> None:
    assert doctest.testmod(phyla.space).failed == 0


# ---- errors: what was given, what was expected, what to do

ERRORS: list[tuple[Any, str]] = [
    (lambda: Float(1, 0), "Float(1.0, 0.0): low must be less than high."),
    (lambda: Float(1, 1), "use a constant in the script"),
    (lambda: Float(math.nan, 1), "Float: low: expected a number, got nan (float)"),
    (lambda: Float(0, math.inf), "Float: high: expected a finite number, got inf"),
    (lambda: Float(0, 10**400), "Float: high: expected a finite number, got 1000"),
    (lambda: Float("0", 1), "Float: low: expected a number, got '0' (str)"),
    (lambda: Float(False, 1), "Float: low: expected a number, got False (bool)"),
    (lambda: Float(0, 1, log=True), "Float(0.0, 1.0, log=True): log=True needs low > 0, got low=0.0"),
    (lambda: Float(0.9, 1, log="1-x"), 'log="1-x" needs high < 1, got high=1.0. Name the largest value'),
    (lambda: Float(0.1, 1, log="log"), "Float: log must be False, True or \"1-x\", got 'log'"),
    (lambda: Float(0.1, 1, log=1), 'Float: log must be False, True or "1-x", got 1'),
    (lambda: Float(-1.7e308, 1.7e308), "low and high must be distinct on their axis, and high - low finite"),
    (lambda: Float(1e300, math.nextafter(1e300, 2e300), log=True), "must be distinct on their axis"),
    (lambda: Float(0, 1, init=2), "must be one value or a range (a, b), a ≤ b, within the bounds 0.0 to 1.0, got 2"),
    (lambda: Float(0, 1, init=(0.5, 0.4)), "a ≤ b, within the bounds 0.0 to 1.0, got (0.5, 0.4)"),
    (lambda: Float(0, 1, init=(0.5, 1.4)), "within the bounds 0.0 to 1.0, got (0.5, 1.4)"),
    (lambda: Float(0, 1, init=(0.1, 0.2, 0.3)), "Float: init must be one value or a range (a, b), got (0.1, 0.2, 0.3)"),
    (lambda: Float(0, 1, init="a"), "Float: init: expected a number, got 'a' (str)"),
    (lambda: Float(0, 1, structural="yes"), "Float: structural must be True or False, got 'yes'"),
    (lambda: Int(2, 1), "Int(2, 1): low must not be greater than high"),
    (lambda: Int(1.0, 2), "Int: low: expected an integer, got 1.0 (float)"),
    (lambda: Int(0, 1.5), "Int: high: expected an integer, got 1.5 (float)"),
    (lambda: Int(0, True), "Int: high: expected an integer, got True (bool)"),
    (lambda: Int(0, 10**13), "Int: high: expected an integer within ±1e+12, got 10000000000000"),
    (lambda: Int(0, 8, log=True), "Int(0, 8, log=True): log=True needs low ≥ 1, got low=0"),
    (lambda: Int(1, 8, log="1-x"), "Int: log must be True or False, got '1-x'"),
    (lambda: Int(1, 8, init=9), "within the bounds 1 to 8, got 9"),
    (lambda: Int(1, 8, init=2.0), "Int: init: expected an integer, got 2.0 (float)"),
    (lambda: Choice(), "Choice(): at least one value is needed"),
    (lambda: Choice("a", "b", "a"), "Choice('a', 'b', 'a'): each value may be given once, and 'a' is given again"),
    (lambda: Choice(["a", "b"]), "a value must be a str, int, float, bool or None, got ['a', 'b'] (list)"),
    (lambda: Choice(len), "To choose among other things, name each and look it up in the script"),
    (lambda: Choice(math.inf, 1), "Choice: a value must be finite, got inf"),
    (lambda: Choice("a", init="b"), "Choice('a', init='b'): init must be one of the values or a tuple of them, got"),
    (lambda: Choice("a", init=()), "init must name at least one of the values"),
    (lambda: Choice("a", ordered=1), "Choice: ordered must be True or False, got 1"),
    (lambda: Choice("a", structural=None), "Choice: structural must be True or False, got None"),
    (lambda: Choice(1, 2).clip(True), "Choice(1, 2): True (bool) is none of the values"),
    (lambda: Choice("a").scale("b", 1.2, rng()), "Choice('a'): 'b' (str) is none of the values"),
    (lambda: Float(0, 1).clip("a"), "Float(0.0, 1.0): expected a number, got 'a' (str)"),
    (lambda: Float(0, 1).clip(math.nan), "Float(0.0, 1.0): expected a number, got nan (float)"),
    (lambda: Int(0, 1).clip(True), "Int(0, 1): expected a number, got True (bool)"),
    (lambda: Float(0, 1).decode(math.nan), "decode: expected a number, got nan (float)"),
    (lambda: validate_space({}), "space is empty. Name what is searched"),
    (lambda: validate_space([Float(0, 1)]), "must be a dict from names to a phyla.Float, phyla.Int or phyla.Choice"),
    (lambda: validate_space({1: Float(0, 1)}), "space: a name must be a str, got 1 (int)"),
    (
        lambda: validate_space({"lr": (0, 1)}),
        "space['lr'] must be a phyla.Float, phyla.Int or phyla.Choice, got (0, 1) (tuple)",
    ),
    (lambda: validate_space({"lr": 0.1}), "got 0.1 (float). For a value that never changes, use a constant"),
    (lambda: space_from({"lr": {"type": "Normal"}}), "'lr': not a hyperparameter that this version of phyla knows"),
    (lambda: space_from({"lr": {"type": "Int", "low": 1}}), "not a hyperparameter that this version of phyla knows"),
    (lambda: space_from({"lr": 3}), "'lr': not a hyperparameter that this version of phyla knows"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), ERRORS, ids=[message[:60] for _, message in ERRORS])
def test_errors_say_what_was_given_and_expected(call: Any, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        call()
    assert message in str(caught.value)


def test_a_valid_space_is_a_dict_of_its_own() -> None:
    space: dict[str, Hyperparameter] = {"b": Int(1, 2), "a": Choice("x")}
    assert validate_space(space) == space
    assert validate_space(space) is not space
    assert list(validate_space(space)) == ["b", "a"]
