"""PPO on MinAtar's Breakout, a population of agents as one JAX program: phyla finds schedules of five hyperparameters.

    python examples/ppo.py                 # PBT, then as many fixed random configurations; a few minutes each; draws ppo.png
    python examples/ppo.py --seeds 5       # the same from five seeds; stopped, it goes on where it was
    phyla schedule runs/ppo-pbt-0          # what made the winner of seed 0

Every function is of one agent, and pure; hyperparameters are traced numbers. `phyla.vector.jax.train` vmaps them over the
population, compiles that once, and copies rows on the device where a weak agent goes on from a strong one's weights.
Needs jax, optax, matplotlib and pgx (pip install pgx), whose Breakout is itself a JAX program.

Of five seeds (docs/images/ppo.png), the mean of PBT's population was higher in all, its best agent in four by score and in
three in fresh games. In one, a fast start's descendants took the population over, and stayed behind: PBT is greedy.
"""

import argparse
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pgx
from jax import lax
from pgx.experimental.wrappers import auto_reset

import phyla
from phyla.vector.jax import train

GAMES, ROLLOUT = 32, 32  # environments of an agent, and steps that it takes in each before an update
EPOCHS, MINIBATCHES = 2, 4
UPDATES = 20  # in an interval
WIDTH = 64  # of both hidden layers
FADE = 0.9  # an episode counts for so much less in the score after each update
TEST = 64  # rollouts in fresh games

SPACE = {
    "lr": phyla.Float(1e-5, 1e-2, log=True),
    "entropy": phyla.Float(1e-4, 0.1, log=True),
    "clip": phyla.Float(0.05, 0.5, log=True),
    "lambda": phyla.Float(0.8, 0.99, log="1-x"),
    "discount": phyla.Float(0.9, 0.999, log="1-x"),
}
ARMS = {
    "PBT": {},
    "random": {"exploit": None},
}  # random: nobody copies, and all keep the hyperparameters of their birth
COLOURS = {"PBT": "#c1432e", "random": "#6b7885"}

breakout = pgx.make("minatar-breakout")
env_step = jax.vmap(auto_reset(breakout.step, breakout.init))


class Agent(NamedTuple):
    """One member's state: what is trained, saved, and copied."""

    params: Any
    optimizer: Any
    games: Any  # the environments' states, [GAMES, ...]
    returns: Any  # of the episodes under way, [GAMES]
    ended: Any  # how many episodes have ended of late,
    earned: Any  # and the sum of their returns


class Transition(NamedTuple):
    """One step in an environment; a rollout's are [ROLLOUT, GAMES, ...], a minibatch's [B, ...]."""

    observation: Any
    action: Any
    log_prob: Any  # of the action, under the policy that chose it
    value: Any  # of the observation
    reward: Any
    done: Any  # the episode ended with this step,
    returned: Any  # and its return, up to here


# The agent ------------------------------------------------------------------------------------------------------------


def layer(key, inputs, outputs, scale):
    return {"w": scale * jax.random.normal(key, (inputs, outputs)) / np.sqrt(inputs), "b": jnp.zeros(outputs)}


def dense(layer, x):
    return x @ layer["w"] + layer["b"]


def network(params, observation):
    """Observations [..., 10, 10, 4] to the logits of the actions, [..., 3], and values, [...]."""
    x = observation.reshape(*observation.shape[:-3], -1).astype(jnp.float32)
    x = jax.nn.relu(dense(params["first"], x))
    x = jax.nn.relu(dense(params["second"], x))
    return dense(params["policy"], x), dense(params["value"], x)[..., 0]


def log_prob(logits, action):
    return jnp.take_along_axis(jax.nn.log_softmax(logits), action[..., None], axis=-1)[..., 0]


def adam(lr):
    return optax.chain(optax.clip_by_global_norm(0.5), optax.adam(lr, eps=1e-5))


def init(key, hypers):
    reset, *keys = jax.random.split(key, 5)
    params = {
        "first": layer(keys[0], int(np.prod(breakout.observation_shape)), WIDTH, np.sqrt(2)),
        "second": layer(keys[1], WIDTH, WIDTH, np.sqrt(2)),
        "policy": layer(keys[2], WIDTH, breakout.num_actions, 0.01),  # nearly uniform at first
        "value": layer(keys[3], WIDTH, 1, 1.0),
    }
    games = jax.vmap(breakout.init)(jax.random.split(reset, GAMES))
    return Agent(params, adam(hypers["lr"]).init(params), games, jnp.zeros(GAMES), jnp.zeros(()), jnp.zeros(()))


# Proximal policy optimisation (Schulman et al. 2017, arXiv 1707.06347) -----------------------------------------------


def rollout(agent, key):
    """Plays on for ROLLOUT steps: the agent with its games as they then stand, and the transitions."""

    def step(carry, key):
        games, returns = carry
        act, react = jax.random.split(key)
        logits, value = network(agent.params, games.observation)
        action = jax.random.categorical(act, logits)
        after = env_step(games, action, jax.random.split(react, GAMES))
        reward, done = after.rewards[:, 0], after.terminated
        returns = returns + reward
        seen = Transition(games.observation, action, log_prob(logits, action), value, reward, done, returns)
        return (after, jnp.where(done, 0, returns)), seen

    (games, returns), transitions = lax.scan(step, (agent.games, agent.returns), jax.random.split(key, ROLLOUT))
    return agent._replace(games=games, returns=returns), transitions


def advantages(transitions, last_value, discount, lam):
    """Generalised advantage estimation (Schulman et al. 2016, arXiv 1506.02438), [ROLLOUT, GAMES]."""

    def backwards(carry, transition):
        advantage, next_value = carry
        goes_on = 1.0 - transition.done
        delta = transition.reward + discount * goes_on * next_value - transition.value
        advantage = delta + discount * lam * goes_on * advantage
        return (advantage, transition.value), advantage

    _, found = lax.scan(backwards, (jnp.zeros_like(last_value), last_value), transitions, reverse=True)
    return found


def loss(params, transitions, advantage, target, clip, entropy_cost):
    """Of a minibatch: the clipped objective, the error of the values, and a bonus for entropy."""
    logits, value = network(params, transitions.observation)
    ratio = jnp.exp(log_prob(logits, transitions.action) - transitions.log_prob)
    advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
    objective = jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - clip, 1 + clip) * advantage)
    entropy = -(jax.nn.softmax(logits) * jax.nn.log_softmax(logits)).sum(-1)
    return -objective.mean() + 0.5 * jnp.square(value - target).mean() - entropy_cost * entropy.mean()


def update(agent, hypers, key):
    """A rollout, and EPOCHS times MINIBATCHES steps of Adam on it."""
    acting, shuffling = jax.random.split(key)
    agent, transitions = rollout(agent, acting)
    _, last_value = network(agent.params, agent.games.observation)
    advantage = advantages(transitions, last_value, hypers["discount"], hypers["lambda"])
    data = (transitions, advantage, advantage + transitions.value)
    data = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), data)  # [ROLLOUT * GAMES, ...]

    def descend(carry, rows):
        params, optimizer = carry
        minibatch = jax.tree.map(lambda leaf: leaf[rows], data)
        gradient = jax.grad(loss)(params, *minibatch, hypers["clip"], hypers["entropy"])
        change, optimizer = adam(hypers["lr"]).update(gradient, optimizer)
        return (optax.apply_updates(params, change), optimizer), None

    orders = [jax.random.permutation(key, ROLLOUT * GAMES) for key in jax.random.split(shuffling, EPOCHS)]
    rows = jnp.concatenate(orders).reshape(EPOCHS * MINIBATCHES, -1)
    (params, optimizer), _ = lax.scan(descend, (agent.params, agent.optimizer), rows)
    ended, earned = episodes(transitions)
    return agent._replace(
        params=params, optimizer=optimizer, ended=FADE * agent.ended + ended, earned=FADE * agent.earned + earned
    )


def episodes(transitions):
    """How many ended, and the sum of their returns."""
    return transitions.done.sum(), jnp.where(transitions.done, transitions.returned, 0).sum()


def score(agent, hypers, key):
    """The mean return of the training episodes that ended of late. It is copied with the weights that earned it."""
    return agent.earned / agent.ended


@jax.jit
def test(params, key):
    """The mean return in fresh games. The score that a winner was chosen by flatters it; this does not."""
    reset, acting = jax.random.split(key)
    agent = init(reset, {"lr": 0.0})._replace(params=params)
    _, transitions = lax.scan(rollout, agent, jax.random.split(acting, TEST))
    ended, earned = episodes(transitions)
    return earned / ended


# The population -------------------------------------------------------------------------------------------------------


def evolve(arm, seed, members, intervals, **options):
    """Trains a population, goes on with it, or finds it done."""
    name = f"ppo-{arm.lower()}-{seed}"
    population = phyla.Population(name, SPACE, members, intervals, seed=seed, max_lead=0, **ARMS[arm], **options)
    train(population, init, update, score, steps=UPDATES)
    return population.run


def winner(run):
    """The agent that is best at the end."""
    return run.restore(run.final, lambda member: init(jax.random.key(member.seed), member))


def scores(run):
    """[intervals, members]"""
    table = np.empty((run.settings.intervals, run.settings.size))
    for record in run.records:
        table[record.interval - 1, record.id] = record.score
    return table


def draw(runs, file):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    per_update = ROLLOUT * GAMES / 1e6
    figure = plt.figure(figsize=(11, 6.4), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=(3, 2))
    best, mean = above.subplots(1, 2, sharey=True)
    schedules = below.subplots(1, len(SPACE))
    for arm, done in runs.items():
        colour = COLOURS[arm]
        tables = np.stack([scores(run) for run in done])  # [seeds, intervals, members]
        x = per_update * UPDATES * np.arange(1, tables.shape[1] + 1)
        for axis, curves in (best, tables.max(-1)), (mean, tables.mean(-1)):
            axis.plot(x, np.median(curves, 0), color=colour, label=arm)
            axis.fill_between(x, curves.min(0), curves.max(0), color=colour, alpha=0.2, linewidth=0)
        for schedule in (run.schedule(run.final) for run in done):
            starts = [*(start for start, _ in schedule), schedule.total]
            for axis, name in zip(schedules, SPACE, strict=True):
                values = [schedule.at(start)[name] for start in starts]
                axis.step(per_update * np.array(starts), values, where="post", color=colour, alpha=0.8, linewidth=1)
    best.set(title="Best agent", ylabel="mean return of an episode", xlabel="million steps of each agent")
    mean.set(title="Mean of the population", xlabel="million steps of each agent")
    title = f"median and range of {len(done)} seeds" if len(done) > 1 else None
    best.legend(frameon=False, loc="upper left", title=title, alignment="left")
    for axis, (name, hyper) in zip(schedules, SPACE.items(), strict=True):
        axis.set_yscale({True: "log", "1-x": "logit"}[hyper.log])
        axis.set_yticks([hyper.low, hyper.high], [f"{hyper.low:g}", f"{hyper.high:g}"])
        axis.minorticks_off()
        axis.set(title=name, ylim=(hyper.low, hyper.high), xlabel="million steps")
    below.suptitle("Schedules that made the agents that are best at the end")
    figure.savefig(file, dpi=150)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=16, help="agents of a population (16)")
    parser.add_argument("--intervals", type=int, default=30, help=f"of each agent; {UPDATES} updates of PPO each (30)")
    parser.add_argument(
        "--seeds", type=int, default=1, help="pairs of populations, PBT and random, that start alike (1)"
    )
    parser.add_argument("--plot", default="ppo.png", help="the picture's file (ppo.png)")
    given = parser.parse_args()
    runs = {arm: [] for arm in ARMS}
    for seed in range(given.seeds):
        for arm, done in runs.items():
            run = evolve(arm, seed, given.members, given.intervals)
            done.append(run)
            best, fresh, mean = run.final.score, test(winner(run).params, jax.random.key(seed)), scores(run)[-1].mean()
            print(f"seed {seed}, {arm:6} best {best:5.2f}, in fresh games {fresh:5.2f}; mean {mean:5.2f}", flush=True)
    draw(runs, given.plot)


if __name__ == "__main__":
    main()
