"""A byte-level language model of Python's own standard library: phyla finds schedules of learning rate, dropout and clipping.

    python examples/bytes.py               # half a minute on one core; the text is in every Python, nothing is downloaded
    phyla schedule runs/bytes              # what it found: a learning rate that falls, and when

Each member predicts a byte from the 12 before it with one hidden layer (Bengio et al. 2003); an interval is 20 steps of 256
bytes. Scores are bits per byte of held-out modules (lower is better); `test` is the same on modules that no decision has seen.
Needs torch.
"""

import math
import random
import sysconfig
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import phyla

STEPS, BATCH, CONTEXT, WIDTH = 20, 256, 12, 64


def text(modules):
    joined = b"".join(module.read_bytes() for module in modules)
    return torch.from_numpy(np.frombuffer(joined, np.uint8).astype(np.int64).clip(max=127))


modules = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
random.Random(0).shuffle(modules)
train, validation, test = text(modules[40:]), text(modules[20:40]), text(modules[:20])

population = phyla.Population(
    "bytes",
    space={
        "lr": phyla.Float(1e-4, 0.1, log=True),
        "dropout": phyla.Float(0.0, 0.6),
        "clip": phyla.Float(0.05, 5.0, log=True),
    },
    size=12,
    intervals=20,
    metric="bits",
    mode="min",
    seed=0,
    max_lead=0,
    threads=1,
    arms={"pb2": {"strategy": phyla.PB2()}},  # for phyla compare
)


def init(member):
    model = nn.Sequential(
        *(nn.Embedding(128, 16), nn.Flatten(), nn.Dropout(member["dropout"])),
        *(nn.Linear(16 * CONTEXT, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 128)),
    )
    return {"model": model, "optimizer": torch.optim.Adam(model.parameters(), lr=member["lr"])}


def batch(data, size, generator=None):
    starts = torch.randint(len(data) - CONTEXT, (size,), generator=generator)
    rows = data[starts[:, None] + torch.arange(CONTEXT + 1)]
    return rows[:, :-1], rows[:, -1]


def train_interval(model, optimizer, clip):
    model.train()
    for _ in range(STEPS):
        x, y = batch(train, BATCH)
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()


@torch.no_grad()
def bits(model, data):
    model.eval()
    x, y = batch(data, 4096, torch.Generator().manual_seed(0))  # every model is asked about the same passages
    return cross_entropy(model(x), y).item() / math.log(2)


for member in population:
    state = member.state(init)
    train_interval(**state, clip=member["clip"])
    member.report({"bits": bits(state["model"], validation), "test": bits(state["model"], test)}, steps=STEPS)

if population.primary:
    print(population.best)
