"""256 small networks on scikit-learn's digits, trained as one program, each with a learning rate, decay and dropout of its own.

    python examples/digits_cohort.py             # torch: batched matrix products
    python examples/digits_cohort.py --jax       # JAX: one compiled program

Needs scikit-learn, and torch or JAX; with matplotlib digits.png shows the run. Ends in about a minute.
"""

import importlib.util
import sys

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import phyla
from phyla.plots import plot

features, labels = load_digits(return_X_y=True)
split = train_test_split((features / 16).astype("float32"), labels, train_size=1437, random_state=0, stratify=labels)
x_train, x_rest, y_train, y_rest = split
x_val, x_test, y_val, y_test = x_rest[:180], x_rest[180:], y_rest[:180], y_rest[180:]  # no decision sees the last 180


def with_torch(population):
    import torch
    from torch import nn
    from torch.nn.functional import cross_entropy

    from phyla.vector.torch import Dropout, train

    def make_model():
        return nn.Sequential(nn.Linear(64, 128), nn.ReLU(), Dropout("dropout"), nn.Linear(128, 10))

    def accuracy(outputs, targets):
        return (outputs.argmax(-1) == targets).float().mean()

    data, validation, test = (
        (torch.from_numpy(x), torch.from_numpy(y)) for x, y in ((x_train, y_train), (x_val, y_val), (x_test, y_test))
    )
    train(population, make_model, cross_entropy, data, validation=validation, score=accuracy, test=test)


def with_jax(population):
    import jax
    import jax.numpy as jnp
    import optax

    from phyla.vector.jax import train

    def init(key, hypers):
        first, second = jax.random.split(key)
        params = {
            "hidden": jax.random.uniform(first, (64, 128), minval=-1 / 8, maxval=1 / 8),
            "out": jax.random.uniform(second, (128, 10), minval=-1 / 11, maxval=1 / 11),
            "biases": (jnp.zeros(128), jnp.zeros(10)),
        }
        return {"params": params, "optimizer": optax.scale_by_adam().init(params)}

    def outputs(params, x, kept=1.0):
        hidden = jax.nn.relu(x @ params["hidden"] + params["biases"][0]) * kept
        return hidden @ params["out"] + params["biases"][1]

    def epoch(state, hypers, key):
        def step(state, given):
            batch, key = given
            kept = jax.random.bernoulli(key, 1 - hypers["dropout"], (64, 128)) / (1 - hypers["dropout"])

            def loss(params):
                found = outputs(params, jnp.asarray(x_train)[batch], kept)
                return optax.softmax_cross_entropy_with_integer_labels(found, jnp.asarray(y_train)[batch]).mean()

            gradients = jax.grad(loss)(state["params"])
            moves, optimizer = optax.scale_by_adam().update(gradients, state["optimizer"])
            params = jax.tree.map(
                lambda p, move: p - hypers["lr"] * (move + hypers["weight_decay"] * p), state["params"], moves
            )
            return {"params": params, "optimizer": optimizer}, None

        order = jax.random.permutation(key, len(x_train))[: 22 * 64].reshape(22, 64)
        return jax.lax.scan(step, state, (order, jax.random.split(key, 22)))[0]

    def evaluate(state, hypers, key):
        found = {"validation": (x_val, y_val), "test": (x_test, y_test)}
        return {name: (outputs(state["params"], x).argmax(1) == y).mean() for name, (x, y) in found.items()}

    train(population, init, epoch, evaluate)


chosen = "jax" if "--jax" in sys.argv else "torch"
population = phyla.Population(
    f"digits-cohort-{chosen}",
    space={
        "lr": phyla.Float(1e-4, 1e-1, log=True),
        "weight_decay": phyla.Float(1e-6, 1e-1, log=True),
        "dropout": phyla.Float(0.0, 0.6),
    },
    size=256,
    intervals=20,
    metric="validation" if chosen == "jax" else None,
    seed=0,
)
{"torch": with_torch, "jax": with_jax}[chosen](population)

if population.primary:
    print(population.best)
    print(f"its accuracy on the examples that no decision has seen: {population.best.metrics['test']:.4f}")
    for start, hypers in population.run.schedule():
        print(f"from step {start:3g}: " + ", ".join(f"{name}={value:.3g}" for name, value in hypers.items()))
    if importlib.util.find_spec("matplotlib"):
        plot(population.run, "digits.png")
