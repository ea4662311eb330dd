"""Random bits of members that train together: a hash of each member's seed and a counter, whoever trains beside it.

One pass over the stack takes the place of a generator for each member, and every device gives the same bits. The mixing is the
32-bit hash [15 2c1b3c6d 12 297a2d39 15] of Wellons's hash-prospector (https://github.com/skeeto/hash-prospector) without its
first shift, since all is mixed twice; good enough to shuffle and to drop, not for secrets.
"""

from __future__ import annotations

import torch
from torch import Tensor


def keys(seeds: Tensor, step: int) -> Tensor:
    """[K] int32: the key of each member's bits at this step of its interval. seeds: [K] int32."""
    return _mixed(seeds ^ _mixed(torch.tensor(step, dtype=torch.int32, device=seeds.device)))


def bits(keys: Tensor, count: int) -> Tensor:
    """[K, count] int32, uniform."""
    counter = torch.arange(count, dtype=torch.int32, device=keys.device)
    return _mixed(_mixed(counter) ^ keys.unsqueeze(1))


def orders(keys: Tensor, count: int) -> Tensor:
    """[K, count] int64: the numbers from 0 to count - 1, in an order of its own for each member."""
    return bits(keys, count).argsort(dim=1, stable=True)


def _mixed(x: Tensor) -> Tensor:
    """Each int32 as another one; products wrap around, and shifts bring in zeros."""
    x = x * 0x2C1B3C6D
    x ^= (x >> 12) & 0xFFFFF
    x *= 0x297A2D39
    x ^= (x >> 15) & 0x1FFFF
    return x
