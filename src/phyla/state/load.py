"""A saved tree -> the live objects that `init` made.

Modules, tensors and NumPy arrays are filled in place, so that whoever points at them keeps pointing at the right thing; JAX
arrays and immutable containers are built anew; plain values come back as saved. Nothing of the saved tree is aliased.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from phyla.checkpoints.leaves import is_array, is_jax, is_torch, loaded
from phyla.errors import StateError
from phyla.state import kinds
from phyla.state.kinds import Tree, describe
from phyla.state.options import Changed, Made, carry, differences
from phyla.state.parts import Local, Part
from phyla.state.save import rebuilt

ADVICE = (
    "`init` must build the same structure whenever a checkpoint is to fit: if a hyperparameter shapes it, declare that one "
    "with structural=True in the space; if the script was changed, start a fresh run"
)


def load(state: Any, saved: Tree, made: Made | None = None) -> tuple[Any, list[Changed]]:
    """Puts what `save` gave into what `init` made, and returns the state, with the options that `init` now sets otherwise.

    made: what this `init` set (`made`, `made_for`); what it set differently from then is carried over (options.carry), so
    that new hyperparameters take effect. Raises StateError if the saved state does not fit.
    """
    if not isinstance(saved, dict) or "state" not in saved:
        raise StateError(f"not what `save` gives, but {describe(saved)}")
    evaluating = saved.get("evaluating")
    loader = _Loader(Made.of(saved), made or Made(), evaluating if isinstance(evaluating, dict) else {})
    state = loader.value(state, saved["state"], "state")
    return state, loader.changes


class _Loader:
    def __init__(self, then: Made, now: Made, evaluating: Mapping[str, list[int]]):
        self.then, self.now, self.parts = then, now, now.parts
        self.evaluating = evaluating
        self.changes: list[Changed] = []
        self.copies: dict[int, Any] = {}  # saved array -> the live one that holds it
        self.filled: dict[int, Any] = {}  # live arrays that hold a saved one already, by id

    def value(self, live: Any, saved: Tree, path: str) -> Any:
        part = live if isinstance(live, Part | Local) else self.parts.get(path)
        if isinstance(part, Local):
            return live
        if isinstance(part, Part):
            return self.part(part, live.obj if live is part else live, saved, path)
        return self.bare(live, saved, path)

    def bare(self, live: Any, saved: Tree, path: str) -> Any:
        if kinds.is_scalar(live):
            return self.scalar(live, saved, path)
        if is_array(live):
            return self.array(live, saved, path)
        if kinds.is_stateful(live):
            return self.stateful(live, saved, path)
        if kinds.is_random(live):
            return self.generator(live, saved, path)
        node = kinds.take_apart(live)
        if node is not None:
            return self.container(live, node, saved, path)
        return self.plain(live, saved, path)

    def scalar(self, live: Any, saved: Tree, path: str) -> Any:
        """As saved: a number may have become an array in a jitted step, and None may have stood for anything plain."""
        if live is None or kinds.is_scalar(saved) or is_array(saved):
            return kinds.copied(saved, self.copies)
        raise mismatch(path, saved, live)

    def array(self, live: Any, saved: Tree, path: str) -> Any:
        if not is_array(saved):
            if isinstance(saved, int | float | complex | np.generic):
                return saved  # the loop took a number out of it
            raise mismatch(path, saved, live)
        same_kind = type(live) is type(saved) or (is_torch(live) and is_torch(saved))
        if tuple(live.shape) != tuple(saved.shape) or (same_kind and live.dtype != saved.dtype):
            raise mismatch(path, saved, live)
        if id(saved) in self.copies:
            return self.copies[id(saved)]  # two that were one are one again
        copy = self.fill(live, saved) if same_kind and id(live) not in self.filled else kinds.copied_array(saved)
        self.filled[id(live)] = live
        self.copies[id(saved)] = copy
        return copy

    def fill(self, live: Any, saved: Any) -> Any:
        if is_jax(live):
            copy = kinds.copied_array(saved)
            return loaded("jax").device_put(copy, live.sharding) if live.committed else copy
        if not is_torch(live):
            if not live.flags.writeable:
                return saved.copy()
            np.copyto(live, saved)
            return live
        torch = loaded("torch")
        with torch.no_grad():
            try:
                live.grad = None
                return live.copy_(saved)
            except RuntimeError:  # an expanded tensor, or one of inference mode, cannot be written
                return saved.to(live.device, copy=True).requires_grad_(live.requires_grad)

    def stateful(self, live: Any, saved: Tree, path: str) -> Any:
        if not isinstance(saved, dict):
            raise mismatch(path, saved, live)
        before, after = self.then.classes.get(path), self.now.classes.get(path)
        if before != after and before and after:
            raise StateError(
                f"{path} does not fit: the checkpoint has the state of {before}, `init` made {after}. {ADVICE}"
            )
        if path in self.then.options and path in self.now.options:
            carried = carry(saved, self.then.options[path], self.now.options[path])
            self.changes += differences(path, saved, carried)
            saved = carried
        try:
            live.load_state_dict(saved if fills_in_place(live) else kinds.copied(saved))
        except Exception as error:
            raise StateError(
                f"{path} ({kinds.type_name(live)}) does not take what was saved of it: {_first(error)}. {ADVICE}"
            ) from error
        if kinds.is_module(live):
            live.zero_grad(set_to_none=True)
            evaluating = set(self.evaluating.get(path, ()))
            for place, module in enumerate(live.modules()):
                module.training = place not in evaluating
        return live

    def generator(self, live: Any, saved: Tree, path: str) -> Any:
        try:
            if isinstance(live, np.random.Generator):
                live.bit_generator.state = kinds.copied(saved)
            elif isinstance(live, random.Random):
                live.setstate(saved)
            else:
                live.set_state(kinds.copied(saved))  # NumPy's RandomState, torch's Generator
        except (TypeError, ValueError, KeyError, RuntimeError, AttributeError) as error:
            raise StateError(f"{path} ({kinds.type_name(live)}) is another generator than was saved: {error}") from None
        return live

    def part(self, part: Part, obj: Any, saved: Tree, path: str) -> Any:
        if part.set is not None:
            return part.restore(obj, kinds.copied(saved))
        self.bare(vars(obj), saved, path)  # its __dict__ is filled in place
        return obj

    def container(self, live: Any, node: kinds.Node, saved: Tree, path: str) -> Any:
        if isinstance(node.keys, range):
            if not isinstance(saved, list | tuple):
                raise mismatch(path, saved, live)
            if len(saved) != len(node.children):
                return self.plain(live, saved, path)
            trees: Sequence[Tree] = saved
        else:
            if not isinstance(saved, dict):
                raise mismatch(path, saved, live)
            if saved.keys() != set(node.keys) and _is_table(live, saved):
                return self.plain(live, saved, path)
            trees = self.by_key(live, node, saved, path)
        paths = [path + step for step in node.steps]
        return rebuilt(live, node, [self.value(*each) for each in zip(node.children, trees, paths, strict=True)])

    def by_key(self, live: Any, node: kinds.Node, saved: dict[Any, Any], path: str) -> list[Tree]:
        """What was saved for each child, in the order of what `init` made."""
        extra = saved.keys() - set(node.keys)
        if isinstance(live, dict):  # plain values that the loop has added come back as saved
            added = {key: kinds.copied(value) for key, value in saved.items() if key in extra and _is_value(value)}
            live.update(added)
            extra -= added.keys()
        for key, step, child in zip(node.keys, node.steps, node.children, strict=True):
            if key not in saved and not isinstance(child, Local) and not isinstance(self.parts.get(path + step), Local):
                raise StateError(f"{path} does not fit: the checkpoint has no {key!r}. {ADVICE}")
        if extra:
            first = min(extra, key=repr)
            what = f"the checkpoint has {first!r}, which `init` did not make (None will do, in its place)"
            raise StateError(f"{path} does not fit: {what}. {ADVICE}")
        return [saved.get(key) for key in node.keys]

    def plain(self, live: Any, saved: Tree, path: str) -> Any:
        """Plain values of another number than `init` made, as saved: a history that grew, a set, a deque."""
        same_kind = type(saved) is type(live) or (isinstance(live, dict) and isinstance(saved, dict))
        if not (same_kind and kinds.is_plain(live) and kinds.is_plain(saved)):
            raise mismatch(path, saved, live)
        copy = kinds.copied(saved, self.copies)
        if isinstance(live, list):
            live[:] = copy
        elif isinstance(live, dict):
            live.clear()
            live.update(copy)
        else:
            return copy
        return live


def _is_value(saved: Tree) -> bool:
    """Whether it is a number, a text, or the like; or a list of such."""
    return all(map(_is_value, saved)) if type(saved) in (list, tuple) else kinds.is_scalar(saved)


def _is_table(live: Any, saved: Tree) -> bool:
    """Whether these are dicts of mere values, counts and tables, that may gain and lose keys."""
    return isinstance(live, dict) and all(map(_is_value, (*live.values(), *saved.values())))


def fills_in_place(live: Any) -> bool:
    """Whether load_state_dict copies out of what it is given, as torch's own modules do, so that we need not."""
    if not kinds.is_module(live):
        return False
    standard = loaded("torch").nn.Module
    if type(live).load_state_dict is not standard.load_state_dict:
        return False
    return all(
        type(m)._load_from_state_dict.__module__.startswith("torch.nn.modules.")
        and type(m).set_extra_state is standard.set_extra_state
        for m in live.modules()
    )


def mismatch(path: str, saved: Tree, live: Any) -> StateError:
    return StateError(
        f"{path} does not fit: the checkpoint has {describe(saved)}, `init` made {describe(live)}. {ADVICE}"
    )


def _first(error: Exception) -> str:
    """An exception in one line; torch lists every parameter, of which the first says enough."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):
        rest = f" (and {len(lines) - 2} more)" if len(lines) > 2 else ""
        return lines[1].rstrip(". ") + rest
    return (lines[0].rstrip(". ") if lines else "") or type(error).__name__
