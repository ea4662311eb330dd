"""What every store of checkpoints must do. A third party's store passes these tests too:

class TestMyStore(CheckpointsConformance):
    def open(self):
        return MyStore(self.path)

    def raw(self, file):
        return (self.path / file).read_bytes()

    def put(self, file, data):
        (self.path / file).write_bytes(data)
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phyla.checkpoints import Checkpoints, file_name
from phyla.errors import CheckpointError, StateError
from phyla.events import Checkpoint

TREE: dict[Any, Any] = {"w": np.arange(6.0).reshape(2, 3), "step": 3, "names": ["a", ("b", None)], 0: b"bytes"}
FILE = file_name(0, 2)
FORBIDDEN = (
    "", ".", "..", "../m0-2.safetensors", "m0-2.safetensors/..", "/etc/passwd", "m0-2", "m0-2.safetensors.tmp",
    "m-1-2.safetensors", "m0-2.safetensors\n", "m0-2.safetensors\0", "%2e%2e/m0-2.safetensors", "M0-2.safetensors",
    "a/m0-2.safetensors", "m٣-2.safetensors",
)  # fmt: skip


class CheckpointsConformance:
    """Subclass, and say how the store is opened, and how the bytes under a name are read and replaced behind its back."""

    path: Path  # an empty directory of this test's own

    def open(self) -> Checkpoints:
        """Opens the store of this test; every call opens the same place."""
        raise NotImplementedError

    def raw(self, file: str) -> bytes:
        """The bytes that lie under a name."""
        raise NotImplementedError

    def put(self, file: str, data: bytes) -> None:
        """Puts other bytes under a name."""
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.path = tmp_path

    def test_loads_what_was_saved(self) -> None:
        saved = self.open().save(FILE, TREE)
        tree = self.open().load(saved)
        assert list(tree) == list(TREE)
        assert np.array_equal(tree.pop("w"), TREE["w"])
        assert tree == {key: TREE[key] for key in tree}

    def test_says_name_digest_and_size(self) -> None:
        store = self.open()
        one, two = store.save(FILE, TREE), store.save(file_name(3, 7), TREE)
        assert (one.file, two.file) == (FILE, "m3-7.safetensors")
        assert one.digest == two.digest
        assert len(one.digest) == 32
        assert one.size == two.size == len(self.raw(FILE))
        assert store.save(file_name(3, 9), {**TREE, "step": 4}).digest != one.digest

    def test_what_is_loaded_is_its_own(self) -> None:
        store = self.open()
        saved = store.save(FILE, TREE)
        store.load(saved)["w"] += 1
        assert np.array_equal(store.load(saved)["w"], TREE["w"])

    def test_the_same_save_again_succeeds(self) -> None:
        assert self.open().save(FILE, TREE) == self.open().save(FILE, TREE)

    def test_a_piece_under_the_name_is_replaced(self) -> None:
        store = self.open()
        data = self._bytes(store)
        for piece in (b"", data[:10], data[: len(data) // 2], data + b"x", data[:-1] + b"\xff"):
            self.put(FILE, piece)
            saved = store.save(FILE, TREE)
            assert self.raw(FILE) == data
            assert store.load(saved)["step"] == 3

    def test_nothing_stays_of_what_cannot_be_saved(self) -> None:
        store = self.open()
        with pytest.raises(StateError, match="x is of type object"):
            store.save(FILE, {"x": object()})
        assert store.files() == []

    def test_missing(self) -> None:
        with pytest.raises(CheckpointError, match="missing"):
            self.open().load(Checkpoint(FILE, "0" * 32, 100))

    def test_torn_at_any_place(self) -> None:
        store = self.open()
        saved = store.save(FILE, TREE)
        data = self.raw(FILE)
        header = 8 + int.from_bytes(data[:8], "little")
        for end in (0, 1, 7, 8, header - 1, header, header + 1, len(data) // 2, len(data) - 1):
            self.put(FILE, data[:end])
            with pytest.raises(CheckpointError):
                store.load(saved)
        self.put(FILE, data + b"\0")
        with pytest.raises(CheckpointError):
            store.load(saved)
        self.put(FILE, data)
        store.load(saved)

    def test_a_flipped_bit_anywhere_is_found(self) -> None:
        store = self.open()
        saved = store.save(FILE, TREE)
        data = self.raw(FILE)
        rng = np.random.default_rng(0)
        for place in {0, 7, 8, len(data) - 1, *rng.integers(len(data), size=60).tolist()}:
            flipped = bytearray(data)
            flipped[place] ^= 1 << int(rng.integers(8))
            self.put(FILE, bytes(flipped))
            with pytest.raises(CheckpointError):
                store.load(saved)

    def test_another_digest_or_size_is_refused(self) -> None:
        store = self.open()
        saved = store.save(FILE, TREE)
        for wrong in (Checkpoint(FILE, "0" * 32, saved.size), Checkpoint(FILE, saved.digest, saved.size + 1)):
            with pytest.raises(CheckpointError):
                store.load(wrong)

    def test_lists_and_deletes(self) -> None:
        store = self.open()
        files = [file_name(0, 2), file_name(10, 4), file_name(2, 12)]
        for file in files:
            store.save(file, TREE)
        assert sorted(self.open().files()) == sorted(files)
        store.delete([files[0], file_name(9, 9), files[0]])
        assert sorted(store.files()) == sorted(files[1:])
        store.delete([])
        store.delete(iter(files))
        assert store.files() == []

    def test_sync_says_what_is_safe(self) -> None:
        store = self.open()
        store.save(FILE, TREE)
        assert store.sync([FILE, file_name(5, 5)]) == [FILE]
        assert store.sync([]) == []

    def test_no_name_leads_out(self) -> None:
        store = self.open()
        for name in FORBIDDEN:
            with pytest.raises(CheckpointError, match="name"):
                store.save(name, TREE)
            with pytest.raises(CheckpointError, match="name"):
                store.load(Checkpoint(name, "0" * 32, 1))
            with pytest.raises(CheckpointError, match="name"):
                store.delete([name])
            with pytest.raises(CheckpointError, match="name"):
                store.sync([name])

    def test_threads(self) -> None:
        store = self.open()
        errors: list[BaseException] = []

        def work(member: int) -> None:
            try:
                for seq in range(1, 15):
                    saved = store.save(file_name(member, seq), {"x": np.full(100, member), "seq": seq})
                    store.sync([saved.file])
                    assert store.load(saved)["seq"] == seq
                    store.delete([saved.file] if seq % 2 else [])
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(member,)) for member in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert len(store.files()) == 28

    def _bytes(self, store: Checkpoints) -> bytes:
        store.save(FILE, TREE)
        return self.raw(FILE)
