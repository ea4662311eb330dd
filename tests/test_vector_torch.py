"""A population as one torch program comes to what its members come to alone, and its optimizers to what torch's come to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import phyla
from phyla.errors import SettingsError
from phyla.testing.simulation import outcome
from phyla.vector.batched import layers
from phyla.vector.dropout import factors
from phyla.vector.noise import bits, keys, orders
from phyla.vector.optimizers import OPTIMIZERS
from phyla.vector.torch import Dropout, Program, train

X = torch.from_numpy(np.random.default_rng(0).normal(size=(96, 8)).astype(np.float32))
Y = (X[:, 0] + X[:, 1] * X[:, 2] > 0).long()
DATA, VALIDATION = (X[:64], Y[:64]), (X[64:], Y[64:])
SPACE = {
    "lr": phyla.Float(1e-3, 1.0, log=True),
    "weight_decay": phyla.Float(1e-5, 0.1, log=True),
    "drop": phyla.Float(0.0, 0.5),
}


def make_model() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.Tanh(), Dropout("drop"), nn.LayerNorm(16), nn.Linear(16, 2))


class Residual(nn.Module):
    """Of a form that only vmap can take."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.dropout = nn.Linear(8, 8), nn.Linear(8, 2), Dropout("drop")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.dropout(x + torch.tanh(self.first(x))))


def accuracy(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (outputs.argmax(-1) == targets).float().mean() - 0.01 * cross_entropy(outputs, targets)


def trained(cohort: int | None = None, size: int = 6, **given: Any) -> phyla.Population:
    population = phyla.Population(
        "torch", SPACE, size=size, intervals=5, seed=2, max_lead=0, journal="memory", progress=False, threads=1,
        exploit=phyla.Truncation(0.3),
    )  # fmt: skip
    known = {"model": make_model, "batch": 16, **given}
    train(
        population,
        known.pop("model"),
        cross_entropy,
        DATA,
        validation=VALIDATION,
        score=accuracy,
        cohort=cohort,
        **known,
    )
    return population


def decisions(run: phyla.Population) -> dict[Any, Any]:
    return {place: values[2:] for place, values in outcome(run.view).items()}


def scores(run: phyla.Population) -> list[float]:
    return [float(r.score) for history in run.view.history for r in history]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_cohorts_of_any_size_decide_the_same_and_come_to_the_same(optimizer: str) -> None:
    alone, some, together = (trained(size, optimizer=optimizer) for size in (1, 4, None))
    assert decisions(alone) == decisions(some) == decisions(together)
    assert len(alone.run.lineage().copies) > 3
    np.testing.assert_allclose(scores(alone), scores(together), atol=1e-5)
    np.testing.assert_allclose(scores(some), scores(together), atol=1e-5)


def test_both_paths_compute_the_same() -> None:
    np.testing.assert_allclose(
        scores(trained(path="bmm", optimizer="sgd")), scores(trained(path="vmap", optimizer="sgd")), atol=1e-5
    )
    np.testing.assert_allclose(scores(trained(path="bmm")), scores(trained(path="vmap")), atol=1e-5)


def test_a_model_that_is_no_sequential_is_computed_by_vmap() -> None:
    run = trained(model=Residual)
    assert run.best is not None
    assert run.best.score is not None
    assert run.best.score > max(float((Y[64:] == k).float().mean()) for k in (0, 1))


@pytest.mark.parametrize(
    ("name", "reference", "options"),
    [
        ("sgd", torch.optim.SGD, [{"lr": 0.1}, {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1}]),
        ("adam", torch.optim.Adam, [{"lr": 0.1}, {"lr": 0.01, "weight_decay": 0.1}]),
        ("adamw", torch.optim.AdamW, [{"lr": 0.1, "weight_decay": 0.0}, {"lr": 0.01, "weight_decay": 0.3}]),
    ],
)
def test_each_row_moves_as_torchs_own_optimizer_moves_it(
    name: str, reference: Any, options: list[dict[str, float]]
) -> None:
    update = OPTIMIZERS[name]({})
    defaults = {key: 0.0 if value is None else value for key, value in update.defaults.items()}
    rows = [{**defaults, **each} for each in options]
    start = torch.randn(2, 3, generator=torch.Generator().manual_seed(0))
    params = {"w": start.clone()}
    one = update.init({"w": start[0]})
    state = torch.utils._pytree.tree_map(lambda leaf: torch.stack([leaf] * 2), one)
    step = update.of({key: torch.tensor([row[key] for row in rows]) for key in defaults}, params)
    alone = [nn.Parameter(start[row].clone()) for row in range(2)]
    theirs = [reference([parameter], **given) for parameter, given in zip(alone, options, strict=True)]
    for turn in range(7):
        gradient = torch.randn(2, 3, generator=torch.Generator().manual_seed(1 + turn))
        step(params, {"w": gradient}, state)
        for row in range(2):
            alone[row].grad = gradient[row].clone()
            theirs[row].step()
    torch.testing.assert_close(params["w"], torch.stack([p.detach() for p in alone]), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("path", ["bmm", "vmap"])
@pytest.mark.parametrize("loss", [cross_entropy, lambda outputs, targets: cross_entropy(outputs, targets)])
def test_gradients_are_those_of_each_member_alone(path: str, loss: Any) -> None:
    program = Program(make_model, loss, DATA, VALIDATION, accuracy, batch=64, path=path)
    models = [make_model() for _ in range(3)]
    rows = [X[row : 64 + row] for row in range(3)], [Y[row : 64 + row] for row in range(3)]
    params = {
        name: torch.stack([m.get_parameter(name).detach() for m in models]) for name, _ in models[0].named_parameters()
    }
    found = program._gradients(params, *map(torch.stack, rows), [torch.ones(3, 64, 16)])
    for row, (model, x, y) in enumerate(zip(models, *rows, strict=True)):
        cross_entropy(model(x), y).backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(found[name][row], parameter.grad, rtol=1e-4, atol=1e-6)
            assert found[name].is_contiguous()


def test_modules_know_whether_they_train() -> None:
    class Doubled(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x if self.training else 2 * x

    model = nn.Sequential(nn.Linear(8, 2), Doubled())
    program = Program(lambda: model, cross_entropy, DATA, VALIDATION, lambda o, t: o.mean(), batch=64)
    params = {name: p.detach().unsqueeze(0) for name, p in model.named_parameters()}
    once, again = program.scores({"params": params}, *VALIDATION), model[0](VALIDATION[0]).mean().detach()
    assert once.tolist() == pytest.approx([2 * float(again)])
    assert program._model.training


def test_paths_agree_about_models_that_repeat_a_module_or_change_one() -> None:
    """One activation in two places; a hook; a layer that inherits from one that is known."""

    class Twice(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(x)

    def repeated() -> nn.Module:
        activation = nn.ReLU(inplace=True)
        return nn.Sequential(nn.Linear(8, 4), activation, nn.Linear(4, 4), activation, nn.Linear(4, 2), Dropout("drop"))

    def hooked() -> nn.Module:
        model = nn.Sequential(nn.Linear(8, 2), Dropout("drop"))
        model[0].register_forward_hook(lambda module, given, made: made * 3)
        return model

    assert layers(repeated()) is not None
    assert layers(hooked()) is None
    assert layers(nn.Sequential(Twice(8, 2))) is None
    np.testing.assert_allclose(
        scores(trained(model=repeated, path="bmm")), scores(trained(model=repeated, path="vmap")), atol=1e-5
    )


def test_a_tied_layer_is_computed_by_vmap() -> None:
    def tied() -> nn.Module:
        layer = nn.Linear(8, 8)
        return nn.Sequential(layer, nn.Tanh(), layer, Dropout("drop"), nn.Linear(8, 2))

    assert layers(tied()) is None
    assert trained(model=tied).best is not None


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions(optimizer: str, dtype: torch.dtype) -> None:
    data, validation = ((x.to(dtype), y) for x, y in (DATA, VALIDATION))
    run = phyla.Population("torch", SPACE, size=3, intervals=3, seed=0, journal="memory", progress=False, threads=1)
    train(
        run, lambda: make_model().to(dtype), cross_entropy, data, validation=validation, score=accuracy, batch=16,
        optimizer=optimizer,
    )  # fmt: skip
    state = run.stacks.take(0).state
    assert {p.dtype for p in state["params"].values()} == {dtype}
    assert len(set(scores(run))) > 3


@pytest.mark.slow
@pytest.mark.parametrize("path", ["bmm", "vmap"])
def test_a_compiled_program_computes_the_same(path: str) -> None:
    np.testing.assert_allclose(scores(trained(path=path, compile=True)), scores(trained(path=path)), atol=1e-4)


def test_a_compiled_program_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("phyla.vector.torch.COMPILERS", ("g++", "clang++"))
    with pytest.raises(SettingsError, match=r"needs a C\+\+ compiler for a CPU; none of g\+\+, clang\+\+ was found"):
        trained(compile=True)


def test_a_choice_sets_its_value_and_not_its_place() -> None:
    def scored(space: dict[str, Any]) -> list[float]:
        run = phyla.Population("torch", space, size=2, intervals=2, seed=0, journal="memory", progress=False, threads=1)
        train(
            run, make_model, cross_entropy, DATA, validation=VALIDATION, score=accuracy, batch=16,
            options={} if "lr" in space else {"lr": 0.125},
        )  # fmt: skip
        return scores(run)

    drop = phyla.Float(0.2, 0.2 + 1e-9)
    assert scored({"drop": drop, "lr": phyla.Choice(0.125, 0.125 + 1e-12)}) == scored({"drop": drop})


def test_the_metric_test_is_the_score_of_unseen_examples() -> None:
    run = trained(test=VALIDATION)
    assert [r.metrics["test"] for history in run.view.history for r in history] == pytest.approx(scores(run))


# Randomness -----------------------------------------------------------------------------------------------------------

SEEDS = torch.arange(64, dtype=torch.int32) * 1000


def test_a_members_bits_do_not_depend_on_who_is_beside_it() -> None:
    together = bits(keys(SEEDS, 3), 100)
    for member in (0, 17, 63):
        assert torch.equal(bits(keys(SEEDS[member : member + 1], 3), 100)[0], together[member])


def test_bits_are_as_good_as_fair_coins_and_differ_between_members_and_steps() -> None:
    """Each of the 32 bits is set half of the time; no two members, steps or bits go together."""
    drawn = torch.stack([bits(keys(SEEDS, step), 512) for step in range(8)])  # [steps, members, numbers]
    coins = (drawn.unsqueeze(-1) >> torch.arange(32)) & 1
    signs = (2 * coins - 1).double()
    assert float(signs.mean((0, 1, 2)).abs().max()) < 5 / np.sqrt(8 * 64 * 512)
    for axis, count in ((0, 64 * 512 * 32), (1, 8 * 512 * 32), (2, 8 * 64 * 32), (3, 8 * 64 * 512)):
        neighbours = (signs * signs.roll(1, axis)).movedim(axis, 0).flatten(1).mean(1)
        assert float(neighbours.abs().max()) < 5 / np.sqrt(count)


def test_orders_are_permutations_and_members_have_their_own() -> None:
    found = orders(keys(SEEDS, 0), 50)
    assert torch.equal(found.sort(1).values, torch.arange(50).expand(64, 50))
    assert len({tuple(order) for order in found.tolist()}) == 64
    first = torch.bincount(orders(keys(torch.arange(5000, dtype=torch.int32), 0), 5)[:, 0]) / 5000
    assert first.tolist() == pytest.approx([0.2] * 5, abs=0.03)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.97])
def test_dropout_drops_as_often_as_the_members_rate_says(rate: float) -> None:
    (drawn, odd) = factors(
        [torch.tensor([rate, 0.3]), torch.tensor([0.3, rate])], [(64, 401), (3, 5)], keys(SEEDS[:2], 1)
    )
    assert drawn.shape == (2, 64, 401)
    assert odd.shape == (2, 3, 5)
    assert float((drawn[0] == 0).float().mean()) == pytest.approx(rate, abs=0.01)
    assert float((drawn[1] == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    assert drawn[0].max() == pytest.approx(1 / (1 - rate), rel=1e-3)


@pytest.mark.parametrize("path", ["bmm", "vmap"])
def test_nothing_is_dropped_in_evaluation(path: str) -> None:
    program = Program(make_model, cross_entropy, DATA, VALIDATION, accuracy, batch=64, path=path)
    model = make_model()
    params = {name: torch.stack([p.detach(), p.detach()]) for name, p in model.named_parameters()}
    expected = float(accuracy(model(VALIDATION[0]).detach(), VALIDATION[1]))
    for _ in range(2):
        assert program.scores({"params": params}, *VALIDATION).tolist() == pytest.approx([expected] * 2, abs=1e-6)


# Bad input ------------------------------------------------------------------------------------------------------------


def test_a_hyperparameter_that_sets_nothing() -> None:
    space = {**SPACE, "learning_rate": phyla.Float(0.0, 1.0)}
    population = phyla.Population("torch", space, size=2, intervals=1, journal="memory")
    with pytest.raises(SettingsError, match="'learning_rate' set nothing"):
        train(population, make_model, cross_entropy, DATA, validation=VALIDATION, score=accuracy)


def test_an_option_that_nobody_sets_or_two_set() -> None:
    space = {"drop": phyla.Float(0.0, 0.5), "weight_decay": phyla.Float(0.0, 0.5)}
    population = phyla.Population("torch", space, size=2, intervals=1, journal="memory")
    with pytest.raises(SettingsError, match="nobody sets 'lr'"):
        train(population, make_model, cross_entropy, DATA, validation=VALIDATION, score=accuracy)
    with pytest.raises(SettingsError, match="options= sets 'weight_decay', which is a hyperparameter too"):
        train(
            population, make_model, cross_entropy, DATA, validation=VALIDATION, score=accuracy,
            options={"lr": 0.1, "weight_decay": 0.1},
        )  # fmt: skip


def with_a(*modules: nn.Module) -> Any:
    return lambda: nn.Sequential(nn.Linear(8, 8), *modules, nn.Linear(8, 2))


class Noisy(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.randn_like(x)


def frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(8, 2))
    model[0].weight.requires_grad_(False)
    return model


def each(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (outputs.argmax(-1) == targets).float()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"optimizer": "lion"}, "optimizer='lion'; expected one of 'sgd', 'adam', 'adamw'"),
        ({"path": "fast"}, "path='fast'; expected 'auto', 'bmm' or 'vmap'"),
        ({"batch": 65}, "batch=65; expected from 1 to the 64 examples"),
        ({"options": {"nesterov": 1.0}}, "options= names 'nesterov'"),
        ({"model": Residual, "path": "bmm"}, 'path="bmm" takes a Sequential'),
        ({"model": with_a(nn.BatchNorm1d(8))}, "as a buffer, which members would share"),
        ({"model": with_a(nn.Dropout(0.5))}, r"the model has '1', Dropout\(p=0.5.*phyla.vector.torch.Dropout"),
        ({"model": with_a(Noisy())}, "randomness must come from phyla.vector.torch.Dropout"),
        ({"model": frozen}, "'0.weight' requires no gradient"),
        ({"model": nn.ReLU}, "no parameters"),
        ({"model": with_a(*[Dropout("drop")] * 2)}, "use one for each place"),
        ({"data": (X.double(), Y)}, r"the model cannot compute a batch of the data, float64 \[16, 8\] on cpu"),
        ({"data": ((X > 0).long(), Y)}, r"the model cannot compute a batch of the data, int64 \[16, 8\] on cpu"),
        ({"data": (X, Y[:5])}, r"data= has inputs \[96, 8\] and targets \[5\]"),
        (
            {"model": lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(8, 2))},
            "cannot compute a batch of the data",
        ),
        ({"data": X}, "data= must be .inputs .N, ....*two tensors; got Tensor"),
        ({"validation": (X.numpy(), Y)}, "validation= must be"),
        ({"validation": (X[:, :5], Y)}, "the score cannot be computed"),
        (
            {"data": (X, Y.float())},
            r"the loss cannot be computed of outputs, float32 \[16, 2\].*targets, float32 \[16\]",
        ),
        (
            {"loss": lambda o, t: cross_entropy(o, t, reduction="none")},
            r"the loss of one member has the shape \[16\]; expected a scalar",
        ),
        ({"loss": lambda o, t: cross_entropy(o, t).item()}, "the loss cannot be computed"),
        ({"loss": lambda o, t: cross_entropy(o.detach(), t)}, "the loss cannot be computed"),
        ({"score": lambda o, t: accuracy(o, t).item()}, "the score cannot be computed"),
    ],
)
def test_what_a_program_cannot_be_made_of(given: dict[str, Any], message: str) -> None:
    known = {"make_model": make_model, "loss": cross_entropy, "data": DATA, "validation": VALIDATION, "score": accuracy}
    known |= {"batch": 16, **given}
    before = X.clone()
    with pytest.raises(SettingsError, match=message):
        Program(known.pop("model", known.pop("make_model")), **known)
    assert torch.equal(X, before)


@pytest.mark.parametrize(
    ("space", "given", "message"),
    [
        ({"drop": phyla.Float(0.0, 1.0)}, {}, r"'drop' goes from 0.0 to 1.0; a rate of Dropout lies in \[0, 1\)"),
        ({"lr": phyla.Choice("low", "high")}, {}, "'lr' may be 'low'; expected numbers"),
        ({"width": phyla.Int(8, 64, structural=True)}, {}, "'width': structural hyperparameters shape the state"),
        ({"dropout": phyla.Float(0.0, 0.5)}, {}, "'dropout' set nothing: the optimizer takes beta1, beta2, eps, lr"),
        ({}, {"score": each}, "score gives 32 numbers for one member; expected a scalar, such as their mean"),
    ],
)
def test_what_a_population_cannot_be_trained_with(space: dict[str, Any], given: dict[str, Any], message: str) -> None:
    population = phyla.Population("torch", {**SPACE, **space}, size=2, intervals=1, journal="memory", progress=False)
    with pytest.raises(SettingsError, match=message):
        train(
            population, make_model, cross_entropy, DATA, validation=VALIDATION, score=given.get("score", accuracy),
            batch=16,
        )  # fmt: skip


def test_samples_are_scores_where_the_strategy_compares_samples() -> None:
    run = phyla.Population(
        "torch", SPACE, size=4, intervals=2, seed=0, journal="memory", progress=False, threads=1, exploit=phyla.TTest()
    )
    train(run, make_model, cross_entropy, DATA, validation=VALIDATION, score=each, batch=16)
    assert all(len(samples) == run.view.settings.window for samples in run.view.samples)
