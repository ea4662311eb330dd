"""A loop that is left: was it a break, or an exception on its way out?

A `for` loop tells its iterator only that it is dropped. So the claim of a loop that was left is settled a moment later:
as *raised*, if an exception reaches the top of the script; else it is given back, which never counts against the member:
after a break, Ctrl-C, or an exception that the script or a live kernel caught.

No hook hears of `sys.exit` in a body. It is known by two things together: a call was under way when the loop was left, and
the interpreter ends before the claim is settled.
"""

from __future__ import annotations

import builtins
import dis
import os
import sys
import threading
import weakref
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Literal, Protocol

from phyla import preempt

SETTLE_SECONDS = 0.2
"""After a break, before the claim is given back. A thread that waits for it keeps the process from ending before."""

THROWN_SECONDS = 30.0
"""After which an exception that a script's loop was left by has been caught: it may pass through much cleaning up before."""


class Leaver(Protocol):
    """A population whose loop may be left."""

    def depart(self, why: Literal["given_back", "raised"], error: str | None = None) -> None:
        """Settles the claim of a loop that was left, if there is one."""


_CALLS = ("CALL", "RAISE", "RERAISE")
"""What a frame is doing while it is left by an exception; after a break it drops the iterator, with an instruction for that."""

_watched: weakref.WeakSet[Leaver] = weakref.WeakSet()
_timers: weakref.WeakKeyDictionary[Leaver, threading.Timer] = weakref.WeakKeyDictionary()


def watch(population: Leaver) -> None:
    """Makes sure that an exception that ends the script is recorded."""
    _watched.add(population)
    global _previous_hook
    if _previous_hook is None:  # once: another tool that takes the hook later calls this one
        _previous_hook, sys.excepthook = sys.excepthook, _hook


def leave(population: Leaver) -> None:
    """The loop over this population was left in the middle of a turn."""
    if population not in _watched:
        return  # by a forked child: the turn is its parent's
    if sys.is_finalizing():
        return  # no thread can begin any more: whoever comes next finds this process gone
    if _thrown_out_of(sys._getframe(1).f_back):
        _thrown.add(population)
    else:
        _thrown.discard(population)
    patient = population in _thrown and not preempt.asked() and not _interactive()
    timer = threading.Timer(THROWN_SECONDS if patient else SETTLE_SECONDS, population.depart, ("given_back",))
    timer.daemon = False
    _timers[population] = timer
    timer.start()


def _interactive() -> bool:
    """Whether somebody sits before a prompt, which catches every exception."""
    return hasattr(sys, "ps1") or "get_ipython" in vars(builtins)


def _thrown_out_of(frame: FrameType | None) -> bool:
    """Whether this frame, which has just dropped a loop's iterator, is being left by an exception."""
    if frame is None:
        return True
    code, place = frame.f_code.co_code, frame.f_lasti
    while place > 0 and dis.opname[code[place]] == "CACHE":
        place -= 2
    return dis.opname[code[place]].startswith(_CALLS)


_thrown: weakref.WeakSet[Leaver] = weakref.WeakSet()
"""Populations whose loop was left by some exception."""


def _at_exit() -> None:
    """The interpreter ends; nobody has settled these yet."""
    for population, timer in list(_timers.items()):
        timer.cancel()
        if population in _thrown and not preempt.asked():
            population.depart("raised", "SystemExit: the script ended in the middle of the interval")
        else:
            population.depart("given_back")


threading._register_atexit(_at_exit)  # type: ignore[attr-defined]  # before the interpreter waits for the timers

_previous_hook: Callable[[type[BaseException], BaseException, TracebackType | None], object] | None = None


def _hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    for timer in list(_timers.values()):
        timer.cancel()  # it is on its way no longer: this is the top
    assert _previous_hook is not None
    try:
        _previous_hook(kind, error, trace)  # the user's own traceback comes first
    finally:
        for population in list(_watched):
            if isinstance(error, Exception) and not preempt.ends():
                population.depart("raised", f"{kind.__name__}: {error}"[:500])
            else:
                population.depart("given_back")


def _after_fork_in_child() -> None:
    _watched.clear()
    _timers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
