"""Strategies that cannot work, and strategies that fail: what is said, to whom, and that the run goes on."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import phyla
from phyla.decide import FAILED
from phyla.doctor import Problem, examine
from phyla.events import Claimed, Recorded, Ref
from phyla.record import Record
from phyla.settings import Settings
from phyla.space import Hypers, Space
from phyla.strategies.contract import Decision
from phyla.view import View

SPACE = {"lr": phyla.Float(1e-3, 1.0, log=True), "act": phyla.Choice("relu", "tanh")}
SIZE, INTERVALS = 4, 5
PBT = phyla.Evolve(phyla.Truncation(0.5), phyla.Perturb())


def make(**options: Any) -> phyla.Population:
    known = {"size": SIZE, "intervals": INTERVALS, "journal": "memory", "progress": False, "seed": 0, "max_lead": 0}
    return phyla.Population("bad", SPACE, **{**known, **options})


def train(population: phyla.Population, score: Callable[[Any], Any] = lambda member: float(member.id)) -> None:
    for member in population:
        member.report(score(member), {"interval": member.interval})


def claims(population: phyla.Population) -> list[Claimed]:
    return [event for event in population.run.events() if isinstance(event, Claimed)]


def problems(population: phyla.Population, strategy: Any) -> list[Problem]:
    events = [Recorded(n, event) for n, event in enumerate(population.run.events(), 1)]
    return list(examine(events, population.run.checkpoints, strategy))


def failures(population: phyla.Population) -> list[Claimed]:
    return [claim for claim in claims(population) if claim.notes and FAILED in claim.notes]


# Strategies that fail -------------------------------------------------------------------------------------------------


def failing_exploit(view: View, member: int, rng: np.random.Generator) -> Record | None:
    if member == 2 and view.done[member] == 3:
        raise ZeroDivisionError("no peers to divide by")
    return phyla.Truncation(0.5)(view, member, rng)


def failing_explore(hypers: Hypers, space: Space, view: View, member: int, rng: np.random.Generator) -> Hypers:
    return {**hypers, "lr": hypers["learning_rate"]}


@dataclass(frozen=True)
class Failing:
    """Every decision and every rescue of these members fails."""

    members: tuple[int, ...] = (0, 1, 2, 3)

    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Decision:
        if member in self.members:
            raise RuntimeError(f"nothing for member {member}")
        return PBT(view, member, rng)

    def rescue(self, view: View, member: int, rng: np.random.Generator) -> Decision:
        if member in self.members:
            raise LookupError("no rescue")
        return PBT.rescue(view, member, rng)


def test_an_exploit_that_fails_once_is_named_with_member_and_event_and_the_turn_goes_on_without(caplog: Any) -> None:
    population = make(exploit=failing_exploit)
    with caplog.at_level(logging.WARNING, "phyla"):
        train(population)
    (failed,) = failures(population)
    assert (failed.member, failed.interval, failed.donor, failed.ready, failed.replaced) == (2, 4, None, True, False)
    assert failed.source is not None
    assert failed.source.member == 2
    assert failed.hypers == next(r for r in population.view.history[2] if r.ref == failed.source).hypers
    said = [message for message in caplog.messages if "failed" in message]
    assert said == [f"{failed.notes[FAILED]}. The member goes on without an exploit" if failed.notes else ""]
    pattern = (
        r"Evolve\(exploit=<function failing_exploit>, explore=Perturb\(0.8, 1.2\), inherit='both'\) failed for member 2, "
        r"interval 4 \(after event (\d+) of the member\): ZeroDivisionError: no peers to divide by "
        r"\(test_bad_strategies.py, line \d+, in failing_exploit\)\. The member goes on without an exploit"
    )
    found = re.fullmatch(pattern, said[0])
    assert found is not None, said[0]
    assert int(found[1]) == failed.seq - 1


@pytest.mark.parametrize(
    "how",
    [{"exploit": failing_exploit}, {"explore": failing_explore}, {"strategy": Failing()}, {"strategy": Failing((1,))}],
    ids=["exploit", "explore", "strategy", "one member's"],
)
@pytest.mark.parametrize("lead", [0, None])
def test_a_run_whose_strategy_fails_ends_as_any_other_and_its_decisions_recompute(how: Any, lead: Any) -> None:
    population = make(**how, max_lead=lead)
    train(population)
    assert population.view.finished
    assert population.view.done.tolist() == [INTERVALS] * SIZE
    assert not any(population.view.fails)
    assert failures(population)
    strategy = how.get("strategy") or phyla.Evolve(
        how.get("exploit", phyla.Truncation(0.2)), how.get("explore", phyla.Perturb(0.8, 1.2))
    )
    assert problems(population, strategy) == []


def test_who_does_not_fail_goes_on_exploiting() -> None:
    population = make(strategy=Failing((1,)))
    train(population)
    assert {claim.member for claim in failures(population)} == {1}
    assert [claim.donor is not None for claim in claims(population) if claim.member == 0].count(True) == INTERVALS - 1


def test_a_strategy_that_always_fails_is_random_search() -> None:
    population = make(strategy=Failing())
    train(population)
    assert len(failures(population)) == SIZE * (INTERVALS - 1)
    assert all(claim.donor is None for claim in claims(population))
    first = {claim.member: claim.hypers for claim in claims(population) if claim.interval == 1}
    assert all(claim.hypers == first[claim.member] for claim in claims(population))


def test_a_rescue_that_fails_leaves_the_member_to_the_usual_one(caplog: Any) -> None:
    population = make(strategy=Failing((3,)))
    with caplog.at_level(logging.WARNING, "phyla"):
        train(population, lambda member: math.nan if (member.id, member.interval) == (3, 2) else float(member.id))
    replaced = [claim for claim in failures(population) if claim.replaced]
    assert [(claim.member, claim.interval) for claim in replaced] == [(3, 3)]
    assert replaced[0].donor is not None
    assert population.view.records[replaced[0].donor].finite
    (said,) = (message for message in caplog.messages if "rescue" in message)
    assert said.startswith("Failing.rescue failed for member 3, interval 3 ")
    assert "LookupError: no rescue" in said
    assert said.endswith("The member is replaced by the usual rule")
    assert problems(population, Failing((3,))) == []


def test_what_differs_between_two_processes_in_an_error_is_no_other_decision() -> None:
    """Addresses, times, paths: the journal holds those of the process that decided."""

    def differently(view: View, member: int, rng: np.random.Generator) -> Decision:
        raise RuntimeError(f"at {view!r}, {next(counter)}")

    counter = iter(range(10_000))
    population = make(strategy=differently)
    train(population)
    assert len({claim.notes[FAILED] for claim in failures(population) if claim.notes}) == SIZE * (INTERVALS - 1)
    assert problems(population, differently) == []


def test_a_strategy_that_failed_then_and_not_now_is_another_decision() -> None:
    population = make(exploit=failing_exploit)
    train(population)
    found = problems(population, phyla.Evolve(phyla.Truncation(0.5), phyla.Perturb(0.8, 1.2)))
    assert [problem.invariant for problem in found] == ["I8"]
    assert "ZeroDivisionError" in found[0].what


def test_a_value_that_no_hyperparameter_can_take_is_a_failure_of_the_strategy(caplog: Any) -> None:
    @dataclass(frozen=True)
    class Diverges:
        def __call__(self, hypers: Hypers, space: Space, view: View, member: int, rng: np.random.Generator) -> Hypers:
            return {**hypers, "lr": hypers["lr"] * math.nan, "act": "tanh"}

    population = make(exploit=phyla.Truncation(0.5), explore=Diverges())
    with caplog.at_level(logging.WARNING, "phyla"):
        train(population)
    assert population.view.finished
    assert all(claim.donor is None for claim in claims(population))
    assert len(failures(population)) == 2 * (INTERVALS - 1)
    assert "ValueError: lr: Float(0.001, 1.0, log=True): expected a number, got nan" in caplog.text


def test_it_is_not_for_a_strategy_to_end_the_process() -> None:
    def stops(view: View, member: int, rng: np.random.Generator) -> Decision:
        raise KeyboardInterrupt

    population = make(strategy=stops)
    with pytest.raises(KeyboardInterrupt):
        train(population)
    assert not population.view.busy.any()


# Strategies that cannot work ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Groups:
    """A user's own, which needs members for its groups, and a hyperparameter of this name."""

    groups: int
    name: str = "lr"

    def check(self, space: Space, settings: Settings) -> None:
        if self.name not in space:
            raise phyla.SettingsError(f"Groups: {self.name!r} is not among {sorted(space)}")
        if settings.size < self.groups:
            raise phyla.SettingsError(f"Groups: {self.groups} groups need {self.groups} members, got {settings.size}")

    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Record | None:
        return None


CANNOT_WORK: list[tuple[dict[str, Any], str]] = [
    # a hyperparameter that the space does not have
    ({"explore": phyla.Gaussian({"rate": 0.1})}, "Gaussian: sigma names 'rate'; the space has 'lr', 'act'"),
    ({"explore": phyla.ByName({"rate": phyla.Perturb()})}, "ByName: it names 'rate'; the space has 'lr', 'act'"),
    ({"explore": phyla.Either(phyla.Perturb(), phyla.Gaussian({"rate": 0.1}))}, "Gaussian: sigma names 'rate'"),
    ({"exploit": Groups(2, "dropout")}, r"Groups: 'dropout' is not among \['act', 'lr'\]"),
    # fewer members than groups
    ({"exploit": Groups(5)}, "5 groups need 5 members, got 4"),
    ({"strategy": phyla.MFPBT((1, 10))}, "MFPBT: 2 frequencies make 2 equal sub-populations .* got 4"),
    ({"strategy": phyla.FIRE()}, "FIRE: 4 members are .*; it needs 2 of each or more. A size of 6 gives"),
    ({"strategy": phyla.IPBT(), "size": 3}, "IPBT needs 4 members or more, got size=3"),
    ({"exploit": phyla.Protect(phyla.Truncation(0.2), 4)}, "there is no member 4; the last of 4 is 3"),
    # what a score is
    (
        {"strategy": phyla.MOPBT({"a": "max", "b": "min"})},
        "the score must be one of the objectives, which are 'a', 'b'",
    ),
    # no strategies
    ({"exploit": phyla.Truncation}, "exploit=Truncation is a class; expected one of its instances"),
    ({"exploit": 0.2}, r"exploit=0.2; expected a strategy such as phyla.Truncation\(0.2\)"),
    ({"explore": phyla.Truncation(0.2)}, "explore=.*cannot be called as"),
]


@pytest.mark.parametrize(("options", "message"), CANNOT_WORK)
def test_what_cannot_work_is_said_before_anything_is_trained(options: Any, message: str) -> None:
    with pytest.raises(phyla.SettingsError, match=message):
        make(**options)


@pytest.mark.parametrize("decision", [None, "copy", {"lr": 0.1}])
def test_a_strategy_that_gives_no_decision_ends_the_loop_and_says_what_was_expected(decision: Any) -> None:
    def strategy(view: View, member: int, rng: np.random.Generator) -> Any:
        return decision

    population = make(strategy=strategy)
    with pytest.raises(phyla.SettingsError, match=f"gave {re.escape(repr(decision))}; expected a Decision"):
        train(population)
    assert population.view.done.tolist() == [1] * SIZE
    assert not population.view.busy.any()


# Strategies that compare samples --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "how",
    [
        {"exploit": phyla.TTest()},
        {"exploit": phyla.Backtrack(phyla.TTest())},
        {"exploit": phyla.Protect(phyla.TTest(), 0)},
        {"strategy": phyla.IPBT(phyla.Evolve(phyla.TTest(), phyla.Perturb()))},
    ],
    ids=["TTest", "Backtrack", "Protect", "IPBT"],
)
def test_a_number_where_samples_are_compared_is_refused_with_what_was_given_expected_and_to_do(how: Any) -> None:
    population = make(**how)
    member = population.claim()
    assert member is not None
    with pytest.raises(phyla.ScoreError) as caught:
        member.report(0.5, {"w": np.zeros(2)})
    assert "given the number 0.5, but the run's strategy compares samples" in str(caught.value)
    assert "expected this interval's as a sequence" in str(caught.value)
    assert "phyla.Truncation(0.2)" in str(caught.value)
    member.report([0.25, 0.75], {"w": np.zeros(2)})
    record = population.view.newest(member.id)
    assert record is not None
    assert (record.score, record.samples) == (0.5, [0.25, 0.75])


@pytest.mark.parametrize("score", [math.nan, None, [], [1.0, math.nan]])
def test_who_has_diverged_or_has_no_score_yet_needs_no_samples(score: Any) -> None:
    population = make(exploit=phyla.TTest(), size=1, intervals=1)
    train(population, lambda member: score)
    assert population.view.finished


def test_a_dict_of_scores_may_hold_the_samples() -> None:
    population = make(exploit=phyla.TTest(), metric="return", size=1, intervals=1)
    train(population, lambda member: {"return": np.array([1.0, 3.0]), "length": 7})
    assert population.best is not None
    assert (population.best.score, population.best.samples) == (2.0, [1.0, 3.0])


def test_samples_of_weights_that_were_shrunk_count_no_more() -> None:
    def shrinks(view: View, member: int, rng: np.random.Generator) -> Decision:
        own = view.restorable(member)
        assert own is not None
        return Decision(phyla.Mix(own, 0.5, 0.5) if own.interval == 2 else phyla.KEEP, own.hypers)

    population = make(strategy=shrinks, size=1, intervals=4)
    for member in population:
        state = member.state(lambda newborn: {"w": np.zeros(2), **newborn})
        state["w"] = state["w"] + member.interval
        member.report([float(member.interval)] * 2, state)
    assert [record.score for record in population.view.history[0]] == [1.0, 1.5, 3.0, 3.5]


# What is retained -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Keeps:
    """Names each member's first report; but after so many reports it fails."""

    until: int

    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Record | None:
        return None

    def retain(self, view: View) -> set[Ref]:
        if len(view.records) > self.until:
            raise KeyError("which member?")
        return {history[0].ref for history in view.history if history}


def test_a_retain_that_fails_lets_nothing_go_and_is_said_once() -> None:
    population = make(exploit=Keeps(6))
    with pytest.warns(phyla.PhylaWarning, match="retain.view. failed: KeyError: 'which member\\?'") as caught:
        train(population)
    assert len([w for w in caught if "retain" in str(w.message)]) == 1
    assert population.view.finished
    kept = [[r.interval for r in population.view.records.values() if r.id == m and r.available] for m in range(SIZE)]
    assert kept == [[1, 4, 5]] * SIZE
    assert problems(population, phyla.Evolve(Keeps(6), phyla.Perturb(0.8, 1.2))) == []


def test_a_retain_that_names_what_there_is_not_is_not_heard() -> None:
    @dataclass(frozen=True)
    class Invents(Keeps):
        def retain(self, view: View) -> set[Ref]:
            return {Ref(0, 3), Ref(0, 99), Ref(77, 1)}

    population = make(exploit=Invents(0))
    train(population)
    assert population.view.finished
    assert [r.interval for r in population.view.records.values() if r.id == 0 and r.available] == [1, 4, 5]
