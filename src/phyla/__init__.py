"""phyla: Population Based Training for any plain training loop. The journal is the population."""

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

__all__ = [
    "FRESH",
    "KEEP",
    "CheckpointError",
    "Choice",
    "ClaimLost",
    "Cohort",
    "Conflict",
    "Decision",
    "Evolve",
    "Float",
    "Gaussian",
    "Int",
    "JournalError",
    "Local",
    "LoopError",
    "Member",
    "Mix",
    "Part",
    "Perturb",
    "PhylaError",
    "PhylaWarning",
    "Population",
    "Record",
    "Run",
    "RunDiffers",
    "Schedule",
    "ScoreError",
    "SettingsError",
    "StateError",
    "Truncation",
    "__version__",
    "open",
    "run",
]
