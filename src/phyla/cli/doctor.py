"""`phyla doctor`: the invariants of a run, checked on its journal and its checkpoints; and what can be mended of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from phyla import host, runs
from phyla.checkpoints import Checkpoints, Tree
from phyla.cli.text import inert, on_terminal, plural, print_json, show, words
from phyla.doctor import Problem, Surroundings, abandoned, examine, kept, orphans
from phyla.errors import JournalError
from phyla.events import Checkpoint, Recorded
from phyla.guidance import at_start, on_diversity
from phyla.runs import Run
from phyla.strategies.contract import Strategy
from phyla.strategies.rebuild import rebuild
from phyla.version import __version__
from phyla.view import View, fold

CHECKS = {
    "I1": "one live claim a member, and no report by an old holder",
    "I2": "every checkpoint that is kept is there, whole",
    "I3": "whatever was copied or trained on had been reported before",
    "I4": "hyperparameters are in effect as they are recorded",
    "I5": "each interval of each member is counted once",
    "I6": "the run can go on, or is finished",
    "I7": "at rest, no file is left that nobody needs",
    "I8": "every decision recomputes from the journal",
}

MANY = 10
"""Problems of one check that are printed on a terminal."""


@dataclass
class Check:
    """One invariant: what it says, what was found against it, and why it could not be checked, if it could not.

    note: what is no problem, and good to know.
    """

    invariant: str
    says: str
    problems: list[Problem] = field(default_factory=list)
    unchecked: str | None = None
    note: str | None = None

    @property
    def result(self) -> str:
        return "problems" if self.problems else "not checked" if self.unchecked else "ok"


def doctor(run: str, *, repair: bool = False, dry_run: bool = False, json: bool) -> int:
    """Prints each check, after what was mended; 1 if one has found a problem."""
    opened = runs.open(run)
    mended: list[str] = []
    if repair:
        from phyla.cli.repair import mend

        for line in mend(run, dry=dry_run):
            mended.append(line)
            if not json:
                print(inert(line))
        if not json:
            print("nothing to repair\n" if not mended else "")
    events = [Recorded(position, event) for position, event in enumerate(opened.events(), 1)]
    checks, total = diagnose(opened, events)
    failed = any(check.problems for check in checks)
    advice = _advice(events)
    if json:
        found = {"path": str(opened.path), "events": len(events), "ok": not failed, "repaired": mended}
        print_json({**found, "checks": [_as_json(check) for check in checks], "advice": advice})
    else:
        _show(opened, len(events), total, checks)
        for said in advice:
            print(f"  note: {inert(said)}")
    return 1 if failed else 0


def _advice(events: Sequence[Recorded]) -> list[str]:
    """What is no fault, and seldom works well."""
    try:
        view = fold(events)
    except JournalError:
        return []
    if view.created is None:
        return []
    return [*at_start(view.settings, view.space, rebuild(view.settings.strategy)), *on_diversity(view)]


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
    else:
        strategy = rebuild(view.settings.strategy)
        if strategy is None:
            checks["I8"].unchecked = "the strategy is the user's own"
        elif view.created.version != __version__:
            strategy = None
            checks["I8"].unchecked = f"the run was begun by phyla {view.created.version}, and this is {__version__}"
    total = len(kept(view))
    store, around, unchecked = _Shown(run, total), surroundings(run), dict[str, str]()
    for problem in examine(events, cast(Checkpoints, store), strategy, around, unchecked):
        checks.setdefault(problem.invariant, Check(problem.invariant, "")).problems.append(problem)
    store.done()
    for invariant, why in unchecked.items():
        checks[invariant].unchecked = why
    if view.created is not None:
        checks["I6"].note = _standing_still(view, around)
        if not checks["I7"].problems and (spare := orphans(events, run.checkpoints.files(), strategy)):
            checks[
                "I7"
            ].note = f"nobody needs {plural(len(spare), 'file')}: a worker deletes such as it goes on, or phyla gc"
    return list(checks.values()), total


def surroundings(run: Run) -> Surroundings:
    """What this machine knows of a run."""

    def read(after: int) -> list[Recorded]:
        return [Recorded(place, event) for place, event in enumerate(run.events(), 1) if place > after]

    return Surroundings(time.time(), host.is_gone, runs.load_origin, read)


def _standing_still(view: View, around: Surroundings) -> str | None:
    """Why nobody trains a member that is not finished, where that is as it should be."""
    if view.finished:
        return None
    if view.paused:
        return "it is paused: phyla resume lets it go on"
    if left := abandoned(view, around.gone):
        held = plural(len(left), "claim")
        return f"{held} of processes that are gone: whoever starts the script next takes over, or --repair frees them"
    return None


class _Shown:
    """The run's checkpoints; says how far their reader is."""

    def __init__(self, run: Run, total: int):
        self._run = run
        self._total = total
        self._count = 0
        self._next = time.monotonic() + 0.5
        self._width = 0

    def load(self, checkpoint: Checkpoint) -> Tree:
        self._count += 1
        self._say(f"reading checkpoint {self._count} of {self._total}")
        return self._run.checkpoints.load(checkpoint)

    def files(self) -> list[str]:
        return self._run.checkpoints.files()

    def _say(self, line: str) -> None:
        now = time.monotonic()
        if sys.stderr.isatty() and now >= self._next:
            self._next = now + 0.1
            self._width = max(self._width, len(line))
            print(f"\r{line.ljust(self._width)}", end="", file=sys.stderr, flush=True)

    def done(self) -> None:
        if self._width:
            print(f"\r{' ' * self._width}\r", end="", file=sys.stderr, flush=True)


def _show(run: Run, events: int, total: int, checks: Sequence[Check]) -> None:
    what = f"  {plural(events, 'event')}, {plural(total, 'checkpoint')} kept"
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
        if check.note:
            print(f"      {inert(check.note)}")
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
        "note": check.note,
        "problems": [{"where": p.where, "what": p.what, "advice": p.advice} for p in check.problems],
    }
