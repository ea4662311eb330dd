"""A population as one torch program: stacked parameters, batched layers, and optimizers whose options are tensors [K].

    from phyla.vector.torch import Dropout, train

    train(population, make_model, cross_entropy, (x, y), validation=(x_val, y_val), score=accuracy)

A hyperparameter that is called like an option of the optimizer (lr, weight_decay, momentum, beta1, beta2, eps) sets it,
member by member; one that a `Dropout` names is its rate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from phyla.cohort import Cohort
from phyla.errors import SettingsError
from phyla.population import Population
from phyla.vector.batched import Layers, layers
from phyla.vector.dropout import Dropout as Dropout
from phyla.vector.optimizers import OPTIMIZERS, Options, Update

Loss = Callable[[Tensor, Tensor], Tensor]
"""(outputs [B, ...], targets [B, ...]) of one member -> a scalar."""


def train(
    population: Population,
    make_model: Callable[[], nn.Module],
    loss: Loss,
    data: tuple[Tensor, Tensor],
    *,
    validation: tuple[Tensor, Tensor],
    score: Loss,
    optimizer: Literal["sgd", "adam", "adamw"] = "adamw",
    options: Mapping[str, float] | None = None,
    batch: int = 64,
    cohort: int | None = None,
    span: int = 1,
    device: torch.device | str = "cpu",
    path: Literal["auto", "bmm", "vmap"] = "auto",
    compile: bool = False,
) -> None:
    """Trains a population to its end, a cohort at a time; an interval is one epoch of `data`.

    make_model(): the network of one member, the same for all but its weights. loss, score: of one member's outputs [B, ...]
    and targets [B, ...], a scalar. data, validation: inputs [N, ...] and targets [N, ...]; each member goes through the data
    in an order of its own, in batches of `batch`; what is left over is dropped. options: those of the optimizer that are no
    hyperparameters. cohort, span: as for `Population.cohorts`. path: "bmm" computes a Sequential of common layers as batched
    matrix products, "vmap" anything; "auto" is bmm where it can be. compile: with torch.compile.
    Raises SettingsError for what cannot work.
    """
    program = Program(
        make_model, loss, data, validation, score, optimizer=optimizer, options=options, batch=batch, device=device,
        path=path, compile=compile,
    )  # fmt: skip
    program.check(population)
    for turn in population.cohorts(cohort, span=span):
        state = turn.state(program.init)
        turn.report(program(turn, state), state, steps=program.batches)


class Program:
    """The epoch of a cohort."""

    def __init__(
        self,
        make_model: Callable[[], nn.Module],
        loss: Loss,
        data: tuple[Tensor, Tensor],
        validation: tuple[Tensor, Tensor],
        score: Loss,
        *,
        optimizer: str = "adamw",
        options: Mapping[str, float] | None = None,
        batch: int = 64,
        device: torch.device | str = "cpu",
        path: str = "auto",
        compile: bool = False,
    ):
        if optimizer not in OPTIMIZERS:
            raise SettingsError(f"optimizer={optimizer!r}; expected one of {', '.join(map(repr, OPTIMIZERS))}")
        if path not in ("auto", "bmm", "vmap"):
            raise SettingsError(f"path={path!r}; expected 'auto', 'bmm' or 'vmap'")
        if batch < 1 or batch > len(data[0]):
            raise SettingsError(f"batch={batch}; expected from 1 to the {len(data[0])} examples that there are")
        self._make_model, self._loss, self._score = make_model, loss, score
        self._device = torch.device(device)
        self._data, self._validation = ((x.to(device), y.to(device)) for x, y in (data, validation))
        self._batch = batch
        self.batches = len(data[0]) // batch
        self._optimizer: Update = OPTIMIZERS[optimizer](dict(options or {}))
        self._model = make_model().to(device)
        _check_buffers(self._model)
        self._dropouts = [module for module in self._model.modules() if isinstance(module, Dropout)]
        self._shapes = self._dropped_shapes()
        found = layers(self._model) if path != "vmap" else None
        if path == "bmm" and found is None:
            raise SettingsError('path="bmm" takes a Sequential of Linear, Dropout, Flatten, LayerNorm and activations')
        self._forward = self._by_bmm(found) if found is not None else self._by_vmap
        self._gradients = torch.compile(self._plain_gradients) if compile else self._plain_gradients

    def check(self, population: Population) -> None:
        """Raises SettingsError if some hyperparameter would have no effect, or an option is missing."""
        names = set(population.space)
        used = {dropout.rate_name for dropout in self._dropouts} | self._optimizer.takes
        if unused := sorted(names - used):
            raise SettingsError(
                f"the hyperparameters {', '.join(map(repr, unused))} set nothing: the optimizer takes "
                f"{', '.join(sorted(self._optimizer.takes))}, and a Dropout the rate that it names"
            )
        if missing := sorted({dropout.rate_name for dropout in self._dropouts} - names):
            raise SettingsError(
                f"a Dropout names {missing[0]!r}; the space has {', '.join(map(repr, population.space))}"
            )
        self._optimizer.check(names)

    def init(self, newborn: Any) -> dict[str, Any]:
        """One member's fresh state; torch's generator was not seeded for it alone, so it is here."""
        torch.manual_seed(newborn.seed)
        model = self._make_model().to(self._device)
        params = {name: parameter.detach() for name, parameter in model.named_parameters()}
        return {"params": params, "optimizer": self._optimizer.init(params)}

    def __call__(self, turn: Cohort, state: dict[str, Any]) -> np.ndarray[Any, Any]:
        """Trains the state in place for one epoch, and gives the scores [K]."""
        params, hypers = state["params"], {n: torch.from_numpy(v).to(self._device) for n, v in turn.hypers.items()}
        generators = [torch.Generator().manual_seed(int(seed)) for seed in turn.seeds]
        order = torch.stack([torch.randperm(len(self._data[0]), generator=g) for g in generators]).to(self._device)
        rates = [hypers[dropout.rate_name] for dropout in self._dropouts]
        noise = [torch.empty(turn.size, *shape) for shape in self._shapes]
        update = self._optimizer.of(hypers, turn.size, self._device)
        for i in range(0, self.batches * self._batch, self._batch):
            chosen = order[:, i : i + self._batch]
            gradients = self._gradients(
                params, self._data[0][chosen], self._data[1][chosen], rates, _drawn(noise, generators)
            )
            update(params, gradients, state["optimizer"])
        return self._evaluated(params)

    @torch.no_grad()
    def _evaluated(self, params: dict[str, Tensor]) -> np.ndarray[Any, Any]:
        x, y = self._validation
        members = len(next(iter(params.values())))
        outputs = self._forward(params, x.expand(members, *x.shape), [], [])
        found: np.ndarray[Any, Any] = vmap(self._score, in_dims=(0, None))(outputs, y).cpu().numpy()
        return found

    def _plain_gradients(
        self, params: dict[str, Tensor], x: Tensor, y: Tensor, rates: list[Tensor], noise: list[Tensor]
    ) -> dict[str, Tensor]:
        """Of each member's loss by its own parameters: the sum of all losses has these, stacked."""
        leaves = {name: parameter.requires_grad_() for name, parameter in params.items()}
        total = vmap(self._loss)(self._forward(leaves, x, rates, noise), y).sum()
        gradients = torch.autograd.grad(total, list(leaves.values()))
        for parameter in params.values():
            parameter.requires_grad_(False)
        return dict(zip(params, gradients, strict=True))

    # Two ways to compute all members at once ----------------------------------------------------------------------

    def _by_bmm(self, found: Layers) -> Callable[..., Tensor]:
        def forward(params: dict[str, Tensor], x: Tensor, rates: list[Tensor], noise: list[Tensor]) -> Tensor:
            dropped = iter(zip(rates, noise, strict=True))
            for layer in found:
                x = layer(params, x, dropped)
            return x

        return forward

    def _by_vmap(self, params: dict[str, Tensor], x: Tensor, rates: list[Tensor], noise: list[Tensor]) -> Tensor:
        def one(params: dict[str, Tensor], x: Tensor, rates: list[Tensor], noise: list[Tensor]) -> Any:
            for dropout, rate, drawn in zip(self._dropouts, rates, noise, strict=bool(rates)):
                dropout.given = (rate, drawn)
            try:
                return functional_call(self._model, params, (x,))
            finally:
                for dropout in self._dropouts:
                    dropout.given = None

        made: Tensor = vmap(one)(params, x, rates, noise)
        return made

    def _dropped_shapes(self) -> list[tuple[int, ...]]:
        """What each Dropout is given for one batch of one member."""
        shapes: list[tuple[int, ...]] = []
        hooks = [
            d.register_forward_pre_hook(lambda _, given: shapes.append(tuple(given[0].shape))) for d in self._dropouts
        ]
        with torch.no_grad():
            self._model(self._data[0][: self._batch])
        for hook in hooks:
            hook.remove()
        if len(shapes) != len(self._dropouts):
            raise SettingsError("each Dropout must be called once in the model's forward: use one for each place")
        return shapes


def _drawn(noise: list[Tensor], generators: list[torch.Generator]) -> list[Tensor]:
    """Each member's row of uniform numbers from its own generator, so that they do not depend on who trains beside it."""
    for row, generator in enumerate(generators):
        for drawn in noise:
            torch.rand(drawn.shape[1:], generator=generator, out=drawn[row])
    return noise


def _check_buffers(model: nn.Module) -> None:
    if stateful := [name for name, _ in model.named_buffers()]:
        raise SettingsError(
            f"the model keeps {stateful[0]!r} as a buffer, which members would share: use GroupNorm or LayerNorm instead of "
            "BatchNorm, or make the tensor a constant of the function that uses it"
        )


__all__ = ["Dropout", "Options", "Program", "train"]
