"""Greed, seen: the same PBT after every second step and after every 25, no evolution, and MF-PBT, on a toy made for it.

    python examples/deceptive.py           # four short runs of 16 members; draws deceptive.png

A lower learning rate cuts the noise now, and gets nowhere later. Who chooses after every second step lowers it at once, and is
behind in the end even those who never choose. This is one seed: `bench/greedy.py` has more, and `phyla.testing.workloads`
says how the toy is made. Needs matplotlib.
"""

import sys

import phyla
from phyla.testing import workloads

ARMS = {
    "no evolution": {"interval": 5, "exploit": None},
    "PBT, every 2 steps": {"interval": 2},
    "PBT, every 25 steps": {"interval": 25},
    "MF-PBT": {"strategy": phyla.MFPBT()},  # sub-populations that evolve every 1, 10, 25 and 50 steps
}


def draw(runs, file):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (scores, rates) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for arm, run in runs.items():
        best = {}
        for record in run.records:
            best[record.total_steps] = max(record.score, best.get(record.total_steps, record.score))
        scores.plot(*zip(*sorted(best.items()), strict=True), label=f"{arm}: {run.final.score:.1f}")
        pieces = run.schedule(run.final)
        starts = [start for start, _ in pieces]
        rates.step([*starts, pieces.total], [pieces.at(start)["lr"] for start in (*starts, pieces.total)], where="post")
    scores.set(title="Best member", xlabel="steps", ylabel="score", ylim=(-25, 0))
    scores.legend(frameon=False, loc="lower right")
    rates.set(title="Schedule of the one that is best in the end", xlabel="steps", ylabel="learning rate", yscale="log")
    figure.savefig(file, dpi=150)


if __name__ == "__main__":
    runs = {arm: workloads.deceptive(**how) for arm, how in ARMS.items()}
    for arm, run in runs.items():
        print(f"{arm:20} {run.final.score:8.2f}")
    draw(runs, sys.argv[1] if len(sys.argv) > 1 else "deceptive.png")
