"""Binary tournament: a member meets one other member, and copies it if it is better.

Jaderberg et al. 2017, "Population Based Training of Neural Networks", arXiv 1711.09846, §4.1.1.

From the paper: one peer is drawn uniformly, and copied if its score is better. phyla's own: of equal scores the higher member
id is better, as everywhere, so that of two members always exactly one is; and nobody exploits below the quorum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from phyla.record import Record
from phyla.strategies.truncation import quorum
from phyla.view import View


def meet(view: View, member: int, rng: np.random.Generator) -> tuple[Record, Record] | None:
    """What the member stands at, and what another stands at that is drawn uniformly among all that have a score.

    None where it has no score itself, or below the quorum; `rng` is consumed otherwise.
    """
    scored = [record for record in view.peers(member) if record.score is not None]
    own = next((record for record in scored if record.id == member), None)
    if own is None or len(scored) < quorum(view.size):
        return None
    others = [record for record in scored if record is not own]
    return own, others[rng.integers(len(others))]


def is_better(view: View, record: Record, other: Record) -> bool:
    """Whether it is strictly better in the order (score, member id), and finite: whether it may be copied."""
    return record.finite and (view.value(record), record.id) > (view.value(other), other.id)


@dataclass(frozen=True)
class Tournament:
    """A member copies another one, drawn uniformly, if that is better.

    So half of the population copies whenever all are ready, and only the best is sure to go on: more pressure than
    `Truncation(0.2)`.
    """

    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Record | None:
        met = meet(view, member, rng)
        if met is None:
            return None
        own, peer = met
        return peer if is_better(view, peer, own) else None
