"""FIRE PBT: a part of the population is chosen by how fast it improves, so that what looks good soon does not win everything.

Dalibard & Jaderberg 2021, "Faster Improvement Rate Population Based Training", arXiv 2109.13800. The rules and numbers here are
those of a re-implementation (PBT-Zoo, TMLR 2025), and were not checked against the text of the paper.

The population has three parts. P1 is plain PBT on the score, and it is for P1 that all is done. P2 is a PBT of its own, on
another fitness. An evaluator takes the weights of a member of P2, its *parent*, and trains them with the hyperparameters of the
best of P1, its *child*: so weights are compared by what comes of them, all trained alike. The parent's fitness is the sum of
`best_score_diff` between this curve and those of the other evaluators. If it also beats the child's own curve, the child goes
on from the evaluator's weights, with its own hyperparameters.

phyla's own, where those rules speak of a controller that sees all, or say nothing:
- Members have roles by their id, so that all agree on them, and a member that enters changes nobody else's.
- A curve has one score an interval here, and had ten there. So `every` ten intervals is a round, in which members of P1 and P2
  copy and evaluations are judged, whatever `ready` is; if members are ready less often than that, a round is as long.
- An evaluation that succeeds goes on until its child has taken the weights: that decides for itself, when it is ready.
- A member is just perturbed, and nobody's child, if its newest report is the first since it copied.
- Where two curves never run side by side, the test compares them from their starts. (There, p was 0 for a curve wholly above,
  and more than 1 for one below. With ten scores the verdict is the same.)
- A member of P2 copies only one of a higher fitness. While nothing is known all are equal, and ids would choose.
- Evaluators train as they were born until the first round, and go on as they do where there is nobody to evaluate.
- `run.best` may be a report of P2 or of an evaluator: that is a model like any other.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np

from phyla.errors import SettingsError
from phyla.events import Ref
from phyla.record import Record
from phyla.settings import Settings
from phyla.space import Space, draw
from phyla.strategies import contract
from phyla.strategies.contract import FRESH, KEEP, Decision, Explore
from phyla.strategies.curves import Curve, best_score_diff, overlap, p_value
from phyla.strategies.evolve import RESCUE_FRACTION
from phyla.strategies.perturb import Perturb
from phyla.strategies.truncation import group_size, quorum
from phyla.view import View

Role: TypeAlias = Literal["P1", "P2", "evaluator"]

ROLES: tuple[Role, ...] = ("P1", "P2", "evaluator")

FEWEST = 2
"""Members that each role needs, since they are compared with one another."""

FEW_ROUNDS = 20
"""Rounds of a run below which there is little time to adapt."""


@dataclass(frozen=True)
class FIRE:
    """P1 evolves by score, P2 by how fast its weights improve where evaluators train them as the best of P1 is trained.

    shares: of the population: of P1, of P2, and of the evaluators, who are no more than P2.
    fraction: from 0 to 0.5: in P1, and in P2, so many of the worst copy one of as many of the best.
    explore: as in Population; None copies unchanged.
    every: intervals of a round, in which a curve gets as many scores; `ready`, if that is more.
    max_eval: rounds after which an evaluation ends that has not succeeded. The worse it looks, the sooner it does.
    significance: an evaluation succeeds if its p is below this.
    Raises SettingsError for other values; `check`, for a population with fewer than two members for each role.

    >>> FIRE().roles(8)
    ['P1', 'P2', 'evaluator', 'P1', 'P2', 'evaluator', 'P1', 'P2']
    """

    shares: tuple[float, float, float] = (8, 8, 6)
    fraction: float = 0.25
    explore: Explore | None = Perturb(0.5, 2.0)  # noqa: RUF009 (it is frozen)
    every: int = 10
    max_eval: int = 3
    significance: float = 0.01

    exempt: ClassVar[Mapping[str, str]] = {
        "T3": "only P1 goes by the score; whoever is best may be in P2, or an evaluator",
        "T4": "evaluators copy those who are to be judged; P2, and children of evaluations that succeed, go by improvement",
        "T6": "the fraction is one of P1 and of P2, and evaluators copy, too",
    }

    def __post_init__(self) -> None:
        object.__setattr__(self, "shares", _shares(self.shares))
        if not _is_number(self.fraction) or not 0 <= self.fraction <= 0.5:
            raise SettingsError(f"FIRE: fraction must be from 0 to 0.5, the share that copies, got {self.fraction!r}")
        if self.explore is not None and not callable(self.explore):
            raise SettingsError(f"FIRE: explore must be one such as phyla.Perturb(), or None, got {self.explore!r}")
        if not _is_number(self.significance) or not 0 < self.significance < 1:
            raise SettingsError(
                f"FIRE: significance must be a probability, above 0 and below 1, got {self.significance!r}"
            )
        for name in ("every", "max_eval"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise SettingsError(f"FIRE: {name} must be a whole number, 1 or more, got {value!r}")
        if (p := 0.5 ** (self.every * self.max_eval)) >= self.significance:
            raise SettingsError(
                f"FIRE: no evaluation can succeed in max_eval={self.max_eval} rounds of every={self.every} intervals: to be "
                f"better in all of them has a p of {p:.2g}, which must be below significance={self.significance!r}"
            )

    def check(self, space: Space, settings: Settings) -> None:
        """Raises SettingsError if there are fewer than two members for each role."""
        contract.check(self.explore, space, settings)
        if min(self.sizes(settings.size).values()) < FEWEST:
            enough = next(n for n in itertools.count() if min(self.sizes(n).values()) >= FEWEST)
            raise SettingsError(
                f"FIRE: {settings.size} members are {_listed(self.sizes(settings.size))}; it needs {FEWEST} of each or more. "
                f"A size of {enough} gives {_listed(self.sizes(enough))}"
            )

    def advise(self, space: Space, settings: Settings) -> list[str]:
        said = contract.advise(self.explore, space, settings)
        length = max(self.every, settings.ready)
        if settings.intervals is not None and settings.intervals < FEW_ROUNDS * length:
            said.append(
                f"FIRE: a round takes {length} intervals, so that it has curves to compare; in {settings.intervals} intervals "
                f"there are {settings.intervals // length}, and fewer than {FEW_ROUNDS} leave little time to adapt. "
                "Shorter intervals give more"
            )
        return said

    # Roles --------------------------------------------------------------------------------------------------------------

    def roles(self, n: int) -> list[Role]:
        """Of the members 0 to n - 1: each next one has the role that is furthest below its share."""
        counts, found = [0, 0, 0], list[Role]()
        for size in range(1, n + 1):
            below = [s * size - count * sum(self.shares) for s, count in zip(self.shares, counts, strict=True)]
            role = below.index(max(below))
            counts[role] += 1
            found.append(ROLES[role])
        return found

    def sizes(self, n: int) -> dict[Role, int]:
        """How many of n members have each role."""
        found = self.roles(n)
        return {role: found.count(role) for role in ROLES}

    # Decisions ----------------------------------------------------------------------------------------------------------

    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Decision:
        own = view.restorable(member)
        assert own is not None  # decide.py sees to it
        if view.done[member] % self.every >= view.settings.ready:
            return Decision(KEEP, own.hypers)
        seen = _Seen(self, view, member)
        match seen.roles[member]:
            case "P1":
                decision = self._by_score(seen, own, rng)
            case "P2":
                decision = self._by_rate(seen, own, rng)
            case "evaluator":
                decision = seen.next_evaluation() if member in seen.free else None
        return decision or Decision(KEEP, own.hypers)

    def rescue(self, view: View, member: int, rng: np.random.Generator) -> Decision:
        """For a member whose own state is lost: an evaluator begins anew, others copy.

        P1 copies one of its best, and P2 any of its own, since of most of them no rate is known; where nobody of them is left,
        one of the other part. It is born again where nobody can be copied at all.
        """
        seen = _Seen(self, view, member)
        role = seen.roles[member]
        if role == "evaluator" and (begun := seen.next_evaluation()) is not None:
            return begun
        for pool in ("P2", "P1") if role == "P2" else ("P1", "P2"):
            donors = [record for record in seen.ranked(pool) if record.finite and record.id != member]
            if donors:
                k = len(donors) if pool == "P2" else max(1, group_size(RESCUE_FRACTION, len(donors)))
                return self._copy(donors[-k:], view, member, rng)
        return Decision(FRESH, draw(view.space_of(member), rng))

    def _by_score(self, seen: _Seen, own: Record, rng: np.random.Generator) -> Decision | None:
        """P1: truncation selection; and weights that evaluators have shown to improve faster than its own."""
        ranked = seen.ranked("P1")
        k = group_size(self.fraction, len(ranked))
        donors = [record for record in ranked[len(ranked) - k :] if record.finite]
        if len(ranked) >= quorum(self.sizes(seen.view.size)["P1"]) and donors and own.id in [r.id for r in ranked[:k]]:
            return self._copy(donors, seen.view, own.id, rng)
        winner, best = None, seen.curve(own)
        for one in seen.evaluations.values():  # of several that succeed, each next one must beat the one before
            if one.child is not None and one.child.id == own.id and self.beats(one.curve, best):
                winner, best = one.evaluator, one.curve
        return Decision(winner, own.hypers, notes={NOTE: {"taken": list(winner.ref)}}) if winner is not None else None

    def _by_rate(self, seen: _Seen, own: Record, rng: np.random.Generator) -> Decision | None:
        """P2: truncation selection by improvement rate, among those of whom it is known."""
        ranked, rates = seen.ranked("P2"), seen.rates
        rated = sorted((record for record in ranked if record.id in rates), key=lambda r: (rates[r.id], r.id))
        k = min(group_size(self.fraction, len(ranked)), len(rated) // 2)
        if own.id not in [record.id for record in rated[:k]]:
            return None
        donors = [r for r in rated[len(rated) - k :] if r.finite and rates[r.id] > rates[own.id]]
        return self._copy(donors, seen.view, own.id, rng) if donors else None

    def _copy(self, donors: list[Record], view: View, member: int, rng: np.random.Generator) -> Decision:
        donor = donors[rng.integers(len(donors))]
        if self.explore is None:
            return Decision(donor, donor.hypers)
        return Decision(donor, self.explore(donor.hypers, view.space_of(member), view, member, rng))

    # Evaluations --------------------------------------------------------------------------------------------------------

    def beats(self, one: Curve | None, other: Curve | None) -> bool:
        """Whether one curve improves faster than the other, beyond doubt."""
        if one is None or other is None:
            return False
        return p_value(one, other) < self.significance and best_score_diff(one, other) > 0

    def gives_up(self, rounds: float, one: Curve | None, other: Curve | None) -> bool:
        """Whether an evaluation ends without success after so many rounds; the curves are its own and the child's."""
        if self.beats(one, other):
            return False
        if one is None or other is None or overlap(one, other) is None:
            return rounds >= self.max_eval
        return p_value(one, other) > self.significance + max(0.0, 1 - rounds / self.max_eval)


@dataclass(frozen=True)
class _Evaluation:
    """What an evaluator is at."""

    evaluator: Record  # its newest report
    rounds: float  # for which it has gone on
    curve: Curve | None
    parent: Record | None  # where these two stand; None if they go on from other weights by now, or have left
    child: Record | None


class _Seen:
    """What a member sees when it decides: the reports of the others, by what their roles are."""

    def __init__(self, fire: FIRE, view: View, member: int):
        self.fire, self.view, self.member = fire, view, member
        self.roles = fire.roles(len(view.done))
        self.peers = {record.id: record for record in view.peers(member)}
        self._curves: dict[Ref, Curve | None] = {}

    def ranked(self, role: Role) -> list[Record]:
        """The reports of one role that have a score, worst first."""
        return [record for record in self.view.ranked(self.member) if self.roles[record.id] == role]

    @cached_property
    def evaluations(self) -> dict[int, _Evaluation]:
        """By evaluator; those that were born and have copied nobody yet are left out."""
        found = {}
        for record in self.peers.values():
            path = _path(record)
            if self.roles[record.id] != "evaluator" or (note := _evaluated(path[0])) is None:
                continue
            found[record.id] = _Evaluation(
                evaluator=record,
                rounds=sum(each.span for each in path) / max(self.fire.every, self.view.settings.ready),
                curve=self.curve(record),
                parent=self._standing(note["parent"]),
                child=self._standing(note["child"]),
            )
        return found

    @cached_property
    def rates(self) -> dict[int, float]:
        """P2's fitness, of those of whom it is known: by how much their evaluators come out above the other ones."""
        curves: dict[int, Curve] = {}
        for one in self.evaluations.values():
            if one.parent is not None and one.curve is not None:
                curves.setdefault(one.parent.id, one.curve)
        return {one: sum(best_score_diff(curve, other) for other in curves.values()) for one, curve in curves.items()}

    def curve(self, record: Record) -> Curve | None:
        """The finite scores that its weights have had since they were copied; None if there are fewer than two."""
        if record.ref not in self._curves:
            scores = tuple(self.view.value(each) for each in _path(record) if each.finite)
            self._curves[record.ref] = Curve(scores) if len(scores) > 1 else None
        return self._curves[record.ref]

    @cached_property
    def free(self) -> set[int]:
        """The evaluators that are to begin anew: they have no evaluation, or one that has ended, in success or without."""
        return {
            one for one in self.peers if self.roles[one] == "evaluator" and self._is_free(self.evaluations.get(one))
        }

    def _is_free(self, one: _Evaluation | None) -> bool:
        if one is None or one.parent is None or one.child is None:
            return True
        diverged = one.evaluator.score is not None and not one.evaluator.finite
        return diverged or self.fire.gives_up(one.rounds, one.curve, self.curve(one.child))

    def next_evaluation(self) -> Decision | None:
        """What this evaluator is to begin; None where there is nobody to evaluate. Free ones of lower id are served first."""
        waiting = self._waiting()[sum(one < self.member for one in self.free) :]
        ranked = [record for record in self.ranked("P1") if record.finite]
        children = [record for record in ranked if not _copied(record)] or ranked
        if not waiting or not children:
            return None
        parent, child = waiting[0], children[-1]
        notes = {NOTE: {"parent": list(parent.ref), "child": list(child.ref)}}
        return Decision(parent, child.hypers, notes=notes)

    def _waiting(self) -> list[Record]:
        """The members of P2 that can be evaluated and are not, the one first that has waited for longest."""
        busy = {one.parent.id for e, one in self.evaluations.items() if one.parent is not None and e not in self.free}
        until: dict[int, int] = {}  # the last interval in which somebody evaluated it
        for evaluator, history in enumerate(self.view.known(self.member)):
            parent = None
            for record in history if self.roles[evaluator] == "evaluator" else ():
                if _begins(record):
                    note = _evaluated(record)
                    parent = note["parent"][0] if note is not None else None
                if parent is not None:
                    until[parent] = max(record.interval, until.get(parent, 0))

        def since(record: Record) -> tuple[int, int]:
            first = _path(record)[0]  # who has copied waits from then on
            return max(first.interval - first.span, until.get(record.id, 0)), record.id

        return sorted((r for r in self.ranked("P2") if r.finite and r.id not in busy), key=since)

    def _standing(self, place: Sequence[int]) -> Record | None:
        """Where a member stands, if it still goes on from the weights of this report of its own."""
        ref = Ref(*place)
        stands = record = self.peers.get(ref.member)
        while record is not None and record.seq > ref.seq:
            record = record.parent if record.parent is not None and record.parent.id == ref.member else None
        return stands if record is not None and record.ref == ref else None


# What a report's notes say ------------------------------------------------------------------------------------------------

NOTE = "fire"


def _note(record: Record) -> Any:
    return (record.notes or {}).get(NOTE, {})


def _evaluated(record: Record) -> Any:
    """Whose evaluation began with this report, as {"parent": [member, seq], "child": [member, seq]}; None: nobody's."""
    note = _note(record)
    return note if "parent" in note else None


def _copied(record: Record) -> bool:
    """Whether it copied before this was trained; a child that took its evaluator's weights goes on with what it was."""
    return record.donor is not None and "taken" not in _note(record)


def _begins(record: Record) -> bool:
    return record.parent is None or _copied(record)


def _path(record: Record) -> list[Record]:
    """The reports of these weights since they were copied, oldest first; of a child, from its evaluator's first on."""
    path = [record]
    while not _begins(path[-1]) and (parent := path[-1].parent) is not None:
        path.append(parent)
    return path[::-1]


# What FIRE is given -------------------------------------------------------------------------------------------------------


def _shares(given: Any) -> tuple[float, float, float]:
    shares = tuple(given) if isinstance(given, list | tuple) else ()
    if len(shares) != 3 or not all(_is_number(share) and share > 0 for share in shares):
        raise SettingsError(
            f"FIRE: shares must be three numbers above 0, for P1, P2 and the evaluators, as in (8, 8, 6), got {given!r}"
        )
    if shares[2] > shares[1]:
        raise SettingsError(
            f"FIRE: shares {shares!r}: there are more evaluators than members of P2, and each evaluates another one; "
            "give P2 at least as large a share"
        )
    return shares


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _listed(sizes: Mapping[Role, int]) -> str:
    p1, p2, evaluators = sizes.values()
    return f"{p1} of P1, {p2} of P2 and {evaluators} evaluator{'' if evaluators == 1 else 's'}"
