"""Which of some values to try next, where the best one changes: TV.EXP3.M.

Parker-Holder, Nguyen, Desai & Roberts 2021, "Tuning Mixed Input Hyperparameters on the Fly for Efficient Population Based
AutoRL", arXiv 2106.15883; after EXP3.M (Uchiya, Nakamura & Kudo 2010, "Algorithms for Adversarial Bandit Problems with Multiple
Plays") and EXP3.S, whose weights forget (Auer et al. 2002, "The Nonstochastic Multiarmed Bandit Problem").

From the paper: every value has a weight, and all begin at 1; a round multiplies each by the exponential of what its value has
gained, gains scaled to [0, 1], and adds a share of all weights to each, so that none is ever forgotten; a value is drawn
with probability (1 - γ) · its share of the weights + γ / C, of C values, where γ = 0.2. The best one is taken to change ten
times in a run.

phyla's own: each who is replaced draws by itself, so no weight is ever capped, which EXP3.M does where it draws several
different values at once. A round's plays are those of all members, of whom most keep what they have: they were not drawn by
these probabilities, so gains are not divided by them; a value's gain is the mean of its plays, less the mean of the round. And
weights change at the rate that is best where all gains are seen, √(8 ln C / rounds from change to change), since EXP3.M's
hardly moves them in the tens of rounds that a run has.
"""

from __future__ import annotations

import math

import numpy as np

from phyla.strategies.gp import Array

EXPLORE = 0.2
"""γ: the share of draws that go by no weights."""

CHANGES = 10
"""How often the best value is taken to change in a run."""


def odds(plays: Array, gained: Array, rounds: Array, values: int, horizon: int) -> Array:
    """With which probability to draw each of so many values, [values].

    plays [n]: the number of the value that was played; gained [n]: what that came to, in [0, 1]; rounds [n]: when, in
    ascending order; rounds without plays are no rounds. horizon: the rounds of the whole run.
    """
    if values == 1:
        return np.ones(1)
    rate = math.sqrt(8 * math.log(values) * CHANGES / max(horizon, CHANGES))
    forget = math.e / (CHANGES * max(horizon, CHANGES))
    weights = np.full(values, 1 / values)
    for now in np.unique(rounds):
        played, came = plays[rounds == now], gained[rounds == now]
        times = np.bincount(played, minlength=values)
        above = np.bincount(played, came - came.mean(), minlength=values) / np.maximum(times, 1)
        weights = weights * np.exp(rate * above)
        weights = weights / weights.sum() + forget / values
        weights /= weights.sum()
    return np.asarray((1 - EXPLORE) * weights + EXPLORE / values)
