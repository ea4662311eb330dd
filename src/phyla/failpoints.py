"""Places where a test may end, stop, delay or fail a real process: `PHYLA_FAILPOINT=name:action[:nth]`.

    PHYLA_FAILPOINT=save.half:crash          SIGKILL, the first time that half a checkpoint is written
    PHYLA_FAILPOINT=publish.saved:stop:3     SIGSTOP, the third time
    PHYLA_FAILPOINT=claim.read:sleep=0.5     waits, once
    PHYLA_FAILPOINT=save.written:raise       raises Injected, an OSError

Unarmed, a point costs one comparison.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from dataclasses import dataclass
from typing import NoReturn

from phyla.errors import SettingsError

POINTS: tuple[str, ...] = (
    "claim.read",  # the journal was read, nothing is decided
    "claim.decided",
    "claim.appended",
    "restore.loaded",
    "publish.trained",  # the body has reported, nothing is saved
    "save.created",  # the checkpoint's file is there, empty
    "save.half",
    "save.written",
    "publish.saved",
    "publish.appended",
    "publish.released",  # what retention let go is deleted
)


class Injected(OSError):
    """The failure that a failpoint was armed with."""


@dataclass
class Failpoint:
    """name: one of POINTS. action: crash, raise, stop, sleep. left: passes until it strikes, once."""

    name: str
    action: str
    seconds: float = 0.0
    left: int = 1

    def strike(self) -> None:
        if self.action == "crash":
            _crash()
        elif self.action == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif self.action == "sleep":
            time.sleep(self.seconds)
        else:
            raise Injected(errno.EIO, f"failpoint {self.name}")


def _crash() -> NoReturn:
    if hasattr(signal, "SIGKILL"):
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(137)


def parse(spec: str) -> Failpoint:
    """`name:action[:nth]` as a failpoint. Raises SettingsError for what is none."""
    name, _, rest = spec.partition(":")
    action, _, nth = rest.partition(":")
    action, _, seconds = action.partition("=")
    try:
        point = Failpoint(name, action, float(seconds or 0), int(nth or 1))
    except ValueError:
        point = Failpoint("", "")
    if point.name not in POINTS or point.action not in ("crash", "raise", "stop", "sleep") or point.left < 1:
        raise SettingsError(
            f"PHYLA_FAILPOINT={spec!r}: expected name:action[:nth], with a name of {', '.join(POINTS)} "
            "and an action of crash, raise, stop, sleep=SECONDS"
        )
    return point


def arm(spec: str | None) -> None:
    """Arms this process's failpoint, or none."""
    global _armed
    _armed = parse(spec) if spec else None


def armed(name: str) -> bool:
    """Whether the point of this name may strike."""
    return _armed is not None and _armed.name == name


def point(name: str) -> None:
    """Marks a place that execution has reached."""
    if _armed is not None:
        _reach(name)


def _reach(name: str) -> None:
    global _armed
    if name not in POINTS:
        raise SettingsError(f"no failpoint is called {name!r}; there are {', '.join(POINTS)}")
    if _armed is not None and _armed.name == name:
        _armed.left -= 1
        if _armed.left <= 0:
            struck, _armed = _armed, None
            struck.strike()


_armed: Failpoint | None = None
arm(os.environ.get("PHYLA_FAILPOINT"))
