"""A cohort, for one interval: members that train together, as rows of stacked arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from phyla import randomness
from phyla import score as _score
from phyla.ahead import Ahead, check
from phyla.arguments import Arguments
from phyla.checkpoints.leaves import is_array, is_torch
from phyla.decide import Choice as Decided
from phyla.errors import LoopError, ScoreError, SettingsError
from phyla.events import Claimed, Ref
from phyla.newborn import Newborn
from phyla.randomness import Purpose
from phyla.space import Choice, Hypers, Int, Space
from phyla.stacks import Stack, gather, set_rows, stack, take
from phyla.state import mix, saved_state
from phyla.turn import Home, Turn
from phyla.view import View
from phyla.worker import HELD, Claim, Outcome, Passed


class Group(NamedTuple):
    """How members are claimed: one by one, or by the cohort."""

    size: int = 1  # members of a cohort
    span: int = 1  # intervals of a claim
    stacked: bool = False  # their states are rows of stacked arrays
    ahead: bool = False  # one program trains the span, and decides amid it


def check_group(arguments: Arguments, size: int | None, span: int, ahead: bool) -> Group:
    """Raises SettingsError for cohorts that this population cannot have. size: None is the whole population."""
    settings = arguments.settings
    whole = size is None or size == arguments.size
    for what, value in (("cohorts of", size if size is not None else 1), ("span=", span)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise SettingsError(f"{what} {value!r}: expected a whole number from 1")
    if size is not None and size > arguments.size:
        raise SettingsError(f"cohorts of {size}: the population has {arguments.size} members")
    if ahead:
        check(arguments.strategy, arguments.space)
        if not whole:
            raise SettingsError(f"cohorts of {size}: who decides ahead must see the whole population, {arguments.size}")
    if not whole and settings.ready % span:
        raise SettingsError(
            f"span={span} does not divide ready={settings.ready}: members of other cohorts would be copied at other moments. "
            "Only a cohort that is the whole population may have any span"
        )
    if shaped := [name for name, hyperparameter in arguments.space.items() if hyperparameter.structural]:
        raise SettingsError(
            f"{', '.join(map(repr, shaped))}: structural hyperparameters shape the state, and a cohort's members share one "
            "shape. Train such a population member by member, or a population for each shape"
        )
    return Group(size if size is not None else arguments.size, span, stacked=True, ahead=ahead)


class Newborns(NamedTuple):
    """What `init` is given with `batched=True`: the cohort, as it makes fresh states. Arrays are [K]."""

    hypers: Mapping[str, np.ndarray[Any, Any]]
    ids: np.ndarray[Any, Any]
    seeds: np.ndarray[Any, Any]


class Cohort(Turn):
    """Members that train together for one interval, on one device. All arrays are of NumPy, [K]: one entry a member.

    hypers: by name; float32 for a Float, int32 for an Int, and for a Choice the place among its values, int32.
    choices: by name, the values of each Choice. ids: members. seeds: uint32, below 2**31, new for each member, interval and
    retry; make random keys from these, for what is in the state is copied with it. copied: whether the member goes on from
    another's weights. valid: False for rows that only fill the last cohort up; they repeat its first member, and what is
    reported for them is dropped. interval: the one that is trained, from 1. size: K.
    """

    call = "cohort.report"

    def __init__(self, population: Home, claim: Claim, group: Group):
        super().__init__(population, claim)
        view, events = population.view, claim.events
        self._group = group
        self._rows = [i if i < len(events) else 0 for i in range(group.size)]  # of each row, which claim it is
        self._outcomes: list[list[Outcome]] = [[] for _ in events]
        self._state: Any = None
        space = view.space_of(events[0].member)
        self.id = events[0].member
        self.who = f"the cohort of members {events[0].member} to {events[-1].member}"
        self.size = group.size
        self.interval = events[0].interval
        self.ids = self._array([event.member for event in events], np.int32)
        self.valid = np.arange(group.size) < len(events)
        self.copied = self._array([_copied(event) for event in events], np.bool_)
        self.hypers = self.arrays(self.given)
        self.choices = {name: h.values for name, h in space.items() if isinstance(h, Choice)}

    @property
    def given(self) -> list[Hypers]:
        """Each member's hyperparameters as the journal has them."""
        return [event.hypers for event in self._claim.events]

    def arrays(self, each: Sequence[Hypers]) -> dict[str, np.ndarray[Any, Any]]:
        """Hyperparameters of the members as arrays [K], as `hypers` are."""
        space = self._population.view.space_of(self.id)
        return {name: self._array(*_numbers(space, name, [one[name] for one in each])) for name in space}

    @property
    def seeds(self) -> np.ndarray[Any, Any]:
        """[K] uint32; see the class."""
        claim, seed = self._claim, self._population.view.settings.seed
        members = [event.member for event in claim.events]
        found = randomness.draw_seeds(seed, members, self.interval, Purpose.BODY, claim.replacements, claim.attempts)
        return found[self._rows]

    def state(self, init: Callable[[Any], Any], *, batched: bool = False) -> Any:
        """The members' states, stacked: arrays [K, ...] of NumPy, torch or JAX in dicts, lists, tuples or JAX pytrees.

        Each row is the member's own state, or its donor's. init(member) makes a fresh state of one member, and these are
        stacked; with batched=True, init(newborns) makes all K at once, from `hypers`, `ids` and `seeds`, each [K]. It is
        called for what is not on the device yet. What a hyperparameter sets is no part of the state: read it from
        `cohort.hypers`. Raises StateError if the states do not fit together.
        """
        state, rows = self.rows(init, batched=batched)
        self._state = state if self._state is not None else gather(state, rows)
        return self._state

    def rows(self, init: Callable[[Any], Any], *, batched: bool = False) -> tuple[Any, np.ndarray[Any, Any]]:
        """As `state`, for a program that gathers by itself: a stack, and which of its rows is each member's, [K] int32."""
        if self.ended:
            raise LoopError(f"{self.who} {self._ending()}: ask for the state once, before training")
        if self._state is not None:
            return self._state, np.arange(self.size, dtype=np.int32)
        self._population.use_threads()
        return self._obtain(init, batched)

    def report(
        self,
        scores: Any,
        state: Any,
        *,
        steps: int | float = 1,
        metrics: Mapping[str, Any] | None = None,
    ) -> None:
        """Ends the interval: publishes the members' scores, and their states as one checkpoint.

        scores: an array [K]; or [K, E], E samples of each member; or a dict of such, of which `Population(metric=)` names
        one. NaN says that this member has diverged: it alone will be replaced. state: what to save, arrays [K, ...]; when
        this returns, it may be changed or donated. steps: trained by each member in this interval. metrics: numbers, or
        arrays [K, ...], for the record. Amid a span nothing is saved yet.
        """
        if self.ended:
            raise LoopError(f"{self.who} {self._ending()}: report once for each turn")
        if self.settled:
            raise LoopError(f"{self.who} has reported interval {self.interval} already: report once for each turn")
        self._take(scores, steps, metrics)
        self._state = state
        if self.interval < self._last:
            return
        self._publish(Stack(state, self.size))

    def _take(self, scores: Any, steps: int | float, metrics: Mapping[str, Any] | None) -> None:
        """What an interval has come to."""
        population, settings = self._population, self._population.view.settings
        trained = _score.check_steps(steps)
        needs_samples = population.needs_samples
        each = self._split("a score", scores)
        more = self._split("metrics", metrics) if metrics else [None] * len(each)
        for outcomes, score, extra in zip(self._outcomes, each, more, strict=True):
            parsed = _score.parse(score, settings.metric, extra)
            if needs_samples and parsed.samples is None and parsed.value is not None:
                raise ScoreError(
                    "the run's strategy compares samples: expected scores of shape [K, E], E samples a member"
                )
            outcomes.append(Outcome(parsed.value, parsed.samples, parsed.metrics, trained))

    def ahead(self) -> Ahead:
        """For a program that trains and decides the intervals of this claim's span by itself; see `report_ahead`.

        There are fewer intervals than the span has at the end of the run; and only one where some members are missing here,
        since others must decide with them.
        """
        if not self._group.ahead:
            raise LoopError("cohort.ahead() needs population.cohorts(ahead=True)")
        return self._look(self._whole_span, 0)

    def beyond(self) -> Ahead | None:
        """As `ahead`, for the span after this one; None if it ends the run. It holds if no score of this one is bad."""
        n = self._whole_span
        left = min(self._group.span, self._population.view.intervals - (self.interval + n - 1))
        return self._look(left, n) if left > 0 and len(self._claim.events) == self.size else None

    def decided(self, ahead: Ahead, sources: Any) -> list[list[Decided]]:
        """What the members have done before each of t intervals but the first, which the claim has decided.

        sources: [t, K] int; before each interval, the row that each member went on from: itself, or its donor.
        """
        events = self._claim.events
        hypers, found = self.given, list[list[Decided]]()
        for j, rows in enumerate(np.asarray(sources)[1:, : len(events)].tolist(), 1):
            refs = [Ref(event.member, event.seq + 2 * j - 1) for event in events]
            found.append(ahead.choices(j, rows, hypers, refs))
            hypers = [choice.hypers for choice in found[-1]]
        return found

    def report_ahead(
        self, scores: Any, decided: Sequence[Sequence[Decided]], state: Any, *, steps: int | float = 1
    ) -> None:
        """Ends the t intervals, at least one, that a program has trained and decided by itself.

        scores: [t, K], or a dict of such; only in the last interval one may not be finite. decided: by `decided`. state: after
        the last, which is saved; when this returns, it may be changed or donated. steps: of one interval.
        """
        if self.ended:
            raise LoopError(f"{self.who} {self._ending()}: report once for each turn")
        for row in _by_interval(scores):
            self._take(row, steps, None)
        if any(outcome.samples is not None for outcome in self._outcomes[0]):
            raise ScoreError(
                "report_ahead was given samples; expected one score a member, [t, K]: it is what was ranked by"
            )
        amid = zip(*(outcomes[:-1] for outcomes in self._outcomes), strict=True)
        self._state = state
        self._publish(Stack(state, self.size), [Passed(*each) for each in zip(amid, decided, strict=True)])

    def goes_on_from(self, rows: Any) -> bool:
        """Whether each member goes on from this row, [K], of what this cohort has reported last."""
        before, events = self._population.stacks.newest(self.id), self._claim.events
        if before is None or len(before.refs) != len(events):
            return False
        refs = [before.refs[row] for row in np.asarray(rows)[: len(events)].tolist()]
        return all(e.source == ref and e.mix is None for e, ref in zip(events, refs, strict=True))

    @property
    def _whole_span(self) -> int:
        events = self._claim.events
        return events[0].span if len(events) == self._population.view.size == self.size else 1

    def _look(self, n: int, after: int) -> Ahead:
        claim, view = self._claim, self._population.view
        attempts = np.zeros((n, len(claim.events)), np.int64)
        if not after:
            attempts[0] = claim.attempts
        members, intervals = [event.member for event in claim.events], self.interval + after + np.arange(n)[:, None]
        seeds = randomness.draw_seeds(
            view.settings.seed, members, intervals, Purpose.BODY, claim.replacements, attempts
        )
        return self._population.draws.look(view, claim.events, seeds[:, self._rows], after)

    def next_interval(self) -> Cohort | None:
        """Amid a span, the same cohort for its next interval, once this one is reported."""
        if not self.settled or self.ended:
            return None
        self.interval += 1
        return self

    @property
    def settled(self) -> bool:
        """Whether this interval was reported, be it amid a span, or given up."""
        return self.ended or len(self._outcomes[0]) > self.interval - self._claim.events[0].interval

    @property
    def _last(self) -> int:
        event = self._claim.events[0]
        return event.interval + event.span - 1

    def _publish(self, live: Stack, passed: Sequence[Passed] | None = None) -> None:
        """passed: the intervals before the last, if each is reported by itself; else all are reported as one."""
        view, window = self._population.view, self._population.view.settings.window
        last = [
            outcomes[-1] if passed is not None else _merged(outcomes, _before(view, event), window)
            for event, outcomes in zip(self._claim.events, self._outcomes, strict=True)
        ]
        self.ended = True
        records = self._population.publish(self._claim, live, last, passed)
        if records:
            live.refs = [record.ref for record in records]
            self._population.stacks.keep(self.id, live)

    # The state ------------------------------------------------------------------------------------------------------

    def _obtain(self, init: Callable[[Any], Any], batched: bool) -> tuple[Any, np.ndarray[Any, Any]]:
        """Rows that this process holds are gathered on their device; the others are made, or loaded, and put among them."""
        stacks, trees, events = self._population.stacks, self._claim.trees, self._claim.events
        held = [
            stacks.find(e.source) if tree is HELD and e.source else None for e, tree in zip(events, trees, strict=True)
        ]
        own = next((found[0] for found in held if found is not None), None)
        mine = stacks.take(self.id)
        inside = [found[1] for found in held if found is not None and found[0] is own]
        if own is not None and len(inside) == len(held):
            places = np.array([inside[i] for i in self._rows], np.int32)
            if own is mine:
                return own.state, places
            return gather(own.state, places), np.arange(self.size, dtype=np.int32)  # it stays that cohort's
        made = self._made(init, batched)
        rows: dict[int, Any] = {}
        for row, i in enumerate(self._rows):
            found, tree, shares = held[i], trees[i], events[i].mix
            if found is not None:
                rows[row] = take(found[0].state, found[1])
            elif tree is not None:
                rows[row] = saved_state(tree) if shares is None else mix(take(made, row), tree, *shares)
        return set_rows(made, rows) if rows else made, np.arange(self.size, dtype=np.int32)

    def _made(self, init: Callable[[Any], Any], batched: bool) -> Any:
        """A fresh state for every row."""
        view, claim = self._population.view, self._claim
        members = [event.member for event in claim.events]
        keys = randomness.draw_seeds(view.settings.seed, members, 0, Purpose.INIT, claim.replacements).tolist()
        if batched:
            made = init(Newborns(self.hypers, self.ids, self._array(keys, np.uint32)))
        else:
            made = stack([init(self._newborn(i, keys[i])) for i in self._rows])
        Stack(made, self.size).save()
        return made

    def _newborn(self, i: int, seed: int) -> Newborn:
        event, view = self._claim.events[i], self._population.view
        newest = view.newest(event.member)
        return Newborn(
            event.hypers,
            id=event.member,
            interval=event.interval,
            steps=newest.total_steps if newest is not None else 0,
            donor=view.records[event.donor] if event.donor is not None else None,
            seed=seed,
            read=set(),
        )

    # Rows -----------------------------------------------------------------------------------------------------------

    def _array(self, values: Sequence[Any], dtype: Any) -> np.ndarray[Any, Any]:
        return np.array([values[i] for i in self._rows], dtype)

    def _split(self, what: str, value: Any) -> list[Any]:
        """What was given for all rows, as what it is for each member."""
        count = len(self._claim.events)
        if isinstance(value, Mapping):
            parts = {key: self._split(f"{what} {key!r}", part) for key, part in value.items()}
            return [{key: part[i] for key, part in parts.items()} for i in range(count)]
        if what.startswith("metrics") and not is_array(value) and not isinstance(value, list | tuple):
            return [value] * count
        array = _host(value)
        most = 1 if what.startswith("metrics") else 2
        if not array.shape or array.shape[0] != self.size or (most == 2 and array.ndim > 2):
            raise ScoreError(
                f"{self.who}: report was given {what} of shape {list(array.shape)}; expected [{self.size}], one for each "
                f"member{', or samples, [' + str(self.size) + ', E]' if most == 2 else ''}"
            )
        found: list[Any] = array[:count].tolist()
        return found


def _host(value: Any) -> np.ndarray[Any, Any]:
    if is_torch(value):
        value = value.detach().cpu()
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise ScoreError(
            f"report was given {value!r:.80}; expected numbers, an array with one row for each member"
        ) from None


def _by_interval(scores: Any) -> list[Any]:
    """What was given for t intervals, [t, K], as t times [K]."""
    if not isinstance(scores, Mapping):
        return list(scores)
    return [dict(zip(scores, rows, strict=True)) for rows in zip(*scores.values(), strict=True)]


def _numbers(space: Space, name: str, values: Sequence[Any]) -> tuple[list[Any], Any]:
    hyperparameter = space[name]
    if isinstance(hyperparameter, Choice):
        return [hyperparameter.index(value) for value in values], np.int32
    return list(values), np.int32 if isinstance(hyperparameter, Int) else np.float32


def _copied(event: Claimed) -> bool:
    return event.source is not None and event.source.member != event.member


def _before(view: View, event: Claimed) -> list[float]:
    """The samples that a member brings along: those of its own weights."""
    newest = view.newest(event.member)
    own = newest is not None and event.source == newest.ref and event.mix is None
    return list(view.samples[event.member]) if own else []


def _merged(outcomes: Sequence[Outcome], before: list[float], window: int) -> Outcome:
    """The outcomes of a span's intervals as one: the last score, all samples, all steps."""
    last = outcomes[-1]
    samples = [sample for outcome in outcomes for sample in outcome.samples or ()] or None
    if last.score is not None and not np.isfinite(last.score):
        samples = None
    value = _score.windowed(before, samples, window) if samples else last.score
    return Outcome(value, samples, last.metrics, sum(outcome.steps for outcome in outcomes))
