"""What a member does next: a pure function of (view, member, strategy). Ready, then exploit, then explore."""

from __future__ import annotations

import re
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from phyla import randomness
from phyla.errors import SettingsError
from phyla.events import Claimed, Ref, new_uid
from phyla.randomness import Purpose
from phyla.record import Record
from phyla.space import Hyperparameter, Hypers, Value
from phyla.strategies.contract import FRESH, KEEP, Decision, Mix, Strategy, Weights
from phyla.strategies.evolve import Evolve
from phyla.strategies.perturb import Perturb
from phyla.strategies.truncation import Truncation
from phyla.view import View

DEFAULT_RESCUE = Evolve(Truncation(), Perturb()).rescue

FAILED = "strategy_failed"
"""The note that says why a strategy's decision could not be had."""


@dataclass(frozen=True)
class Choice:
    """A decision as it stands in a Claimed event, whose fields these are."""

    hypers: Hypers
    source: Ref | None  # the report whose weights are trained on; None: a fresh state
    donor: Ref | None  # the report that was copied
    ready: bool
    replaced: bool
    notes: dict[str, Any] | None
    mix: tuple[float, float] | None = None  # so much of the source's weights, plus so much of fresh ones

    @classmethod
    def of(cls, claim: Claimed) -> Choice:
        """The decision that a claim recorded."""
        return cls(claim.hypers, claim.source, claim.donor, claim.ready, claim.replaced, claim.notes, claim.mix)

    def agrees(self, other: Choice) -> bool:
        """Whether this is the same decision. That a strategy failed is one, in whatever words its error says it."""
        failed = [choice.notes is not None and FAILED in choice.notes for choice in (self, other)]
        return self == (replace(other, notes=self.notes) if all(failed) else other)


def claimed(
    view: View,
    member: int,
    strategy: Strategy,
    *,
    worker: str,
    time: float,
    span: int = 1,
    together: Sequence[int] = (),
    script: str | None = None,
) -> Claimed:
    """The claim of this member for its next `span` intervals, by the view alone. together: the members of its cohort."""
    choice, done = decide(view, member, strategy), int(view.done[member])
    return Claimed(
        member=member,
        seq=int(view.head[member]) + 1,
        interval=done + 1,
        span=min(span, view.intervals - done),
        worker=worker,
        saw=view.position,
        **vars(choice),
        cohort=together[0] if len(together) > 1 else None,
        script=script,
        time=time,
    )


def followed(claim: Claimed, choice: Choice, saw: int, time: float) -> Claimed:
    """The claim of the interval after this one, which the same worker has trained in the same span."""
    return msgspec.structs.replace(
        claim,
        seq=claim.seq + 2,
        uid=new_uid(),
        interval=claim.interval + 1,
        span=claim.span - 1,
        saw=saw,
        time=time,
        **vars(choice),
    )


def decide(view: View, member: int, strategy: Strategy) -> Choice:
    """What this member does in its next interval, by the view alone: anyone can recompute it from the journal."""
    if (repeat := view.repeat[member]) is not None:
        return Choice.of(repeat)
    own, ready = view.restorable(member), is_ready(view, member)
    if needs_rescue(view, member):
        rescue = getattr(strategy, "rescue", DEFAULT_RESCUE)
        return _asked(rescue, DEFAULT_RESCUE, view, member, own, ready, replaced=True)
    if own is None:
        born = view.born[member]
        assert born is not None
        return Choice(_within(view, member, born.hypers, None), None, None, ready=False, replaced=False, notes=None)
    if not ready:
        return Choice(_within(view, member, own.hypers, own), own.ref, None, ready=False, replaced=False, notes=None)
    return _asked(strategy, _go_on, view, member, own, ready=True, replaced=False)


def _asked(
    strategy: Strategy, otherwise: Strategy, view: View, member: int, own: Record | None, ready: bool, replaced: bool
) -> Choice:
    """What the strategy says. One that fails ends no run: the member does as if there were none, and its notes say so.

    A SettingsError is no accident, and raised: it would come again for every member.
    """
    try:
        return _choice(view, member, strategy(view, member, _rng(view, member)), own, ready, replaced)
    except SettingsError:
        raise
    except Exception as error:
        choice = _choice(view, member, otherwise(view, member, _rng(view, member)), own, ready, replaced)
        return replace(choice, notes={FAILED: _failure(strategy, view, member, error)})


def _failure(strategy: Strategy, view: View, member: int, error: Exception) -> str:
    """Which strategy failed, for whom, at which event, how, and where in its code."""
    name = getattr(strategy, "__qualname__", None) or re.sub(r" at 0x[0-9a-f]+", "", repr(strategy))
    at = f"member {member}, interval {int(view.done[member]) + 1} (after event {int(view.head[member])} of the member)"
    frames = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    ours = ("site-packages", str(Path(__file__).parent))
    code, line = ([f for f in frames if not any(part in f[0].co_filename for part in ours)] or frames)[-1]
    where = f"{Path(code.co_filename).name}, line {line}, in {code.co_name}"
    return f"{name:.200} failed for {at}: {type(error).__name__}: {error!s:.300} ({where})"


def _go_on(view: View, member: int, rng: Any) -> Decision:
    own = view.restorable(member)
    assert own is not None
    return Decision(KEEP, own.hypers)


def is_ready(view: View, member: int) -> bool:
    """`ready` intervals since the member was last ready, and past `burn_in`."""
    done, settings = view.done[member], view.settings
    return bool(done >= settings.burn_in and done - view.last_ready[member] >= settings.ready and done > 0)


def needs_rescue(view: View, member: int) -> bool:
    """Its own state is lost: its score is not finite, its retries are used up, or no checkpoint of it is left."""
    if view.forced[member]:
        return True
    newest = view.newest(member)
    if newest is None:
        return False
    return (newest.score is not None and not newest.finite) or view.restorable(member) is None


def _rng(view: View, member: int) -> Any:
    return randomness.generator(
        view.settings.seed, member, int(view.done[member]) + 1, Purpose.DECIDE, int(view.replacements[member])
    )


def _choice(view: View, member: int, decision: Any, own: Record | None, ready: bool, replaced: bool) -> Choice:
    if not isinstance(decision, Decision):
        raise SettingsError(f"a strategy gave {decision!r:.200}; expected a Decision")
    if not isinstance(decision.weights, Weights | Record | Mix):
        raise SettingsError(
            f"a strategy decided on weights {decision.weights!r}; expected KEEP, FRESH, a report or a Mix of one"
        )
    mix = decision.weights if isinstance(decision.weights, Mix) else None
    weights = own if decision.weights is KEEP else None if decision.weights is FRESH else decision.weights
    if isinstance(weights, Mix):
        weights = weights.record
    assert not isinstance(weights, Weights)
    if weights is not None and weights is not own and (weights.void or not weights.available):
        raise SettingsError(
            f"a strategy decided on the weights of {weights!r}, whose checkpoint is not kept any more; choose among "
            "view.peers(member), or name in retain(view) what else may be asked for"
        )
    donor = decision.donor if decision.donor is not None else weights if weights is not own else None
    return Choice(
        hypers=_within(view, member, decision.hypers, weights),
        source=weights.ref if weights is not None else None,
        donor=donor.ref if donor is not None else None,
        ready=ready,
        replaced=replaced,
        notes=decision.notes,
        mix=(float(mix.old), float(mix.fresh)) if mix is not None else None,
    )


def _within(view: View, member: int, hypers: Hypers, weights: Record | None) -> Hypers:
    """Clipped into the space; structural ones as the weights have them. Raises ValueError for what is near to no value."""
    space = view.space_of(member)
    if hypers.keys() != space.keys():
        raise SettingsError(f"a strategy gave hyperparameters {sorted(hypers)}; the space has {sorted(space)}")
    return {
        name: weights.hypers[name] if h.structural and weights is not None else _clipped(name, h, hypers[name])
        for name, h in space.items()
    }


def _clipped(name: str, hyperparameter: Hyperparameter, value: Value) -> Value:
    try:
        return hyperparameter.clip(value)
    except SettingsError as error:  # such as NaN: that the strategy came to it is an accident
        raise ValueError(f"{name}: {error}") from None
