"""What `init` sets, wins: on real optimizers and schedulers, rebuilt or reused, whatever the hyperparameter is called."""

import copy
from collections import Counter

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler as schedulers

from phyla import state as ps
from phyla.checkpoints import codec
from phyla.state import Changed, carry

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


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_copies_of_copies(scheduler):
    """A second copy starts from what the first one set, also where objects are reused, and in whatever process."""
    init = init_for("Adam", scheduler)
    donor = init({"lr": A})
    made = ps.made(donor, {"lr": A})
    train(donor, 3)
    saved = stored(ps.save(donor, made))
    course = [lr_of(donor), *train(copy.deepcopy(donor), 3)[1:]]
    first, _, made = reused(init, {"lr": B}, saved)
    saved = stored(ps.save(first, made))
    second, _, made = reused(init, {"lr": A / 2}, saved)
    other, _, made_elsewhere = reused(init, {"lr": A / 2}, saved, live_hypers={"lr": 0.777})
    assert digest(second, made) == digest(other, made_elsewhere)  # bit by bit, whoever reused what
    assert train(second, 3) == pytest.approx([rate / 2 for rate in course], rel=1e-6)


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


def test_an_agent_is_reused():
    hypers, live_hypers = {"lr": B, "other": 1}, {"lr": 0.5, "other": 2}

    def apply(state, member):
        assert state["agent"].updates == 0

    for f in (None, apply):
        donor = {"agent": Agent(A)}
        made = ps.made(donor, {"lr": A, "other": 3})
        donor["agent"].actor_optimizer.step()
        donor["agent"].schedule.step()
        saved = stored(ps.save(donor, made))
        state = {"agent": Agent(0.5)}
        now = ps.made_for(state, ps.made(state, live_hypers), saved, hypers, f, hypers)
        state, _ = ps.load(state, saved, now)
        assert state["agent"].actor_optimizer.param_groups[0]["lr"] == pytest.approx(B / 2)
        assert state["agent"].schedule.base_lrs == [B]


# Reuse


def test_apply_sets_what_no_name_does():
    def init(hypers):
        model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Dropout(hypers["p"]))
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=1e-3, betas=(hypers["b1"], 0.999), weight_decay=0.1 * hypers["wd"]
        )
        scheduler = schedulers.CosineAnnealingLR(optimizer, 10, eta_min=hypers["floor"])
        return {"model": model, "optimizer": optimizer, "scheduler": scheduler}

    def apply(state, member):
        state["model"][1].p = member["p"]
        state["scheduler"].eta_min = member["floor"]
        for group in state["optimizer"].param_groups:
            group["betas"] = (member["b1"], 0.999)
            group["weight_decay"] = 0.1 * member["wd"]

    then = {"p": 0.1, "b1": 0.9, "wd": 0.3, "floor": 1e-5}
    now = {"p": 0.5, "b1": 0.8, "wd": 0.7, "floor": 1e-6}
    donor = init(then)
    saved = stored(ps.save(donor, ps.made(donor, then)))
    expected = init(now)
    expected, _ = ps.load(expected, saved, ps.made(expected, now))
    for live_hypers in ({"p": 0.0, "b1": 0.5, "wd": 0.1, "floor": 0.0}, dict(now), dict(then), {**then, "wd": 0.7}):
        state = init(live_hypers)
        made = ps.made_for(state, ps.made(state, live_hypers), saved, now, apply, now)
        state, changes = ps.load(state, saved, made)
        assert state["model"][1].p == 0.5
        assert digest(state) == digest(expected)
        assert {change.option for change in changes} == {"betas", "weight_decay", "eta_min"}


@pytest.mark.parametrize("reference", ["lr", "max_lr"])
def test_one_cycle_reused_however_apply_sets_it(reference):
    init = init_for("AdamW", "OneCycleLR", "eta")

    def apply(state, member):
        for group in state["optimizer"].param_groups:
            group[reference] = member["eta"]

    donor = init({"eta": A})
    made = ps.made(donor, {"eta": A})
    train(donor)
    saved = stored(ps.save(donor, made))
    course = train(donor, 3)
    digests = set()
    for live in (0.011, B, A):
        state, _, now = reused(init, {"eta": B}, saved, apply, live_hypers={"eta": live})
        digests.add(digest(state, now))
        assert train(state, 3) == pytest.approx([rate * B / A for rate in course], rel=1e-6)
    assert len(digests) == 1


def test_apply_finds_the_options_that_init_had_set():
    init = init_for("SGD", "LinearLR", "eta")
    state = init({"eta": A})
    live = ps.made(state, {"eta": A})
    train(state)
    state["optimizer"].param_groups[0].update(lr=77.0, weight_decay=88.0)
    saved = stored(ps.save(init({"eta": A}), live))
    seen = []

    def apply(state, member):
        group = state["optimizer"].param_groups[0]
        seen.append((group["lr"], group["initial_lr"], group["weight_decay"], state["scheduler"].last_epoch, member))
        group["lr"] *= 0.5  # half of what init sets

    for _ in range(2):
        made = ps.made_for(state, live, saved, {"eta": A}, apply, "member")
        state, _ = ps.load(state, saved, made)
        assert state["optimizer"].param_groups[0]["initial_lr"] == pytest.approx(A / 2)
        assert lr_of(state) == pytest.approx(0.05 * A)
    assert seen == [(A, A, 0, 0, "member")] * 2


def test_an_option_that_only_shares_a_name_moves_in_proportion():
    def init(hypers):
        return {
            "optimizer": torch.optim.SGD(
                [{"params": [parameter()], "lr": 10 * hypers["lr"]}, {"params": [parameter()]}], lr=hypers["lr"]
            )
        }

    donor = init({"lr": A})
    saved = stored(ps.save(donor, ps.made(donor, {"lr": A})))
    state, _, _ = (lambda s: (*ps.load(s, saved, ps.made_for(s, ps.made(s, {"lr": 0.5}), saved, {"lr": B})), 0))(
        init({"lr": 0.5})
    )
    rates = [group["lr"] for group in state["optimizer"].param_groups]
    assert rates == pytest.approx([10 * B, B])
    assert rates[1] == B


def test_a_checkpoint_of_a_run_with_other_names():
    """`Population(start=…)`: the other run called it eta."""
    donor = init_for("AdamW", "LinearLR", "eta")({"eta": A})
    saved = stored(ps.save(donor, ps.made(donor, {"eta": A})))
    for load in (rebuilt, reused):
        state, _, _ = load(init_for("AdamW", "LinearLR"), {"lr": B}, saved)
        assert state["optimizer"].param_groups[0]["initial_lr"] == pytest.approx(B)
        assert lr_of(state) == pytest.approx(B / 10)


def test_values_that_are_no_numbers():
    def init(hypers):
        return {"optimizer": torch.optim.SGD([parameter()], lr=0.1, momentum=0.9, nesterov=hypers["nesterov"])}

    donor = init({"nesterov": True})
    saved = stored(ps.save(donor, ps.made(donor, {"nesterov": True})))
    for live in (True, False):
        state = init({"nesterov": live})
        now = ps.made_for(state, ps.made(state, {"nesterov": live}), saved, {"nesterov": False})
        state, changes = ps.load(state, saved, now)
        assert state["optimizer"].param_groups[0]["nesterov"] is False
        assert changes == [Changed("state['optimizer']", ("param_groups", 0, "nesterov"), True, False)]


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


# carry, by itself

numbers = st.one_of(st.floats(1e-6, 1e6), st.integers(1, 10**6))
values = st.one_of(numbers, st.none(), st.booleans(), st.text(max_size=3), st.floats(), st.tuples(numbers, numbers))
options = st.dictionaries(
    st.sampled_from(["lr", "initial_lr", "betas", "eps", "gamma", "base_lrs", "_last_lr", "T_max"]), values
)
trees = st.recursive(
    st.one_of(values, options), lambda c: st.one_of(st.lists(c, max_size=3), st.dictionaries(st.text(max_size=2), c))
)


@given(trees, trees)
@settings(max_examples=60, deadline=None)
def test_what_init_makes_as_before_is_untouched(saved, made):
    before = repr(saved)
    assert carry(saved, made, copy.deepcopy(made)) is saved
    assert repr(saved) == before


@given(trees, trees, trees)
@settings(max_examples=80, deadline=None)
def test_carry_takes_anything(saved, then, now):
    before = repr((saved, then, now))
    carry(saved, then, now)
    assert repr((saved, then, now)) == before


@given(options, st.data())
@settings(max_examples=100, deadline=None)
def test_what_was_not_moved_becomes_exactly_what_init_makes(then, data):
    now = {key: data.draw(values) if data.draw(st.booleans()) else value for key, value in then.items()}
    saved = copy.deepcopy(then)
    carried = carry(saved, then, now)
    for key in now.keys() - {"lr", "_last_lr"}:
        if type(then[key]) in (int, float) and type(now[key]) in (int, float) and then[key] == then[key]:
            assert repr(carried[key]) == repr(now[key]) or carried[key] == then[key] == now[key]


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6), st.floats(1e-6, 1e6), st.floats(1e-6, 1e6))
def test_ratios_compose(saved, a, b, c):
    once = carry({"x": saved}, {"x": a}, {"x": c})["x"]
    twice = carry(carry({"x": saved}, {"x": a}, {"x": b}), {"x": b}, {"x": c})["x"]
    assert twice == pytest.approx(once, rel=1e-9)
    back = carry(carry({"x": saved}, {"x": a}, {"x": b}), {"x": b}, {"x": a})["x"]
    assert back == pytest.approx(saved, rel=1e-9)


@given(st.floats(0, 10), st.floats(1e-3, 10), st.floats(1e-3, 10), st.floats(0, 10))
def test_a_scheduled_rate_goes_by_its_base(rate, then, now, start):
    assume(then != now)
    saved = {"lr": rate, "initial_lr": then, "_": 0}
    carried = carry(saved, {"lr": start * then, "initial_lr": then}, {"lr": start * now, "initial_lr": now})
    assert carried["initial_lr"] == now
    assert carried["lr"] == pytest.approx(rate * now / then)
    assert carried["_"] == 0


def test_where_a_ratio_has_no_meaning_the_new_value_is_taken():
    nan, inf = float("nan"), float("inf")
    for saved, then, now in [
        (0.5, 0.0, 0.1), (0.5, 0, 3), (True, True, False), ("a", "a", "b"), (None, None, 1.0), (1.0, 1.0, None),
        (2.0, inf, 1.0), (1.0, nan, 0.5), ((1, 2), (1, 2), (1, 2, 3)), (5, None, 2), (1, True, 2),
    ]:  # fmt: skip
        assert carry(saved, then, now) == now
    assert carry(7, 2, 4) == 14
    assert type(carry(7, 2, 3)) is int
    assert carry(7, 2, 3) == round(10.5)
    assert carry(nan, 1.0, 2.0) != carry(nan, 1.0, 2.0)
    assert carry({"a": 1}, {}, {"b": 2}) == {"a": 1, "b": 2}
    assert carry({"a": 1}, {"b": 2}, {}) == {"a": 1}
