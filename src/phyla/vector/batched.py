"""A Sequential of common layers, computed for all members at once as batched matrix products."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from phyla.vector.dropout import Dropout, drop

Dropped: TypeAlias = "Iterator[tuple[Tensor, Tensor]]"
"""(rates [K], uniform numbers [K, ...]) of each Dropout in turn; nothing in evaluation."""

Layers: TypeAlias = "list[Callable[[dict[str, Tensor], Tensor, Dropped], Tensor]]"
"""Each takes the stacked parameters by name, inputs [K, B, ...], and what is dropped."""

ELEMENTWISE = (
    *(nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU, nn.Softplus, nn.Mish, nn.Hardtanh),
    *(nn.Hardswish, nn.ReLU6, nn.SELU, nn.CELU, nn.Identity),
)


def layers(model: nn.Module) -> Layers | None:
    """What computes this model for all members; None if it is no (nested) Sequential of layers that are known here."""
    found: Layers = []
    for name, module in _flat("", model):
        layer = _layer(name, module)
        if layer is None:
            return None
        found.append(layer)
    return found


def _flat(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    if type(module) is nn.Sequential:
        for child, part in module.named_children():
            yield from _flat(f"{name}{child}.", part)
    else:
        yield name, module


def _layer(name: str, module: nn.Module) -> Callable[[dict[str, Tensor], Tensor, Dropped], Tensor] | None:
    match module:
        case nn.Linear():
            return lambda params, x, _: _linear(x, params[f"{name}weight"], params.get(f"{name}bias"))
        case Dropout():
            return _dropout
        case nn.Flatten(start_dim=1, end_dim=-1):
            return lambda params, x, _: x.flatten(2)
        case nn.LayerNorm():
            return lambda params, x, _: _layer_norm(module, x, params, name)
        case _ if type(module) in ELEMENTWISE:
            return lambda params, x, _: module(x)
    return None


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if x.dim() != 3:
        flat = _linear(x.flatten(1, -2), weight, bias)
        return flat.reshape(*x.shape[:-1], flat.shape[-1])
    if bias is None:
        return torch.bmm(x, weight.transpose(1, 2))
    return torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))


def _dropout(params: dict[str, Tensor], x: Tensor, dropped: Dropped) -> Tensor:
    found = next(dropped, None)
    if found is None:
        return x
    rates, noise = found
    return drop(x, rates.view(-1, *[1] * (x.dim() - 1)), noise)


def _layer_norm(module: nn.LayerNorm, x: Tensor, params: dict[str, Tensor], name: str) -> Tensor:
    x = functional.layer_norm(x, module.normalized_shape, eps=module.eps)
    for part, apply in (("weight", torch.mul), ("bias", torch.add)):
        if (parameter := params.get(f"{name}{part}")) is not None:
            x = apply(x, parameter.view(len(parameter), *[1] * (x.dim() - parameter.dim()), *parameter.shape[1:]))
    return x
