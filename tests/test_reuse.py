"""Live objects that serve one member after another find in them what `init` would have set, in whatever process."""

import copy

import pytest
import torch
from torch.optim import lr_scheduler as schedulers

from phyla import state as ps
from phyla.state import Changed
from test_options import SCHEDULERS, A, Agent, B, digest, init_for, lr_of, parameter, rebuilt, reused, stored, train


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
