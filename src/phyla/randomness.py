"""Randomness is keyed, never shared: what is drawn depends on what it is for, and on nothing that happened elsewhere."""

from __future__ import annotations

from enum import IntEnum

import numpy as np


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
