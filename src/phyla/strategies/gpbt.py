"""GPBT-PL, pairwise learning: a loser takes the winner's weights, and its hyperparameters move towards the winner's.

Bai & Cheng 2024, "Generalized Population-Based Training for Hyperparameter Optimization in Reinforcement Learning",
arXiv 2404.08233; details from the authors' code (EMI-Group/gpbt-pl).

From there: each hyperparameter has a velocity v, at first 0; v ← w₁ r₁ v + w₂ r₂ (h_winner - h_loser), and the loser's h
becomes h_loser + v, clipped, with r₁ and r₂ uniform on (0, 1) for each hyperparameter and w₁ = w₂ = 1; with probability 0.25
it is redrawn instead; losers are the worst quarter, and a winner is drawn uniformly from the best one. phyla's own: velocities
live on the axis that a hyperparameter is encoded on, and within ±1, since raw units mean nothing on a log scale or after the
bounds have changed; integers are rounded, not cut off; a velocity ends with a redraw, and belongs to the member, never to the
weights; and an unordered choice, between whose values nothing lies, takes the winner's with probability w₂ r₂, which is a half.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from phyla.record import Record
from phyla.settings import Settings
from phyla.space import Choice, Hyperparameter, Space, Value
from phyla.strategies import contract, given
from phyla.strategies.contract import KEEP, Decision
from phyla.strategies.evolve import Evolve
from phyla.strategies.perturb import each
from phyla.strategies.resample import Resample
from phyla.strategies.truncation import Truncation
from phyla.view import View

VELOCITY = "velocity"
"""The note that holds a member's velocities, by name: what it moved by when it last learned, on the encoded axis."""


@dataclass(frozen=True)
class GPBT:
    """A member in the worst `fraction` copies the weights of one in the best `fraction`, and learns from its hyperparameters.

    fraction: from 0 to 0.5. inertia, attraction: w₁ and w₂, 0 or more: how far it goes on as it went, and how far to the
    winner. resample: the probability with which each hyperparameter is redrawn from its prior instead.
    Raises SettingsError for other values.
    """

    fraction: float = 0.25
    inertia: float = 1.0
    attraction: float = 1.0
    resample: float = 0.25

    def __post_init__(self) -> None:
        numbers = {
            "fraction": (0.5, "from 0 to 0.5, the share of the population that learns"),
            "inertia": (1000, "a number from 0 to 1000"),
            "attraction": (1000, "a number from 0 to 1000"),
            "resample": (1.0, "a probability from 0 to 1"),
        }
        for name, (most, expected) in numbers.items():
            object.__setattr__(self, name, given.number(f"GPBT: {name}", getattr(self, name), 0, most, expected))

    def advise(self, space: Space, settings: Settings) -> list[str]:
        return contract.advise(Truncation(self.fraction), space, settings)

    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Decision:
        own = view.restorable(member)
        assert own is not None  # decide.py sees to it
        winner = Truncation(self.fraction)(view, member, rng)
        if winner is None:
            return Decision(KEEP, own.hypers)
        before, velocity = velocities(own), dict[str, float]()

        def learn(name: str, h: Hyperparameter, theirs: Value) -> Value:
            on, towards = rng.random(2)
            if isinstance(h, Choice) and not h.ordered:
                return h.clip(theirs if self.attraction * towards > rng.random() else own.hypers[name])
            mine = h.encode(own.hypers[name])
            step = self.inertia * on * before.get(name, 0.0) + self.attraction * towards * (h.encode(theirs) - mine)
            velocity[name] = float(np.clip(step, -1, 1))
            return h.decode(mine + velocity[name])

        hypers = each(winner.hypers, view.space_of(member), self.resample, learn, rng)
        return Decision(winner, hypers, notes={VELOCITY: velocity})

    def rescue(self, view: View, member: int, rng: np.random.Generator) -> Decision:
        """For a member whose own state is lost: it has nothing to learn with, so it copies one of the best, at velocity 0."""
        explore = Resample(self.resample) if self.resample else None
        return Evolve(Truncation(self.fraction), explore).rescue(view, member, rng)


def velocities(own: Record) -> Mapping[str, float]:
    """What the member noted when it last learned, if its state has not been replaced or begun anew since."""
    record: Record | None = own
    while record is not None and record.id == own.id:
        if isinstance(noted := (record.notes or {}).get(VELOCITY), Mapping):
            return noted
        record = record.parent
    return {}
