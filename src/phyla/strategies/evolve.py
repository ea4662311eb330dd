"""Exploit, then explore: the step of Population Based Training (Jaderberg et al. 2017, arXiv 1711.09846, Algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from phyla.record import Record
from phyla.settings import Settings
from phyla.space import Space, draw
from phyla.strategies import contract
from phyla.strategies.contract import FRESH, KEEP, Decision, Exploit, Explore
from phyla.strategies.truncation import group_size
from phyla.view import View

RESCUE_FRACTION = 0.2
"""A member whose state is lost is replaced from this share of the best."""


@dataclass(frozen=True)
class Evolve:
    """Copies a better member's report if `exploit` finds one, and only then changes the hyperparameters with `explore`.

    exploit=None is random search at equal cost: nobody copies anybody. explore=None copies unchanged. inherit says what is
    copied: the paper's "both", or for its ablations "weights" (own hyperparameters are explored) or "hypers" (own weights
    stay).
    """

    exploit: Exploit | None
    explore: Explore | None
    inherit: Literal["both", "weights", "hypers"] = "both"

    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Decision:
        own = view.restorable(member)  # where it stands; what is left of it, if that checkpoint was lost
        assert own is not None  # decide.py sees to it
        donor = self.exploit(view, member, rng) if self.exploit is not None else None
        if donor is None:
            return Decision(KEEP, own.hypers)
        return self._copy(donor, own, view, member, rng)

    @property
    def retain(self) -> Any:
        """That of `exploit`, if it has one."""
        return getattr(self.exploit, "retain", None)

    @property
    def needs_samples(self) -> bool:
        return contract.needs_samples(self.exploit)

    def check(self, space: Space, settings: Settings) -> None:
        for part in (self.exploit, self.explore):
            contract.check(part, space, settings)

    def advise(self, space: Space, settings: Settings) -> list[str]:
        return [said for part in (self.exploit, self.explore) for said in contract.advise(part, space, settings)]

    def rescue(self, view: View, member: int, rng: np.random.Generator) -> Decision:
        """For a member whose own state is lost: copies one of the best, or is born again where nobody can be copied."""
        donors = [record for record in view.ranked(member) if record.finite and record.id != member]
        if self.exploit is None or not donors:
            return Decision(FRESH, draw(view.space_of(member), rng))
        best = donors[-max(1, group_size(RESCUE_FRACTION, len(donors))) :]
        return self._copy(best[rng.integers(len(best))], None, view, member, rng)

    def _copy(self, donor: Record, own: Record | None, view: View, member: int, rng: np.random.Generator) -> Decision:
        hypers = own.hypers if own is not None and self.inherit == "weights" else donor.hypers
        if self.explore is not None:
            hypers = self.explore(hypers, view.space_of(member), view, member, rng)
        return Decision(KEEP if own is not None and self.inherit == "hypers" else donor, hypers, donor)
