"""PB2 and PB2-Mix against what they are to beat, where the best hyperparameters drift; and what a decision costs.

    python bench/pb2.py [--seeds 30] [--workers 1] [--members 4]

The task: in each of 40 intervals a member gains exp(-d²/w²), where d is the distance of its hyperparameters, each on its axis,
from a point that moves along sines of random phase, half a cycle to one in a run, in three dimensions; with w = 0.4 a tenth of
the range off costs 6 %. The score is what was gained so far, seen with noise of 0.02; a copy carries it on. The best that can
be reached is 40. The second task has a choice of four values too, of which one is right, another from the middle of the run on;
with a wrong one only 30 % is gained. Prints the interquartile mean of the best final score over seeds, with a 95 % bootstrap
interval. First the seconds that one decision takes, which is on one core.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import phyla
from phyla.compare import summary
from phyla.decide import decide
from phyla.space import draw
from phyla.testing.story import Story

NUMBERS = {
    "lr": phyla.Float(1e-5, 1e-1, log=True),
    "dropout": phyla.Float(0.0, 0.8),
    "momentum": phyla.Float(0.5, 0.999, log="1-x"),
}
MIXED = {**NUMBERS, "augment": phyla.Choice("none", "flip", "crop", "mix")}
INTERVALS, WIDTH, NOISE, WRONG = 40, 0.4, 0.02, 0.3

ARMS = {
    "random search": phyla.Evolve(None, None),
    "Perturb": phyla.Evolve(phyla.Truncation(0.25), phyla.Perturb(0.8, 1.2)),
    "Perturb, resample 0.25": phyla.Evolve(phyla.Truncation(0.25), phyla.Perturb(0.8, 1.2, resample=0.25)),
    "PB2": phyla.PB2(),
    "PB2Mix": phyla.PB2Mix(),
    "PB2Mix, by model": phyla.PB2Mix(choices="model"),
}


class Task:
    """What is gained in an interval, with its hyperparameters; another drift for every seed."""

    def __init__(self, seed, space):
        rng = np.random.default_rng([seed, 1])
        self.cycles, self.phases = rng.uniform(0.5, 1.0, len(NUMBERS)), rng.random(len(NUMBERS))
        self.right = rng.permutation(MIXED["augment"].values)[:2]
        self.space = space

    def gain(self, hypers, interval):
        done = (interval - 1) / INTERVALS
        best = 0.5 + 0.35 * np.sin(2 * np.pi * (self.cycles * done + self.phases))
        here = [self.space[name].encode(hypers[name]) for name in NUMBERS]
        right = "augment" not in hypers or hypers["augment"] == self.right[int(done >= 0.5)]
        return float(np.exp(-np.square(best - here).sum() / WIDTH**2) * (1 if right else WRONG))


def best_final(arm, seed, mixed=False, members=4):
    """The best final score of a run, without noise."""
    space = MIXED if mixed else NUMBERS
    task, known = Task(seed, space), {"max_lead": 0, "threads": 1, "journal": "memory", "progress": False}
    population = phyla.Population("drift", space, members, INTERVALS, strategy=ARMS[arm], seed=seed, **known)
    final = {}
    for member in population:
        state = member.state(lambda newborn: {"gained": np.zeros(1)})
        state["gained"] = state["gained"] + task.gain(member, member.interval)
        final[member.id] = float(state["gained"][0])
        member.report(final[member.id] + NOISE * np.random.default_rng(member.seed).normal(), state)
    return max(final.values())


def compare(seeds, workers, members):
    for mixed in (False, True):
        print(f"\n{'three numbers and a choice' if mixed else 'three numbers'}: {members} members, {seeds} seeds")
        print(f"{'':23} {'IQM':>7} {'95 % interval':>17} {'PB2Mix' if mixed else 'PB2':>9} is better on")
        found = {}
        with ProcessPoolExecutor(workers) as pool:
            for arm in ("PB2Mix", *ARMS) if mixed else ("PB2", *ARMS):
                if arm not in found and (mixed or "Mix" not in arm):
                    jobs = [(arm, seed, mixed, members) for seed in range(seeds)]
                    found[arm] = list(pool.map(best_final, *zip(*jobs, strict=True)))
        ours = np.array(found["PB2Mix" if mixed else "PB2"])
        for arm, scores in found.items():
            at = summary(scores)
            better = "" if (ours == scores).all() else f"{np.mean(ours > scores):9.0%} of seeds"
            print(f"{arm:23} {at.value:7.2f} {at.low:8.2f} to {at.high:5.2f} {better}", flush=True)


# What a decision costs ------------------------------------------------------------------------------------------------

WIDE = {
    **{f"rate{i}": phyla.Float(1e-4, 1.0, log=True) for i in range(4)},
    **{f"units{i}": phyla.Int(1, 64) for i in range(2)},
    **{f"kind{i}": phyla.Choice("a", "b", "c") for i in range(2)},
}
MEMBERS = 32


def lived():
    """A run of which a thousand gains are known."""
    rng, score = np.random.default_rng(0), np.zeros(MEMBERS)
    story = Story(MEMBERS, space=WIDE, max_lead=0)
    for m in list(range(MEMBERS)) * 33:
        hypers = draw(WIDE, rng)
        score[m] += float(np.mean([WIDE[name].encode(value) for name, value in hypers.items()]) + 0.1 * rng.normal())
        story.train(m, float(score[m]), hypers=hypers)
    return story


def seconds_of(strategy, story, place):
    """Of this process's time, for the decision of the member that is worst but for so many; and what it decided."""
    member = story.view.ranked(MEMBERS - 1)[place].id
    begin = time.process_time()
    choice = decide(story.view, member, strategy)
    return time.process_time() - begin, choice


def cost(rounds):
    print(
        f"\nseconds of one decision on one core: {len(WIDE)} hyperparameters, {MEMBERS} members of whom 8 are replaced"
    )
    print(f"{'':8} {'rows':>6} {'first':>8} {'later':>8} {'the eighth':>12}")
    for kind in (phyla.PB2, phyla.PB2Mix):
        for rows in (100, 300, 1000):
            strategy, story, found = kind(rows=rows), lived(), {"first": [], "later": [], "eighth": []}
            for _ in range(rounds):
                found["first"].append(seconds_of(strategy, story, 0)[0])
            noted = seconds_of(strategy, story, 0)[1].notes
            assert noted["pb2"]["rows"] == rows
            for m in range(MEMBERS):
                story.train(m, story.newest(m).score + 0.1, notes=noted)
            for _ in range(rounds):
                found["later"].append(seconds_of(strategy, story, 1)[0])
                found["eighth"].append(seconds_of(strategy, story, 7)[0])
            first, later, eighth = (statistics.median(times) for times in found.values())
            print(f"{kind.__name__:8} {rows:6} {first:8.2f} {later:8.2f} {eighth:12.2f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--rounds", type=int, default=3, help="of each timing")
    options = parser.parse_args()
    cost(options.rounds)
    if options.seeds:
        compare(options.seeds, options.workers, options.members)
