"""What every strategy must do: the traps of Population Based Training, and what phyla asks beside them.

    class TestMine(StrategyConformance):
        exploit = MyExploit()           # or explore=, or a whole strategy=

A strategy that breaks a trap on purpose says so itself, with the reason: `exempt = {"T3": "restarts shrink the best, too"}`
(in a dataclass a ClassVar, so that it is no part of what a run is identified by). Nothing is skipped for it: the test then
asserts that it does break that trap, so an exemption that nothing needs fails.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import pytest

from phyla.space import Space
from phyla.strategies.evolve import Evolve
from phyla.strategies.perturb import Perturb
from phyla.strategies.truncation import Truncation
from phyla.testing import judges, traps
from phyla.testing.judges import Found, Judge
from phyla.testing.plays import SIZES, SPACE, Subject
from phyla.testing.traps import Trial

Check: TypeAlias = Callable[[Trial], "Sequence[str]"]


def _judged(judge: Judge) -> Check:
    return lambda trial: trial.judged.wrong[judge]


def _through(runs: Callable[[Trial], Found]) -> Check:
    return lambda trial: list(runs(trial))


def _simulated(name: str) -> Check:
    return lambda trial: trial.simulated[name]


def _trained(name: str) -> Check:
    return lambda trial: trial.trained[name]


TRAPS: Mapping[str, tuple[str, Sequence[Check]]] = {
    "T1": (
        "a clone has the donor's weights, and hyperparameters that come from the donor's",
        (
            _judged(judges.goes_on_with_the_donors_weights),
            _through(traps.hypers_come_from_the_donor),
            _trained("weights"),
        ),
    ),
    "T2": ("new values are live after the restore", (_trained("live"),)),
    "T3": ("the best member is never perturbed or dropped", (_judged(judges.leaves_the_best_alone),)),
    "T4": (
        "a donor is strictly better in the order (score, member id)",
        (_judged(judges.copies_only_what_is_better),),
    ),
    "T5": (
        "scores that are not finite rank worst under both modes; if none is finite, nothing is copied",
        (
            _judged(judges.copies_only_what_is_finite),
            _through(traps.ranks_alike_under_both_modes),
            _through(traps.where_all_have_diverged_nobody_copies),
        ),
    ),
    "T6": ("groups are disjoint, and of the stated size", (_through(traps.groups_are_disjoint),)),
    "T7": (
        "perturbations are independent, in bounds and in type, and leave every value",
        (
            _judged(judges.stays_in_the_space),
            _through(traps.perturbations_are_independent),
            _through(traps.all_that_moves_can_leave_any_value),
        ),
    ),
    "T8": ("after a kill between any two writes, the decisions are the same", (_simulated("kills"),)),
    "T9": ("the population has as many members as it should", (_simulated("size"), _trained("size"))),
    "T10": ("scores are compared at equal progress", (_judged(judges.looks_no_further_than_its_own_progress),)),
    "T11": (
        "what is decided on is kept until it is copied",
        (_judged(judges.decides_on_what_is_kept), _judged(judges.retains_what_there_is), _simulated("files")),
    ),
    "T12": ("steps and budgets are never reset", (_simulated("steps"), _trained("steps"))),
    "T13": ("`ready` recurs, and begins anew after a copy", (_through(traps.ready_recurs),)),
}
"""By number, what must hold, and how that is checked."""

RULES: Mapping[str, tuple[str, Sequence[Check]]] = {
    "raises": (
        "it raises nothing, whatever the run has come to",
        (_judged(judges.raises_nothing), _simulated("raises"), _trained("raises")),
    ),
    "pure": (
        "the same view and generator give the same decision, and nothing else is changed",
        (_judged(judges.draws_from_its_own_generator_only), _through(traps.only_reads_the_view)),
    ),
    "notes": ("notes are JSON", (_judged(judges.takes_notes_in_json),)),
    "names": (
        "the order in which hyperparameters are named changes nothing",
        (_through(traps.names_in_any_order),),
    ),
    "description": ("it is described by plain JSON", (_through(traps.is_described_by_plain_json),)),
    "recomputes": (
        "the journal gives every decision again",
        (_simulated("recomputes"), _trained("recomputes")),
    ),
}
"""What phyla asks of a strategy beside the traps."""


class StrategyConformance:
    """Subclass it as Test…, and name one of `exploit`, `explore` and `strategy`.

    space: what is searched. sizes: of the populations that it is tried in; those that its `check` refuses are left out.
    moves: the names of what it may change after a copy; None: all that is not structural. metrics: the names of numbers
    that it needs in reports, beside the score. intervals: that members train, about, in each run. plays: the runs that it
    decides; fewer are faster.
    """

    exploit: Any = None
    explore: Any = None
    strategy: Any = None
    space: Space = SPACE
    sizes: Sequence[int] = SIZES
    moves: Sequence[str] | None = None
    metrics: Sequence[str] = ()
    intervals: int = 5
    plays: int = 10

    @pytest.fixture
    def trial(self) -> Trial:
        case: Any = type(self)
        return _trial(case)

    @pytest.mark.parametrize("trap", TRAPS)
    def test_trap(self, trial: Trial, trap: str) -> None:
        found, reason = breaches(trial, trap), exempt(trial.subject.strategy).get(trap)
        if reason is None:
            assert not found, _shown(trap, TRAPS[trap][0], found)
        else:
            assert reason.strip(), f"why is it exempt from {trap}?"
            assert found, f"it is exempt from {trap} ({reason}), and nothing breaks it: take that exemption away"

    @pytest.mark.parametrize("rule", RULES)
    def test_rule(self, trial: Trial, rule: str) -> None:
        found = breaches(trial, rule)
        assert not found, _shown(rule, RULES[rule][0], found)

    def test_exemptions_are_from_traps(self, trial: Trial) -> None:
        assert exempt(trial.subject.strategy).keys() <= TRAPS.keys()


def _shown(name: str, what: str, found: Sequence[str]) -> str:
    return f"{name}: {what}. Found {len(found)} breaches, as in\n" + "\n".join(found[:5])


def breaches(trial: Trial, name: str) -> list[str]:
    """All that was found against a trap or a rule."""
    _, checks = {**TRAPS, **RULES}[name]
    return [found for check in checks for found in check(trial)]


def exempt(strategy: Any) -> Mapping[str, str]:
    """The traps that a strategy, or a part of it, breaks on purpose, each with the reason."""
    parts = (strategy.exploit, strategy.explore) if isinstance(strategy, Evolve) else ()
    return {trap: why for part in (strategy, *parts) for trap, why in getattr(part, "exempt", {}).items()}


def subject_of(case: type[StrategyConformance]) -> Subject:
    """What a test case puts on trial; a part is made a whole by what is usual for the other one."""
    parts = {name: inspect.getattr_static(case, name) for name in ("exploit", "explore", "strategy")}
    given = {name: part for name, part in parts.items() if part is not None}
    assert len(given) == 1, f"{case.__name__} names {sorted(given)}: name one of exploit, explore and strategy"
    ((name, part),) = given.items()
    whole = {"exploit": lambda: Evolve(part, Perturb()), "explore": lambda: Evolve(Truncation(0.25), part)}
    free = [name for name, h in case.space.items() if not h.structural]
    moves = free if case.moves is None else case.moves
    strategy = whole[name]() if name in whole else part
    return Subject(strategy, case.space, tuple(case.sizes), tuple(case.metrics), tuple(moves), case.intervals)


@lru_cache(maxsize=1)  # all tests of a class share what is found in it
def _trial(case: type[StrategyConformance]) -> Trial:
    return Trial(subject_of(case), case.plays)
