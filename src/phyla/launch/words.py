"""The last words of a worker that has died: whether starting it again can help, and what of them is the script's own."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

_PACKAGE = str(Path(__file__).parent.parent)
_TRACEBACK = "Traceback (most recent call last):"
_FRAME = re.compile(r'  File "(.*)", line \d+')

_LASTING = re.compile(
    r"(phyla\.errors\.(SettingsError|RunDiffers|LoopError)"
    r"|ImportError|ModuleNotFoundError|SyntaxError|IndentationError|TabError|FileNotFoundError)(: |$)"
)
"""Errors that come again, however often a script is started, where nothing was claimed before them."""

_NO_SCRIPT = re.compile(
    r".*python[\d.]*: (No module named |Error while finding module |can't open file )", re.IGNORECASE
)
"""What the interpreter itself says of a script or module that it cannot run."""


def lasting_error(lines: Sequence[str]) -> list[str] | None:
    """Of a worker's output the error that it ended with, if that comes again however often it is started; else None.

    Of a traceback only the frames outside phyla are kept: what the user has written, and what that imports.
    """
    for place in reversed(range(len(lines))):
        if _NO_SCRIPT.match(lines[place]):
            return list(lines[place:])
        if _LASTING.match(lines[place]):
            return [*_frames(lines[:place]), *lines[place:]]
        if lines[place] == _TRACEBACK:
            return None  # it ended with an error of another kind
    return None


def is_phylas(lines: Sequence[str]) -> bool:
    """Whether the error that a worker ended with is one of phyla's own."""
    return any(line.startswith("phyla.errors.") for line in lines)


def _frames(lines: Sequence[str]) -> list[str]:
    """The traceback at the end of these lines, without phyla's frames and the import system's."""
    begins = [place for place, line in enumerate(lines) if line == _TRACEBACK]
    kept, shown = [], True
    for line in lines[begins[-1] + 1 :] if begins else lines:
        if frame := _FRAME.match(line):
            shown = not frame[1].startswith((_PACKAGE, "<frozen "))
        if shown and line.startswith("  "):
            kept.append(line)
    return [_TRACEBACK, *kept] if begins and kept else kept
