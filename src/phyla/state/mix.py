"""Shrink and perturb: a live state that is part of a saved one and part of what `init` has just made.

Ash & Adams 2020, "On Warm-Starting Neural Network Training", arXiv 1910.08475.

phyla's own: what is no weight, and what is not trained, comes from `init` alone. An optimizer's moments belong to weights that
are gone, and a frozen backbone would be shrunk with nothing to make good for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from phyla.checkpoints.leaves import is_array, is_jax, is_torch, loaded
from phyla.errors import StateError
from phyla.state import kinds
from phyla.state.kinds import Tree
from phyla.state.load import mismatch
from phyla.state.options import Made
from phyla.state.parts import Local, Part
from phyla.state.save import rebuilt

_STATISTICS = "batch_stats"
"""What Flax calls the running statistics of its layers, in a state of its own beside the weights."""


def mix(live: Any, saved: Tree, old: float, fresh: float, made: Made | None = None) -> Any:
    """What `init` has made, with its weights become old × those saved + fresh × its own.

    Weights are the parameters of torch modules that are trained (`requires_grad`), and the arrays of real or complex numbers
    that stand in the state, or in an object that a Part saves by its attributes. All else stays as `init` made it:
    optimizers, optax's too; running statistics; counters, generators, and what has a state_dict or a Part of its own. Weights
    that are one, stay one. made: as `load` takes it. Raises StateError for weights that do not fit.
    """
    if not isinstance(saved, dict) or "state" not in saved:
        raise StateError(f"not what `save` gives, but {kinds.describe(saved)}")
    return _Mixer(old, fresh, made.parts if made is not None else {}, {}).value(live, saved["state"], "state")


class _Mixer(NamedTuple):
    old: float
    fresh: float
    parts: Mapping[str, Part | Local]
    mixed: dict[
        int, tuple[Any, Any]
    ]  # by id, the arrays that are done: what `init` made, which so stays alive; the result

    def value(self, live: Any, saved: Tree, path: str) -> Any:
        part = live if isinstance(live, Part | Local) else self.parts.get(path)
        if isinstance(part, Local):
            return live
        if isinstance(part, Part):
            obj = live.obj if live is part else live
            if part.set is None:
                self.bare(vars(obj), saved, path)  # its __dict__ is filled in place
            return obj
        return self.bare(live, saved, path)

    def bare(self, live: Any, saved: Tree, path: str) -> Any:
        if is_array(live):
            return self.array(live, saved, path)
        if kinds.is_module(live):
            self.module(live, saved, path)
            return live
        if kinds.is_scalar(live) or kinds.is_stateful(live) or kinds.is_random(live) or _is_optax(live):
            return live
        node = kinds.take_apart(live)
        return live if node is None else rebuilt(live, node, self.children(node, saved, path))

    def children(self, node: kinds.Node, saved: Tree, path: str) -> list[Any]:
        table = dict(enumerate(saved)) if isinstance(saved, list | tuple) else saved if isinstance(saved, dict) else {}
        every = zip(node.steps, node.keys, node.children, strict=True)
        return [
            child if key == _STATISTICS else self.value(child, table.get(key), path + step)
            for step, key, child in every
        ]

    def module(self, live: Any, saved: Tree, path: str) -> None:
        if not isinstance(saved, dict):
            raise mismatch(path, saved, live)
        for name, parameter in live.named_parameters():
            if parameter.requires_grad:
                self.array(parameter, saved.get(name), f"{path}.{name}")

    def array(self, live: Any, saved: Tree, path: str) -> Any:
        if not _is_weight(live):
            return live
        if id(live) not in self.mixed:
            if isinstance(saved, int | float | complex | np.generic):
                saved = np.asarray(saved)  # the loop took a number out of it
            if not is_array(saved) or tuple(saved.shape) != tuple(live.shape):
                raise mismatch(path, saved, live)
            self.mixed[id(live)] = live, self.sum(live, saved)
        return self.mixed[id(live)][1]

    def sum(self, live: Any, saved: Any) -> Any:
        """Into the live array itself where that can be written, so that whoever points at it points at the right thing."""
        if is_torch(live):
            torch = loaded("torch")
            with torch.no_grad():
                saved = torch.as_tensor(saved, dtype=live.dtype, device=live.device)
                return live.mul_(self.fresh).add_(saved, alpha=self.old)
        if is_jax(live):
            if (
                not is_jax(saved) or saved.dtype != live.dtype
            ):  # else it keeps a weak type, so that nothing is traced again
                saved = loaded("jax").numpy.asarray(saved, live.dtype)
            return live * self.fresh + saved * self.old
        mixed = (live * self.fresh + np.asarray(saved, live.dtype) * self.old).astype(live.dtype)
        if not live.flags.writeable:
            return mixed
        np.copyto(live, mixed)
        return live


def _is_weight(array: Any) -> bool:
    if is_torch(array):
        return bool(array.is_floating_point() or array.is_complex())
    return bool(array.dtype.name.startswith(("float", "complex", "bfloat")))


def _is_optax(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "optax"
