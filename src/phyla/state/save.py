"""Live objects -> a tree. Nothing is copied: the tree refers to live arrays, and is to be encoded before they change."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from phyla.checkpoints.leaves import is_array
from phyla.errors import StateError
from phyla.state import kinds
from phyla.state.kinds import Tree
from phyla.state.options import Made
from phyla.state.parts import Local, Part, pick_up


def save(state: Any, made: Made | None = None) -> Tree:
    """What a checkpoint holds: {"state": the tree of this state, "made": what `init` had set in it}.

    Raises StateError for a part of the state that cannot be saved.
    """
    parts = made.parts if made else {}
    tree = _tree(state, "state", parts, 0)
    return {"state": None if tree is _NOTHING else tree, "made": made.tree() if made else {}}


def saved_state(saved: Tree) -> Tree:
    """The state in what `save` gave, as a tree of plain values and arrays."""
    return saved["state"]


_NOTHING = object()  # a Local: not saved


def _tree(value: Any, path: str, parts: Mapping[str, Part | Local], depth: int) -> Tree:
    part = value if isinstance(value, Part | Local) else parts.get(path)
    if isinstance(part, Local):
        return _NOTHING
    if isinstance(part, Part):
        return _part(part, value.obj if value is part else value, path, depth)
    if kinds.is_scalar(value) or is_array(value):
        return value
    if kinds.is_stateful(value):
        return value.state_dict()
    if kinds.is_random(value):
        return _generator(value)
    node = kinds.take_apart(value)
    if node is None:
        if kinds.is_plain(value):
            return value  # sets and deques
        raise kinds.unsavable(path, value)
    if depth > kinds.MAX_DEPTH:
        raise StateError(f"{path[:60]}… is nested deeper than {kinds.MAX_DEPTH} levels, or contains itself")
    return _children(node, path, parts, depth)


def _children(node: kinds.Node, path: str, parts: Mapping[str, Part | Local], depth: int) -> Tree:
    keys: list[Any] = []
    trees: list[Tree] = []
    for step, key, child in zip(node.steps, node.keys, node.children, strict=True):
        tree = _tree(child, path + step, parts, depth + 1)
        if tree is not _NOTHING:
            keys.append(key)
            trees.append(tree)
        elif isinstance(node.keys, range):
            trees.append(None)  # the places in a list stay what they are
    return node.saved(keys, trees)


def _part(part: Part, obj: Any, path: str, depth: int) -> Tree:
    try:
        got = part.get(obj)
    except TypeError as error:
        if part.get is vars:
            raise StateError(
                f"{path}: {kinds.type_name(obj)} has no attributes ({error}): give Part a get and a set"
            ) from None
        raise
    if isinstance(got, Path):
        return pick_up(got, path)
    return _tree(got, path, {}, depth + 1)


def _generator(generator: Any) -> Tree:
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    if isinstance(generator, np.random.RandomState):
        return generator.get_state(legacy=False)
    if isinstance(generator, random.Random):
        return generator.getstate()
    return generator.get_state()


def check(state: Any, made: Made | None = None) -> None:
    """Raises StateError if some part of a state can never be saved, without saving anything."""
    _check(state, "state", made.parts if made else {}, 0)


def _check(value: Any, path: str, parts: Mapping[str, Part | Local], depth: int) -> None:
    if isinstance(value, Part | Local) or path in parts or kinds.is_scalar(value) or is_array(value):
        return
    if kinds.is_stateful(value) or kinds.is_random(value):
        return
    node = kinds.take_apart(value)
    if node is None:
        if not kinds.is_plain(value):
            raise kinds.unsavable(path, value)
        return
    if depth > kinds.MAX_DEPTH:
        raise StateError(f"{path[:60]}… is nested deeper than {kinds.MAX_DEPTH} levels, or contains itself")
    for step, child in zip(node.steps, node.children, strict=True):
        _check(child, path + step, parts, depth + 1)


def unwrap(state: Any, kept: dict[str, Any] | None = None) -> Any:
    """The state as the user's loop sees it: each Part's object and each Local's in the place of its wrapper.

    kept: what this process holds for this member's Locals, by path; what is missing is made, and put there.
    """
    return _unwrap(state, "state", {} if kept is None else kept, 0)


def _unwrap(value: Any, path: str, kept: dict[str, Any], depth: int) -> Any:
    if isinstance(value, Part):
        return value.obj
    if isinstance(value, Local):
        if path not in kept:
            kept[path] = value.make()
        return kept[path]
    if kinds.is_scalar(value) or is_array(value) or kinds.is_stateful(value) or depth > kinds.MAX_DEPTH:
        return value
    node = kinds.take_apart(value)
    if node is None:
        return value
    changed = [
        _unwrap(child, path + step, kept, depth + 1) for step, child in zip(node.steps, node.children, strict=True)
    ]
    return rebuilt(value, node, changed)


def rebuilt(value: Any, node: kinds.Node, children: Sequence[Any]) -> Any:
    """The container with these children; the very same one if nothing changed or it can change in place."""
    if all(new is old for new, old in zip(children, node.children, strict=True)):
        return value
    return node.build(children)
