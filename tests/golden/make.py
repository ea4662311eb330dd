"""Golden lineages: what each strategy of the table decides, where members come to these scores.

python tests/golden/make.py              # all
python tests/golden/make.py PB2 FIRE     # these

A file of golden/strategies holds a line for each decision that changed something: the member and the interval that it was for,
the report whose weights were taken, as [member, interval] (null: fresh ones), `donor` where another one was copied, what part
was mixed, and the hyperparameters, to 12 digits. Whoever has no line went on as before.

Make a file anew when the strategy's decisions are meant to have changed, and say so in CHANGELOG.md: a run that was begun
before will not recompute. If one changes and was not meant to, that is the bug that this test is for. Where NumPy changes the
streams of its generators (it may, and says so), all of them change.

GAUSSIAN are strategies that fit Gaussian processes: where another BLAS rounds otherwise, their hyperparameters may differ in
the last digits, and from there on in all. Of them the ancestry alone is recorded. It is drawn before anything is fitted, but
for the intervals at which IPBT begins anew, which no last digit decides.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from phyla.space import Choice, Float, Int, Space
from phyla.strategies.contract import needs_samples
from phyla.strategies.table import EXPLOITS, EXPLORES, STRATEGIES
from phyla.testing import StrategyConformance
from phyla.testing.plays import Play
from phyla.testing.story import hypers_of
from phyla.testing.strategies import subject_of

HERE = Path(__file__).parent / "strategies"
SPACE: Space = {
    "lr": Float(1e-4, 1.0, log=True),
    "units": Int(1, 64),
    "act": Choice("relu", "tanh", "gelu"),
    "depth": Int(1, 8, structural=True),
}
SIZE, INTERVALS = 8, 20
GAUSSIAN = ("PB2", "PB2Mix", "IPBT")


def named() -> dict[str, tuple[str, Any]]:
    """exploit, explore or strategy, and the example of the table, by the name of its file."""
    tables = {"exploit": EXPLOITS, "explore": EXPLORES, "strategy": STRATEGIES}
    return {type(one).__name__: (kind, one) for kind, table in tables.items() for one in table}


def scores(interval: int, size: int) -> list[float | None]:
    """What the members come to: some are better for long, noise, ties; one diverges, and one has no score yet, now and then."""
    rng = np.random.default_rng([9, interval])
    quality = np.random.default_rng([9, interval // 5]).normal(size=size)
    found: list[float | None] = [float(x) for x in np.round(interval + 4 * quality + rng.normal(size=size), 1)]
    if interval % 6 == 5:
        found[interval % size] = math.nan
    if interval % 7 == 4:
        found[interval % size] = None
    return found


def lineage(kind: str, one: Any) -> list[dict[str, Any]]:
    """The decisions that changed something, in order."""
    case: Any = type("Case", (StrategyConformance,), {kind: one, "space": SPACE})
    subject = subject_of(case)
    size = subject.size_near(SIZE)
    settings = {"max_lead": 0, "keep": 2, "ready": 1, "window": 10, "seed": 0, "compare": "progress", "intervals": 100}
    play = Play(subject, 0, size=size, wild=False, trouble=False, births=hypers_of, settings=settings)
    play.rng, play.samples = np.random.default_rng(9), needs_samples(subject.strategy)
    view, found = play.story.view, []
    for interval in range(1, INTERVALS + 1):
        moments = [play.ask(member) for member in range(size)]
        for moment in moments:
            own, choice = moment.own, moment.choice
            assert moment.error is None
            if own is None or choice.source != own.ref or choice.hypers != own.hypers or choice.mix is not None:
                source = view.records[choice.source] if choice.source is not None else None
                line: dict[str, Any] = {"member": moment.member, "interval": interval}
                line["source"] = [source.id, source.interval] if source is not None else None
                if moment.donor is not None and moment.donor is not source:
                    line["donor"] = [moment.donor.id, moment.donor.interval]
                if choice.mix is not None:
                    line["mix"] = list(choice.mix)
                if type(one).__name__ not in GAUSSIAN:
                    line["hypers"] = {name: _rounded(value) for name, value in choice.hypers.items()}
                found.append(line)
            play.claim(moment)
        for member, score in enumerate(scores(interval, size)):
            play.report(member, score)
    return found


def _rounded(value: Any) -> Any:
    return float(f"{value:.12g}") if isinstance(value, float) else value


def path(name: str) -> Path:
    return HERE / f"{name}.json"


if __name__ == "__main__":
    for name, (kind, one) in named().items():
        if name in (sys.argv[1:] or named()):
            lines = map(json.dumps, lineage(kind, one))
            path(name).write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
            print(path(name))
