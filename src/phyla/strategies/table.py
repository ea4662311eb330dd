"""All of phyla's strategies, each as an example: what a journal may name, and what the tests of all strategies go through.

To add one: write its file, and name it here.
"""

from __future__ import annotations

from phyla.strategies.contract import Exploit, Explore, Strategy
from phyla.strategies.evolve import Evolve
from phyla.strategies.perturb import Gaussian, Perturb
from phyla.strategies.truncation import Truncation

EXPLOITS: tuple[Exploit, ...] = (Truncation(0.2),)

EXPLORES: tuple[Explore, ...] = (Perturb(), Gaussian(0.1))

STRATEGIES: tuple[Strategy, ...] = (Evolve(Truncation(), Perturb()),)
