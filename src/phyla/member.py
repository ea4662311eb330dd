"""A member, for one interval: what the user's loop body holds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any

from phyla import randomness
from phyla import score as _score
from phyla import state as _state
from phyla.errors import LoopError, ScoreError
from phyla.newborn import Newborn
from phyla.randomness import Purpose
from phyla.record import Record
from phyla.states import Live
from phyla.turn import Home, Turn
from phyla.worker import Claim, Outcome


class Member(Newborn, Turn):
    """A member of the population, to be trained for one interval.

    It is a read-only mapping of its hyperparameters as plain Python values: `member["lr"]`, `{**params, **member}`.
    id: 0 to size - 1. interval: the one being trained, from 1. steps: trained before it. donor: the report that was copied
    for it, or None. seed: below 2**31, new for each member, interval and retry. Python's, NumPy's and torch's global
    generators are seeded from it when `state` returns.
    """

    call = "member.report"

    def __init__(self, population: Home, claim: Claim):
        event, view = claim.events[0], population.view
        key, newest = (view.settings.seed, event.member), view.newest(event.member)
        Newborn.__init__(
            self,
            event.hypers,
            id=event.member,
            interval=event.interval,
            steps=newest.total_steps if newest is not None else 0,
            donor=view.records[event.donor] if event.donor is not None else None,
            seed=randomness.draw_seed(*key, event.interval, Purpose.BODY, claim.replacements[0], claim.attempts[0]),
            read=set(),
        )
        Turn.__init__(self, population, claim)
        self.who = f"member {self.id}"
        self._event = event
        self._live: Live | None = None
        self.read_by_init: set[str] = set()

    def state(
        self,
        init: Callable[[Any], Any],
        *,
        reuse: bool = False,
        apply: Callable[[Any, Member], object] | None = None,
    ) -> Any:
        """The member's state: its own weights, or its donor's, in live objects.

        init(member) makes a fresh state: anything with `state_dict`, arrays, plain values, in dicts and lists as you like. It
        is called whenever the member or its hyperparameters change in this process; then what was saved is loaded, and
        what `init` set from new hyperparameters stays set. With `reuse=True` the objects are made once a process and kept,
        for compiled or large models; optimizer options named like a hyperparameter are set at every claim, and
        apply(state, member) sets the rest.

        Raises StateError if something in the state cannot be saved, or what was saved does not fit.
        """
        if self.ended:
            raise LoopError(f"member {self.id} {self._ending()}: ask for the state once, before training")
        if not callable(init) or (hasattr(init, "state_dict") and not isinstance(init, type)):
            raise LoopError(
                f"member.state was given a {type(init).__name__}; expected a function init(member) that makes a fresh state: "
                "it is called for each member"
            )
        if apply is not None and not reuse:
            raise LoopError("state(apply=…) goes with reuse=True: without it, init runs again for new hyperparameters")
        if self._live is None:
            self._population.use_threads()
            tree = self._claim.trees[0]
            self._live = self._population.states.obtain(self, self._event, tree, init, reuse, apply)
        _state.seed_globals(self.seed)
        return self._live.state

    def newborn(self) -> Newborn:
        """This member as `init` sees it."""
        seed, replacements = self._population.view.settings.seed, self._claim.replacements[0]
        return Newborn(
            self._hypers,
            id=self.id,
            interval=self.interval,
            steps=self.steps,
            donor=self.donor,
            seed=randomness.draw_seed(seed, self.id, 0, Purpose.INIT, replacements),
            read=self.read_by_init,
        )

    def report(
        self,
        score: Any,
        state: Any = None,
        *,
        steps: int | float = 1,
        metrics: Mapping[str, Any] | None = None,
    ) -> None:
        """Ends the interval: publishes the score and the checkpoint.

        score: a number; or this interval's samples, such as episode returns, whose newest `window` rank the member; or a
        dict of which `Population(metric=)` names one; or None for no score yet. NaN says that the member has diverged: it
        will be replaced. state: what to save, as `init` made it; may be left out if all that it holds is changed in place
        (modules, optimizers). steps: trained in this interval, in your own unit. metrics: more numbers for the record.
        """
        if self.ended:
            raise LoopError(f"member {self.id} {self._ending()}: report once for each turn")
        population, settings = self._population, self._population.view.settings
        parsed = _score.parse(score, settings.metric, metrics)
        if population.needs_samples and parsed.samples is None and parsed.value is not None and isfinite(parsed.value):
            raise ScoreError(
                f"report was given the number {parsed.value:g}, but the run's strategy compares samples: expected this "
                "interval's as a sequence, such as the returns of its episodes; or choose an exploit that compares scores, "
                "such as phyla.Truncation(0.2)"
            )
        trained = _score.check_steps(steps)
        live = self._settle(state)
        value = parsed.value
        if parsed.samples:
            event, newest = self._event, population.view.newest(self.id)
            own = newest is not None and event.source == newest.ref and event.mix is None
            before = population.view.samples[self.id] if own else []
            value = _score.windowed(before, parsed.samples, settings.window)
        self._check_effect(live)
        self.ended = True
        for record in population.publish(self._claim, live, [Outcome(value, parsed.samples, parsed.metrics, trained)]):
            population.states.keep(record.ref, live, record.checkpoint.size)
            self._check_trained(record, live)

    def _settle(self, state: Any) -> Live:
        """What is to be saved."""
        if self._live is None:
            if state is None:
                self._population.complain(
                    "stateless",
                    "report was given no state, and member.state was never called: no weights are saved or copied, only "
                    "hyperparameters. If there are weights, get them from `member.state(init)`; if not, report(score, {})",
                    error=False,
                )
                return Live(None)
            self._live = Live(state, _state.made(state, self._hypers))
        elif state is None:
            if unsaved := _state.unsaved(self._live.state, self._live.made):
                what = "is an array or a plain value" if unsaved == ["state"] else f"holds {', '.join(unsaved[:3])}"
                raise LoopError(
                    f"report was given no state, but the state {what}, which your loop may have replaced by a new object: "
                    "hand the state over, report(score, state)"
                )
        else:
            self._live.state = state  # arrays are new objects after a step
        return self._live

    def _check_trained(self, record: Record, live: Live) -> None:
        """What is saved unchanged was most likely not handed over."""
        same = record.parent is not None and record.checkpoint.digest == record.parent.checkpoint.digest
        if same and live.state is not None and record.steps:
            self._population.complain(
                "unchanged",
                f"member {record.id}: its state did not change over interval {record.interval}. Was what the loop "
                "trained handed to report(score, state)?",
                error=False,
            )

    def _check_effect(self, live: Live) -> None:
        """New hyperparameters must have had an effect; silence about it is the commonest bug of all."""
        faults = _state.fell_back(live.state, live.changes, live.made)
        if faults:
            self._population.complain(
                "fell back",
                f"member {self.id}: after new hyperparameters were set, {'; '.join(faults)}. Something in the loop set it "
                "again: a scheduler made outside init, or a load_state_dict of its own?",
            )
        if unread := sorted(live.fresh - self._read - self.read_by_init):
            self._population.complain(
                f"unread {unread}",
                f"member {self.id}: the hyperparameter{'s' * (len(unread) > 1)} {', '.join(map(repr, unread))} changed, and "
                "neither init nor the loop read the new value: it has no effect",
            )
