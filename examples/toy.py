"""The paper's toy (Jaderberg et al. 2017, Figure 2): PBT, exploit only, explore only and grid search, side by side.

    python examples/toy.py                 # four short runs; draws toy.png

Two members climb Q(θ) = 1.2 − θ₀² − θ₁². They cannot see Q's slope, only that of 1.2 − h₀θ₀² − h₁θ₁², and each starts
with one of its two hyperparameters at zero: neither can reach the top alone. Needs matplotlib for the picture.
"""

import sys

import numpy as np

import phyla

STEPS, RATE = 200, 0.01
SPACE = {"h0": phyla.Float(0.0, 4.0), "h1": phyla.Float(0.0, 4.0)}
START = [{"h0": 1.0, "h1": 0.0}, {"h0": 0.0, "h1": 1.0}]
NOISE = phyla.Gaussian(0.1 / 4)  # a standard deviation of 0.1: the noise is a fraction of the range


def explore_only(view, member, rng):
    """Nobody copies; everybody's hyperparameters move."""
    return phyla.Decision(phyla.KEEP, NOISE(view.newest(member).hypers, view.space, view, member, rng))


ARMS = {
    "PBT": {"exploit": phyla.Truncation(0.5), "explore": NOISE},
    "exploit only": {"exploit": phyla.Truncation(0.5), "explore": None, "inherit": "weights"},
    "explore only": {"strategy": explore_only},
    "grid search": {"exploit": None},
}


def quality(theta):
    return 1.2 - float(theta @ theta)


def train(arm, interval=5, seed=0, **options):
    """Runs one arm; returns the run and each member's path [steps, 2]."""
    population = phyla.Population(
        f"toy-{arm.replace(' ', '-').lower()}",
        space=SPACE,
        size=2,
        intervals=STEPS // interval,
        start=START,
        max_lead=0,
        seed=seed,
        **ARMS[arm],
        **options,
    )
    paths = {0: [], 1: []}
    for member in population:
        theta = member.state(lambda newborn: np.array([0.9, 0.9]))
        for _ in range(interval):
            theta = theta - RATE * 2 * np.array([member["h0"], member["h1"]]) * theta
            paths[member.id].append(theta)
        member.report(quality(theta), theta, steps=interval)
    return population.run, paths


def draw(results, file):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    grid = np.linspace(0, 1, 100)
    surface = 1.2 - grid[:, None] ** 2 - grid[None, :] ** 2
    figure, axes = plt.subplots(1, len(results), figsize=(3.2 * len(results), 3.4), sharey=True, layout="constrained")
    for axis, (arm, (run, paths)) in zip(axes, results.items(), strict=True):
        axis.contourf(grid, grid, surface, levels=20, cmap="Greys", alpha=0.5)
        for member, path in paths.items():
            x, y = np.array(path).T
            axis.scatter(x, y, s=4, color=("#c1432e", "#2e6fc1")[member], label=f"member {member}")
        axis.plot(0, 0, "k*", markersize=10)
        axis.set(title=f"{arm}: {run.best.score:.4f}", xlabel="θ₀", aspect="equal")
        axis.set(xlim=(-0.03, 0.95), ylim=(-0.03, 0.95))
    axes[0].set_ylabel("θ₁")
    axes[-1].legend(loc="lower center", frameon=False, markerscale=3)
    figure.suptitle("Best Q of two members (the top is 1.2); each dot is one step")
    figure.savefig(file, dpi=150)


if __name__ == "__main__":
    results = {arm: train(arm, journal="memory", progress=False) for arm in ARMS}
    for arm, (run, _) in results.items():
        print(f"{arm:14} best Q {run.best.score:.4f}")
    draw(results, sys.argv[1] if len(sys.argv) > 1 else "toy.png")
