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
    step = update.of({key: torch.tensor([row[key] for row in rows]) for key in defaults}, 2, torch.device("cpu"))
    alone = [nn.Parameter(start[row].clone()) for row in range(2)]
    theirs = [reference([parameter], **given) for parameter, given in zip(alone, options, strict=True)]
    for turn in range(7):
        gradient = torch.randn(2, 3, generator=torch.Generator().manual_seed(1 + turn))
        step(params, {"w": gradient}, state)
        for row in range(2):
            alone[row].grad = gradient[row].clone()
            theirs[row].step()
    torch.testing.assert_close(params["w"], torch.stack([p.detach() for p in alone]), rtol=2e-5, atol=1e-6)


def test_dropout_drops_as_often_as_the_members_rate_says_and_not_in_evaluation() -> None:
    program = Program(make_model, cross_entropy, DATA, VALIDATION, accuracy, batch=64)
    rates = torch.tensor([0.0, 0.5])
    layer = Dropout("drop")
    x = torch.ones(64, 400)
    for rate in rates:
        layer.given = (rate, torch.rand(64, 400, generator=torch.Generator().manual_seed(0)))
        kept = layer(x)
        assert float((kept == 0).float().mean()) == pytest.approx(float(rate), abs=0.02)
        assert float(kept.mean()) == pytest.approx(1.0, abs=0.05)
    layer.given = None
    assert torch.equal(layer(x), x)
    assert program._shapes == [(64, 16)]


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


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"optimizer": "lion"}, "optimizer='lion'; expected one of 'sgd', 'adam', 'adamw'"),
        ({"path": "fast"}, "path='fast'; expected 'auto', 'bmm' or 'vmap'"),
        ({"batch": 65}, "batch=65; expected from 1 to the 64 examples"),
        ({"options": {"nesterov": 1.0}}, "options= names 'nesterov'"),
        ({"model": Residual, "path": "bmm"}, 'path="bmm" takes a Sequential'),
        (
            {"model": lambda: nn.Sequential(nn.Linear(8, 2), nn.BatchNorm1d(2))},
            "as a buffer, which members would share",
        ),
    ],
)
def test_what_a_program_cannot_be_made_of(given: dict[str, Any], message: str) -> None:
    known = {"model": make_model, "batch": 16, **given}
    with pytest.raises(SettingsError, match=message):
        Program(known.pop("model"), cross_entropy, DATA, VALIDATION, accuracy, **known)
