"""The initiator tournament: whoever is ready meets another, and what it trains next is a child of the better of the two.

Li et al. 2019, "A Generalized Framework for Population Based Training", arXiv 1902.01894.

From the paper: the member that is ready is the initiator; it meets one peer, drawn uniformly; the better is the parent, and the
child is its checkpoint with mutated hyperparameters, so that a winner goes on from its own weights, mutated too. phyla's own:
`elite`, without which the best member of all is mutated as well; of equals the higher member id is the better; the quorum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phyla.settings import Settings
from phyla.space import Hypers, Space
from phyla.strategies import contract, given
from phyla.strategies.contract import KEEP, Decision, Explore
from phyla.strategies.evolve import Evolve
from phyla.strategies.perturb import Perturb
from phyla.strategies.tournament import Tournament, is_better, meet
from phyla.view import View


@dataclass(frozen=True)
class Initiator:
    """A member meets another one, drawn uniformly; it goes on from the better one's weights, with that one's hypers explored.

    explore: as in Population; None changes nothing. elite: so many of the best go on unchanged; 0 is the paper's rule, under
    which hyperparameters that are good are kept only as long as chance leaves them near.
    Raises SettingsError for what is no explore, or a negative elite.
    """

    explore: Explore | None = Perturb()  # noqa: RUF009 (it is frozen)
    elite: int = 1

    def __post_init__(self) -> None:
        if self.explore is not None:
            given.part("Initiator: explore", self.explore, "phyla.Perturb(), or None")
        given.whole("Initiator: elite", self.elite, 0, None, "a whole number of members, 0 or more")

    def check(self, space: Space, settings: Settings) -> None:
        contract.check(self.explore, space, settings)

    def advise(self, space: Space, settings: Settings) -> list[str]:
        said = contract.advise(self.explore, space, settings)
        if self.elite >= settings.size > 1:
            said.append(f"{self!r}: all {settings.size} members are elite, and none ever changes. Make elite smaller")
        return said

    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Decision:
        own = view.restorable(member)
        assert own is not None  # decide.py sees to it
        met = meet(view, member, rng)
        if met is None or member in self._elite(view, member):
            return Decision(KEEP, own.hypers)
        standing, peer = met
        if is_better(view, peer, standing):
            return Decision(peer, self._mutated(peer.hypers, view, member, rng))
        return Decision(KEEP, self._mutated(own.hypers, view, member, rng))

    def rescue(self, view: View, member: int, rng: np.random.Generator) -> Decision:
        """For a member whose own state is lost: copies one of the best, or is born again where nobody can be copied."""
        return Evolve(Tournament(), self.explore).rescue(view, member, rng)

    def _elite(self, view: View, member: int) -> list[int]:
        ranked = view.ranked(member)
        return [record.id for record in ranked[max(0, len(ranked) - self.elite) :]]

    def _mutated(self, hypers: Hypers, view: View, member: int, rng: np.random.Generator) -> Hypers:
        return hypers if self.explore is None else self.explore(hypers, view.space_of(member), view, member, rng)
