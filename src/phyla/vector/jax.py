"""A population as one JAX program: pure functions of one member, vmapped over all of them, scanned over steps, compiled once.

    from phyla.vector.jax import train

    train(population, init, step, evaluate, steps=100)

Hyperparameters are traced, so a new value compiles nothing anew. Buffers are donated: the device holds the stacked state once.
With `fused=True` exploit and explore are compiled too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from phyla.ahead import Ahead
from phyla.cohort import Cohort, Newborns
from phyla.errors import SettingsError
from phyla.population import Population
from phyla.stacks import is_key
from phyla.vector import moves

Hypers = dict[str, Any]
"""One member's hyperparameters: scalars; a Choice as the place among its values."""


def train(
    population: Population,
    init: Callable[[Any, Hypers], Any],
    step: Callable[[Any, Hypers, Any], Any],
    evaluate: Callable[[Any, Hypers, Any], Any],
    *,
    steps: int = 1,
    cohort: int | None = None,
    span: int = 1,
    fused: bool = False,
    devices: Sequence[Any] | None = None,
) -> None:
    """Trains a population to its end, a cohort at a time. All functions are of one member, pure, and are traced.

    init(key, hypers): a fresh state, any pytree of arrays. step(state, hypers, key): the state after one step. evaluate(state,
    hypers, key): its score, a scalar, or samples [E], or a dict of scalars of which `Population(metric=)` names one. steps: of
    an interval. cohort: members of a cohort (None: all). span: intervals of a claim, after which there is a checkpoint.
    fused: exploit and explore are part of the program too, so the host is asked once a span; for intervals of milliseconds,
    with `Truncation`, `Perturb` and one number as the score. The worker would decide the same, but for rounding, since
    hyperparameters are float32 here. A score that is not finite ends a span early. devices: over which the members are
    spread (None: all that JAX has, where they divide the cohort evenly).
    Raises SettingsError where the devices do not divide the cohort, and for what cannot be fused.
    """
    settings = population.view.settings
    program = Program(
        init, step, evaluate, steps=steps, span=span, metric=settings.metric, minimise=settings.mode == "min"
    )
    for turn in population.cohorts(cohort, span=span, ahead=fused):
        if program.sharding is None:
            program.spread(turn.size, devices)
        if fused:
            program.train_span(turn)
        else:
            program.train_interval(turn)


class _Begun(NamedTuple):
    """A span that the device is computing, or has: by what it is decided, what it went on from, and what will come of it."""

    ahead: Ahead
    rows: Any
    hypers: Hypers
    state: Any
    scores: Any
    sources: Any
    done: Any

    def fits(self, turn: Cohort, ahead: Ahead) -> bool:
        """Whether this is what was claimed then."""
        return (
            ahead.seeds.tolist() == self.ahead.seeds.tolist()
            and (ahead.space, ahead.donors) == (self.ahead.space, self.ahead.donors)
            and turn.goes_on_from(self.rows)
            and all(np.array_equal(turn.hypers[name], self.hypers[name]) for name in self.hypers)
        )


class Program:
    """The compiled interval of a cohort: gathers each member's row, takes its steps, and evaluates it."""

    def __init__(
        self,
        init: Callable[[Any, Hypers], Any],
        step: Callable[[Any, Hypers, Any], Any],
        evaluate: Callable[[Any, Hypers, Any], Any],
        *,
        steps: int = 1,
        span: int = 1,
        metric: str | None = None,
        minimise: bool = False,
    ):
        self.sharding: NamedSharding | None = None
        self.compilations = 0
        self._begun: _Begun | None = None
        self._init = jax.jit(jax.vmap(lambda seed, hypers: init(jax.random.key(seed), hypers)))
        self._steps, self._span = steps, span
        self._metric, self._sign = metric, -1 if minimise else 1
        self._interval = jax.jit(self._one, donate_argnums=0)
        self._intervals = jax.jit(self._many, donate_argnums=0, static_argnums=(5, 6))

        def member(state: Any, hypers: Hypers, seed: Any) -> tuple[Any, Any]:
            training, evaluation = jax.random.split(jax.random.key(seed))
            keys = jax.random.split(training, steps)
            state, _ = lax.scan(lambda state, key: (step(state, hypers, key), None), state, keys)
            return state, evaluate(state, hypers, evaluation)

        self._members = jax.vmap(member)

    def spread(self, size: int, devices: Sequence[Any] | None) -> None:
        """Puts the members of a cohort of this size on these devices, evenly."""
        chosen = list(devices) if devices is not None else jax.devices()
        if size % len(chosen):
            if devices is not None:
                raise SettingsError(f"a cohort of {size} members cannot be spread evenly over {len(chosen)} devices")
            chosen = chosen[:1]
        mesh = Mesh(np.array(chosen), ("members",))
        self.sharding = NamedSharding(mesh, PartitionSpec("members"))  # type: ignore[no-untyped-call]
        self._whole = NamedSharding(mesh, PartitionSpec())  # type: ignore[no-untyped-call]

    def train_interval(self, turn: Cohort) -> Any:
        """Trains a cohort for an interval, and reports it; the state, to look at."""
        stack, rows = turn.rows(self._fresh, batched=True)
        state, scores = self._interval(*jax.device_put((stack, rows, turn.hypers, turn.seeds), self.sharding))
        turn.report(jax.device_get(scores), state, steps=self._steps)
        return state

    def train_span(self, turn: Cohort) -> Any:
        """Trains and decides a population for the intervals of a span, and reports them; the state, to look at.

        The next span is begun before this one is written: as it will be decided, if all goes well. What is claimed then says
        whether it was; if not, its work is dropped.
        """
        ahead, begun, self._begun = turn.ahead(), self._begun, None
        if begun is None or not begun.fits(turn, ahead):
            stack, rows = turn.rows(self._fresh, batched=True)
            begun = self._begin(ahead, stack, rows, turn.hypers)
        beyond = turn.beyond()  # while the device is busy
        scores, sources, done = jax.device_get((begun.scores, begun.sources, begun.done))
        decided, scores = turn.decided(ahead, sources[:done]), jax.tree.map(lambda each: each[:done], scores)
        values, state = np.asarray(self._values_of(scores))[-1], begun.state
        if beyond is not None and done == len(ahead.seeds) and np.isfinite(values).all():
            state, rows = jax.tree.map(_kept, begun.state), beyond.sources(0, values)
            before = [choice.hypers for choice in decided[-1]] if decided else turn.given
            hypers = turn.arrays(
                [beyond.explored(0, i, before[row]) if i != row else before[i] for i, row in enumerate(rows)]
            )
            self._begun = self._begin(beyond, begun.state, rows, hypers)
        turn.report_ahead(scores, decided, state, steps=self._steps)
        return state

    def _begin(self, ahead: Ahead, stack: Any, rows: Any, hypers: Hypers) -> _Begun:
        put = jax.device_put((stack, rows, hypers), self.sharding)
        draws = jax.device_put(moves.given(ahead, self._span), self._whole)
        found = self._intervals(*put, draws, len(ahead.seeds), ahead.donors, tuple(ahead.space.items()))
        return _Begun(ahead, rows, hypers, *found)

    def _fresh(self, newborns: Newborns) -> Any:
        """States of a whole cohort."""
        return self._init(newborns.seeds, newborns.hypers)

    # What is compiled ---------------------------------------------------------------------------------------------

    def _one(self, stack: Any, rows: Any, hypers: Hypers, seeds: Any) -> tuple[Any, Any]:
        self.compilations += 1  # it runs when it is traced, and only then
        state, scores = self._members(_gathered(stack, rows), hypers, seeds)
        return self._spread(state), scores

    def _many(
        self, stack: Any, rows: Any, hypers: Hypers, draws: Hypers, count: Any, donors: int, space: Any
    ) -> tuple[Any, Any, Any, Any]:
        """As many intervals as `count` says, or fewer: the last is the first in which a score is not finite."""
        self.compilations += 1
        stack = _gathered(stack, rows)
        made = jax.eval_shape(self._members, stack, hypers, draws["seeds"][0])[1]
        scores = jax.tree.map(lambda score: jnp.zeros((self._span, *score.shape), score.dtype), made)
        sources, values = jnp.zeros(draws["picks"].shape, jnp.int32), jnp.zeros(len(rows))

        def goes_on(carry: Any) -> Any:
            done, values = carry[0], carry[-1]
            return (done < count) & jnp.isfinite(values).all()

        def interval(carry: Any) -> Any:
            done, state, hypers, scores, sources, values = carry
            now = {name: array[done] for name, array in draws.items()}
            source, hypers = moves.evolved(values, hypers, now, donors, dict(space))
            state = lax.cond(now["ready"].any(), _gathered, lambda state, _: state, state, source)
            state, found = self._members(state, hypers, now["seeds"])
            scores = jax.tree.map(lambda all_, new: all_.at[done].set(new), scores, found)
            return done + 1, self._spread(state), hypers, scores, sources.at[done].set(source), self._values(found)

        carry = jnp.int32(0), stack, hypers, scores, sources, values
        done, state, _, scores, sources, _ = lax.while_loop(goes_on, interval, carry)
        return state, scores, sources, done

    def _values_of(self, found: Any) -> Any:
        """The scores as they rank: higher is better."""
        score = found[self._metric] if isinstance(found, dict) and self._metric in found else found
        return self._sign * score if not isinstance(score, dict) else None

    def _values(self, found: Any) -> Any:
        """Of one interval, [K]."""
        values = self._values_of(found)
        if values is None or values.ndim != 1:
            raise SettingsError(
                "a fused program ranks by one number: expected `evaluate` to give a scalar, or a dict of scalars of which "
                f"Population(metric={self._metric!r}) names one"
            )
        return values.astype(jnp.float32)

    def _spread(self, tree: Any) -> Any:
        if self.sharding is None:
            return tree
        return lax.with_sharding_constraint(tree, self.sharding)  # type: ignore[no-untyped-call]


def _kept(leaf: Any) -> Any:
    """A copy that outlives a donation: on the host, but for typed keys, which NumPy does not have."""
    return jnp.copy(leaf) if is_key(leaf) else np.array(leaf)


def _gathered(state: Any, rows: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[rows], state)
