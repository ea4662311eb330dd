"""Trees become bytes and come back as they were; the same tree is the same bytes; nothing else is let in."""

import contextlib
import json
import random
import struct
import subprocess
import sys
import textwrap
import tracemalloc
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple

import hypothesis.extra.numpy as npst
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hostile import HOSTILE
from phyla.checkpoints import codec
from phyla.errors import CheckpointError, StateError


def encoded(tree):
    return b"".join(codec.encode(tree))


def round_trip(tree):
    return codec.decode(encoded(tree))


def same(a, b):
    """Equal in type, value, bits, and in what is shared."""
    assert type(a) is type(b), (a, b)
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert not b.requires_grad
        assert encoded(a) == encoded(b)
    elif isinstance(a, jax.Array):
        assert (a.dtype, a.shape, a.weak_type) == (b.dtype, b.shape, b.weak_type)
        assert encoded(a) == encoded(b)
    elif isinstance(a, np.ndarray | np.generic):
        assert a.dtype == b.dtype
        assert a.shape == b.shape
        assert a.tobytes() == b.tobytes()
    elif isinstance(a, dict):
        assert [*map(repr, a)] == [*map(repr, b)]
        for x, y in zip(a.values(), b.values(), strict=True):
            same(x, y)
    elif isinstance(a, list | tuple | deque):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            same(x, y)
    elif isinstance(a, float):
        assert struct.pack("d", a) == struct.pack("d", b)
    elif isinstance(a, complex):
        same((a.real, a.imag), (b.real, b.imag))
    else:
        assert a == b
    return True


# Round trips

texts = st.text(st.characters(exclude_categories=()), max_size=8)  # with lone surrogates
keys = st.one_of(texts, st.integers(), st.booleans(), st.none(), st.tuples(st.integers(), texts), st.binary(max_size=3))
dtypes = st.one_of(
    npst.boolean_dtypes(),
    npst.integer_dtypes(endianness="?"),
    npst.unsigned_integer_dtypes(endianness="?"),
    npst.floating_dtypes(endianness="?"),
    npst.complex_number_dtypes(),
    npst.datetime64_dtypes(),
    npst.timedelta64_dtypes(),
    npst.unicode_string_dtypes(max_len=3),
    npst.byte_string_dtypes(max_len=3),
)
arrays = npst.arrays(dtypes, npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), texts, st.binary(max_size=9), st.complex_numbers(),
    arrays, npst.from_dtype(np.dtype("f4")).map(np.float32), st.floats().map(np.float64), st.booleans().map(np.bool_),
)  # fmt: skip


def containers(children):
    lists = st.lists(children, max_size=4)
    dicts = st.dictionaries(keys, children, max_size=4)
    return st.one_of(
        lists, dicts, lists.map(tuple), lists.map(lambda x: deque(x, 9)), dicts.map(OrderedDict),
        st.dictionaries(texts, st.integers(), max_size=3).map(Counter),
    )  # fmt: skip


trees = st.recursive(leaves, containers, max_leaves=12)


@given(trees)
@settings(max_examples=250, deadline=None)
def test_round_trip(tree):
    data = encoded(tree)
    assert same(tree, codec.decode(data))
    assert encoded(codec.decode(data)) == data  # what was loaded is saved as the same bytes


@given(st.sets(keys, max_size=6))
@settings(max_examples=50)
def test_sets(items):
    assert round_trip(items) == items
    assert round_trip(frozenset(items)) == frozenset(items)


@given(st.lists(st.floats(), min_size=codec.PACKED, max_size=codec.PACKED + 9))
@settings(max_examples=20)
def test_long_lists_of_numbers_are_packed(numbers):
    assert same(numbers, round_trip(numbers))
    assert same(tuple(numbers), round_trip(tuple(numbers)))
    integers = [struct.unpack("q", struct.pack("d", x))[0] for x in numbers]
    assert same(integers, round_trip(integers))
    assert same([*integers, 2**64], round_trip([*integers, 2**64]))
    assert same([*numbers, 1], round_trip([*numbers, 1]))


@pytest.mark.parametrize("dtype", [d for d in vars(torch).values() if isinstance(d, torch.dtype) and d.itemsize <= 16])
def test_every_torch_dtype(dtype):
    assert same(dtype, round_trip(dtype))
    if str(dtype).startswith("torch.q"):
        with pytest.raises(StateError, match="quantized"):
            encoded({"x": torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8)})
        return
    bits = bytearray(range(16 * 6)) if dtype is not torch.bool else bytearray([0, 1] * 48)
    tensor = torch.frombuffer(bits, dtype=dtype)[:6]
    try:
        tensor.clone()
    except NotImplementedError as error:
        pytest.skip(f"torch itself cannot copy it: {error}")
    same(tensor, round_trip(tensor))
    same(tensor[0].clone(), round_trip(tensor[0].clone()))
    same(torch.empty(0, 3, dtype=dtype), round_trip(torch.empty(0, 3, dtype=dtype)))


def test_torch_leaves():
    matrix = torch.arange(12.0).reshape(3, 4)
    for tensor in (
        matrix.T,
        matrix[:, ::2],
        matrix[0].expand(5, 4),
        torch.nn.Parameter(matrix),
        matrix.to(torch.cfloat).conj(),
    ):
        back = round_trip({"x": tensor})["x"]
        assert torch.equal(back, tensor.detach())
        assert type(back) is torch.Tensor
        back += 1  # it is its own
    for value in (torch.Size([2, 3]), torch.bfloat16, torch.device("cpu"), torch.device("cuda", 1)):
        assert same(value, round_trip(value))
    mps = round_trip(torch.ones(2).neg())
    assert torch.equal(mps, -torch.ones(2))


def test_jax_leaves():
    key = jax.random.key(3)
    tree = {
        "f32": jnp.arange(3.0), "bf16": jnp.ones((2, 0), jnp.bfloat16), "int4": jnp.arange(-3, 4, dtype=jnp.int4),
        "f8": jnp.ones(3, jnp.float8_e4m3fn), "bool": jnp.array(True), "weak": jnp.asarray(1.5),
        "c": jnp.ones(2, jnp.complex64), "weak vector": jnp.full(3, 2), "raw key": jax.random.PRNGKey(1),
    }  # fmt: skip
    assert same(tree, round_trip(tree))
    back = round_trip({"key": key, "keys": jax.random.split(jax.random.key(1, impl="rbg"), 3)})
    assert back["key"].dtype == key.dtype
    assert jnp.array_equal(jax.random.normal(back["key"], 3), jax.random.normal(key, 3))
    assert str(jax.random.key_impl(back["keys"])) == "rbg"


def test_jax_arrays_of_64_bits_say_what_they_need():
    with jax.enable_x64(True):
        data = encoded({"x": jnp.arange(3.0)})
        assert same(codec.decode(data)["x"], jnp.arange(3.0))
    with pytest.raises(StateError, match="jax_enable_x64"):
        codec.decode(data)


def test_numpy_leaves():
    grid = np.arange(12).reshape(3, 4)
    assert same(
        [grid.T, grid[:, ::2], np.asfortranarray(grid)], round_trip([grid.T, grid[:, ::2], np.asfortranarray(grid)])
    )
    back = round_trip(grid)
    back += 1  # it is writable
    bf16 = np.asarray(jnp.ones(3, jnp.bfloat16))
    assert same(bf16, round_trip(bf16))
    scalars = [
        np.float16(1),
        np.int64(-1),
        np.str_("ä"),
        np.str_(""),
        np.bytes_(b"x"),
        np.datetime64("2026-01-01"),
        np.longdouble(1),
    ]
    assert same(scalars, round_trip(scalars))


def test_generators_of_random_numbers():
    for bits in (np.random.PCG64, np.random.Philox, np.random.MT19937, np.random.SFC64):
        state = bits(7).state
        assert same(state, round_trip(state))
    assert same(random.Random(3).getstate(), round_trip(random.Random(3).getstate()))


def test_a_default_dict_comes_back_as_a_dict():
    assert same({"a": [1]}, round_trip(defaultdict(list, {"a": [1]})))


@pytest.mark.parametrize("key", ["$numpy", "$", "__metadata__", "tree", "a.b", "", "ü", "\ud800", "\0"])
def test_any_string_can_be_a_key_and_a_name(key):
    assert same({key: np.ones(2), "x": {key: [1]}}, round_trip({key: np.ones(2), "x": {key: [1]}}))


def test_names_that_are_the_same_path_are_kept_apart():
    tree = {"a.b": np.zeros(1), "a": {"b": np.ones(1)}}
    assert same(tree, round_trip(tree))


# Sharing


def test_what_is_one_in_memory_is_stored_once_and_is_one_again():
    model = torch.nn.Sequential(torch.nn.Linear(50, 50), torch.nn.Linear(50, 50))
    model[1].weight = model[0].weight
    array = np.arange(1000.0)
    tree = {
        "model": model.state_dict(),
        "a": array,
        "again": [array, array[:]],
        "part": array[1:],
        "jax": [jnp.ones(9)] * 2,
    }
    data = encoded(tree)
    assert len(data) < 4 * (2500 + 100) + 8 * (1000 + 999) + 36 + 2000
    back = codec.decode(data)
    assert back["model"]["0.weight"] is back["model"]["1.weight"]
    assert back["a"] is back["again"][0] is back["again"][1]
    assert back["part"] is not back["a"]
    assert back["jax"][0] is back["jax"][1]


def test_empty_arrays_and_other_views_are_not_one():
    base = torch.arange(6.0)
    tree = [torch.empty(0), torch.empty(0), base.view(2, 3), base.view(3, 2), base.view(torch.int32), base[:3]]
    back = round_trip(tree)
    assert same(tree, back)
    assert len(set(map(id, back))) == len(back)


# Bytes


def test_the_same_tree_gives_the_same_bytes_in_another_process():
    code = textwrap.dedent("""
        import hashlib, numpy as np
        from phyla.checkpoints import codec
        tree = {"s": {"a", "b", "c", 1, None, ("d", 2)}, 5: np.random.default_rng(1).random(9), "f": frozenset("xyz")}
        print(hashlib.sha256(b"".join(codec.encode(tree))).hexdigest())
    """)
    outs = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": seed},
            capture_output=True, check=True, text=True,
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(outs) == 1


def test_the_library_reads_what_we_write(tmp_path):
    model = torch.nn.Linear(3, 2)
    file = tmp_path / "m.safetensors"
    tree = {
        "state": {"model": model.state_dict(), "half": torch.ones(3, dtype=torch.bfloat16), "flag": np.array(True)},
        "n": 1,
    }
    file.write_bytes(encoded(tree))
    read = safetensors.torch.load_file(file)
    assert torch.equal(read["state.model.weight"], model.weight)
    assert read["state.half"].dtype == torch.bfloat16
    with safetensors.safe_open(file, "np") as opened:
        assert opened.metadata()["phyla"] == codec.FORMAT
        assert set(opened.keys()) == {"state.model.weight", "state.model.bias", "state.half", "state.flag"}


def test_arrays_lie_aligned():
    data = encoded(
        {"a": np.ones(3, "u1"), "b": np.ones(3, "f8"), "c": np.ones(3, "f2"), "d": b"12345", "e": np.ones(1, "c16")}
    )
    length = int.from_bytes(data[:8], "little")
    assert length % 8 == 0
    header = json.loads(data[8 : 8 + length])
    del header["__metadata__"]
    for entry in header.values():
        width = {"F64": 8, "F16": 2, "U8": 1}[entry["dtype"]]
        assert entry["data_offsets"][0] % width == 0


def test_encode_copies_nothing():
    array = np.ones(2**22)
    tensor = torch.ones(2**22)
    codec.encode({"a": array, "t": tensor})
    tracemalloc.start()
    buffers = codec.encode({"a": array, "t": tensor})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000
    assert sum(map(len, buffers)) > 12 * 2**22


# Refusals


class Thing:
    pass


Point = namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Thing(), "state_dict"),
        (lambda: 0, "function"),
        (Point(1, 2), "Point"),
        (np.array([Thing()]), "dtype=object"),
        (np.zeros(2, [("x", "f4")]), "structured"),
        (np.ma.array([1, 2]), "class would be lost"),
        (torch.eye(3).to_sparse(), "layout"),
        (torch.empty(3, device="meta"), "without data"),
        ({Thing: 1}, "key"),
        ({(1, Thing): 1}, "key"),
        ({Thing()}, "key"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_what_cannot_be_stored_is_named_with_its_place(value, said):
    with pytest.raises(StateError, match=said) as error:
        codec.encode({"state": {"buffer": [0, value]}})
    assert "state['buffer'][1]" in str(error.value)


def test_nesting_has_an_end():
    tree = []
    for _ in range(codec.MAX_DEPTH - 2):
        tree = [tree]
    assert same(tree, round_trip(tree))
    with pytest.raises(StateError, match="deeper"):
        codec.encode([[[tree]]])
    loop = {}
    loop["self"] = loop
    with pytest.raises(StateError, match="contains itself"):
        codec.encode(loop)


def test_too_many_values_are_refused_when_they_are_written():
    with pytest.raises(StateError, match="arrays"):
        codec.encode({"state": [*range(codec.MAX_ITEMS), "x"]})
    assert len(round_trip(list(range(codec.MAX_ITEMS)))) == codec.MAX_ITEMS


# Hostile files: not one of them may cost more than a second and 200 MB


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_soon_and_in_little_memory(name):
    data = HOSTILE[name]()
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match="not a checkpoint") as error:
            codec.decode(data)
        assert str(error.value).isprintable()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 150e6


def test_the_largest_that_is_allowed_is_read_within_bounds():
    code = textwrap.dedent("""
        import resource, time
        from phyla.checkpoints import codec
        from hostile import entry, hostile
        made = [
            hostile("[" + "[]," * (codec.MAX_ITEMS - 9) + "[]]"),
            hostile("[" + ",".join(f'"{i:06}"' for i in range(codec.MAX_ITEMS - 9)) + "]"),
            hostile("null", "".join(entry(i, 0, 0) for i in range(codec.MAX_ITEMS // 5))),
        ]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for data in made:
            start = time.process_time()
            try:
                codec.decode(data)
            except codec.CheckpointError as error:
                assert "does not name" in str(error)
            assert time.process_time() - start < 2, time.process_time() - start
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < 200 * 1024, grown
    """)
    path = ":".join([*sys.path, str(__import__("pathlib").Path(__file__).parent)])
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}, check=True)


@given(st.binary(max_size=60), st.integers(0, 300), st.integers(0, 255))
@settings(max_examples=200, deadline=None)
def test_damage_is_a_checkpoint_error_or_another_tree(junk, place, byte):
    data = bytearray(encoded({"a": np.arange(4.0), 1: ["x", (None, 2.5)], "b": b"abc", "k": np.str_("x")}))
    data[place % len(data)] = byte
    for damaged in (bytes(data), bytes(data[:place]), junk, bytes(data[:8]) + junk):
        with contextlib.suppress(CheckpointError):
            codec.decode(damaged)
