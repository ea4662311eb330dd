"""Many workers, one thread, one seed, no clock: the real worker code under every kind of bad luck.

Workers are generators (worker.py yields at every point where the world may interfere). A scheduler picks one at random, lets it
take one step, and may then end it, freeze it for longer than its lease, give back its claim, lose the answer to its append, or
tear a file. Time is virtual. A seed fixes everything, so a failure can be run again: `Simulation(seed, …).run()`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import numpy as np

from phyla import randomness
from phyla.checkpoints import Checkpoints, file_name
from phyla.checkpoints.memory import MemoryCheckpoints
from phyla.doctor import Problem, examine
from phyla.errors import JournalError, PhylaError
from phyla.events import RUN, Born, Claimed, Created, Event, Recorded, Resumed, as_json_number
from phyla.journal import Journal
from phyla.journal.memory import MemoryJournal
from phyla.randomness import Purpose
from phyla.settings import Settings
from phyla.space import Float, Int, Space, describe, draw
from phyla.strategies.contract import Strategy
from phyla.strategies.evolve import Evolve
from phyla.strategies.perturb import Perturb
from phyla.strategies.truncation import Truncation
from phyla.view import View, fold
from phyla.worker import Claim, Held, Outcome, Wait, Worker

LEASE = 30.0
SPACE: Space = {"lr": Float(1e-4, 1.0, log=True), "units": Int(1, 64)}


@dataclass
class Faults:
    """How often each kind of bad luck strikes, per step of a worker."""

    crash: float = 0.01
    freeze: float = 0.005
    give_back: float = 0.005
    lost_answer: float = 0.01
    raises: float = 0.0  # the body raises
    tear: float = 0.0  # a file is damaged

    @classmethod
    def none(cls) -> Faults:
        return cls(0, 0, 0, 0)


class LostAnswer(JournalError):
    """The append is in the journal, and its writer cannot know."""


@dataclass
class SimulatedJournal:
    """One worker's connection to the shared journal."""

    inner: MemoryJournal
    world: Simulation
    life: Life

    def append(self, *events: Event) -> int:
        position = self.inner.append(*events)
        if self.world.strikes(self.world.faults.lost_answer):
            raise LostAnswer("the connection broke after the commit")
        return position

    def read(self, after: int) -> Sequence[Recorded]:
        return self.inner.read(after)

    def wait(self, after: int, timeout: float) -> bool:
        raise AssertionError("the simulation waits for its workers")

    def beat(self, worker: str) -> None: ...

    def beats(self) -> dict[str, int]:
        return {life.id: int(life.beating_until(self.world.now) / 5) for life in self.world.lives}

    def sync(self) -> None: ...

    def close(self) -> None: ...


@dataclass
class Life:
    """One incarnation of one worker."""

    id: str
    born: float
    steps: Generator[str | Wait, None, None] | None = None  # None: dead, or done
    worker: Worker | None = None
    frozen_until: float = 0.0
    frozen_since: float = 0.0
    asleep: Wait | None = None
    asleep_until: float = 0.0
    died: float | None = None

    def beating_until(self, now: float) -> float:
        """The moment of its last beat: it beats by itself for as long as it is alive and not frozen."""
        if self.died is not None:
            now = self.died
        return min(now, self.frozen_since) if self.frozen_until > now else now


@dataclass
class Simulation:
    """A run of simulated workers. `run()` returns the problems found; `view` and `events` tell what happened."""

    seed: int
    workers: int = 4
    members: int = 6
    intervals: int = 8
    faults: Faults = field(default_factory=Faults)
    max_lead: int | None = 0
    keep: int = 2
    ready: int = 1
    cohort: int = 1
    span: int = 1
    run_seed: int = 0  # of the run, as `Population(seed=)`
    space: Space = field(default_factory=lambda: SPACE)
    diverges: int = 0  # one state in so many scores NaN (0: none does), whoever trains it
    settings: dict[str, Any] = field(default_factory=dict)  # more of the run's, as in Settings
    strategy: Strategy = field(default_factory=lambda: Evolve(Truncation(0.25), Perturb()))
    speaks: Callable[[View, np.random.Generator], Sequence[Event]] | None = None  # what somebody says to the run
    worker_type: type[Worker] = Worker
    max_steps: int = 200_000
    min_faultless: float = 0.3  # of all steps at the end go without faults, so that every run can end

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng([self.seed, 7])
        self.now = 0.0
        self.journal = MemoryJournal()
        self.checkpoints: Checkpoints = MemoryCheckpoints()
        self.lives: list[Life] = []
        self.calm = False
        self.torn: set[str] = set()
        self.counts = {"crash": 0, "freeze": 0, "give_back": 0, "lost_answer": 0, "lost": 0, "tear": 0, "speech": 0}
        self.problems: list[Problem] = []
        self._eye = View(getattr(self.strategy, "retain", None))
        given: dict[str, Any] = {"max_lead": self.max_lead, "keep": self.keep, "ready": self.ready, "max_lost": 10_000}
        settings = Settings(
            seed=self.run_seed,
            space=describe(self.space),
            size=self.members,
            intervals=self.intervals,
            **{**given, **self.settings},
        )
        born = []
        for m in range(self.members):
            rng = randomness.generator(self.run_seed, m, 0, Purpose.BIRTH, 0)
            born.append(Born(member=m, seq=1, hypers=draw(self.space, rng)))
        self.journal.append(Created(member=RUN, seq=1, run="simulation", version="0", settings=settings), *born)
        for _ in range(self.workers):
            self._start()

    def strikes(self, probability: float) -> bool:
        return not self.calm and bool(self.rng.random() < probability)

    # Workers --------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        life = Life(f"w{len(self.lives)}", self.now)
        journal: Journal = SimulatedJournal(self.journal, self, life)
        life.worker = self.worker_type(
            id=life.id,
            journal=journal,
            checkpoints=self.checkpoints,
            strategy=self.strategy,
            clock=self,
            held=lambda claim: claim.source in resident,
            lease=LEASE,
            cohort=self.cohort,
            span=self.span,
        )
        resident: dict[Any, int] = {}
        life.steps = self._live(life.worker, resident)
        self.lives.append(life)

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    def _live(self, worker: Worker, resident: dict[Any, int]) -> Generator[str | Wait, None, None]:
        """What a user's loop does, with a body that is a hash of all that it may depend on."""
        while True:
            try:
                claim = yield from worker.claim()
                if claim is None:
                    worker.sweep()
                    return
                yield "train"
                if self.strikes(self.faults.give_back):
                    self.counts["give_back"] += 1
                    worker.fail("given_back")
                    continue
                if self.strikes(self.faults.raises):
                    worker.fail("raised", "ValueError: simulated")
                    continue
                states = [self._train(worker, claim, i, resident) for i in range(len(claim.events))]
                resident.clear()
                stacked = len(states) > 1
                tree = {"x": np.array(states) if stacked else np.array(states[0])}
                outcomes = [self._outcome(x, event) for x, event in zip(states, claim.events, strict=True)]
                if (yield from worker.publish(claim, tree, outcomes)):
                    for x, event in zip(states, claim.events, strict=True):
                        resident[event.ref._replace(seq=event.seq + 1)] = x
                else:
                    self.counts["lost"] += 1
                if self.strikes(0.1):
                    worker.sync()
            except LostAnswer:
                self.counts["lost_answer"] += 1
                worker.claim_held = None

    def _train(self, worker: Worker, claim: Claim, i: int, resident: dict[Any, int]) -> int:
        event, tree = claim.events[i], claim.trees[i]
        settings = worker.view.settings
        if isinstance(tree, Held):
            x = resident[event.source]
        else:
            x = 1 if tree is None else int(tree["x"])
        for interval in range(event.interval, event.interval + event.span):
            seed = randomness.draw_seed(
                settings.seed, event.member, interval, Purpose.BODY, claim.replacements[i], claim.attempts[i]
            )
            for number in (seed, *(crc32(repr(v).encode()) for v in event.hypers.values())):
                x = (x * 6364136223846793005 + number + 1442695040888963407) % 2**53
        return x

    def _outcome(self, x: int, event: Claimed) -> Outcome:
        return Outcome(self._score(x), steps=event.span)

    def _score(self, x: int) -> float:
        return math.nan if self.diverges and x // 1009 % self.diverges == 0 else float(x % 1009)

    # The scheduler --------------------------------------------------------------------------------------------------

    def run(self) -> list[Problem]:
        """Runs to the end, and returns every violated invariant."""
        try:
            for step in range(self.max_steps):
                if not any(life.steps is not None for life in self.lives) and self.view.finished:
                    break
                self.calm = step > self.max_steps * (1 - self.min_faultless)
                self._step()
                if step % 50 == 0:
                    self._check_files()
            else:
                self.problems.append(Problem("I6", "the end", f"not finished after {self.max_steps} steps", ""))
            self._check_files()
        except PhylaError as error:
            self.problems.append(Problem("I1", "a worker", f"{type(error).__name__}: {error}", ""))
        self.problems += examine(self.events, None if self.faults.tear else self.checkpoints, self.strategy)
        return self.problems

    @property
    def events(self) -> Sequence[Recorded]:
        return self.journal.read(0)

    @property
    def view(self) -> View:
        return fold(self.journal.read(self._eye.position), self._eye)

    def _step(self) -> None:
        self.now += float(self.rng.exponential(0.05))
        position = self.view.position
        ready = [life for life in self.lives if life.steps is not None and self._runnable(life, position)]
        if not ready:
            self.now += 1.0
            if sum(life.steps is not None for life in self.lives) == 0:
                self._start()  # the last one died: somebody starts the script again
            return
        life = ready[int(self.rng.integers(len(ready)))]
        assert life.steps is not None
        try:
            step = next(life.steps)
        except StopIteration:
            life.steps, life.died = None, self.now
            return
        if isinstance(step, Wait):
            life.asleep, life.asleep_until = step, self.now + step.seconds
        self._strike(life, step)
        if self.speaks is not None and (self.calm or self.rng.random() < 0.02):
            self._speak(self.speaks)

    def _speak(self, speaks: Callable[[View, np.random.Generator], Sequence[Event]]) -> None:
        """From another process, that has read the journal just now; at the end whoever has paused it says so."""
        view = self.view
        events = speaks(view, self.rng) if not self.calm else [Resumed(member=RUN, seq=view.run_head + 1)]
        if events and not (self.calm and not view.paused):
            self.counts["speech"] += 1
            self.journal.append(*events)

    def _runnable(self, life: Life, position: int) -> bool:
        if life.frozen_until > self.now:
            return False
        if life.asleep is not None:
            if self.now < life.asleep_until and position <= life.asleep.after:
                return False
            life.asleep = None
        return True

    def _strike(self, life: Life, step: str | Wait) -> None:
        if self.strikes(self.faults.crash):
            self.counts["crash"] += 1
            if step == "publish.trained" and life.worker is not None and life.worker.claim_held is not None:
                event = life.worker.claim_held.events[0]
                self._write_piece(file_name(event.member, event.seq))
            life.steps, life.died = None, self.now
            self._start()
        elif self.strikes(self.faults.freeze):
            self.counts["freeze"] += 1
            life.frozen_since, life.frozen_until = self.now, self.now + LEASE * float(self.rng.uniform(0.5, 3))
        elif self.strikes(self.faults.tear):
            files = self.checkpoints.files()
            if files:
                self.counts["tear"] += 1
                file = files[int(self.rng.integers(len(files)))]
                self.torn.add(file)
                self._write_piece(file)

    def _write_piece(self, file: str) -> None:
        assert isinstance(self.checkpoints, MemoryCheckpoints)
        self.checkpoints.damage(file)

    def _check_files(self) -> None:
        """I2 at this very moment: whatever the journal has not released is in the store."""
        there = set(self.checkpoints.files())
        for record in self.view.records.values():
            if not record.freed and not record.void and record.checkpoint.file not in there:
                what = f"{record.checkpoint.file} is gone"
                self.problems.append(Problem("I2", f"member {record.id}, interval {record.interval}", what, ""))


def outcome(view: View) -> dict[tuple[int, int], tuple[Any, ...]]:
    """What a run decided and trained, free of places in the journal: two runs are the same if these are equal.

    (member, interval) -> (digest, score, hyperparameters, the (member, interval) trained on, the one copied).
    """

    def place(ref: Any) -> tuple[int, int] | None:
        return (ref[0], view.records[ref].interval) if ref is not None else None

    return {
        (r.id, r.interval): (
            r.checkpoint.digest,
            as_json_number(r.score),
            tuple(r.hypers.items()),
            place(r.source),
            place(r.donor),
        )
        for history in view.history
        for r in history
    }
