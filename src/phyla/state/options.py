"""What `init` sets, wins: how new hyperparameters take effect in a state that was loaded.

An optimizer's options (lr, betas, …) and what its schedulers reckon from (base_lrs, gamma, …) are part of their state dicts,
so loading a donor's weights also brings back the donor's learning rate. Setting it again afterwards is undone by LambdaLR,
OneCycleLR and warm restarts. So a checkpoint keeps what `init` had set (`Made`), and where this `init` set something else,
the saved value is carried over before it is loaded: saved × now ÷ then. A decay that the donor was in the midst of goes on
from the new base, whatever the hyperparameter is called.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from phyla.checkpoints.leaves import is_array, is_jax, is_torch
from phyla.state import kinds
from phyla.state.kinds import Tree
from phyla.state.parts import Local, Part

_SCHEDULER = {"base_lrs", "_last_lr", "last_epoch", "_schedulers"}  # any of these marks a scheduler's state dict


@dataclass(frozen=True)
class Made:
    """What `init` made.

    options: those that it set, by the path of the object that has them. classes: the names of these objects' classes.
    hypers: the hyperparameters that it was called with. parts: the wrappers (Part, Local) that it returned, by path; they
    are not saved, since each `init` brings them anew.
    """

    options: Mapping[str, Tree] = field(default_factory=dict)
    classes: Mapping[str, str] = field(default_factory=dict)
    hypers: Mapping[str, Any] = field(default_factory=dict)
    parts: Mapping[str, Part | Local] = field(default_factory=dict)

    def tree(self) -> Tree:
        return {"options": dict(self.options), "classes": dict(self.classes), "hypers": dict(self.hypers)}

    @classmethod
    def of(cls, saved: Tree) -> Made:
        """What was made then, from what `save` gave."""
        made = saved.get("made")
        known = {key: made[key] for key in cls().tree() if isinstance(made, dict) and isinstance(made.get(key), dict)}
        return cls(**known)


class Changed(NamedTuple):
    """An option that this `init` set differently from the one that the checkpoint comes from."""

    path: str  # of the object that has it, such as state['optimizer']
    keys: tuple[Any, ...]  # where in the object's state dict: ("param_groups", 0, "weight_decay")
    saved: Any  # the donor's value
    new: Any  # what was loaded instead

    @property
    def option(self) -> str:
        return next(str(key) for key in reversed(self.keys) if isinstance(key, str))


def made(state: Any, hypers: Mapping[str, Any] | None = None) -> Made:
    """What `init` has set in the state that it just returned, for these hyperparameters."""
    parts = dict(wrappers(state))
    at = dict(objects(state, parts))
    options = {path: found for path, obj in at.items() if (found := options_of(obj)) is not None}
    return Made(options, {path: type(at[path]).__qualname__ for path in options}, dict(hypers or {}), parts)


def wrappers(state: Any, path: str = "state") -> Iterator[tuple[str, Part | Local]]:
    """The Parts and Locals in what `init` returned, by path."""
    if isinstance(state, Part | Local):
        yield path, state
    elif not (kinds.is_scalar(state) or is_array(state) or kinds.is_stateful(state)):
        node = kinds.take_apart(state)
        if node is not None and path.count("[") + path.count(".") <= kinds.MAX_DEPTH:
            for step, child in zip(node.steps, node.children, strict=True):
                yield from wrappers(child, path + step)


def objects(state: Any, parts: Mapping[str, Part | Local], path: str = "state") -> Iterator[tuple[str, Any]]:
    """The objects of a state that have state_dict(), by path; those that a Part saves as attributes too."""
    part = state if isinstance(state, Part | Local) else parts.get(path)
    if isinstance(part, Local):
        return
    if isinstance(part, Part):
        obj = state.obj if state is part else state
        if part.get is vars and hasattr(obj, "__dict__"):
            yield from objects(vars(obj), {}, path)
    elif kinds.is_stateful(state):
        yield path, state
    elif not (kinds.is_scalar(state) or is_array(state)):
        node = kinds.take_apart(state)
        if node is not None and path.count("[") + path.count(".") <= kinds.MAX_DEPTH:
            for step, child in zip(node.steps, node.children, strict=True):
                yield from objects(child, parts, path + step)


# What an object's options are


def options_of(obj: Any) -> Tree | None:
    """The options in an object's state dict, as plain values; None if it has none.

    All of an optimizer's groups but their parameters; all numbers of a scheduler (what has an `optimizer`, and what looks
    like one inside another object's state dict); nothing else, since other numbers are state, not settings.
    """
    if kinds.is_module(obj):
        return None
    if isinstance(getattr(obj, "param_groups", None), list):
        return {"param_groups": _groups(obj.param_groups)}
    saved = obj.state_dict()
    if not isinstance(saved, dict):
        return None
    found = _pruned(saved)
    if found is None and hasattr(obj, "optimizer"):
        found = _plain(saved)
    return found


def _groups(groups: Any) -> list[Tree]:
    return [{key: _plain(value) for key, value in g.items() if key not in ("params", "param_names")} for g in groups]


def _pruned(tree: Tree) -> Tree | None:
    """What is left of a state dict when all but optimizers' and schedulers' options is taken away."""
    if not isinstance(tree, dict):
        return None
    if isinstance(tree.get("param_groups"), list):
        return {"param_groups": _groups(tree["param_groups"])}
    if not _SCHEDULER.isdisjoint(tree):
        return _plain(tree)
    kept = {key: found for key, child in tree.items() if (found := _pruned(child)) is not None}
    return kept or None


def _plain(tree: Tree) -> Tree:
    """A copy that holds only plain values; a tensor of one number becomes that number, anything else None."""
    if isinstance(tree, dict):
        kept = {key: _plain(child) for key, child in tree.items()}
        return Counter(kept) if isinstance(tree, Counter) else kept
    if type(tree) in (list, tuple):
        return type(tree)(map(_plain, tree))
    if isinstance(tree, np.generic) or (is_array(tree) and math.prod(tree.shape) == 1 and not is_jax(tree)):
        return tree.item()
    return tree if tree is None or type(tree) in (bool, int, float, str) else None


# Carrying over


def carry(saved: Tree, then: Tree, now: Tree) -> Tree:
    """What to load: the saved options, with what `init` makes differently now than it did then carried over.

    saved: a state dict. then, now: options, as `options_of` gives them, which are part of the state dict's structure.
    Where now equals then, saved is untouched, to the bit. A number becomes saved × now ÷ then (exactly now, where saved is
    what was made then), in tuples and lists each by itself; integers stay integers. A learning rate goes by the ratio of its
    base, since a warm-up may begin with 0. Where a ratio has no meaning, the new value is taken. Pure: `saved` is not changed.
    """
    if _same(then, now):
        return saved
    if all(isinstance(tree, dict) for tree in (saved, then, now)):
        return _carry_dict(saved, then, now)
    if all(isinstance(tree, list | tuple) for tree in (saved, then, now)) and len(saved) == len(then) == len(now):
        return type(saved)([carry(*each) for each in zip(saved, then, now, strict=True)])
    return _scaled(saved, then, now) if _is_number(saved) and _is_number(then) and _is_number(now) else now


def _carry_dict(saved: dict[Any, Any], then: dict[Any, Any], now: dict[Any, Any]) -> dict[Any, Any]:
    if isinstance(saved, Counter) and then.keys() != now.keys():
        return Counter(now)  # milestones: where they lie is the option
    carried = saved.copy()
    for key, value in now.items():
        if key not in saved:
            if key not in then:
                carried[key] = value  # an option that this script is the first to set
        elif key in then:
            carried[key] = carry(saved[key], *basis(key, then, now))
    return carried


def basis(key: Any, then: dict[Any, Any], now: dict[Any, Any]) -> tuple[Tree, Tree]:
    """What an option of a group or a scheduler is measured by: itself, or for a learning rate its base."""
    if key == "lr" and then.get("initial_lr") and "initial_lr" in now:
        return then["initial_lr"], now["initial_lr"]
    if key == "_last_lr" and (before := base_lrs(then)) and all(before) and (after := base_lrs(now)):
        return before, after
    return then[key], now[key]


def base_lrs(scheduler: dict[Any, Any]) -> list[Any] | None:
    """A scheduler's bases; for one that is made of others, those of its first."""
    while isinstance(nested := scheduler.get("_schedulers"), list) and nested and isinstance(nested[0], dict):
        scheduler = nested[0]
    bases = scheduler.get("base_lrs")
    return bases if isinstance(bases, list) else None


def _scaled(saved: Any, then: Any, now: Any) -> Any:
    """saved × now ÷ then, in the type of saved."""
    value = saved.item() if hasattr(saved, "item") else saved
    if value == then:
        new = now
    else:
        sound = then != 0 and math.isfinite(then) and math.isfinite(now)
        new = value * (now / then) if sound else now
        if type(value) is int and type(then) is int and type(now) is int:
            new = round(new)
    if is_torch(saved):
        return saved.detach().clone().fill_(new)
    return type(saved)(new) if isinstance(saved, np.generic) else new


def _is_number(value: Any) -> bool:
    """A number that can be scaled; a tensor of one element is one."""
    if is_torch(value) or isinstance(value, np.generic):
        return value.shape.numel() == 1 if is_torch(value) else bool(np.issubdtype(value.dtype, np.number))
    return type(value) is float or (type(value) is int and abs(value) < 2**63)


def _same(then: Tree, now: Tree) -> bool:
    """Equal, where NaN equals itself and True is not 1."""
    if isinstance(then, dict) and isinstance(now, dict):
        return then.keys() == now.keys() and all(_same(then[key], now[key]) for key in then)
    if isinstance(then, list | tuple) and isinstance(now, list | tuple):
        return len(then) == len(now) and all(map(_same, then, now))
    if type(then) is bool or type(now) is bool:
        return then is now
    return bool(then == now) or (then != then and now != now)


# What came of it


def differences(path: str, saved: Tree, carried: Tree, keys: tuple[Any, ...] = ()) -> list[Changed]:
    """The single options in which a carried state dict differs from the saved one."""
    if carried is saved:
        return []
    if isinstance(saved, dict) and isinstance(carried, dict):
        pairs = [(key, saved.get(key), carried[key]) for key in carried]
    elif isinstance(saved, list | tuple) and isinstance(carried, list | tuple) and len(saved) == len(carried):
        pairs = [(i, *pair) for i, pair in enumerate(zip(saved, carried, strict=True))]
    else:
        before, after = _plain(saved), _plain(carried)
        return [] if _same(before, after) else [Changed(path, keys, before, after)]
    return [change for key, old, new in pairs for change in differences(path, old, new, (*keys, key))]


def fell_back(state: Any, changes: list[Changed], made: Made | None = None) -> list[str]:
    """The changed options that stand at the donor's value again, each in a few words; to be asked at the report.

    What a schedule moves is judged by its base, since it may pass the donor's value on its way.
    """
    if not changes:
        return []
    at = dict(objects(state, made.parts if made else {}))
    now = {path: options_of(at[path]) for path in {change.path for change in changes} & at.keys()}
    faults = []
    for change in changes:
        holder, value = _find(now.get(change.path), change.keys)
        if value is _GONE or _is_scheduled(change.option, holder):
            continue
        if _same(value, change.saved) and not _same(change.saved, change.new):
            faults.append(f"{change.option} of {change.path} is {value!r} again, its donor's value, not {change.new!r}")
    return list(dict.fromkeys(faults))


_GONE = object()


def _find(tree: Tree, keys: tuple[Any, ...]) -> tuple[Any, Any]:
    """The dict that holds an option, and its value."""
    holder = tree
    for key in keys:
        if isinstance(tree, dict):
            holder = tree
        try:
            tree = tree[key]
        except (LookupError, TypeError):
            return holder, _GONE
    return holder, tree


def _is_scheduled(option: str, holder: Any) -> bool:
    if option == "_last_lr":
        return True
    if option == "lr":
        return "initial_lr" in holder
    return option in ("momentum", "betas") and not {"max_momentum", "base_momentum"}.isdisjoint(holder)
