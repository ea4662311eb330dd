"""The arguments of a `Population`, checked once, before anything is opened or written."""

from __future__ import annotations

import contextlib
import inspect
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Any

import msgspec

from phyla.errors import SettingsError
from phyla.runs import Heir, locate
from phyla.settings import Settings
from phyla.space import Hyperparameter, Space, describe, validate_space
from phyla.strategies.contract import Strategy
from phyla.strategies.contract import check as check_strategy
from phyla.strategies.describe import describe as describe_strategy
from phyla.strategies.evolve import Evolve

IN_MEMORY = "interval_timeout= ends a process that hangs, and a run in memory would end with it"


@dataclass(frozen=True)
class Arguments:
    """What a `Population` was given, in the form that the rest works with."""

    space: Space
    strategy: Strategy
    settings: Settings  # with seed 0 and threads None where the run decides
    seed: int | None
    start: tuple[Heir, ...]
    size: int
    seconds: float | None
    interval_timeout: float | None
    path: Any
    journal: str | None
    durability: str
    sync_every: float
    lease: float | None
    fresh: bool
    strict: bool
    progress: bool | None

    def for_check(self) -> Arguments:
        """The same, for `phyla check`: in memory, and with a member to change places with."""
        settings = msgspec.structs.replace(self.settings, size=max(2, self.settings.size))
        return replace(self, settings=settings, journal="memory", fresh=False, progress=False)

    @classmethod
    def check(cls, name: str, space: Any, **given: Any) -> Arguments:
        """Raises SettingsError that says what was given and what was expected."""
        _check_choices(given)
        _check_numbers(given)
        locate(name, given["path"], given["journal"])
        space = validate_space(space)
        strategy = _strategy(given, space)
        start = _start(given["start"], space)
        lead, keep = given["max_lead"], given["keep"]
        least = 2 if lead is None else max(2, lead + 2)
        if keep is not None and keep < least:
            raise SettingsError(
                f"keep={keep}; expected {least} or more{' (max_lead + 2)' * (least > 2)}, or donors would be gone before "
                "they are copied"
            )
        if given["intervals"] is None and given["target"] is None and given["seconds"] is None:
            raise SettingsError("when does the run end? Give intervals=, target= or seconds=")
        if given["interval_timeout"] is not None and given["journal"] == "memory":
            raise SettingsError(IN_MEMORY)
        settings = Settings(
            seed=given["seed"] or 0,
            space=describe(space),
            strategy=describe_strategy(strategy),
            keep=keep if keep is not None else least,
            start=_describe_start(start) or None,
            **{
                key: given[key]
                for key in (
                    *("size", "intervals", "mode", "metric", "target", "window", "ready", "burn_in"),
                    *("compare", "max_lead", "retries", "max_lost", "threads"),
                )
            },
        )
        own = (
            "seed",
            "size",
            "seconds",
            "interval_timeout",
            "path",
            "journal",
            "durability",
            "sync_every",
            "lease",
            "fresh",
            "strict",
            "progress",
        )
        check_strategy(strategy, space, settings)
        return cls(space=space, strategy=strategy, settings=settings, start=start, **{key: given[key] for key in own})


_CALLED: Mapping[str, tuple[str, Sequence[str]]] = {
    "exploit": ("phyla.Truncation(0.2)", ("view", "member", "rng")),
    "explore": ("phyla.Perturb(0.8, 1.2)", ("hypers", "space", "view", "member", "rng")),
    "strategy": ("phyla.Evolve(exploit, explore)", ("view", "member", "rng")),
}
"""For each kind of strategy an example, and what it is called with."""


def _strategy(given: Mapping[str, Any], space: Space) -> Strategy:
    for key, (example, parameters) in _CALLED.items():
        value = given[key]
        if value is None:
            continue
        if isinstance(value, type):
            raise SettingsError(
                f"{key}={value.__name__} is a class; expected one of its instances: {value.__name__}(…)"
            )
        if not callable(value):
            raise SettingsError(f"{key}={value!r}; expected a strategy such as {example}, or None")
        if not _takes(value, parameters):
            raise SettingsError(
                f"{key}={value!r} cannot be called as {key}({', '.join(parameters)}); expected a strategy such as {example}"
            )
    if given["inherit"] not in ("both", "weights", "hypers"):
        raise SettingsError(f"inherit={given['inherit']!r}; expected 'both', 'weights' or 'hypers'")
    if given["strategy"] is not None:
        return given["strategy"]  # type: ignore[no-any-return]
    return Evolve(given["exploit"], given["explore"], given["inherit"])


def _takes(function: Any, parameters: Sequence[str]) -> bool:
    try:
        inspect.signature(function).bind(*parameters)
    except TypeError:
        return False
    except ValueError:  # a builtin that does not tell
        return True
    return True


def _check_numbers(given: dict[str, Any]) -> None:
    """Bounds are inclusive; `None` is allowed where the last item says so. Numbers of NumPy's become plain ones."""
    whole: dict[str, tuple[int, bool]] = {
        "size": (1, False), "intervals": (1, True), "ready": (1, False), "burn_in": (0, False), "max_lead": (0, True),
        "keep": (1, True), "window": (1, False), "retries": (0, False), "max_lost": (1, False), "threads": (1, True),
        "seed": (0, True),
    }  # fmt: skip
    for key, (least, optional) in whole.items():
        value = given[key]
        if value is None and optional:
            continue
        number = -1 if isinstance(value, bool) or not isinstance(value, Integral) else int(value)
        if not least <= number < 2**63:
            most = " and below 2**63" * (number >= 2**63)
            raise SettingsError(
                f"{key}={value!r}; expected a whole number, {least} or more{most}{' (or None)' * optional}"
            )
        given[key] = number
    for key in ("seconds", "interval_timeout", "lease", "sync_every", "target"):
        value = given[key]
        if value is None and key != "sync_every":
            continue
        real = math.nan if isinstance(value, bool) or not isinstance(value, Real) else float(value)
        if not math.isfinite(real) or (key != "target" and real <= 0):
            raise SettingsError(f"{key}={value!r}; expected a finite number{' above 0' * (key != 'target')}")
        given[key] = real


def _check_choices(given: Mapping[str, Any]) -> None:
    choices = {"mode": ("max", "min"), "compare": ("progress", "latest"), "durability": ("background", "strict")}
    for key, allowed in choices.items():
        if given[key] not in allowed:
            raise SettingsError(f"{key}={given[key]!r}; expected {' or '.join(map(repr, allowed))}")
    for key in ("strict", "fresh", "progress"):
        if not isinstance(given[key], bool) and not (key == "progress" and given[key] is None):
            raise SettingsError(f"{key}={given[key]!r}; expected True or False{' (or None)' * (key == 'progress')}")
    if given["path"] is not None and not isinstance(given["path"], str | os.PathLike):
        raise SettingsError(f"path={given['path']!r}; expected the directory that holds runs")
    if given["metric"] is not None and not isinstance(given["metric"], str):
        raise SettingsError(
            f"metric={given['metric']!r}; expected the key of the score in the dict that report is given"
        )


def _start(start: Any, space: Space) -> tuple[Heir, ...]:
    """Where members come from, with every given value checked against the space."""
    if start is None:
        return ()
    if not isinstance(start, Sequence) or isinstance(start, str) or not start:
        raise SettingsError(
            f'start={start!r}; expected phyla.open("runs/…").top(k), or a list of dicts of hyperparameters'
        )
    return tuple(_heir(one, space) for one in start)


def _heir(one: Any, space: Space) -> Heir:
    if isinstance(one, Heir):  # of another space: what this one cannot take is drawn
        return Heir(one.origin, {name: value for name in space for value in _fitting(space[name], one.hypers, name)})
    if not isinstance(one, Mapping):
        raise SettingsError(f"start= holds {one!r}; expected dicts of hyperparameters, or what run.top(k) gives")
    if unknown := sorted(set(one) - set(space), key=str):
        raise SettingsError(
            f"start= names {', '.join(map(repr, unknown))}; the space has {', '.join(map(repr, space))}"
        )
    hypers = {}
    for name, value in one.items():
        fitting = _fitting(space[name], one, name)
        if fitting != [value]:  # an int is a good Float
            raise SettingsError(
                f"start= gives {name!r} the value {value!r}, which the space does not allow: {space[name]!r}"
            )
        hypers[name] = fitting[0]
    return Heir(None, hypers)


def _fitting(hyperparameter: Hyperparameter, hypers: Mapping[str, Any], name: str) -> list[Any]:
    """The nearest allowed value to the given one; none where there is none."""
    with contextlib.suppress(SettingsError, KeyError):
        return [hyperparameter.clip(hypers[name])]
    return []


def _describe_start(start: Sequence[Heir]) -> list[dict[str, Any]]:
    return [
        {"hypers": heir.hypers, **({"run": heir.origin.run, "uid": heir.origin.uid} if heir.origin else {})}
        for heir in start
    ]
