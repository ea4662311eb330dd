"""Signals. SIGTERM: somebody wants this process to end, as schedulers do before they take a machine away.

The first one lets the interval in hand be finished, if that takes no more than GRACE_SECONDS, as far as the intervals before
tell; else, at a second one, and when that time is over, it is given back at once. Then the process ends, with code 143. Being
preempted is no failure, and neither is Ctrl-C.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import weakref
from types import FrameType
from typing import Protocol

GRACE_SECONDS = 10.0
"""Schedulers leave 30 seconds and more; what is given back is not lost, so there is no need to come near that."""

EXIT_CODE = 128 + signal.SIGTERM


class Trainer(Protocol):
    """A population that may have an interval in hand."""

    @property
    def seconds_left(self) -> float | None:
        """Of the interval in hand, as far as one can tell; None: nothing is in hand."""


_trainers: weakref.WeakSet[Trainer] = weakref.WeakSet()
_asked = 0  # how often SIGTERM came
_interrupted = False  # by Ctrl-C


def listen(trainer: Trainer) -> None:
    """Makes sure that SIGTERM finds this population, unless the script answers that signal itself."""
    _trainers.add(trainer)
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _answer)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)


def asked() -> bool:
    """Whether this process has been asked to end, or to leave the loop."""
    return _asked > 0 or _interrupted


def ends() -> bool:
    """Whether SIGTERM has come: the process is to end as soon as nothing is in hand."""
    return _asked > 0


def end() -> None:
    """Ends the process, as after SIGTERM."""
    raise SystemExit(EXIT_CODE)


def _answer(number: int, frame: FrameType | None) -> None:
    global _asked
    _asked += 1
    left = [seconds for trainer in list(_trainers) if (seconds := trainer.seconds_left) is not None]
    if _asked > 1 or not left or max(left) > GRACE_SECONDS:
        raise SystemExit(EXIT_CODE)
    second = threading.Timer(GRACE_SECONDS, os.kill, (os.getpid(), signal.SIGTERM))
    second.daemon = True
    second.start()
    with contextlib.suppress(OSError):  # not print: whatever it interrupts may be printing
        os.write(2, b"phyla: SIGTERM: this interval is finished first; a second one gives it back at once\n")


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _interrupted
    _interrupted = True
    signal.default_int_handler(number, frame)


def _after_fork_in_child() -> None:
    global _asked
    _trainers.clear()
    if signal.getsignal(signal.SIGTERM) is _answer:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _asked = 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
