"""A population as one JAX program: pure functions of one member, vmapped over all of them, scanned over steps, compiled once.

    from phyla.vector.jax import train

    train(population, init, step, evaluate, steps=100)

Hyperparameters are traced, so a new value compiles nothing anew. Buffers are donated: the device holds the stacked state once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from phyla.cohort import Cohort, Newborns
from phyla.errors import SettingsError
from phyla.population import Population

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
    devices: Sequence[Any] | None = None,
) -> None:
    """Trains a population to its end, a cohort at a time. All functions are of one member, pure, and are traced.

    init(key, hypers): a fresh state, any pytree of arrays. step(state, hypers, key): the state after one step. evaluate(state,
    hypers, key): its score, a scalar, or samples [E], or a dict of scalars of which `Population(metric=)` names one. steps: of
    an interval. cohort: members of a cohort (None: all); span: intervals of a claim. devices: over which the members are
    spread (None: all that JAX has, where they divide the cohort evenly).
    Raises SettingsError where the devices do not divide the cohort.
    """
    program = Program(init, step, evaluate, steps=steps)
    for turn in population.cohorts(cohort, span=span):
        if program.sharding is None:
            program.spread(turn.size, devices)
        state, scores = program(turn)
        turn.report(scores, state, steps=steps)


class Program:
    """The compiled interval of a cohort: gathers each member's row, takes its steps, and evaluates it."""

    def __init__(
        self,
        init: Callable[[Any, Hypers], Any],
        step: Callable[[Any, Hypers, Any], Any],
        evaluate: Callable[[Any, Hypers, Any], Any],
        *,
        steps: int = 1,
    ):
        self.sharding: NamedSharding | None = None
        self._init = jax.jit(jax.vmap(lambda seed, hypers: init(jax.random.key(seed), hypers)))
        self._steps = steps
        self.compilations = 0

        def member(state: Any, hypers: Hypers, seed: Any) -> tuple[Any, Any]:
            training, evaluation = jax.random.split(jax.random.key(seed))
            keys = jax.random.split(training, steps)
            state, _ = lax.scan(lambda state, key: (step(state, hypers, key), None), state, keys)
            return state, evaluate(state, hypers, evaluation)

        def interval(stack: Any, rows: Any, hypers: Hypers, seeds: Any) -> tuple[Any, Any]:
            self.compilations += 1  # it runs when it is traced, and only then
            stack = jax.tree.map(lambda leaf: leaf[rows], stack)
            stack, scores = jax.vmap(member)(stack, hypers, seeds)
            return self._spread(stack), scores

        self._interval = jax.jit(interval, donate_argnums=0)

    def spread(self, size: int, devices: Sequence[Any] | None) -> None:
        """Puts the members of a cohort of this size on these devices, evenly."""
        chosen = list(devices) if devices is not None else jax.devices()
        if size % len(chosen):
            if devices is not None:
                raise SettingsError(f"a cohort of {size} members cannot be spread evenly over {len(chosen)} devices")
            chosen = chosen[:1]
        mesh = Mesh(np.array(chosen), ("members",))
        self.sharding = NamedSharding(mesh, PartitionSpec("members"))  # type: ignore[no-untyped-call]

    def _spread(self, tree: Any) -> Any:
        if self.sharding is None:
            return tree
        return lax.with_sharding_constraint(tree, self.sharding)  # type: ignore[no-untyped-call]

    def __call__(self, turn: Cohort) -> tuple[Any, Any]:
        """Trains a cohort for an interval: its state, and scores [K] on the host."""
        stack, rows = turn.rows(self.init, batched=True)
        put = jax.device_put((stack, rows, turn.hypers, turn.seeds), self.sharding)
        state, scores = self._interval(*put)
        return state, jax.device_get(scores)

    def init(self, newborns: Newborns) -> Any:
        """Fresh states of a whole cohort."""
        return self._init(newborns.seeds, newborns.hypers)
