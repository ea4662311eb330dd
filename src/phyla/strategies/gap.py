"""Gap: one of the worst copies one of the best, but only if that is ahead by more than noise.

The rule of DexPBT, Petrenko et al. 2023, "DexPBT: Scaling up Dexterous Manipulation for Hand-Arm Systems with Population
Based Training", arXiv 2305.12127, and its code (isaac-sim/IsaacGymEnvs, `pbt/pbt.py`); Sample Factory's is its like.

From there: the groups, the candidate drawn uniformly from the best, both gates, and the trimmed standard deviation. phyla's
own: groups are of the sizes of `Truncation`, so that they never meet; the quorum is phyla's; and a member that does not copy
goes on unchanged. (DexPBT changes its hyperparameters, starts from its own as often as from the donor's, and spares a member
whose best score of the interval reached the best group.)
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np

from phyla.record import Record
from phyla.strategies import given
from phyla.strategies.bands import spread
from phyla.strategies.truncation import group_size, quorum
from phyla.view import View

TRIMMED = 0.2
"""The share of the worst that the standard deviation leaves out: a few that have collapsed would make every gap look small."""


@dataclass(frozen=True)
class Gap:
    """A member in the `worst` fraction copies one of the `best` fraction, drawn uniformly, if that leads by enough.

    worst, best: from 0 to 0.5. sigmas: by more than so many standard deviations of the scores, the worst 20 % left out;
    relative: and by more than this share of the candidate's score. Raises SettingsError for other values.
    """

    worst: float = 0.125
    best: float = 0.3
    sigmas: float = 0.5
    relative: float = 0.05

    def __post_init__(self) -> None:
        for name in ("worst", "best"):
            value = given.number(f"Gap: {name}", getattr(self, name), 0, 0.5, "a fraction from 0 to 0.5")
            object.__setattr__(self, name, value)
        for name in ("sigmas", "relative"):
            value = given.number(f"Gap: {name}", getattr(self, name), 0, sys.float_info.max, "a number, 0 or more")
            object.__setattr__(self, name, value)

    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Record | None:
        ranked = view.ranked(member)
        n, finite = len(ranked), [record for record in ranked if record.finite]
        own = next((record for record in ranked[: group_size(self.worst, n)] if record.id == member), None)
        best = [record for record in ranked[n - group_size(self.best, n) :] if record.finite]
        if own is None or not best or n < quorum(view.size):
            return None
        candidate = best[rng.integers(len(best))]
        _, sigma = spread([view.value(record) for record in finite[int(TRIMMED * len(finite)) :]])
        lead = view.value(candidate) - view.value(own)
        least = max(self.sigmas * sigma, self.relative * abs(view.value(candidate)))
        return candidate if lead > least else None
