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
        self, hypers: Mapping[str, Tensor], params: Mapping[str, Tensor]
    ) -> Callable[[dict[str, Tensor], dict[str, Tensor], dict[str, Any]], None]:
        """(params, gradients, state) -> None, in place, with these hyperparameters [K]."""
        first = next(iter(params.values()))
        options = {
            name: hypers[name].float()
            if name in hypers
            else torch.full((len(first),), self._fixed(name), device=first.device)
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
    """[K] as [K, 1, …], in the parameter's precision."""
    return option.to(parameter.dtype).view(-1, *[1] * (parameter.dim() - 1))


class SGD(Update):
    """With momentum, and weight decay that is added to the gradient."""

    defaults: ClassVar[Mapping[str, float | None]] = {"lr": None, "momentum": 0.0, "weight_decay": 0.0}

    def init(self, params: Mapping[str, Tensor]) -> dict[str, Any]:
        return {"velocity": {name: torch.zeros_like(parameter) for name, parameter in params.items()}}

    def step(
        self, o: dict[str, Tensor], params: dict[str, Tensor], gradients: dict[str, Tensor], state: dict[str, Any]
    ) -> None:
        for name, parameter in params.items():
            lr, momentum, decay = (_like(o[option], parameter) for option in self.defaults)
            velocity = state["velocity"][name].mul_(momentum).add_(gradients[name]).addcmul_(parameter, decay)
            parameter.addcmul_(velocity, lr, value=-1)


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
        """mean / (√square / unbias + eps), as mean · unbias / (√square + eps · unbias): with one large temporary."""
        state["steps"] += 1
        unbias = (1 - o["beta2"] ** state["steps"]).sqrt()
        rate, eps = o["lr"] * unbias / (1 - o["beta1"] ** state["steps"]), o["eps"] * unbias
        new1, new2, shrink = 1 - o["beta1"], 1 - o["beta2"], 1 - o["lr"] * o["weight_decay"]
        for name, parameter in params.items():
            gradient = gradients[name]
            if self.decoupled:
                parameter.mul_(_like(shrink, parameter))
            else:
                gradient = torch.addcmul(gradient, parameter, _like(o["weight_decay"], parameter))
            mean = state["mean"][name].lerp_(gradient, _like(new1, parameter))
            spare = gradient * gradient
            square = state["square"][name].lerp_(spare, _like(new2, parameter))
            torch.sqrt(square, out=spare).add_(_like(eps, parameter))
            parameter.addcmul_(torch.div(mean, spare, out=spare), _like(rate, parameter), value=-1)


class AdamW(Adam):
    """With weight decay apart from the gradient."""

    defaults: ClassVar[Mapping[str, float | None]] = {**Adam.defaults, "weight_decay": 0.01}
    decoupled = True


OPTIMIZERS: Mapping[str, type[Update]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW}
