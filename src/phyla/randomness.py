"""Randomness is keyed, never shared: what is drawn depends on what it is for, and on nothing that happened elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import Any, TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray[Any, Any]


class Purpose(IntEnum):
    """What something is drawn for. The numbers are part of every recorded run: never renumber them."""

    BIRTH = 0
    DECIDE = 1
    BODY = 2
    INIT = 3


def sequence(
    seed: int, member: int, interval: int, purpose: Purpose, replacements: int, attempt: int = 0
) -> np.random.SeedSequence:
    """The seeds of one member's one purpose. `replacements` counts how often its state was replaced; `attempt` its retries."""
    words = [seed, member, interval, purpose, replacements, attempt]
    return np.random.SeedSequence(np.array(words, np.uint32) if seed < 2**32 else words)  # an array is taken in faster


def generator(seed: int, member: int, interval: int, purpose: Purpose, replacements: int) -> np.random.Generator:
    return np.random.default_rng(sequence(seed, member, interval, purpose, replacements))


def draw_seed(seed: int, member: int, interval: int, purpose: Purpose, replacements: int, attempt: int = 0) -> int:
    """One seed below 2**31, as every library takes it."""
    return int(sequence(seed, member, interval, purpose, replacements, attempt).generate_state(1)[0]) >> 1


def draw_seeds(
    seed: int, members: Any, intervals: Any, purpose: Purpose, replacements: Any, attempts: Any = 0
) -> Array:
    """`draw_seed` for many at once: the arrays are broadcast together; what comes back is uint32 of that shape.

    The hash is that of NumPy's SeedSequence (O'Neill 2015, "Developing a seed_seq Alternative"), which NumPy promises to keep.
    """
    words = [seed >> shift & 0xFFFFFFFF for shift in range(0, max(seed.bit_length(), 1), 32)]
    given = [np.asarray(word, np.uint32) for word in (*words, members, intervals, purpose, replacements, attempts)]
    pool = _pool([np.array(word) for word in np.broadcast_arrays(*given)])
    return _hashed(pool[0], *next(_constants(0x8B51F9DD, 0x58F38DED))) >> np.uint32(1)


def _pool(entropy: list[Array]) -> list[Array]:
    """Four words, in which all that was given has been mixed."""
    constants = _constants(0x43B0D7E5, 0x931E8875)
    pool = [_hashed(word, *next(constants)) for word in entropy[:4]]
    for source in range(4):
        for other in range(4):
            if other != source:
                pool[other] = _mixed(pool[other], _hashed(pool[source], *next(constants)))
    for word in entropy[4:]:
        pool = [_mixed(one, _hashed(word, *next(constants))) for one in pool]
    return pool


def _constants(first: int, factor: int) -> Iterator[tuple[np.uint32, np.uint32]]:
    while True:
        second = first * factor & 0xFFFFFFFF
        yield np.uint32(first), np.uint32(second)
        first = second


def _hashed(word: Array, before: np.uint32, after: np.uint32) -> Array:
    word = (word ^ before) * after
    return word ^ (word >> np.uint32(16))


def _mixed(one: Array, other: Array) -> Array:
    word: Array = np.uint32(0xCA01F9DD) * one - np.uint32(0x4973F715) * other
    word ^= word >> np.uint32(16)
    return word
