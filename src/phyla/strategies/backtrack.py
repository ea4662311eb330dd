"""Backtrack: a member that would copy another goes back to its own best ancestor instead, where that is better.

After the backtracking of Oríon's Population Based Training (Epistimio/orion, `algo/pbt`), where whoever is dropped resumes
from the best in the past of all lineages, and of BG-PBT, Wan et al. 2022, "Bayesian Generational Population-Based Training",
arXiv 2207.09405, where that is the best of the run. phyla's own: only the member's own true ancestry counts, so that what was
lost comes back and lineages stay apart; and another exploit says who is to be replaced, so that a lucky score in the past holds
back only members that are among the worst, and no longer than until others beat it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from phyla.events import Ref
from phyla.record import Record
from phyla.settings import Settings
from phyla.space import Space
from phyla.strategies import contract, given
from phyla.strategies.contract import Exploit
from phyla.strategies.truncation import Truncation
from phyla.view import View


@dataclass(frozen=True)
class Backtrack:
    """A member for which `exploit` finds a donor copies the better of that and the best report of its own ancestry.

    So a population that has collapsed as a whole gets back to where it was, member by member, while one that gets better
    does what `exploit` does. The best ancestors keep their checkpoints, at most `keep` more for each member; see `retain`.
    """

    exploit: Exploit = Truncation()  # noqa: RUF009 (it is frozen)

    def __post_init__(self) -> None:
        given.part("Backtrack: the exploit", self.exploit, "phyla.Truncation(0.2)")

    @property
    def needs_samples(self) -> bool:
        return contract.needs_samples(self.exploit)

    def check(self, space: Space, settings: Settings) -> None:
        contract.check(self.exploit, space, settings)

    def advise(self, space: Space, settings: Settings) -> list[str]:
        return contract.advise(self.exploit, space, settings)

    def retain(self, view: View) -> Collection[Ref]:
        """The best ancestor of each report that a member may still go on from; and what `exploit` asks for.

        Those are the newest `keep` of every member, of which there are enough for a run with `max_lead`. Had only the newest
        one's ancestor its checkpoint, then whoever copies an older report would find it, or not, by how far others are.
        """
        peaks = {record.peak for history in view.history for record in history[-view.settings.keep :]}
        return {*(peak for peak in peaks if peak is not None), *contract.retained(self.exploit, view)}

    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Record | None:
        donor, own = self.exploit(view, member, rng), view.restorable(member)
        if donor is None or own is None or own.peak is None:
            return donor
        peak = view.records[own.peak]
        kept = peak.available and not peak.void
        return peak if kept and view.value(peak) > view.value(donor) else donor
