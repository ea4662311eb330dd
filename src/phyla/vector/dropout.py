"""Dropout whose rate is a hyperparameter, for members that are trained together."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn

from phyla.vector.noise import bits

LEVELS = 2**16
"""A rate is rounded to one of so many: 16 random bits decide about each number."""


class Dropout(nn.Module):
    """Drops each number with the probability that the member's hyperparameter of this name says; in evaluation, none.

    Use one for each place in the model. The random numbers come from each member's own seed.
    """

    factors: Tensor | None = None
    """Of the input's shape, while a member trains: 0 for what is dropped."""

    def __init__(self, rate: str):
        super().__init__()
        self.rate_name = rate

    def forward(self, x: Tensor) -> Tensor:
        return x if self.factors is None else x * self.factors.to(x.dtype)


def factors(rates: Sequence[Tensor], shapes: Sequence[Sequence[int]], keys: Tensor) -> list[Tensor]:
    """For each place [K, *shape]: 0 where a number is dropped, and what scales up the others. rates: of each place, [K]."""
    if not rates:
        return []
    sizes = [prod(shape) for shape in shapes]
    noise = torch.split(bits(keys, (sum(sizes) + 1) // 2).view(torch.int16)[:, : sum(sizes)], sizes, dim=1)
    return [_factors(rate, drawn.reshape(-1, *shape)) for rate, drawn, shape in zip(rates, noise, shapes, strict=True)]


def _factors(rate: Tensor, noise: Tensor) -> Tensor:
    column = [-1] + [1] * (noise.dim() - 1)
    dropped = (rate * LEVELS).round()
    kept = noise >= (dropped - LEVELS // 2).to(torch.int16).view(column)
    return kept * (LEVELS / (LEVELS - dropped)).view(column)
