"""How a worker comes into a run: it creates it, or finds it there and makes sure that the same is meant."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from phyla import randomness
from phyla.arguments import Arguments
from phyla.errors import Conflict, RunDiffers
from phyla.events import RUN, Born, Created
from phyla.randomness import Purpose
from phyla.settings import Settings, differences
from phyla.space import describe, draw
from phyla.version import __version__
from phyla.worker import Worker


def begin(worker: Worker, name: str, arguments: Arguments) -> bool:
    """Reads the run's journal, or begins it; any number of workers may do this at once, and one creates the run: True.

    Raises RunDiffers if the run was created with other settings.
    """
    worker.read()
    created_here = False
    if worker.view.created is None:
        settings = msgspec.structs.replace(
            arguments.settings,
            seed=secrets.randbits(32) if arguments.seed is None else arguments.seed,
            threads=arguments.settings.threads or _threads_for_each_worker(),
        )
        created = Created(member=RUN, seq=1, run=name, version=__version__, settings=settings, time=time.time())
        births = [_birth(arguments, settings, member) for member in range(settings.size)]
        with contextlib.suppress(Conflict):  # somebody was first
            worker.journal.append(created, *births)
            created_here = True
        worker.read()
    _compare(worker, name, arguments)
    return created_here


def _birth(arguments: Arguments, settings: Settings, member: int) -> Born:
    """A member's first hyperparameters: drawn, but for what `start` gives.

    The members that start from given ones keep them; when the list is through, it is copied again, and explored.
    """
    rng = randomness.generator(settings.seed, member, 0, Purpose.BIRTH, 0)
    hypers = draw(arguments.space, rng)
    if not arguments.start:
        return Born(member=member, seq=1, hypers=hypers, time=time.time())
    heir = arguments.start[member % len(arguments.start)]
    hypers |= heir.hypers
    explore = getattr(arguments.strategy, "explore", None)
    if member >= len(arguments.start) and explore is not None:
        explored = explore(hypers, arguments.space, None, member, rng)
        hypers = {name: hypers[name] if h.structural else h.clip(explored[name]) for name, h in arguments.space.items()}
    return Born(member=member, seq=1, hypers=hypers, origin=heir.origin, time=time.time())


def _threads_for_each_worker() -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("PHYLA_WORKERS") or 1))


def _compare(worker: Worker, name: str, arguments: Arguments) -> None:
    view = worker.view
    recorded, named = view.settings, arguments.settings
    named = msgspec.structs.replace(
        named,
        seed=recorded.seed if arguments.seed is None else arguments.seed,
        threads=named.threads or recorded.threads,
    )
    found = differences(
        recorded, named, {"intervals": view.intervals, "size": view.size, "space": describe(view.space)}
    )
    if found:
        single = [one for each in found for one in _single(*each)]
        lines = "".join(
            f"\n  {key}: the run has {_show(was)}, the script names {_show(now)}" for key, was, now in single
        )
        raise RunDiffers(
            f"the run {name!r} exists, and was created with other settings:{lines}\n"
            f"{_change(name, single)}Name the same settings to go on with it, choose another name, or begin anew, which sets "
            "the old run aside and deletes nothing:\n  Population(…, fresh=True), or phyla run --fresh SCRIPT"
        )


def _change(name: str, differences: list[tuple[str, Any, Any]]) -> str:
    """The command that makes the run what the script names, as far as a run can be changed."""
    options = []
    for key, _, now in differences:
        if key in ("size", "intervals") and now is not None:
            options.append(f"--{key} {now}")
        elif key.startswith("space.") and key.endswith((".low", ".high")) and isinstance(now, int | float):
            options.append(f"--space {key.removeprefix('space.')}={now}")
        else:
            return ""
    return f"To change the run itself:\n  phyla change {name} {' '.join(options)}\n"


_NOTHING = object()


def _single(key: str, was: Any, now: Any) -> Iterator[tuple[str, Any, Any]]:
    """A difference as single ones: not two whole spaces, but `space.lr.high`."""
    if isinstance(was, dict) and isinstance(now, dict) and was.get("type") == now.get("type"):
        for name in {**was, **now}:
            if (one := was.get(name, _NOTHING)) != (other := now.get(name, _NOTHING)):
                yield from _single(f"{key}.{name}", one, other)
    else:
        yield key, was, now


def _show(value: Any) -> str:
    """A described strategy or hyperparameter as one would write it; anything else as it is."""
    if value is _NOTHING:
        return "nothing"
    if isinstance(value, dict) and isinstance(value.get("type"), str):
        fields = ", ".join(
            f"{key}={_show(field)}" for key, field in value.items() if key != "type" and field is not None
        )
        return f"{value['type']}({fields})"
    return repr(value)
