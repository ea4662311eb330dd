"""What a launcher waits for: Ctrl-C, SIGTERM, the end of a worker; without losing one that comes between two looks."""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import threading
import time
from types import FrameType
from typing import Any

ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Signals:
    """As a context: signals are taken here. Only Python's main thread can take them; in another, `wait` is a short sleep."""

    def __init__(self) -> None:
        self._taken: list[int] = []
        self._old: dict[int, Any] = {}
        self._old_wakeup = -1
        self._reader: socket.socket | None = None

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            self._reader, self._writer = socket.socketpair()
            self._reader.setblocking(False)
            self._writer.setblocking(False)
            self._old_wakeup = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
            for number in ENDING:
                if signal.getsignal(number) != signal.SIG_IGN:  # nohup means it
                    self._take_over(number, self._take)
            self._take_over(signal.SIGCHLD, lambda number, frame: None)  # any handler makes it wake `wait`
        return self

    def _take_over(self, number: int, handler: Any) -> None:
        self._old[number] = signal.signal(number, handler) or signal.SIG_DFL

    def _take(self, number: int, frame: FrameType | None) -> None:
        self._taken.append(number)

    def __exit__(self, *error: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        if self._reader is not None:
            signal.set_wakeup_fd(self._old_wakeup)
            self._reader.close()
            self._writer.close()

    def wait(self, timeout: float) -> None:
        """Returns when there is a signal, or after `timeout` seconds."""
        if self._reader is None:
            time.sleep(min(timeout, 0.02))
            return
        select.select([self._reader], [], [], timeout)
        with contextlib.suppress(BlockingIOError):
            while self._reader.recv(4096):
                pass

    def taken(self) -> list[int]:
        """The signals that ask for the end, since the last look."""
        taken, self._taken = self._taken, []
        return taken
