"""Stacked states: the members of a cohort as rows [K, ...] of the same arrays, in NumPy, torch or JAX.

A stack that stays on its device is *resident*; each row is identified by the report that published it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from phyla import state as _state
from phyla.checkpoints import Tree
from phyla.checkpoints.leaves import is_array, is_jax, is_torch, loaded
from phyla.errors import StateError
from phyla.events import Claimed, Ref
from phyla.state import kinds


@dataclass
class Stack:
    """A live state of K rows."""

    state: Any
    rows: int  # K
    refs: Sequence[Ref] = ()  # the reports that published its rows

    def save(self) -> Tree:
        """What a checkpoint holds. Raises StateError if a leaf is no array with K rows."""
        check_rows(self.state, self.rows)
        return _state.save(self.state)


class Stacks:
    """What one process holds of one population that trains in cohorts: the newest stack of each cohort."""

    def __init__(self) -> None:
        self._resident: dict[int, Stack] = {}  # by the cohort's first member
        self._places: dict[Ref, tuple[int, int]] = {}  # of each row: which cohort's stack, and where in it

    def holds(self, claim: Claimed) -> bool:
        """Whether this claim goes on from a row that is here."""
        return claim.source is not None and claim.mix is None and self.find(claim.source) is not None

    def find(self, ref: Ref) -> tuple[Stack, int] | None:
        """The stack that holds the state of this report, and its row there."""
        if (place := self._places.get(ref)) is None:
            return None
        cohort, row = place
        return self._resident[cohort], row

    def newest(self, cohort: int) -> Stack | None:
        return self._resident.get(cohort)

    def keep(self, cohort: int, stack: Stack) -> None:
        """Holds a stack that was just published, in the place of the one before."""
        self.take(cohort)
        self._resident[cohort] = stack
        self._places.update({ref: (cohort, row) for row, ref in enumerate(stack.refs)})

    def take(self, cohort: int) -> Stack | None:
        """Its stack, which is handed out, and may be changed and donated from here on."""
        taken = self._resident.pop(cohort, None)
        for ref in taken.refs if taken is not None else ():
            del self._places[ref]
        return taken

    def drop(self) -> None:
        self._resident.clear()
        self._places.clear()


# Rows -----------------------------------------------------------------------------------------------------------------


def check_rows(state: Any, rows: int, path: str = "state") -> None:
    """Raises StateError, with the path, for a leaf that is no array [rows, ...]."""
    for where, leaf in leaves(state, path):
        if not is_array(leaf):
            raise StateError(
                f"{where} is {kinds.describe(leaf)}: a cohort's state is of arrays with a row for each member, [{rows}, ...]"
            )
        if not leaf.shape or leaf.shape[0] != rows:
            raise StateError(
                f"{where} has the shape {list(leaf.shape)}: expected [{rows}, ...], a row for each of the cohort's members"
            )


def leaves(state: Any, path: str = "state") -> list[tuple[str, Any]]:
    """(path, leaf) for every leaf of a pytree; None is none."""
    if state is None:
        return []
    node = _open(state)
    if node is None:
        return [(path, state)]
    pairs = zip(node.steps, node.children, strict=True)
    return [found for step, child in pairs for found in leaves(child, path + step)]


def map_leaves(function: Callable[..., Any], *states: Any) -> Any:
    """The first state, with each array replaced by what the function makes of it and of those at its place in the others."""
    first = states[0]
    if is_array(first):
        return function(*states)
    if (node := _open(first)) is None:
        return first
    others = [other for other in map(_open, states[1:]) if other is not None]
    if len(others) < len(states) - 1 or any(list(other.keys) != list(node.keys) for other in others):
        raise StateError(f"states of one cohort differ in structure: {', '.join(map(kinds.describe, states[:3]))}")
    columns = zip(node.children, *(other.children for other in others), strict=True)
    return node.build([map_leaves(function, *column) for column in columns])


def _open(value: Any) -> kinds.Node | None:
    """A container, taken apart so that building it anew leaves the given one as it is; None for a leaf."""
    if value is None or is_array(value) or kinds.is_scalar(value):
        return None
    return kinds.take_apart(copy.copy(value) if isinstance(value, dict | list) else value)


def stack(states: Sequence[Any]) -> Any:
    """States of one member each as one of K rows. Raises StateError where they do not fit together."""

    def together(*parts: Any) -> Any:
        if len({tuple(part.shape) for part in parts}) > 1:
            raise StateError(f"states of one cohort differ in shape: {sorted({tuple(part.shape) for part in parts})}")
        if is_torch(parts[0]):
            return loaded("torch").stack(parts)
        if is_jax(parts[0]):
            return loaded("jax").numpy.stack(parts)
        return np.stack(parts)

    return map_leaves(together, *states)


def take(state: Any, row: int) -> Any:
    """One row of a stack, as a state of one member."""
    return map_leaves(lambda leaf: leaf[row], state)


def gather(state: Any, rows: np.ndarray[Any, Any]) -> Any:
    """These rows of a stack, on its device. rows: [K] int."""
    jax = loaded("jax")
    arrays = [leaf for _, leaf in leaves(state)]
    if jax is not None and arrays and all(map(is_jax, arrays)):
        return _jax_gather()(state, rows)
    if arrays and all(map(is_torch, arrays)):
        index = loaded("torch").from_numpy(rows.astype(np.int64))
        return map_leaves(lambda leaf: leaf.index_select(0, index.to(leaf.device)), state)
    return map_leaves(lambda leaf: leaf[rows], state)


_gathers: list[Any] = []


def _jax_gather() -> Any:
    """Compiled once for each structure and shape."""
    if not _gathers:
        import jax

        _gathers.append(jax.jit(lambda state, rows: jax.tree.map(lambda leaf: leaf[rows], state)))
    return _gathers[0]


def set_rows(state: Any, saved: dict[int, Tree]) -> Any:
    """The stack with some rows as they were saved. saved: row -> that row's state, as a tree."""
    return _set_rows(state, saved, "state")


def _set_rows(state: Any, saved: dict[int, Tree], path: str) -> Any:
    if is_array(state):
        return _set_array(state, saved, path)
    if (node := _open(state)) is None:
        return state
    children = []
    for step, key, child in zip(node.steps, node.keys, node.children, strict=True):
        below = {row: _child(tree, key, path + step) for row, tree in saved.items()}
        children.append(_set_rows(child, below, path + step))
    return node.build(children)


def _child(tree: Tree, key: Any, path: str) -> Tree:
    try:
        return tree[key]
    except (KeyError, IndexError, TypeError):
        raise StateError(
            f"{path} does not fit: the checkpoint has nothing there. `init` must build the same structure as when it was saved"
        ) from None


def _set_array(state: Any, saved: dict[int, Tree], path: str) -> Any:
    for row in saved.values():
        if not (is_array(row) or isinstance(row, np.generic)) or tuple(row.shape) != tuple(state.shape[1:]):
            raise StateError(
                f"{path} does not fit: the checkpoint has {kinds.describe(row)}, `init` made rows of shape "
                f"{list(state.shape[1:])}"
            )
    if is_torch(state):
        made = state.detach().clone()
        for place, row in saved.items():
            made[place] = row.to(made.device) if is_torch(row) else loaded("torch").as_tensor(np.asarray(row))
        return made
    if is_jax(state) and is_key(state):
        jax = loaded("jax")
        data = {row: jax.random.key_data(key) for row, key in saved.items()}
        impl = jax.random.key_impl(state)
        return jax.random.wrap_key_data(_set_array(jax.random.key_data(state), data, path), impl=impl)
    made = np.array(state)
    for place, row in saved.items():
        made[place] = np.asarray(row)
    return loaded("jax").device_put(made, state.sharding) if is_jax(state) else made


def is_key(array: Any) -> bool:
    """Whether these are JAX's typed random keys, which NumPy cannot hold."""
    jax = loaded("jax")
    return bool(jax.numpy.issubdtype(array.dtype, jax.dtypes.prng_key))
