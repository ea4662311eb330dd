"""The arms of a comparison: ways to train one population at equal cost, of which `phyla compare` runs each from several seeds.

Without controls a result of PBT says little: a population that nobody copies in is a random search of as many runs, and one
that only copies good weights selects lucky ones ("variance exploitation", MF-PBT, arXiv 2506.03225). The ablations of what is
copied are the paper's (Jaderberg et al. 2017, arXiv 1711.09846).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from phyla import launched
from phyla.arguments import Arguments
from phyla.errors import SettingsError
from phyla.launched import Cell
from phyla.settings import Settings
from phyla.strategies.evolve import Evolve

AS_WRITTEN = "as written"
"""The arm that is the script itself."""

CONTROLS: Mapping[str, Mapping[str, Any]] = {
    "random search": {"exploit": None},
    "lucky seeds": {"explore": None},
    "weights only": {"inherit": "weights"},
    "hypers only": {"inherit": "hypers"},
}
"""Arms that every script has. The last two need an exploit and an explore that stand apart."""

PARTS = ("exploit", "explore", "inherit")
MAY_DIFFER = (*PARTS, "strategy", "ready", "burn_in", "compare", "max_lead", "size", "intervals")
"""Arguments of `Population` in which an arm may differ."""


class Described(msgspec.Struct, frozen=True):
    """An arm, as its script says it: the arguments that differ, in words, and the settings that its runs are created with."""

    changes: dict[str, str]
    settings: Settings  # with seed 0


class Description(msgspec.Struct, frozen=True):
    """What a script has to compare."""

    population: str
    script: str
    ignored: list[str]  # arguments that a comparison does not heed
    arms: dict[str, Described]  # as it is written first, then the controls, then the script's own


def slug(name: str) -> str:
    """An arm's name as its directory has it, and as a command line may: lower case, and `-` between the words."""
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._") else "-" for c in name.lower())
    return "-".join(part for part in (each.strip(".") for each in plain.split("-")) if part)


def arguments_here(given: Mapping[str, Any]) -> Arguments:
    """The arguments of a population in this process: those that its script gives, or as a comparison has them.

    Where a comparison only asks what there is to compare, that is said, and the process ends (SystemExit).
    Raises SettingsError for what cannot work, in an arm as in the script itself.
    """
    base = {key: value for key, value in given.items() if key != "arms"}
    checked = Arguments.check(**base)
    own = _own_arms(base, given["arms"])
    if (file := launched.description()) is not None:
        _describe(file, base, own)
    cell = launched.cell()
    if cell is None or given["path"] == cell.path:  # the same, handed over to another process
        return checked
    if given["name"] != cell.population:
        raise SettingsError(
            f"phyla compare compares one population of a script, here {cell.population!r}; this script makes "
            f"{given['name']!r} too. Give each a script of its own, or an argument that chooses one"
        )
    changes = {AS_WRITTEN: {}, **CONTROLS, **own}.get(cell.arm)
    if changes is None:
        raise SettingsError(f"arms= has no {cell.arm!r} now; it had when the comparison began")
    return Arguments.check(**_in_cell(base, changes, cell))


def _own_arms(base: Mapping[str, Any], arms: Any) -> dict[str, Mapping[str, Any]]:
    """What a script names in `arms=`, checked."""
    if arms is None:
        return {}
    if not isinstance(arms, Mapping):
        raise SettingsError(f'arms={arms!r}; expected a dict such as {{"slow": {{"ready": 5}}}}')
    taken = {slug(name): name for name in (AS_WRITTEN, *CONTROLS)}
    for name, changes in arms.items():
        if not isinstance(name, str) or not slug(name) or "," in name or not name.isprintable() or len(name) > 60:
            raise SettingsError(
                f"arms= has the name {name!r}; expected a few words without a comma: it names a directory"
            )
        if (other := taken.setdefault(slug(name), name)) != name or name in (AS_WRITTEN, *CONTROLS):
            raise SettingsError(f"arms= has the name {name!r}, which is taken: there is {other!r} already")
        _check_arm(name, base, changes)
    return dict(arms)


def _check_arm(name: str, base: Mapping[str, Any], changes: Any) -> None:
    where = f"arms[{name!r}]"
    if not isinstance(changes, Mapping):
        raise SettingsError(f"{where} is {changes!r}; expected the arguments that differ, as a dict")
    if unknown := [key for key in changes if key not in MAY_DIFFER]:
        raise SettingsError(
            f"{where} changes {', '.join(map(repr, unknown))}; an arm may change {', '.join(MAY_DIFFER)}"
        )
    if changes.get("strategy") is not None and (parts := [key for key in PARTS if key in changes]):
        raise SettingsError(
            f"{where} changes strategy, which is a whole decision, and {parts[0]}, which is a part of one"
        )
    try:
        Arguments.check(**_changed(base, changes))
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from None
    arm = {**base, **changes}
    if (arm["intervals"] is None) != (base["intervals"] is None) or (
        base["intervals"] is not None and arm["size"] * arm["intervals"] != base["size"] * base["intervals"]
    ):
        raise SettingsError(
            f"{where} trains {arm['size']} members for {arm['intervals']} intervals, and the script {base['size']} for "
            f"{base['intervals']}: arms are compared at equal cost, so size × intervals must be the same"
        )


def _changed(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments with an arm's changes. Whoever changes a part of a strategy means the strategy of such parts."""
    strategy = base["strategy"]
    apart: dict[str, Any] = {}
    if strategy is not None and "strategy" not in changes and not changes.keys().isdisjoint(PARTS):
        apart = {"strategy": None, "exploit": getattr(strategy, "exploit", base["exploit"])}
        if isinstance(strategy, Evolve):
            apart |= {"explore": strategy.explore, "inherit": strategy.inherit}
    return {**base, **apart, **changes}


def _in_cell(base: Mapping[str, Any], changes: Mapping[str, Any], cell: Cell) -> dict[str, Any]:
    """The arguments with which a comparison trains an arm.

    Each run has one process, which has one thread if the script does not say more. It lies where the comparison can read it,
    goes on if it was begun, and ends with its intervals, neither sooner nor later: its cost is what is held equal.
    """
    changed = _changed(base, changes)
    return {
        **changed,
        "seed": cell.seed,
        "path": cell.path,
        "journal": None if changed["journal"] == "memory" else changed["journal"],
        "threads": changed["threads"] or 1,
        "target": None,
        "seconds": None,
        "fresh": False,
        "progress": False,
    }


def _describe(file: Path, base: Mapping[str, Any], own: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes what there is to compare, and ends the process."""
    if base["intervals"] is None:
        raise SettingsError("a comparison is at equal cost, and needs to know it: give Population(intervals=…)")
    apart = base["strategy"] is None or isinstance(base["strategy"], Evolve)
    controls = {name: changes for name, changes in CONTROLS.items() if apart or "inherit" not in changes}
    described = {}
    for name, changes in {AS_WRITTEN: {}, **controls, **own}.items():
        cell = Cell(base["name"], name, 0, str(file.parent))
        try:
            settings = Arguments.check(**_in_cell(base, changes, cell)).settings
        except SettingsError:
            if name in own or name == AS_WRITTEN:
                raise
            continue  # a control that this script's strategy does not allow
        described[name] = Described(_in_words(base, changes), settings)
    ignored = [key for key in ("target", "seconds") if base[key] is not None]
    script = getattr(sys.modules["__main__"], "__file__", "")
    file.write_bytes(msgspec.json.encode(Description(base["name"], script, ignored, described)))
    raise SystemExit(0)


def _in_words(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, str]:
    """In what an arm differs. Where it has no whole strategy, and the script has one, also what is in its place."""
    changed = _changed(base, changes)
    parted = base["strategy"] is not None and changed["strategy"] is None
    keys = [key for key in MAY_DIFFER if key in changes or (parted and key in PARTS)]
    return {key: repr(changed[key]) for key in keys}


def read_description(file: Path) -> Description:
    """What a script has said in that file."""
    return msgspec.json.decode(file.read_bytes(), type=Description)
