"""Checkpoints as files in one directory.

A file is written under its own name, once: no temporary name and no rename, since it counts only from the report that names
it, and its digest tells whether it is whole. No fsync stands between training and report, unless `durable`: it costs 2.4 to
12 ms where the write itself costs 0.1 (MEASURED.md §6), and `sync` does it behind the training's back.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

import xxhash

from phyla import failpoints
from phyla.checkpoints import Tree, codec, parse_file_name
from phyla.checkpoints.leaves import Buffer
from phyla.errors import CheckpointError
from phyla.events import Checkpoint
from phyla.pin import ASIDE, Pin

if sys.platform == "darwin":
    import fcntl

_PIECES = 1024  # that one writev takes (IOV_MAX)
_BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)


class LocalCheckpoints:
    """A directory of checkpoints; it is made where it is missing.

    durable: a save returns when the file would survive a power loss. readonly: nothing is ever written.
    """

    def __init__(self, root: str | os.PathLike[str], *, durable: bool = False, readonly: bool = False):
        self.root = Path(root)
        self._durable = durable
        self._readonly = readonly
        self._doubtful: set[str] = set()  # an fsync failed: a later one that succeeds would prove nothing
        if not readonly:
            try:
                self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise CheckpointError(
                    f"checkpoints cannot be kept in {self.root.absolute()}: {error.strerror}"
                ) from None
            self._pin = Pin(self.root)

    def save(self, file: str, tree: Tree) -> Checkpoint:
        path = self._path(file, write=True)
        if self._pin.moved:
            raise CheckpointError(f"the run of {self.root.absolute()} {ASIDE}")
        buffers = codec.encode(tree)
        hasher, size = xxhash.xxh3_128(), 0
        for buffer in buffers:
            hasher.update(buffer)
            size += len(buffer)
        checkpoint = Checkpoint(file, hasher.hexdigest(), size)
        try:
            fd = self._create(path, checkpoint)
            if fd is not None:
                self._write(fd, path, buffers)
                self._doubtful.discard(file)
            if self._durable:
                _fsync(path)
                _fsync(self.root)
        except OSError as error:
            self._fail(path, size, error)
        return checkpoint

    def load(self, checkpoint: Checkpoint) -> Tree:
        path = self._path(checkpoint.file)
        try:
            data = _read(path, checkpoint.size)
        except FileNotFoundError:
            raise CheckpointError(f"checkpoint {path.absolute()} is missing") from None
        except OSError as error:
            raise CheckpointError(f"checkpoint {path.absolute()} cannot be read: {error.strerror}") from None
        if isinstance(data, int):
            raise CheckpointError(f"checkpoint {path.absolute()} has {data:,} bytes; {checkpoint.size:,} were reported")
        if (digest := xxhash.xxh3_128_hexdigest(data)) != checkpoint.digest:
            raise CheckpointError(
                f"checkpoint {path.absolute()} has changed since it was reported: its digest is {digest}, "
                f"not {checkpoint.digest}"
            )
        return codec.decode(data)

    def delete(self, files: Iterable[str]) -> None:
        if not self._readonly and self._pin.moved:
            return  # they are another run's now
        for file in files:
            path = self._path(file, write=True)
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise CheckpointError(f"checkpoint {path.absolute()} cannot be deleted: {error.strerror}") from None

    def files(self) -> list[str]:
        try:
            names = [path.name for path in self.root.iterdir()]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CheckpointError(f"{self.root.absolute()} cannot be read: {error.strerror}") from None
        return sorted(name for name in names if parse_file_name(name))

    def sync(self, files: Iterable[str]) -> list[str]:
        safe = []
        for file in files:
            path = self._path(file, write=True)
            try:
                _fsync(path)
            except FileNotFoundError:
                continue
            except OSError:
                self._doubtful.add(file)
            if file not in self._doubtful:
                safe.append(file)
        try:
            _fsync(self.root)
        except OSError:
            self._doubtful.update(safe)
            return []
        return safe

    def _path(self, file: str, *, write: bool = False) -> Path:
        if write and self._readonly:
            raise CheckpointError(f"the checkpoints in {self.root.absolute()} were opened for reading only")
        return self.root / check_name(file)

    def _create(self, path: Path, checkpoint: Checkpoint) -> int | None:
        """A new, empty file, open for writing; None if these bytes are there already, from an answer that was lost."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY
        try:
            return os.open(path, flags, 0o600)
        except FileExistsError:
            with contextlib.suppress(OSError):
                data = _read(path, checkpoint.size)
                if isinstance(data, bytes) and xxhash.xxh3_128_hexdigest(data) == checkpoint.digest:
                    return None
        path.unlink(missing_ok=True)
        return os.open(path, flags, 0o600)

    def _write(self, fd: int, path: Path, buffers: Sequence[Buffer]) -> None:
        try:
            failpoints.point("save.created")
            if failpoints.armed("save.half"):
                whole = b"".join(bytes(buffer) for buffer in buffers)
                buffers = [whole[len(whole) // 2 :]]
                os.write(fd, whole[: len(whole) // 2])
                failpoints.point("save.half")
            for start in range(0, len(buffers), _PIECES):
                _write_all(fd, buffers[start : start + _PIECES])
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # may fail too, on network file systems and with quotas
        failpoints.point("save.written")

    def _fail(self, path: Path, size: int, error: OSError) -> NoReturn:
        """Leaves nothing partial behind, and says what was wanted where."""
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        try:
            free = f"{shutil.disk_usage(self.root).free:,} bytes are free there"
        except OSError:
            free = "the directory is gone"
        raise CheckpointError(
            f"checkpoint {path.name} of {size:,} bytes cannot be written in {self.root.absolute()}: {error.strerror or error}; "
            f"{free}. Nothing of it was kept. Make room or see to the disk, and run the script again: it goes on from here"
        ) from error


def check_name(file: str) -> str:
    """The name, if it is one that a checkpoint can have: nothing else can be reached through a store."""
    if not isinstance(file, str) or parse_file_name(file) is None:
        raise CheckpointError(f"{file!r:.100} is not a checkpoint's name; expected one such as m3-17.safetensors")
    return file


def _write_all(fd: int, buffers: Sequence[Buffer]) -> None:
    """Writes all of it, though one call may take less."""
    if not hasattr(os, "writev"):
        buffers = [b"".join(bytes(buffer) for buffer in buffers)]
    left = [memoryview(buffer) for buffer in buffers]
    while left:
        done = os.writev(fd, left) if hasattr(os, "writev") else os.write(fd, left[0])
        while left and done >= len(left[0]):
            done -= len(left.pop(0))
        if left and done:
            left[0] = left[0][done:]


def _read(path: Path, size: int) -> bytes | int:
    """The file's bytes; only its size if that is another, which is looked at first."""
    fd = os.open(path, os.O_RDONLY | _BINARY | _NO_LINKS)
    try:
        if (found := os.fstat(fd).st_size) != size:
            return found
        pieces = [piece := os.read(fd, size)]
        while piece and sum(map(len, pieces)) < size:  # one read gives at most 2 GiB
            pieces.append(piece := os.read(fd, size))
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return data if len(data) == size else len(data)
    finally:
        os.close(fd)


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | _BINARY)
    try:
        if sys.platform == "darwin":
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # fsync stops at the drive's cache there
        else:
            os.fsync(fd)
    finally:
        os.close(fd)
