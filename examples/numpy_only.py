"""Logistic regression in plain NumPy: a state can be arrays, and then `report` is given the new ones.

python examples/numpy_only.py
"""

import numpy as np

import phyla

rng = np.random.default_rng(0)
x, w_true = rng.normal(size=(600, 20)), rng.normal(size=20)
y = (x @ w_true + rng.normal(size=600) > 0).astype(float)
x_train, y_train, x_val, y_val = x[:400], y[:400], x[400:], y[400:]

population = phyla.Population(
    "numpy-only",
    space={"lr": phyla.Float(1e-3, 30.0, log=True), "l2": phyla.Float(1e-6, 1.0, log=True)},
    size=8,
    intervals=15,
    mode="min",
    seed=0,
    max_lead=0,
)


def init(member):
    return {"w": np.random.default_rng(member.seed).normal(size=20)}


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


for member in population:
    w = member.state(init)["w"]
    for _ in range(10):
        batch = np.random.randint(len(x_train), size=32)  # seeded from member.seed, so a run can be repeated
        error = sigmoid(x_train[batch] @ w) - y_train[batch]
        w = w - member["lr"] * (error @ x_train[batch] / 32 + member["l2"] * w)
    p = np.clip(sigmoid(x_val @ w), 1e-9, 1 - 1e-9)
    loss = -np.mean(y_val * np.log(p) + (1 - y_val) * np.log(1 - p))
    member.report(loss, {"w": w}, steps=10, metrics={"accuracy": np.mean((p > 0.5) == y_val)})

if population.primary:
    print(population.best)
