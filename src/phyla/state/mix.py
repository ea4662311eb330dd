"""Shrink and perturb: a live state that is part of a saved one and part of what `init` has just made.

Ash & Adams 2020, "On Warm-Starting Neural Network Training", arXiv 1910.08475.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from phyla.checkpoints.leaves import is_array, is_jax, is_torch, loaded
from phyla.errors import StateError
from phyla.state import kinds
from phyla.state.kinds import Tree
from phyla.state.load import mismatch
from phyla.state.parts import Local, Part
from phyla.state.save import rebuilt


def mix(live: Any, saved: Tree, old: float, fresh: float) -> Any:
    """What `init` has made, with its weights become old × those saved + fresh × its own.

    Weights are the parameters of torch modules, and floating-point arrays that stand in the state by themselves. All else
    stays as `init` made it: optimizers, running statistics, counters, generators, Parts. Raises StateError for weights that
    do not fit.
    """
    if not isinstance(saved, dict) or "state" not in saved:
        raise StateError(f"not what `save` gives, but {kinds.describe(saved)}")
    return _mix(live, saved["state"], "state", (old, fresh))


def _mix(live: Any, saved: Tree, path: str, shares: tuple[float, float]) -> Any:
    if isinstance(live, Part | Local) or kinds.is_scalar(live):
        return live
    if is_array(live):
        return _mixed_array(live, saved, path, shares)
    if kinds.is_module(live):
        for name, parameter in live.named_parameters():
            _mixed_array(parameter, saved.get(name), f"{path}.{name}", shares)
        return live
    if kinds.is_stateful(live) or kinds.is_random(live) or (node := kinds.take_apart(live)) is None:
        return live
    if not isinstance(saved, dict | list | tuple):
        raise mismatch(path, saved, live)
    table = saved if isinstance(saved, dict) else dict(enumerate(saved))
    children = [
        _mix(child, table[key], path + step, shares) if key in table else child
        for step, key, child in zip(node.steps, node.keys, node.children, strict=True)
    ]
    return rebuilt(live, node, children)


def _mixed_array(live: Any, saved: Tree, path: str, shares: tuple[float, float]) -> Any:
    old, fresh = shares
    if not _is_floating(live):
        return live
    if not is_array(saved) or tuple(saved.shape) != tuple(live.shape):
        raise mismatch(path, saved, live)
    if is_torch(live):
        with loaded("torch").no_grad():
            return live.mul_(fresh).add_(saved.to(live.device), alpha=old)
    if is_jax(live):
        return live * fresh + loaded("jax").numpy.asarray(saved, live.dtype) * old
    mixed = live * fresh + np.asarray(saved) * old
    if not live.flags.writeable:
        return mixed.astype(live.dtype)
    np.copyto(live, mixed, casting="same_kind")
    return live


def _is_floating(array: Any) -> bool:
    if is_torch(array):
        return bool(array.is_floating_point())
    return np.issubdtype(array.dtype, np.inexact) or str(array.dtype) == "bfloat16"
