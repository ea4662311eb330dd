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
    """What a checkpoint holds: {"state": the tree of this state, "made": what `init` had set in it, "evaluating": …}.

    evaluating: by path, the places of submodules that are not in training mode, which their state_dict() does not say.
    Raises StateError for a part of the state that cannot be saved.
    """
    saver = _Saver(made.parts if made else {})
    tree = saver.tree(state, "state", 0)
    saved = {"state": None if tree is _NOTHING else tree, "made": made.tree() if made else {}}
    return {**saved, "evaluating": saver.evaluating} if saver.evaluating else saved


def saved_state(saved: Tree) -> Tree:
    """The state in what `save` gave, as a tree of plain values and arrays."""
    return saved["state"]


_NOTHING = object()  # a Local: not saved


class _Saver:
    def __init__(self, parts: Mapping[str, Part | Local]):
        self.parts = parts
        self.evaluating: dict[str, list[int]] = {}

    def tree(self, value: Any, path: str, depth: int) -> Tree:
        part = value if isinstance(value, Part | Local) else self.parts.get(path)
        if isinstance(part, Local):
            return _NOTHING
        if isinstance(part, Part):
            return self.part(part, value.obj if value is part else value, path, depth)
        return self.bare(value, path, depth)

    def bare(self, value: Any, path: str, depth: int) -> Tree:
        if kinds.is_scalar(value) or is_array(value):
            return value
        if kinds.is_stateful(value):
            return self.stateful(value, path)
        if kinds.is_random(value):
            return _generator(value)
        node = kinds.take_apart(value)
        if node is None:
            if kinds.is_plain(value):
                return value  # sets and deques
            raise kinds.unsavable(path, value)
        if depth > kinds.MAX_DEPTH:
            raise too_deep(path)
        return self.children(node, path, depth)

    def stateful(self, value: Any, path: str) -> Tree:
        if kinds.is_module(value):
            evaluating = [place for place, module in enumerate(value.modules()) if not module.training]
            if evaluating:
                self.evaluating[path] = evaluating
        return value.state_dict()

    def children(self, node: kinds.Node, path: str, depth: int) -> Tree:
        keys: list[Any] = []
        trees: list[Tree] = []
        for step, key, child in zip(node.steps, node.keys, node.children, strict=True):
            tree = self.tree(child, path + step, depth + 1)
            if tree is not _NOTHING:
                keys.append(key)
                trees.append(tree)
            elif isinstance(node.keys, range):
                trees.append(None)  # the places in a list stay what they are
        return node.saved(keys, trees)

    def part(self, part: Part, obj: Any, path: str, depth: int) -> Tree:
        try:
            got = part.get(obj)
        except TypeError as error:
            if part.get is vars:
                what = f"{path}: {kinds.type_name(obj)} has no attributes ({error}): give Part a get and a set"
                raise StateError(what) from None
            raise
        return pick_up(got, path) if isinstance(got, Path) else self.bare(got, path, depth + 1)


def too_deep(path: str) -> StateError:
    return StateError(f"{path[:60]}… is nested deeper than {kinds.MAX_DEPTH} levels, or contains itself")


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
        raise too_deep(path)
    for step, child in zip(node.steps, node.children, strict=True):
        _check(child, path + step, parts, depth + 1)


def unwrap(state: Any, kept: dict[str, Any] | None = None, made: Made | None = None) -> Any:
    """The state as the user's loop sees it: each Part's object and each Local's in the place of its wrapper.

    kept: what this process holds for this member's Locals, by path; what is missing is made, and put there. made: for a
    state that was unwrapped before; its Locals are exchanged for those of another member.
    """
    return _unwrap(state, "state", {} if kept is None else kept, made.parts if made else {}, 0)


def _unwrap(value: Any, path: str, kept: dict[str, Any], parts: Mapping[str, Part | Local], depth: int) -> Any:
    part = value if isinstance(value, Part | Local) else parts.get(path)
    if isinstance(part, Part):
        return value.obj if value is part else value
    if isinstance(part, Local):
        if path not in kept:
            kept[path] = part.make()
        return kept[path]
    if kinds.is_scalar(value) or is_array(value) or kinds.is_stateful(value) or depth > kinds.MAX_DEPTH:
        return value
    node = kinds.take_apart(value)
    if node is None:
        return value
    pairs = zip(node.steps, node.children, strict=True)
    changed = [_unwrap(child, path + step, kept, parts, depth + 1) for step, child in pairs]
    return rebuilt(value, node, changed)


def rebuilt(value: Any, node: kinds.Node, children: Sequence[Any]) -> Any:
    """The container with these children; the very same one if nothing changed or it can change in place."""
    if all(new is old for new, old in zip(children, node.children, strict=True)):
        return value
    return node.build(children)
