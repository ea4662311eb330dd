"""What saving and loading a checkpoint costs, beside a plain write of the same bytes: `python bench/checkpoints.py`.

Medians of interleaved rounds in one process, from and to the page cache, without fsync; torch at one thread. Use the ratios.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
import zlib
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
import xxhash
from torch import nn

from phyla import state
from phyla.checkpoints import codec
from phyla.checkpoints.local import LocalCheckpoints


def learner(width: list[int], optimizer: Callable[[Any], Any]) -> dict[str, Any]:
    sizes = [64, *width, 10]
    model = nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(sizes)))
    learner = {"model": model, "optimizer": optimizer(model.parameters())}
    model(torch.randn(8, 64)).square().mean().backward()
    learner["optimizer"].step()
    return learner


STATES: dict[str, tuple[Any, int]] = {
    "one small array": ({"x": np.zeros(3)}, 200),
    "MLP 64-128-10, AdamW": (learner([128], lambda p: torch.optim.AdamW(p, 1e-3)), 200),
    "MLP 64-2400-2400-10, SGD": (learner([2400, 2400], lambda p: torch.optim.SGD(p, 0.1)), 9),
}


def measure(steps: dict[str, Callable[[int], object]], rounds: int) -> dict[str, float]:
    """Milliseconds of each step: the median over rounds, in each of which all are run in turn."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for i in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step(i)
            times[name].append(time.perf_counter() - start)
    return {name: 1e3 * sorted(each)[len(each) // 2] for name, each in times.items()}


def digests(data: bytes) -> dict[str, Callable[[int], object]]:
    return {
        "xxh3_128": lambda i: xxhash.xxh3_128_hexdigest(data),
        "crc32": lambda i: zlib.crc32(data),
        "sha256": lambda i: hashlib.sha256(data).hexdigest(),
        "blake2b": lambda i: hashlib.blake2b(data).hexdigest(),
    }


def steps_of(live: Any, root: Path) -> tuple[int, dict[str, Callable[[int], object]]]:
    """The size of a state's checkpoint, and what is to be measured of it."""
    store, made = LocalCheckpoints(root), state.made(live)
    tree = state.save(live, made)
    data = b"".join(codec.encode(tree))
    decoded = codec.decode(data)
    saved: dict[int, Any] = {}

    def write(i: int) -> None:
        fd = os.open(root / f"raw{i}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        os.write(fd, data)
        os.close(fd)

    steps: dict[str, Callable[[int], object]] = {
        "write of the same bytes": write,
        "save": lambda i: saved.__setitem__(i, store.save(f"m0-{i + 1}.safetensors", state.save(live, made))),
        "  of it, live to tree": lambda i: state.save(live, made),
        "  of it, encode": lambda i: codec.encode(tree),
        "read, verify, decode": lambda i: store.load(saved[i]),
        "  of it, decode": lambda i: codec.decode(data),
        "tree to live": lambda i: state.load(live, decoded, made),
        **{f"digest {name}": digest for name, digest in digests(data).items()},
    }
    if isinstance(live.get("model"), nn.Module):
        tensors = {k: v.contiguous() for k, v in live["model"].state_dict().items()}
        steps["safetensors' own save, to bytes, model only"] = lambda i: safetensors.torch.save(tensors)
    return len(data), steps


def main() -> None:
    torch.set_num_threads(1)
    for name, (live, rounds) in STATES.items():
        root = Path(tempfile.mkdtemp(prefix="phyla-bench-"))
        size, steps = steps_of(live, root)
        print(f"\n{name}, {size:,} bytes")
        for step, ms in measure(steps, rounds).items():
            print(f"  {step:45} {ms:9.3f} ms")
        shutil.rmtree(root)


if __name__ == "__main__":
    main()
