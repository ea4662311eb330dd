"""MF-PBT: sub-populations that evolve at different frequencies, so that some of them look further ahead.

Doulazmi et al. 2025, "Multiple-Frequencies Population-Based Training", arXiv 2506.03225.

From the paper's published code: equal sub-populations, of which number i evolves every frequencies[i] times ready (so that 1 is
most often); its worst quarter copies its best, one-to-one, and explores; its third quarter takes in better members of the other
sub-populations, each once, and does not explore. The asymmetry of that: hyperparameters come along from where they had to last
for longer; from where they were chosen more greedily only the weights come, and hyperparameters are those of the own best.
Factors of 0.8 and 1.25, and frequencies 1, 10, 25 and 50, over 1,000 intervals of 32 members.

phyla's own:
- Member m is in sub-population m modulo their number. That keeps them alike when members come and go, and moves nobody.
- Quarters are rounded as in `Truncation`, so that a sub-population need not divide by four, nor be complete.
- A member evolves if a multiple of its period has passed since it was last ready. One that was replaced in between, and is
  ready at other times since, misses nothing.
- Who has lost its state is replaced from its own sub-population.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from phyla.errors import SettingsError
from phyla.record import Record
from phyla.settings import Settings
from phyla.space import Space, draw
from phyla.strategies import contract
from phyla.strategies.contract import FRESH, KEEP, Decision, Explore
from phyla.strategies.perturb import Perturb
from phyla.strategies.truncation import group_size, quorum
from phyla.view import View

QUARTER = 0.25
"""The share of a sub-population that copies; that is copied; and that takes in others."""

FEWEST = 3
"""Times that the slowest sub-population should evolve in a run."""


@dataclass(frozen=True)
class MFPBT:
    """Sub-populations that evolve at different frequencies, and take in better members of one another.

    frequencies: after how many times ready each sub-population evolves; 1 is as often as in Population Based Training, and
        higher numbers look further ahead. Member m is in sub-population m % len(frequencies).
    explore: how hyperparameters change that were copied within a sub-population; None: they do not.
    Raises SettingsError for frequencies that are not whole numbers from 1; `check`, for a population that does not make equal
    sub-populations of at least four.
    """

    frequencies: Sequence[int] = (1, 10, 25, 50)
    explore: Explore | None = Perturb(0.8, 1.25)  # noqa: RUF009 (it is frozen)

    looks_ahead: ClassVar[bool] = True

    def __post_init__(self) -> None:
        found = tuple(self.frequencies) if isinstance(self.frequencies, Sequence) else ()
        if not found or not all(isinstance(one, int) and not isinstance(one, bool) and one >= 1 for one in found):
            raise SettingsError(
                "MFPBT: frequencies must be whole numbers from 1, one for each sub-population, as in (1, 10, 25, 50), "
                f"got {self.frequencies!r}"
            )
        if self.explore is not None and not callable(self.explore):
            raise SettingsError(f"MFPBT: explore must be one such as phyla.Perturb(), or None, got {self.explore!r}")
        object.__setattr__(self, "frequencies", found)

    def check(self, space: Space, settings: Settings) -> None:
        groups = len(self.frequencies)
        if settings.size % groups or settings.size < 4 * groups:
            sizes = ", ".join(str(groups * n) for n in range(4, 9))
            raise SettingsError(
                f"MFPBT: {groups} frequencies make {groups} equal sub-populations of at least four members, so size= must be "
                f"one of {sizes}, …; got {settings.size}"
            )
        contract.check(self.explore, space, settings)

    def advise(self, space: Space, settings: Settings) -> list[str]:
        said = contract.advise(self.explore, space, settings)
        if settings.intervals is None:
            return said
        slowest = max(self.frequencies) * settings.ready
        times = (settings.intervals - 1) // slowest  # after the last interval nobody evolves
        if times < FEWEST:
            said.append(
                f"the slowest sub-population of MFPBT evolves every {slowest} intervals, which is {times} times in "
                f"{settings.intervals}. To look that far ahead takes {FEWEST * slowest + 1} intervals and more; or choose "
                f"lower frequencies than {self.frequencies}"
            )
        return said

    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Decision:
        own = view.restorable(member)
        assert own is not None  # decide.py sees to it
        stay = Decision(KEEP, own.hypers)
        if not self._evolves(view, member):
            return stay
        inside, outside = self._divide(view, member)
        n, k = len(inside), group_size(QUARTER, len(inside))
        if n < quorum(int(np.count_nonzero(view.active[self._group(member) :: len(self.frequencies)]))):
            return stay
        for record, donor in zip(inside[:k], inside[n - k :], strict=True):
            if record.id == member:
                return self._copy(donor, view, member, rng)
        third = inside[k : min(2 * k, n - k)]
        for record, migrant in _migrations(third, outside, view):
            if record.id == member:
                return self._take_in(migrant, own, inside[-1])
        return stay

    def rescue(self, view: View, member: int, rng: np.random.Generator) -> Decision:
        """For a member whose own state is lost: copies one of its sub-population's best quarter, or is born again."""
        inside, _ = self._divide(view, member)
        donors = [record for record in inside if record.finite and record.id != member]
        if not donors:
            return Decision(FRESH, draw(view.space_of(member), rng))
        best = donors[-max(1, group_size(QUARTER, len(donors))) :]
        return self._copy(best[rng.integers(len(best))], view, member, rng)

    def _group(self, member: int) -> int:
        return member % len(self.frequencies)

    def _evolves(self, view: View, member: int) -> bool:
        """Whether a multiple of its sub-population's period has passed since the member was last ready."""
        period = self.frequencies[self._group(member)] * view.settings.ready
        return bool(view.done[member] // period > view.last_ready[member] // period)

    def _divide(self, view: View, member: int) -> tuple[list[Record], list[Record]]:
        """Who has a score in the member's own sub-population, and who in the others; worst first."""
        inside: list[Record] = []
        outside: list[Record] = []
        for record in view.ranked(member):
            (inside if self._group(record.id) == self._group(member) else outside).append(record)
        return inside, outside

    def _copy(self, donor: Record, view: View, member: int, rng: np.random.Generator) -> Decision:
        hypers = donor.hypers
        if self.explore is not None:
            hypers = self.explore(hypers, view.space_of(member), view, member, rng)
        return Decision(donor, hypers)

    def _take_in(self, migrant: Record, own: Record, best: Record) -> Decision:
        """The migrant's weights. The notes name the report whose hyperparameters go with them, if that is another."""
        here, there = (self.frequencies[self._group(record.id)] for record in (own, migrant))
        if here < there:
            return Decision(migrant, migrant.hypers)
        giver = best if here > there else own  # of equals the paper says nothing; in its code each keeps its own
        return Decision(migrant, giver.hypers, notes={"hypers": list(giver.ref)})


def _migrations(third: Sequence[Record], outside: Sequence[Record], view: View) -> Iterator[tuple[Record, Record]]:
    """(member, whom it takes in), the best members first: each the best outsider that is left, if that is better."""
    left = list(outside)
    for record in reversed(third):
        if left and (view.value(left[-1]), left[-1].id) > (view.value(record), record.id):
            yield record, left.pop()
