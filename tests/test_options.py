"""What `init` sets, wins: on real optimizers and schedulers, rebuilt or reused, whatever the hyperparameter is called."""

import copy
from collections import Counter

import pytest
import torch
from torch.optim import lr_scheduler as schedulers

from phyla import state as ps
from phyla.checkpoints import codec
from phyla.state import Changed

A, B = 0.3, 0.07
STEPS = 5


def stored(tree):
    return codec.decode(b"".join(codec.encode(tree)))


def digest(state, made=None):
    return b"".join(codec.encode(ps.save(state, made)))


def parameter():
    return torch.nn.Parameter(torch.ones(3))


OPTIMIZERS = {
    "SGD": lambda p, lr, **kw: torch.optim.SGD(p, lr=lr, **{"momentum": 0.9, **kw}),
    "Adam": lambda p, lr, **kw: torch.optim.Adam(p, lr=lr, **kw),
    "AdamW": lambda p, lr, **kw: torch.optim.AdamW(p, lr=lr, **kw),
}


def sequential(optimizer, lr):
    warm = schedulers.LinearLR(optimizer, 0.1, total_iters=3)
    return schedulers.SequentialLR(optimizer, [warm, schedulers.CosineAnnealingLR(optimizer, 20)], [3])


SCHEDULERS = {
    "none": lambda o, lr: None,
    "LambdaLR": lambda o, lr: schedulers.LambdaLR(o, lambda e: 0.9**e),
    "warm-up from 0": lambda o, lr: schedulers.LambdaLR(o, lambda e: min(1.0, e / 8)),
    "LinearLR": lambda o, lr: schedulers.LinearLR(o, 0.1, total_iters=7),
    "StepLR": lambda o, lr: schedulers.StepLR(o, 2, 0.5),
    "MultiStepLR": lambda o, lr: schedulers.MultiStepLR(o, [2, 4, 7]),
    "ExponentialLR": lambda o, lr: schedulers.ExponentialLR(o, 0.8),
    "PolynomialLR": lambda o, lr: schedulers.PolynomialLR(o, 20),
    "CosineAnnealingLR": lambda o, lr: schedulers.CosineAnnealingLR(o, 12),
    "CosineAnnealingWarmRestarts": lambda o, lr: schedulers.CosineAnnealingWarmRestarts(o, 4, 2),
    "OneCycleLR": lambda o, lr: schedulers.OneCycleLR(o, lr, total_steps=20),
    "CyclicLR": lambda o, lr: schedulers.CyclicLR(o, lr / 10, lr, step_size_up=4),
    "ReduceLROnPlateau": lambda o, lr: schedulers.ReduceLROnPlateau(o, factor=0.5, patience=1),
    "SequentialLR": sequential,
    "ChainedScheduler": lambda o, lr: schedulers.ChainedScheduler(
        [schedulers.LinearLR(o, 0.1, total_iters=4), schedulers.ExponentialLR(o, 0.9)]
    ),
}


def init_for(optimizer, scheduler, name="lr"):
    def init(hypers):
        state = {"w": parameter()}
        state["optimizer"] = OPTIMIZERS[optimizer]([state["w"]], hypers[name])
        state["scheduler"] = SCHEDULERS[scheduler](state["optimizer"], hypers[name])
        return state

    return init


def train(state, steps=STEPS):
    """Steps of training; the learning rate in each."""
    rates = []
    for _ in range(steps):
        rates.append(state["optimizer"].param_groups[0]["lr"])
        state["optimizer"].zero_grad()
        state["w"].square().sum().backward()
        state["optimizer"].step()
        if isinstance(state["scheduler"], schedulers.ReduceLROnPlateau):
            state["scheduler"].step(1.0)
        elif state["scheduler"] is not None:
            state["scheduler"].step()
    return rates


def lr_of(state):
    return state["optimizer"].param_groups[0]["lr"]


def rebuilt(init, hypers, saved):
    state = init(hypers)
    made = ps.made(state, hypers)
    return *ps.load(state, saved, made), made


def reused(init, hypers, saved, apply=None, live_hypers=None):
    """Into objects that another member was trained in, with a learning rate of its own."""
    live_hypers = live_hypers or {**hypers, **{name: 0.011 for name in ("lr", "eta") if name in hypers}}
    state = init(live_hypers)
    live = ps.made(state, live_hypers)
    train(state, 3)
    made = ps.made_for(state, live, saved, hypers, apply, hypers)
    return *ps.load(state, saved, made), made


def set_lr(state, member):
    for group in state["optimizer"].param_groups:
        group["lr"] = member["eta"]


WAYS = {
    "rebuilt": ("lr", rebuilt),
    "rebuilt, by another name": ("eta", rebuilt),
    "reused": ("lr", reused),
    "reused, apply": ("eta", lambda init, hypers, saved: reused(init, hypers, saved, set_lr)),
    "reused, apply, as the live one was": (
        "eta", lambda init, hypers, saved: reused(init, hypers, saved, set_lr, live_hypers=dict(hypers)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_new_learning_rate_takes_effect_in_the_midst_of_the_donors_course(optimizer, scheduler, way):
    name, load = WAYS[way]
    init = init_for(optimizer, scheduler, name)
    donor = init({name: A})
    made = ps.made(donor, {name: A})
    train(donor)
    saved = stored(ps.save(donor, made))
    course = [lr_of(donor), *train(copy.deepcopy(donor), STEPS + 1)[1:]]

    state, changes, _ = load(init, {name: B}, saved)
    expected = [rate * B / A for rate in course]
    assert lr_of(state) == pytest.approx(expected[0], rel=1e-12)
    assert train(state, STEPS + 1) == pytest.approx(expected, rel=1e-6)
    assert changes
    assert ps.fell_back(state, changes) == []

    # With the donor's own hyperparameters nothing is touched
    state, changes, again = load(init, {name: A}, saved)
    assert changes == []
    assert digest(state, again) == digest(donor, made)
    train(state)
    train(donor)
    assert digest(state, again) == digest(donor, made)


@pytest.mark.parametrize("way", ["rebuilt", "reused", "reused, apply"])
def test_a_newborn_is_what_init_made(way):
    name, load = WAYS[way]
    for scheduler in SCHEDULERS:
        init = init_for("SGD", scheduler, name)
        fresh = init({name: B})
        made = ps.made(fresh, {name: B})
        state, changes, again = load(init, {name: B}, stored(ps.save(fresh, made)))
        assert changes == []
        assert not state["optimizer"].state
        assert digest(state, again) == digest(fresh, made)


# Other options


@pytest.mark.parametrize("load", [rebuilt, reused])
def test_weight_decay_momentum_and_betas(load):
    def init(hypers):
        w = parameter()
        groups = [{"params": [w]}, {"params": [parameter()], "weight_decay": 0.0}]
        optimizer = torch.optim.SGD(groups, lr=0.1, momentum=hypers["momentum"], weight_decay=hypers["weight_decay"])
        return {"w": w, "optimizer": optimizer, "scheduler": None}

    then, now = {"momentum": 0.9, "weight_decay": 0.01}, {"momentum": 0.5, "weight_decay": 0.1}
    donor = init(then)
    train(donor)
    saved = stored(ps.save(donor, ps.made(donor, then)))
    state, changes, _ = load(init, now, saved)
    one, two = state["optimizer"].param_groups
    assert (one["momentum"], one["weight_decay"], two["weight_decay"], one["lr"]) == (0.5, 0.1, 0.0, 0.1)
    assert {change.option for change in changes} == {"momentum", "weight_decay"}
    one["weight_decay"] = 0.01
    assert ps.fell_back(state, changes) == [
        "weight_decay of state['optimizer'] is 0.01 again, its donor's value, not 0.1",
    ]


def test_betas_one_by_one():
    def init(b1, b2):
        return {"optimizer": torch.optim.Adam([parameter()], betas=(b1, b2))}

    donor = init(0.9, 0.999)
    made = ps.made(donor)
    donor["optimizer"].param_groups[0]["betas"] = (0.45, 0.999)
    state = init(0.8, 0.99)
    state, changes = ps.load(state, stored(ps.save(donor, made)), ps.made(state))
    betas = state["optimizer"].param_groups[0]["betas"]
    assert betas == pytest.approx((0.4, 0.99))
    assert type(betas) is tuple
    assert betas[1] == 0.99
    assert [change.keys for change in changes] == [("param_groups", 0, "betas", 0), ("param_groups", 0, "betas", 1)]
    assert {change.option for change in changes} == {"betas"}


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_one_cycle_goes_on_in_momentum(optimizer):
    def init(hypers):
        state = {"w": parameter()}
        state["optimizer"] = OPTIMIZERS[optimizer]([state["w"]], 0.1)
        state["scheduler"] = schedulers.OneCycleLR(
            state["optimizer"],
            hypers["lr"],
            total_steps=20,
            base_momentum=hypers["low"],
            max_momentum=2 * hypers["low"],
        )
        return state

    def momentum(state):
        group = state["optimizer"].param_groups[0]
        return group["momentum"] if optimizer == "SGD" else group["betas"][0]

    then, now = {"lr": A, "low": 0.4}, {"lr": B, "low": 0.3}
    donor = init(then)
    made = ps.made(donor, then)
    train(donor)
    state, _, _ = rebuilt(init, now, stored(ps.save(donor, made)))
    for _ in range(6):
        assert momentum(state) == pytest.approx(momentum(donor) * 0.75)
        assert lr_of(state) == pytest.approx(lr_of(donor) * B / A)
        train(state, 1)
        train(donor, 1)


def test_what_a_scheduler_is_made_of():
    def init(hypers):
        state = {"w": parameter()}
        state["optimizer"] = OPTIMIZERS["SGD"]([state["w"]], 1.0)
        state["scheduler"] = schedulers.StepLR(state["optimizer"], hypers["step_size"], hypers["gamma"])
        return state

    then, now = {"step_size": 4, "gamma": 0.5}, {"step_size": 3, "gamma": 0.1}
    for load in (rebuilt, reused):
        donor = init(then)
        made = ps.made(donor, then)
        train(donor)
        state, changes, _ = load(init, now, stored(ps.save(donor, made)))
        assert {change.option for change in changes} == {"step_size", "gamma"}
        assert train(state, 5) == pytest.approx([0.5, 0.05, 0.05, 0.05, 0.005])


def test_milestones_are_where_init_puts_them():
    def init(milestone):
        optimizer = torch.optim.SGD([parameter()], 1.0)
        return {"optimizer": optimizer, "scheduler": schedulers.MultiStepLR(optimizer, [milestone, 9])}

    donor = init(3)
    state = init(4)
    state, _ = ps.load(state, stored(ps.save(donor, ps.made(donor))), ps.made(state))
    assert state["scheduler"].milestones == Counter({4: 1, 9: 1})


def test_a_tensor_as_learning_rate():
    def init(lr):
        return {"optimizer": torch.optim.AdamW([parameter()], lr=torch.tensor(lr), foreach=False)}

    donor = init(A)
    made = ps.made(donor)
    donor["optimizer"].param_groups[0]["lr"].mul_(0.5)
    saved = stored(ps.save(donor, made))
    state = init(B)
    state, changes = ps.load(state, saved, ps.made(state))
    lr = state["optimizer"].param_groups[0]["lr"]
    assert isinstance(lr, torch.Tensor)
    assert lr.item() == pytest.approx(B / 2)
    assert changes[0].saved == pytest.approx(A / 2)
    assert saved["state"]["optimizer"]["param_groups"][0]["lr"].item() == pytest.approx(A / 2)


class Agent:
    """An object that holds several optimizers behind one state_dict, as RL libraries do."""

    def __init__(self, lr):
        self.actor, self.critic = parameter(), parameter()
        self.actor_optimizer = torch.optim.Adam([self.actor], lr)
        self.critic_optimizer = torch.optim.Adam([self.critic], 1e-3)
        self.schedule = schedulers.LambdaLR(self.actor_optimizer, lambda e: 0.5**e)
        self.seed, self.updates = torch.initial_seed(), 0

    def state_dict(self):
        return {
            "schedule": self.schedule.state_dict(), "actor": {"w": self.actor, "optimizer": self.actor_optimizer.state_dict()},
            "critic_optimizer": self.critic_optimizer.state_dict(), "seed": self.seed, "updates": self.updates,
        }  # fmt: skip

    def load_state_dict(self, saved):
        with torch.no_grad():
            self.actor.copy_(saved["actor"]["w"])
        self.actor_optimizer.load_state_dict(saved["actor"]["optimizer"])
        self.critic_optimizer.load_state_dict(saved["critic_optimizer"])
        self.schedule.load_state_dict(saved["schedule"])
        self.seed, self.updates = saved["seed"], saved["updates"]


def test_options_inside_another_objects_state_dict():
    torch.manual_seed(1)
    donor = {"agent": Agent(A)}
    made = ps.made(donor)
    donor["agent"].actor_optimizer.step()
    donor["agent"].schedule.step()
    donor["agent"].updates = 7
    torch.manual_seed(2)
    state = {"agent": Agent(B)}
    state, changes = ps.load(state, stored(ps.save(donor, made)), ps.made(state))
    agent = state["agent"]
    assert agent.actor_optimizer.param_groups[0]["lr"] == pytest.approx(B / 2)
    assert agent.critic_optimizer.param_groups[0]["lr"] == 1e-3
    assert agent.schedule.base_lrs == [B]
    assert (agent.seed, agent.updates) == (1, 7)  # numbers that are no options come back as saved
    agent.actor_optimizer.step()
    agent.schedule.step()
    assert agent.actor_optimizer.param_groups[0]["lr"] == pytest.approx(B / 4)
    assert ps.fell_back(state, changes) == []


# Reading back


@pytest.mark.parametrize("scheduler", ["LambdaLR", "OneCycleLR", "CosineAnnealingLR", "none"])
def test_a_donors_course_that_comes_back_is_named(scheduler):
    init = init_for("AdamW", scheduler)
    donor = init({"lr": A})
    made = ps.made(donor, {"lr": A})
    train(donor)
    saved = stored(ps.save(donor, made))
    state, changes, _ = rebuilt(init, {"lr": B}, saved)
    train(state)
    assert ps.fell_back(state, changes) == []
    state["optimizer"].load_state_dict(saved["state"]["optimizer"])  # as a loop might
    if state["scheduler"] is not None:
        state["scheduler"].load_state_dict(saved["state"]["scheduler"])
    faults = ps.fell_back(state, changes)
    assert any(
        ("lr of state['optimizer'] is 0.3" if scheduler == "none" else "base_lrs of state['scheduler']") in f
        for f in faults
    )
    assert all("again" in fault for fault in faults)


def test_nothing_is_said_of_what_a_loop_took_away():
    state, changes = {"x": 1}, [Changed("state['optimizer']", ("param_groups", 0, "lr"), A, B)]
    assert ps.fell_back(state, changes) == []
    assert ps.fell_back({"optimizer": torch.optim.SGD([parameter()], A)}, changes) != []
    assert ps.fell_back({"optimizer": torch.optim.SGD([parameter()], A)}, []) == []
