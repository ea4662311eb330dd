"""How greedy is it? Ways to evolve, on a toy where what is better soon is worse at last, and on its control where it is not.

    python bench/greedy.py [--seeds 24] [--size 16] [--arms PATTERN]

Prints the score of the best member at the end, after 200 steps of each, all arms from the same starts: the interquartile mean
over seeds with its 95 % bootstrap interval, and the median. gap: where the mean lies between that of PBT with the shortest
interval (0 %) and that of PBT with the best fixed interval (100 %). See phyla.testing.workloads. Takes a quarter of an hour.
"""

import argparse
import re
import statistics
import time

import phyla
from phyla.compare import summary
from phyla.testing import workloads

INTERVALS = (1, 2, 5, 10, 25, 50)

ARMS = {
    "no evolution": {"interval": 50, "exploit": None},
    **{f"PBT, every {interval}": {"interval": interval} for interval in INTERVALS},
    "MF-PBT": {"strategy": phyla.MFPBT()},
    "FIRE": {"strategy": phyla.FIRE()},
    "IPBT": {"strategy": phyla.IPBT()},
}


def measure(workload, arms, seeds, size):
    print(f"{workload.__name__}, {size} members, {seeds} seeds")
    print(f"  {'':14} {'mean':>8}  {'95 % interval':^19} {'median':>8} {'gap':>7} {'s/run':>6}")
    means = {}
    for name, arm in arms.items():
        begin = time.perf_counter()
        scores = [workload(seed=seed, size=size, **arm).final.score for seed in range(seeds)]
        seconds = (time.perf_counter() - begin) / seeds
        found = summary(scores)
        means[name] = found.value
        fixed = [mean for other, mean in means.items() if other.startswith("PBT")]
        gap = (found.value - fixed[0]) / (max(fixed) - fixed[0]) if len(fixed) == len(INTERVALS) else None
        low, high = f"{found.low:.3f}", f"{found.high:.3f}"
        share = f"{gap:7.0%}" if gap is not None else " " * 7
        print(
            f"  {name:14} {found.value:8.3f}  [{low:>8}, {high:>7}] {statistics.median(scores):8.3f} {share} {seconds:6.2f}"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=24)
    parser.add_argument("--size", type=int, default=16)
    parser.add_argument("--arms", default="", help="a pattern in the names of those beside PBT")
    arguments = parser.parse_args()
    arms = {
        name: arm for name, arm in ARMS.items() if name.startswith(("no", "PBT")) or re.search(arguments.arms, name)
    }
    for workload in (workloads.deceptive, workloads.plain):
        measure(workload, arms, arguments.seeds, arguments.size)


if __name__ == "__main__":
    main()
