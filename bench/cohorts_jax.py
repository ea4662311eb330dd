"""Whole populations in one JAX program: phyla's cohorts against the same program by hand, without any record of it.

    python bench/cohorts_jax.py [--members 16 64 256] [--intervals 12] [--span 6] [--rounds 3] [--devices 2] [--toy]

Networks of 64-128-10 on digits, AdamW by optax; each has a learning rate, a weight decay and a dropout rate of its own; an
interval is an epoch and its evaluation. Prints member-epochs a second, medians over rounds:

    floor    jit(vmap(scan)), with truncation and perturbation in the same program; keeps nothing
    asked    the worker decides after every interval, and there is a checkpoint of each
    fused    decisions in the program, one checkpoint and one append a span

phyla's turns are whole: claims, decisions, training, scores, checkpoints on disk, journal. The three take turns in one process.
--devices splits the CPU into so many. --toy has a network of one number in the place of digits: what is left is overhead.
"""

import argparse
import itertools
import os
import statistics
import tempfile
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--members", type=int, nargs="+", default=[16, 64, 256])
parser.add_argument("--intervals", type=int, default=12, help="timed, in each round")
parser.add_argument("--span", type=int, default=6, help="intervals of a fused span")
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--devices", type=int, default=1)
parser.add_argument("--toy", action="store_true")
given = parser.parse_args()
if given.devices > 1:
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={given.devices}"

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import optax  # noqa: E402
from sklearn.datasets import load_digits  # noqa: E402
from sklearn.model_selection import train_test_split  # noqa: E402

import phyla  # noqa: E402
from phyla.vector.jax import Program  # noqa: E402

BATCH, TRAIN = 64, 1437
SPACE = {
    "lr": phyla.Float(1e-4, 1e-1, log=True),
    "weight_decay": phyla.Float(1e-6, 1e-1, log=True),
    "dropout": phyla.Float(0.0, 0.6),
}


def digits():
    x, y = load_digits(return_X_y=True)
    x, x_val, y, y_val = map(
        jnp.asarray,
        train_test_split((x / 16).astype("float32"), y.astype("int32"), train_size=TRAIN, random_state=0, stratify=y),
    )

    def init(key, hypers):
        one, two = jax.random.split(key)
        params = {
            "w1": jax.random.uniform(one, (64, 128), minval=-1, maxval=1) / 8,
            "b1": jnp.zeros(128),
            "w2": jax.random.uniform(two, (128, 10), minval=-1, maxval=1) / 128**0.5,
            "b2": jnp.zeros(10),
        }
        return params, optax.adamw(1e-3).init(params)

    def forward(params, x, rate=None, key=None):
        h = jax.nn.relu(x @ params["w1"] + params["b1"])
        if rate is not None:
            h = h * jax.random.bernoulli(key, 1 - rate, h.shape) / (1 - rate)
        return h @ params["w2"] + params["b2"]

    def epoch(state, hypers, key):
        optimizer = optax.adamw(hypers["lr"], weight_decay=hypers["weight_decay"])
        order, dropped = jax.random.split(key)
        batches = jax.random.permutation(order, TRAIN)[: TRAIN // BATCH * BATCH].reshape(-1, BATCH)

        def loss(params, batch, key):
            logits = forward(params, x[batch], hypers["dropout"], key)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y[batch]).mean()

        def step(state, now):
            params, moments = state
            updates, moments = optimizer.update(jax.grad(loss)(params, *now), moments, params)
            return (optax.apply_updates(params, updates), moments), None

        return jax.lax.scan(step, state, (batches, jax.random.split(dropped, len(batches))))[0]

    def evaluate(state, hypers, key):
        return (forward(state[0], x_val).argmax(-1) == y_val).mean()

    return init, epoch, evaluate


def toy():
    def init(key, hypers):
        return jax.random.normal(key, ())

    def step(state, hypers, key):
        return state - hypers["lr"] * state

    def evaluate(state, hypers, key):
        return -jnp.square(state)

    return init, step, evaluate


class Floor:
    """The whole search as it would be written for this one purpose."""

    def __init__(self, size, init, epoch, evaluate):
        def interval(state, hypers, key):
            train, test, pick, coin = jax.random.split(key, 4)
            state = jax.vmap(epoch)(state, hypers, jax.random.split(train, size))
            scores = jax.vmap(evaluate)(state, hypers, jax.random.split(test, size))
            k = max(1, size // 4)
            order = scores.argsort()
            sources = jnp.arange(size).at[order[:k]].set(order[-k:][jax.random.randint(pick, (k,), 0, k)])
            copied = sources != jnp.arange(size)
            factors = jnp.where(jax.random.bernoulli(coin, 0.5, (len(SPACE), size)), 0.8, 1.2)
            hypers = {
                name: jnp.where(copied, jnp.clip(hypers[name][sources] * factors[i], h.low, h.high), hypers[name])
                for i, (name, h) in enumerate(SPACE.items())
            }
            return jax.tree.map(lambda leaf: leaf[sources], state), hypers, scores

        self.interval = jax.jit(interval, donate_argnums=(0, 1))
        self.keys = (jax.random.key(n) for n in itertools.count(1))
        drawn = jax.random.uniform(jax.random.key(0), (len(SPACE), size))
        self.hypers = {
            name: h.low * (h.high / h.low) ** drawn[i] if h.log else h.low + (h.high - h.low) * drawn[i]
            for i, (name, h) in enumerate(SPACE.items())
        }
        self.state = jax.vmap(init)(jax.random.split(next(self.keys), size), self.hypers)

    def __call__(self):
        self.state, self.hypers, scores = self.interval(self.state, self.hypers, next(self.keys))
        jax.device_get(scores)
        return 1

    def wait(self):
        pass


class Ours:
    """span: None asks the worker after each interval."""

    def __init__(self, path, size, intervals, span, functions):
        self.population = phyla.Population(
            f"fused{span}" if span else "asked",
            SPACE,
            exploit=phyla.Truncation(0.25),
            **{"size": size, "intervals": intervals, "path": path, "seed": 0, "progress": False},
        )
        self.program = Program(*functions, span=span or 1)
        self.span = span
        self.turns = self.population.cohorts(span=span or 1, ahead=span is not None)

    def __call__(self):
        turn = next(self.turns)
        if self.program.sharding is None:
            self.program.spread(turn.size, None)
        if self.span is None:
            self.program.train_interval(turn)
        else:
            self.program.train_span(turn)
        return self.span or 1

    def wait(self):
        """For the span that was begun: as many are counted as are computed, and nothing runs on beside the others."""
        if self.program._begun is not None:
            jax.block_until_ready(self.program._begun.state)


def measure(size):
    functions = toy() if given.toy else digits()
    count = 1 + given.rounds * given.intervals
    with tempfile.TemporaryDirectory() as path:
        kinds = {
            "floor": Floor(size, *functions),
            "asked": Ours(path, size, count + 1, None, functions),
            "fused": Ours(path, size, (count + 1) * given.span, given.span, functions),
        }
        first = {}
        for name, run in kinds.items():
            begin = time.perf_counter()
            run()
            first[name] = time.perf_counter() - begin
        kinds["fused"].wait()
        seconds = {name: [] for name in kinds}
        for _ in range(given.rounds):
            for name, run in kinds.items():
                begin, done = time.perf_counter(), 0
                while done < given.intervals:
                    done += run()
                run.wait()
                seconds[name].append((time.perf_counter() - begin) / done)
        for name in ("asked", "fused"):
            kinds[name].population.close()
        rates = {name: size / statistics.median(found) for name, found in seconds.items()}
        ratios = "".join(f"{rates[name]:11,.0f} {rates['floor'] / rates[name]:5.2f}x" for name in ("asked", "fused"))
        print(f"{size:8} {rates['floor']:10,.0f} {ratios}   first {first['asked']:.1f} s", flush=True)


def main():
    print(f"{len(jax.devices())} device(s) of kind {jax.devices()[0].device_kind}; a span is {given.span} intervals")
    print(" members      floor       asked  slower      fused  slower   (member-intervals a second)")
    for size in given.members:
        measure(size)


if __name__ == "__main__":
    main()
