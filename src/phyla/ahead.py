"""Deciding ahead: what the members of a population will draw in the intervals to come, whoever comes out best in them.

Each draw is keyed by member and interval. So a program that trains a whole population can be given them beforehand, rank and
copy by itself, and come to what the worker would have decided between its intervals. This is for `Truncation` and `Perturb`:
how much they draw does not depend on what was reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np

from phyla import randomness
from phyla.decide import Choice
from phyla.errors import SettingsError
from phyla.events import Claimed, Ref
from phyla.randomness import Purpose
from phyla.space import Choice as Values
from phyla.space import Float, Hyperparameter, Hypers, Int, Space, Value
from phyla.strategies.contract import Strategy
from phyla.strategies.evolve import Evolve
from phyla.strategies.perturb import Perturb
from phyla.strategies.truncation import Truncation, group_size, quorum
from phyla.view import View

Array: TypeAlias = np.ndarray[Any, Any]


def check(strategy: Strategy, space: Space) -> None:
    """Raises SettingsError for what cannot be decided ahead."""
    if not isinstance(strategy, Evolve):
        what = f"strategy={strategy!r}"
    elif not (strategy.exploit is None or type(strategy.exploit) is Truncation):
        what = f"exploit={strategy.exploit!r}"
    elif not (strategy.explore is None or type(strategy.explore) is Perturb):
        what = f"explore={strategy.explore!r}"
    elif strategy.inherit != "both":
        what = f"inherit={strategy.inherit!r}"
    elif across := [name for name, h in space.items() if isinstance(h, Float | Int) and h.low < 0 < h.high]:
        what = f"space[{across[0]!r}] = {space[across[0]]!r}, which may leave zero in either direction,"
    else:
        return
    raise SettingsError(
        f"{what} cannot be decided within a program: expected exploit=Truncation(…) or None, explore=Perturb(…) or None, "
        "inherit='both', and hyperparameters that do not cross zero. Leave out fused=True, and the worker decides"
    )


Place: TypeAlias = tuple[int, int]
"""(interval, row) of what is decided ahead, from 0."""


class Move(NamedTuple):
    """What becomes of a copied hyperparameter: it is scaled by a factor, or takes a value that was drawn."""

    factor: float = 1.0
    drawn: Value = None
    redrawn: bool = False  # since None may be a value

    def of(self, h: Hyperparameter, value: Value) -> Value:
        return self.drawn if self.redrawn else h.scale(value, self.factor, _UNUSED)


_UNUSED = np.random.default_rng(0)
"""What is scaled here draws nothing: a Choice without an order is redrawn, and `check` sees to the numbers."""


class Draw(NamedTuple):
    """What one member draws before one interval, if it is ready then."""

    pick: int  # which of the donors, from the worst of them
    moves: dict[str, Move]


class Draws:
    """What a run's members draw; each is drawn once, and may be before it is needed."""

    def __init__(self, strategy: Strategy):
        self._strategy = strategy  # for which `check` is content
        self._space: Space = {}
        self._recorders: Space = {}
        self._found: dict[tuple[int, int, int], Draw] = {}

    def look(self, view: View, claims: Sequence[Claimed], seeds: Array, after: int = 0) -> Ahead:
        """What decides n intervals of a whole population that is claimed. seeds: [n, K]. after: so many intervals.

        The first interval of the claim is decided. After it, this is what will be decided if no score is bad.
        """
        space, first = view.space_of(claims[0].member), claims[0].interval
        if space != self._space:
            self._space, self._found = space, {}
            self._recorders = {name: cast(Hyperparameter, _Recorder(h)) for name, h in space.items()}
        self._found = {key: draw for key, draw in self._found.items() if key[1] > first}
        donors, ready = self._donors(view, len(claims)), _ready(view, claims, after + len(seeds))[after:]
        return Ahead(space, seeds, ready, donors, self._drawn(view, claims, ready, donors, after))

    def _donors(self, view: View, members: int) -> int:
        exploit = getattr(self._strategy, "exploit", None)
        if not isinstance(exploit, Truncation) or members < quorum(view.size):
            return 0
        return group_size(exploit.fraction, members)

    def _drawn(self, view: View, claims: Sequence[Claimed], ready: Array, donors: int, after: int) -> dict[Place, Draw]:
        if not donors:
            return {}
        replaced = [int(view.replacements[claim.member]) + claim.renews for claim in claims]
        keys = {
            (j, row): (claims[row].member, claims[row].interval + after + j, replaced[row])
            for j, row in np.argwhere(ready).tolist()
        }
        if new := [key for key in keys.values() if key not in self._found]:
            members, intervals, replacements = zip(*new, strict=True)
            rngs = randomness.generators(view.settings.seed, members, intervals, Purpose.DECIDE, replacements)
            for key, rng in zip(new, rngs, strict=True):
                self._found[key] = self._draw(view, donors, key[0], rng)
        return {place: self._found[key] for place, key in keys.items()}

    def _draw(self, view: View, donors: int, member: int, rng: np.random.Generator) -> Draw:
        """As `Truncation`, and then `Perturb`, would draw."""
        pick, explore = int(rng.integers(donors)), getattr(self._strategy, "explore", None)
        if explore is None:
            return Draw(pick, {})
        nothing: Hypers = dict.fromkeys(self._space)
        return Draw(pick, explore(nothing, self._recorders, view, member, rng))


class _Recorder:
    """Stands for a hyperparameter, and answers with what it is asked for."""

    structural = False

    def __init__(self, hyperparameter: Hyperparameter):
        self._hyperparameter = hyperparameter

    def sample(self, rng: np.random.Generator) -> Move:
        return Move(drawn=self._hyperparameter.sample(rng), redrawn=True)

    def scale(self, value: Value, factor: float, rng: np.random.Generator) -> Move:
        h = self._hyperparameter
        return self.sample(rng) if isinstance(h, Values) and not h.ordered and factor != 1 else Move(factor)


@dataclass
class Ahead:
    """What decides the next n intervals of K claimed members: who is ready before each, and what they draw.

    ready: [n, K] bool; before the first interval of a claim nobody is, since it is decided. donors: so many of the best are
    copied, by so many of the worst. draws: by interval (from 0) and row. seeds: [n, K] uint32, as those of `Cohort`.
    """

    space: Space
    seeds: Array
    ready: Array
    donors: int
    draws: dict[Place, Draw]

    @cached_property
    def picks(self) -> Array:
        """[n, K] int32."""
        return self._array({at: draw.pick for at, draw in self.draws.items()}, 0, np.int32)

    def factors(self, name: str) -> Array:
        """[n, K] float32."""
        return self._array({at: draw.moves[name].factor for at, draw in self.draws.items() if draw.moves}, 1)

    def redrawn(self, name: str) -> Array:
        """[n, K] float32: the value that was drawn, for a Choice its place among the values; NaN where none was."""
        h = self.space[name]
        drawn = {
            at: draw.moves[name].drawn for at, draw in self.draws.items() if draw.moves and draw.moves[name].redrawn
        }
        return self._array({at: h.index(v) if isinstance(h, Values) else v for at, v in drawn.items()}, np.nan)

    def _array(self, values: dict[Place, Any], otherwise: float, dtype: Any = np.float32) -> Array:
        array = np.full(self.ready.shape, otherwise, dtype)
        for at, value in values.items():
            array[at] = value
        return array

    def sources(self, interval: int, values: Array) -> Array:
        """[K] int32: the row from which each member goes on in this interval of the n. values: [K], higher is better."""
        sources = np.arange(len(values), dtype=np.int32)
        if self.donors:
            order = np.argsort(values, kind="stable")  # worst first; of equals, the lower id
            worst = order[: self.donors]
            best = order[len(order) - self.donors :][self.picks[interval, worst]]
            sources[worst] = np.where(self.ready[interval, worst], best, worst)
        return sources

    def choices(
        self, interval: int, sources: Sequence[int], before: Sequence[Hypers], refs: Sequence[Ref]
    ) -> list[Choice]:
        """What the worker would have decided before this interval of the n.

        sources: [K]; the row that each goes on from. before, refs: [K]; hyperparameters and reports of the interval before.
        """
        ready: list[bool] = self.ready[interval].tolist()
        found = []
        for row, source in enumerate(sources):
            copies = source != row
            hypers = self.explored(interval, row, before[source]) if copies else before[source]
            donor = refs[source] if copies else None
            found.append(Choice(hypers, refs[source], donor, ready[row], replaced=False, notes=None))
        return found

    def explored(self, interval: int, row: int, hypers: Hypers) -> Hypers:
        """What a donor's hyperparameters become, if this row copies them before this interval of the n."""
        moves = self.draws[interval, row].moves
        return {name: moves[name].of(self.space[name], value) for name, value in hypers.items()} if moves else hypers


def _ready(view: View, claims: Sequence[Claimed], n: int) -> Array:
    """[n, K]: as `decide.is_ready`, if all goes well; False before the first, which is decided."""
    settings, ready = view.settings, np.zeros((n, len(claims)), np.bool_)
    begun = np.array([claim.interval - 1 for claim in claims])
    renewed = np.array([claim.ready or claim.replaced for claim in claims])
    last = np.where(renewed, begun, view.last_ready[[claim.member for claim in claims]])
    for j in range(1, n):
        done = begun + j
        ready[j] = (done >= settings.burn_in) & (done - last >= settings.ready)
        last = np.where(ready[j], done, last)
    return ready
