"""Runs in which a strategy is put to work: simulated workers that crash, and real training with weights that are checked."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from phyla.doctor import examine
from phyla.errors import PhylaError, PhylaWarning
from phyla.events import Claimed, Recorded, Ref
from phyla.population import Population
from phyla.strategies.contract import needs_samples
from phyla.testing.plays import SAMPLES, Subject
from phyla.testing.simulation import Faults, Simulation, outcome
from phyla.view import View
from phyla.worker import Outcome

STEPS = 3


def simulate(subject: Subject) -> dict[str, list[str]]:
    """What went wrong: "kills" changed a decision, "files" were gone, …; by these names, which strategies.py looks for."""
    found: dict[str, list[str]] = defaultdict(list)
    faults = Faults(crash=0.03, freeze=0.02, give_back=0.02, lost_answer=0.03)
    size = subject.size_near(6)
    known: dict[str, Any] = {"subject": subject, "members": size, "intervals": subject.intervals, "max_steps": 20_000}
    whole, broken, free = (
        Simulated(1, workers=1, max_lead=0, faults=Faults.none(), **known),
        Simulated(1, workers=3, max_lead=0, faults=faults, **known),
        Simulated(2, workers=3, max_lead=None, faults=faults, **known),
    )
    for run in (whole, broken, free):
        where = f"simulation {run.seed} ({size} members, max_lead={run.max_lead}, {run.workers} workers)"
        for problem in run.run():
            name = {"I2": "files", "I8": "recomputes"}.get(problem.invariant, "kills")
            found["raises" if problem.where == "a worker" else name].append(f"{where}: {problem}")
        for name, what in _counted(run.view, size, subject.intervals, steps=1):
            found[name].append(f"{where}: {what}")
    expected, came = outcome(whole.view), outcome(broken.view)
    if expected != came:
        place = min(p for p in expected.keys() | came.keys() if expected.get(p) != came.get(p))
        what = (
            f"member {place[0]} came in interval {place[1]} to {came.get(place)}, and without to {expected.get(place)}"
        )
        found["kills"].append(f"simulation 1: with workers that die, {what}")
    return found


def _counted(view: View, size: int, intervals: int, steps: int) -> Iterator[tuple[str, str]]:
    if len(view.done) != size or view.size != size or (view.done != intervals).any():
        yield "size", f"{size} members were to train {intervals} intervals each, and did {view.done.tolist()}"
    for record in view.records.values():
        if not record.void and record.total_steps != steps * record.interval:
            yield "steps", f"after {record!r}, {record.total_steps} steps are counted, not {steps * record.interval}"


@dataclass
class Simulated(Simulation):
    """A simulation whose reports have what the subject's strategy needs."""

    subject: Subject = field(kw_only=True)

    def __post_init__(self) -> None:
        self.strategy, self.space = self.subject.strategy, self.subject.space
        super().__post_init__()

    def _outcome(self, x: int, event: Claimed) -> Outcome:
        rng = np.random.default_rng(x)
        samples = (
            [float(s) for s in self._score(x) + rng.normal(size=SAMPLES)] if needs_samples(self.strategy) else None
        )
        metrics = {name: float(rng.normal()) for name in self.subject.metrics} or None
        score = self._score(x) if samples is None else float(np.mean(samples))
        return Outcome(score, samples, metrics, steps=event.span)


class _Options:
    """What an optimizer is to phyla: options that come with the weights, and that `init` has set."""

    def __init__(self, hypers: dict[str, Any]):
        self.param_groups = [{"params": [], **hypers}]

    def state_dict(self) -> dict[str, Any]:
        return {"param_groups": [dict(group) for group in self.param_groups]}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.param_groups = saved["param_groups"]


def train(subject: Subject) -> dict[str, list[str]]:
    """What went wrong in a real run: "weights" were not the donor's, "live" values not the new ones; "size", "steps", …"""
    found: dict[str, list[str]] = defaultdict(list)
    size = subject.size_near(6)
    known: dict[str, Any] = {"strategy": subject.strategy, "seed": 0, "journal": "memory", "progress": False}
    population = Population("conformance", subject.space, size, subject.intervals, **known)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PhylaWarning)
            for name, what in _train(population, subject, size):
                found[name].append(f"a real run of {size} members: {what}")
    except PhylaError as error:
        found["raises"].append(f"a real run of {size} members: {type(error).__name__}: {error}")
    events = [Recorded(n, event) for n, event in enumerate(population.run.events(), 1)]
    for problem in examine(events, population.run.checkpoints, subject.strategy):
        found["recomputes"].append(f"a real run of {size} members: {problem}")
    return found


def _train(population: Population, subject: Subject, size: int) -> Iterator[tuple[str, str]]:
    ended: dict[Ref, np.ndarray] = {}

    def init(member: Any) -> dict[str, Any]:
        return {"w": np.random.default_rng(member.seed).normal(size=3), "options": _Options(dict(member))}

    for member in population:
        rng, state = np.random.default_rng(member.seed), member.state(init)
        begun, options = np.array(state["w"]), {name: state["options"].param_groups[0][name] for name in member}
        state["w"] = begun + rng.normal(size=3)
        samples = (state["w"].sum() + rng.normal(size=SAMPLES)).tolist()
        score = samples if needs_samples(subject.strategy) else samples[0]
        member.report(score, state, steps=STEPS, metrics={name: float(rng.normal()) for name in subject.metrics})
        record = population.view.newest(member.id)
        assert record is not None
        ended[record.ref] = state["w"]
        where = f"member {member.id}, interval {record.interval}"
        if record.source is not None and not record.mixed and not np.array_equal(begun, ended[record.source]):
            yield "weights", f"{where}: it did not begin with the weights of {record.parent!r}"
        if not record.hypers == dict(member) == options:
            yield "live", f"{where}: {record.hypers} is recorded; the loop saw {dict(member)}, and init set {options}"
    yield from _counted(population.view, size, subject.intervals, STEPS)
