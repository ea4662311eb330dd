"""All of phyla's strategies, each as an example: what a journal may name, and what the tests of all strategies go through.

To add one: write its file, and name it here.
"""

from __future__ import annotations

from phyla.strategies.backtrack import Backtrack
from phyla.strategies.bands import Bands
from phyla.strategies.byname import ByName
from phyla.strategies.contract import Exploit, Explore, Strategy
from phyla.strategies.either import Either
from phyla.strategies.evolve import Evolve
from phyla.strategies.fire import FIRE
from phyla.strategies.gap import Gap
from phyla.strategies.gpbt import GPBT
from phyla.strategies.initiator import Initiator
from phyla.strategies.ipbt import IPBT
from phyla.strategies.mfpbt import MFPBT
from phyla.strategies.mopbt import MOPBT
from phyla.strategies.pb2 import PB2, PB2Mix
from phyla.strategies.perturb import Gaussian, Perturb
from phyla.strategies.protect import Protect
from phyla.strategies.resample import Resample
from phyla.strategies.steps import Steps
from phyla.strategies.tournament import Tournament
from phyla.strategies.truncation import Truncation
from phyla.strategies.ttest import TTest

EXPLOITS: tuple[Exploit, ...] = (
    Truncation(0.2),
    Tournament(),
    TTest(),
    Bands(),
    Gap(),
    Protect(Truncation(0.25), 0),
    Backtrack(Truncation(0.25)),
)

EXPLORES: tuple[Explore, ...] = (
    Perturb(),
    Gaussian(0.1),
    Resample(0.5),
    Either(Perturb(), Resample(), weights=(0.75, 0.25)),
    ByName({"lr": Gaussian(0.1)}),
    Steps(),
)

STRATEGIES: tuple[Strategy, ...] = (
    Evolve(Truncation(), Perturb()),
    FIRE(every=1, max_eval=8),  # a round each interval: tests are short
    MFPBT((1, 2)),
    MOPBT({"score": "max"}),
    GPBT(),
    Initiator(),
    IPBT(),
    PB2(),
    PB2Mix(),
)
