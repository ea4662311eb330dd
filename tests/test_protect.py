"""Protect: some members copy nobody, and all else is as without."""

from __future__ import annotations

import json
from typing import Any

import pytest

import phyla
from drawn import donors, told
from phyla.decide import decide
from phyla.errors import SettingsError
from phyla.settings import Settings
from phyla.space import Float
from phyla.strategies.backtrack import Backtrack
from phyla.strategies.byname import ByName
from phyla.strategies.describe import describe
from phyla.strategies.either import Either
from phyla.strategies.evolve import Evolve
from phyla.strategies.perturb import Gaussian, Perturb
from phyla.strategies.protect import Protect
from phyla.strategies.rebuild import rebuild
from phyla.strategies.resample import Resample
from phyla.strategies.steps import Steps
from phyla.strategies.truncation import Truncation
from phyla.strategies.ttest import TTest

SCORES = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]


@pytest.mark.parametrize("n", range(2, 65))
def test_protected_members_copy_nobody_and_the_others_do_as_without(n: int) -> None:
    story = told([float((7 * m) % n) for m in range(n)])
    plain, protected = Truncation(0.3), Protect(Truncation(0.3), (0, n - 1))
    for m in range(n):
        assert donors(story, m, protected) == ([] if m in (0, n - 1) else donors(story, m, plain))


def test_a_protected_member_may_be_copied() -> None:
    assert donors(told(SCORES), 0, Protect(Truncation(0.25), 7)) == [6, 7]


def test_one_whose_state_is_lost_is_replaced_all_the_same() -> None:
    story = told([float("nan"), *SCORES])
    choice = decide(story.view, 0, Evolve(Protect(Truncation(0.25), 0), Perturb()))
    assert choice.replaced
    assert choice.donor is not None


def test_it_asks_and_keeps_what_the_inner_exploit_does() -> None:
    assert Protect(TTest(), 0).needs_samples
    assert not Protect(Truncation(), 0).needs_samples
    story = told(SCORES)
    inner = Backtrack(Truncation(0.25))
    assert Protect(inner, 0).retain(story.view) == inner.retain(story.view) != set()
    assert Protect(Truncation(), 0).retain is None
    few = Settings(seed=0, space={}, size=5, intervals=9)
    assert Protect(Truncation(0.2), 0).advise({}, few) == Truncation(0.2).advise({}, few) != []


def test_a_member_that_does_not_exist_is_refused_when_the_run_is_created() -> None:
    Protect(Truncation(), (0, 7)).check({}, Settings(seed=0, space={}, size=8, intervals=9))
    known: dict[str, Any] = {"exploit": Protect(Truncation(), (0, 8)), "journal": "memory", "progress": False}
    with pytest.raises(SettingsError, match="there is no member 8; the last of 8 is 7"):
        phyla.Population("p", {"lr": Float(0.0, 1.0)}, 8, 9, **known)


def test_an_inner_exploit_that_cannot_work_is_refused_too() -> None:
    class Picky:
        def __call__(self, view: Any, member: Any, rng: Any) -> None: ...

        def check(self, space: Any, settings: Settings) -> None:
            raise SettingsError("not here")

    for outer in (Protect(Picky(), 0), Backtrack(Picky())):
        with pytest.raises(SettingsError, match="not here"):
            Evolve(outer, None).check({}, Settings(seed=0, space={}, size=8, intervals=9))


def test_values() -> None:
    assert Protect(Truncation()) == Protect(Truncation(), 0) == Protect(Truncation(), [0, 0])
    assert Protect(Truncation(), (3, 1)) == Protect(Truncation(), (1, 3)) != Protect(Truncation(), 1)
    assert hash(Protect(Truncation(), (3, 1))) == hash(Protect(Truncation(), [1, 3]))


NESTED = [
    Evolve(Protect(Truncation(0.25), 0), Perturb()),
    Evolve(Protect(Backtrack(TTest(0.01, k=5)), (2, 5)), Either(Perturb(), Resample(), weights=(0.75, 0.25))),
    Evolve(Backtrack(), ByName({"lr": Gaussian({"lr": 0.1}), "b": Steps(1, 2, levels=5)}, otherwise=None)),
    Evolve(
        Truncation(),
        Either(ByName({"lr": Perturb(0.5, 2.0, resample=0.1)}), Either(Steps(), Gaussian(0.2)), Resample(0.1)),
    ),
]


@pytest.mark.parametrize("strategy", NESTED, ids=repr)
def test_strategies_within_strategies_come_back_from_their_description(strategy: Evolve) -> None:
    assert rebuild(json.loads(json.dumps(describe(strategy)))) == strategy


def test_a_part_of_the_users_own_makes_the_whole_unknown() -> None:
    assert rebuild(describe(Evolve(Protect(test_values, 0), None))) is None  # type: ignore[arg-type]


ERRORS: list[tuple[Any, str]] = [
    (lambda: Protect(Truncation, 0), "Protect: the exploit must be one such as phyla.Truncation(0.2), got <class"),  # type: ignore[arg-type]
    (lambda: Protect(None, 0), "Protect: the exploit must be one such as phyla.Truncation(0.2), got None"),  # type: ignore[arg-type]
    (lambda: Protect(Truncation(), []), "members must be the id of one member, or of several, got none"),
    (lambda: Protect(Truncation(), -1), "Protect: a member must be the id of one, from 0, got -1"),
    (lambda: Protect(Truncation(), "0"), "got '0'"),  # type: ignore[arg-type]
    (lambda: Protect(Truncation(), (0, 1.0)), "got 1.0"),  # type: ignore[arg-type]
    (lambda: Protect(Truncation(), True), "got True"),
]


@pytest.mark.parametrize(("call", "message"), ERRORS, ids=[message[:60] for _, message in ERRORS])
def test_errors_say_what_was_given_and_expected(call: Any, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        call()
    assert message in str(caught.value)
