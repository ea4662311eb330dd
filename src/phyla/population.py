"""The population, as a user's script sees it: what to train, and the loop over its members."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import faulthandler
import hashlib
import logging
import os
import sys
import threading
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from phyla import departures, guidance, host, launched, preempt, runs, snapshot
from phyla.ahead import Draws
from phyla.arguments import IN_MEMORY, Arguments
from phyla.arms import arguments_here
from phyla.background import Background
from phyla.begin import begin
from phyla.cohort import Cohort, Group, check_group
from phyla.decide import FAILED
from phyla.errors import LoopError, PhylaError, PhylaWarning, SettingsError, StateError
from phyla.glance import plural, trained
from phyla.hours import Hours
from phyla.launched import Joined
from phyla.member import Member
from phyla.once import Once
from phyla.progress import Progress, summary
from phyla.pulse import Pulse
from phyla.record import Record
from phyla.room import Room
from phyla.runs import Heir, Run
from phyla.snapshot import Snapshots
from phyla.space import Hyperparameter
from phyla.stacks import Stacks
from phyla.states import States
from phyla.strategies.contract import Exploit, Explore, Strategy, needs_samples
from phyla.strategies.perturb import Perturb
from phyla.strategies.truncation import Truncation
from phyla.turn import Savable, Turn
from phyla.view import View
from phyla.worker import Claim, Outcome, Passed, Worker, drive

log = logging.getLogger("phyla")

T = TypeVar("T", bound=Turn)

HOPELESS = 3
"""How often a member is given up, in a row and in one process, before the loop ends."""


class Population:
    """N members, trained with Population Based Training by every process that runs the script.

    Iterate over it: each turn gives one `Member` to train for one interval. The record of the run lies in `runs/NAME`, and
    re-running the script goes on where it ended.

    name: of the run; names its directory. space: a hyperparameter's name to Float, Int or Choice. size: members.
    intervals: turns of each member; may be left out with target or seconds. metric, mode: the score's key where `report` is
    given a dict, and whether "max" or "min" is better. seed: of all randomness; drawn and recorded if left out.
    ready, burn_in: intervals from one chance to exploit to the next, and before the first. exploit: who copies whom
    (None: nobody, which is random search at equal cost). explore: how copied hyperparameters change (None: not). inherit:
    what is copied, "both", "weights" or "hypers". strategy: a whole decision, instead of these three.
    compare: "progress" compares members at equal intervals, "latest" takes what each has. max_lead: intervals that a member
    may be ahead of the slowest; None is asynchronous, 0 is synchronous generations and reproducible for any number of
    workers. keep: newest checkpoints of each member that are kept. window: newest samples that rank a member.
    retries: of an interval that fails, before the member is replaced. max_lost: losses in a row that count as a failure.
    threads: for numeric libraries in each worker. target: a score that ends the run. seconds: after which this process
    claims no more. start: what members are born from, `phyla.open("runs/old").top(4)` or dicts of hyperparameters.
    path: the directory that holds runs ($PHYLA_RUNS, or "runs"). journal: "sqlite", "directory" (for network file systems)
    or "memory". durability: "background" makes checkpoints survive a power loss within sync_every seconds, "strict" before
    they are published. lease: seconds of silence after which a worker counts as lost. strict: warnings about
    hyperparameters without effect are errors. fresh: sets an existing run of this name aside, and begins anew.
    progress: a line about the run on a terminal (None), always (True), never (False). arms: other ways to train this
    population at equal cost, by name, for `phyla compare`: {"slow": {"ready": 5}}; each says how it differs.

    `phyla.settings` has the table of what identifies a run and what is local. Raises SettingsError for what cannot work.
    """

    def __init__(
        self,
        name: str,
        space: Mapping[str, Hyperparameter],
        size: int = 20,
        intervals: int | None = None,
        *,
        metric: str | None = None,
        mode: Literal["max", "min"] = "max",
        seed: int | None = None,
        ready: int = 1,
        burn_in: int = 0,
        exploit: Exploit | None = Truncation(0.2),  # noqa: B008 — a frozen value
        explore: Explore | None = Perturb(0.8, 1.2),  # noqa: B008
        inherit: Literal["both", "weights", "hypers"] = "both",
        strategy: Strategy | None = None,
        compare: Literal["progress", "latest"] = "progress",
        max_lead: int | None = None,
        keep: int | None = None,
        window: int = 10,
        retries: int = 2,
        max_lost: int = 3,
        threads: int | None = None,
        target: float | None = None,
        seconds: float | None = None,
        interval_timeout: float | None = None,
        start: Sequence[Heir | Mapping[str, Any]] | None = None,
        path: str | Path | None = None,
        journal: Literal["sqlite", "directory", "memory"] | None = None,
        durability: Literal["background", "strict"] = "background",
        sync_every: float = 5.0,
        lease: float | None = None,
        strict: bool = False,
        fresh: bool = False,
        progress: bool | None = None,
        arms: Mapping[str, Mapping[str, Any]] | None = None,
    ):
        given = {key: value for key, value in locals().items() if key not in ("self", "__class__")}
        self._arguments = arguments_here(given)
        self.name = name
        self.space = self._arguments.space
        self.states = States()
        self.stacks = Stacks()
        self.draws = Draws(self._arguments.strategy)
        self._group = Group()
        self._worker: Worker | None = None
        self._background: Background | None = None
        self._progress: Progress | None = None
        self._turn = threading.RLock()
        self._complaints: set[str] = set()
        self._failures: Counter[int] = Counter()  # of each member since its last report, in this process
        self._departed: Turn | None = None
        self._current: Turn | None = None  # the newest that was claimed
        self._found_finished = self._summed_up = self._began_afresh = False
        self._hours = Hours(self._arguments.seconds, most=2 * self._arguments.settings.size)
        self._publishing = False
        self._choices = 0  # how often the newest claim has looked for a free member
        self._claimed_by: int | None = None  # the thread
        self._checked: Iterator[Member] | None = None
        self._last_publisher = False
        _never_used.add(self)

    checker: ClassVar[Callable[[Population], Iterator[Member]] | None] = None
    """`phyla check` puts its own turns in the place of the loop's."""

    # The loop -------------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Member]:
        if Population.checker is not None:
            yield from Population.checker(self)
            return
        yield from self._turns(self.claim)

    def cohorts(self, size: int | None = None, *, span: int = 1, ahead: bool = False) -> Iterator[Cohort]:
        """Members by the cohort: each turn gives one `Cohort`, to be trained together for one interval.

        For a device that holds many members at once, as rows of stacked arrays. size: members of a cohort, which are always
        the same ones (None: the whole population); the last cohort is padded. span: intervals for which a cohort is claimed,
        and after which it is saved; in between its hyperparameters stay, so it divides `ready`, unless one cohort is the
        whole population. ahead=True gives the cohort once a span: a program then trains all its intervals, and decides
        between them, by `cohort.ahead()` and `cohort.report_ahead`. Raises SettingsError for what cannot work.
        """
        if Population.checker is not None:
            raise LoopError("phyla check goes through `for member in population`; it does not know cohorts")
        self._group = check_group(self._arguments, size, span, ahead)
        return self._turns(self._claim_cohort)

    def _turns(self, claim: Callable[[], T | None]) -> Iterator[T]:
        departures.watch(self)
        turn: T | None = None
        try:
            while (turn := claim()) is not None:
                yield turn
                if not turn.settled:
                    self.unreported(turn)
        finally:
            if turn is not None and not turn.ended:
                self._departed = turn  # by break, or by an exception that is on its way: departures.py finds out
                departures.leave(self)

    def claim(self) -> Member | None:
        """The next member to train, for code that lives in somebody else's callback; None when nothing is left to do."""
        if Population.checker is not None:
            self._checked = self._checked or Population.checker(self)
            return next(self._checked, None)
        return self._begin(Member, Group())

    def _claim_cohort(self) -> Cohort | None:
        current = self._current
        if isinstance(current, Cohort) and not current.ended and (goes_on := current.next_interval()) is not None:
            return goes_on
        return self._begin(lambda home, claim: Cohort(home, claim, self._group), self._group)

    def _begin(self, make: Callable[[Population, Claim], T], group: Group) -> T | None:
        with self._turn:
            worker = self._join()
            worker.cohort, worker.span, worker.stacked = group.size, group.span, group.stacked
            self.depart("given_back")
            if self._current is not None and not self._current.ended:
                self._fail(self._current, "given_back")  # this process trains one at a time
            if self._found_finished and not worker.tidy():
                self._found_finished = False  # somebody has changed the run since
            if self._found_finished:
                log.warning("%s", finished_line(self.run))
                launched.ended()
                return None
            if preempt.ends():
                self.close()
                preempt.end()
            if self._hours.over:
                self._end()
                return None
            if self._background is None:
                self._background = Background(worker, self._arguments.sync_every, self._pulse(worker))
            self._show()
            self._choices, self._claimed_by = 0, threading.get_ident()
            try:
                claim = drive(worker.claim(), worker.journal)
            except BaseException:  # Ctrl-C, or a journal that cannot be written: leave nothing claimed
                with contextlib.suppress(PhylaError):
                    worker.read()
                    worker.give_back_strays()
                raise
            if claim is None:
                self._end()
                return None
            for event in claim.events:
                if event.notes and FAILED in event.notes:
                    instead = "is replaced by the usual rule" if event.replaced else "goes on without an exploit"
                    log.warning("%s. The member %s", event.notes[FAILED], instead)
            if (error := worker.view.retain_error) is not None:
                kept = "What it had named before is kept instead"
                self.complain("retain", f"the strategy's retain(view) failed: {error}. {kept}", error=False)
            self._current = turn = make(self, claim)
            self._hours.begin()
            self._limit(claim)
            return turn

    def _pulse(self, worker: Worker) -> Callable[[float], Pulse] | None:
        """What starts the process that beats for this one."""
        if self._place.journal == "memory":
            return None
        return lambda every: Pulse(self._place, worker.id, every)

    def _limit(self, claim: Claim | None) -> None:
        """Has a body watched that may hang; None: no longer."""
        seconds = self._arguments.interval_timeout
        if seconds is None or self._background is None:
            return
        seconds *= claim.events[0].span if claim is not None else 1
        self._background.watch(claim.events if claim is not None else (), seconds)
        if claim is None:
            faulthandler.cancel_dump_traceback_later()
            return
        with contextlib.suppress(OSError, ValueError, AttributeError):  # a notebook's stderr is no file
            faulthandler.dump_traceback_later(seconds, exit=False)

    @property
    def seconds_left(self) -> float | None:
        """Of the interval in hand, by those before; None if nothing is in hand (preempt.py asks)."""
        member = self._current
        if self._publishing:
            return 0.0
        if member is None or member.ended:
            return None
        return self._hours.left

    def publish(
        self, claim: Claim, live: Savable, outcomes: Sequence[Outcome], passed: Sequence[Passed] | None = None
    ) -> Sequence[Record]:
        """Saves and reports what a turn has trained; the records of it, none if its claim was lost (a turn calls this)."""
        with self._turn:
            worker = self._join()
            self._hours.end()
            self._limit(None)
            try:
                published = drive(worker.publish(claim, live.save(), outcomes, passed), worker.journal)
            except PhylaError:
                # A full disk is no fault of the member's. Where not even this can be written, it is taken over.
                with contextlib.suppress(PhylaError):
                    worker.fail("given_back")
                raise
            finally:
                self._publishing = False
            if not published:
                log.warning(
                    "member %d, interval %d: the claim was lost while it trained (this process was silent for longer than "
                    "the lease, or was taken for dead); its work is dropped",
                    claim.events[0].member,
                    claim.events[0].interval,
                )
                return ()
            self._room.look(worker.view)
            self._last_publisher = worker.view.finished
            newest = [worker.view.newest(event.member) for event in claim.events]
            records = [record for record in newest if record is not None]
            for record in records:
                del self._failures[record.id]
            return records

    def unreported(self, turn: Turn) -> None:
        """A body came to its end without a report."""
        log.warning(
            "%s: the loop's body ended without a report for interval %d; call %s at its end",
            turn.who,
            turn.interval,
            turn.call,
        )
        self._fail(turn, "unreported", "the loop's body ended without a report")
        self._end_if_hopeless(turn, f"ended without calling {turn.call}")

    def raised(self, turn: Turn, error: BaseException) -> None:
        """A body has raised; its traceback was shown."""
        text = f"{type(error).__name__}: {error}"
        self._fail(turn, "given_back" if preempt.ends() else "raised", text[:500])
        if preempt.ends():  # SIGTERM went to the processes that the body had started, too
            return
        self._end_if_hopeless(turn, f"raised, the last time {text[:200]}")

    def left(self, turn: Turn, error: SystemExit) -> None:
        """A body ends the script: by `sys.exit`, which is its own doing, or because a signal has asked for it."""
        if preempt.asked():
            self._fail(turn, "given_back")
        else:
            self._fail(turn, "raised", f"SystemExit: {error}"[:500])

    def _fail(self, turn: Turn, why: Any, error: str | None = None) -> None:
        with self._turn:
            turn.ended, turn.failed = True, why
            self._limit(None)
            if self._worker is not None:
                self._worker.fail(why, error)

    def _end_if_hopeless(self, turn: Turn, what: str) -> None:
        """Ends a loop that would fail for ever: nobody ever reports, or one member fails whatever it is replaced by."""
        view = self.view
        self._failures[turn.id] += 1
        failures = self._failures[turn.id]
        if not view.records and len(view.troubled) >= min(3, view.size):
            who = f"{len(view.troubled)} different members have {what}, and none has ever reported"
        elif failures >= HOPELESS * (view.settings.retries + 1):
            who = f"{turn.who} has {failures} times in a row {what}; it was replaced {HOPELESS - 1} times meanwhile"
        else:
            return
        raise LoopError(f"{who}: this is not bad luck. The run is kept; correct the loop and start it again") from None

    def _rank(self, member: int) -> int:
        """Equals are claimed in this order: who has failed comes last, so that nobody waits for a member that always does."""
        assert self._worker is not None
        view = self._worker.view
        return self.states.rank(member) + 2 * bool(view.fails[member] or view.forced[member])

    def depart(self, why: Literal["given_back", "raised"], error: str | None = None) -> None:
        """Settles the claim of a loop that was left, if there is one (departures.py calls this)."""
        with self._turn:
            member, self._departed = self._departed, None
            if member is not None and not member.ended:
                self._fail(member, why, error)

    def _over(self) -> bool:
        """Whether to claim no more; asked before every choice."""
        self._choices += 1
        if self._choices > 1:  # it had to wait
            self._free_forgotten()
        return self._hours.over

    def _free_forgotten(self) -> None:
        """Gives back what another population of this run holds that this very thread has claimed for, as in a notebook's cell
        that is run again: while this one waits, nobody can ever report it."""
        for other in list(_joined):
            if other is not self and other._place == self._place and other._claimed_by == threading.get_ident():
                other.close()

    def _end(self) -> None:
        """Nothing is left to claim."""
        self.close()
        if self._progress is not None:
            self._progress.close()
        if self._summed_up:
            log.warning("%s", finished_line(self.run))
        elif self.view.finished and not self._found_finished:
            self._summed_up = True
            if self._arguments.progress is not False and launched.folder() is None:  # else the launcher says it
                print(summary(self.run, whole=self._last_publisher), file=sys.stderr, flush=True)
        launched.ended()

    # What it came to ------------------------------------------------------------------------------------------------

    @property
    def run(self) -> Run:
        """The run, for reading: `phyla.open` gives the same."""
        worker = self._join()
        path = self._place.path if self._place.journal != "memory" else None
        return Run(worker.journal, worker.checkpoints, path, self._look)

    def _look(self) -> View:
        with self._turn:
            worker = self._join()
            worker.read()
            return worker.view

    @property
    def view(self) -> View:
        """The run so far, as arrays over members."""
        worker = self._join()
        return worker.view

    @property
    def best(self) -> Record | None:
        """The best report ever, whose checkpoint is kept; None before the first score."""
        return self.run.best

    @property
    def primary(self) -> bool:
        """True in one worker of the run after its end: for what must be done once. Raises LoopError before the end.

        In a comparison it is true nowhere: what a script writes at its end is not to come from one of many arms and seeds.
        """
        with self._turn:
            worker = self._join()
            worker.read()
            view = worker.view
            if not view.finished and not self._hours.over:
                raise LoopError("population.primary is known after the loop's end: the run is not finished yet")
            if launched.cell() is not None:
                return False
            end = f"{view.run_head}" if view.finished else None  # after each change it ends anew
            return self._once.primary(end, again=self._found_finished)

    def once(self, key: str, fn: Callable[[], object], *, per: Literal["host", "run"] = "host") -> None:
        """Calls fn in one worker of each host (or of the whole run) while the others wait; returns when a call has succeeded.

        If fn raises, the error is raised here, and the next worker tries. If its worker dies, the next one tries.
        """
        self._join()
        self._once.call(key, fn, per)

    def close(self, *, patience: float = -1) -> None:
        """Gives back what is claimed, stops the background thread, and makes everything durable. The loop's end does this."""
        if not self._turn.acquire(timeout=patience):
            return  # the process ends while a thread of it waits for something to claim: it holds nothing
        try:
            if self._worker is None:
                return
            self.depart("given_back")
            self._worker.fail("given_back")
            with contextlib.suppress(PhylaError):
                self._worker.read()
                self._worker.give_back_strays()
            if self._background is not None:
                self._background.stop()
                self._background = None
            self._worker.sweep()
        finally:
            self._turn.release()

    def complain(self, key: str, message: str, *, error: bool = True) -> None:
        """Warns once about something; with strict=True, and if it may be an error, raises StateError."""
        if error and self._arguments.strict:
            raise StateError(message)
        if key not in self._complaints:
            self._complaints.add(key)
            warnings.warn(message, PhylaWarning, stacklevel=4)  # the script, beyond report

    @property
    def needs_samples(self) -> bool:
        """Whether the strategy compares samples, so that `report` must be given some."""
        return needs_samples(self._arguments.strategy)

    def use_threads(self) -> None:
        """Limits the threads of numeric libraries to what the run has recorded."""
        threads = self.view.settings.threads
        if threads is None:
            return
        if (torch := sys.modules.get("torch")) is not None and torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        if not self._threads_set:
            from threadpoolctl import threadpool_limits

            self._threads_set = True
            threadpool_limits(threads)

    # Joining the run ------------------------------------------------------------------------------------------------

    _threads_set = False

    def _join(self) -> Worker:
        """This process's worker; the run is created, or joined, when it is first needed."""
        if self._worker is None:
            with self._turn:
                if self._worker is None:
                    self._worker = self._start_worker()
        return self._worker

    def _start_worker(self) -> Worker:
        arguments = self._arguments = self._arguments.for_check() if Population.checker is not None else self._arguments
        _never_used.discard(self)
        self._place = runs.locate(self.name, arguments.path, arguments.journal)
        if self._place.journal == "memory" and arguments.interval_timeout is not None:
            raise SettingsError(IN_MEMORY)
        if (arguments.fresh or launched.wants_fresh()) and not self._began_afresh:
            for other in list(_joined):
                if other._place == self._place:
                    other.close()
            with launched.first(f"fresh.{self.name}") as first:
                if first:
                    runs.set_aside(self._place)
            self._began_afresh = True
        journal, checkpoints = runs.open_for_work(self._place, durable=arguments.durability == "strict")
        self._once = Once(None if self._place.journal == "memory" else self._place.path)
        worker = Worker(
            id=host.new_worker_id(),
            journal=journal,
            checkpoints=checkpoints,
            strategy=arguments.strategy,
            gone=host.is_gone,
            held=lambda claim: self.states.holds(claim) or self.stacks.holds(claim),
            prefers=self._rank,
            origins=runs.load_origin,
            lease=arguments.lease or launched.lease() or (120.0 if self._place.journal == "directory" else 30.0),
            script=script_digest(),
            over=self._over,
            snapshots=None if self._place.journal == "memory" else Snapshots(self._place.path / snapshot.FILE),
        )
        if self._place.journal != "memory":
            launched.announce(Joined(self._place.path.absolute(), self._place.journal, worker.id))
        created = begin(worker, self.name, arguments)
        if created and arguments.progress is not False and launched.folder() is None:  # else the launcher says it
            for said in guidance.at_start(worker.view.settings, worker.view.space, arguments.strategy):
                print(f"{self.name}: note: {said}", file=sys.stderr, flush=True)
        self._found_finished = worker.view.finished
        self._hours.start()
        self._room = Room(None if self._place.journal == "memory" else self._place.checkpoints)
        self._progress = Progress(self.name, arguments.progress)
        _joined.add(self)
        preempt.listen(self)
        return worker

    def hand_over(self) -> Arguments:
        """The arguments, for populations of the same run in other processes (phyla.run asks)."""
        _never_used.discard(self)
        fresh = self._arguments.fresh and not self._began_afresh
        self._began_afresh = True  # they set the old run aside: this process must not do so when it looks at theirs
        return dataclasses.replace(self._arguments, fresh=fresh)

    def forget_parent(self) -> None:
        """In a forked child: it is no worker yet, and its parent's claim, threads and locks are not its own."""
        self._turn = threading.RLock()
        self._departed = self._current = self._background = None
        if self._place.journal != "memory":
            self._worker, self.states, self.stacks = None, States(), Stacks()

    def _show(self) -> None:
        if self._progress is not None and self._worker is not None:
            self._progress.show(self._worker.view)

    def __repr__(self) -> str:
        return f"<population {self.name!r}: {self._arguments.size} members>"


def finished_line(run: Run) -> str:
    """What to say when the loop of a finished run is entered."""
    view, best = run.view, run.best
    score = f", best score {best.score:.6g}" if best is not None else ""
    why = f" ({view.stopped})" if view.stopped else ""
    goes_on = f"phyla resume {run.name}" if view.stopped else f"phyla change {run.name} --intervals N"
    return (
        f"{run.name} is finished{why}: {plural(view.size, 'member')}, {plural(trained(view), 'interval')}{score}. To go on: "
        f"{goes_on}. To begin anew: Population(…, fresh=True) or phyla run --fresh, which set it aside; or give it another "
        f"name; to read it: phyla.open({str(run.path)!r})"
    )


def script_digest() -> str | None:
    """The digest of the script that runs, so that a change between two claims can be seen."""
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    if path is None:
        return None
    with contextlib.suppress(OSError):
        return hashlib.blake2b(Path(path).read_bytes(), digest_size=8).hexdigest()
    return None


_never_used: weakref.WeakSet[Population] = weakref.WeakSet()
"""Populations that no loop has touched yet; at the end of the script they are named."""

_joined: weakref.WeakSet[Population] = weakref.WeakSet()
"""Populations that have a worker in this process; at the end of the script they give back what they hold."""


def _at_exit(pid: int) -> None:
    if os.getpid() != pid:
        return  # a forked child: its parent's populations are not its own
    for population in list(_joined):
        with contextlib.suppress(PhylaError):
            population.close(patience=1.0)
    for population in list(_never_used):
        log.warning(
            "population %r was made and never trained: write `for member in population:`, or call population.claim()",
            population.name,
        )


def _after_fork_in_child() -> None:
    for population in list(_joined):
        population.forget_parent()


atexit.register(_at_exit, os.getpid())
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
