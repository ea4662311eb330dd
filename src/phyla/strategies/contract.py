"""What a strategy is: a pure function of (view, member, rng) that says what the member does next.

    decide(view, member, rng) -> Decision

It is asked when the member is ready. It may carry two more functions as attributes: `rescue`, of the same form, for a member
whose own state is lost (diverged, or out of retries); and `retain(view)`, the reports that it may still ask for.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

import numpy as np

from phyla.record import Record
from phyla.space import Hypers, Space
from phyla.view import View


class Weights(Enum):
    """Where the weights come from, when it is not from another report."""

    KEEP = "keep"  # the member's own
    FRESH = "fresh"  # a new state from `init`: the member is born again


KEEP, FRESH = Weights.KEEP, Weights.FRESH


@dataclass(frozen=True)
class Decision:
    """What a member does next.

    weights: KEEP, FRESH, or the report whose checkpoint it goes on from. hypers: what it trains with; they are clipped into
    the space, and structural ones follow the weights. donor: the report that was copied, where that is not `weights` (only
    hyperparameters were). notes: JSON that comes back as `Record.notes` once the interval is reported.
    """

    weights: Record | Weights
    hypers: Hypers
    donor: Record | None = None
    notes: dict[str, Any] | None = field(default=None)


class Strategy(Protocol):
    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Decision: ...


class Exploit(Protocol):
    """The better report to copy, or None to go on alone."""

    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Record | None: ...


class Explore(Protocol):
    """New hyperparameters near the copied ones."""

    def __call__(self, hypers: Hypers, space: Space, view: View, member: int, rng: np.random.Generator) -> Hypers: ...
