"""The arguments of a `Population`, checked once, before anything is opened or written."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from phyla.errors import SettingsError
from phyla.run import Heir, locate
from phyla.settings import Settings
from phyla.space import Space, describe, validate_space
from phyla.strategies.contract import Strategy
from phyla.strategies.describe import describe as describe_strategy
from phyla.strategies.evolve import Evolve


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
    path: Any
    journal: str | None
    durability: str
    sync_every: float
    lease: float | None
    fresh: bool
    strict: bool
    progress: bool | None

    @classmethod
    def check(cls, name: str, space: Any, **given: Any) -> Arguments:
        """Raises SettingsError that says what was given and what was expected."""
        locate(name, given["path"], given["journal"])
        space = validate_space(space)
        strategy = _strategy(given, space)
        _check_numbers(given)
        _check_choices(given)
        start = _start(given["start"], space)
        lead, keep = given["max_lead"], given["keep"]
        least = 2 if lead is None else max(2, lead + 2)
        if keep is not None and keep < least:
            raise SettingsError(
                f"keep={keep}: expected at least {least} (2, and max_lead + 2), or donors would be gone before they are copied"
            )
        if given["intervals"] is None and given["target"] is None and given["seconds"] is None:
            raise SettingsError("when does the run end? Give intervals=, target= or seconds=")
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
            "path",
            "journal",
            "durability",
            "sync_every",
            "lease",
            "fresh",
            "strict",
            "progress",
        )
        return cls(space=space, strategy=strategy, settings=settings, start=start, **{key: given[key] for key in own})


def _strategy(given: Mapping[str, Any], space: Space) -> Strategy:
    for key in ("exploit", "explore", "strategy"):
        value = given[key]
        if value is not None and (not callable(value) or isinstance(value, type)):
            hint = f": did you mean {value.__name__}()?" if isinstance(value, type) else ""
            raise SettingsError(f"{key}={value!r}; expected a strategy such as phyla.Truncation(0.2), or None{hint}")
    if given["inherit"] not in ("both", "weights", "hypers"):
        raise SettingsError(f"inherit={given['inherit']!r}; expected 'both', 'weights' or 'hypers'")
    if (check := getattr(given["explore"], "check", None)) is not None:
        check(space)
    if given["strategy"] is not None:
        return given["strategy"]  # type: ignore[no-any-return]
    return Evolve(given["exploit"], given["explore"], given["inherit"])


def _check_numbers(given: Mapping[str, Any]) -> None:
    """Bounds are inclusive; `None` is allowed where the last item says so."""
    whole: dict[str, tuple[int, bool]] = {
        "size": (1, False), "intervals": (1, True), "ready": (1, False), "burn_in": (0, False), "max_lead": (0, True),
        "keep": (1, True), "window": (1, False), "retries": (0, False), "max_lost": (1, False), "threads": (1, True),
        "seed": (0, True),
    }  # fmt: skip
    for key, (least, optional) in whole.items():
        value = given[key]
        if value is None and optional:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < least or value >= 2**63:
            raise SettingsError(f"{key}={value!r}; expected a whole number, {least} or more{' (or None)' * optional}")
    for key in ("seconds", "lease", "sync_every", "target"):
        value = given[key]
        if value is None:
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not number or (key != "target" and value <= 0):
            raise SettingsError(f"{key}={value!r}; expected a finite number{' above 0' * (key != 'target')}")


def _check_choices(given: Mapping[str, Any]) -> None:
    choices = {"mode": ("max", "min"), "compare": ("progress", "latest"), "durability": ("background", "strict")}
    for key, allowed in choices.items():
        if given[key] not in allowed:
            raise SettingsError(f"{key}={given[key]!r}; expected {' or '.join(map(repr, allowed))}")
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
    heirs = []
    for one in start:
        if isinstance(one, Heir):
            known = {name: space[name].clip(value) for name, value in one.hypers.items() if name in space}
            heirs.append(Heir(one.origin, known))
        elif isinstance(one, Mapping):
            if unknown := sorted(set(one) - set(space)):
                raise SettingsError(f"start= names {unknown}, which the space does not have; it has {sorted(space)}")
            if wrong := [f"{k}={v!r}" for k, v in one.items() if not space[k].contains(v)]:
                raise SettingsError(f"start= gives {', '.join(wrong)}, which the space does not allow")
            heirs.append(Heir(None, dict(one)))
        else:
            raise SettingsError(f"start= holds {one!r}; expected dicts of hyperparameters, or what run.top(k) gives")
    return tuple(heirs)


def _describe_start(start: Sequence[Heir]) -> list[dict[str, Any]]:
    return [
        {"hypers": heir.hypers, **({"run": heir.origin.run, "uid": heir.origin.uid} if heir.origin else {})}
        for heir in start
    ]
