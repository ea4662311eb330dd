"""Parts of a state that say themselves how they are kept: Part and Local."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from phyla.errors import StateError
from phyla.state.kinds import Tree

_PATH = "phyla.path"  # the key that marks a stored file or directory, with its name ("" for a directory)


@dataclass(eq=False)
class Part:
    """An object with its own way into a checkpoint and out of it; `state[...]` is the object itself.

    get(obj) gives a tree of plain values and arrays, or bytes, or the Path of a file or directory, which is then stored.
    set(obj, saved) puts that back: into obj, or into a new object that it returns. A stored file or directory is laid down
    in a temporary directory, and saved is its Path, which is gone when set returns. By default an object is its attributes.

        phyla.Part(booster, get=lambda b: b.save_raw(), set=lambda b, raw: b.load_model(raw))
    """

    obj: Any
    get: Callable[[Any], Any] = vars
    set: Callable[[Any, Any], Any] | None = None

    def __post_init__(self) -> None:
        if self.set is None and self.get is not vars:
            raise StateError("Part(obj, get=…) needs set=: a function of obj and of what get gave, which puts it back")

    def restore(self, obj: Any, saved: Tree) -> Any:
        """The object with this in it. Only for parts that have a `set`."""
        assert self.set is not None
        if not (isinstance(saved, dict) and _PATH in saved):
            return _or(self.set(obj, saved), obj)
        with tempfile.TemporaryDirectory(prefix="phyla-") as root:
            return _or(self.set(obj, lay_down(saved, Path(root))), obj)


@dataclass(eq=False)
class Local:
    """Something that lives in one process and is never saved: a replay buffer, an environment. `state[...]` is make()'s.

    make() is called only where this process has none for this member yet. It stays through copies of weights and while
    other members train, and is outside the promise that resident and restored are the same.
    """

    make: Callable[[], Any]


def _or(new: Any, old: Any) -> Any:
    return old if new is None else new


def pick_up(path: Path, where: str) -> Tree:
    """A file or a directory as a tree: the bytes of each file by its relative path."""
    if path.is_file():
        return {_PATH: path.name, "files": {path.name: path.read_bytes()}}
    if not path.is_dir():
        raise StateError(f"{where}: get gave the path {path}, and there is no file or directory")
    files = sorted(p for p in path.rglob("*") if p.is_file())
    return {_PATH: "", "files": {p.relative_to(path).as_posix(): p.read_bytes() for p in files}}


def lay_down(saved: Tree, root: Path) -> Path:
    """The files again, under `root`, and nothing outside of it."""
    single, files = saved[_PATH], saved["files"]
    for name, data in files.items():
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or "\0" in name or "\\" in name or ":" in parts[0]:
            raise StateError(f"the checkpoint names the file {name!r}, which could lie anywhere: refused")
        target = root.joinpath(*parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return root / single if single in files else root
