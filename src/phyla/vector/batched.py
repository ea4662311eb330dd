"""A Sequential of common layers, computed for all members at once as batched matrix products; and common losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import vmap
from torch.nn import functional

from phyla.vector.dropout import Dropout

Layer: TypeAlias = "Callable[[dict[str, Tensor], Tensor, Iterator[Tensor]], Tensor]"
"""Takes the stacked parameters by name, inputs [K, B, ...], and the factors of each Dropout in turn; none in evaluation."""

ELEMENTWISE = (
    *(nn.ReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU, nn.Softplus, nn.Mish, nn.Hardtanh),
    *(nn.Hardswish, nn.ReLU6, nn.SELU, nn.CELU, nn.Identity),
)


def layers(model: nn.Module) -> list[Layer] | None:
    """What computes this model for all members; None if it is no (nested) Sequential of layers that are known here."""
    found, own = [], dict(model.named_parameters())
    for name, module in model.named_modules(remove_duplicate=False):  # one activation may stand in many places
        if type(module) is nn.Sequential:
            continue
        prefix = f"{name}." if name else ""
        layer = _layer(prefix, module)
        if layer is None or _hooked(module) or not all(prefix + part in own for part, _ in module.named_parameters()):
            return None
        found.append(layer)
    return found


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _layer(prefix: str, module: nn.Module) -> Layer | None:
    """By the very class: one that inherits may compute something else."""
    kind = type(module)
    if isinstance(module, nn.Linear) and kind is nn.Linear:
        return lambda params, x, _: _linear(x, params[f"{prefix}weight"], params.get(f"{prefix}bias"))
    if isinstance(module, nn.LayerNorm) and kind is nn.LayerNorm:
        return lambda params, x, _: _layer_norm(module, x, params, prefix)
    if kind is Dropout:
        return lambda params, x, factors: x if (factor := next(factors, None)) is None else x * factor.to(x.dtype)
    if isinstance(module, nn.Flatten) and kind is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1):
        return lambda params, x, _: x.flatten(2)
    if kind in ELEMENTWISE:
        return lambda params, x, _: module(x)
    return None


class _Linear(torch.autograd.Function):
    """x [K, B, I], weight [K, O, I], bias [K, O] -> [K, B, O].

    As autograd does it, but for the weight's gradient: autograd's is transposed in memory, which makes the optimizer slow.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        if bias is None:
            return torch.bmm(x, weight.transpose(1, 2))
        return torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        needed = ctx.needs_input_grad
        return (
            torch.bmm(gradient, weight) if needed[0] else None,
            torch.bmm(gradient.transpose(1, 2), x) if needed[1] else None,
            gradient.sum(1) if needed[2] else None,
        )


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if x.dim() != 3:
        flat = _linear(x.flatten(1, -2), weight, bias)
        return flat.reshape(*x.shape[:-1], flat.shape[-1])
    computed: Tensor = _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return computed


def _layer_norm(module: nn.LayerNorm, x: Tensor, params: dict[str, Tensor], prefix: str) -> Tensor:
    x = functional.layer_norm(x, module.normalized_shape, eps=module.eps)
    for part, apply in (("weight", torch.mul), ("bias", torch.add)):
        if (parameter := params.get(f"{prefix}{part}")) is not None:
            x = apply(x, parameter.view(len(parameter), *[1] * (x.dim() - parameter.dim()), *parameter.shape[1:]))
    return x


Loss: TypeAlias = "Callable[[Tensor, Tensor], Tensor]"


def losses(loss: Loss, targets: Tensor) -> Loss:
    """The loss of one member as one of all, (outputs [K, B, ...], targets [K, B, ...]) -> [K]."""
    labels = not targets.is_floating_point() and bool((targets >= 0).all())  # none is ignored, so the mean is over all
    if loss is functional.cross_entropy and labels:
        return _cross_entropies
    return vmap(loss)


def _cross_entropies(outputs: Tensor, targets: Tensor) -> Tensor:
    each = functional.cross_entropy(outputs.flatten(0, 1), targets.flatten(0, 1), reduction="none")
    return each.view(len(outputs), -1).mean(1)
