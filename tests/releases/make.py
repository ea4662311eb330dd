"""Makes this version's release fixture: a run as it leaves it on disk, and what its readers say of it.

python tests/releases/make.py        # once, when a version is released; never changed afterwards
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

import phyla
from phyla import steer
from phyla.testing.simulation import outcome

HERE = Path(__file__).parent


def train(path: Path, journal: str = "sqlite", trouble: bool = False, intervals: int = 4) -> phyla.Population:
    """A run with a bit of everything. trouble: a body raises once, and a loop is left once."""
    space = {
        "lr": phyla.Float(1e-3, 1.0, log=True),
        "units": phyla.Int(1, 64, log=True, structural=True),
        "kind": phyla.Choice("a", "b", "c", ordered=True),
    }
    population = phyla.Population(
        "run", space, 3, intervals, seed=3, path=path, journal=journal, max_lead=0, metric="score",
        exploit=phyla.Truncation(0.4), keep=2, progress=False,
    )  # fmt: skip

    def init(member):
        rng = np.random.default_rng(member.seed)
        return {"w": np.zeros(member["units"]), "kind": member["kind"], "rng": rng, "note": ("init", None, 1.5)}

    for member in population:
        with member:
            state = member.state(init)
            if trouble and member.interval == 2:
                trouble = False
                raise ValueError("a body that raised")
            score = member["lr"] + 0.01 * member.id + float(state["rng"].normal()) * 1e-3
            member.report({"score": score, "loss": 1 - score}, {**state, "w": state["w"] + member["lr"]}, steps=10)
    return population


def main() -> None:
    folder = HERE / phyla.__version__
    for journal in ("sqlite", "directory"):
        path = folder / journal
        shutil.rmtree(path, ignore_errors=True)
        population = train(path, journal, trouble=True)
        where = path / "run"
        steer.say(where, steer.extend(6), steer.resize(4), steer.bounds({"lr.high": 0.5}))
        for speech in (steer.stop("as an example"), steer.resume, steer.pause, steer.resume):
            steer.say(where, speech)
        population = train(path, journal, intervals=6)
        population.run._journal.close()
        for name in ("journal.lock", "once", "snapshot.bin"):
            (where / name).unlink(missing_ok=True) if not (where / name).is_dir() else shutil.rmtree(where / name)
        (folder / f"{journal}.json").write_text(json.dumps(said(where), indent=1) + "\n")


def said(where: Path) -> dict[str, object]:
    """What phyla says of a run: to be said by every later version, too."""
    run = phyla.open(where)
    best = run.best
    assert best is not None
    decided = {f"{m}/{i}": [*map(repr, facts)] for (m, i), facts in sorted(outcome(run.view).items())}
    tree = run.load(best)
    return {
        "events": [event.kind for event in run.events()],
        "best": [best.id, best.interval, best.score],
        "hypers": best.hypers,
        "schedule": repr(run.schedule().at(fraction=0.5)),
        "weights": tree["w"].tolist(),
        "note": repr(tree["note"]),
        "outcome": decided,
    }


if __name__ == "__main__":
    main()
