"""What is searched: Float, Int and Choice. Each samples, moves, clips and encodes itself, closed under all of it.

Everything about one kind of hyperparameter stands on its class; nobody else looks at types. Values are plain Python
values (float, int, str, bool, None), always in bounds and in type, whatever the rounding: exp(log(x)) may exceed x.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

import numpy as np

from phyla.errors import SettingsError

Log: TypeAlias = Literal[False, True, "1-x"]
"""Which axis a number is sampled, shifted and encoded on: itself, its logarithm, or the logarithm of 1 - x."""

# The functions onto each axis and back. All increase, so that low stays low: the axis of "1-x" is -log(1 - x).
_AXES: Mapping[Log, tuple[Callable[[float], float], Callable[[float], float]]] = {
    False: (float, float),
    True: (math.log, math.exp),
    "1-x": (lambda x: -math.log1p(-x), lambda y: -math.expm1(-y)),
}

# No factor leaves zero. There, a factor moves as far as it would move a value at this fraction of the range.
LEAVES_ZERO = 0.1
# What is nearer to zero than this fraction of the range counts as zero: no factor would ever bring it back.
COUNTS_AS_ZERO = 1e-15
# Narrower ranges (on their axis) are bounds that rounding cannot tell apart.
_NARROWEST = 1e-300
# Within this, encode and decode are exact for all integers on both axes.
_LARGEST_INT = 10**12

_N = TypeVar("_N", int, float)


Value: TypeAlias = float | int | str | bool | None
"""A hyperparameter's value, as a plain Python value."""

Hypers: TypeAlias = dict[str, Any]
"""Hyperparameters by name; each is a Value."""


class Hyperparameter(Protocol):
    """What Float, Int and Choice have in common. All of them are frozen, hashable and comparable.

    Wherever a value goes in, it is clipped first, so a donor's value from before the space changed is no special case.
    Raises SettingsError where `clip` does. `rng` is consumed only by the methods that take it.
    """

    @property
    def structural(self) -> bool:
        """The state's shape depends on it: it always follows the weights, and is never moved alone."""
        ...

    def sample(self, rng: np.random.Generator) -> Value:
        """A draw from the prior: uniform on the axis, over the full range, whatever `init` says."""
        ...

    def start(self, rng: np.random.Generator) -> Value:
        """Where a member begins: a draw from the prior, narrowed to `init`."""
        ...

    def scale(self, value: Value, factor: float, rng: np.random.Generator) -> Value:
        """The multiplicative move by `factor` > 0: above 1 away from zero (for "1-x": from one), below 1 towards it."""
        ...

    def shift(self, value: Value, sigma: float, rng: np.random.Generator) -> Value:
        """The additive move: Gaussian, of standard deviation `sigma` > 0 as a fraction of the range, on the axis."""
        ...

    def step(self, value: Value, steps: int, levels: int, rng: np.random.Generator) -> Value:
        """The move by so many steps, up or down (negative), of which `levels` make the whole axis. 0 stays."""
        ...

    def clip(self, value: Value) -> Value:
        """The nearest allowed value, in the right type. Raises SettingsError for a value that is near to none."""
        ...

    def contains(self, value: object) -> bool:
        """Whether this is a value that could stand here, in bounds and exactly in type (True is no 1, 1 is no 1.0)."""
        ...

    def encode(self, value: Value) -> float:
        """The value's place on the axis, in [0, 1]; low is 0 and high is 1."""
        ...

    def decode(self, x: float) -> Value:
        """The value at that place, clipped into [0, 1]: `decode(encode(v))` is v, for a Float up to rounding."""
        ...


Space: TypeAlias = Mapping[str, Hyperparameter]
"""The hyperparameters by name."""


@dataclass(frozen=True, repr=False)
class Float:
    """A real number in [low, high].

    log: False; True for what spans magnitudes, such as a learning rate (needs low > 0); "1-x" for what approaches 1,
        such as a discount or a momentum (needs high < 1): it is sampled and shifted on log(1 - x), and factors apply to
        1 - x.
    init: one value, or a range (a, b), where members start; not where they may go.
    structural: the state's shape depends on it.
    Raises SettingsError for bounds, or an init, that cannot work.

    >>> Float(1e-4, 1.0, log=True)
    Float(0.0001, 1.0, log=True)
    >>> Float(0.9, 0.9999, log="1-x").scale(0.99, 0.5, np.random.default_rng(0))
    0.995
    """

    low: float
    high: float
    log: Log = False
    init: float | tuple[float, float] | None = None
    structural: bool = False

    def __post_init__(self) -> None:
        _normalise(self, _finite)
        if not (self.log is True or self.log is False or self.log == "1-x"):
            raise SettingsError(f'Float: log must be False, True or "1-x", got {self.log!r}')
        if self.low >= self.high:
            raise SettingsError(
                f"{self!r}: low must be less than high. For a value that never changes, use a constant in the script"
            )
        if self.log is True and self.low <= 0:
            raise SettingsError(f"{self!r}: log=True needs low > 0, got low={self.low}")
        if self.log == "1-x" and self.high >= 1:
            raise SettingsError(
                f'{self!r}: log="1-x" needs high < 1, got high={self.high}. '
                "Name the largest value that makes sense, such as 0.9999"
            )
        on_axis = _AXES[self.log][0]
        if not _NARROWEST < on_axis(self.high) - on_axis(self.low) < math.inf:
            raise SettingsError(f"{self!r}: low and high must be distinct on their axis, and high - low finite")
        _check_init(self, self.init, self.low, self.high)

    def __repr__(self) -> str:
        return _show(self, self.low, self.high, log=self.log, init=self.init, structural=self.structural)

    def sample(self, rng: np.random.Generator) -> float:
        """Uniform on the axis: log-uniform where `log=True`."""
        return _decode(rng.random(), self.low, self.high, self.log)

    def start(self, rng: np.random.Generator) -> float:
        """Uniform on the axis, within `init`."""
        return _decode(rng.random(), *_where(self.init, self.low, self.high), self.log)

    def scale(self, value: Value, factor: float, rng: np.random.Generator) -> float:
        """value × factor, clipped; for "1-x", 1 - x is multiplied. At a bound that the factor points out of, it stays.

        From zero it moves by |factor - 1| × a tenth of the range, into the range; with a random sign where both are
        allowed. No other move changes the sign: use `shift` where it should.
        """
        x = self.clip(value)
        if self.log == "1-x":
            return self.clip(1 - (1 - x) * factor)
        return self.clip(_times(x, factor, self.low, self.high, rng))

    def shift(self, value: Value, sigma: float, rng: np.random.Generator) -> float:
        """The value moved by N(0, sigma²) on the axis, clipped."""
        return self.decode(self.encode(value) + sigma * rng.standard_normal())

    def step(self, value: Value, steps: int, levels: int, rng: np.random.Generator) -> float:
        """The value moved by steps / levels on the axis, clipped."""
        return self.decode(self.encode(value) + steps / levels) if steps else self.clip(value)

    def clip(self, value: Value) -> float:
        """The nearest value in [low, high]. Raises SettingsError for what is no number, and for NaN."""
        return float(_clamp(_number(value, self), self.low, self.high))

    def contains(self, value: object) -> bool:
        """Whether value is a float in [low, high]."""
        return type(value) is float and self.low <= value <= self.high

    def encode(self, value: Value) -> float:
        """The value's place on the axis, in [0, 1]."""
        return _encode(self.clip(value), self.low, self.high, self.log)

    def decode(self, x: float) -> float:
        """The value at that place on the axis."""
        return _decode(x, self.low, self.high, self.log)


@dataclass(frozen=True, repr=False)
class Int:
    """An integer in [low, high], both included. A move always moves it, by at least one, unless low equals high.

    log: True for what spans magnitudes, such as a batch size (needs low ≥ 1).
    init: one value, or a range (a, b), where members start; not where they may go.
    structural: the state's shape depends on it.
    Raises SettingsError for bounds, or an init, that cannot work.

    >>> Int(1, 8).scale(2, 1.2, np.random.default_rng(0))
    3
    """

    low: int
    high: int
    log: bool = False
    init: int | tuple[int, int] | None = None
    structural: bool = False

    def __post_init__(self) -> None:
        _normalise(self, _integer)
        _check_flag(self, "log", self.log)
        if self.low > self.high:
            raise SettingsError(f"{self!r}: low must not be greater than high")
        if self.log and self.low < 1:
            raise SettingsError(f"{self!r}: log=True needs low ≥ 1, got low={self.low}")
        _check_init(self, self.init, self.low, self.high)

    def __repr__(self) -> str:
        return _show(self, self.low, self.high, log=self.log, init=self.init, structural=self.structural)

    def sample(self, rng: np.random.Generator) -> int:
        """Uniform; where `log=True`, P(k) is proportional to log((k + ½) / (k - ½))."""
        return self._draw(self.low, self.high, rng)

    def start(self, rng: np.random.Generator) -> int:
        """As `sample`, within `init`."""
        return self._draw(*_where(self.init, self.low, self.high), rng)

    def scale(self, value: Value, factor: float, rng: np.random.Generator) -> int:
        """value × factor, rounded and clipped, and at least one away: where the factor points, or else the other way.

        From zero it moves as a Float does, by at least one. A factor of 1 stays.
        """
        n = self.clip(value)
        if factor == 1:
            return n
        target = _times(n, factor, self.low, self.high, rng)
        return self._moved(n, target, up=target > n)

    def shift(self, value: Value, sigma: float, rng: np.random.Generator) -> int:
        """The value moved by N(0, sigma²) on the axis, rounded and clipped, and at least one away."""
        n, noise = self.clip(value), sigma * rng.standard_normal()
        return self._moved(n, _decode(self.encode(n) + noise, self.low, self.high, self.log), up=noise > 0)

    def step(self, value: Value, steps: int, levels: int, rng: np.random.Generator) -> int:
        """The value moved by steps / levels on the axis, rounded and clipped, and by one for each step at least."""
        n, farther = self.clip(value), max if steps > 0 else min
        return self.clip(farther(n + steps, self.decode(self.encode(n) + steps / levels))) if steps else n

    def clip(self, value: Value) -> int:
        """The nearest integer in [low, high]. Raises SettingsError for what is no number, and for NaN."""
        return round(_clamp(_number(value, self), self.low, self.high))

    def contains(self, value: object) -> bool:
        """Whether value is an int (not a bool) in [low, high]."""
        return type(value) is int and self.low <= value <= self.high

    def encode(self, value: Value) -> float:
        """The value's place on the axis, in [0, 1]."""
        return _encode(self.clip(value), self.low, self.high, self.log)

    def decode(self, x: float) -> int:
        """The integer nearest to that place on the axis."""
        return self.clip(_decode(x, self.low, self.high, self.log))

    def _draw(self, low: int, high: int, rng: np.random.Generator) -> int:
        # Each integer owns the half unit on either side, so that both ends are as likely as their neighbours.
        return _clamp(round(_decode(rng.random(), low - 0.5, high + 0.5, self.log)), low, high)

    def _moved(self, value: int, target: float, up: bool) -> int:
        """The target as an allowed integer other than value: a step `up` (or down) at least, or back from a bound."""
        step = 1 if up else -1
        candidates = (self.clip(target), self.clip(value + step), self.clip(value - step))
        return next((n for n in candidates if n != value), value)


@dataclass(frozen=True, init=False, repr=False, eq=False)
class Choice:
    """One of some values: str, int, float, bool or None. 1, 1.0 and True are three different values.

    ordered: neighbours are similar, so a move goes to a neighbour; otherwise it redraws among all, this one included.
    init: one value, or a tuple of values, where members start (to start at None: `init=(None,)`).
    structural: the state's shape depends on it.
    Raises SettingsError for no values, one given twice, others than these types, or an init that is none of them.

    >>> Choice(32, 64, 128, ordered=True).scale(64, 1.2, np.random.default_rng(0))
    128
    """

    values: tuple[Value, ...]
    ordered: bool
    init: tuple[Value, ...] | None  # one value is kept as a tuple of one
    structural: bool

    def __init__(
        self,
        *values: Value,
        ordered: bool = False,
        init: Value | tuple[Value, ...] | list[Value] = None,
        structural: bool = False,
    ):
        several = init if isinstance(init, (tuple, list)) else None if init is None else [init]
        object.__setattr__(self, "values", tuple(_choosable(v) for v in values))
        object.__setattr__(self, "ordered", ordered)
        object.__setattr__(self, "init", None if several is None else tuple(_choosable(v) for v in several))
        object.__setattr__(self, "structural", structural)
        _check_flag(self, "ordered", ordered)
        _check_flag(self, "structural", structural)
        if not self.values:
            raise SettingsError("Choice(): at least one value is needed")
        if twice := [v for i, v in enumerate(self.values) if self.index(v) != i]:
            raise SettingsError(f"{self!r}: each value may be given once, and {twice[0]!r} is given again")
        if self.init == ():
            raise SettingsError(f"{self!r}: init must name at least one of the values")
        if strange := [v for v in self.init or () if not self.contains(v)]:
            raise SettingsError(f"{self!r}: init must be one of the values or a tuple of them, got {strange[0]!r}")

    def __repr__(self) -> str:
        init = self.init if self.init is None or len(self.init) != 1 or self.init == (None,) else self.init[0]
        return _show(self, *self.values, ordered=self.ordered, init=init, structural=self.structural)

    # By repr, since 1 == 1.0 == True but a choice among them is not the same.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Choice) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def sample(self, rng: np.random.Generator) -> Value:
        """Uniform over the values."""
        return self.values[rng.integers(len(self.values))]

    def start(self, rng: np.random.Generator) -> Value:
        """Uniform over `init`."""
        values = self.init or self.values
        return values[rng.integers(len(values))]

    def scale(self, value: Value, factor: float, rng: np.random.Generator) -> Value:
        """Ordered: the next value for a factor above 1, the one before below 1; from an end, its only neighbour.

        Otherwise redrawn among all values, so that a choice of two is not flipped by force. A factor of 1 stays.
        """
        here = self.index(value)
        return self.values[here] if factor == 1 else self._moved(here, up=factor > 1, rng=rng)

    def shift(self, value: Value, sigma: float, rng: np.random.Generator) -> Value:
        """Ordered: a neighbour, either one with the same probability. Otherwise redrawn among all values."""
        return self._moved(self.index(value), up=rng.random() < 0.5, rng=rng)

    def step(self, value: Value, steps: int, levels: int, rng: np.random.Generator) -> Value:
        """Ordered: the value so many places on, or the last that there is. Otherwise redrawn among all values."""
        here = self.index(value)
        if steps and not self.ordered:
            return self.sample(rng)
        return self.values[_clamp(here + steps, 0, len(self.values) - 1)]

    def clip(self, value: Value) -> Value:
        """The value itself. Raises SettingsError for one that is none of the values: nothing is near to it."""
        return self.values[self.index(value)]

    def contains(self, value: object) -> bool:
        """Whether value is one of the values, in type too."""
        return _typed(value) in map(_typed, self.values)

    def encode(self, value: Value) -> float:
        """The value's place among the values, in [0, 1]."""
        return self.index(value) / max(len(self.values) - 1, 1)

    def decode(self, x: float) -> Value:
        """The value nearest to that place."""
        last = len(self.values) - 1
        return self.values[round(_clamp(_number(x, "decode"), 0, 1) * last)]

    def index(self, value: Value) -> int:
        """The value's place among the values, from 0. Raises SettingsError for one that is none of them."""
        value = _plain(value)
        if not self.contains(value):
            raise SettingsError(f"{self!r}: {value!r} ({type(value).__name__}) is none of the values")
        return [_typed(v) for v in self.values].index(_typed(value))

    def _moved(self, index: int, up: bool, rng: np.random.Generator) -> Value:
        if not self.ordered:
            return self.sample(rng)
        return self.values[Int(0, len(self.values) - 1)._moved(index, index, up)]


_KINDS: Mapping[str, Callable[..., Hyperparameter]] = {"Float": Float, "Int": Int, "Choice": Choice}
_NAMES = "a phyla.Float, phyla.Int or phyla.Choice"


def validate_space(space: Mapping[str, Hyperparameter]) -> dict[str, Hyperparameter]:
    """The space, as a dict of its own. Raises SettingsError if it is empty, or not from names to hyperparameters."""
    if not isinstance(space, Mapping):
        raise SettingsError(f"space must be a dict from names to {_NAMES}, got {space!r} ({type(space).__name__})")
    if not space:
        raise SettingsError('space is empty. Name what is searched: {"lr": phyla.Float(1e-4, 1.0, log=True)}')
    for name, hyperparameter in space.items():
        if not isinstance(name, str):
            raise SettingsError(f"space: a name must be a str, got {name!r} ({type(name).__name__})")
        if not isinstance(hyperparameter, (Float, Int, Choice)):
            raise SettingsError(
                f"space[{name!r}] must be {_NAMES}, got {hyperparameter!r} ({type(hyperparameter).__name__}). "
                "For a value that never changes, use a constant in the script"
            )
    return dict(space)


def draw(space: Space, rng: np.random.Generator) -> Hypers:
    """Hyperparameters to start with; the order in which a space names them changes nothing."""
    drawn = {name: space[name].start(rng) for name in sorted(space)}
    return {name: drawn[name] for name in space}


def describe(space: Space) -> dict[str, dict[str, Any]]:
    """The space as plain JSON, all fields written out: `{"lr": {"type": "Float", "low": 0.0001, …}}`."""
    return {name: _describe(hyperparameter) for name, hyperparameter in space.items()}


def space_from(described: Mapping[str, Any]) -> dict[str, Hyperparameter]:
    """The space that `describe` described. Raises SettingsError for anything else."""
    return validate_space({name: _hyperparameter_from(name, entry) for name, entry in described.items()})


def _describe(hyperparameter: Any) -> dict[str, Any]:
    described: dict[str, Any] = {"type": type(hyperparameter).__name__}
    for field in fields(hyperparameter):
        value = getattr(hyperparameter, field.name)
        described[field.name] = list(value) if isinstance(value, tuple) else value
    return described


def _hyperparameter_from(name: str, described: Mapping[str, Any]) -> Hyperparameter:
    try:
        options = dict(described)
        return _KINDS[options.pop("type")](*options.pop("values", ()), **options)
    except (KeyError, TypeError, ValueError) as error:
        why = f"not a hyperparameter that this version of phyla knows ({error})"
        raise SettingsError(f"{name!r}: {why}: {described!r}") from None


# ---- numbers, shared by Float and Int


def _clamp(value: _N, low: _N, high: _N) -> _N:
    return min(max(value, low), high)


def _encode(value: float, low: float, high: float, log: Log) -> float:
    """value in [low, high] as its place on the axis, in [0, 1]. 0 where low equals high."""
    on_axis = _AXES[log][0]
    bottom, top = on_axis(low), on_axis(high)
    return _clamp((on_axis(value) - bottom) / (top - bottom), 0.0, 1.0) if top > bottom else 0.0


def _decode(x: float, low: float, high: float, log: Log) -> float:
    """The value at place x of the axis from low to high: exactly low at 0, exactly high at 1, never outside."""
    x = _clamp(_number(x, "decode"), 0.0, 1.0)
    if x in (0.0, 1.0):
        return high if x else low
    on_axis, from_axis = _AXES[log]
    bottom, top = on_axis(low), on_axis(high)
    return _clamp(from_axis(_clamp(bottom + x * (top - bottom), bottom, top)), low, high)  # both may round outwards


def _times(value: float, factor: float, low: float, high: float, rng: np.random.Generator) -> float:
    """value × factor, not clipped; away from zero by a step of its own, in a direction that the bounds allow."""
    width = high - low
    if not low <= 0 <= high or abs(value) > COUNTS_AS_ZERO * width:
        return value * factor
    up = low == 0 or (high > 0 and rng.random() < 0.5)
    return value + (1 if up else -1) * abs(factor - 1) * LEAVES_ZERO * width


def _where(init: _N | tuple[_N, _N] | None, low: _N, high: _N) -> tuple[_N, _N]:
    """The range where members start."""
    if init is None:
        return low, high
    return init if isinstance(init, tuple) else (init, init)


# ---- what may be given


def _plain(value: Any) -> Any:
    """A NumPy scalar as the Python value that it stands for; anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def _typed(value: object) -> tuple[type, object]:
    """What tells values apart where 1, 1.0 and True are three."""
    return type(value), value


def _number(value: Any, what: object) -> float:
    """An int or a float, infinite too, but neither a bool nor NaN. what: it is to be, in words, or as whose value."""
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value:
        raise SettingsError(f"{what!s}: expected a number, got {value!r} ({type(value).__name__})")
    return value


def _finite(value: Any, what: str) -> float:
    number = _number(value, what)
    if not abs(number) <= sys.float_info.max:  # an int may be too large for isfinite
        raise SettingsError(f"{what}: expected a finite number, got {value!r}")
    return float(number)


def _integer(value: Any, what: str) -> int:
    number = _plain(value)
    if isinstance(number, bool) or not isinstance(number, int):
        raise SettingsError(f"{what}: expected an integer, got {number!r} ({type(number).__name__})")
    if abs(number) > _LARGEST_INT:
        raise SettingsError(f"{what}: expected an integer within ±{_LARGEST_INT:.0e}, got {number!r}")
    return int(number)


def _choosable(value: Any) -> Value:
    plain: Value = _plain(value)
    if type(plain) not in (str, int, float, bool, type(None)):
        raise SettingsError(
            f"Choice: a value must be a str, int, float, bool or None, got {value!r} ({type(value).__name__}). "
            "To choose among other things, name each and look it up in the script"
        )
    if isinstance(plain, float) and not math.isfinite(plain):
        raise SettingsError(f"Choice: a value must be finite, got {value!r}. Use None or a name for it")
    return plain


def _normalise(self: Float | Int, number: Callable[[Any, str], float]) -> None:
    """Makes bounds and init plain numbers of the right type, and checks the types of all fields but `log`."""
    kind = type(self).__name__
    for field in ("low", "high"):
        object.__setattr__(self, field, number(getattr(self, field), f"{kind}: {field}"))
    if isinstance(self.init, (tuple, list)):
        if len(self.init) != 2:
            raise SettingsError(f"{kind}: init must be one value or a range (a, b), got {self.init!r}")
        object.__setattr__(self, "init", tuple(number(x, f"{kind}: init") for x in self.init))
    elif self.init is not None:
        object.__setattr__(self, "init", number(self.init, f"{kind}: init"))
    _check_flag(self, "structural", self.structural)


def _check_flag(self: Float | Int | Choice, name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise SettingsError(f"{type(self).__name__}: {name} must be True or False, got {value!r}")


def _check_init(self: Float | Int, init: _N | tuple[_N, _N] | None, low: _N, high: _N) -> None:
    a, b = _where(init, low, high)
    if not low <= a <= b <= high:
        expected = f"one value or a range (a, b), a ≤ b, within the bounds {low} to {high}"
        raise SettingsError(f"{self!r}: init must be {expected}, got {init!r}")


def _show(self: object, *args: object, **options: object) -> str:
    """The call that makes this; options at their default, False or None, are left out."""
    named = [f"{name}={value!r}" for name, value in options.items() if value is not False and value is not None]
    return f"{type(self).__name__}({', '.join([*map(repr, args), *named])})"
