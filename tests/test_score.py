"""What `report` takes as a score, as steps and as metrics; and what it says about everything else (fault 19)."""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import warnings
from collections import OrderedDict, deque
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from journals_by_hand import reported
from phyla.errors import ScoreError
from phyla.events import as_json_number, decode, encode
from phyla.score import check_steps, parse, windowed

jnp = pytest.importorskip("jax.numpy")
torch = pytest.importorskip("torch")

quick = settings(derandomize=True, deadline=None, max_examples=200, database=None)
NAN, INF = float("nan"), float("inf")
NEEDS_GRADIENTS = torch.tensor(1.5, requires_grad=True)


class Unspeakable:
    def __repr__(self) -> str:
        raise RuntimeError("no words")


def journalled(score: Any, metrics: Any = None, steps: Any = 1) -> Any:
    """The Reported event that `report` would write, as it is read again."""
    found = parse(score, None, metrics)
    event = reported(
        score=as_json_number(found.value), samples=found.samples, metrics=found.metrics, steps=check_steps(steps)
    )
    line = encode(event)
    json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert decode(line) == event
    return event


# Numbers ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("score", "value"),
    [
        (1, 1.0),
        (-2.5, -2.5),
        (True, 1.0),
        (10**300, 1e300),
        (np.float32(1.5), 1.5),
        (np.float64(1.5), 1.5),
        (np.float16(1.5), 1.5),
        (np.int64(3), 3.0),
        (np.bool_(True), 1.0),
        (np.array(2.0), 2.0),
        (torch.tensor(1.5), 1.5),
        (torch.tensor(3), 3.0),
        (torch.tensor(1.5, dtype=torch.bfloat16), 1.5),
        (NEEDS_GRADIENTS, 1.5),
        (torch.nn.Parameter(torch.tensor(1.5)), 1.5),
        (jnp.float32(3), 3.0),
        (jnp.array(3), 3.0),
        (Decimal("1.5"), 1.5),
        (Fraction(1, 4), 0.25),
        (1.7e308, 1.7e308),
    ],
    ids=repr,
)
def test_a_score_is_what_float_takes(score: Any, value: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert parse(score, None, None) == (value, None, None)
    assert type(parse(score, None, None).value) is float
    assert journalled(score).score == value


@pytest.mark.parametrize("score", [NAN, INF, -INF, np.float32("nan"), torch.tensor(-INF), jnp.array(NAN)], ids=repr)
def test_what_is_not_finite_is_taken_and_stays_valid_json(score: Any) -> None:
    assert journalled(score).score == {"nan": "nan", "inf": "inf", "-inf": "-inf"}[str(float(score))]


def test_none_is_no_score_yet() -> None:
    assert parse(None, None, None) == (None, None, None)
    assert journalled(None).score is None


# Samples ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "samples",
    [
        [1, 2.5, 4],
        (1, 2.5, 4),
        np.array([1, 2.5, 4]),
        np.array([1, 2.5, 4], np.float16),
        torch.tensor([1, 2.5, 4]),
        torch.tensor([1, 2.5, 4], requires_grad=True),
        jnp.array([1, 2.5, 4]),
        deque([1, 2.5, 4]),
        [np.float32(1), torch.tensor(2.5), jnp.array(4)],
    ],
    ids=lambda samples: type(samples).__name__,
)
def test_samples_score_their_mean_and_come_back_as_plain_numbers(samples: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = parse(samples, None, None)
    assert found == (2.5, [1.0, 2.5, 4.0], None)
    assert {type(sample) for sample in found.samples or ()} == {float}
    assert journalled(samples).samples == [1.0, 2.5, 4.0]


def test_a_range_and_a_single_sample_are_samples_too() -> None:
    assert parse(range(3), None, None) == (1.0, [0.0, 1.0, 2.0], None)
    assert parse(torch.tensor([7.0]), None, None) == (7.0, [7.0], None)


@pytest.mark.parametrize("nothing", [[], (), np.array([]), torch.tensor([]), jnp.array([]), range(0)], ids=repr)
def test_no_samples_are_no_score_yet(nothing: Any) -> None:
    assert parse(nothing, None, None) == (None, None, None)


@pytest.mark.parametrize(
    ("samples", "value"), [([1.0, NAN, 3.0], "nan"), ([1.0, INF], "inf"), ([-INF, 1.0], "-inf"), ([INF, -INF], "nan")]
)
def test_samples_that_are_not_all_finite_have_diverged_and_leave_no_samples(samples: list[float], value: str) -> None:
    event = journalled(samples)
    assert event.score == value
    assert event.samples is None  # JSON has no place for them, and the window no use


def test_huge_samples_have_a_finite_mean() -> None:
    assert parse([1.5e308, 1.5e308, 1.5e308], None, None).value == pytest.approx(1.5e308)
    assert windowed([1.5e308], [1.5e308], 2) == 1.5e308
    assert parse([1e308, 1e308, -1e308, -1e308], None, None).value == 0


def test_the_window_takes_the_newest() -> None:
    assert windowed([1.0, 2.0], [3.0, 4.0], 3) == 3.0
    assert windowed([], [3.0, 4.0], 1) == 4.0
    assert windowed([1.0] * 9, [2.0], 10) == 1.1


@quick
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=20))
def test_the_mean_of_finite_samples_is_finite_and_between_them(samples: list[float]) -> None:
    value = parse(samples, None, None).value
    assert value is not None
    slack = 1e-9 * max(abs(s) for s in samples)
    assert min(samples) - slack <= value <= max(samples) + slack


# Refused ------------------------------------------------------------------------------------------------------------

EXPECTED = "expected a number, this interval's samples as a flat sequence of numbers, None for no score yet, or a dict"


@pytest.mark.parametrize(
    ("score", "said"),
    [
        ("0.5", "report was given '0.5' (str) as a score"),
        ("", "report was given '' (str) as a score"),
        (b"1", "report was given b'1' (bytes) as a score"),
        (bytearray(b"12"), "report was given bytearray(b'12') (bytearray) as a score"),
        (memoryview(b"12"), "(memoryview) as a score"),
        (1j, "report was given 1j (complex) as a score"),
        (np.complex128(1j), "(complex128) as a score"),
        (np.complex64(1j), "(complex64) as a score"),
        (np.array(1j), "(ndarray) as a score"),
        (torch.tensor(1j), "report was given tensor(0.+1.j) (Tensor) as a score"),
        (torch.tensor([1j]), "report was given tensor([0.+1.j]) (Tensor) as a score"),
        (jnp.array(1j), "(ArrayImpl) as a score"),
        (torch.tensor(1.0, device="meta"), "(Tensor) as a score"),
        (np.zeros((2, 3)), "report was given a score of shape (2, 3)"),
        (torch.tensor([[1.0]]), "report was given a score of shape (1, 1)"),
        (jnp.zeros((1, 1)), "report was given a score of shape (1, 1)"),
        (np.zeros((0, 2)), "report was given a score of shape (0, 2)"),
        ([[1.0]], "report was given [[1.0]] (list) as a score"),
        ([1.0, None], "report was given [1.0, None] (list) as a score"),
        (["1", "2"], "report was given ['1', '2'] (list) as a score"),
        ([1j], "report was given [1j] (list) as a score"),
        ([np.array([1.0])], "report was given [array([1.])] (list) as a score"),
        (np.array(["1"]), "(ndarray) as a score"),
        (np.array(None), "(ndarray) as a score"),
        ({1.0}, "report was given {1.0} (set) as a score"),
        ((x for x in (1.0,)), "(generator) as a score"),
        (object, "(type) as a score"),
        (np.datetime64("2020-01-01"), "(datetime64) as a score"),
        (datetime.date(2020, 1, 1), "(date) as a score"),
        (10**400, "… (int) as a score"),
        (10**5000, "(int) as a score"),
        ([10**400], "… (list) as a score"),
        (Unspeakable(), "Unspeakable object"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_everything_else_is_refused_with_what_was_given_and_what_was_expected(score: Any, said: str) -> None:
    with pytest.raises(ScoreError) as refused:
        parse(score, None, None)
    assert said in str(refused.value)
    assert str(refused.value).endswith(EXPECTED)
    assert len(str(refused.value)) < 300


atoms = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.complex_numbers(), st.text(), st.binary(), st.fractions(),
    st.decimals(), st.dates(), st.sampled_from([int, len, ..., NotImplemented, range(3), np.float32(2), torch.ones(3)]),
)  # fmt: skip
anything = atoms | st.lists(st.floats()) | st.recursive(atoms, st.lists) | st.dictionaries(st.text(), atoms)


@quick
@given(anything)
def test_whatever_is_given_is_a_score_or_a_score_error(score: Any) -> None:
    with contextlib.suppress(ScoreError):
        journalled(score)


# Dicts and metrics --------------------------------------------------------------------------------------------------


def test_of_a_dict_the_metric_is_the_score_and_the_rest_are_metrics() -> None:
    score = OrderedDict(accuracy=np.float32(0.5), loss=2.0, epoch=3)
    assert parse(score, "accuracy", None) == (0.5, None, {"loss": 2.0, "epoch": 3})
    assert parse(score, "accuracy", {"epoch": 4, "note": "a"}) == (0.5, None, {"loss": 2.0, "epoch": 4, "note": "a"})
    assert parse({"returns": [1.0, 3.0]}, "returns", None) == (2.0, [1.0, 3.0], None)
    assert parse({"accuracy": None}, "accuracy", None) == (None, None, None)


def test_with_a_metric_named_a_plain_score_is_taken_all_the_same() -> None:
    assert parse(0.5, "accuracy", {"loss": 1.0}) == (0.5, None, {"loss": 1.0})


def test_a_dict_without_a_metric_is_refused_with_its_keys_and_the_way_on() -> None:
    with pytest.raises(ScoreError, match=r"a dict with 'accuracy', 'loss': name the score .* Population\(metric=…\)"):
        parse({"accuracy": 1.0, "loss": 2.0}, None, None)
    with pytest.raises(ScoreError, match="a dict with nothing"):
        parse({}, None, None)


def test_a_dict_that_lacks_the_metric_is_refused_with_its_keys() -> None:
    with pytest.raises(ScoreError, match=r"a dict with 'loss', but Population\(metric='accuracy'\) is not among them"):
        parse({"loss": 2.0}, "accuracy", None)


def test_a_dict_whose_metric_is_no_number_is_refused() -> None:
    with pytest.raises(ScoreError, match=r"given \{'a': 1\} \(dict\) as a score"):
        parse({"accuracy": {"a": 1}}, "accuracy", None)


@pytest.mark.parametrize(
    ("metric", "plain"),
    [
        (1, 1),
        (1.5, 1.5),
        (True, True),
        (None, None),
        ("text", "text"),
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.float64(0.5), 0.5),
        (np.bool_(False), False),
        (np.str_("x"), "x"),
        (np.longdouble(0.5), 0.5),
        (np.array([1, 2]), [1, 2]),
        (np.array([[1.0, NAN]]), [[1.0, "nan"]]),
        (np.array(4.0), 4.0),
        (torch.tensor(2), 2),
        (torch.ones(2, requires_grad=True), [1.0, 1.0]),
        (jnp.array([1.0, 2.0]), [1.0, 2.0]),
        (Fraction(1, 2), 0.5),
        (NAN, "nan"),
        (-INF, "-inf"),
        (10**30, 1e30),
        (2**63 - 1, 2**63 - 1),
        ((1, {"a": (np.int8(2), None)}), [1, {"a": [2, None]}]),
        ({1: 2, ("a",): {"b": INF}}, {"1": 2, "('a',)": {"b": "inf"}}),
        ("half a pair \ud800", "half a pair ?"),
        ({"\udc80": 1}, {"?": 1}),
    ],
    ids=repr,
)
def test_metrics_of_any_library_become_json(metric: Any, plain: Any) -> None:
    found = journalled(1.0, {"m": metric}).metrics["m"]
    assert found == plain
    assert type(found) is type(plain)


@pytest.mark.parametrize(
    "metric",
    [{1, 2}, object(), len, Unspeakable(), 1j, np.complex64(1j), np.array([1j]), torch.tensor(1j), b"12", 10**400,
     Fraction(10**400), np.datetime64("2020-01-01"), torch.ones(1, device="meta")],
    ids=lambda metric: type(metric).__name__,
)  # fmt: skip
@pytest.mark.parametrize("nested", [False, True])
def test_a_metric_that_is_no_json_is_refused_by_name(metric: Any, nested: bool) -> None:
    with pytest.raises(
        ScoreError, match=r"report was given the metric 'm' = .*; expected numbers, strings, lists, dicts"
    ):
        parse(1.0, None, {"m": [{"a": metric}] if nested else metric})


def test_a_metric_that_contains_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(ScoreError, match="the metric 'm' = "):
        parse(1.0, None, {"m": endless})


@pytest.mark.parametrize("metrics", [3, [1], "loss", {"loss"}])
def test_metrics_must_be_a_dict(metrics: Any) -> None:
    with pytest.raises(ScoreError, match=r"report was given metrics=.*; expected a dict of names and values"):
        parse(1.0, None, metrics)


def test_empty_metrics_are_none() -> None:
    assert parse(1.0, None, {}).metrics is None


# Steps --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "plain"),
    [
        (0, 0),
        (1, 1),
        (2.5, 2.5),
        (2**40, 2**40),
        (np.int32(7), 7),
        (np.float64(2.5), 2.5),
        (np.float32(1.5), 1.5),
        (np.array(3), 3),
        (torch.tensor(3), 3),
        (torch.tensor([3]), 3),
        (jnp.array(3), 3),
    ],
    ids=repr,
)
def test_steps_are_plain_numbers_of_any_library(steps: Any, plain: float) -> None:
    assert check_steps(steps) == plain
    assert type(check_steps(steps)) is type(plain)
    assert journalled(1.0, steps=steps).steps == plain


@pytest.mark.parametrize("steps", [-1, -0.5, NAN, INF, np.float32("nan")], ids=repr)
def test_steps_are_finite_and_not_negative(steps: Any) -> None:
    with pytest.raises(
        ScoreError, match=r"report was given steps=.*expected a finite number, 0 or more: this interval's own"
    ):
        check_steps(steps)


@pytest.mark.parametrize(
    "steps",
    [True, np.bool_(True), "3", np.str_("3"), None, 1j, np.complex64(1), [3], Decimal(3), Fraction(1, 2), 10**400,
     np.array([1, 2]), torch.tensor([3, 4]), np.array(None), object(), Unspeakable()],
    ids=lambda steps: f"{type(steps).__name__}",
)  # fmt: skip
def test_other_steps_are_refused(steps: Any) -> None:
    with pytest.raises(ScoreError, match=r"report was given steps=.*expected a number"):
        check_steps(steps)


def test_a_score_of_any_float_survives_the_journal() -> None:
    for value in (5e-324, -0.0, 0.1, 1 / 3, 1.7976931348623157e308):
        found = journalled(value).score
        assert found == value
        assert math.copysign(1, found) == math.copysign(1, value)
