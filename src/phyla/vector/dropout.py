"""Dropout whose rate is a hyperparameter, for members that are trained together."""

from __future__ import annotations

from torch import Tensor, nn


class Dropout(nn.Module):
    """Drops each number with the probability that the member's hyperparameter of this name says; in evaluation, none.

    Use one for each place in the model. The random numbers come from each member's own seed.
    """

    given: tuple[Tensor, Tensor] | None = None
    """(rate, uniform numbers of the input's shape), while a member trains."""

    def __init__(self, rate: str):
        super().__init__()
        self.rate_name = rate

    def forward(self, x: Tensor) -> Tensor:
        return x if self.given is None else drop(x, *self.given)


def drop(x: Tensor, rate: Tensor, noise: Tensor) -> Tensor:
    """x with those numbers zero whose noise lies below the rate, the others scaled up."""
    return x * (noise >= rate) / (1 - rate)
