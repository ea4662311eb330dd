"""`phyla doctor`: the invariants of a run, checked on its journal and its checkpoints."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from phyla import runs
from phyla.checkpoints import Checkpoints, Tree
from phyla.cli.text import inert, on_terminal, plural, print_json, show, words
from phyla.doctor import Problem, examine
from phyla.errors import CheckpointError, JournalError
from phyla.events import Checkpoint, Recorded
from phyla.runs import Run
from phyla.strategies.contract import Strategy
from phyla.strategies.rebuild import rebuild
from phyla.version import __version__
from phyla.view import View, fold

CHECKS = {
    "I1": "one live claim a member, and no report by an old holder",
    "I2": "every checkpoint that is kept is there, whole",
    "I3": "whatever was copied or trained on had been reported before",
    "I5": "each interval of each member is counted once",
    "I8": "every decision recomputes from the journal",
}

MANY = 10
"""Problems of one check that are printed on a terminal."""


@dataclass
class Check:
    """One invariant: what it says, what was found against it, and why it could not be checked, if it could not."""

    invariant: str
    says: str
    problems: list[Problem] = field(default_factory=list)
    unchecked: str | None = None

    @property
    def result(self) -> str:
        return "problems" if self.problems else "not checked" if self.unchecked else "ok"


def doctor(run: str, *, json: bool) -> int:
    """Prints each check; 1 if one has found a problem."""
    opened = runs.open(run)
    events = [Recorded(position, event) for position, event in enumerate(opened.events(), 1)]
    checks, kept = diagnose(opened, events)
    failed = any(check.problems for check in checks)
    if json:
        print_json(
            {"path": str(opened.path), "events": len(events), "ok": not failed, "checks": [_as_json(c) for c in checks]}
        )
    else:
        _show(opened, len(events), kept, checks)
    return 1 if failed else 0


def diagnose(run: Run, events: Sequence[Recorded]) -> tuple[list[Check], int]:
    """Every check of a run, and how many checkpoint files it keeps."""
    checks = {invariant: Check(invariant, says) for invariant, says in CHECKS.items()}
    try:
        view = fold(events)
    except JournalError:
        view = View()
    strategy: Strategy | None = None
    if view.created is None:
        for check in checks.values():
            check.unchecked = None if check.invariant == "I1" else "the journal cannot be followed (I1)"
    elif view.created.version != __version__:
        checks["I8"].unchecked = f"the run was begun by phyla {view.created.version}, and this is {__version__}"
    elif (strategy := rebuild(view.settings.strategy)) is None:
        checks["I8"].unchecked = "the strategy is the user's own"
    files = {record.checkpoint.file for record in view.records.values() if not record.freed and not record.void}
    store = _Kept(run, len(files))
    for problem in examine(events, cast(Checkpoints, store), strategy):
        checks.setdefault(problem.invariant, Check(problem.invariant, "")).problems.append(problem)
    store.done()
    return list(checks.values()), len(files)


class _Kept:
    """The run's checkpoints, each read once; says how far it is. A run may go on meanwhile: what it has released since is
    no problem."""

    def __init__(self, run: Run, total: int):
        self._run = run
        self._whole: set[Checkpoint] = set()
        self._total = total
        self._next = time.monotonic() + 0.5
        self._width = 0

    def load(self, checkpoint: Checkpoint) -> Tree:
        file = Checkpoint(checkpoint.file, checkpoint.digest, checkpoint.size)
        if file in self._whole:  # a cohort's members share one
            return None
        self._say(f"reading checkpoint {len(self._whole) + 1} of {self._total}")
        try:
            self._run.checkpoints.load(checkpoint)
        except CheckpointError:
            if self._needed(checkpoint.file):
                raise
        self._whole.add(file)
        return None

    def _needed(self, file: str) -> bool:
        """Whether the journal still names it: a file goes only after the event that releases it."""
        records = self._run.view.records.values()
        return any(r.checkpoint.file == file and not r.freed and not r.void for r in records)

    def _say(self, line: str) -> None:
        now = time.monotonic()
        if sys.stderr.isatty() and now >= self._next:
            self._next = now + 0.1
            self._width = max(self._width, len(line))
            print(f"\r{line.ljust(self._width)}", end="", file=sys.stderr, flush=True)

    def done(self) -> None:
        if self._width:
            print(f"\r{' ' * self._width}\r", end="", file=sys.stderr, flush=True)


def _show(run: Run, events: int, kept: int, checks: Sequence[Check]) -> None:
    what = f"  {plural(events, 'event')}, {plural(kept, 'checkpoint')} kept"
    show(words((str(run.path), "bold"), (what, "")), "")  # its name may not be readable
    width = max(len(check.says) for check in checks)
    why: str | None = None
    for check in checks:
        result = {"ok": ("ok", "green"), "not checked": ("not checkable", "yellow")}.get(check.result)
        result = result or (plural(len(check.problems), "problem"), "bold red")
        show(words((f"  {check.invariant}  {check.says.ljust(width)}  ", ""), result))
        if check.unchecked and check.unchecked != why:  # once for all that share it
            print(f"      {inert(check.unchecked)}")
        why = check.unchecked
        _show_problems(check.problems)


def _show_problems(problems: Sequence[Problem]) -> None:
    shown = problems[:MANY] if on_terminal() else problems
    for problem in shown:
        print(f"      {inert(problem.where)}: {inert(problem.what)}")
    if len(problems) > len(shown):
        print(f"      … and {len(problems) - len(shown):,} more: --json lists them all")
    for advice in dict.fromkeys(problem.advice for problem in problems):
        print(f"      {inert(advice)}")


def _as_json(check: Check) -> dict[str, Any]:
    return {
        "invariant": check.invariant,
        "says": check.says,
        "result": check.result,
        "why": check.unchecked,
        "problems": [{"where": p.where, "what": p.what, "advice": p.advice} for p in check.problems],
    }
