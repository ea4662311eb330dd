"""`phyla.run`: a function of a notebook or a test, called in each worker of a launch."""

from __future__ import annotations

import inspect
import json
import signal
import sys
from collections.abc import Callable

import cloudpickle

from phyla.arguments import Arguments
from phyla.errors import LoopError, SettingsError
from phyla.inert import inert
from phyla.launch.launcher import CODES, DONE, Launcher
from phyla.launch.plan import plan
from phyla.population import Population
from phyla.runs import Run, locate
from phyla.screen import Screen


def run(train: Callable[[Population], object], population: Population, workers: int) -> Run:
    if not callable(train):
        raise SettingsError(f"phyla.run({train!r}, …): expected a function that takes the population and trains it")
    if not isinstance(population, Population):
        raise SettingsError(f"phyla.run(train, {population!r}): expected a phyla.Population")
    arguments = population.hand_over()
    if locate(population.name, arguments.path, arguments.journal).journal == "memory":
        raise SettingsError("journal='memory' is of one process alone; expected 'sqlite' or 'directory' for phyla.run")
    command = [sys.executable, "-m", "phyla.launch.called"]
    payload = pack(train, population.name, given(arguments))
    planned = plan(command, workers=workers, payload=payload)
    launcher = Launcher(planned, Screen if arguments.progress is not False else None)
    code = launcher.run()
    if code == DONE:
        return population.run
    if code == CODES[signal.SIGINT]:
        raise KeyboardInterrupt
    if code in CODES.values():
        raise LoopError(f"the workers of {population.name!r} were told to end before they had trained it")
    said = "\n".join(map(inert, launcher.failure))
    raise LoopError(f"the workers of {population.name!r} have failed; one has said:\n{said}")


def given(arguments: Arguments) -> dict[str, object]:
    """What a `Population` was given, for the constructor of another one."""
    found: dict[str, object] = {}
    for key in inspect.signature(Population).parameters:
        if hasattr(arguments, key):
            found[key] = getattr(arguments, key)
        elif hasattr(arguments.settings, key):
            found[key] = getattr(arguments.settings, key)
    return found | {"start": arguments.start or None}  # exploit, explore and inherit stand in the strategy


def pack(train: Callable[[Population], object], name: str, arguments: dict[str, object]) -> bytes:
    """A line of JSON with the import path, then the function and the population's arguments, by value."""
    try:
        function: bytes = cloudpickle.dumps((train, name, arguments))
    except Exception as error:  # pickle raises whatever an object's own methods do
        raise SettingsError(
            f"the function or the population cannot be handed to other processes: {error}. Open files, generators and the "
            "like are to be made inside the function"
        ) from error
    return json.dumps(sys.path).encode() + b"\n" + function
