"""What a strategy is: a pure function of (view, member, rng) that says what the member does next.

    decide(view, member, rng) -> Decision

It is asked when the member is ready. What it may look at is what `view.peers`, `view.ranked` and `view.known` give for this
member: reports of no more intervals than it has done itself. So the decision does not depend on who happened to be faster, and
anyone can make it again from the journal.

A strategy, an exploit and an explore may carry more, as methods or attributes; each is optional:

    rescue(view, member, rng)   of the same form, for a member whose own state is lost (diverged, or out of retries)
    retain(view)                the reports, as Refs, whose checkpoints it may still ask for
    check(space, settings)      raises SettingsError for a space or a population that it cannot work with
    advise(space, settings)     sentences of advice on settings that work, but not well
    needs_samples               True: it compares samples, so `report` must be given some
    looks_ahead                 True: it does not go by what is better soon alone, so being ready very often does no harm
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

import numpy as np

from phyla.errors import SettingsError
from phyla.events import Ref
from phyla.record import Record
from phyla.settings import Settings
from phyla.space import Hypers, Space
from phyla.view import View


class Weights(Enum):
    """Where the weights come from, when it is not from another report."""

    KEEP = "keep"  # the member's own
    FRESH = "fresh"  # a new state from `init`: the member is born again


KEEP, FRESH = Weights.KEEP, Weights.FRESH


@dataclass(frozen=True)
class Mix:
    """Weights that are `old` times those of a report plus `fresh` times new ones from `init`: shrink and perturb.

    Optimizers, buffers such as running statistics, counters and generators come from `init`. Ash & Adams 2020, "On
    Warm-Starting Neural Network Training", arXiv 1910.08475.
    """

    record: Record
    old: float
    fresh: float

    def __post_init__(self) -> None:
        for name in ("old", "fresh"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise SettingsError(f"Mix: {name} must be a finite number, got {value!r}")


@dataclass(frozen=True)
class Decision:
    """What a member does next.

    weights: KEEP, FRESH, the report whose checkpoint it goes on from, or a Mix of one with a fresh state. hypers: what it
    trains with; they are clipped into the space, and structural ones follow the weights. donor: the report that was copied,
    where that is not `weights` (only hyperparameters were). notes: JSON that comes back as `Record.notes` once the interval
    is reported.
    """

    weights: Record | Weights | Mix
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


# What a strategy may carry, asked of it and of what it is made of -----------------------------------------------------


def check(strategy: object, space: Space, settings: Settings) -> None:
    """Raises SettingsError if the strategy says that it cannot work with this space and population."""
    if (own := getattr(strategy, "check", None)) is not None:
        own(space, settings)


def advise(strategy: object, space: Space, settings: Settings) -> list[str]:
    """What the strategy advises against, a sentence each."""
    own = getattr(strategy, "advise", None)
    found: Iterable[str] = own(space, settings) if own is not None else ()
    return list(found)


def retained(strategy: object, view: View) -> Collection[Ref]:
    """What the strategy may still ask for, beside what is always kept."""
    own = getattr(strategy, "retain", None)
    found: Collection[Ref] = own(view) if own is not None else ()
    return found


def needs_samples(strategy: object) -> bool:
    """Whether it compares samples, such as episode returns, and not only their means."""
    return bool(getattr(strategy, "needs_samples", False))
