"""Live objects become trees and come back: in place, by themselves, and as nothing else than what was saved."""

import copy
import dataclasses
import random
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from torch import nn

from phyla import state as ps
from phyla.checkpoints import codec
from phyla.errors import StateError


def stored(tree):
    """Through the bytes of a checkpoint."""
    return codec.decode(b"".join(codec.encode(tree)))


def digest(state, made=None):
    return b"".join(codec.encode(ps.save(state, made)))


def restore(fresh, trained):
    """What is in a trained state, loaded into what init made anew."""
    state, changes = ps.load(fresh, stored(ps.save(trained)), ps.made(fresh))
    assert changes == []
    return state


def net(seed=0, width=8):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, 2))


def learner(seed=0, optimizer=torch.optim.AdamW, **kwargs):
    model = net(seed)
    return {"model": model, "optimizer": optimizer(model.parameters(), lr=0.01, **kwargs)}


def train(state, steps=3, seed=1):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        x = torch.randn(16, 4, generator=generator)
        state["optimizer"].zero_grad()
        state["model"](x).square().mean().backward()
        state["optimizer"].step()
    return state


# torch


OPTIMIZERS = [
    (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    (torch.optim.Adam, {"amsgrad": True}),
    (torch.optim.AdamW, {}),
    (torch.optim.AdamW, {"foreach": True}),
    (torch.optim.AdamW, {"fused": True}),
    (torch.optim.AdamW, {"capturable": False, "weight_decay": 0.1}),
    (torch.optim.RMSprop, {"momentum": 0.5, "centered": True}),
    (torch.optim.Adagrad, {}),
    (torch.optim.Rprop, {}),
    (torch.optim.NAdam, {}),
    (torch.optim.RAdam, {}),
]


@pytest.mark.parametrize(("optimizer", "kwargs"), OPTIMIZERS, ids=lambda x: getattr(x, "__name__", str(x)))
def test_restored_goes_on_exactly_like_resident(optimizer, kwargs):
    resident = train(learner(0, optimizer, **kwargs))
    restored = restore(learner(1, optimizer, **kwargs), resident)
    assert digest(restored) == digest(resident)
    assert digest(train(restored)) == digest(train(resident))


@pytest.mark.parametrize(("optimizer", "kwargs"), OPTIMIZERS, ids=lambda x: getattr(x, "__name__", str(x)))
def test_a_newborn_in_used_objects_is_a_newborn(optimizer, kwargs):
    used = train(learner(0, optimizer, **kwargs))
    fresh = learner(5, optimizer, **kwargs)
    loaded = restore(used, fresh)
    assert (
        loaded["optimizer"].state.keys() == fresh["optimizer"].state.keys() == set() or optimizer is torch.optim.Adagrad
    )
    assert digest(loaded) == digest(fresh)
    assert digest(train(loaded)) == digest(train(fresh))


def test_what_no_state_dict_says_is_restored_too():
    """Whether a module trains, and that nothing is left of the gradients of whoever was in these objects before."""
    trained = learner(0)
    trained["model"].eval()
    trained["model"][0].train()
    used = train(learner(1))
    restored = restore(used, trained)
    assert [m.training for m in restored["model"].modules()] == [False, True, False, False, False]
    assert all(p.grad is None for p in restored["model"].parameters())
    restored["model"].eval()
    assert all(m.training for m in restore(restored, learner(2))["model"].modules())
    assert digest(learner(0)) != digest(trained)


def test_another_class_is_refused():
    trained = train(learner(0, torch.optim.SGD))
    live = learner(0, torch.optim.AdamW)
    with pytest.raises(StateError, match=r"state\['optimizer'\].*SGD.*AdamW.*structural=True"):
        ps.load(live, stored(ps.save(trained, ps.made(trained))), ps.made(live))


def test_everything_is_filled_in_place():
    state = learner(1)
    state["w"] = torch.zeros(3, requires_grad=True)
    state["a"] = np.zeros(3)
    optimizer = torch.optim.SGD([state["w"]], lr=1.0)
    before = dict(state)
    parameters = [p.data_ptr() for p in state["model"].parameters()]
    trained = {**train(learner(0)), "w": torch.ones(3, requires_grad=True), "a": np.arange(3.0)}
    loaded = restore(state, trained)
    assert loaded is state
    assert all(loaded[key] is before[key] for key in before)
    assert parameters == [p.data_ptr() for p in loaded["model"].parameters()]
    assert loaded["w"].requires_grad
    assert loaded["w"].is_leaf
    loaded["w"].sum().backward()
    optimizer.step()
    assert torch.equal(loaded["w"].detach(), torch.zeros(3))
    assert np.array_equal(loaded["a"], np.arange(3.0))


def test_the_saved_tree_is_never_aliased():
    trained = train({**learner(0), "w": torch.ones(2), "a": np.ones(2), "list": [], "extra": None})
    trained["list"], trained["extra"] = [np.zeros(2), [1]], {"t": torch.zeros(2)}
    saved = stored(ps.save(trained))
    before = b"".join(codec.encode(saved))
    for _ in range(2):
        live, _ = ps.load({**learner(1), "w": torch.zeros(2), "a": np.zeros(2), "list": [], "extra": None}, saved)
        train(live)
        for array in (live["w"], live["a"], live["list"][0], live["extra"]["t"]):
            array += 7
        live["list"][1].append(2)
        live["optimizer"].param_groups[0]["lr"] = 9
        assert b"".join(codec.encode(saved)) == before


class OwnState(nn.Module):
    """A module that keeps what load_state_dict gives it."""

    def __init__(self):
        super().__init__()
        self.extra = torch.zeros(2)
        self.w = nn.Parameter(torch.zeros(2))

    def get_extra_state(self):
        return self.extra

    def set_extra_state(self, state):
        self.extra = state


def test_a_module_that_keeps_what_it_is_given_gets_a_copy():
    trained = {"m": OwnState()}
    trained["m"].extra += 3
    saved = stored(ps.save(trained))
    live, _ = ps.load({"m": nn.ModuleList([OwnState()])[0]}, saved)
    live["m"].extra += 1
    assert saved["state"]["m"]["_extra_state"].tolist() == [3, 3]


def test_tied_weights_stay_tied():
    def tied(seed):
        model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6))
        nn.init.normal_(model[0].weight, generator=torch.Generator().manual_seed(seed))
        model[1].weight = model[0].weight
        return {"model": model, "w": model[0].weight}

    trained = tied(0)
    restored = restore(tied(1), trained)
    assert restored["w"] is restored["model"][0].weight is restored["model"][1].weight
    assert digest(restored) == digest(trained)


def test_sharing_among_arrays_follows_what_was_saved():
    one = np.arange(3.0)
    shared = restore({"a": np.zeros(3), "b": np.zeros(3)}, {"a": one, "b": one})
    assert shared["a"] is shared["b"]
    zero = np.zeros(3)
    apart = restore({"a": zero, "b": zero}, {"a": one, "b": one + 1})
    assert apart["a"].tolist() == [0, 1, 2]
    assert apart["b"].tolist() == [1, 2, 3]


def test_low_precision_compiled_and_scaled():
    def make(seed):
        model = net(seed).to(torch.bfloat16)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**seed)
        return {
            "model": torch.compile(model),
            "plain": model,
            "scaler": scaler,
            "ema": torch.optim.swa_utils.AveragedModel(model),
        }

    trained = make(3)
    restored = restore(make(5), trained)
    assert restored["scaler"].get_scale() == trained["scaler"].get_scale() == 8
    assert digest(restored) == digest(trained)
    assert next(restored["plain"].parameters()).dtype == torch.bfloat16


# NumPy, JAX, plain values


class Record(NamedTuple):
    w: Any
    n: int


@dataclasses.dataclass
class Box:
    w: Any
    log: list
    act: Any = np.tanh


@dataclasses.dataclass(frozen=True)
class Frozen:
    w: Any
    n: int

    def __post_init__(self):
        assert self.n >= 0


@jax.tree_util.register_pytree_node_class
class Pair:
    def __init__(self, a, b, name):
        self.a, self.b, self.name = a, b, name

    def tree_flatten(self):
        return (self.a, self.b), self.name

    @classmethod
    def tree_unflatten(cls, name, children):
        return cls(*children, name)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Layer:
    w: Any
    act: Any = dataclasses.field(metadata={"static": True})


def test_all_kinds_of_containers():
    def make(x):
        return {
            "tuple": (np.full(2, x), [x, "s"]),
            "record": Record(jnp.full(2, x), x),
            "box": Box(np.full(2, x), [x]),
            "frozen": Frozen(np.full(2, x), x),
            "pair": Pair(jnp.full(2, x), {"n": x}, "pair"),
            "layer": Layer(jnp.full(2, float(x)), jax.nn.relu),
            "ordered": OrderedDict(a=np.full(2, x)),
            "default": defaultdict(list, {"a": [x]}),
            "counter": Counter({"a": x}),
            "deque": deque([x] * (x + 1), maxlen=9),
            "set": set(range(x)),
            "plain": [
                None,
                True,
                1.5,
                "text",
                b"bytes",
                1j,
                np.float32(x),
                torch.float16,
                torch.Size([x]),
                bytearray(b"x"),
            ],
            (1, "key"): x,
        }

    live = make(1)
    restored = restore(live, make(3))
    assert restored is live
    assert digest(restored) == digest(make(3))
    for key, value in make(3).items():
        assert type(restored[key]) is type(value), key
    assert restored["box"].act is np.tanh
    assert restored["default"]["new"] == []
    assert restored["layer"].act is jax.nn.relu
    assert restored["pair"].name == "pair"
    assert isinstance(restored["pair"].a, jax.Array)
    assert restored["deque"].maxlen == 9


def test_plain_values_come_back_as_saved():
    live = {"n": 0, "best": None, "history": [], "counts": {"a": 1}, "name": "x", "t": (1, 2)}
    trained = {
        "n": 3, "best": {"score": 1.5, "w": np.ones(2)}, "history": [{"loss": 1.0}, {"loss": 0.5}], "counts": {"b": 2, "c": 3},
        "name": "y", "t": (3, 4), "epoch": 7, "seen": [1, 2],
    }  # fmt: skip
    restored = restore(live, copy.deepcopy(trained))
    assert digest(restored) == digest(trained)
    assert restored["epoch"] == 7


def test_numbers_that_a_step_turned_into_arrays():
    restored = restore(
        {"step": 0, "loss": jnp.zeros(()), "w": np.zeros(2)}, {"step": jnp.asarray(3), "loss": 0.5, "w": jnp.ones(2)}
    )
    assert isinstance(restored["step"], jax.Array)
    assert restored["step"].weak_type
    assert restored["loss"] == 0.5
    assert isinstance(restored["w"], jax.Array)


def test_jax_training_goes_on():
    tx = optax.chain(optax.clip(1.0), optax.adamw(optax.exponential_decay(0.1, 3, 0.9)))

    def make(seed):
        params = {"w": jax.random.normal(jax.random.key(seed), (3, 2)), "b": jnp.zeros(2, jnp.bfloat16)}
        return {"params": params, "opt": tx.init(params), "key": jax.random.key(seed), "step": jnp.zeros((), jnp.int32)}

    traces = []

    @jax.jit
    def step(state):
        traces.append(1)
        key, sub = jax.random.split(state["key"])
        noise = jax.random.normal(sub, (3,))
        grads = jax.grad(lambda p: ((noise @ p["w"] + p["b"].astype(jnp.float32)) ** 2).sum())(state["params"])
        updates, opt = tx.update(grads, state["opt"], state["params"])
        return {
            "params": optax.apply_updates(state["params"], updates),
            "opt": opt,
            "key": key,
            "step": state["step"] + 1,
        }

    resident = step(step(make(0)))
    restored = restore(make(1), resident)
    assert jax.tree.structure(restored) == jax.tree.structure(resident)
    traced = len(traces)
    compiled = step._cache_size()
    assert digest(step(restored)) == digest(step(resident))
    assert len(traces) == traced  # nothing is traced or compiled again
    assert step._cache_size() == compiled


def test_jax_buffers_can_be_donated_after_a_load():
    saved = stored(ps.save({"w": jnp.arange(3.0)}))
    step = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    for _ in range(2):
        live, _ = ps.load({"w": jnp.zeros(3)}, saved)
        step(live)
    assert saved["state"]["w"].tolist() == [0, 1, 2]


def test_jax_arrays_stay_where_init_put_them():
    sharding = jax.sharding.NamedSharding(jax.make_mesh((1,), ("x",)), jax.sharding.PartitionSpec("x"))
    live = {"w": jax.device_put(jnp.zeros(4), sharding)}
    restored = restore(live, {"w": jnp.arange(4.0)})
    assert restored["w"].sharding == sharding
    assert restored["w"].tolist() == [0, 1, 2, 3]


def test_random_generators_go_on():
    def make(seed):
        return {
            "np": np.random.default_rng(seed), "philox": np.random.Generator(np.random.Philox(seed)),
            "old": np.random.RandomState(seed), "py": random.Random(seed), "torch": torch.Generator().manual_seed(seed),
        }  # fmt: skip

    def draw(s):
        return [
            s["np"].random(),
            s["philox"].normal(),
            s["old"].normal(),
            s["py"].gauss(0, 1),
            torch.rand(1, generator=s["torch"]).item(),
        ]

    trained = make(1)
    draw(trained)
    restored = restore(make(2), trained)
    assert digest(restored) == digest(trained)
    assert draw(restored) == draw(trained)
    with pytest.raises(StateError, match=r"state\['np'\].*another generator"):
        ps.load({"np": np.random.Generator(np.random.Philox(1))}, stored(ps.save({"np": np.random.default_rng(1)})))


def test_a_state_need_not_be_a_dict():
    for make in (lambda x: net(x), lambda x: np.full(2, x), lambda x: (np.full(2, x), x), lambda x: x, lambda x: None):
        assert digest(restore(make(1), make(2))) == digest(make(2))


# Errors


class Opaque:
    pass


@pytest.mark.parametrize(
    ("state", "path"),
    [
        ({"buffer": [Opaque()]}, r"state\['buffer'\]\[0\] is of type .*Opaque"),
        ({"box": Box([1, {"x": Opaque()}], [])}, r"state\['box'\]\.w\[1\]\['x'\]"),
        ({"record": Record(Opaque(), 1)}, r"state\['record'\]\.w"),
        ({"pair": Pair(1, Opaque(), "")}, r"state\['pair'\]"),
        (Opaque(), r"state is of type"),
        ({"f": lambda: 0}, "function"),
        ({"d": deque([Opaque()])}, r"state\['d'\]"),
        ({"net": nn.Linear}, "type"),
    ],
)
def test_what_cannot_be_saved_is_named_with_its_ways(state, path):
    for act in (ps.save, ps.check):
        with pytest.raises(StateError, match=path) as error:
            act(state)
        assert all(way in str(error.value) for way in ("state_dict", "Part", "Local", "arrays"))


def test_a_loop_in_a_state_is_found():
    loop = []
    loop.append(loop)
    for act in (ps.save, ps.check):
        with pytest.raises(StateError, match="contains itself"):
            act({"loop": loop})


MISFITS = [
    (
        {"model": net(0, 16)},
        {"model": net(0, 8)},
        r"state\['model'\] .*Sequential.* size mismatch for 0.weight.*and \d+ more",
    ),
    ({"model": nn.Linear(2, 2)}, {"model": net()}, r"state\['model'\]"),
    ({"a": np.zeros(3)}, {"a": np.zeros(4)}, r"state\['a'\].*shape \[4\].*shape \[3\]"),
    ({"a": np.zeros(3)}, {"a": np.zeros(3, "f4")}, "float32.*float64"),
    ({"a": torch.zeros(3)}, {"a": torch.zeros(3, dtype=torch.int32)}, "torch.int32.*torch.float32"),
    ({"a": jnp.zeros(3)}, {"a": jnp.zeros((3, 1))}, r"\[3, 1\]"),
    ({"a": 1}, {"a": {"b": 1}}, "a dict with 1 keys"),
    ({"a": {"b": 1}}, {"a": 1}, r"1 \(int\)"),
    ({"a": [np.zeros(2), net()]}, {"a": [np.zeros(2)]}, "list of length 1"),
    ({"a": np.zeros(2), "b": np.zeros(2)}, {"a": np.zeros(2)}, "checkpoint has no 'b'"),
    ({"a": np.zeros(2)}, {"a": np.zeros(2), "b": np.zeros(2)}, "checkpoint has 'b'"),
    (
        learner(),
        {**learner(), "optimizer": torch.optim.SGD([nn.Parameter(torch.zeros(1))], 0.1)},
        r"state\['optimizer'\]",
    ),
]


@pytest.mark.parametrize(("live", "trained", "said"), MISFITS)
def test_what_does_not_fit_is_named_with_advice(live, trained, said):
    with pytest.raises(StateError, match=said) as error:
        ps.load(live, stored(ps.save(trained)))
    assert "structural=True" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_tree_of_another_making():
    for saved in ({"x": 1}, None, [1]):
        with pytest.raises(StateError, match="not what `save` gives"):
            ps.load({"x": 1}, saved)
    for made in (None, 3, [], {"options": 3, "hypers": {}, "other": 1}):
        ps.load(learner(), {**stored(ps.save(learner())), "made": made, "evaluating": made})
