"""What a worker does beside its loop: it says that it lives, and makes durable what it has published."""

from __future__ import annotations

import logging
import threading
import time

from phyla.errors import PhylaError
from phyla.worker import Worker

log = logging.getLogger("phyla")


class Background:
    """A thread that beats for a worker every quarter of its lease, and syncs every `sync_every` seconds."""

    def __init__(self, worker: Worker, sync_every: float):
        self._worker = worker
        self._sync_every = sync_every
        self._stop = threading.Event()
        worker.journal.beat(worker.id)  # before the first claim
        self._thread = threading.Thread(target=self._run, name=f"phyla {worker.id}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        beat_every = min(5.0, self._worker.lease / 4)
        next_sync = time.monotonic() + self._sync_every
        while not self._stop.wait(min(beat_every, self._sync_every)):
            try:
                self._worker.journal.beat(self._worker.id)
                if time.monotonic() >= next_sync:
                    self._worker.sync()
                    next_sync = time.monotonic() + self._sync_every
            except Exception as error:  # a thread that ended would let the worker look dead
                log.warning("%s", error if isinstance(error, PhylaError) else repr(error))

    def stop(self) -> None:
        """Ends the thread, and makes durable what is left."""
        self._stop.set()
        self._thread.join()
        self._worker.sync()
