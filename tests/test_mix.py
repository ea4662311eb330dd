"""Shrink and perturb: weights are so much of a report's and so much of new ones; all else is new."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import msgspec
import numpy as np
import optax
import pytest
import torch
from torch import nn

import phyla
import scripts
from journals_by_hand import Story
from phyla import state as ps
from phyla.checkpoints import codec
from phyla.decide import decide
from phyla.doctor import examine
from phyla.errors import SettingsError, StateError
from phyla.events import Claimed, Recorded, Ref
from phyla.states import Live, States
from phyla.strategies.contract import FRESH, KEEP, Decision, Mix
from phyla.testing.simulation import Faults, Simulation, outcome
from phyla.view import View

OLD, FRESH_SHARE = 0.5, 0.25
"""Powers of two: their multiples are exact, so a sum is the same in whatever order it is computed."""


def stored(tree: Any) -> Any:
    """Through the bytes of a checkpoint."""
    return codec.decode(b"".join(codec.encode(tree)))


def digest(state: Any) -> bytes:
    return b"".join(codec.encode(ps.save(state)))


def mixed(fresh: Any, trained: Any, old: float = OLD, share: float = FRESH_SHARE) -> Any:
    """What a state becomes that `init` has made, with the weights of one that was trained."""
    made, saved = ps.made(fresh), stored(ps.save(trained, ps.made(trained)))
    return ps.mix(ps.unwrap(fresh), saved, old, share, made)


# torch ----------------------------------------------------------------------------------------------------------------


def learner(seed: int, lr: float = 0.1, kind: Any = torch.optim.Adam, **options: Any) -> dict[str, Any]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    optimizer = kind(model.parameters(), lr=lr, **options)
    return {"model": model, "optimizer": optimizer, "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 2)}


def train(state: dict[str, Any], steps: int = 5) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        state["optimizer"].zero_grad()
        (state["model"](torch.randn(8, 3, generator=generator)) - 1).square().mean().backward()
        state["optimizer"].step()
        state["scheduler"].step()
    return state


@pytest.mark.parametrize(
    ("kind", "options"),
    [(torch.optim.SGD, {"momentum": 0.9}), (torch.optim.Adam, {"amsgrad": True}), (torch.optim.AdamW, {})],
)
def test_parameters_are_mixed_and_buffers_optimizer_and_schedule_are_new(kind: Any, options: dict[str, Any]) -> None:
    trained, fresh = train(learner(0, 0.1, kind, **options)), learner(1, 0.03, kind, **options)
    trained["model"].eval()
    now = mixed(learner(1, 0.03, kind, **options), trained)
    for name, parameter in now["model"].named_parameters():
        old, new = (dict(state["model"].named_parameters())[name] for state in (trained, fresh))
        assert torch.equal(parameter, OLD * old + FRESH_SHARE * new), name
        assert parameter.grad is None
    assert [name for name, _ in now["model"].named_buffers()]
    for (name, buffer), (_, new) in zip(now["model"].named_buffers(), fresh["model"].named_buffers(), strict=True):
        assert torch.equal(buffer, new), name
    assert now["model"].training
    for part in ("optimizer", "scheduler"):
        assert digest(now[part]) == digest(fresh[part]), part
    assert not now["optimizer"].state
    assert now["optimizer"].param_groups[0]["params"][0] is next(now["model"].parameters())  # it trains these weights


def test_a_share_of_all_or_nothing_is_exactly_the_one_or_the_other() -> None:
    trained = train(learner(0))
    new, same = mixed(learner(1), trained, 0, 1), mixed(learner(1), trained, 1, 0)
    assert digest(new) == digest(learner(1))
    for parameter, old in zip(same["model"].parameters(), trained["model"].parameters(), strict=True):
        assert torch.equal(parameter, old)


def test_weights_that_are_shared_are_mixed_once() -> None:
    def make(value: float) -> dict[str, Any]:
        body = nn.Linear(2, 2)
        with torch.no_grad():
            body.weight.fill_(value)
        actor, critic = nn.Sequential(body, nn.Linear(2, 1)), nn.Sequential(body, nn.Linear(2, 3))
        array = np.full(2, value)
        jax_array = jnp.full(2, value)
        return {"a": actor, "c": critic, "w": body.weight, "x": array, "y": [array], "j": jax_array, "k": jax_array}

    now = mixed(make(16.0), make(8.0))
    assert now["w"] is now["a"][0].weight is now["c"][0].weight
    assert now["w"].unique().tolist() == [8.0]  # half of 8, and a quarter of 16
    assert now["x"] is now["y"][0]
    assert now["x"].tolist() == now["k"].tolist() == [8.0, 8.0]
    assert now["j"] is now["k"]


def test_tied_parameters_of_one_module_are_mixed_once_and_stay_tied() -> None:
    def tied(value: float) -> nn.Module:
        model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
        model[1].weight = model[0].weight
        nn.init.constant_(model[0].weight, value)
        return model

    now = mixed(tied(16.0), tied(8.0))
    assert now[0].weight is now[1].weight
    assert now[0].weight.unique().tolist() == [8.0]


def test_what_is_frozen_is_not_shrunk() -> None:
    def make(value: float) -> nn.Module:
        model = nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1))
        for parameter in model.parameters():
            nn.init.constant_(parameter, value)
        model[0].requires_grad_(False)
        return model

    assert [p.item() for p in mixed(make(16.0), make(8.0)).parameters()] == [16.0, 16.0, 8.0, 8.0]


# All kinds of states --------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Box:
    w: Any
    n: int


class Pair(NamedTuple):
    a: Any
    b: Any


def test_arrays_are_weights_wherever_they_stand_and_nothing_else_is() -> None:
    def make(x: float, n: int) -> dict[str, Any]:
        return {
            "numpy": np.full((2, 1), x),
            "torch": torch.full((2,), x),
            "jax": {"deep": [jnp.full(2, x), (jnp.full((), x), n)]},
            "box": Box(np.full(1, x, np.float32), n),
            "pair": Pair(np.full(1, complex(x, x)), "text" * n),
            "half": [
                torch.full((2,), x, dtype=torch.bfloat16),
                jnp.full(2, x, jnp.bfloat16),
                np.full(2, x, np.float16),
            ],
            "counts": [np.full(2, n), torch.full((2,), n), jnp.full(2, n)],
            "plain": [x, n, str(n), None, n > 3, np.float64(x)],
            "key": jax.random.key(n),
            "rng": [np.random.default_rng(n), random.Random(n), torch.Generator().manual_seed(n)],
        }

    now = mixed(make(16.0, 2), make(8.0, 9))
    expected = make(8.0, 2) | {"plain": make(16.0, 2)["plain"]}
    assert digest(now) == digest(expected)
    assert isinstance(now["jax"]["deep"][0], jax.Array)
    assert now["half"][1].dtype == jnp.bfloat16


def test_arrays_are_filled_in_place_where_they_can_be() -> None:
    array, tensor, frozen = np.full(2, 16.0), torch.full((2,), 16.0), np.full(2, 16.0)
    frozen.flags.writeable = False
    trained = {"a": np.full(2, 8.0), "t": torch.full((2,), 8.0), "f": np.full(2, 8.0)}
    now = mixed({"a": array, "t": tensor, "f": frozen}, trained)
    assert now["a"] is array
    assert now["t"] is tensor
    assert now["f"] is not frozen
    assert now["f"].tolist() == array.tolist() == tensor.tolist() == [8.0, 8.0]


def test_what_optax_keeps_is_new_and_so_are_statistics_under_the_name_that_flax_has_for_them() -> None:
    tx = optax.chain(optax.clip(1.0), optax.inject_hyperparams(optax.adamw)(learning_rate=0.1))

    def make(x: float) -> dict[str, Any]:
        params = {"w": jnp.full((2, 2), x)}
        return {"params": params, "opt": tx.init(params), "batch_stats": {"mean": jnp.full(2, x)}}

    trained = make(8.0)
    _, trained["opt"] = tx.update(trained["params"], trained["opt"], trained["params"])
    trained["batch_stats"] = {"mean": jnp.full(2, 3.0)}
    now = mixed(make(16.0), trained)
    assert now["params"]["w"].ravel().tolist() == [8.0] * 4
    assert digest(now["opt"]) == digest(make(16.0)["opt"])
    assert now["batch_stats"]["mean"].tolist() == [16.0, 16.0]


def test_a_part_that_saves_its_attributes_is_looked_into_and_one_with_ways_of_its_own_is_new() -> None:
    class Agent:
        def __init__(self, x: float):
            self.net, self.updates = nn.Linear(1, 1), int(x)
            self.w = np.full(1, x)
            for parameter in self.net.parameters():
                nn.init.constant_(parameter, x)

    def make(x: float) -> dict[str, Any]:
        opaque = phyla.Part(Agent(x), lambda agent: agent.w, lambda agent, w: setattr(agent, "w", w))
        return {"agent": phyla.Part(Agent(x)), "opaque": opaque}

    now = mixed(make(16.0), make(8.0))
    agent, opaque = now["agent"], now["opaque"]
    assert isinstance(agent, Agent)
    assert [agent.w.item(), *(p.item() for p in agent.net.parameters())] == [8.0, 8.0, 8.0]
    assert agent.updates == 16
    assert opaque.w.item() == 16.0


def test_a_local_is_neither_weights_nor_saved_whatever_it_holds() -> None:
    def make(x: float) -> list[Any]:
        return [np.full(1, x), phyla.Local(lambda: np.full(3, x)), {"buffer": phyla.Local(lambda: [np.full(2, x)])}]

    now = mixed(make(16.0), make(8.0))
    assert [now[0].tolist(), now[1].tolist(), now[2]["buffer"][0].tolist()] == [[8.0], [16.0] * 3, [16.0] * 2]


def test_a_state_need_not_be_a_dict() -> None:
    assert mixed(np.full(2, 16.0), np.full(2, 8.0)).tolist() == [8.0, 8.0]
    assert mixed((jnp.full(2, 16.0), 3), (jnp.full(2, 8.0), 4))[1] == 3
    assert mixed(3.0, 4.0) == 3.0
    assert mixed(None, None) is None


def test_what_the_loop_has_added_to_the_state_does_not_matter() -> None:
    trained = {"w": np.full(1, 8.0), "history": [1.0, 2.0, 3.0], "best": {"score": 1.0}, "x": 8.0, "epoch": 7}
    now = mixed({"w": np.full(1, 16.0), "history": [], "best": None, "x": np.full((), 16.0)}, trained)
    assert now == {"w": np.full(1, 8.0), "history": [], "best": None, "x": np.full((), 8.0)}


@pytest.mark.parametrize(
    ("fresh", "trained", "said"),
    [
        ({"w": np.zeros(3)}, {"w": np.zeros(2)}, r"state\['w'\] does not fit: .*shape \[2\].*made.*shape \[3\]"),
        ({"w": [np.zeros(3)]}, {"w": []}, r"state\['w'\]\[0\] does not fit: the checkpoint has None"),
        ({"w": np.zeros(3)}, {"v": np.zeros(3)}, r"state\['w'\] does not fit"),
        ({"w": jnp.zeros(1)}, {"w": "text"}, r"state\['w'\] does not fit: the checkpoint has 'text'"),
        ({"m": nn.Linear(2, 1)}, {"m": nn.Linear(3, 1)}, r"state\['m'\].weight does not fit: .*\[1, 3\].*\[1, 2\]"),
        ({"m": nn.Linear(2, 1)}, {"m": nn.Linear(2, 1, bias=False)}, r"state\['m'\].bias does not fit"),
        ({"m": nn.Linear(2, 1)}, {"m": np.zeros(2)}, r"state\['m'\] does not fit"),
        ({"m": {"w": np.zeros(1)}}, {"m": np.zeros(1)}, r"state\['m'\]\['w'\] does not fit"),
    ],
)
def test_weights_that_do_not_fit_are_named_with_advice(fresh: Any, trained: Any, said: str) -> None:
    with pytest.raises(StateError, match=said) as caught:
        mixed(fresh, trained)
    assert "structural=True" in str(caught.value)


def test_a_tree_of_another_making_is_refused() -> None:
    with pytest.raises(StateError, match="not what `save` gives"):
        ps.mix(np.zeros(1), {"w": 1}, 1, 1)


@pytest.mark.parametrize("share", [float("nan"), float("inf"), "1", None, True])
def test_shares_are_finite_numbers(share: Any) -> None:
    record = Story(1).train(0)
    with pytest.raises(SettingsError, match="Mix: old must be a finite number"):
        Mix(record, share, 1.0)
    with pytest.raises(SettingsError, match="Mix: fresh must be a finite number"):
        Mix(record, 1.0, share)


# Decisions and the view -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shrinks:
    """Every `every` intervals a member has half of the weights of the next one, and a quarter of new ones."""

    every: int = 2

    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Decision:
        own, peers = view.restorable(member), view.peers(member)
        assert own is not None
        if view.done[member] % self.every:
            return Decision(KEEP, own.hypers)
        other = next((r for r in peers if r.id == (member + 1) % len(view.done)), own)
        return Decision(
            Mix(other, OLD, FRESH_SHARE), {**own.hypers, "lr": float(rng.uniform(0.01, 0.9))}, notes={"n": 1}
        )


@dataclass(frozen=True)
class ShrinksItself:
    def __call__(self, view: View, member: int, rng: np.random.Generator) -> Decision:
        own = view.restorable(member)
        assert own is not None
        return Decision(Mix(own, OLD, FRESH_SHARE), own.hypers)


def test_a_mix_stands_in_the_claim_and_in_the_report() -> None:
    story = Story(2)
    first, second = story.generation(1.0, 2.0)
    claim = story.decide(0, ShrinksItself())
    assert (claim.source, claim.mix, claim.donor) == (first.ref, (OLD, FRESH_SHARE), None)
    record = story.report(0)
    assert record.mixed
    assert record.parent is first
    claim = story.decide(1, Shrinks(every=1))
    assert (claim.source, claim.mix, claim.donor) == (first.ref, (OLD, FRESH_SHARE), first.ref)  # at equal progress
    assert claim.hypers["depth"] == first.hypers["depth"]  # structure follows the weights
    assert not second.mixed


def test_a_lost_claim_repeats_the_mix() -> None:
    story = Story(1)
    story.train(0)
    claim = story.decide(0, ShrinksItself())
    story.fail(0, "lost")
    again = story.decide(0, ShrinksItself())
    assert (again.mix, again.source, again.hypers) == (claim.mix, claim.source, claim.hypers)


def test_a_mix_clears_the_score_window() -> None:
    story = Story(1, window=4)
    story.claim(0)
    story.report(0, 1.0, samples=[1.0, 1.0])
    story.decide(0, ShrinksItself())
    record = story.report(0, 5.0, samples=[5.0])
    assert story.view.samples[0] == [5.0]
    assert record.recent(4) == [5.0]


def test_who_begins_anew_begins_with_other_new_weights_each_time() -> None:
    def fresh(view: View, member: int, rng: np.random.Generator) -> Decision:
        return Decision(FRESH, view.history[member][-1].hypers)

    story = Story(1)
    assert not story.claim(0, None).renews  # it is born
    story.report(0)
    assert not story.claim(0).renews
    story.report(0)
    for strategy, count in ((ShrinksItself(), 1), (fresh, 2)):
        assert story.decide(0, strategy).renews
        story.fail(0, "lost")
        assert story.view.replacements[0] == count - 1
        assert story.decide(0, strategy).renews
        story.report(0)
        assert story.view.replacements[0] == count
    assert not story.claim(0, None, ready=True, replaced=True).renews  # this was counted when its state was lost


def test_a_mix_with_what_is_not_kept_is_refused() -> None:
    story = Story(1, keep=1)
    first = story.train(0, 1.0)
    story.train(0, 2.0)

    def old(view: View, member: int, rng: np.random.Generator) -> Decision:
        return Decision(Mix(first, 1.0, 1.0), first.hypers)

    with pytest.raises(SettingsError, match="is not kept any more"):
        decide(story.view, 0, old)


def test_no_resident_state_is_taken_for_a_mix() -> None:
    states, ref = States(), Ref(0, 3)
    states.keep(ref, Live(np.zeros(1)), 10)
    claim = Claimed(member=0, seq=4, interval=2, worker="w", saw=1, hypers={}, source=ref)
    assert states.holds(claim)
    assert not states.holds(msgspec.structs.replace(claim, mix=(0.5, 0.5)))


# Runs -----------------------------------------------------------------------------------------------------------------

SPACE = {"lr": phyla.Float(1e-3, 1.0, log=True)}
Init = Callable[[Any], Any]


def population(strategy: Any, **options: Any) -> phyla.Population:
    known = {"size": 3, "intervals": 5, "seed": 0, "journal": "memory", "progress": False, "max_lead": 0, "threads": 1}
    return phyla.Population("run", SPACE, strategy=strategy, **{**known, **options})


def sound(run: Any, strategy: Any) -> bool:
    return not list(examine([Recorded(n, e) for n, e in enumerate(run.events(), 1)], run.checkpoints, strategy))


def torch_init(member: Any) -> dict[str, Any]:
    return learner(member.seed, member["lr"], torch.optim.SGD, momentum=0.9)


@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize("strategy", [Shrinks(), ShrinksItself()])
def test_in_a_run_weights_are_mixed_and_all_else_is_new(reuse: bool, strategy: Any) -> None:
    made: dict[tuple[int, int], list[torch.Tensor]] = {}
    ended: dict[Ref, list[torch.Tensor]] = {}
    mixes = 0

    def weights(state: dict[str, Any]) -> list[torch.Tensor]:
        return [parameter.detach().clone() for parameter in state["model"].parameters()]

    def init(member: Any) -> dict[str, Any]:
        state = torch_init(member)
        made.setdefault((member.id, member.interval), weights(state))
        return state

    ours = population(strategy)
    for member in ours:
        state, claim = member.state(init, reuse=reuse), ours.view.open[member.id]
        assert claim is not None
        if claim.mix is not None:
            mixes += 1
            new = made[member.id, member.interval]
            for now, old, fresh in zip(weights(state), ended[claim.source], new, strict=True):
                assert torch.equal(now, OLD * old + FRESH_SHARE * fresh)
            assert state["model"][1].running_mean.tolist() == [0.0] * 4
            assert not state["optimizer"].state
            assert state["scheduler"].last_epoch == 0
        group = state["optimizer"].param_groups[0]
        assert group["initial_lr"] == state["scheduler"].base_lrs[0] == member["lr"]
        train(state, 3)
        member.report(-state["model"][0].weight.detach().square().sum())
        record = ours.view.newest(member.id)
        assert record is not None
        ended[record.ref] = weights(state)
    assert mixes == (6 if isinstance(strategy, Shrinks) else 12)
    assert sound(ours.run, strategy)
    # Each time with other new weights, and never with those that it was born with.
    new = [made[record.id, record.interval][0] for record in ours.run.records if record.mixed or record.parent is None]
    assert len({tuple(one.ravel().tolist()) for one in new}) == 3 + mixes


@pytest.mark.parametrize("array", [np.full, jnp.full])
def test_in_a_run_arrays_are_mixed(array: Any) -> None:
    ours = population(ShrinksItself(), size=2, intervals=3)
    for member in ours:
        w = member.state(lambda newborn: {"w": array(2, 16.0), "n": 0})
        expected = 16.0 if member.interval == 1 else OLD * 8.0 * (member.interval - 1) + FRESH_SHARE * 16.0
        assert w["w"].tolist() == [expected] * 2
        assert w["n"] == 0
        assert member["lr"]
        member.report(member.id, {"w": array(2, 8.0 * member.interval), "n": 5})
    assert sound(ours.run, ShrinksItself())


def test_in_a_run_samples_of_before_a_mix_do_not_count() -> None:
    ours = population(ShrinksItself(), size=2, intervals=3, window=5)
    for member in ours:
        w = member.state(lambda newborn: np.zeros(1))
        member.report([10.0 * member.interval, 10.0 * member.interval], w + member["lr"])
    assert [record.score for record in ours.run.records] == [10.0, 10.0, 20.0, 20.0, 30.0, 30.0]


def test_a_state_that_does_not_fit_is_an_error_that_names_it() -> None:
    def loop() -> None:
        for member in population(ShrinksItself(), size=2):
            member.state(lambda newborn: {"w": np.zeros(newborn.interval)})
            member.report(member["lr"], {"w": np.ones(member.interval)})

    with pytest.raises(StateError, match=r"state\['w'\] does not fit"):
        loop()


def a_loop(ours: phyla.Population, reuse: bool, leaves: Callable[[Claimed], bool] = lambda claim: False) -> bool:
    """Trains; False if it was left in the midst of a turn."""
    for member in ours:
        state, claim = member.state(torch_init, reuse=reuse), ours.view.open[member.id]
        assert claim is not None
        train(state, 2)
        if leaves(claim):
            return False
        member.report(-state["model"][0].weight.detach().square().sum())
    return True


@pytest.mark.parametrize("reuse", [False, True])
def test_a_run_that_is_left_in_every_mix_and_goes_on_comes_to_the_same(tmp_path: Any, reuse: bool) -> None:
    here = {"path": tmp_path, "journal": "sqlite", "size": 2, "intervals": 3}
    ours = population(Shrinks(), **{**here, "path": tmp_path / "whole"})
    assert a_loop(ours, reuse)
    left: set[tuple[int, int]] = set()

    def leaves(claim: Claimed) -> bool:
        place = claim.member, claim.interval
        return claim.mix is not None and place not in left and not left.add(place)

    for _ in range(20):
        if a_loop(again := population(Shrinks(), **here), reuse, leaves):
            break
    assert len(left) == 2
    assert outcome(again.view) == outcome(ours.view)
    assert sound(again.run, Shrinks())


SCRIPT = """
    import sys, numpy as np, phyla
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Shrinks:
        def __call__(self, view, member, rng):
            own = view.restorable(member)
            return phyla.Decision(phyla.Mix(own, 0.5, 0.25), {"lr": float(rng.uniform(0.01, 0.9))})

    def init(member):
        return {"w": np.random.normal(size=3)}

    population = phyla.Population(
        "run", {"lr": phyla.Float(1e-3, 1.0)}, 2, 4, seed=3, max_lead=0, threads=1, path=sys.argv[1], strategy=Shrinks(),
        progress=False, max_lost=100,
    )
    for member in population:
        state = member.state(init)
        state["w"] = state["w"] - member["lr"] * (state["w"] - 1) + np.random.normal(size=3) * 1e-3
        member.report(-float(((state["w"] - 1) ** 2).sum()), state)
"""


def test_a_process_that_is_killed_while_it_trains_a_mix_changes_nothing(tmp_path: Any) -> None:
    script = scripts.write(tmp_path, SCRIPT)
    scripts.succeed(script, tmp_path / "whole")
    killed = scripts.run(script, tmp_path / "killed", env={"PHYLA_FAILPOINT": "publish.trained:crash:3"})
    assert killed.returncode == -9
    (claim,) = (one for one in phyla.open(tmp_path / "killed/run").view.open if one is not None)
    assert claim.mix == (0.5, 0.25)
    scripts.succeed(script, tmp_path / "killed")
    whole, again = (phyla.open(tmp_path / name / "run").view for name in ("whole", "killed"))
    assert any(record.mixed for record in again.records.values())
    assert outcome(again) == outcome(whole)


def test_who_was_born_with_another_runs_weights_is_born_with_none_when_it_begins_anew(tmp_path: Any) -> None:
    first = phyla.Population("first", SPACE, 1, 1, path=tmp_path, progress=False)
    for member in first:
        member.report(1.0, {"w": member.state(lambda newborn: {"w": np.zeros(1)})["w"] + 7 * (member["lr"] > 0)})

    def anew(view: View, member: int, rng: np.random.Generator) -> Decision:
        return Decision(FRESH, view.history[member][-1].hypers)

    begun = []
    for member in population(
        anew, size=1, intervals=2, path=tmp_path, journal="sqlite", start=phyla.open(tmp_path / "first").top(1)
    ):
        w = member.state(lambda newborn: {"w": np.zeros(1)})["w"]
        begun.append(w.item())
        member.report(1.0, {"w": w + member["lr"]})
    assert begun == [7.0, 0.0]


@pytest.mark.parametrize("known", [{}, {"diverges": 4}, {"ready": 2}])
def test_workers_under_bad_luck_mix_the_same_as_one_undisturbed(known: dict[str, Any]) -> None:
    def simulated(seed: int, **more: Any) -> Any:
        simulation = Simulation(seed, strategy=Shrinks(), **known, **more)
        assert not simulation.run(), seed
        assert any(record.mixed for record in simulation.view.records.values())
        return outcome(simulation.view)

    whole = simulated(0, workers=1, faults=Faults.none())
    assert simulated(1, workers=4, faults=Faults(0.03, 0.02, 0.02, 0.03)) == whole
