"""Strategies that are each wrong in one way, as real implementations were: what a suite of tests must find."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from phyla.events import Ref
from phyla.record import Record
from phyla.space import Float, Hypers, Int, Space
from phyla.strategies.contract import KEEP, Decision
from phyla.strategies.evolve import Evolve
from phyla.strategies.perturb import Perturb
from phyla.strategies.truncation import Truncation
from phyla.view import View

RNG = np.random.default_rng(0)
PBT = Evolve(Truncation(0.25), Perturb())


def best_first(view: View, member: int) -> list[Record]:
    return [record for record in reversed(view.ranked(member)) if record.finite]


def is_best(view: View, member: int) -> bool:
    ranked = view.ranked(member)
    return not ranked or ranked[-1].id == member


# Exploits -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CopiesTheWorst:
    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Record | None:
        others = [record for record in best_first(view, member) if record.id != member]
        return others[-1] if others and not is_best(view, member) else None


@dataclass(frozen=True)
class CopiesBeforeItHasAScore:
    """Syne Tune's clone is judged before it has trained."""

    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Record | None:
        newest, best = view.newest(member), best_first(view, member)
        return best[0] if newest is not None and newest.score is None and best else None


@dataclass(frozen=True)
class SortsNaNAnywhere:
    """AgileRL makes a member with NaN the elite; EvoRL's NaN sorts into the parents."""

    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Record | None:
        ranked = view.ranked(member)
        odd = [record for record in ranked if record.score is not None and math.isnan(record.score)]
        own = view.newest(member)
        return odd[0] if odd and own is not None and own.finite and not is_best(view, member) else None


@dataclass(frozen=True)
class TakesInfinityForTheBest:
    """By the raw score under `max`."""

    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Record | None:
        ranked = [r for r in view.ranked(member) if r.score is not None and r.score == r.score]
        best = max(ranked, key=lambda record: record.score or 0, default=None)
        own = view.newest(member)
        if best is None or own is None or own.score is None or is_best(view, member) or not own.finite:
            return None
        return best if (best.score or 0) > own.score else None


@dataclass(frozen=True)
class LastOfNone:
    """ray #65790: `[-0:]` selects everyone."""

    fraction: float = 0.25

    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Record | None:
        ranked = best_first(view, member)
        k = min(math.ceil(self.fraction * len(ranked)), len(ranked) // 2)
        if k == 0 and self.fraction > 0:
            return None
        losers, winners = ranked[-k:], ranked[: max(1, k)]
        return winners[0] if member in [r.id for r in losers] and winners[0].id != member else None


@dataclass(frozen=True)
class LooksAtTheBest:
    """At whoever is furthest: fast members win (ray #7284)."""

    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Record | None:
        own, best = view.newest(member), view.best
        if best is None or own is None or own.score is None or best.id == member or is_best(view, member):
            return None
        return best if view.value(best) > view.value(own) else None


@dataclass(frozen=True)
class LooksAtTheNewest:
    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Record | None:
        newest = [r for m in range(len(view.done)) if (r := view.newest(m)) is not None and r.finite and r.available]
        best, own = max(newest, key=view.value, default=None), view.newest(member)
        if best is None or own is None or own.score is None or is_best(view, member):
            return None
        return best if view.value(best) > view.value(own) else None


@dataclass(frozen=True)
class AvoidsTheBusy:
    """Decides by what others have claimed."""

    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Record | None:
        donor = Truncation(0.5)(view, member, rng)
        return donor if donor is not None and not view.busy[donor.id] else None


@dataclass(frozen=True)
class OnlyOnce:
    """A latch: PBTune #164."""

    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Record | None:
        copied = any(record.donor is not None for record in view.known(member)[member])
        return None if copied else Truncation(0.5)(view, member, rng)


@dataclass(frozen=True)
class SharedGenerator:
    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Record | None:
        return Truncation(0.5)(view, member, RNG)


@dataclass(frozen=True)
class SeedsTheGlobalGenerator:
    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Record | None:
        np.random.seed(int(rng.integers(2**31)))
        donors = [r for r in best_first(view, member)[:2] if r.id != member]
        return Truncation(0.5)(view, member, rng) if len(donors) > np.random.randint(2) else None


@dataclass(frozen=True)
class DividesByTheSpread:
    """Raises where all scores are equal, or there is but one."""

    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Record | None:
        scores = [record.score or 0.0 for record in best_first(view, member)]
        gap = (scores[0] - scores[-1]) / (max(scores) - min(scores))
        return Truncation(0.25)(view, member, rng) if gap else None


# Explores -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LeavesTheBounds:
    """Ray's perturbed values are not clipped."""

    def __call__(self, hypers: Hypers, space: Space, view: View, member: int, rng: np.random.Generator) -> Hypers:
        return {**Perturb()(hypers, space, view, member, rng), "lr": hypers["lr"] * rng.choice([0.5, 2.0])}


@dataclass(frozen=True)
class ChangesTypes:
    def __call__(self, hypers: Hypers, space: Space, view: View, member: int, rng: np.random.Generator) -> Hypers:
        explored = Perturb()(hypers, space, view, member, rng)
        return {**explored, "units": float(explored["units"])}


@dataclass(frozen=True)
class ZeroAbsorbs:
    """A factor, rounded: zero stays, and so do 1 and 2."""

    def __call__(self, hypers: Hypers, space: Space, view: View, member: int, rng: np.random.Generator) -> Hypers:
        explored = Perturb()(hypers, space, view, member, rng)
        for name, h in sorted(space.items()):
            if isinstance(h, Float | Int) and not h.structural:
                explored[name] = h.clip(hypers[name] * rng.choice([0.8, 1.2]))
        return explored


@dataclass(frozen=True)
class AllTogether:
    """EvoRL: one key moves all hyperparameters together."""

    def __call__(self, hypers: Hypers, space: Space, view: View, member: int, rng: np.random.Generator) -> Hypers:
        factor, seed = rng.choice([0.8, 1.2]), int(rng.integers(2**31))
        return {
            name: hypers[name] if h.structural else h.scale(hypers[name], factor, np.random.default_rng(seed))
            for name, h in space.items()
        }


@dataclass(frozen=True)
class InTheOrderOfNames:
    def __call__(self, hypers: Hypers, space: Space, view: View, member: int, rng: np.random.Generator) -> Hypers:
        return {name: hypers[name] if h.structural else h.scale(hypers[name], 1.2, rng) if rng.random() < 0.5
                else h.scale(hypers[name], 0.8, rng) for name, h in space.items()}  # fmt: skip


@dataclass(frozen=True)
class InPlace:
    """Changes the donor's own hyperparameters."""

    def __call__(self, hypers: Hypers, space: Space, view: View, member: int, rng: np.random.Generator) -> Hypers:
        hypers.update(Perturb()(hypers, space, view, member, rng))
        return hypers


# Whole strategies -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class KeepsItsOwnHypers:
    """hypersweeper: weights are copied, and the loser's hyperparameters explored."""

    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Decision:
        return Evolve(Truncation(0.25), Perturb(), "weights")(view, member, rng)


@dataclass(frozen=True)
class KeepsItsOwnWeights:
    """Katib: the winner's hyperparameters, and the loser's weights."""

    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Decision:
        return Evolve(Truncation(0.25), Perturb(), "hypers")(view, member, rng)


@dataclass(frozen=True)
class CopiesItself:
    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Decision:
        own = view.restorable(member)
        assert own is not None
        if is_best(view, member) or not own.finite:
            return Decision(KEEP, own.hypers)
        return Decision(own, Perturb()(own.hypers, view.space_of(member), view, member, rng), donor=own)


@dataclass(frozen=True)
class PerturbsTheBest:
    """Katib perturbs, and can drop, the best member."""

    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Decision:
        own = view.restorable(member)
        assert own is not None
        if is_best(view, member):
            return Decision(KEEP, Perturb()(own.hypers, view.space_of(member), view, member, rng))
        return PBT(view, member, rng)


@dataclass(frozen=True)
class CopiesWhatIsReleased:
    """An older report of a better member, without asking for it to be kept (ray #8441, #9036)."""

    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Decision:
        own, donor = view.restorable(member), Truncation(0.5)(view, member, rng)
        assert own is not None
        if donor is None:
            return Decision(KEEP, own.hypers)
        better = [record for record in view.known(member)[donor.id] if view.value(record) > view.value(own)]
        return Decision(
            better[0] if better else donor, Perturb()(donor.hypers, view.space_of(member), view, member, rng)
        )


@dataclass(frozen=True)
class RetainsClaims:
    """Names the place where the report of an open claim will stand."""

    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Decision:
        return PBT(view, member, rng)

    def retain(self, view: View) -> set[Ref]:
        return {Ref(claim.member, claim.seq + 1) for claim in view.open if claim is not None}


@dataclass(frozen=True)
class RetainFails:
    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Decision:
        return PBT(view, member, rng)

    def retain(self, view: View) -> set[Ref]:
        return {min(history[0].ref for history in view.history if len(history) > 1)}


@dataclass(frozen=True)
class NotesThatAreNoJson:
    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Decision:
        decision = PBT(view, member, rng)
        return Decision(decision.weights, decision.hypers, decision.donor, {"pair": (1, 2)})


@dataclass(frozen=True)
class GoesOnDiverged:
    """Isaac Lab: members with NaN are never rescued."""

    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Decision:
        return PBT(view, member, rng)

    def rescue(self, view: View, member: int, rng: np.random.Generator) -> Decision:
        own = view.restorable(member)
        return Decision(KEEP, own.hypers) if own is not None else PBT.rescue(view, member, rng)


# What each must be found by -------------------------------------------------------------------------------------------

WRONG: tuple[tuple[str, Any, str], ...] = (
    ("strategy", KeepsItsOwnHypers(), "T1"),
    ("strategy", KeepsItsOwnWeights(), "T1"),
    ("strategy", PerturbsTheBest(), "T3"),
    ("exploit", CopiesTheWorst(), "T4"),
    ("exploit", CopiesBeforeItHasAScore(), "T4"),
    ("strategy", CopiesItself(), "T4"),
    ("exploit", SortsNaNAnywhere(), "T5"),
    ("exploit", TakesInfinityForTheBest(), "T5"),
    ("strategy", GoesOnDiverged(), "T5"),
    ("exploit", LastOfNone(), "T6"),
    ("explore", LeavesTheBounds(), "T7"),
    ("explore", ChangesTypes(), "T7"),
    ("explore", ZeroAbsorbs(), "T7"),
    ("explore", AllTogether(), "T7"),
    ("exploit", LooksAtTheBest(), "T10 T8"),
    ("exploit", LooksAtTheNewest(), "T10 T8"),
    ("exploit", AvoidsTheBusy(), "T10 T8"),
    ("strategy", CopiesWhatIsReleased(), "T11 T8 T9 raises recomputes"),
    ("strategy", RetainsClaims(), "T11"),
    ("strategy", RetainFails(), "T11"),
    ("exploit", OnlyOnce(), "T13"),
    ("exploit", DividesByTheSpread(), "raises"),
    ("exploit", SharedGenerator(), "pure T5 T8 T10 names recomputes"),
    ("exploit", SeedsTheGlobalGenerator(), "pure"),
    ("explore", InPlace(), "pure T5 T7 T8 T10 names recomputes"),
    ("strategy", NotesThatAreNoJson(), "notes recomputes"),
    ("explore", InTheOrderOfNames(), "names"),
)
"""exploit, explore or strategy; one that is wrong; the trap or rule that it breaks, and what it then breaks, too."""
