"""Files that are made to hurt whoever reads them, and may cost no more than a second and 200 MB."""

import json
import struct


def hostile(tree="null", tensors="", data=b"", length=None, metadata=None):
    meta = metadata or f'{{"phyla":"1","tree":{json.dumps(tree)}}}'
    header = f'{{"__metadata__":{meta}{tensors}}}'.encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def entry(name, start, end, shape=None, dtype="U8"):
    shape = [end - start] if shape is None else shape
    return f',"{name}":{{"dtype":"{dtype}","shape":{json.dumps(shape)},"data_offsets":[{start},{end}]}}'


HOSTILE = {
    "nothing": lambda: b"",
    "one byte": lambda: b"\0",
    "zeros": lambda: bytes(100),
    "a header longer than the file": lambda: hostile(length=2**60),
    "a header of 90 MB": lambda: struct.pack("<Q", 90_000_000) + b" " * 90_000_000,
    "no metadata": lambda: struct.pack("<Q", 2) + b"{}",
    "another format": lambda: hostile(metadata='{"phyla":"2","tree":"null"}'),
    "no tree": lambda: hostile(metadata='{"phyla":"1"}'),
    "metadata that are no strings": lambda: hostile(metadata='{"phyla":1,"tree":{}}'),
    "not JSON": lambda: hostile("{"),
    "not UTF-8": lambda: struct.pack("<Q", 4) + b'{"\xff"',
    "a list of a million": lambda: hostile("[" + "1," * 1_000_000 + "1]"),
    "lists, deep": lambda: hostile("[" * 400_000 + "]" * 400_000),
    "lists, too deep for us": lambda: hostile("[" * 102 + "]" * 102),
    "dicts, too deep for us": lambda: hostile('{"a":' * 102 + "1" + "}" * 102),
    "tags, too deep for us": lambda: hostile('{"$tuple":[' * 102 + "]}" * 102),
    "overlap": lambda: hostile('{"$numpy":"a"}', entry("a", 0, 2) + entry("b", 1, 2), b"xx"),
    "a hole": lambda: hostile('{"$numpy":"a"}', entry("a", 0, 1) + entry("b", 2, 3), b"xxx"),
    "trailing bytes": lambda: hostile('{"$numpy":"a"}', entry("a", 0, 1), b"xx"),
    "two of one name": lambda: hostile('{"$numpy":"a"}', entry("a", 0, 1) * 2, b"x"),
    "a tensor that nobody names": lambda: hostile("null", entry("a", 0, 1), b"x"),
    "a name that there is not": lambda: hostile('{"$numpy":"a"}'),
    "200,000 tensors": lambda: hostile("null", "".join(entry(i, 0, 0) for i in range(200_000))),
    "5 MB, 100,000 times": lambda: hostile(
        "[" + ",".join(['{"$bytes":"a"}'] * 100_000) + "]", entry("a", 0, 5_000_000), bytes(5_000_000)
    ),
    "a shape that is none": lambda: hostile(
        '{"$numpy":"a","dtype":"<f8","shape":[1,-1,-8]}', entry("a", 0, 8), bytes(8)
    ),
    "a huge shape": lambda: hostile(
        '{"$numpy":"a","dtype":"<f8","shape":[1000000000,1000000000]}', entry("a", 0, 8), bytes(8)
    ),
    "an overflowing shape": lambda: hostile('{"$numpy":"a"}', entry("a", 0, 1, [2**63, 2, 2**63]), b"x"),
    "objects": lambda: hostile('{"$numpy":"a","dtype":"|O","shape":[1]}', entry("a", 0, 8), bytes(8)),
    "a dtype that is a program": lambda: hostile('{"$scalar":"f4,(999999999,999)f8","data":""}'),
    "torch's functions": lambda: hostile('{"$dtype":"load"}'),
    "a character that is none": lambda: hostile('{"$scalar":"<U1","data":"ffffffff"}'),
    "a device that is none": lambda: hostile('{"$device":"\\u001b[31mred"}'),
    "a size that is none": lambda: hostile('{"$size":"x"}'),
    "a name with an escape": lambda: hostile('{"$numpy":"a"}', entry("\\u001b[31m", 0, 3), b"x"),
    "NumPy's objects by another name": lambda: hostile('{"$scalar":"object","data":""}'),
    "a quantized tensor": lambda: hostile('{"$torch":"a","dtype":"quint8","shape":[1]}', entry("a", 0, 1), b"x"),
    "a tag of our own": lambda: hostile('{"$pickle":"gASVAAAA"}'),
    "a tag that holds nonsense": lambda: hostile('{"$dict":[1,2]}'),
    "a key that cannot be one": lambda: hostile('{"$dict":[[[1],2]]}'),
    "integers that collide": lambda: hostile(
        '{"$dict":[' + ",".join(f'[{{"$int":"{i * (2**61 - 1):x}"}},0]' for i in range(100_000)) + "]}"
    ),
    "a float of three bytes": lambda: hostile('{"$float":"abcdef"}'),
}
