"""SGD, Adam and AdamW for stacked parameters [K, ...]: every option may be a tensor [K], one value a member.

The rules are torch's own (torch.optim); Kingma & Ba 2014, arXiv 1412.6980; Loshchilov & Hutter 2017, arXiv 1711.05101.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from phyla.errors import SettingsError

Options = dict[str, float]


class Update:
    """An optimizer. given: options that are no hyperparameters."""

    defaults: ClassVar[Mapping[str, float | None]]
    """Every option, with what it is where nobody says; None: somebody must."""

    def __init__(self, given: Options):
        if unknown := sorted(given.keys() - self.defaults.keys()):
            raise SettingsError(f"options= names {unknown[0]!r}; this optimizer takes {', '.join(self.defaults)}")
        self.given = given

    @property
    def takes(self) -> set[str]:
        return set(self.defaults)

    def check(self, hypers: set[str]) -> None:
        """Raises SettingsError if an option is set by nobody, or twice."""
        for name, default in self.defaults.items():
            if name in hypers and name in self.given:
                raise SettingsError(f"options= sets {name!r}, which is a hyperparameter too")
            if default is None and name not in hypers and name not in self.given:
                raise SettingsError(f"nobody sets {name!r}: make it a hyperparameter, or give options={{{name!r}: …}}")

    def init(self, params: Mapping[str, Tensor]) -> dict[str, Any]:
        """One member's optimizer state."""
        raise NotImplementedError

    def of(
        self, hypers: Mapping[str, Tensor], size: int, device: torch.device
    ) -> Callable[[dict[str, Tensor], dict[str, Tensor], dict[str, Any]], None]:
        """(params, gradients, state) -> None, in place, with these hyperparameters [K]."""
        options = {
            name: hypers[name].float() if name in hypers else torch.full((size,), self._fixed(name), device=device)
            for name in self.defaults
        }
        return torch.no_grad()(lambda params, gradients, state: self.step(options, params, gradients, state))

    def _fixed(self, name: str) -> float:
        value = self.given.get(name, self.defaults[name])
        assert value is not None  # check has seen to it
        return value

    def step(
        self, o: dict[str, Tensor], params: dict[str, Tensor], gradients: dict[str, Tensor], state: dict[str, Any]
    ) -> None:
        raise NotImplementedError


def _like(option: Tensor, parameter: Tensor) -> Tensor:
    """[K] as [K, 1, …]."""
    return option.view(-1, *[1] * (parameter.dim() - 1))


class SGD(Update):
    """With momentum, and weight decay that is added to the gradient."""

    defaults: ClassVar[Mapping[str, float | None]] = {"lr": None, "momentum": 0.0, "weight_decay": 0.0}

    def init(self, params: Mapping[str, Tensor]) -> dict[str, Any]:
        return {"velocity": {name: torch.zeros_like(parameter) for name, parameter in params.items()}}

    def step(
        self, o: dict[str, Tensor], params: dict[str, Tensor], gradients: dict[str, Tensor], state: dict[str, Any]
    ) -> None:
        for name, parameter in params.items():
            gradient = gradients[name] + _like(o["weight_decay"], parameter) * parameter
            velocity = state["velocity"][name].mul_(_like(o["momentum"], parameter)).add_(gradient)
            parameter.sub_(_like(o["lr"], parameter) * velocity)


class Adam(Update):
    """With weight decay that is added to the gradient."""

    defaults: ClassVar[Mapping[str, float | None]] = {
        "lr": None,
        "beta1": 0.9,
        "beta2": 0.999,
        "eps": 1e-8,
        "weight_decay": 0.0,
    }
    decoupled = False

    def init(self, params: Mapping[str, Tensor]) -> dict[str, Any]:
        device = next(iter(params.values())).device
        return {
            "mean": {name: torch.zeros_like(parameter) for name, parameter in params.items()},
            "square": {name: torch.zeros_like(parameter) for name, parameter in params.items()},
            "steps": torch.zeros((), device=device),
        }

    def step(
        self, o: dict[str, Tensor], params: dict[str, Tensor], gradients: dict[str, Tensor], state: dict[str, Any]
    ) -> None:
        state["steps"] += 1
        rate = o["lr"] / (1 - o["beta1"] ** state["steps"])
        unbias = (1 - o["beta2"] ** state["steps"]).sqrt()
        for name, parameter in params.items():
            gradient, decay = gradients[name], _like(o["weight_decay"], parameter)
            if self.decoupled:
                parameter.mul_(1 - _like(o["lr"], parameter) * decay)
            else:
                gradient = gradient + decay * parameter
            beta1, beta2 = _like(o["beta1"], parameter), _like(o["beta2"], parameter)
            mean = state["mean"][name].lerp_(gradient, 1 - beta1)
            square = state["square"][name].lerp_(gradient * gradient, 1 - beta2)
            scale = (square.sqrt() / _like(unbias, parameter)).add_(_like(o["eps"], parameter))
            parameter.sub_(_like(rate, parameter) * mean / scale)


class AdamW(Adam):
    """With weight decay apart from the gradient."""

    defaults: ClassVar[Mapping[str, float | None]] = {**Adam.defaults, "weight_decay": 0.01}
    decoupled = True


OPTIMIZERS: Mapping[str, type[Update]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW}
