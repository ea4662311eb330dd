"""`phyla compare`: arms at equal cost, from the same seeds; what they came to, and whether that tells them apart."""

from __future__ import annotations

import hashlib
import importlib.util
import itertools
import os
import re
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from phyla import runs
from phyla.arms import AS_WRITTEN, CONTROLS, Described, Description, slug
from phyla.cli import DONE, FAILED
from phyla.cli.app import Misuse
from phyla.cli.compared import show_comparison
from phyla.cli.text import as_json_text, inert, print_json
from phyla.comparison import Arm, Comparison, trial
from phyla.errors import SettingsError
from phyla.launch.cells import Cell, Cells, Standing, ask, lock
from phyla.launch.plan import cores, script_command
from phyla.progress import duration
from phyla.runs import Place
from phyla.settings import Settings, differences

COMMAND, RESULT, PICTURE = "command.json", "comparison.json", "comparison.png"
BY_DEFAULT = (AS_WRITTEN, "random search", "lucky seeds")
"""Arms that are compared where none are named, beside all that the script names itself."""

PLAIN_SECONDS = 10.0
"""Between two lines about the progress, where there is no terminal."""


@dataclass(frozen=True)
class Planned:
    """An arm that is to be compared. arm: its name in the script, where it has another here."""

    name: str
    command: tuple[str, ...]
    arm: str
    population: str
    described: Described

    @property
    def settings(self) -> Settings:
        return self.described.settings

    def cell(self, seed: int, folder: Path) -> Cell:
        assert self.settings.intervals is not None  # arms.py sees to it
        where = folder / slug(self.name) / f"seed-{seed}"
        budget = self.settings.size * self.settings.intervals
        return Cell(self.name, self.arm, seed, self.population, where, self.command, budget)


def compare(
    script: str | None,
    args: Sequence[str],
    *,
    module: str | None,
    arms: str | None,
    seeds: str,
    workers: int | None,
    metric: str | None,
    mode: str | None,
    name: str | None,
    path: Path | None,
    plot: Path | None,
    fresh: bool,
    json: bool,
) -> int:
    """Trains what is not trained yet, and prints what all came to; the exit code."""
    commands = _commands(script, module, args)
    numbers = _seeds(seeds)
    _check_options(arms, workers, metric, mode, commands)
    _check_picture(plot)
    described = {each: ask(command, each) for each, command in commands.items()}
    planned = _planned(commands, described, arms)
    folder = _folder(name or f"compare-{'-'.join(map(slug, commands))}", path)
    _begin(folder, [_identity(command, described[each]) for each, command in commands.items()], fresh)
    cells = [arm.cell(seed, folder) for seed in numbers for arm in planned]  # whenever it ends, arms have had the same
    _check_settings(cells, {arm.name: arm.settings for arm in planned})
    line = Line(folder.name)
    trained = Cells(cells, workers or cores(), line.say, line.show)
    code = trained.run()
    line.close()
    if code not in (DONE, FAILED):
        line.say(f"{folder.name} is not finished: started again, it goes on")
        return code
    comparison = _read(folder, planned, cells, metric, mode)
    failed = [
        {"arm": cell.name, "seed": cell.seed, "why": why, "log": str(cell.log)} for cell, why in trained.failed.items()
    ]
    result = {**comparison.as_json(), "path": str(folder), "failed": failed}
    (folder / RESULT).write_text(as_json_text(result) + "\n", encoding="utf-8")
    picture = _draw(comparison, folder, plot)
    if json:
        print_json(result)
    else:
        show_comparison(comparison, [file for file in (picture, folder / RESULT) if file is not None])
    return code


# What is to be compared -----------------------------------------------------------------------------------------------


def _commands(script: str | None, module: str | None, args: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """By name, what trains each script: the files that stand first, each with the arguments that follow them all."""
    try:
        if module is not None:
            rest = args if script is None else [script, *args]
            return {module.rpartition(".")[2]: tuple(script_command(None, module, rest))}
        more = itertools.takewhile(lambda arg: arg.endswith(".py") and Path(arg).is_file(), args)
        files = [*([script] if script is not None else []), *more]
        rest = args[max(0, len(files) - 1) :]
        rest = rest[1:] if rest[:1] == ["--"] else rest
        names = [Path(file).stem for file in files]
        if len(set(map(slug, names))) < len(names):
            names = [str(Path(file).with_suffix("")) for file in files]
        if len(set(map(slug, names))) < len(names):
            raise Misuse(f"{', '.join(files)}: expected scripts of different names")
        found = {each: tuple(script_command(file, None, rest)) for each, file in zip(names, files, strict=True)}
        return found or {"": tuple(script_command(None, None, ()))}
    except SettingsError as error:
        raise Misuse(str(error)) from None


def _seeds(given: str) -> list[int]:
    """`8`: from 0 to 7; `3,5,9`: these."""
    if re.fullmatch(r"\d{1,6}", given) and int(given):
        return list(range(int(given)))
    if re.fullmatch(r"(\d{1,18},)+(\d{1,18})?", given):
        numbers = [int(number) for number in given.split(",") if number]
        if len(set(numbers)) == len(numbers):
            return sorted(numbers)
    raise Misuse(f"--seeds {given}: expected how many, from 1 on, or which, all different, such as 3,5,9")


def _check_options(
    arms: str | None, workers: int | None, metric: str | None, mode: str | None, commands: Mapping[str, object]
) -> None:
    if workers is not None and workers < 1:
        raise Misuse(f"--workers {workers}: expected 1 or more")
    if mode not in (None, "max", "min"):
        raise Misuse(f"--mode {mode}: expected max or min, for whether more or less of --metric is better")
    if mode is not None and metric is None:
        raise Misuse("--mode says whether more or less of --metric is better; of the score the script has said so")
    if arms is not None and len(commands) > 1:
        raise Misuse("--arms chooses among the arms of one script; of several scripts each is an arm, as it is written")


def _planned(
    commands: Mapping[str, tuple[str, ...]], described: Mapping[str, Description], arms: str | None
) -> list[Planned]:
    """The arms, the one that the others are held against first."""
    if len(commands) > 1:
        found = [_arm(name, commands[name], AS_WRITTEN, one) for name, one in described.items()]
        for key in ("mode", "metric"):
            if len(values := dict.fromkeys(getattr(arm.settings, key) for arm in found)) > 1:
                raise SettingsError(
                    f"the scripts have different {key}s, {', '.join(map(repr, values))}: their scores cannot be compared"
                )
        return found
    [(script, command)], [description] = commands.items(), described.values()
    for key in description.ignored:
        note(f"{key}= of {script} is not heeded: arms are compared at equal cost, over all their intervals")
    chosen = _chosen(description, script, arms)
    found = [_arm(name, command, name, description) for name in chosen]
    different: dict[bytes, Planned] = {}
    for arm in found:
        same = different.setdefault(_what_it_does(arm.settings), arm)
        if same is not arm:
            note(f"{arm.name} is left out: for this script it is the same as {same.name}")
    return list(different.values())


def _arm(name: str, command: tuple[str, ...], arm: str, description: Description) -> Planned:
    return Planned(name, command, arm, description.population, description.arms[arm])


def _chosen(description: Description, script: str, arms: str | None) -> list[str]:
    there = {slug(name): name for name in description.arms}
    if arms is None:
        return [name for name in there.values() if name in BY_DEFAULT or name not in CONTROLS]
    chosen = []
    for given in arms.split(","):
        if (found := there.get(slug(given))) is None:
            raise Misuse(f"--arms names {given.strip()!r}; {script} has {', '.join(there.values())}")
        chosen.append(found)
    return sorted(dict.fromkeys(chosen), key=lambda name: name != AS_WRITTEN)


def _what_it_does(settings: Settings) -> bytes:
    """Settings that train in the same way give the same: where nobody copies, the rest of the strategy says nothing."""
    plain: Any = msgspec.to_builtins(settings)
    if plain["strategy"]["type"] == "phyla.Evolve" and plain["strategy"]["exploit"] is None:
        plain["strategy"] = None
    return msgspec.json.encode(plain, order="sorted")


# Its directory --------------------------------------------------------------------------------------------------------


def _folder(name: str, path: Path | None) -> Path:
    """Where a comparison lies: as a run of this name would."""
    return runs.locate(name, path.absolute() if path is not None else None, "sqlite").path.absolute()


def _identity(command: Sequence[str], description: Description) -> dict[str, Any]:
    """What must be the same, for results to belong together; the directory may have been moved."""
    script = Path(description.script)
    digest = hashlib.blake2b(script.read_bytes(), digest_size=16).hexdigest()
    return {"script": script.name, "args": list(command[3 if command[1] == "-m" else 2 :]), "digest": digest}


def _begin(folder: Path, command: list[dict[str, Any]], fresh: bool) -> None:
    """Makes the directory, or sees to it that it is of the same comparison. Raises SettingsError if it is of another."""
    if fresh:
        _set_aside(folder)
    file = folder / COMMAND
    if not file.exists():
        if folder.exists() and any(not each.name.startswith(COMMAND) for each in folder.iterdir()):
            raise SettingsError(
                f"{folder} is there, and is no comparison: --name NAME gives this one another directory"
            )
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        scratch = folder / f"{COMMAND}.{os.getpid()}"
        scratch.write_bytes(msgspec.json.encode(command))
        scratch.rename(file)
        return
    there = msgspec.json.decode(file.read_bytes())
    if there == command:
        return
    ways = "--name NAME gives this one a directory of its own, and --fresh sets the other aside, which deletes nothing"
    was, now = (" and ".join(shlex.join([one["script"], *one["args"]]) for one in each) for each in (there, command))
    what = f"it was begun of {was}, and this is {now}" if was != now else f"{was} has changed since it was begun"
    raise SettingsError(f"{folder}: {what}. Results of both would be mixed: {ways}")


def _set_aside(folder: Path) -> None:
    for one in folder.glob("*/*/lock"):
        if (held := lock(one.parent)) is None:
            raise SettingsError(f"{folder} cannot be set aside: {one.parent} is being trained. End that first")
        os.close(held)
    runs.set_aside(Place(folder))


def _check_settings(cells: Sequence[Cell], settings: Mapping[str, Settings]) -> None:
    """A script may be the same and what it imports another: its arms would not be what was trained."""
    for cell in cells:
        if (run := cell.open()) is None:
            continue
        named = msgspec.structs.replace(settings[cell.name], seed=cell.seed)
        if found := differences(run.settings, named, {}):
            key, was, now = found[0]
            raise SettingsError(
                f"{cell} was begun with another {key}: {was!r:.200}, and now it is {now!r:.200}. --name NAME gives this "
                "comparison a directory of its own, and --fresh sets the other aside, which deletes nothing"
            )


# What it came to ------------------------------------------------------------------------------------------------------


def _read(folder: Path, planned: Sequence[Planned], cells: Sequence[Cell], metric: str | None, mode: Any) -> Comparison:
    settings = planned[0].settings
    selected_by = settings.metric or "score"
    mode = mode or settings.mode
    arms, absent = [], []
    for each in planned:
        opened = [(cell.seed, run) for cell in cells if cell.name == each.name and (run := cell.open()) is not None]
        trials = [trial(run, seed, metric) for seed, run in sorted(opened, key=lambda one: one[0]) if run.view.finished]
        if not trials:
            absent.append(each.name)
            continue
        plain = msgspec.to_builtins(each.settings)
        del plain["seed"]
        arms.append(Arm(each.name, each.described.changes, plain, trials, 1.0 if mode == "max" else -1.0))
    if not arms:
        raise SettingsError(f"{folder}: no run is finished, so there is nothing to compare")
    seeds = sorted({cell.seed for cell in cells})
    return Comparison(folder.name, metric or selected_by, selected_by, mode, seeds, arms, absent)


def _check_picture(plot: Path | None) -> None:
    """Whether it can be drawn is found out before hours of training."""
    if plot is not None:
        from phyla.plots import check_file

        check_file(plot)


def _draw(comparison: Comparison, folder: Path, plot: Path | None) -> Path | None:
    if plot is None and importlib.util.find_spec("matplotlib") is None:
        return None
    from phyla.plots import plot_comparison

    file = plot if plot is not None else folder / PICTURE
    plot_comparison(comparison, file)
    return file


# While it trains ------------------------------------------------------------------------------------------------------


def note(text: str) -> None:
    print(f"note: {inert(text)}", file=sys.stderr, flush=True)


class Line:
    """How far a comparison is, on standard error: on a terminal a line that stays in place, elsewhere one now and then."""

    def __init__(self, name: str):
        self._name = name
        self._terminal = sys.stderr.isatty()
        self._began: tuple[float, int] | None = None  # when the first interval was reported, and how many were then
        self._trains = False
        self._next = 0.0
        self._shown = ""

    def say(self, text: str) -> None:
        """A line that stays."""
        self.close()
        print(inert(text), file=sys.stderr, flush=True)

    def show(self, standing: Standing) -> None:
        now, done = time.monotonic(), standing.intervals[0]
        if not self._trains:  # scripts are still at their imports and data, which says nothing of the pace
            self._trains = self._began is not None and done > self._began[1]
            self._began = now, done
        line = self._line(standing, now)
        if now < self._next or line == self._shown:
            return
        if self._terminal:
            print(f"\r{line.ljust(len(self._shown))}", end="", file=sys.stderr, flush=True)
        else:
            self._next = now + PLAIN_SECONDS
            print(line, file=sys.stderr, flush=True)
        self._shown = line

    def _line(self, standing: Standing, now: float) -> str:
        assert self._began is not None
        done, total = standing.intervals
        parts = [inert(self._name), f"{standing.finished} of {standing.cells} runs", f"{standing.running} training"]
        parts += [f"{standing.failed} failed"] if standing.failed else []
        parts += [f"{standing.elsewhere} elsewhere"] if standing.elsewhere else []
        parts.append(f"{100 * done // max(1, total)}%")
        if done > self._began[1]:
            parts.append(f"{duration((total - done) * (now - self._began[0]) / (done - self._began[1]))} left")
        return "  ".join(parts)

    def close(self) -> None:
        """Clears the line."""
        if self._terminal and self._shown:
            print(f"\r{' ' * len(self._shown)}\r", end="", file=sys.stderr, flush=True)
            self._shown = ""
