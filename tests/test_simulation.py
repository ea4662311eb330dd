"""The real worker code under every kind of bad luck: hundreds of seeds, no violated invariant, the same outcome (T8, T14).

A failure prints the seed; `Simulation(seed, …).run()` brings it back.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from phyla import steer
from phyla.checkpoints import Tree
from phyla.checkpoints.memory import MemoryCheckpoints
from phyla.doctor import Problem, examine
from phyla.errors import JournalError, SettingsError
from phyla.events import RUN, Checkpoint, Claimed, Event, Failed, Recorded, Ref, Reported, encode
from phyla.strategies.contract import Strategy
from phyla.strategies.evolve import Evolve
from phyla.strategies.perturb import Perturb
from phyla.strategies.truncation import Truncation
from phyla.testing.simulation import Faults, Simulation, outcome
from phyla.view import View, fold
from phyla.worker import Claim, Outcome, Steps, Worker

STRATEGIES: dict[str, Strategy] = {
    inherit: Evolve(Truncation(0.5), Perturb(), inherit)  # type: ignore[arg-type]
    for inherit in ("both", "weights", "hypers")
} | {"random search": Evolve(None, Perturb())}


def simulate(seed: int, **known: Any) -> Simulation:
    """A run that must end well."""
    simulation = Simulation(seed, **{"workers": 2 + seed % 31, **known})
    problems = simulation.run()
    assert not problems, f"seed {seed}: {problems[0]} ({len(problems)} problems)"
    return simulation


@functools.cache
def undisturbed(settings: tuple[tuple[str, Any], ...] = ()) -> dict[tuple[int, int], tuple[Any, ...]]:
    """What one worker comes to whom nothing happens."""
    return outcome(simulate(0, workers=1, faults=Faults.none(), **dict(settings)).view)


def same_as_undisturbed(seeds: range, faults: Faults | None = None, **known: Any) -> None:
    for seed in seeds:
        simulation = simulate(seed, faults=faults or Faults(), **known)
        assert outcome(simulation.view) == undisturbed(tuple(known.items())), f"seed {seed}: another outcome"


def chunks(seeds: int, size: int) -> list[range]:
    return [range(first, first + size) for first in range(0, seeds, size)]


def folded(events: Sequence[Recorded], key: str) -> int:
    """In how many places of a journal the view says something after an event."""
    view, count = View(), 0
    for recorded in events:
        view.fold(recorded)
        if key == "late" and isinstance(recorded.event, Claimed):
            count += view.late[recorded.event.member]
        if key == "repeat" and isinstance(recorded.event, Failed):
            count += view.repeat[recorded.event.member] is not None
    return count


# Sameness -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "seeds",
    [pytest.param(seeds, marks=pytest.mark.slow) if seeds[0] >= 50 else seeds for seeds in chunks(300, 25)],
    ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}",
)
def test_two_to_32_workers_under_bad_luck_decide_and_train_the_same_as_one_undisturbed(seeds: range) -> None:
    same_as_undisturbed(seeds)


@pytest.mark.parametrize("diverges", [1, 2, 5])
def test_the_same_members_are_replaced_by_the_same_donors_when_states_diverge(diverges: int) -> None:
    same_as_undisturbed(range(8), diverges=diverges, members=5, intervals=5)
    rows = undisturbed((("diverges", diverges), ("members", 5), ("intervals", 5))).values()
    assert any(score == "nan" for _, score, *_ in rows)


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_outcome_is_the_same_whatever_is_inherited(name: str) -> None:
    same_as_undisturbed(range(8), strategy=STRATEGIES[name], diverges=9)


def test_the_outcome_is_the_same_with_a_burn_in_and_rare_chances_to_exploit() -> None:
    same_as_undisturbed(range(100, 108), ready=2, intervals=9)


def test_cohorts_that_train_spans_come_to_the_same() -> None:
    same_as_undisturbed(range(12), cohort=3, span=2, ready=2)
    same_as_undisturbed(range(8), cohort=4, members=6, intervals=5)  # the last cohort is smaller


def test_heavy_faults_change_nothing_either() -> None:
    same_as_undisturbed(range(8), faults=Faults(0.05, 0.03, 0.05, 0.05), members=4, intervals=5)


def test_other_run_seeds_come_to_other_outcomes() -> None:
    outcomes = [undisturbed((("run_seed", seed),)) for seed in range(3)]
    assert outcomes[0] != outcomes[1] != outcomes[2] != outcomes[0]


# Invariants, where sameness is not promised -------------------------------------------------------------------------


def speak(view: View, rng: np.random.Generator) -> Sequence[Event]:
    """Somebody changes the run: its budget, its size, its bounds; or has it pause, or go on."""
    if view.paused:
        return [steer.placed(event, view.run_head + 1) for event in steer.resume(view)]
    size, high = max(2, view.size + int(rng.integers(-2, 3))), float(rng.uniform(0.01, 1.0))
    said = (steer.pause, steer.extend(int(rng.integers(6, 11))), steer.resize(size), steer.bounds({"lr.high": high}))
    with contextlib.suppress(SettingsError):  # nothing is left to train
        events = said[int(rng.integers(len(said)))](view)
        return [steer.placed(event, view.run_head + 1) if event.member == RUN else event for event in events]
    return ()


UNPROMISED: dict[str, dict[str, Any]] = {
    "asynchronous": {"max_lead": None},
    "a lead of one": {"max_lead": 1, "keep": 3},
    "asynchronous cohorts": {"max_lead": None, "cohort": 2},
    "torn files": {"faults": Faults(tear=0.02)},
    "torn files, asynchronous": {"max_lead": None, "faults": Faults(tear=0.02)},
    "raising bodies": {"max_lead": None, "faults": Faults(raises=0.2), "settings": {"retries": 1}},
    "raising bodies at a barrier": {"max_lead": 0, "faults": Faults(raises=0.2), "settings": {"retries": 0}},
    "losses that count": {"max_lead": None, "settings": {"retries": 0, "max_lost": 1}},
    "too few kept": {"max_lead": None, "keep": 1, "members": 9},
    "changes": {"max_lead": 0, "speaks": speak},
    "changes, asynchronous": {"max_lead": None, "speaks": speak, "faults": Faults(raises=0.05)},
    "changes, in cohorts": {"max_lead": None, "speaks": speak, "cohort": 2},
    "everything, in cohorts": {
        **{"max_lead": None, "cohort": 3, "span": 2, "ready": 2, "diverges": 5},
        "faults": Faults(tear=0.02, raises=0.05),
    },
    "everything": {"max_lead": 1, "keep": 3, "diverges": 5, "faults": Faults(0.03, 0.02, 0.02, 0.03, 0.05, 0.02)},
}


@pytest.mark.slow
@pytest.mark.parametrize("seeds", chunks(2000, 50), ids=lambda seeds: f"{seeds[0]}-{seeds[-1]}")
def test_two_to_64_workers_in_two_thousand_seeds(seeds: range) -> None:
    for seed in seeds:
        name = [None, *UNPROMISED][seed % (len(UNPROMISED) + 1)]
        workers = 2 + seed // (len(UNPROMISED) + 1) % 63
        if name is None:
            same_as_undisturbed(range(seed, seed + 1))
        else:
            simulate(seed, **{**UNPROMISED[name], "workers": workers})


@pytest.mark.parametrize("name", UNPROMISED)
def test_no_invariant_is_violated_where_sameness_is_not_promised(name: str) -> None:
    for seed in range(12):
        simulate(seed, **UNPROMISED[name])


def test_the_simulation_brings_about_what_it_claims_to() -> None:
    seen: Counter[str] = Counter()
    for seed in range(10):
        for name in ("everything", "too few kept"):
            simulation = simulate(seed, **UNPROMISED[name])
            records = simulation.view.records.values()
            seen.update({kind: count for kind, count in simulation.counts.items() if count})
            seen["void"] += sum(record.void for record in records)
            seen["nan"] += sum(record.score is not None and not record.finite for record in records)
            seen["copied"] += sum(record.donor is not None for record in records)
            seen["replaced"] += sum(record.replaced for record in records)
            seen["synced"] += sum(bool(e.synced) for _, e in simulation.events if isinstance(e, Reported))
            seen["late"] += folded(simulation.events, "late")
            seen["repeated"] += folded(simulation.events, "repeat")
            seen.update(e.why for _, e in simulation.events if isinstance(e, Failed))
    expected = {"crash", "freeze", "give_back", "lost_answer", "lost", "tear", "void", "nan", "copied", "replaced"}
    expected |= {"synced", "late", "repeated", "given_back", "raised", "checkpoint"}
    assert expected <= {kind for kind, count in seen.items() if count}, seen


def test_at_rest_exactly_the_files_that_the_journal_needs_are_left() -> None:
    for seed in range(10):
        simulation = simulate(seed, max_lead=None, faults=Faults(0.03, 0.02, 0.02, 0.03))
        last = Worker("last", simulation.journal, simulation.checkpoints, simulation.strategy)
        last.read()
        last.sweep()
        needed = {r.checkpoint.file for r in simulation.view.records.values() if not r.freed}
        assert set(simulation.checkpoints.files()) == needed, f"seed {seed}"


def test_budgets_are_exact() -> None:
    for seed in range(10):
        simulation = simulate(seed, members=5, intervals=7, max_lead=None)
        for history in simulation.view.history:
            assert [record.interval for record in history] == list(range(1, 8))
            assert [record.total_steps for record in history] == list(range(1, 8))


# Workers that are broken on purpose ---------------------------------------------------------------------------------

replace = msgspec.structs.replace


class RetainsFirst(Evolve):
    """Evolve, which may still ask for every member's first report."""

    def __init__(self) -> None:
        super().__init__(Truncation(0.5), Perturb())

    def retain(self, view: View) -> list[Ref]:
        return [history[0].ref for history in view.history if history]


class Unfenced(Worker):
    """Reports even after its claim was taken over: at the next free place."""

    def _append(self, *events: Event) -> bool:
        if super()._append(*events):
            return True
        if not all(isinstance(event, Reported) for event in events):
            return False
        with contextlib.suppress(JournalError):
            return super()._append(*(replace(e, seq=int(self.view.head[e.member]) + 1) for e in events))
        return False


class CopiesClaims(Worker):
    """Takes a donor's next report as soon as the donor is claimed."""

    def _decide(self, member: int, together: Sequence[int]) -> Claimed:
        claim = super()._decide(member, together)
        donors = [Ref(c.member, c.seq + 1) for c in self.view.open if c is not None and c.member != member]
        return replace(claim, source=donors[0], donor=donors[0]) if donors and claim.interval > 1 else claim


class PublishesEarly(Worker):
    """Reports first, and writes the file then."""

    def publish(self, claim: Claim, tree: Tree, outcomes: Sequence[Outcome]) -> Steps[bool]:
        store, saved = self.checkpoints, MemoryCheckpoints().save(claim.file, tree)

        class Later:
            def save(self, file: str, tree: Tree) -> Any:
                return saved

            def __getattr__(self, name: str) -> Any:
                return getattr(store, name)

        self.checkpoints = Later()  # type: ignore[assignment]
        try:
            published = yield from super().publish(claim, tree, outcomes)
        finally:
            self.checkpoints = store
        if published:
            store.save(claim.file, tree)
        return published


class PinsNothing(Worker):
    """Deletes what open claims need."""

    class Careless(View):
        def _pin(self, ref: Ref | None) -> None: ...
        def _unpin(self, ref: Ref | None, freed: list[str]) -> None: ...

    def __post_init__(self) -> None:
        super().__post_init__()
        self.view = self.Careless()


class SweepsTooMuch(Worker):
    """Takes every file that no report names for an orphan: also those that are about to be reported."""

    def sweep(self) -> None:
        self._next_sweep = 0.0
        needed = {record.checkpoint.file for record in self.view.records.values() if not record.freed}
        self.checkpoints.delete([file for file in self.checkpoints.files() if file not in needed])


class SharesRandomness(Worker):
    """Draws from one stream for all, so that what is drawn depends on who came before."""

    drawn = 0

    def _decide(self, member: int, together: Sequence[int]) -> Claimed:
        claim = super()._decide(member, together)
        SharesRandomness.drawn += 1
        drawn = {**claim.hypers, "lr": 1e-3 + 1e-6 * SharesRandomness.drawn}
        return replace(claim, hypers=drawn) if claim.donor is not None else claim


class ForgetsItsClaims(Worker):
    """Never looks for claims of its own whose answer was lost."""

    def give_back_strays(self) -> None: ...


BROKEN: list[tuple[type[Worker], set[str], dict[str, Any]]] = [
    (Unfenced, {"I1", "I5"}, {}),
    (CopiesClaims, {"I3", "I8"}, {}),
    (PublishesEarly, {"I2"}, {}),
    (PinsNothing, {"I2"}, {"max_lead": None}),
    (SweepsTooMuch, {"I2"}, {}),
    (SharesRandomness, {"I8"}, {}),
    (ForgetsItsClaims, {"I6"}, {"faults": Faults(0, 0, 0, lost_answer=0.1)}),
]


@pytest.mark.parametrize(("broken", "invariants", "known"), BROKEN, ids=[broken.__name__ for broken, *_ in BROKEN])
def test_a_worker_that_is_broken_on_purpose_is_caught(
    broken: type[Worker], invariants: set[str], known: dict[str, Any], record_property: Any
) -> None:
    caught, seeds = 0, 10
    for seed in range(seeds):
        simulation = Simulation(seed, workers=2 + seed % 7, worker_type=broken, max_steps=3000, **known)
        found = {problem.invariant for problem in simulation.run()}
        caught += bool(found & invariants)
    record_property("caught", f"{caught} of {seeds}")
    print(f"{broken.__name__}: caught by {caught} of {seeds} seeds")
    assert caught >= 1


def test_the_same_settings_with_sound_workers_are_not_caught() -> None:
    for _, _, known in BROKEN:
        for seed in range(4):
            assert Simulation(seed, workers=2 + seed % 7, max_steps=20_000, **known).run() == []


# Journals that were changed -----------------------------------------------------------------------------------------


def changed(kind: type[Event], nth: int, **fields: Any) -> list[Problem]:
    """What the doctor finds where the nth event of a kind (its copies, for Claimed) says something else."""
    simulation = simulate(3, workers=3, faults=Faults.none())
    events = list(simulation.events)
    at = [
        i for i, (_, e) in enumerate(events) if type(e) is kind and (not isinstance(e, Claimed) or e.donor is not None)
    ][nth]
    position, event = events[at]
    events[at] = Recorded(position, replace(event, **fields))
    return list(examine(events, simulation.checkpoints, simulation.strategy))


def test_the_doctor_finds_nothing_in_a_sound_journal() -> None:
    assert changed(Claimed, 3) == []


@pytest.mark.parametrize(
    ("kind", "fields", "invariant"),
    [
        (Claimed, {"hypers": {"lr": 0.5, "units": 3}}, "I8"),
        (Claimed, {"ready": False}, "I8"),
        (Claimed, {"saw": 10**6}, "I8"),
        (Claimed, {"saw": 0}, "I8"),
        (Claimed, {"saw": -1}, "I8"),
        (Claimed, {"saw": 8}, "I8"),
        (Claimed, {"donor": Ref(0, 99)}, "I3"),
        (Claimed, {"source": Ref(0, 99), "donor": Ref(0, 99)}, "I3"),
        (Claimed, {"seq": 77}, "I1"),
        (Reported, {"seq": 77}, "I1"),
        (Reported, {"checkpoint": Checkpoint("m5-2.safetensors", "0" * 32, 1)}, "I1"),
        (Reported, {"interval": 1}, "I5"),
        (Reported, {"interval": 99}, "I5"),
        (Reported, {"score": "nan"}, "I8"),
    ],
)
def test_the_doctor_finds_what_was_changed_in_a_journal(
    kind: type[Event], fields: dict[str, Any], invariant: str
) -> None:
    assert invariant in {problem.invariant for problem in changed(kind, 8, **fields)}


@pytest.mark.parametrize(
    ("interval", "said"), [(1, "interval 1 is counted twice"), (5, "was never reported"), (99, "99 intervals of 8")]
)
def test_the_doctor_says_what_is_wrong_with_a_budget(interval: int, said: str) -> None:
    assert any(said in problem.what for problem in changed(Reported, 8, interval=interval) if problem.invariant == "I5")


def test_the_doctor_finds_checkpoints_that_are_gone_or_damaged() -> None:
    simulation = simulate(3, workers=3, faults=Faults.none())
    for spoil in (simulation.checkpoints.damage, lambda file: simulation.checkpoints.delete([file])):  # type: ignore[attr-defined]
        spoil(simulation.view.best.checkpoint.file)  # type: ignore[union-attr]
        found = list(examine(simulation.events, simulation.checkpoints))
        assert {problem.invariant for problem in found} == {"I2"}


def test_the_doctor_looks_for_what_a_strategy_retains_too() -> None:
    strategy = RetainsFirst()
    simulation = simulate(0, workers=1, faults=Faults.none(), strategy=strategy)
    first = Ref(0, 3)
    file = fold(simulation.events, View(strategy.retain)).records[first].checkpoint.file
    assert file in simulation.checkpoints.files()
    simulation.checkpoints.delete([file])
    assert [p.invariant for p in examine(simulation.events, simulation.checkpoints, strategy)] == ["I2"]


# The simulation itself ----------------------------------------------------------------------------------------------

TWICE: dict[str, Any] = {"max_lead": None, "members": 8, "faults": Faults(0.03, 0.02, 0.02, 0.03, 0.05, 0.02)}


def digest(simulation: Simulation) -> str:
    """Of all events; their uids are the one thing that is drawn by chance."""
    found = hashlib.sha256()
    for _, event in simulation.events:
        found.update(encode(replace(event, uid="")) + b"\n")
    return found.hexdigest()


def test_a_seed_fixes_every_event() -> None:
    for seed in range(5):
        first, second = (digest(simulate(seed, **TWICE)) for _ in range(2))
        assert first == second, f"seed {seed}"


def test_a_seed_fixes_every_event_in_other_processes_too() -> None:
    script = "from test_simulation import *; print(*(digest(simulate(seed, **TWICE)) for seed in range(20, 24)))"
    here = Path(__file__).parent
    found = set()
    for hash_seed in ("1", "2"):
        environ = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join([str(here), *sys.path])}
        done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=True)
        found.add(done.stdout)
    assert len(found) == 1


def test_other_seeds_bring_other_luck() -> None:
    assert len({digest(simulate(seed, **TWICE)) for seed in range(4)}) == 4
