"""What a worker does beside its loop: it says that it lives, looks who else does, and makes durable what it has published."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from phyla.errors import PhylaError
from phyla.events import Claimed
from phyla.pulse import Pulse
from phyla.worker import Worker

log = logging.getLogger("phyla")

MOST_STARTS = 5
"""Of a process that beats: one that dies again and again cannot live here."""


class Background:
    """A pulse for a worker, and a thread that looks after others and syncs every `sync_every` seconds.

    pulse: starts the process that beats; None where nobody else could see a beat. The thread beats, too: the process needs
    a while to begin, and may be impossible here.
    """

    def __init__(self, worker: Worker, sync_every: float, pulse: Callable[[float], Pulse] | None):
        self._worker = worker
        self._sync_every = sync_every
        self._start_pulse = pulse
        self._every = min(5.0, worker.lease / 4)
        self._stop = threading.Event()
        worker.journal.beat(worker.id)  # before the first claim
        self._starts = 0
        self._order: tuple[Sequence[Claimed], float] | None = None
        self._pulse = self._new_pulse()
        self._thread = threading.Thread(target=self._run, name=f"phyla {worker.id}", daemon=True)
        self._thread.start()

    def _new_pulse(self) -> Pulse | None:
        if self._start_pulse is None or self._starts == MOST_STARTS:
            return None
        self._starts += 1
        try:
            pulse = self._start_pulse(self._every)
        except OSError as error:
            log.warning("no process could be started to beat for this worker (%s): only a thread does", error)
            self._starts = MOST_STARTS
            return None
        if self._order is not None:
            pulse.watch(*self._order)
        return pulse

    def watch(self, claims: Sequence[Claimed], seconds: float) -> None:
        """From now on these claims are trained, and after so many seconds they hang; none: they have ended."""
        self._order = (claims, seconds)
        if self._pulse is not None:
            self._pulse.watch(*self._order)

    def _run(self) -> None:
        next_sync = time.monotonic() + self._sync_every
        while not self._stop.wait(min(self._every, self._sync_every)):
            try:
                self._worker.journal.beat(self._worker.id)
                if self._pulse is not None and not self._pulse.beats:
                    self._pulse = self._new_pulse()
                self._worker.watch()
                if time.monotonic() >= next_sync:
                    self._worker.sync()
                    next_sync = time.monotonic() + self._sync_every
            except Exception as error:  # a thread that ended would let the worker look dead
                log.warning("%s", error if isinstance(error, PhylaError) else repr(error))

    def stop(self) -> None:
        """Ends both, and makes durable what is left."""
        self._stop.set()
        self._thread.join()
        if self._pulse is not None:
            self._pulse.stop()
        self._worker.sync()
