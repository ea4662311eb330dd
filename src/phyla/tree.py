"""Small functions over saved trees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def take_row(tree: Any, row: int) -> Any:
    """One member's part of a stacked tree: row `row` of every array [K, ...]; what is no array belongs to all."""
    if isinstance(tree, dict):
        return {key: take_row(value, row) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(take_row(value, row) for value in tree)
    return tree[row] if getattr(tree, "shape", ()) else tree


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(path, leaf) for every leaf, in order; a path looks like `['model']['0.weight']`."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, f"{path}[{key!r}]")
    elif isinstance(tree, list | tuple):
        for index, value in enumerate(tree):
            yield from leaves(value, f"{path}[{index}]")
    else:
        yield path, tree
