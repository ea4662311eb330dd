"""A loop that is left: was it a break, or an exception on its way out?

A `for` loop tells its iterator only that it is dropped. So the claim of a loop that was left is settled a moment later:
as *raised*, if an exception reaches the top of the script; else it is given back, which never counts against the member:
after a break, Ctrl-C, or an exception that the script or a live kernel caught.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from types import TracebackType
from typing import Literal, Protocol

SETTLE_SECONDS = 0.2
"""After which no exception is expected any more. A thread that waits for it keeps the process from ending before."""


class Leaver(Protocol):
    """A population whose loop may be left."""

    def depart(self, why: Literal["given_back", "raised"], error: str | None = None) -> None:
        """Settles the claim of a loop that was left, if there is one."""


_watched: weakref.WeakSet[Leaver] = weakref.WeakSet()
_timers: weakref.WeakKeyDictionary[Leaver, threading.Timer] = weakref.WeakKeyDictionary()


def watch(population: Leaver) -> None:
    """Makes sure that an exception that ends the script is recorded."""
    _watched.add(population)
    if sys.excepthook is not _hook:
        global _previous_hook
        _previous_hook = sys.excepthook
        sys.excepthook = _hook


def leave(population: Leaver) -> None:
    """The loop over this population was left in the middle of a turn."""
    if population not in _watched:
        return  # by a forked child: the turn is its parent's
    timer = threading.Timer(SETTLE_SECONDS, population.depart, ("given_back",))
    timer.daemon = False
    _timers[population] = timer
    timer.start()


_previous_hook = sys.excepthook


def _hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    for timer in list(_timers.values()):
        timer.cancel()  # it is on its way no longer: this is the top
    try:
        _previous_hook(kind, error, trace)  # the user's own traceback comes first
    finally:
        for population in list(_watched):
            if isinstance(error, Exception):
                population.depart("raised", f"{kind.__name__}: {error}"[:500])
            else:
                population.depart("given_back")


def _after_fork_in_child() -> None:
    _watched.clear()
    _timers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
