"""Whole runs that a strategy decides, in the ways that runs go, for tests of all of its decisions.

A `Play` is a story in which every decision is the strategy's own: it sees populations of all sizes, generations and members at
different progress, scores that mean something and scores that do not (ties, NaN, infinities, none yet), samples, claims that
are lost and retried, checkpoints that turn out to be damaged, populations that grow and shrink, and bounds that change. A
number fixes everything, so what went wrong in one can be looked at again: `list(Play(subject, 17).moments())`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Literal, NamedTuple

import numpy as np

from phyla.decide import Choice, decide
from phyla.errors import SettingsError
from phyla.events import RUN, Claimed, FailedKind, Ref
from phyla.record import Record
from phyla.score import windowed
from phyla.settings import Settings
from phyla.space import Choice as ChoiceOf
from phyla.space import Float, Hypers, Int, Space, describe, draw
from phyla.steer import bounds, placed, resize
from phyla.strategies.contract import KEEP, Decision, Strategy, check, needs_samples
from phyla.testing.story import Story
from phyla.view import View

NAN, INF = math.nan, math.inf
ODD = (NAN, INF, -INF, None, NAN, None, 0.0, 0.0, 1e300, -1e300)
"""Scores that mean little; None is no score yet."""

SPACE: Space = {
    "lr": Float(1e-4, 1.0, log=True),
    "decay": Float(1e-4, 1.0, log=True),
    "momentum": Float(0.5, 0.999, log="1-x"),
    "dropout": Float(0.0, 0.8),
    "shift": Float(-1.0, 1.0),
    "units": Int(1, 64),
    "act": ChoiceOf("relu", "tanh", "gelu"),
    "batch": ChoiceOf(16, 32, 64, 128, ordered=True),
    "depth": Int(1, 8, structural=True),
}
"""A space with something of each kind; two are alike, so that it can be seen whether they move alike."""

SAMPLES = 10
"""Of a report that has any."""

SIZES = (8, 3, 12, 1, 16, 2, 5, 4, 24, 6)
"""Members of the populations that a strategy is tried in, in this order."""


@dataclass(frozen=True)
class Subject:
    """A strategy, and what it is to be tried with.

    space: what is searched. sizes: of populations, of which those are tried that the strategy's `check` accepts. metrics:
    names of numbers that every report has beside its score. moves: the hyperparameters that it changes. intervals: that
    members train, about, in each run.
    """

    strategy: Strategy
    space: Space = field(default_factory=lambda: SPACE)
    sizes: Sequence[int] = SIZES
    metrics: Sequence[str] = ()
    moves: Sequence[str] = ()
    intervals: int = 5

    def accepts(self, size: int, **settings: Any) -> bool:
        """Whether the strategy agrees to work with so many members, and with such settings."""
        known: dict[str, Any] = {"seed": 0, "space": describe(self.space), "intervals": 100, **settings}
        try:
            check(self.strategy, self.space, Settings(size=size, **known))
        except SettingsError:
            return False
        return True

    @cached_property
    def accepted(self) -> list[int]:
        found = [size for size in self.sizes if self.accepts(size)]
        assert found, f"{self.strategy!r} works with none of {tuple(self.sizes)} members: name others in `sizes`"
        return found

    def size_near(self, size: int) -> int:
        """The accepted size that is nearest to this one."""
        return min(self.accepted, key=lambda one: (abs(one - size), one))


class Moment(NamedTuple):
    """One decision."""

    play: Play
    member: int
    own: Record | None  # where the member stood
    said: Decision | None  # by the strategy itself, before anything was clipped; None where it was not asked, or failed
    error: Exception | None  # that it raised, or that was raised about what it said
    choice: Choice  # what the member does next

    @property
    def view(self) -> View:
        return self.play.story.view

    @property
    def donor(self) -> Record | None:
        return self.view.records[self.choice.donor] if self.choice.donor is not None else None

    @property
    def copied(self) -> bool:
        """It went on from another report's weights, because it was ready to."""
        return self.choice.donor is not None and self.choice.source == self.choice.donor and not self.choice.replaced

    def __str__(self) -> str:
        return f"{self.play}, member {self.member} at interval {int(self.view.done[self.member])}"


@dataclass
class Play:
    """A run of so many turns. Its number says what happens in it; see the module.

    mode: as in Settings; scores are mirrored, so the two modes have the same story. backwards: the space names its
    hyperparameters in reverse. size, wild (scores of all kinds), trouble, settings: instead of what the number says.
    """

    subject: Subject
    number: int
    mode: Literal["max", "min"] = "max"
    backwards: bool = False
    size: int = 0
    turns: int = 0
    wild: bool | None = None
    trouble: bool | None = None
    births: Callable[[int, Space], Hypers] | None = None
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n, subject = self.number, self.subject
        rng = self.rng = np.random.default_rng([n, 41])
        sizes = subject.accepted
        self.size = self.size or sizes[n % len(sizes)]
        self.turns = self.turns or 2 * self.size * subject.intervals  # each is claimed, and reports
        drawn: dict[str, Any] = {"seed": n, "keep": (2, 3, 99)[n % 3], "max_lead": (0, None)[int(rng.integers(2))]}
        endless = rng.random() < 0.2 and subject.accepts(self.size, intervals=None)
        drawn["intervals"] = None if endless else 1000
        drawn["compare"] = "latest" if rng.random() < 0.2 else "progress"
        drawn["ready"], drawn["window"] = int(rng.integers(1, 4) * rng.integers(2)) or 1, int(rng.choice([3, 10]))
        wild, trouble, samples = (bool(rng.random() < share) for share in (0.5, 0.5, 0.3))
        self.wild = wild if self.wild is None else self.wild
        self.trouble = trouble if self.trouble is None else self.trouble
        self.samples = samples or needs_samples(subject.strategy)
        names = list(subject.space)[:: -1 if self.backwards else 1]
        self.story = Story(
            self.size,
            getattr(subject.strategy, "retain", None),
            {name: subject.space[name] for name in names},
            self.births or partial(_birth, n),
            mode=self.mode,
            **{**drawn, **self.settings},
        )
        self.latent: dict[Ref, float] = {}  # how good weights really are

    def __str__(self) -> str:
        settings = self.story.view.settings
        latest = settings.compare == "latest"
        flags = {"compare=latest": latest, "wild": self.wild, "trouble": self.trouble, "samples": self.samples}
        words = [f"{self.size} members", self.mode, f"max_lead={settings.max_lead}", f"keep={settings.keep}"]
        return f"play {self.number} ({', '.join([*words, *(word for word, true in flags.items() if true)])})"

    def moments(self) -> Iterator[Moment]:
        """Plays it, and stops at each decision, before its claim stands in the journal."""
        view = self.story.view
        for _ in range(self.turns):
            busy, free = np.flatnonzero(view.busy), view.claimable()
            if not len(busy) and not free:
                return
            if len(busy) and (not free or self.rng.random() < 0.5):
                self._end(int(self.rng.choice(busy)))
                continue
            member = int(self.rng.choice(free))
            moment = self.ask(member)
            yield moment
            self.claim(moment)
            if self.trouble and self.rng.random() < 0.03:
                self._speak()

    def ask(self, member: int, story: Story | None = None) -> Moment:
        """What the strategy decides for this member, in this story or one that is told differently."""
        view = (story or self.story).view
        own, heard = view.restorable(member), _Heard(self.subject.strategy)
        try:
            choice, error = decide(view, member, heard), heard.error
        except Exception as raised:
            choice, error = decide(view, member, _stays), raised
        return Moment(self, member, own, heard.said, error, choice)

    def claim(self, moment: Moment) -> None:
        """The member is claimed as was decided."""
        choice, fields = moment.choice, ("hypers", "donor", "ready", "replaced", "notes", "mix")
        self.story.claim(moment.member, choice.source, **{name: getattr(choice, name) for name in fields})

    def report(self, member: int, score: float | None) -> Record:
        """The member's open claim comes to this score, where higher is better whatever the mode."""
        view, samples = self.story.view, None
        claim, newest = view.open[member], view.newest(member)
        value = score if score is None else view.sign * score
        if value is not None and math.isfinite(value) and self.samples:
            own = newest is not None and claim is not None and claim.source == newest.ref and claim.mix is None
            samples = [value + view.sign * 0.1 * float(x) for x in self.rng.normal(size=SAMPLES)]
            value = windowed(view.samples[member] if own else [], samples, view.settings.window)
        metrics = {name: float(self.rng.normal()) for name in self.subject.metrics} or None
        return self.story.report(member, value, samples=samples, metrics=metrics)

    # What happens -----------------------------------------------------------------------------------------------------

    def _end(self, member: int) -> None:
        story, view, rng = self.story, self.story.view, self.rng
        claim = view.open[member]
        assert claim is not None
        if self.trouble and rng.random() < 0.15:
            kinds: Sequence[FailedKind] = ("lost", "given_back", "raised", "crashed", "checkpoint")
            why = kinds[int(rng.integers(len(kinds)))]
            story.fail(member, why, claim.source if why == "checkpoint" and not view.late[member] else None)
            return
        latent = self._trained(claim)
        score: float | None = latent
        if self.wild:
            odd, kind = rng.random() < 0.3, int(rng.integers(len(ODD)))
            score = ODD[kind] if odd else float(round(latent))  # ties
        self.latent[self.report(member, score).ref] = latent

    def _trained(self, claim: Claimed) -> float:
        """Weights get better by what they are trained with: best at 0.6 of each range."""
        space = self.story.view.space
        known = [(name, value) for name, value in sorted(claim.hypers.items()) if space[name].contains(value)]
        gain = 1 - float(np.mean([abs(space[name].encode(value) - 0.6) for name, value in known])) if known else 0.0
        before = self.latent[claim.source] if claim.source is not None else 0.0
        return before * (1 if claim.mix is None else 0.5) + gain + 0.2 * float(self.rng.normal())

    def _speak(self) -> None:
        """Somebody changes the population, or the bounds."""
        story, view, rng = self.story, self.story.view, self.rng
        speech = resize(max(1, view.size + int(rng.choice([-2, -1, 1, 2]))))
        if rng.random() < 0.4:
            numbers = [k for k, h in sorted(view.space.items()) if isinstance(h, Float | Int) and not h.structural]
            if not numbers:
                return
            name = numbers[int(rng.integers(len(numbers)))]
            end, place = [("high", rng.uniform(0.6, 1)), ("low", rng.uniform(0, 0.4))][int(rng.integers(2))]
            bound: Any = view.space[name].decode(float(place))
            speech = bounds({f"{name}.{end}": bound})
        for event in speech(view):
            story.add(placed(event, view.run_head + 1) if event.member == RUN else event)


class _Heard:
    """The strategy, of which is kept what it said, or raised."""

    def __init__(self, strategy: Strategy):
        self.strategy = strategy
        self.said: Decision | None = None
        self.error: Exception | None = None
        if (rescue := getattr(strategy, "rescue", None)) is not None:
            self.rescue = partial(self._hear, rescue)

    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Decision:
        return self._hear(self.strategy, view, member, rng)

    def __repr__(self) -> str:
        return repr(self.strategy)

    def _hear(self, asked: Strategy, view: View, member: int, rng: np.random.Generator) -> Decision:
        try:
            self.said = asked(view, member, rng)
        except Exception as error:
            self.error = error
            raise
        return self.said


def _stays(view: View, member: int, rng: np.random.Generator) -> Decision:
    own = view.restorable(member)
    assert own is not None
    return Decision(KEEP, own.hypers)


def _birth(number: int, member: int, space: Space) -> Hypers:
    return draw(space, np.random.default_rng([number, member]))
