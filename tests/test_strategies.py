"""Every strategy of phyla's, and a few others, against the suite that third parties hold theirs to; and the suite itself."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from broken_strategies import WRONG, PerturbsTheBest
from phyla.checkpoints.memory import MemoryCheckpoints
from phyla.errors import SettingsError
from phyla.record import Record
from phyla.settings import Settings
from phyla.space import Choice, Float, Int, Space
from phyla.strategies.evolve import Evolve
from phyla.strategies.perturb import Perturb
from phyla.strategies.table import EXPLOITS, EXPLORES, STRATEGIES
from phyla.strategies.truncation import Truncation
from phyla.testing import StrategyConformance
from phyla.testing.strategies import RULES, TRAPS, breaches, exempt, subject_of
from phyla.testing.traps import Trial
from phyla.view import View

# phyla's own ----------------------------------------------------------------------------------------------------------

KNOWN: Mapping[str, Mapping[str, Any]] = {
    "IPBT": {"intervals": 10, "sizes": (4, 8, 5), "plays": 6},  # its second round begins late
    "PB2": {"sizes": (4, 8, 1, 3, 12), "plays": 6},  # fits take their time
    "PB2Mix": {"sizes": (4, 8, 1, 3, 12), "plays": 6},
}
"""By class, what the suite is to know of a strategy; see StrategyConformance."""

CASES: dict[str, dict[str, Any]] = {
    f"Test{type(one).__name__}{number}": {kind: one, **KNOWN.get(type(one).__name__, {})}
    for kind, table in (("exploit", EXPLOITS), ("explore", EXPLORES), ("strategy", STRATEGIES))
    for number, one in enumerate(table)
}
globals().update({name: type(name, (StrategyConformance,), known) for name, known in CASES.items()})


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_many_plays(name: str) -> None:
    case: Any = type(name, (StrategyConformance,), {**CASES[name], "plays": 40})
    for trap in TRAPS:
        case().test_trap(Trial(subject_of(case), case.plays), trap)


# Others' --------------------------------------------------------------------------------------------------------------


class TestRandomSearch(StrategyConformance):
    strategy = Evolve(None, Perturb())


class TestLuckySeeds(StrategyConformance):
    strategy = Evolve(Truncation(0.5), None)
    moves = ()


def the_next_better(view: View, member: int, rng: np.random.Generator) -> Record | None:
    ranked = [record for record in view.ranked(member) if record.finite]
    place = [record.id for record in ranked].index(member) if member in [r.id for r in ranked] else len(ranked)
    return ranked[place + 1] if place + 1 < len(ranked) else None


class TestAFunction(StrategyConformance):
    """In a space of its own, and of populations of even size."""

    exploit = the_next_better
    space = {"rate": Float(-2.0, 0.0), "kind": Choice("a", "b", None), "n": Int(0, 3)}  # noqa: RUF012
    sizes = (2, 8)


@dataclass(frozen=True)
class Odd:
    """Works with odd numbers of members only, and does nothing with them."""

    def check(self, space: Space, settings: Settings) -> None:
        if settings.size % 2 == 0:
            raise SettingsError(f"Odd: expected an odd number of members, got {settings.size}")

    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Record | None:
        assert len(view.done) % 2 or view._resized
        return None


class TestOdd(StrategyConformance):
    exploit = Odd()


# The suite ------------------------------------------------------------------------------------------------------------


def trial(kind: str, one: Any, **known: Any) -> Trial:
    case: Any = type("Case", (StrategyConformance,), {kind: one, "sizes": (6, 3, 9, 4, 1), **known})
    return Trial(subject_of(case), plays=10)


def judge(tried: Trial, name: str) -> None:
    """The test of this name, as pytest runs it."""
    case: Any = StrategyConformance()
    (case.test_trap if name in TRAPS else case.test_rule)(tried, name)


@pytest.mark.parametrize(("kind", "one", "broken"), WRONG, ids=[type(one).__name__ for _, one, _ in WRONG])
def test_what_is_wrong_with_a_strategy_is_found(kind: str, one: Any, broken: str) -> None:
    with pytest.raises(AssertionError, match=r"Found \d+ breaches, as in"):
        judge(trial(kind, one), broken.split()[0])


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "one", "broken"), WRONG, ids=[type(one).__name__ for _, one, _ in WRONG])
def test_nothing_else_is_found(kind: str, one: Any, broken: str) -> None:
    tried = trial(kind, one)
    assert {name for name in (*TRAPS, *RULES) if breaches(tried, name)} == set(broken.split())


@dataclass(frozen=True)
class OnPurpose(PerturbsTheBest):
    exempt: ClassVar[Mapping[str, str]] = {
        "T3": "to see what comes of it",
        "T4": "for no reason",
        "T99": "there is none",
    }


def test_an_exemption_holds_for_what_is_broken_and_for_nothing_else() -> None:
    tried = trial("strategy", OnPurpose())
    judge(tried, "T3")
    with pytest.raises(AssertionError, match=r"exempt from T4 \(for no reason\), and nothing breaks it"):
        judge(tried, "T4")
    with pytest.raises(AssertionError, match="T99"):
        StrategyConformance().test_exemptions_are_from_traps(tried)
    with pytest.raises(AssertionError, match="T3: the best member is never perturbed"):
        judge(trial("strategy", PerturbsTheBest()), "T3")


def test_an_exemption_of_a_part_is_one_of_the_whole() -> None:
    @dataclass(frozen=True)
    class Exempt(Truncation):
        exempt: ClassVar[Mapping[str, str]] = {"T6": "why not"}

    assert exempt(Evolve(Exempt(), Perturb())) == {"T6": "why not"}
    assert exempt(Evolve(None, None)) == {}


def test_an_exemption_needs_a_reason() -> None:
    @dataclass(frozen=True)
    class Silent(PerturbsTheBest):
        exempt: ClassVar[Mapping[str, str]] = {"T3": " "}

    with pytest.raises(AssertionError, match="why is it exempt from T3"):
        judge(trial("strategy", Silent()), "T3")


def test_a_case_names_one_thing_and_a_population_that_it_can_work_with() -> None:
    with pytest.raises(AssertionError, match="name one of exploit, explore and strategy"):
        subject_of(StrategyConformance)
    with pytest.raises(AssertionError, match=r"works with none of \(2, 4\) members"):
        judge(trial("exploit", Odd(), sizes=(2, 4)), "T4")


def test_a_third_partys_strategy_is_held_to_it_with_one_line(tmp_path: Path) -> None:
    script = tmp_path / "test_mine.py"
    script.write_text(
        "from phyla.testing import StrategyConformance\n\n"
        "def mine(view, member, rng):\n"
        "    others = [record for record in view.peers(member) if record.id != member and record.finite]\n"
        "    return others[0] if others else None\n\n"
        "class TestMine(StrategyConformance): exploit = mine\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "T4 or T13", str(script)]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert "1 failed, 1 passed" in ended.stdout
    assert "AssertionError: T4: a donor is strictly better in the order (score, member id). Found" in ended.stdout
    assert re.search(
        r"play 0 \(8 members, max, max_lead=.*\), member \d at interval 1: it stands at <member", ended.stdout
    )


# What a strategy cannot break, phyla could: the checks of these traps find that, too


def test_new_values_that_do_not_live_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["phyla.state.load"], "carry", lambda saved, then, now: saved)
    with pytest.raises(AssertionError, match="T2: new values are live"):
        judge(trial("exploit", Truncation(0.5)), "T2")


def test_weights_that_are_not_the_donors_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phyla.checkpoints.Rows.row", lambda rows, saved: None)
    with pytest.raises(AssertionError, match="did not begin with the weights of"):
        judge(trial("exploit", Truncation(0.5)), "T1")


def test_steps_that_are_reset_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    claimed = View._claimed

    def resets(self: View, claim: Any, freed: list[str]) -> None:
        claimed(self, claim, freed)
        if claim.donor is not None:
            self._steps[claim.member] = self.records[claim.donor].total_steps - 1

    monkeypatch.setattr(View, "_claimed", resets)
    with pytest.raises(AssertionError, match="T12: steps and budgets"):
        judge(trial("exploit", Truncation(0.5)), "T12")


def test_a_member_that_is_dropped_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    unfinished = View.unfinished

    def drops(self: View) -> np.ndarray:
        found = unfinished(self)
        found[0] &= self.done[0] < 3
        return found

    monkeypatch.setattr(View, "unfinished", drops)
    with pytest.raises(AssertionError, match="T9: the population"):
        judge(trial("exploit", Truncation(0.5)), "T9")


def test_files_that_go_too_early_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    delete = MemoryCheckpoints.delete

    def careless(self: MemoryCheckpoints, files: Iterable[str]) -> None:
        delete(self, [file.replace("m0-", "m1-") for file in files])

    monkeypatch.setattr(MemoryCheckpoints, "delete", careless)
    with pytest.raises(AssertionError, match="T11: what is decided on is kept"):
        judge(trial("exploit", Truncation(0.5)), "T11")


def test_a_latch_in_the_place_of_ready_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phyla.decide.is_ready", lambda view, member: view.done[member] == 3)
    with pytest.raises(AssertionError, match="T13: `ready` recurs"):
        judge(trial("exploit", Truncation(0.5)), "T13")
