"""The launcher: starts workers on this machine, ends the claims of those that die, starts them again, and shows the run.

`phyla run` launches a script, and `phyla.run` a function. Workers need no launcher: it holds nothing that the journal does
not say, and if it is killed, they go on without it, only that nobody starts them again when they die.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from phyla.population import Population
    from phyla.runs import Run


def run(train: Callable[[Population], object], population: Population, workers: int = 4) -> Run:
    """Calls train(population) in each of several new processes, and returns the run when they have ended.

    The function and the population are handed to them by value (cloudpickle, through a pipe), so both may be made in a
    notebook; what `train` returns is not handed back: the run is. Raises LoopError if the workers fail, and KeyboardInterrupt
    if Ctrl-C ended them.
    """
    from phyla.launch.functions import run

    return run(train, population, workers)
