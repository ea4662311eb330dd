"""What a state can be made of, and how each kind is taken apart and put together again.

torch and jax are never imported here: only what somebody has loaded already can have made a part of a state.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import random
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from phyla.checkpoints.leaves import is_array, is_jax, is_torch, loaded
from phyla.errors import StateError

Tree: TypeAlias = Any
MAX_DEPTH = 90  # of a state; the tree that is stored has a few levels more, and at most 100

_SCALARS = (type(None), bool, int, float, complex, str, bytes, bytearray)
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, functools.partial, np.ufunc, type)


def is_scalar(value: object) -> bool:
    """Whether it is a plain value that cannot be taken apart: a number, a string, None, a dtype."""
    if type(value) in _SCALARS or isinstance(value, np.generic):
        return True
    torch = loaded("torch")
    return torch is not None and isinstance(value, torch.dtype | torch.device | torch.Size)


def is_plain(value: object) -> bool:
    """Whether a value says all of itself: scalars and arrays, and lists, tuples, dicts and sets of them."""
    if type(value) in (list, tuple, set, frozenset, deque):
        return all(map(is_plain, value))  # type: ignore[call-overload]
    if type(value) in (dict, OrderedDict, Counter, defaultdict):
        return all(map(is_plain, value.values()))  # type: ignore[attr-defined]
    return is_scalar(value) or is_array(value)


def is_stateful(value: object) -> bool:
    """Whether it has torch's own convention for this: state_dict() and load_state_dict()."""
    if isinstance(value, type):
        return False
    return callable(getattr(value, "state_dict", None)) and callable(getattr(value, "load_state_dict", None))


def is_random(value: object) -> bool:
    if isinstance(value, np.random.Generator | np.random.RandomState | random.Random):
        return True
    return (torch := loaded("torch")) is not None and isinstance(value, torch.Generator)


def is_module(value: object) -> bool:
    return (torch := loaded("torch")) is not None and isinstance(value, torch.nn.Module)


def is_code(value: object) -> bool:
    """A function or a class: `init` makes it, nothing in it is trained."""
    if isinstance(value, _FUNCTIONS):
        return True
    return callable(value) and type(value).__module__.partition(".")[0] in ("jax", "jaxlib")


class Node(NamedTuple):
    """A container, taken apart."""

    steps: Sequence[str]  # how a path goes on to each child: "['model']", "[3]", ".params"
    keys: Sequence[Any]  # what each child is called in the saved tree
    children: Sequence[Any]
    build: Callable[[Sequence[Any]], Any]  # the container with these children instead; itself, where it can be changed
    saved: Callable[[Sequence[Any], Sequence[Any]], Tree]  # keys and saved children as a tree


def take_apart(value: Any) -> Node | None:
    """The children of a dict, list, tuple, dataclass or JAX pytree node; None for everything else."""
    if isinstance(value, dict):
        keep = type(value) if type(value) in (OrderedDict, Counter) else dict
        steps = [f"[{key!r}]" for key in value]
        return Node(
            steps, list(value), list(value.values()), _filler(value), lambda k, c: keep(dict(zip(k, c, strict=True)))
        )
    if isinstance(value, list) or type(value) is tuple:
        indices = range(len(value))
        return Node(
            [f"[{i}]" for i in indices],
            indices,
            value,
            _sequence_builder(value),
            lambda k, c: _plain_sequence(value, c),
        )
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return _record(value._fields, list(value), lambda children: value._make(children))  # type: ignore[attr-defined]
    if (node := _pytree(value)) is not None:
        return node
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value) if hasattr(value, field.name)]
        return _record(names, [getattr(value, name) for name in names], functools.partial(_set_fields, value, names))
    return None


def _record(names: Sequence[str], children: Sequence[Any], build: Callable[[Sequence[Any]], Any]) -> Node:
    """Named children. Functions among them are not part of what is saved: `init` made them."""
    mine = [i for i, child in enumerate(children) if not is_code(child)]

    def rebuild(changed: Sequence[Any]) -> Any:
        whole = list(children)
        for i, child in zip(mine, changed, strict=True):
            whole[i] = child
        return build(whole)

    keys = [names[i] for i in mine]
    steps = [f".{name}" for name in keys]
    return Node(steps, keys, [children[i] for i in mine], rebuild, lambda k, c: dict(zip(k, c, strict=True)))


def _pytree(value: Any) -> Node | None:
    """The children of a class that is registered with JAX, one level deep."""
    jax = loaded("jax")
    if jax is None or not hasattr(jax, "tree_util"):
        return None
    children, structure = jax.tree_util.tree_flatten_with_path(value, is_leaf=lambda other: other is not value)
    if any(not path for path, _ in children):
        return None  # a leaf, as far as JAX knows
    names = [_pytree_name(path[0]) for path, _ in children]
    if len(set(names)) < len(names):
        names = [str(i) for i in range(len(names))]
    return _record(
        names, [child for _, child in children], lambda changed: jax.tree_util.tree_unflatten(structure, changed)
    )


def _pytree_name(key: Any) -> str:
    found = next((getattr(key, name) for name in ("name", "key", "idx") if hasattr(key, name)), key)
    return str(found)


def _filler(value: dict[Any, Any]) -> Callable[[Sequence[Any]], Any]:
    keys = list(value)

    def fill(children: Sequence[Any]) -> Any:
        for key, child in zip(keys, children, strict=True):
            value[key] = child  # update() would count, in a Counter
        return value

    return fill


def _sequence_builder(value: Any) -> Callable[[Sequence[Any]], Any]:
    def fill(children: Sequence[Any]) -> Any:
        if isinstance(value, tuple):
            return tuple(children)
        value[:] = children
        return value

    return fill


def _plain_sequence(value: Any, children: Sequence[Any]) -> Tree:
    return tuple(children) if isinstance(value, tuple) else list(children)


def _set_fields(value: Any, names: Sequence[str], children: Sequence[Any]) -> Any:
    params = getattr(value, "__dataclass_params__", None)
    target = copy.copy(value) if params is not None and params.frozen else value
    for name, child in zip(names, children, strict=True):
        object.__setattr__(target, name, child)
    return target


def copied(tree: Tree, memo: dict[int, Any] | None = None) -> Tree:
    """A tree that shares no memory with this one: what is saved may be kept by others, and a live state changes."""
    memo = {} if memo is None else memo
    kind = type(tree)
    if kind is dict or kind is OrderedDict:
        return kind((key, copied(child, memo)) for key, child in tree.items())
    if kind is list or kind is tuple:
        return kind([copied(child, memo) for child in tree])
    if kind in _SCALARS and kind is not bytearray:
        return tree
    if not is_array(tree):
        return copy.deepcopy(tree)  # sets, deques, Counters, bytearrays
    if id(tree) not in memo:
        memo[id(tree)] = copied_array(tree)
    return memo[id(tree)]


def copied_array(array: Any) -> Any:
    if is_torch(array):
        return array.detach().clone()
    if is_jax(array):
        return loaded("jax").numpy.array(array, copy=True)
    return array.copy()


def describe(value: Any) -> str:
    """A value in the words of an error: its type, and its shape or keys."""
    if is_array(value):
        kind = "tensor" if is_torch(value) else "array"
        return f"{'an' if kind == 'array' else 'a'} {kind} of shape {list(value.shape)} and dtype {value.dtype}"
    if isinstance(value, dict):
        names = ", ".join(map(repr, list(value)[:6]))
        return f"a dict with {len(value)} keys ({names}{', …' if len(value) > 6 else ''})"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of length {len(value)}"
    return f"{value!r:.60} ({type_name(value)})"


def type_name(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def unsavable(path: str, value: object) -> StateError:
    """What to say of a thing that has no way into a checkpoint."""
    return StateError(
        f"{path} is of type {type_name(value)}, which cannot be saved. What can: modules, optimizers and anything else with "
        "state_dict() and load_state_dict(); NumPy, torch and JAX arrays and pytrees; random generators; numbers, strings, "
        "bytes and None; dicts, lists, tuples and dataclasses of these. Wrap anything else: phyla.Part(obj, get, set) says how "
        "it is saved, phyla.Local(make) that it need not be (replay buffers, environments)"
    )
