"""How much room a run's checkpoints need, and when it is said that there is less."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import phyla
from journals_by_hand import Story, random_story
from phyla.room import Need, Room, need
from phyla.view import View


@given(st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_a_run_never_keeps_more_than_its_estimate(seed: int) -> None:
    story, view = random_story(np.random.default_rng(seed), 60, intervals=1000), View()
    for recorded in story.events:
        view.fold(recorded)
        needed = need(view)
        kept = sum(not record.freed for record in view.records.values())
        writing = sum(claim is not None for claim in view.open)
        assert needed is None or (needed.each, kept + writing <= needed.most) == (1, True)


def test_the_estimate_follows_from_the_rules_of_retention() -> None:
    story = Story(size=4, keep=2, intervals=10)
    assert need(story.view) is None  # nothing tells how large a checkpoint is
    story.train(0)
    assert need(story.view) == Need(each=1, there=1, usual=4 * 2 + 1, most=4 * (2 + 3) + 1, soon=4 + 1)
    for _ in range(3):
        story.generation(1, 2, 3, 4)
    assert need(story.view) == Need(each=1, there=8, usual=9, most=21, soon=1)  # an old one goes for each new one


def test_a_finished_run_needs_no_more() -> None:
    story = Story(size=2, keep=2, intervals=3)
    for _ in range(3):
        story.generation(1, 2)
    assert story.view.finished
    needed = need(story.view)
    assert needed is not None
    assert (needed.there, needed.soon) == (4, 0)


class Watched:
    """A run whose checkpoints have 100 bytes, on a disk of which so many are free."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, free: int):
        self.free, self.now, self.looks = free, 100.0, 0
        self.caplog = caplog
        self.story = Story(size=4, keep=2, intervals=50)
        self.room = Room(Path("/runs/digits/checkpoints"), self._look)
        monkeypatch.setattr("phyla.room.time.monotonic", lambda: self.now)
        caplog.set_level(logging.WARNING, "phyla")

    def _look(self, root: Path) -> int:
        self.looks += 1
        return self.free

    def after(self, seconds: float, **changes: Any) -> list[str]:
        """What is said when the next report comes so much later."""
        self.now += seconds
        self.caplog.clear()
        member = int(np.argmin(self.story.view.done))
        claim = self.story.claim(member)
        self.story.report(
            member, checkpoint=phyla.events.Checkpoint(f"m{member}-{claim.seq}.safetensors", "0" * 32, 100)
        )
        self.room.look(self.story.view)
        return self.caplog.messages


def test_a_run_that_may_not_fit_is_told_of_once_with_figures_and_ways_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = Watched(monkeypatch, caplog, free=1999)  # of 2,000 that are still to come
    (said,) = run.after(0)
    assert "may come to 2.1 kB (4 members × up to 5 of 100 bytes, and the best; mostly 900 bytes)" in said
    assert "100 bytes are there, and 2.0 kB are free on that disk" in said
    assert "Population(path=…) or $PHYLA_RUNS" in said
    assert [message for _ in range(9) for message in run.after(6)] == []
    assert Watched(monkeypatch, caplog, free=2000).after(0) == []


def test_a_disk_that_is_nearly_full_is_told_of_again_only_after_there_was_room(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = Watched(monkeypatch, caplog, free=10**6)
    assert [message for _ in range(12) for message in run.after(6)] == []
    run.free = 99
    (said,) = run.after(6)
    assert (
        "the disk is nearly full. 99 bytes are free, and the next interval of all members needs 100 bytes more" in said
    )
    assert run.after(6) == []
    run.free = 10**6
    assert run.after(6) == []
    run.free = 99
    assert len(run.after(6)) == 1


def test_the_disk_is_looked_at_every_few_seconds_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = Watched(monkeypatch, caplog, free=10**6)
    for _ in range(100):
        run.after(0.1)
    assert run.looks == 2


def test_a_disk_that_cannot_be_asked_is_no_matter(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    story = Story()
    story.train(0)
    Room(tmp_path / "not there").look(story.view)
    Room(None).look(story.view)
