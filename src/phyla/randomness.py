"""Randomness is keyed, never shared: what is drawn depends on what it is for, and on nothing that happened elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    """`draw_seed` for many at once: the arrays are broadcast together; what comes back is uint32 of that shape."""
    found: Array = _states(seed, (members, intervals, purpose, replacements, attempts), 1)[0] >> np.uint32(1)
    return found


def generators(
    seed: int, members: Any, intervals: Any, purpose: Purpose, replacements: Any
) -> Iterator[np.random.Generator]:
    """`generator` for many, arrays [n]. They share their state: each is used up before the next one is asked for."""
    words = _states(seed, (members, intervals, purpose, replacements, 0), 8).astype(np.uint64)
    bits = np.random.PCG64()
    shared, state = np.random.Generator(bits), bits.state
    for a, b, c, d in (words[::2] | words[1::2] << np.uint64(32)).T.tolist():
        # As PCG64 is seeded (O'Neill 2014, "PCG: A Family of Simple Fast Space-Efficient Statistically Good Algorithms").
        increment = ((c << 64 | d) << 1 | 1) & _LOW_128
        state["state"] = {"state": ((increment + (a << 64 | b)) * _PCG64 + increment) & _LOW_128, "inc": increment}
        bits.state = state
        yield shared


_LOW_128, _PCG64 = 2**128 - 1, 0x2360ED051FC65DA44385DF649FCCF645


def _states(seed: int, each: Sequence[Any], n: int) -> Array:
    """`SeedSequence.generate_state(n)` for many sequences: uint32 [n, …].

    The hash is that of O'Neill 2015, "Developing a seed_seq Alternative", which NumPy promises to keep.
    """
    words = [seed >> shift & 0xFFFFFFFF for shift in range(0, max(seed.bit_length(), 1), 32)]
    given = np.broadcast_arrays(*(np.asarray(word, np.uint32) for word in (*words, *each)))
    constants = _constants(0x43B0D7E5, 0x931E8875)
    pool = [_hashed(word, *next(constants)) for word in given[:4]]
    for source in range(4):
        for other in range(4):
            if other != source:
                pool[other] = _mixed(pool[other], _hashed(pool[source], *next(constants)))
    for word in given[4:]:
        pool = [_mixed(one, _hashed(word, *next(constants))) for one in pool]
    constants = _constants(0x8B51F9DD, 0x58F38DED)
    return np.array([_hashed(pool[i % 4], *next(constants)) for i in range(n)])


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
