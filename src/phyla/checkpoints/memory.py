"""Checkpoints in this process's memory: for tests, the simulation, and runs that leave nothing behind."""

from __future__ import annotations

import threading
from collections.abc import Iterable

import xxhash

from phyla.checkpoints import Tree, codec
from phyla.checkpoints.local import check_name
from phyla.errors import CheckpointError
from phyla.events import Checkpoint


class MemoryCheckpoints:
    """Keeps each checkpoint as the bytes that a file would hold. Threads may share it."""

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}
        self._synced: set[str] = set()
        self._lock = threading.Lock()

    def save(self, file: str, tree: Tree) -> Checkpoint:
        data = b"".join(codec.encode(tree))
        with self._lock:
            if self._files.get(check_name(file)) != data:
                self._files[file] = data
                self._synced.discard(file)
        return Checkpoint(file, xxhash.xxh3_128_hexdigest(data), len(data))

    def load(self, checkpoint: Checkpoint) -> Tree:
        with self._lock:
            data = self._files.get(check_name(checkpoint.file))
        if data is None:
            raise CheckpointError(f"checkpoint {checkpoint.file} is missing in this process's memory")
        if len(data) != checkpoint.size or xxhash.xxh3_128_hexdigest(data) != checkpoint.digest:
            raise CheckpointError(f"checkpoint {checkpoint.file} holds other bytes than those that were reported")
        return codec.decode(data)

    def delete(self, files: Iterable[str]) -> None:
        with self._lock:
            for file in files:
                self._files.pop(check_name(file), None)
                self._synced.discard(file)

    def files(self) -> list[str]:
        with self._lock:
            return sorted(self._files)

    def sync(self, files: Iterable[str]) -> list[str]:
        with self._lock:
            safe = [file for file in files if check_name(file) in self._files]
            self._synced.update(safe)
        return safe

    # What tests do to it

    def damage(self, file: str) -> None:
        """Leaves a piece of a file under this name, as a crash in the midst of a save does."""
        with self._lock:
            data = self._files.get(check_name(file), b"torn")
            self._files[file] = data[: len(data) // 2]

    def lose_power(self) -> None:
        """Forgets what was not synced."""
        with self._lock:
            self._files = {file: data for file, data in self._files.items() if file in self._synced}
