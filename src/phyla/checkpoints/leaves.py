"""The leaves of a tree that hold many numbers: NumPy, torch and JAX arrays, as raw bytes and back.

torch and jax are imported only to rebuild what they made; an array of theirs is recognised by looking at modules that are
loaded already. Everything is little-endian, as safetensors is. A dtype that safetensors has no name for (complex numbers,
float8, strings, dates, big-endian) is stored as bytes, its name and shape beside it.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from phyla.errors import StateError

if TYPE_CHECKING:
    import torch

Buffer: TypeAlias = "bytes | memoryview"

WIDTHS = {
    "BOOL": 1, "U8": 1, "I8": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip
"""What safetensors calls a dtype, and the bytes of one element. All its readers know these."""

_NUMPY = {
    "|b1": "BOOL", "|u1": "U8", "|i1": "I8", "<u2": "U16", "<i2": "I16", "<f2": "F16",
    "<u4": "U32", "<i4": "I32", "<f4": "F32", "<u8": "U64", "<i8": "I64", "<f8": "F64",
}  # fmt: skip
_NUMPY_BACK = {code: spelled for spelled, code in _NUMPY.items()}
_TORCH = {
    "bool": "BOOL", "uint8": "U8", "int8": "I8", "uint16": "U16", "int16": "I16", "float16": "F16", "bfloat16": "BF16",
    "uint32": "U32", "int32": "I32", "float32": "F32", "uint64": "U64", "int64": "I64", "float64": "F64",
}  # fmt: skip
_KNOWN_TO_NUMPY = _TORCH.keys() - {"bfloat16"} | {"complex64", "complex128"}
_TORCH_BACK = {code: name for name, code in _TORCH.items()}

_SPELLED = re.compile(r"[<>|][biufcSUVmM][0-9]{1,9}(\[[0-9]{0,9}[a-zA-Zμ]{1,2}\])?")
_ML_DTYPE = re.compile(r"bfloat16|float[468]_[a-z0-9]+|u?int[124]")


class Unstorable(ValueError):
    """An array whose bytes do not say all that it is. The message continues "… cannot be saved: "."""


class Leaf(NamedTuple):
    """An array as it is stored."""

    tag: dict[str, Any]  # what the tree says of it, beside the name of its tensor
    code: str  # safetensors' dtype
    shape: Sequence[int]
    buffer: Buffer
    size: int  # bytes


def loaded(name: str) -> Any:
    """The module, if somebody has imported it; None if nothing can be an object of its making."""
    return sys.modules.get(name)


def is_torch(value: object) -> bool:
    return (torch := loaded("torch")) is not None and isinstance(value, torch.Tensor)


def is_jax(value: object) -> bool:
    return (jax := loaded("jax")) is not None and isinstance(value, jax.Array)


def is_numpy(value: object) -> bool:
    return isinstance(value, np.ndarray)


def is_array(value: object) -> bool:
    return is_numpy(value) or is_torch(value) or is_jax(value)


def identity(value: Any) -> object:
    """What two arrays share if they are one: the same memory, seen in the same way. None: shared with nobody."""
    if is_torch(value):
        if value.layout is not loaded("torch").strided or value.is_meta or not (address := value.data_ptr()):
            return None
        return (address, value.dtype, value.shape, value.stride(), value.device, value.is_conj())
    if is_numpy(value):
        if value.size == 0:
            return None
        return (value.__array_interface__["data"][0], value.dtype.str, value.shape, value.strides)
    return id(value)


def store(value: Any) -> tuple[str, Leaf]:
    """The framework of an array, and the array as it is stored; its buffer is its own memory where that can be."""
    if is_torch(value):
        return "$torch", _store_torch(value)
    if is_numpy(value):
        if type(value) not in (np.ndarray, np.memmap):
            raise Unstorable("its class would be lost; turn it into a plain array")
        return "$numpy", _store_numpy(value)
    return _store_jax(value)


def restore(framework: str, tag: dict[str, Any], code: str, shape: Sequence[int], data: bytearray) -> Any:
    """The array again; it may use `data` as its memory. Raises ValueError where tag, shape and data do not agree."""
    if framework == "$torch":
        return _restore_torch(tag, code, shape, data)
    array = _restore_numpy(tag, code, shape, data)
    return array if framework == "$numpy" else _restore_jax(framework, tag, array)


# NumPy


def _store_numpy(array: np.ndarray[Any, Any]) -> Leaf:
    code = _NUMPY.get(array.dtype.str)
    if code is None and array.dtype.name == "bfloat16":
        code = "BF16"
    if code is not None:
        return Leaf({}, code, array.shape, _flat(array), array.nbytes)
    tag = {"dtype": spell(array.dtype), "shape": array.shape}
    return Leaf(tag, "U8", (array.nbytes,), _flat(array), array.nbytes)


def _flat(array: np.ndarray[Any, Any]) -> Buffer:
    """An array's bytes; its own memory, if that is contiguous."""
    if not array.nbytes:
        return b""
    try:
        return memoryview(array).cast("B")  # type: ignore[arg-type, unused-ignore]  # before Python 3.12
    except (TypeError, ValueError):  # not contiguous, or of a dtype that has no buffer
        return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def spell(dtype: np.dtype[Any]) -> str:
    """A dtype's name, as `unspell` takes it."""
    if dtype.hasobject:
        raise Unstorable("it holds Python objects (dtype=object); use a list, or a numeric dtype")
    if dtype.names is not None or dtype.subdtype is not None:
        raise Unstorable(
            f"its dtype {dtype} is structured; save its fields: {{name: a[name] for name in a.dtype.names}}"
        )
    spelled = dtype.name if _ML_DTYPE.fullmatch(dtype.name) else dtype.str
    if not (_SPELLED.fullmatch(spelled) or _ML_DTYPE.fullmatch(spelled)):
        raise Unstorable(f"its dtype is {dtype}")
    return spelled


def unspell(spelled: str) -> np.dtype[Any]:
    """The dtype of that name; ValueError for anything that could be more than a plain dtype."""
    if _ML_DTYPE.fullmatch(spelled):
        import ml_dtypes

        dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, spelled))
        return dtype
    if not _SPELLED.fullmatch(spelled):
        raise ValueError(f"no dtype: {spelled[:40]!r}")
    return np.dtype(spelled)


def _restore_numpy(tag: dict[str, Any], code: str, shape: Sequence[int], data: bytearray) -> np.ndarray[Any, Any]:
    if "dtype" in tag:
        dtype, shape = unspell(tag["dtype"]), _shape(tag["shape"])
    else:
        dtype = unspell(_NUMPY_BACK.get(code, "bfloat16"))
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"{len(data)} bytes for an array of shape {list(shape)} and dtype {dtype}")
    if dtype.kind == "U" and np.frombuffer(data, dtype.byteorder + "u4").max(initial=0) > sys.maxunicode:
        raise ValueError("a string of what are no characters")  # which NumPy looks at too late
    return np.ndarray(tuple(shape), dtype, buffer=data)


def _shape(saved: Any) -> tuple[int, ...]:
    if not isinstance(saved, list) or len(saved) > 64 or not all(type(n) is int and 0 <= n < 2**62 for n in saved):
        raise ValueError("no shape")
    return tuple(saved)


# torch


def _store_torch(tensor: torch.Tensor) -> Leaf:
    import torch

    if tensor.layout is not torch.strided:
        raise Unstorable(f"its layout is {tensor.layout}; save what it is made of (indices, values), or to_dense()")
    if tensor.is_quantized or tensor.is_meta or hasattr(tensor, "full_tensor"):
        raise Unstorable("it is quantized, distributed or without data; save plain tensors instead")
    name, shape = str(tensor.dtype).removeprefix("torch."), tensor.shape
    if name not in _KNOWN_TO_NUMPY:
        wide = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
        tensor = tensor.detach().resolve_conj().resolve_neg().contiguous().view(wide[tensor.itemsize])
    array = tensor.numpy(force=True)  # detached, from its device, with what it negates or conjugates done
    if name in _TORCH:
        return Leaf({}, _TORCH[name], shape, _flat(array), array.nbytes)
    return Leaf({"dtype": name, "shape": list(shape)}, "U8", (array.nbytes,), _flat(array), array.nbytes)


def torch_dtype(name: str) -> torch.dtype:
    """torch's dtype of that name."""
    import torch

    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"no dtype of this torch: {name[:40]!r}")
    return dtype


def _restore_torch(tag: dict[str, Any], code: str, shape: Sequence[int], data: bytearray) -> torch.Tensor:
    import torch

    if "dtype" in tag:
        dtype, shape = torch_dtype(tag["dtype"]), _shape(tag["shape"])
    else:
        dtype = torch_dtype(_TORCH_BACK[code])
    if str(dtype).startswith("torch.q"):
        raise ValueError("a quantized tensor")  # torch.frombuffer crashes on these
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"{len(data)} bytes for a tensor of shape {list(shape)} and dtype {dtype}")
    return torch.frombuffer(data, dtype=dtype).reshape(tuple(shape)) if data else torch.empty(tuple(shape), dtype=dtype)


# JAX


def _store_jax(array: Any) -> tuple[str, Leaf]:
    import jax

    if not array.is_fully_addressable:
        raise Unstorable("parts of it lie on other hosts")
    if jax.numpy.issubdtype(array.dtype, jax.dtypes.prng_key):
        leaf = _store_numpy(np.asarray(jax.random.key_data(array)))
        return "$jaxkey", leaf._replace(tag={**leaf.tag, "impl": str(jax.random.key_impl(array))})
    leaf = _store_numpy(np.asarray(array))
    return "$jax", leaf._replace(tag={**leaf.tag, "weak": True}) if array.weak_type else leaf


def _restore_jax(framework: str, tag: dict[str, Any], array: np.ndarray[Any, Any]) -> Any:
    import jax
    import jax.numpy as jnp

    made = jnp.asarray(array)
    if made.dtype != array.dtype:
        raise StateError(f"the checkpoint holds {array.dtype}, which JAX has only with jax_enable_x64: set that")
    if framework == "$jaxkey":
        return jax.random.wrap_key_data(made, impl=tag["impl"])
    return weak(array) if tag.get("weak") else made


def weak(array: Any) -> Any:
    """A weakly typed JAX array of these values: without it, `x + bfloat16` has another dtype after a restore."""
    import jax.numpy as jnp

    zero = jnp.asarray(np.zeros((), array.dtype).item())  # weak, as Python's own numbers are
    made = jnp.broadcast_to(zero, array.shape).at[...].set(array)
    return made if made.dtype == array.dtype else jnp.asarray(array)
