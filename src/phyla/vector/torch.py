"""A population as one torch program: stacked parameters, batched layers, and optimizers whose options are tensors [K].

    from phyla.vector.torch import Dropout, train

    train(population, make_model, cross_entropy, (x, y), validation=(x_val, y_val), score=accuracy)

A hyperparameter that is called like an option of the optimizer (lr, weight_decay, momentum, beta1, beta2, eps) sets it,
member by member; one that a `Dropout` names is its rate.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from phyla.cohort import Cohort
from phyla.errors import SettingsError
from phyla.population import Population
from phyla.space import Choice
from phyla.vector.batched import Layer, Loss, layers, losses
from phyla.vector.dropout import Dropout as Dropout
from phyla.vector.dropout import factors
from phyla.vector.noise import keys, orders
from phyla.vector.optimizers import OPTIMIZERS, Options, Update

RANDOM = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout, nn.RReLU)

COMPILERS = ("g++", "clang++", "cl", *([cxx] if (cxx := os.environ.get("CXX")) else []))


def train(
    population: Population,
    make_model: Callable[[], nn.Module],
    loss: Loss,
    data: tuple[Tensor, Tensor],
    *,
    validation: tuple[Tensor, Tensor],
    score: Callable[[Tensor, Tensor], Any],
    test: tuple[Tensor, Tensor] | None = None,
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
    and targets [B, ...], a scalar; a score may be samples [E] where the run's strategy compares samples. data, validation:
    inputs [N, ...] and targets [N, ...], moved to the device; each member goes through the data in an order of its own, in
    batches of `batch`; what is left over is dropped. test: as validation; its score is the metric "test", which no decision
    sees. options: those of the optimizer that are no hyperparameters. cohort, span: as for `Population.cohorts`. path: "bmm"
    computes a Sequential of common layers as batched matrix products, "vmap" anything; "auto" is bmm where it can be.
    compile: with torch.compile, which takes up to a minute once, and on a CPU a C++ compiler; small networks were slower
    with it there, so measure before you use it.
    Raises SettingsError for what cannot work.
    """
    program = Program(
        make_model, loss, data, validation, score, optimizer=optimizer, options=options, batch=batch, device=device,
        path=path, compile=compile,
    )  # fmt: skip
    program.check(population)
    unseen = _pair("test", test, program.device) if test is not None else None
    for turn in population.cohorts(cohort, span=span):
        state = turn.state(program.init)
        scores = program(turn, state)
        metrics = {"test": program.scores(state, *unseen)} if unseen is not None else None
        turn.report(scores, state, steps=program.batches, metrics=metrics)


class Program:
    """The epoch of a cohort. batches: in an epoch."""

    def __init__(
        self,
        make_model: Callable[[], nn.Module],
        loss: Loss,
        data: tuple[Tensor, Tensor],
        validation: tuple[Tensor, Tensor],
        score: Callable[[Tensor, Tensor], Any],
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
        self.device = torch.device(device)
        self._data = _pair("data", data, self.device)
        self._validation = _pair("validation", validation, self.device)
        if compile and self.device.type == "cpu" and not any(map(shutil.which, COMPILERS)):
            raise SettingsError(
                f"compile=True needs a C++ compiler for a CPU; none of {', '.join(COMPILERS)} was found"
            )
        if batch < 1 or batch > len(self._data[0]):
            raise SettingsError(f"batch={batch}; expected from 1 to the {len(self._data[0])} examples that there are")
        self._batch = batch
        self.batches = len(self._data[0]) // batch
        self._make_model, self._score = make_model, vmap(score, in_dims=(0, None))
        self._losses = losses(loss, self._data[1])
        self._optimizer: Update = OPTIMIZERS[optimizer](dict(options or {}))
        self._model = make_model().to(self.device)
        _check_model(self._model)
        self._dropouts = [module for module in self._model.modules() if isinstance(module, Dropout)]
        found = layers(self._model) if path != "vmap" else None
        if path == "bmm" and found is None:
            raise SettingsError('path="bmm" takes a Sequential of Linear, Dropout, Flatten, LayerNorm and activations')
        self._forward = _by_bmm(found) if found is not None else self._by_vmap
        self._shapes, self._samples = self._rehearsed()
        self._gradients = torch.compile(self._gradients_of) if compile else self._gradients_of

    def check(self, population: Population) -> None:
        """Raises SettingsError for hyperparameters that set nothing or nonsense, options that are missing, and wrong scores."""
        space = {name: h for name, h in population.space.items() if not h.structural}  # which `cohorts` refuses
        rates = {dropout.rate_name for dropout in self._dropouts}
        if unused := sorted(space.keys() - rates - self._optimizer.takes):
            raise SettingsError(
                f"the hyperparameters {', '.join(map(repr, unused))} set nothing: the optimizer takes "
                f"{', '.join(sorted(self._optimizer.takes))}, and a Dropout the rate that it names"
            )
        if missing := sorted(rates - space.keys()):
            raise SettingsError(f"a Dropout names {missing[0]!r}; the space has {', '.join(map(repr, space))}")
        for name in space:
            values = _values(space, name)
            if name in rates and not all(0 <= value < 1 for value in values):
                raise SettingsError(
                    f"{name!r} goes from {min(values)} to {max(values)}; a rate of Dropout lies in [0, 1)"
                )
        self._optimizer.check(set(space))
        if self._samples and not population.needs_samples:
            raise SettingsError(
                f"score gives {self._samples} numbers for one member; expected a scalar, such as their mean: the run's "
                "strategy compares no samples"
            )

    def init(self, newborn: Any) -> dict[str, Any]:
        """One member's fresh state; torch's generator was not seeded for it alone, so it is here."""
        torch.manual_seed(newborn.seed)
        params = _params(self._make_model().to(self.device))
        return {"params": params, "optimizer": self._optimizer.init(params)}

    def __call__(self, turn: Cohort, state: dict[str, Any]) -> Any:
        """Trains the state in place for one epoch, and gives the scores, [K] or [K, E], on the device."""
        params, hypers = state["params"], self._hypers(turn)
        seeds = torch.from_numpy(turn.seeds.astype(np.int32)).to(self.device)
        rates = [hypers[dropout.rate_name] for dropout in self._dropouts]
        update = self._optimizer.of(hypers, params)
        order = orders(keys(seeds, 0), len(self._data[0]))
        for step in range(self.batches):
            x, y = (_rows(part, order[:, step * self._batch :][:, : self._batch]) for part in self._data)
            dropped = factors(rates, self._shapes, keys(seeds, 1 + step))
            update(params, self._gradients(params, x, y, dropped), state["optimizer"])
        return self.scores(state, *self._validation)

    def _hypers(self, turn: Cohort) -> dict[str, Tensor]:
        """By name, [K]; a Choice as its values."""
        found = {
            name: np.array(turn.choices[name], np.float32)[values] if name in turn.choices else values
            for name, values in turn.hypers.items()
        }
        return {name: torch.from_numpy(values).to(self.device) for name, values in found.items()}

    @torch.no_grad()
    def scores(self, state: dict[str, Any], x: Tensor, y: Tensor) -> Any:
        """Of these examples, on the device: [K] or [K, E]."""
        params = state["params"]
        members = len(next(iter(params.values())))
        self._model.eval()
        outputs = self._forward(params, x.expand(members, *x.shape), [])
        self._model.train()
        return self._score(outputs, y)

    def _gradients_of(
        self, params: dict[str, Tensor], x: Tensor, y: Tensor, dropped: list[Tensor]
    ) -> dict[str, Tensor]:
        """Of each member's loss by its own parameters: the sum of all losses has these, stacked."""
        leaves = {name: parameter.detach().requires_grad_() for name, parameter in params.items()}
        total = self._losses(self._forward(leaves, x, dropped), y).sum()
        gradients = torch.autograd.grad(total, list(leaves.values()))
        return {name: gradient.contiguous() for name, gradient in zip(params, gradients, strict=True)}

    def _by_vmap(self, params: dict[str, Tensor], x: Tensor, dropped: list[Tensor]) -> Tensor:
        def one(params: dict[str, Tensor], x: Tensor, dropped: list[Tensor]) -> Any:
            for dropout, kept in zip(self._dropouts, dropped, strict=bool(dropped)):
                dropout.factors = kept
            try:
                return functional_call(self._model, params, (x,))
            finally:
                for dropout in self._dropouts:
                    dropout.factors = None

        made: Tensor = vmap(one)(params, x, dropped)
        return made

    # Before the first member is made ------------------------------------------------------------------------------

    def _rehearsed(self) -> tuple[list[tuple[int, ...]], int]:
        """One batch of two members, so that errors come early: what each Dropout is given, and how many samples a score has."""
        x, y = (part[: self._batch] for part in self._data)
        with _explained(f"the model cannot compute a batch of the data, {_described(x)}"):
            shapes = self._dropped_shapes(x)
            params = {name: torch.stack([parameter] * 2) for name, parameter in _params(self._model).items()}
            dropped = [torch.ones(2, *shape, device=self.device) for shape in shapes]
            xs, ys = x.expand(2, *x.shape), y.expand(2, *y.shape)
            outputs = self._forward(params, xs, dropped)
        with _explained(
            f"the loss cannot be computed of outputs, {_described(outputs[0])}, and targets, {_described(y)}"
        ):
            values = self._losses(outputs, ys)
            if values.shape != (2,):
                raise SettingsError(
                    f"the loss of one member has the shape {list(values.shape[1:])}; expected a scalar, the mean over its batch"
                )
            self._gradients_of(params, xs, ys, dropped)
        with _explained("the score cannot be computed"):
            scores = self.scores({"params": params}, *self._validation)
        return shapes, scores.shape[1] if isinstance(scores, Tensor) and scores.dim() > 1 else 0

    def _dropped_shapes(self, x: Tensor) -> list[tuple[int, ...]]:
        shapes: list[tuple[int, ...]] = []
        hooks = [
            d.register_forward_pre_hook(lambda _, given: shapes.append(tuple(given[0].shape))) for d in self._dropouts
        ]
        with torch.no_grad():
            self._model(x.clone())
        for hook in hooks:
            hook.remove()
        if len(shapes) != len(self._dropouts):
            raise SettingsError("each Dropout must be called once in the model's forward: use one for each place")
        return shapes


def _by_bmm(found: Sequence[Layer]) -> Callable[[dict[str, Tensor], Tensor, list[Tensor]], Tensor]:
    def forward(params: dict[str, Tensor], x: Tensor, dropped: list[Tensor]) -> Tensor:
        each = iter(dropped)
        for layer in found:
            x = layer(params, x, each)
        return x

    return forward


def _rows(part: Tensor, chosen: Tensor) -> Tensor:
    """part [N, ...] at chosen [K, B]: [K, B, ...]."""
    return part.index_select(0, chosen.flatten()).view(*chosen.shape, *part.shape[1:])


def _params(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


# What is given --------------------------------------------------------------------------------------------------------


def _pair(what: str, given: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    if not isinstance(given, tuple | list) or len(given) != 2 or not all(isinstance(part, Tensor) for part in given):
        raise SettingsError(
            f"{what}= must be (inputs [N, ...], targets [N, ...]), two tensors; got {type(given).__name__}"
        )
    x, y = given
    if x.dim() < 1 or y.dim() < 1 or len(x) != len(y) or not len(x):
        raise SettingsError(
            f"{what}= has inputs {list(x.shape)} and targets {list(y.shape)}; expected [N, ...] of each"
        )
    return x.to(device), y.to(device)


def _check_model(model: nn.Module) -> None:
    if stateful := [name for name, _ in model.named_buffers()]:
        raise SettingsError(
            f"the model keeps {stateful[0]!r} as a buffer, which members would share: use GroupNorm or LayerNorm instead of "
            "BatchNorm, or make the tensor a constant of the function that uses it"
        )
    if random := [f"{name!r}, {module}" for name, module in model.named_modules() if isinstance(module, RANDOM)]:
        raise SettingsError(
            f"the model has {random[0]}, whose rate and random numbers all members would share: use "
            'phyla.vector.torch.Dropout("the hyperparameter\'s name")'
        )
    if frozen := [name for name, parameter in model.named_parameters() if not parameter.requires_grad]:
        raise SettingsError(f"the model's {frozen[0]!r} requires no gradient; all parameters of a member are trained")
    if not list(model.parameters()):
        raise SettingsError("the model has no parameters to train")


def _values(space: Mapping[str, Any], name: str) -> Sequence[float]:
    """What a hyperparameter may be, or between which numbers it lies."""
    hyperparameter = space[name]
    if not isinstance(hyperparameter, Choice):
        return hyperparameter.low, hyperparameter.high
    if odd := [v for v in hyperparameter.values if isinstance(v, bool) or not isinstance(v, int | float)]:
        raise SettingsError(f"{name!r} may be {odd[0]!r}; expected numbers, for it sets a number")
    return [float(v) for v in hyperparameter.values if isinstance(v, int | float)]


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)} on {tensor.device}"


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except SettingsError:
        raise
    except Exception as error:
        hint = "; randomness must come from phyla.vector.torch.Dropout" if "randomness" in str(error) else ""
        raise SettingsError(f"{what}{hint}: {error}") from error


__all__ = ["Dropout", "Options", "Program", "train"]
