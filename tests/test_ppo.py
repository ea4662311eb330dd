"""The example's PPO: what a textbook says of its parts, and what phyla promises for a population of it."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

jax = pytest.importorskip("jax")
pytest.importorskip("optax")
pytest.importorskip("pgx")

import jax.numpy as jnp  # noqa: E402

import phyla  # noqa: E402

spec = importlib.util.spec_from_file_location("ppo", Path(__file__).parent.parent / "examples" / "ppo.py")
ppo = importlib.util.module_from_spec(spec)
spec.loader.exec_module(ppo)


def transitions(reward, value, done):
    nothing = np.zeros_like(reward)
    return ppo.Transition(nothing, nothing, nothing, value, reward, done, nothing)


def test_advantages_are_the_weighted_sum_of_what_came_better_than_expected():
    rng, (steps, games), discount, lam = np.random.default_rng(0), (12, 3), 0.9, 0.8
    reward, value, last = rng.normal(size=(steps, games)), rng.normal(size=(steps, games)), rng.normal(size=games)
    done = rng.random((steps, games)) < 0.2
    assert done[:-1].any()
    expected = np.zeros((steps, games))
    for game in range(games):
        for start in range(steps):
            weight = 1.0
            for t in range(start, steps):
                after = last[game] if t == steps - 1 else value[t + 1, game]
                expected[start, game] += weight * (
                    reward[t, game] + discount * (not done[t, game]) * after - value[t, game]
                )
                if done[t, game]:
                    break
                weight *= discount * lam
    found = ppo.advantages(transitions(reward, value, done), jnp.asarray(last), discount, lam)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_the_policy_gains_nothing_beyond_the_clip():
    """Actions that were better than the rest and are already likelier by more than the clip have no gradient left."""
    rng, shapes = np.random.default_rng(0), {"first": (400, 8), "second": (8, 8), "policy": (8, 3), "value": (8, 1)}
    params = {name: {"w": rng.normal(size=shape) / 4, "b": np.zeros(shape[1])} for name, shape in shapes.items()}
    observation = rng.random((8, 10, 10, 4)) < 0.3
    action, advantage = np.zeros(8, int), np.array([1.0, -1.0] * 4)

    @jax.jit
    def slope(change):
        """Of the policy's weights, where it gives the actions so many times the probability that they had."""
        logits, value = ppo.network(params, observation)
        then = ppo.log_prob(logits, action) - jnp.log(change)
        batch = ppo.Transition(observation, action, then, value, None, None, None)
        gradient = jax.grad(ppo.loss)(params, batch, advantage, value, 0.2, 0.0)
        return jnp.abs(gradient["policy"]["w"]).max()

    assert slope(np.where(advantage > 0, 1.3, 0.7)) == 0
    assert slope(np.where(advantage > 0, 1.1, 0.9)) > 1e-3
    assert slope(np.where(advantage > 0, 0.7, 1.3)) > 1e-3  # gone the wrong way, it may come back


@pytest.mark.slow
def test_a_population_learns_and_one_that_was_stopped_goes_on_with_its_games_and_comes_to_the_same(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(ppo, "UPDATES", 10)
    monkeypatch.setitem(ppo.SPACE, "lr", phyla.Float(2e-3, 4e-3, log=True))
    whole = ppo.evolve("PBT", 0, 5, 4, path=tmp_path / "whole", progress=False)
    assert (ppo.scores(whole)[-1] > 2 * ppo.scores(whole)[0]).all()
    first = ppo.evolve("PBT", 0, 5, 4, path=tmp_path / "parts", progress=False, seconds=0.5)  # it compiles for longer
    assert {record.interval for record in first.members} == {1}
    second = ppo.evolve("PBT", 0, 5, 4, path=tmp_path / "parts", progress=False)
    decided = [[(r.id, r.interval, r.donor, r.hypers) for r in run.records] for run in (whole, second)]
    assert decided[0] == decided[1]
    assert any(record.donor is not None for record in whole.records)
    np.testing.assert_allclose(ppo.scores(second), ppo.scores(whole), rtol=1e-3)
    jax.tree.map(np.testing.assert_array_equal, ppo.winner(second).games, ppo.winner(whole).games)
    ppo.draw({"PBT": [whole], "random": [second]}, tmp_path / "ppo.png")
    assert (tmp_path / "ppo.png").stat().st_size > 10_000
