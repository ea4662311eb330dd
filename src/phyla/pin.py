"""A path that must go on meaning the very same thing: a run may be set aside, and another one begun in its place."""

from __future__ import annotations

from pathlib import Path

ASIDE = (
    "was set aside while this process worked in it (fresh=True, or phyla run --fresh); what it had in hand is dropped"
)


class Pin:
    """A file or directory as it is now."""

    def __init__(self, path: Path):
        self._path = path
        self._is = self._now()

    def _now(self) -> tuple[int, int]:
        stat = self._path.stat()
        return stat.st_dev, stat.st_ino

    @property
    def moved(self) -> bool:
        """Whether the path is something else now, or nothing."""
        try:
            return self._now() != self._is
        except FileNotFoundError:
            return True
