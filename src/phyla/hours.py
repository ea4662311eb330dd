"""The time that a process has, and what its intervals take of it."""

from __future__ import annotations

import time
from collections import deque

from phyla import launched


class Hours:
    """One process's time.

    seconds: after which it claims nothing more, from `start` on; None: it has all the time, but for its launcher's deadline.
    most: intervals from which what one takes is told.
    """

    def __init__(self, seconds: float | None, most: int):
        self._seconds = seconds
        self._end: float | None = None
        self._began: float | None = None  # the interval in hand
        self._took: deque[float] = deque(maxlen=most)  # seconds of the newest intervals

    def start(self) -> None:
        """The process has joined its run."""
        self._end = None if self._seconds is None else time.monotonic() + self._seconds

    def begin(self) -> None:
        """An interval begins."""
        self._began = time.monotonic()

    def end(self) -> None:
        """The interval in hand was trained."""
        if self._began is not None:
            self._took.append(time.monotonic() - self._began)

    @property
    def usual(self) -> float:
        """Seconds that an interval takes: those of the longest lately; 0 before the first."""
        return max(self._took, default=0.0)

    @property
    def left(self) -> float:
        """Seconds that the interval in hand still takes, as far as those before it tell."""
        spent = time.monotonic() - self._began if self._began is not None else 0.0
        return max(0.0, self.usual - spent)

    @property
    def over(self) -> bool:
        """Whether nothing more is to be claimed: an interval would not end by the launcher's deadline, or the time is up."""
        deadline = launched.deadline()
        if deadline is not None and time.time() + self.usual >= deadline:
            return True
        return self._end is not None and time.monotonic() >= self._end
