"""The launcher of one machine: a loop that reaps, ends claims, starts again, and ends.

What is to be done with a dead worker is read in the journal, never in its exit code alone: its claims are ended for it, so
that nobody waits for its lease; and it is started again while the run has something left to do. The journal also says when
starting again has no sense: when nobody has ever claimed anything, or nobody reports any more. A script that cannot begin, as
when something that it imports is missing, or its run was created with other settings, is started once.

A launcher that is killed (SIGKILL) leaves its workers alone. They go on, and finish the run; nobody starts them again.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from phyla import host, launched
from phyla.errors import PhylaError
from phyla.events import FailedKind
from phyla.glance import plural
from phyla.inert import inert, inert_lines
from phyla.launch.plan import Plan
from phyla.launch.process import Process
from phyla.launch.signals import Signals
from phyla.launch.watched import Watched
from phyla.launch.words import is_phylas, lasting_error
from phyla.progress import summary
from phyla.runs import Run

DONE, FAILED, OUT_OF_TIME = 0, 1, 75
CODES: Mapping[int, int] = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 143}
"""Exit codes; those of a launch that was asked to end, by the signal."""

LOOK_SECONDS = 0.25
"""How often the launcher reads the run and draws the screen; a worker's end and a signal wake it at once."""

STILLBORN = 3
"""Deaths in a launch that has made no claim yet, after which the script is taken to be broken."""

FRUITLESS = 3
"""Deaths of each worker, times the tries of an interval, without a report of anybody, after which they are given up."""

GRACE_SECONDS = 5.0
"""From a second signal to SIGKILL; and at the deadline, from each step to the next."""

TAIL, WIDEST = 20, 1000
"""Lines of a dead worker's log that are shown, and characters of each."""


class Screen(Protocol):
    """What shows a run while it trains."""

    def refresh(self) -> None: ...
    def say(self, line: str) -> None: ...
    def close(self) -> None: ...


class Ending(NamedTuple):
    """The launch was asked to end, or has given up. insist_at, kill_at: when more is done about it, monotonic."""

    code: int
    insist_at: float | None = None
    kill_at: float | None = None


class Launcher:
    """Runs a plan. screen: makes what shows a run; without it, only what goes wrong is said, on standard error."""

    def __init__(self, plan: Plan, screen: Callable[[Run], Screen] | None = None):
        self.plan = plan
        self.watched: dict[Path, Watched] = {}
        self.failure: list[str] = []  # the last lines of the worker that died last
        self._workers: set[str] = set()  # the ids of all that this launch ever had
        self._make_screen = screen
        self._screen: Screen | None = None
        self._shown: Watched | None = None
        self._ending: Ending | None = None
        self._deaths = 0  # since the newest report
        self._reports = 0
        self._trouble = ""
        self._cannot_begin = False  # `failure` says why
        self._advised = False

    def run(self) -> int:
        """Launches, and returns the exit code when all workers have ended. Nothing is left running, whatever happens."""
        self._folder = Path(tempfile.mkdtemp(prefix="phyla-"))
        lock = os.open(self._folder, os.O_RDONLY)
        fcntl.flock(lock, fcntl.LOCK_SH)  # by which systemd knows that this is in use, however old it gets
        self._processes = [Process(number, self.plan, self._folder) for number in range(1, self.plan.workers + 1)]
        with Signals() as signals:
            try:
                self._start_due()
                while any(process.running or process.waiting for process in self._processes):
                    signals.wait(self._pause())
                    for number in signals.taken():
                        self._signal(number)
                    self._turn()
                self._close_screen()
                return self._conclude()
            finally:
                self._tidy()
                os.close(lock)

    def _turn(self) -> None:
        """One look at everything."""
        self._mind_the_time()
        self._look()
        for process in self._processes:
            if process.has_ended():
                self._reap(process)
        self._reap_strays()
        self._start_due()
        if self._screen is not None:
            self._show(self._screen.refresh)

    def _pause(self) -> float:
        starts = [process.start_at for process in self._processes if process.waiting]
        return max(0.0, min([LOOK_SECONDS, *(at - time.monotonic() for at in starts)]))

    # The runs -------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Reads what the workers say and what the journals hold."""
        try:
            for joined in launched.announcements(self._folder).values():
                for one in joined:
                    self._workers.add(one.worker)
                    if one.run not in self.watched:
                        self.watched[one.run] = Watched(one)
            for watched in self.watched.values():
                begun = watched.begun
                watched.read()
                if watched.begun and not begun and not watched.finished and self._make_screen is not None:
                    for said in watched.advice:
                        self.say(f"{watched.run.name}: note: {said}")
        except PhylaError as error:  # such as a disk that is away for a while: its workers have the same trouble
            if str(error) != self._trouble:
                self._trouble = str(error)
                self.say(f"the journal cannot be read just now: {error}")
        reports = sum(watched.reports for watched in self.watched.values())
        if reports > self._reports:
            self._reports, self._deaths = reports, 0
        newest = next(reversed(self.watched.values()), None)
        if newest is not None and newest.begun and newest is not self._shown and self._make_screen is not None:
            self._close_screen()
            self._show(self._open_screen, newest)

    def _open_screen(self, watched: Watched) -> None:
        assert self._make_screen is not None
        self._screen = self._make_screen(watched.run)
        self._shown = watched

    def say(self, line: str) -> None:
        """A line for whoever watches."""
        if self._screen is not None:
            self._show(self._screen.say, line)
        else:
            self._show(print, inert(line), file=sys.stderr, flush=True)

    def _show(self, do: Callable[..., None], *what: object, **how: Any) -> None:
        """Shows something. A terminal may be closed, or a pipe: that is no reason to end a run."""
        try:
            do(*what, **how)
        except PhylaError:
            pass  # the journal cannot be read just now; _look says so
        except OSError:
            self._screen = self._make_screen = None

    def _close_screen(self) -> None:
        if self._screen is not None:
            self._show(self._screen.close)
            self._screen = None

    @property
    def _finished(self) -> bool:
        """Nothing is left to do in any run that was joined."""
        return bool(self.watched) and all(watched.finished for watched in self.watched.values())

    def _log_home(self, process: Process) -> Path | None:
        """The run that a process's log lies with: the first that it has joined."""
        joined = launched.announced(self._folder, process.pid)
        return joined[0].run if joined else None

    # A worker has died ----------------------------------------------------------------------------------------------

    def _reap(self, process: Process) -> None:
        why: FailedKind = "crashed" if process.crashed else "lost"
        if self._ending is not None and not process.crashed:
            why = "given_back"  # it died because it was told to, which never counts
        self._look()
        joined = launched.announced(self._folder, process.pid)
        lost = self._end_claims(process.pid, why, process.how)
        if self._ending is not None or (process.code == 0 and not lost):
            process.retired = True
            return
        workers = {one.worker for one in joined}
        reported = any(watched.reported & workers for watched in self.watched.values())
        self._deaths += 1
        if (error := self._lasting_error(process)) is not None:
            self._cannot_begin, self.failure = True, error
            self._ask(FAILED, insist_after=GRACE_SECONDS)
            return
        self._show_death(process, lost)
        if self._finished:
            process.retired = process.failed = True
        elif (reason := self._reason_to_give_up()) is not None:
            self._give_up(reason)
        else:
            pause = process.pause(reported=reported)
            self._advise(workers)
            self.say(f"{process} starts again in {pause:g} s")

    def _lasting_error(self, process: Process) -> list[str] | None:
        """What a process ended with before any of this launch has claimed a member, if starting again cannot help."""
        claimed = any(watched.claimed & self._workers for watched in self.watched.values())
        past_its_loop = (self._folder / f"{process.pid}.ended").exists()
        if claimed or past_its_loop or not process.code or process.code < 0:
            return None
        return lasting_error(process.lines(self._log_home(process)))

    def _advise(self, workers: set[str]) -> None:
        """Says once how an error of a body does not end its process."""
        raised = any(watched.raised & workers for watched in self.watched.values())
        if raised and not self._advised and not is_phylas(self.failure):
            self._advised = True
            self.say(
                "an error of the loop's body ends its process; put `with member:` around the body to record the error and go "
                "on in the same process"
            )

    def _end_claims(self, pid: int, why: FailedKind, how: str) -> list[str]:
        """Ends the claims of a process that is gone; in words, which."""
        ended = []
        for run, _, worker in launched.announced(self._folder, pid):
            try:
                claims = self.watched[run].end_claims(worker, why, how) if run in self.watched else []
            except PhylaError as error:
                self.say(f"the claims of {worker} wait for its lease: {error}")
                continue
            ended += [f"member {claim.member}, interval {claim.interval}" for claim in claims]
        return ended

    def _reap_strays(self) -> None:
        """Ends the claims of workers that were forked by others and are gone."""
        own = {process.pid for process in self._processes}
        for pid, joined in launched.announcements(self._folder).items():
            if pid not in own and all(host.is_gone(one.worker) for one in joined):
                self._end_claims(pid, "lost" if self._ending is None else "given_back", "its process is gone")
                launched.forget(self._folder, pid)

    def _show_death(self, process: Process, lost: Sequence[str]) -> None:
        tail = [line[:WIDEST] for line in process.lines(self._log_home(process))[-TAIL:]]
        held = f", with {'; '.join(lost)}" if lost else ""
        if tail and _same(tail, self.failure):
            self.say(f"{process} {process.how}{held}, and said the same")
            return
        self.say(f"{process} {process.how}{held}")
        for line in tail:
            self.say(f"{process} | {line}")
        self.failure = tail or self.failure

    def _reason_to_give_up(self) -> str | None:
        if not any(watched.claimed & self._workers for watched in self.watched.values()) and self._deaths >= STILLBORN:
            return f"{self._deaths} workers have died, and none has ever claimed a member"
        if any(watched.hopeless(self._workers) for watched in self.watched.values()):
            return "several members have failed, and none has ever reported"
        retries = max((w.view.settings.retries for w in self.watched.values() if w.begun), default=0)
        if self._deaths >= FRUITLESS * (retries + 1) * self.plan.workers:
            return f"workers have died {self._deaths} times since anybody reported"
        return None

    def _start_due(self) -> None:
        now = time.monotonic()
        for process in self._processes:
            if not process.waiting or process.start_at > now:
                continue
            if self._ending is not None or self._finished:
                process.retired = True
                continue
            try:
                process.start(next(reversed(self.watched), None))
            except OSError as error:
                pause = process.pause(reported=False)
                self.say(f"{process} cannot be started: {error}; the next try is in {pause:g} s")

    # The end --------------------------------------------------------------------------------------------------------

    def _signal(self, number: int) -> None:
        """Somebody wants the end: the first time workers are asked to, the second time they must."""
        if self._ending is None:
            self._ask(CODES[number])
            again = "Ctrl-C again" if number == signal.SIGINT else "a second signal"
            self.say(f"waiting for {self._running} to finish what they train; {again} ends at once")
        elif self._ending.kill_at is None:
            self._ending = self._ending._replace(code=CODES[number])
            self._insist()
        else:
            self._ending = self._ending._replace(kill_at=time.monotonic())

    def _give_up(self, reason: str) -> None:
        self.say(f"this is not bad luck: {reason}. The run is kept; correct the script and start it again")
        self._ask(FAILED, insist_after=GRACE_SECONDS)

    def _ask(self, code: int, insist_after: float | None = None) -> None:
        self._ending = Ending(code, None if insist_after is None else time.monotonic() + insist_after)
        for process in self._processes:
            process.ask()
            if not process.running:
                process.retired = True

    def _insist(self) -> None:
        assert self._ending is not None
        self.say(f"ending {self._running}")
        self._ending = self._ending._replace(insist_at=None, kill_at=time.monotonic() + GRACE_SECONDS)
        for process in self._processes:
            process.ask()

    def _mind_the_time(self) -> None:
        now = time.monotonic()
        if self._ending is None:
            if self.plan.deadline is not None and time.time() >= self.plan.deadline:
                self.say(f"the time is up: {self._running} must end")
                self._ask(OUT_OF_TIME, insist_after=GRACE_SECONDS)
        elif self._ending.insist_at is not None and now >= self._ending.insist_at:
            self._insist()
        elif self._ending.kill_at is not None and now >= self._ending.kill_at:
            for process in self._processes:
                if process.running:
                    process.kill()

    @property
    def _running(self) -> str:
        return plural(sum(process.running for process in self._processes), "worker")

    def _conclude(self) -> int:
        """Says what it came to; the exit code."""
        self._look()
        if self._cannot_begin:
            for line in self.failure:
                self.say(line[:WIDEST])
            self.say("nothing was trained: starting the script again as it is would not help")
            return FAILED if self._ending is None else self._ending.code
        said, trained = distinct(self._said()), self._trained
        for watched in self.watched.values():
            if watched.finished:
                self._sum_up(watched, said)
            elif watched.begun and trained:
                self.say(f"{watched.run.name} is not finished: {watched.progress}. Started again, it goes on")
        for text in said:
            self._show(print, inert_lines(text), flush=True)
        if self._ending is not None and not (self._ending.code == OUT_OF_TIME and self._finished):
            return self._ending.code
        if any(process.failed for process in self._processes):
            return FAILED
        if not trained and (not self.watched or self.plan.deadline is None):
            self.failure = ["no population was trained: does the script loop over a phyla.Population?"]
            self.say(self.failure[0])
            return FAILED
        return OUT_OF_TIME if self.watched and not self._finished and self.plan.deadline is not None else DONE

    @property
    def _trained(self) -> bool:
        """A worker of this launch has trained something, or nothing was left to train."""
        return any(watched.claimed & self._workers or watched.finished for watched in self.watched.values())

    def _sum_up(self, watched: Watched, said: Sequence[str]) -> None:
        """What a finished run came to: in one line, where the script has printed the best itself."""
        if self._make_screen is None:
            return
        run, best = watched.run, watched.view.best
        whole = best is None or not any(best.checkpoint.file in text for text in said)
        self._show(print, inert_lines(summary(run, whole=whole)), file=sys.stderr, flush=True)
        if watched.claimed & self._workers:
            return
        if watched.view.stopped is not None:
            ways = f"it was stopped; phyla resume {run.name} lets it go on, --fresh begins anew"
        else:
            ways = f"--fresh begins anew, phyla change {run.name} --intervals N goes on"
        self.say(f"nothing was left to do; {ways}")

    def _said(self) -> list[str]:
        """What each worker's script has printed after its loop; all that it has printed, if no run was joined."""
        ended_well = [process for process in self._processes if process.code == 0]
        if not self.watched:
            return ["\n".join(process.lines(None)) for process in ended_well]
        said = (launched.said_after(self._folder, p.pid, p.log(self._log_home(p))) for p in ended_well)
        return [text.strip("\n") for text in said]

    def _tidy(self) -> None:
        for process in self._processes:
            process.end()
        for watched in self.watched.values():
            watched.close()
        if self._ending is not None and self._ending.code == FAILED and not self.watched and not self._cannot_begin:
            self.say(f"all that the workers have printed: {self._folder}")
        else:
            shutil.rmtree(self._folder, ignore_errors=True)


def distinct(texts: Sequence[str]) -> list[str]:
    """Each different text once, and none that is a part of another: most workers print the same, and one may print more."""
    different = list(dict.fromkeys(texts))
    return [text for text in different if text and not any(text in other for other in different if other != text)]


def _same(lines: Sequence[str], others: Sequence[str]) -> bool:
    """Whether two workers have said the same, but for numbers such as process ids and times."""
    return [re.sub(r"\d+|0x[0-9a-f]+", "0", a) for a in lines] == [re.sub(r"\d+|0x[0-9a-f]+", "0", b) for b in others]
