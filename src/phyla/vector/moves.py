"""Exploit and explore amid a JAX program: truncation, and what a copied hyperparameter becomes. The draws are given.

These are `Truncation` and `Perturb` as strategies/ and space.py have them, for arrays [K] of float32 and int32.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from phyla.ahead import Ahead
from phyla.space import COUNTS_AS_ZERO, LEAVES_ZERO, Choice, Float, Hyperparameter, Int, Space

Arrays = dict[str, Any]


def given(ahead: Ahead, rows: int) -> Arrays:
    """What `evolved` needs of an Ahead, by interval: arrays [rows, K]. Those after its last interval are never looked at.

    Before the first interval nobody is ready any more: a program begins when that is decided.
    """
    arrays = {
        "seeds": ahead.seeds,
        "ready": ahead.ready & (np.arange(len(ahead.ready)) > 0)[:, None],
        "picks": ahead.picks,
    }
    for name in ahead.space:
        arrays |= {f"factor {name}": ahead.factors(name), f"redrawn {name}": ahead.redrawn(name)}
    return {name: jnp.pad(array, ((0, rows - len(array)), (0, 0))) for name, array in arrays.items()}


def evolved(values: Any, hypers: Arrays, draws: Mapping[str, Any], donors: int, space: Space) -> tuple[Any, Arrays]:
    """From which row each member goes on, [K], and with what. values: [K], higher is better. draws: of one interval."""
    members = jnp.arange(len(values), dtype=jnp.int32)
    if not donors:
        return members, hypers
    order = jnp.argsort(values, stable=True)  # worst first; of equals, the one with the lower id
    worst, best = order[:donors], order[len(values) - donors :]
    sources = members.at[worst].set(
        jnp.where(draws["ready"][worst], best[draws["picks"][worst]], worst).astype(jnp.int32)
    )
    copied = sources != members
    moved = {}
    for name, h in space.items():
        old, redrawn = hypers[name], draws[f"redrawn {name}"]
        scaled = scale(h, old[sources], draws[f"factor {name}"])
        new = jnp.where(jnp.isnan(redrawn), scaled, redrawn.astype(old.dtype))
        moved[name] = jnp.where(copied, new, old)
    return sources, moved


def scale(h: Hyperparameter, value: Any, factor: Any) -> Any:
    """As `h.scale`, where that draws nothing; a Choice is the place among its values, and has an order."""
    match h:
        case Float():
            target = 1 - (1 - value) * factor if h.log == "1-x" else _times(value, factor, h.low, h.high)
            return jnp.clip(target, h.low, h.high)
        case Int():
            exact = _times(value.astype(jnp.float32), factor, h.low, h.high)
            target = jnp.clip(jnp.round(exact), h.low, h.high).astype(value.dtype)
            return _moved(value, target, factor, exact > value, h.low, h.high)
        case Choice():
            return _moved(value, value, factor, factor > 1, 0, len(h.values) - 1)


def _times(value: Any, factor: Any, low: float, high: float) -> Any:
    target = value * factor
    if not low <= 0 <= high:
        return target
    away = (1 if low == 0 else -1) * jnp.abs(factor - 1) * LEAVES_ZERO * (high - low)
    return jnp.where(jnp.abs(value) > COUNTS_AS_ZERO * (high - low), target, value + away)


def _moved(value: Any, target: Any, factor: Any, up: Any, low: int, high: int) -> Any:
    """An allowed integer that is another: the target, a step where it points, or one back from a bound."""
    step = jnp.where(up, 1, -1).astype(value.dtype)
    on, back = jnp.clip(value + step, low, high), jnp.clip(value - step, low, high)
    moved = jnp.where(target != value, target, jnp.where(on != value, on, back))
    return jnp.where(factor == 1, value, moved)
