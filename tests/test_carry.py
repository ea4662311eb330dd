"""carry(saved, then, now), by itself: a pure function over plain trees."""

import copy

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from phyla.state import carry

numbers = st.one_of(st.floats(1e-6, 1e6), st.integers(1, 10**6))
values = st.one_of(numbers, st.none(), st.booleans(), st.text(max_size=3), st.floats(), st.tuples(numbers, numbers))
options = st.dictionaries(
    st.sampled_from(["lr", "initial_lr", "betas", "eps", "gamma", "base_lrs", "_last_lr", "T_max"]), values
)
trees = st.recursive(
    st.one_of(values, options), lambda c: st.one_of(st.lists(c, max_size=3), st.dictionaries(st.text(max_size=2), c))
)


@given(trees, trees)
@settings(max_examples=60, deadline=None)
def test_what_init_makes_as_before_is_untouched(saved, made):
    before = repr(saved)
    assert carry(saved, made, copy.deepcopy(made)) is saved
    assert repr(saved) == before


@given(trees, trees, trees)
@settings(max_examples=80, deadline=None)
def test_carry_takes_anything(saved, then, now):
    before = repr((saved, then, now))
    carry(saved, then, now)
    assert repr((saved, then, now)) == before


@given(options, st.data())
@settings(max_examples=100, deadline=None)
def test_what_was_not_moved_becomes_exactly_what_init_makes(then, data):
    now = {key: data.draw(values) if data.draw(st.booleans()) else value for key, value in then.items()}
    saved = copy.deepcopy(then)
    carried = carry(saved, then, now)
    for key in now.keys() - {"lr", "_last_lr"}:
        if type(then[key]) in (int, float) and type(now[key]) in (int, float) and then[key] == then[key]:
            assert repr(carried[key]) == repr(now[key]) or carried[key] == then[key] == now[key]


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6), st.floats(1e-6, 1e6), st.floats(1e-6, 1e6))
def test_ratios_compose(saved, a, b, c):
    once = carry({"x": saved}, {"x": a}, {"x": c})["x"]
    twice = carry(carry({"x": saved}, {"x": a}, {"x": b}), {"x": b}, {"x": c})["x"]
    assert twice == pytest.approx(once, rel=1e-9)
    back = carry(carry({"x": saved}, {"x": a}, {"x": b}), {"x": b}, {"x": a})["x"]
    assert back == pytest.approx(saved, rel=1e-9)


@given(st.floats(0, 10), st.floats(1e-3, 10), st.floats(1e-3, 10), st.floats(0, 10))
def test_a_scheduled_rate_goes_by_its_base(rate, then, now, start):
    assume(then != now)
    saved = {"lr": rate, "initial_lr": then, "_": 0}
    carried = carry(saved, {"lr": start * then, "initial_lr": then}, {"lr": start * now, "initial_lr": now})
    assert carried["initial_lr"] == now
    assert carried["lr"] == pytest.approx(rate * now / then)
    assert carried["_"] == 0


def test_where_a_ratio_has_no_meaning_the_new_value_is_taken():
    nan, inf = float("nan"), float("inf")
    for saved, then, now in [
        (0.5, 0.0, 0.1), (0.5, 0, 3), (True, True, False), ("a", "a", "b"), (None, None, 1.0), (1.0, 1.0, None),
        (2.0, inf, 1.0), (1.0, nan, 0.5), ((1, 2), (1, 2), (1, 2, 3)), (5, None, 2), (1, True, 2),
    ]:  # fmt: skip
        assert carry(saved, then, now) == now
    assert carry(7, 2, 4) == 14
    assert type(carry(7, 2, 3)) is int
    assert carry(7, 2, 3) == round(10.5)
    assert carry(nan, 1.0, 2.0) != carry(nan, 1.0, 2.0)
    assert carry({"a": 1}, {}, {"b": 2}) == {"a": 1, "b": 2}
    assert carry({"a": 1}, {"b": 2}, {}) == {"a": 1}
