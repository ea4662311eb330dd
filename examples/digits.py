"""A small network on scikit-learn's digits: phyla finds schedules of its learning rate, weight decay and dropout.

    python examples/digits.py              # one process; start it in several terminals, and they share the run
    phyla best runs/digits                 # what it found
    phyla compare --metric test --arms "as written,random search,lucky seeds,pb2" examples/digits.py

Needs torch and scikit-learn.
"""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn.functional import cross_entropy

import phyla

features, labels = load_digits(return_X_y=True)
split = train_test_split((features / 16).astype("float32"), labels, train_size=1437, random_state=0, stratify=labels)
x_train, x_rest, y_train, y_rest = map(torch.from_numpy, split)
x_val, x_test, y_val, y_test = x_rest[:180], x_rest[180:], y_rest[:180], y_rest[180:]  # no decision sees the last 180

population = phyla.Population(
    "digits",
    space={
        "lr": phyla.Float(1e-4, 1.0, log=True),
        "weight_decay": phyla.Float(1e-6, 1e-1, log=True),
        "dropout": phyla.Float(0.0, 0.8),
    },
    size=16,
    intervals=20,
    seed=0,
    max_lead=0,  # synchronous generations: the same result with any number of processes
    threads=1,
    arms={"pb2": {"strategy": phyla.PB2()}},  # for phyla compare
)


def init(member):
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Dropout(member["dropout"]), nn.Linear(128, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=member["lr"], momentum=0.9, weight_decay=member["weight_decay"])
    return {"model": model, "optimizer": optimizer}


def train_one_epoch(model, optimizer):
    model.train()
    for batch in torch.randperm(len(x_train)).split(64):
        optimizer.zero_grad()
        cross_entropy(model(x_train[batch]), y_train[batch]).backward()
        optimizer.step()


@torch.no_grad()
def accuracy(model, x, y):
    model.eval()
    return (model(x).argmax(1) == y).float().mean()


for member in population:
    state = member.state(init)
    train_one_epoch(**state)
    member.report(accuracy(state["model"], x_val, y_val), metrics={"test": accuracy(state["model"], x_test, y_test)})

if population.primary:
    print(population.best)
    population.run.schedule().save("digits-schedule.json")
