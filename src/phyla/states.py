"""The live states that this process holds, and how the next one comes about: kept, made anew, or loaded.

A state that stays in memory is *resident*, and is identified by the report that published it. Resident and restored must be
the same: a change of member or of hyperparameters goes through `init` and the checkpoint, whoever held what.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from phyla import state as _state
from phyla.checkpoints import Tree
from phyla.events import Claimed, Ref
from phyla.newborn import Newborn
from phyla.state import Changed, Made
from phyla.worker import HELD, Held

BUDGET = 256 * 2**20
"""Bytes of checkpoints whose states one process keeps resident, beside the one that it trains."""


@dataclass
class Live:
    """A state in use.

    state: what the user's loop holds. made: what `init` had set in it, and for which hyperparameters. changes: options that
    new hyperparameters moved. fresh: names of hyperparameters whose values are new to it. size: of its last checkpoint.
    """

    state: Any
    made: Made = field(default_factory=Made)
    changes: list[Changed] = field(default_factory=list)
    fresh: set[str] = field(default_factory=set)
    size: int = 0
    _identities: set[int] | None = None

    def save(self) -> Tree:
        return _state.save(self.state, self.made)

    def identities(self) -> set[int]:
        """The addresses of all that can change in place; they stay the same while it is resident."""
        if self._identities is None:
            self._identities = _state.identities(self.state, self.made)
        return self._identities


class Turn(Protocol):
    """A member in its turn."""

    def newborn(self) -> Newborn: ...


class States:
    """What one process holds of one population."""

    def __init__(self, budget: int = BUDGET):
        self._budget = budget
        self.reuses = True  # `phyla check` switches it off to see whether that is what makes a difference
        self._resident: OrderedDict[int, tuple[Ref, Live]] = OrderedDict()  # by member, least recently used first
        self._bytes = 0
        self._locals: dict[int, dict[str, Any]] = {}  # by member, and by path: they stay while others train
        self._reused: Live | None = None  # the one state of all members, where objects are reused
        self._reused_made = Made()  # how its objects came out of `init`

    def holds(self, claim: Claimed) -> bool:
        """Whether this claim goes on from a state that is here, with the hyperparameters that it was made for."""
        source, live = self._resident.get(claim.member, (None, None))
        same = live is not None and source == claim.source and live.made.hypers == claim.hypers
        return same and claim.mix is None

    def rank(self, member: int) -> int:
        """Members whose state or Locals are here come first among equals."""
        return 0 if member in self._resident or self._locals.get(member) else 1

    @property
    def has_reused(self) -> bool:
        """Whether one live state serves all members."""
        return self._reused is not None

    def set_by_name(self) -> set[str]:
        """Hyperparameters that are options of the reused objects, and so are set at every claim."""
        return _names(self._reused_made.options)

    def drop(self) -> None:
        """Forgets everything: the next state is made and loaded."""
        self._resident.clear()
        self._bytes = 0
        self._locals.clear()
        self._reused = None

    def keep(self, ref: Ref, live: Live, size: int) -> None:
        """Holds a state that was just published, as long as there is room."""
        self._forget(ref.member)
        live.size, live.changes, live.fresh, live._identities = size, [], set(), None
        self._resident[ref.member] = ref, live
        self._bytes += size
        while len(self._resident) > 1 and self._bytes > self._budget:
            self._forget(next(iter(self._resident)))

    def _forget(self, member: int) -> None:
        _, live = self._resident.pop(member, (None, None))
        self._bytes -= live.size if live is not None else 0

    def obtain(
        self,
        turn: Turn,
        claim: Claimed,
        tree: Tree | Held | None,
        init: Callable[[Any], Any],
        reuse: bool,
        apply: Callable[[Any, Any], object] | None,
    ) -> Live:
        """The state that a claim trains."""
        if tree is HELD:
            _, live = self._resident[claim.member]
            self._forget(claim.member)
            return live
        self._forget(claim.member)
        reuse = reuse and self.reuses
        if reuse and self._reused is not None:
            live = self._load_into_reused(self._reused, turn, claim, tree, init, apply)
        else:
            live = self._make(turn.newborn(), claim, tree, init)
            live.fresh = set(claim.hypers)
            if reuse:
                self._reused_made = live.made
        if reuse:
            self._reused = live
            for member in list(self._resident):
                self._forget(member)
        else:
            self._drop_aliases(live)
        return live

    def _make(self, newborn: Newborn, claim: Claimed, tree: Tree | None, init: Callable[[Any], Any]) -> Live:
        _state.seed_globals(newborn.seed)
        raw = init(newborn)
        made = _state.made(raw, claim.hypers)
        _state.check(raw, made)
        state = _state.unwrap(raw, self._locals.setdefault(claim.member, {}))
        if tree is None:
            return Live(state, made)
        if claim.mix is not None:
            return Live(_state.mix(state, tree, *claim.mix, made), made)
        state, changes = _state.load(state, tree, made)
        return Live(state, made, changes)

    def _load_into_reused(
        self,
        reused: Live,
        turn: Turn,
        claim: Claimed,
        tree: Tree | None,
        init: Callable[[Any], Any],
        apply: Callable[[Any, Any], object] | None,
    ) -> Live:
        """What `init` alone sets is not set again here, so only that counts as new which it had made otherwise."""
        if tree is None or claim.mix is not None:
            tree = self._make(turn.newborn(), claim, tree, init).save()
        state = _state.unwrap(reused.state, self._locals.setdefault(claim.member, {}), self._reused_made)
        made = _state.made_for(state, self._reused_made, tree, claim.hypers, apply, turn)
        state, changes = _state.load(state, tree, made)
        fresh = {name for name, value in claim.hypers.items() if value != self._reused_made.hypers[name]}
        return Live(state, made, changes, fresh - self.set_by_name())

    def _drop_aliases(self, live: Live) -> None:
        """A state that shares objects with this one has just been overwritten by it."""
        if not self._resident:
            return
        mine = live.identities()
        for member, (_, other) in list(self._resident.items()):
            if mine & other.identities():
                self._forget(member)


def _names(options: Any) -> set[str]:
    """Every name of an option in a tree of them."""
    if isinstance(options, dict):
        return {key for key in options if isinstance(key, str)}.union(*map(_names, options.values()))
    return set().union(*map(_names, options)) if isinstance(options, list) else set()
