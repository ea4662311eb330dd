"""What can be said of a state without saving it."""

import random

import jax.numpy as jnp
import numpy as np
import torch
from torch import nn

from phyla import state as ps
from phyla.state import Local, Part
from test_parts import Agent
from test_state import Record, learner, net, stored


def test_identities_show_what_two_states_share():
    model, array, tensor = net(), np.zeros(4), torch.zeros(4)
    state = {"model": model, "a": array, "t": tensor, "j": jnp.zeros(2), "n": 3, "s": "text"}
    for other in ({"x": model}, [array[1:]], {"t": tensor.view(2, 2)}, {"deep": [next(model.parameters()).detach()]}):
        assert ps.identities(state) & ps.identities(other)
    assert ps.identities({"o": torch.optim.SGD(model.parameters(), 0.1)}) & ps.identities(state)
    fresh = {
        "model": net(),
        "a": np.zeros(4),
        "t": torch.zeros(4),
        "j": state["j"],
        "n": 3,
        "s": "text",
        "e": torch.empty(0),
    }
    assert not ps.identities(state) & ps.identities(fresh)
    assert not ps.identities({"e": torch.empty(0), "l": Local(dict)}) & ps.identities(
        {"e": torch.empty(0), "l": Local(dict)}
    )
    agent = Agent(1)
    assert ps.identities({"a": Part(agent)}) & ps.identities({"b": Part(agent)})


def test_unsaved_names_what_may_be_rebound():
    state = {
        **learner(),
        "w": np.zeros(2),
        "n": 1,
        "deep": [Record(jnp.zeros(1), 2)],
        "rng": np.random.default_rng(0),
        "no": None,
    }
    state.update(agent=Part(Agent(0)), env=Local(dict))
    assert ps.unsaved(state) == ["state['w']", "state['n']", "state['deep'][0].w", "state['deep'][0].n"]
    assert ps.unsaved(learner()) == []


def test_global_generators_are_seeded():
    def draw():
        return random.random(), np.random.random(), torch.rand(1).item()

    ps.seed_globals(2**31 - 1)
    first = draw()
    ps.seed_globals(2**31 - 1)
    assert draw() == first
    ps.seed_globals(0)
    assert draw() != first


def test_saved_state_is_the_tree_as_saved():
    saved = stored(ps.save({"model": nn.Linear(1, 1), "n": 1}, ps.made({}, {"lr": 0.1})))
    assert list(ps.saved_state(saved)) == ["model", "n"]
    assert list(ps.saved_state(saved)["model"]) == ["weight", "bias"]
    assert saved["made"]["hypers"] == {"lr": 0.1}
