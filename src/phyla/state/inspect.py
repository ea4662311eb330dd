"""What can be said of a state without saving it, and the global random generators."""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from phyla.checkpoints.leaves import is_array, is_jax, is_torch, loaded
from phyla.state import kinds
from phyla.state.options import Made
from phyla.state.parts import Local, Part


def identities(state: Any, made: Made | None = None) -> set[int]:
    """The addresses of all that can change in place: two states that have one in common would overwrite each other.

    Locals do not count. The addresses are good for as long as both states are held.
    """
    found: set[int] = set()
    for _, leaf in _leaves(state, "state", made.parts if made else {}):
        found |= _addresses(leaf)
    return found


def _addresses(leaf: Any) -> set[int]:
    if is_torch(leaf):
        return _storages([leaf])
    if isinstance(leaf, np.ndarray):
        while isinstance(leaf.base, np.ndarray):
            leaf = leaf.base
        return {leaf.__array_interface__["data"][0]} if leaf.nbytes and leaf.flags.writeable else set()
    if kinds.is_module(leaf):
        return {id(leaf)} | _storages([*leaf.parameters(), *leaf.buffers()])
    if isinstance(leaf, Part):
        return {id(leaf.obj)}
    if kinds.is_scalar(leaf) or is_jax(leaf):
        return set()
    groups = getattr(leaf, "param_groups", None)
    return {id(leaf)} | (
        _storages([p for group in groups for p in group["params"]]) if isinstance(groups, list) else set()
    )


def _storages(tensors: list[Any]) -> set[int]:
    return {t.untyped_storage().data_ptr() for t in tensors if t.layout is loaded("torch").strided} - {0}


def unsaved(state: Any, made: Made | None = None) -> list[str]:
    """The paths of what a loop may have replaced by a new object, so that `report` has to be handed the state: arrays, numbers,
    strings. What is changed in place (state_dict, generators, Parts) is seen anyhow."""
    leaves = _leaves(state, "state", made.parts if made else {})
    return [path for path, leaf in leaves if leaf is not None and (kinds.is_scalar(leaf) or is_array(leaf))]


def _leaves(value: Any, path: str, parts: Mapping[str, Part | Local], depth: int = 0) -> Iterator[tuple[str, Any]]:
    """The leaves of a state by path; no Locals; what stands where a Part was is that Part, with what is there now."""
    part = value if isinstance(value, Part | Local) else parts.get(path)
    if isinstance(part, Local):
        return
    if isinstance(part, Part):
        yield path, part if part is value else Part(value)
        return
    known = kinds.is_scalar(value) or is_array(value) or kinds.is_stateful(value) or depth > kinds.MAX_DEPTH
    node = None if known else kinds.take_apart(value)
    if node is None:
        yield path, value
        return
    for step, child in zip(node.steps, node.children, strict=True):
        yield from _leaves(child, path + step, parts, depth + 1)


def seed_globals(seed: int) -> None:
    """Seeds Python's generator, and NumPy's and torch's where they are loaded."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    if (torch := loaded("torch")) is not None:
        # torch.manual_seed also formats a stack trace for each device library that nobody has started yet: 0.3 ms
        (torch.manual_seed if _has_accelerator() else torch.default_generator.manual_seed)(seed)


@functools.cache
def _has_accelerator() -> bool:
    torch = loaded("torch")
    return bool(torch.cuda.is_available() or torch.backends.mps.is_available() or torch.xpu.is_available())
