"""Trees as bytes and back: one safetensors file, arrays as its tensors, structure and plain values as JSON in its metadata.

    8 bytes   length of the header
    header    {"__metadata__": {"phyla": "1", "tree": "<JSON>"}, "state.model.0.weight": {"dtype": "F32", …}, …}
    arrays    their raw bytes, widest dtype first, so that each is aligned

In the tree's JSON, null, true, numbers, strings, lists and objects are what they look like. An object whose first key begins
with "$" stands for something else: {"$torch": "state.model.0.weight"} is that tensor, {"$tuple": […]} a tuple, {"$dict": [[key,
value], …]} a dict whose keys are not all plain strings. Two leaves that are one in memory are one tensor here, and one object
again after `decode`. The same tree gives the same bytes: nothing of time, process or machine is in them.

Any safetensors reader opens these files. They are written here and not by the library because its `serialize` copies
everything twice (docs/design/003-checkpoints.md). They are read through the library, for its checks.
"""

from __future__ import annotations

import math
import struct
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import safetensors

from phyla.checkpoints import leaves
from phyla.checkpoints.leaves import Buffer, Leaf
from phyla.errors import CheckpointError, StateError

FORMAT = "1"
MAX_DEPTH = 100  # levels of nesting
MAX_HEADER = 16 * 2**20  # bytes
MAX_ITEMS = 500_000  # commas in the header, each of which may cost 200 bytes of memory: some 100,000 tensors
PACKED = 64  # a list of so many floats or ints is stored as an array

Tree = Any

_DAMAGE = (
    safetensors.SafetensorError, msgspec.MsgspecError, struct.error,
    ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError,
)  # fmt: skip


def encode(tree: Tree) -> list[Buffer]:
    """The tree as one file's bytes, in pieces that need not be copied: the arrays' own memory, so write them at once.

    Raises StateError if something in it cannot be stored, or it is too large or too deep.
    """
    encoder = _Encoder()
    return encoder.file(encoder.node(tree, ()))


def decode(data: bytes) -> Tree:
    """The tree that `encode` wrote. Raises CheckpointError for anything else, soon and in little memory."""
    try:
        return _Decoder(data).tree()
    except StateError:
        raise  # the file is good; what is missing is on this machine
    except _DAMAGE as error:
        reason = "".join(char if char.isprintable() else "?" for char in str(error)[:300]) or type(error).__name__
    raise CheckpointError(f"not a checkpoint that this version of phyla wrote ({len(data):,} bytes): {reason}")


# Writing


class _Encoder:
    """Collects the arrays of one tree while it is turned into JSON."""

    def __init__(self) -> None:
        self.tensors: dict[str, Leaf] = {}  # by name, in the order of the tree
        self.seen: dict[object, dict[str, Any]] = {}  # identity of an array: what stands for it

    def node(self, value: Any, path: tuple[Any, ...]) -> Any:
        """What stands for a value in the JSON."""
        kind = type(value)
        if kind is float:
            return value if math.isfinite(value) else {"$float": struct.pack(">d", value).hex()}
        if kind is str:
            return (
                value if value.isascii() or _is_text(value) else {"$str": value.encode("utf-8", "surrogatepass").hex()}
            )
        if kind is int:
            return value if -(2**63) <= value < 2**63 else {"$int": f"{value:x}"}
        if value is None or kind is bool:
            return value
        if len(path) > MAX_DEPTH:
            raise StateError(f"{show(path[:4])}… is nested deeper than {MAX_DEPTH} levels, or contains itself")
        writer = _WRITERS.get(kind)
        if writer is not None:
            return writer(self, value, path)
        return self.foreign(value, path)

    def mapping(self, value: dict[Any, Any], path: tuple[Any, ...]) -> Any:
        for key in value:
            if type(key) is not str or key[:1] == "$" or not (key.isascii() or _is_text(key)):
                return {"$dict": self.pairs(value, path)}
        return {key: self.node(child, (*path, key)) for key, child in value.items()}

    def pairs(self, value: dict[Any, Any], path: tuple[Any, ...]) -> list[Any]:
        return [[self.key(key, path), self.node(child, (*path, key))] for key, child in value.items()]

    def key(self, key: Any, path: tuple[Any, ...]) -> Any:
        if isinstance(key, tuple) and type(key) is tuple:
            return {"$tuple": [self.key(part, path) for part in key]}
        if key is not None and type(key) not in (bool, int, float, str, bytes) and not isinstance(key, np.generic):
            raise StateError(f"{show(path)} has a key of type {_type(key)}: {key!r:.80}. Keys can be plain values")
        return self.node(key, (*path, "key"))

    def sequence(self, value: list[Any] | tuple[Any, ...], path: tuple[Any, ...]) -> Any:
        if len(value) >= PACKED and len(kinds := set(map(type, value))) == 1 and kinds <= {float, int}:
            tag, dtype, code = ("$floats", "<f8", "F64") if float in kinds else ("$ints", "<i8", "I64")
            try:
                packed = np.array(value, dtype)
            except OverflowError:
                pass  # integers beyond 64 bits stay in the JSON
            else:
                return {tag: self.tensor(path, Leaf({}, code, packed.shape, packed.view(np.uint8).data, packed.nbytes))}
        return [self.node(child, (*path, i)) for i, child in enumerate(value)]

    def binary(self, value: bytes, path: tuple[Any, ...]) -> Any:
        return {"$bytes": self.tensor(path, Leaf({}, "U8", (len(value),), value, len(value)))}

    def foreign(self, value: Any, path: tuple[Any, ...]) -> Any:
        """Arrays, NumPy's scalars, torch's small types; StateError for all else."""
        try:
            if leaves.is_array(value):
                _WRITERS[type(value)] = _Encoder.array  # found sooner the next time
                return self.array(value, path)
            if isinstance(value, np.generic):
                return {"$scalar": leaves.spell(value.dtype), "data": value.tobytes().hex()}
        except leaves.Unstorable as error:
            raise _refused(value, path, error) from None
        if (torch := leaves.loaded("torch")) is not None:
            if isinstance(value, torch.Size):
                return {"$size": list(value)}
            if isinstance(value, torch.dtype):
                return {"$dtype": str(value).removeprefix("torch.")}
            if isinstance(value, torch.device):
                return {"$device": str(value)}
        raise StateError(
            f"{show(path)} is of type {_type(value)}, which cannot be saved. What can: arrays, numbers, strings, bytes, None, "
            "and lists, tuples, dicts and sets of them. Give the object state_dict() and load_state_dict(), or wrap it: "
            "phyla.Part(obj, get, set), or phyla.Local(make) if it need not be saved"
        )

    def array(self, value: Any, path: tuple[Any, ...]) -> dict[str, Any]:
        identity = leaves.identity(value)
        if identity is not None and identity in self.seen:
            return self.seen[identity]
        try:
            framework, leaf = leaves.store(value)
        except leaves.Unstorable as error:
            raise _refused(value, path, error) from None
        node = {framework: self.tensor(path, leaf), **leaf.tag}
        if identity is not None:
            self.seen[identity] = node
        return node

    def tensor(self, path: tuple[Any, ...], leaf: Leaf) -> str:
        """Takes an array in, and returns the name that it gets: its path, as torch would write it."""
        name = ".".join(map(str, path)) or "tree"
        if not (name.isascii() or _is_text(name)):
            name = name.encode("utf-8", "backslashreplace").decode()
        if name in self.tensors or name == "__metadata__":
            name = f"{name}~{len(self.tensors)}"
        self.tensors[name] = leaf
        return name

    def file(self, tree: Any) -> list[Buffer]:
        table: dict[str, Any] = {"__metadata__": {"phyla": FORMAT, "tree": msgspec.json.encode(tree).decode()}}
        start, buffers = 0, []
        for name, leaf in sorted(self.tensors.items(), key=lambda item: -leaves.WIDTHS[item[1].code]):
            table[name] = {"dtype": leaf.code, "shape": leaf.shape, "data_offsets": (start, start + leaf.size)}
            start += leaf.size
            buffers.append(leaf.buffer)
        header = msgspec.json.encode(table)
        header += b" " * (-len(header) % 8)
        if len(header) > MAX_HEADER or header.count(b",") > MAX_ITEMS:
            raise StateError(
                f"the state holds {len(self.tensors):,} arrays, and plain values that take {len(header):,} bytes as JSON; at "
                f"most {MAX_HEADER:,} bytes and {MAX_ITEMS:,} values are possible. Put long lists and large dicts into arrays"
            )
        return [struct.pack("<Q", len(header)) + header, *(b for b in buffers if len(b))]


_WRITERS: dict[type, Callable[[_Encoder, Any, tuple[Any, ...]], Any]] = {
    dict: _Encoder.mapping,
    defaultdict: _Encoder.mapping,
    list: _Encoder.sequence,
    bytes: _Encoder.binary,
    tuple: lambda self, value, path: {"$tuple": self.sequence(value, path)},
    complex: lambda self, value, path: {"$complex": [self.node(value.real, path), self.node(value.imag, path)]},
    bytearray: lambda self, value, path: {"$bytearray": self.binary(bytes(value), path)["$bytes"]},
    OrderedDict: lambda self, value, path: {"$ordered": self.pairs(value, path)},
    Counter: lambda self, value, path: {"$counter": self.pairs(value, path)},
    deque: lambda self, value, path: {"$deque": self.sequence(list(value), path), "maxlen": value.maxlen},
    set: lambda self, value, path: {"$set": _in_order([self.key(item, path) for item in value])},
    frozenset: lambda self, value, path: {"$frozenset": _in_order([self.key(item, path) for item in value])},
}


def _refused(value: object, path: tuple[Any, ...], why: Exception) -> StateError:
    return StateError(f"{show(path)}, of type {_type(value)}, cannot be saved: {why}")


def _in_order(nodes: list[Any]) -> list[Any]:
    """A set's items in an order that does not depend on this process's hashes."""
    return sorted(nodes, key=msgspec.json.encode)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # a lone surrogate, as in undecodable file names
        return False
    return True


def show(path: tuple[Any, ...]) -> str:
    """A path in a saved tree, as the user would write it: ('state', 'model', 0) is state['model'][0]."""
    return (str(path[0]) if path else "the state") + "".join(f"[{key!r}]" for key in path[1:])


def _type(value: object) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


# Reading


class _Header(msgspec.Struct):
    metadata: dict[str, str] = msgspec.field(name="__metadata__")


class _Decoder:
    """Reads one file. Whatever it stumbles over is an exception, which `decode` turns into a CheckpointError."""

    def __init__(self, data: bytes):
        length = int.from_bytes(data[:8], "little")
        if len(data) < 8 or length > len(data) - 8:
            raise ValueError(f"its header should have {length:,} bytes")
        if length > MAX_HEADER or data.count(b",", 8, 8 + length) > MAX_ITEMS:
            raise ValueError(f"its header of {length:,} bytes is larger than any that phyla writes")
        metadata = msgspec.json.decode(memoryview(data)[8 : 8 + length], type=_Header).metadata
        if metadata.get("phyla") != FORMAT:
            raise ValueError(
                f"its format is {metadata.get('phyla')!r:.40}, expected {FORMAT!r}: is it of a newer phyla?"
            )
        self.json = metadata["tree"]
        if max(map(self.json.count, "[{,")) > MAX_ITEMS:
            raise ValueError("its tree is larger than any that phyla writes")
        entries: list[tuple[str, dict[str, Any]]] = safetensors.deserialize(data)  # type: ignore[no-untyped-call]
        self.tensors = dict(entries)
        if len(self.tensors) != data.count(b'"data_offsets":[', 8, 8 + length):
            raise ValueError("two tensors have one name")  # of which the library drops one
        self.built: dict[str, Any] = {}  # leaves that were one in memory are one again

    def tree(self) -> Tree:
        tree = self.node(msgspec.json.decode(self.json), 0)
        if left := self.tensors.keys() - self.built.keys():
            raise ValueError(f"its tree does not name the tensor {min(left)!r:.80}")
        return tree

    def node(self, node: Any, depth: int) -> Any:
        if type(node) is list:
            if depth > MAX_DEPTH:
                raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
            return [self.node(child, depth + 1) for child in node]
        if type(node) is not dict:
            return node
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
        tag = next(iter(node), "")
        if tag[:1] != "$":
            return {key: self.node(child, depth + 1) for key, child in node.items()}
        reader = _READERS.get(tag)
        if reader is None:
            raise ValueError(f"unknown {tag!r:.40} in its tree")
        return reader(self, node, node[tag], depth)

    def pairs(self, pairs: list[Any], depth: int) -> dict[Any, Any]:
        keys = _spread([self.node(key, depth + 1) for key, _ in pairs])
        return {key: self.node(child, depth + 1) for key, (_, child) in zip(keys, pairs, strict=True)}

    def array(self, node: dict[str, Any], tag: str) -> Any:
        name = node[tag]
        if name not in self.built:
            entry = self.tensors[name]
            self.built[name] = leaves.restore(tag, node, entry["dtype"], entry["shape"], entry["data"])
        return self.built[name]

    def raw(self, name: str) -> bytearray:
        if name in self.built:
            raise ValueError(f"its tree names {name!r:.80} twice")
        self.built[name] = None
        data: bytearray = self.tensors[name]["data"]
        return data


def _spread(keys: list[Any]) -> list[Any]:
    """The keys, if most have a hash of their own: 100,000 that were made to collide would keep a dict busy for minutes."""
    if len(keys) > 1000 and len({hash(key) for key in keys}) < len(keys) // 2:
        raise ValueError("the keys of a dict collide")
    return keys


def _scalar(spelled: str, data: str) -> Any:
    dtype = leaves.unspell(spelled)
    if not dtype.itemsize:
        return dtype.type()  # an empty np.str_ or np.bytes_
    return leaves.restore("$numpy", {"dtype": spelled, "shape": []}, "U8", (), bytearray.fromhex(data))[()]


def _torch(name: str, value: Any) -> Any:
    import torch

    if name == "$dtype":
        return leaves.torch_dtype(value)
    try:
        return torch.Size(value) if name == "$size" else torch.device(value)
    except RuntimeError as error:
        raise ValueError(str(error)) from None


def _decode_hex_float(data: str) -> float:
    return float(struct.unpack(">d", bytes.fromhex(data))[0])


def _array_reader(tag: str) -> Callable[[_Decoder, dict[str, Any], Any, int], Any]:
    return lambda self, node, value, depth: self.array(node, tag)


_READERS: dict[str, Callable[[_Decoder, dict[str, Any], Any, int], Any]] = {
    "$numpy": _array_reader("$numpy"),
    "$torch": _array_reader("$torch"),
    "$jax": _array_reader("$jax"),
    "$jaxkey": _array_reader("$jaxkey"),
    "$size": lambda self, node, value, depth: _torch("$size", value),
    "$dtype": lambda self, node, value, depth: _torch("$dtype", value),
    "$device": lambda self, node, value, depth: _torch("$device", value),
    "$float": lambda self, node, value, depth: _decode_hex_float(value),
    "$str": lambda self, node, value, depth: bytes.fromhex(value).decode("utf-8", "surrogatepass"),
    "$int": lambda self, node, value, depth: int(value, 16),
    "$complex": lambda self, node, value, depth: complex(*self.node(value, depth + 1)),
    "$bytes": lambda self, node, value, depth: bytes(self.raw(value)),
    "$bytearray": lambda self, node, value, depth: self.raw(value),
    "$floats": lambda self, node, value, depth: np.frombuffer(self.raw(value), "<f8").tolist(),
    "$ints": lambda self, node, value, depth: np.frombuffer(self.raw(value), "<i8").tolist(),
    "$scalar": lambda self, node, value, depth: _scalar(value, node["data"]),
    "$tuple": lambda self, node, value, depth: tuple(self.node(value, depth + 1)),
    "$deque": lambda self, node, value, depth: deque(self.node(value, depth + 1), node["maxlen"]),
    "$set": lambda self, node, value, depth: set(_spread(self.node(value, depth + 1))),
    "$frozenset": lambda self, node, value, depth: frozenset(_spread(self.node(value, depth + 1))),
    "$dict": lambda self, node, value, depth: self.pairs(value, depth),
    "$ordered": lambda self, node, value, depth: OrderedDict(self.pairs(value, depth)),
    "$counter": lambda self, node, value, depth: Counter(self.pairs(value, depth)),
}
