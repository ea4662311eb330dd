"""Checkpoints: immutable trees, each written once under its own name. One store a file; this page is all that `worker` knows.

A tree is what a state becomes when it is saved: None, bool, int, float, str, bytes, arrays, and lists, tuples and dicts of
trees (state.py makes it from live objects; codec.py turns it into bytes).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, Protocol, TypeAlias

from phyla.events import Checkpoint
from phyla.tree import take_row

Tree: TypeAlias = Any
"""What can be saved; the leaves are listed above."""


class Checkpoints(Protocol):
    """Where checkpoints lie. `phyla.testing.CheckpointsConformance` holds every implementation to this."""

    def save(self, file: str, tree: Tree) -> Checkpoint:
        """Writes the tree under this name, which must be new, and says its digest and size.

        Under a name that already holds these very bytes the save has succeeded; under one that holds anything else (a
        piece of an attempt that failed, by the same claim) it is replaced. Raises CheckpointError where it cannot be
        written: nothing partial stays under that name then.
        """
        ...

    def load(self, checkpoint: Checkpoint) -> Tree:
        """The tree as saved. Raises CheckpointError if it is missing or not, byte for byte, what was reported."""
        ...

    def delete(self, files: Iterable[str]) -> None:
        """Removes these; one that is not there is none the less removed."""
        ...

    def files(self) -> list[str]:
        """The names of all files here that have a checkpoint's name."""
        ...

    def sync(self, files: Iterable[str]) -> list[str]:
        """Makes these survive a power loss; returns those that are safe now. May be called from another thread."""
        ...


def file_name(member: int, seq: int) -> str:
    """The name of the checkpoint that the claim at this place in the journal writes."""
    return f"m{member}-{seq}.safetensors"


def parse_file_name(file: str) -> tuple[int, int] | None:
    """The (member, seq) of the claim that wrote the checkpoint of this name; None if it is no checkpoint's name."""
    found = re.fullmatch(r"m(\d{1,9})-(\d{1,9})\.safetensors", file, re.ASCII)
    return (int(found[1]), int(found[2])) if found else None


class Rows:
    """Loads members' states; a file that holds many of them is read once, as long as they are asked for in a row."""

    def __init__(self, checkpoints: Checkpoints):
        self._checkpoints = checkpoints
        self._file: str | None = None
        self._tree: Tree = None

    def row(self, checkpoint: Checkpoint) -> Tree:
        """As `load_row`; what it gives may share memory with other rows."""
        if checkpoint.row is None:
            return self._checkpoints.load(checkpoint)
        if self._file != checkpoint.file:
            self._file, self._tree = None, None  # never two at a time in memory
            self._tree, self._file = self._checkpoints.load(checkpoint), checkpoint.file
        return take_row(self._tree, checkpoint.row)


def load_row(checkpoints: Checkpoints, checkpoint: Checkpoint) -> Tree:
    """A member's saved state; its own row, where a cohort saved many in one file."""
    return Rows(checkpoints).row(checkpoint)
