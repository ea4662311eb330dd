"""What phyla costs an interval: the paper's toy, 8 members × 200 intervals, four gradient steps an interval.

    python bench/orchestration.py [--rounds 5] [--peer COMMAND]

Prints intervals a second over the loop, inline and with two processes, with default durability; where the time goes; the floor
(the same loop in plain Python, nothing kept); and the peer, in turn with the others.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import phyla

MEMBERS, INTERVALS = 8, 200


def train(theta, h0, h1):
    for _ in range(4):
        theta = [theta[0] - 0.02 * h0 * theta[0], theta[1] - 0.02 * h1 * theta[1]]
    return theta


def population(path):
    return phyla.Population(
        "toy",
        space={"h0": phyla.Float(0.0, 1.0), "h1": phyla.Float(0.0, 1.0)},
        size=MEMBERS,
        intervals=INTERVALS,
        exploit=phyla.Truncation(0.25),
        seed=0,
        threads=1,
        path=path,
        progress=False,
    )


def work(path):
    """One worker's loop; returns its seconds."""
    members = population(path)
    assert not members.view.finished
    begin = time.perf_counter()
    for member in members:
        theta = train(member.state(lambda newborn: [0.9, 0.9]), member["h0"], member["h1"])
        member.report(1.2 - theta[0] ** 2 - theta[1] ** 2, theta)
    return time.perf_counter() - begin


def inline():
    with tempfile.TemporaryDirectory() as path:
        return MEMBERS * INTERVALS / work(path)


def two_processes():
    """From the first claim to the last report, as the journal has them."""
    with tempfile.TemporaryDirectory() as path:
        command = [sys.executable, __file__, "--work", path]
        workers = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2)]
        assert all(worker.wait() == 0 for worker in workers)
        events = list(phyla.open(Path(path) / "toy").events())
        claims = [event for event in events if event.kind == "claimed"]
        both = {claim.worker: claim.time for claim in reversed(claims)}  # each worker's first
        late = max(both.values())
        reports = [event.time for event in events if event.kind == "reported" and event.time >= late]
        return len(reports) / (max(reports) - late) if len(both) == 2 else float("nan")


def floor():
    """The same search in plain Python: nothing is kept, nothing shared."""
    import random

    rng = random.Random(0)
    thetas = [[0.9, 0.9] for _ in range(MEMBERS)]
    hypers = [[rng.random(), rng.random()] for _ in range(MEMBERS)]
    scores = [0.0] * MEMBERS
    begin = time.perf_counter()
    for _ in range(INTERVALS):
        for m in range(MEMBERS):
            thetas[m] = train(thetas[m], *hypers[m])
            scores[m] = 1.2 - thetas[m][0] ** 2 - thetas[m][1] ** 2
            order = sorted(range(MEMBERS), key=scores.__getitem__)
            if m in order[:2]:
                donor = rng.choice(order[-2:])
                thetas[m], hypers[m] = thetas[donor], [h * rng.choice((0.8, 1.2)) for h in hypers[donor]]
    return MEMBERS * INTERVALS / (time.perf_counter() - begin)


def peer(command):
    out = subprocess.run(shlex.split(command), capture_output=True, text=True, check=False).stdout
    line = next(line for line in out.splitlines() if line.startswith("BENCH "))
    figures = json.loads(line.removeprefix("BENCH "))
    return figures["results"] / figures["fit_s"]


def split():
    """Microseconds an interval, by part of the turn; measuring costs a little itself."""
    from phyla import member, states, worker

    spent = defaultdict(float)

    def timed(owner, name, label):
        inner = getattr(owner, name)

        def outer(*args, **kwargs):
            begin = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                spent[label] += time.perf_counter() - begin

        setattr(owner, name, outer)

    with tempfile.TemporaryDirectory() as path:
        members = population(path)
        w = members._join()
        timed(worker, "decide", "decide")
        timed(w.journal, "append", "journal: append (claim and report)")
        timed(w.journal, "read", "journal: read")
        timed(w.checkpoints, "save", "checkpoint: save (encode, digest, write)")
        timed(w.checkpoints, "load", "checkpoint: load")
        timed(w.checkpoints, "delete", "checkpoint: delete the released")
        timed(w.view, "fold", "view: fold")
        timed(w.view, "claimable", "view: who can be claimed")
        timed(states.States, "obtain", "state: keep, make or load")
        timed(member._state, "seed_globals", "state: seed the global generators")
        timed(states._state, "save", "state: to a tree")
        begin = time.perf_counter()
        for turn in members:
            theta = train(turn.state(lambda newborn: [0.9, 0.9]), turn["h0"], turn["h1"])
            turn.report(1.2 - theta[0] ** 2 - theta[1] ** 2, theta)
        total = time.perf_counter() - begin
    spent["the rest (loop, member, report, body)"] = total - sum(spent.values())
    return {label: seconds / (MEMBERS * INTERVALS) * 1e6 for label, seconds in spent.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer", help="a command that prints `BENCH {json}` with results and fit_s")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work)
        return
    arms = {"phyla, inline": inline, "phyla, two processes": two_processes, "plain Python, nothing kept": floor}
    if arguments.peer:
        arms["peer"] = lambda: peer(arguments.peer)
    rates = defaultdict(list)
    for _ in range(arguments.rounds):
        for name, measure in arms.items():
            rates[name].append(measure())
    print(f"toy, {MEMBERS} members × {INTERVALS} intervals; median (least – most) of {arguments.rounds} rounds in turn")
    for name, seen in rates.items():
        median = statistics.median(seen)
        ratio = f"   {median / statistics.median(rates['peer']):6.1f} × peer" if "peer" in rates else ""
        print(
            f"  {name:28} {median:9.0f} intervals/s ({min(seen):.0f} – {max(seen):.0f})  {1e3 / median:8.4f} ms{ratio}"
        )
    parts = [split() for _ in range(3)]
    print("inline, microseconds an interval (median of 3):")
    medians = {label: statistics.median(part[label] for part in parts) for label in parts[0]}
    for label, microseconds in sorted(medians.items(), key=lambda item: -item[1]):
        print(f"  {microseconds:8.1f}  {label}")


if __name__ == "__main__":
    os.environ.pop("PHYLA_RUNS", None)
    main()
