"""Kill anything at any time: nothing is lost, nothing counts twice (FAULTS.md §2.4)."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import phyla
from chaos import Outcome, chaos, left_behind
from phyla.checkpoints import parse_file_name


def assert_nothing_lost(outcome: Outcome) -> None:
    assert outcome.problems == []
    assert (outcome.lost, outcome.twice) == (0, 0)
    assert outcome.repeated <= outcome.struck.total()  # at most the interval that a struck worker had in hand
    assert set(outcome.failed) <= {"lost", "given_back"}


def assert_nothing_left(folder: Path) -> None:
    """No process, no file that no report needs, no claim that is held."""
    time.sleep(0.6)  # a pulse sees within a quarter of a second that its worker is gone
    assert left_behind(folder) == []
    view = phyla.open(folder / "runs/run").view
    assert not view.busy.any()
    needed = {record.checkpoint.file for record in view.records.values() if not record.freed}
    files = {path.name for path in (folder / "runs/run/checkpoints").iterdir()}
    assert files == needed
    assert all(parse_file_name(name) for name in files)


def test_workers_that_are_killed_stopped_and_ended_at_random(tmp_path: Path) -> None:
    outcome = chaos(tmp_path, seconds=6, workers=3, members=6, seed=1)
    assert outcome.struck.total() >= 5
    assert_nothing_lost(outcome)
    assert_nothing_left(tmp_path)


@pytest.mark.slow
def test_a_minute_of_it_with_200_exploits(tmp_path: Path) -> None:
    outcome = chaos(tmp_path, seconds=60, workers=4, members=8, seed=0)
    print(outcome)
    assert_nothing_lost(outcome)
    assert_nothing_left(tmp_path)
    copies = [record for record in phyla.open(tmp_path / "runs/run").records if record.donor is not None]
    assert len(copies) >= 200
