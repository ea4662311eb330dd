"""Real training in two processes: 16 small networks × 20 epochs of digits, against bare processes that only train.

    python bench/digits.py [--rounds 3] [--peer COMMAND]

Prints member-epochs a second over the loop. The floor: two processes that each train 8 members, without any search.
"""

import argparse
import json
import multiprocessing
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

MEMBERS, EPOCHS, BATCH, TRAIN = 16, 20, 64, 1437


def data():
    import torch
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    x, y = load_digits(return_X_y=True)
    split = train_test_split((x / 16).astype("float32"), y, train_size=TRAIN, random_state=0, stratify=y)
    return [torch.from_numpy(part) for part in split]


def make(hypers):
    import torch
    from torch import nn

    net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(hypers["dropout"]), nn.Linear(128, 10))
    return {
        "net": net,
        "opt": torch.optim.AdamW(net.parameters(), lr=hypers["lr"], weight_decay=hypers["weight_decay"]),
    }


def epoch(net, opt, x, x_val, y, y_val):
    import torch
    from torch.nn.functional import cross_entropy

    net.train()
    order = torch.randperm(TRAIN)
    for i in range(0, TRAIN - BATCH + 1, BATCH):
        batch = order[i : i + BATCH]
        opt.zero_grad(set_to_none=True)
        cross_entropy(net(x[batch]), y[batch]).backward()
        opt.step()
    net.eval()
    with torch.no_grad():
        return (net(x_val).argmax(1) == y_val).float().mean().item()


def work(path):
    """One worker of phyla's."""
    import torch

    import phyla

    torch.set_num_threads(1)
    parts = data()
    population = phyla.Population(
        "digits",
        space={
            "lr": phyla.Float(1e-4, 1e-1, log=True),
            "weight_decay": phyla.Float(1e-6, 1e-1, log=True),
            "dropout": phyla.Float(0.0, 0.6),
        },
        size=MEMBERS,
        intervals=EPOCHS,
        exploit=phyla.Truncation(0.25),
        seed=0,
        threads=1,
        path=path,
        progress=False,
    )
    epoch(**make({"lr": 1e-3, "weight_decay": 0, "dropout": 0}), **named(parts))  # what happens once, happens before
    population.once("ready", lambda: None, per="run")
    ready = Path(path) / f"ready.{multiprocessing.current_process().pid}"
    ready.touch()
    while len(list(Path(path).glob("ready.*"))) < 2:
        time.sleep(0.005)
    for member in population:
        state = member.state(make)
        member.report(epoch(**state, **named(parts)))


def named(parts):
    return dict(zip(("x", "x_val", "y", "y_val"), parts, strict=True))


def phyla_rate():
    import phyla

    with tempfile.TemporaryDirectory() as path:
        workers = [subprocess.Popen([sys.executable, __file__, "--work", path]) for _ in range(2)]
        assert all(worker.wait() == 0 for worker in workers)
        run = phyla.open(Path(path) / "digits")
        times = [event.time for event in run.events() if event.kind in ("claimed", "reported")]
        return MEMBERS * EPOCHS / (max(times) - min(times)), run.best.score


def bare(barrier, seconds, place):
    import torch

    torch.set_num_threads(1)
    parts = named(data())
    members = [make({"lr": 1e-3, "weight_decay": 1e-4, "dropout": 0.1}) for _ in range(MEMBERS // 2)]
    epoch(**members[0], **parts)
    barrier.wait()
    begin = time.perf_counter()
    for _ in range(EPOCHS):
        for member in members:
            epoch(**member, **parts)
    seconds[place] = time.perf_counter() - begin


def floor_rate():
    context = multiprocessing.get_context("spawn")
    barrier, seconds = context.Barrier(2), context.Array("d", 2)
    workers = [context.Process(target=bare, args=(barrier, seconds, place)) for place in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return MEMBERS * EPOCHS / max(seconds)


def peer_rate(command):
    out = subprocess.run(shlex.split(command), capture_output=True, text=True, check=False).stdout
    line = next(line for line in out.splitlines() if line.startswith("BENCH "))
    told = json.loads(line.removeprefix("BENCH "))
    return told["member_epochs_per_s"] if "member_epochs_per_s" in told else told["results"] / told["fit_s"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", help="a command that prints `BENCH {json}` with member_epochs_per_s")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work)
        return
    ours, bare_rates, peers = [], [], []
    for _ in range(arguments.rounds):
        rate, score = phyla_rate()
        ours.append(rate)
        bare_rates.append(floor_rate())
        if arguments.peer:
            peers.append(peer_rate(arguments.peer))
    print(f"digits, {MEMBERS} members × {EPOCHS} epochs, two processes; median of {arguments.rounds} rounds in turn")
    median = statistics.median(ours)
    print(
        f"  phyla                    {median:7.1f} member-epochs/s {[round(r) for r in ours]}, best accuracy {score:.4f}"
    )
    for name, seen in (("bare training", bare_rates), ("peer", peers)):
        if seen:
            pairs = [a / b for a, b in zip(ours, seen, strict=True)]
            print(
                f"  {name:24} {statistics.median(seen):7.1f} member-epochs/s {[round(r) for r in seen]}; "
                f"phyla at {statistics.median(pairs):.3f} of it"
            )


if __name__ == "__main__":
    main()
