"""A run as its launcher sees it: read like by any reader, and written to only to end the claims of workers that died."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection

from phyla import guidance, host, runs
from phyla.errors import Conflict
from phyla.events import Claimed, Failed, FailedKind, Reported, failed
from phyla.glance import budget, plural, trained
from phyla.launched import Joined
from phyla.runs import Place, Run
from phyla.strategies.rebuild import rebuild
from phyla.view import CONSUMES_RETRIES, View, fold


class Watched:
    """A run that a worker of this launch has joined.

    claimed, reported: the workers that ever did so, by id. troubled: (worker, member) where a body has failed by its own fault.
    raised: the workers whose newest claim has ended so, by an error of the body.
    """

    def __init__(self, joined: Joined):
        self.path = joined.run
        self.journal, checkpoints = runs.open_for_work(Place(joined.run, joined.journal))
        self.view = View()
        self.run = Run(self.journal, checkpoints, joined.run, self.read)
        self.claimed: set[str] = set()
        self.reported: set[str] = set()
        self.troubled: set[tuple[str, int]] = set()
        self.raised: set[str] = set()
        self.reports = 0
        self._id = host.new_worker_id()

    def read(self) -> View:
        """The run as it stands now."""
        for recorded in self.journal.read(self.view.position):
            event = recorded.event
            if isinstance(event, Claimed):
                self.claimed.add(event.worker)
                self.raised.discard(event.worker)
            elif isinstance(event, Reported | Failed) and (claim := self.view.open[event.member]) is not None:
                if isinstance(event, Reported):
                    self.reports += 1
                    self.reported.add(claim.worker)
                elif event.why in CONSUMES_RETRIES:
                    self.troubled.add((claim.worker, event.member))
                    if event.why == "raised":
                        self.raised.add(claim.worker)
            fold([recorded], self.view)
        return self.view

    @property
    def advice(self) -> list[str]:
        """What the run as it was created is advised against."""
        return guidance.at_start(self.view.settings, self.view.space, rebuild(self.view.settings.strategy))

    @property
    def begun(self) -> bool:
        return self.view.created is not None

    @property
    def finished(self) -> bool:
        return self.begun and self.view.finished

    def hopeless(self, workers: Collection[str]) -> bool:
        """Several members have failed in these workers by the fault of the script, and none has ever reported."""
        if not self.begun or self.view.records:
            return False
        return len({member for worker, member in self.troubled if worker in workers}) >= min(3, self.view.size)

    @property
    def progress(self) -> str:
        """How far it is, in words."""
        view = self.view
        if not self.begun:
            return "0 intervals"
        total = budget(view)
        return f"{trained(view):,} of {total:,} intervals" if total is not None else plural(trained(view), "interval")

    def holds(self, worker: str) -> list[Claimed]:
        """The claims that a worker has open."""
        return [claim for claim in self.view.open if claim is not None and claim.worker == worker] if self.begun else []

    def end_claims(self, worker: str, why: FailedKind, error: str) -> list[Claimed]:
        """Ends every claim that a dead worker still holds, and returns those; another worker may be quicker."""
        self.read()
        ended = self.holds(worker)
        while claims := self.holds(worker):
            with contextlib.suppress(Conflict):  # who was quicker is read below
                said, now = f"{worker}: {error}", time.time()
                self.journal.append(*(failed(claim, why, error=said, worker=self._id, time=now) for claim in claims))
            self.read()
        return ended

    def close(self) -> None:
        self.journal.close()
