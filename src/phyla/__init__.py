"""phyla: Population Based Training for any plain training loop. The journal is the population."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from phyla.cohort import Cohort
from phyla.errors import (
    CheckpointError,
    ClaimLost,
    Conflict,
    JournalError,
    LoopError,
    PhylaError,
    PhylaWarning,
    RunDiffers,
    ScoreError,
    SettingsError,
    StateError,
)
from phyla.launch import run
from phyla.lineage import Schedule
from phyla.member import Member
from phyla.population import Population
from phyla.record import Record
from phyla.runs import Run, open
from phyla.space import Choice, Float, Int
from phyla.state import Local, Part
from phyla.strategies.contract import FRESH, KEEP, Decision, Mix
from phyla.strategies.evolve import Evolve
from phyla.strategies.perturb import Gaussian, Perturb
from phyla.strategies.truncation import Truncation
from phyla.version import __version__

if TYPE_CHECKING:
    from phyla.strategies.backtrack import Backtrack
    from phyla.strategies.bands import Bands
    from phyla.strategies.byname import ByName
    from phyla.strategies.either import Either
    from phyla.strategies.fire import FIRE
    from phyla.strategies.gap import Gap
    from phyla.strategies.gpbt import GPBT
    from phyla.strategies.initiator import Initiator
    from phyla.strategies.ipbt import IPBT
    from phyla.strategies.mfpbt import MFPBT
    from phyla.strategies.mopbt import MOPBT
    from phyla.strategies.pb2 import PB2, PB2Mix
    from phyla.strategies.protect import Protect
    from phyla.strategies.resample import Resample
    from phyla.strategies.steps import Steps
    from phyla.strategies.tournament import Tournament
    from phyla.strategies.ttest import TTest

__all__ = [
    "FIRE",
    "FRESH",
    "GPBT",
    "IPBT",
    "KEEP",
    "MFPBT",
    "MOPBT",
    "PB2",
    "Backtrack",
    "Bands",
    "ByName",
    "CheckpointError",
    "Choice",
    "ClaimLost",
    "Cohort",
    "Conflict",
    "Decision",
    "Either",
    "Evolve",
    "Float",
    "Gap",
    "Gaussian",
    "Initiator",
    "Int",
    "JournalError",
    "Local",
    "LoopError",
    "Member",
    "Mix",
    "PB2Mix",
    "Part",
    "Perturb",
    "PhylaError",
    "PhylaWarning",
    "Population",
    "Protect",
    "Record",
    "Resample",
    "Run",
    "RunDiffers",
    "Schedule",
    "ScoreError",
    "SettingsError",
    "StateError",
    "Steps",
    "TTest",
    "Tournament",
    "Truncation",
    "__version__",
    "open",
    "run",
]

_LATER = {
    "Backtrack": "backtrack",
    "Bands": "bands",
    "ByName": "byname",
    "Either": "either",
    "FIRE": "fire",
    "GPBT": "gpbt",
    "Gap": "gap",
    "IPBT": "ipbt",
    "Initiator": "initiator",
    "MFPBT": "mfpbt",
    "MOPBT": "mopbt",
    "PB2": "pb2",
    "PB2Mix": "pb2",
    "Protect": "protect",
    "Resample": "resample",
    "Steps": "steps",
    "TTest": "ttest",
    "Tournament": "tournament",
}
"""Strategies that are imported when they are asked for, and the file of each."""


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module 'phyla' has no attribute {name!r}")
    found = globals()[name] = getattr(importlib.import_module(f"phyla.strategies.{_LATER[name]}"), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
