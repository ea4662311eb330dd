"""Runs that earlier versions left on disk: read as they were, and gone on with (FAULTS.md §2.5)."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

import phyla
from phyla import steer
from phyla.doctor import examine
from phyla.events import Event, Recorded
from phyla.strategies.rebuild import rebuild

sys.path.insert(0, str(Path(__file__).parent / "releases"))
import make

RELEASES = sorted(path for path in make.HERE.iterdir() if (path / "sqlite.json").exists())


@pytest.fixture(params=[(r, j) for r in RELEASES for j in ("sqlite", "directory")], ids=lambda p: f"{p[0].name}-{p[1]}")
def release(request, tmp_path):
    """A copy of a run, its kind of journal, and what was said of it."""
    folder, journal = request.param
    shutil.copytree(folder / journal, tmp_path / "runs")
    return tmp_path / "runs", journal, json.loads((folder / f"{journal}.json").read_text())


def test_an_old_run_says_what_it_said(release):
    path, _, said = release
    assert make.said(path / "run") == said


def test_an_old_run_is_sound(release):
    path, *_ = release
    run = phyla.open(path / "run")
    events = [Recorded(position, event) for position, event in enumerate(run.events(), 1)]
    strategy = rebuild(run.settings.strategy)
    assert strategy is not None
    assert list(examine(events, run.checkpoints, strategy)) == []


def test_an_old_run_goes_on(release):
    path, journal, said = release
    steer.say(path / "run", steer.extend(8))
    population = make.train(path, journal, intervals=8)
    view = population.run.view
    assert view.finished
    assert list(view.done) == [8] * 4
    now = make.said(path / "run")["outcome"]
    assert {key: value for key, value in now.items() if key in said["outcome"]} == said["outcome"]


def test_this_versions_fixture_holds_every_kind_of_event():
    said = json.loads((make.HERE / phyla.__version__ / "sqlite.json").read_text())
    assert set(said["events"]) == {kind.__struct_config__.tag for kind in Event.__args__}
