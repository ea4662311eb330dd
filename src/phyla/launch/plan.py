"""What is to be launched: how many workers, of what, with which devices, until when."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict, Unpack

from phyla import launched
from phyla.errors import SettingsError

MOST = 8
"""Workers that are started where nobody says how many."""

JOURNALS = ("sqlite", "directory")
"""Journals that several processes can share."""

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


@dataclass(frozen=True)
class Plan:
    """A launch, checked.

    command: what each worker runs. environment: the variables that it gets beside this process's own. devices: the CUDA
    devices that each worker sees; None: all alike. deadline: when all end, in seconds since 1970. payload: what each worker
    is told through its standard input.
    """

    command: Sequence[str]
    workers: int
    environment: Mapping[str, str] = field(default_factory=dict)
    devices: Sequence[str] | None = None
    deadline: float | None = None
    payload: bytes = b""

    def variables(self, number: int, launch: Path) -> dict[str, str]:
        """The environment of worker `number`, from 1."""
        variables = {
            "PYTHONUNBUFFERED": "1",  # the last words of a worker that is killed are in its log
            "PYTHONFAULTHANDLER": "1",  # and so is where it died, if it died of itself
            **os.environ,
            **self.environment,
            launched.VARIABLE: str(launch),
            launched.NUMBER: str(number),
            "PHYLA_WORKERS": str(self.workers),
        }
        if self.devices is not None:
            variables["CUDA_VISIBLE_DEVICES"] = self.devices[number - 1]
        return variables


def plan(
    command: Sequence[str],
    *,
    workers: int | None = None,
    gpus_per_worker: float | None = None,
    payload: bytes = b"",
    **local: Unpack[Local],
) -> Plan:
    """A launch of this command. `local`: what `environment` takes. Raises SettingsError for what cannot work."""
    variables = environment(**local)
    there = devices() if gpus_per_worker is not None else []
    if gpus_per_worker is not None and not (math.isfinite(gpus_per_worker) and gpus_per_worker > 0):
        raise SettingsError(f"--gpus-per-worker {gpus_per_worker:g}: expected a number above 0, such as 0.25, 1 or 2")
    if workers is None:
        room = places(gpus_per_worker, there) if gpus_per_worker is not None else []
        workers = min(cores(), MOST) if gpus_per_worker is None else max(1, len(room))
    if workers < 1:
        raise SettingsError(f"--workers {workers}: expected 1 or more")
    deadline = variables.get("PHYLA_DEADLINE")
    return Plan(
        command=command,
        workers=workers,
        environment=variables,
        devices=None if gpus_per_worker is None else assign(workers, gpus_per_worker, there),
        deadline=float(deadline) if deadline is not None else None,
        payload=payload,
    )


class Local(TypedDict, total=False):
    """What a worker is told of the command line: whether to begin anew, where runs lie and what kind of journal they have,
    where a new run's checkpoints lie, a lease in seconds, and when to end (`seconds` reads it)."""

    fresh: bool
    path: Path | None
    journal: str | None
    checkpoints: Path | None
    lease: float | None
    deadline: str | None


def environment(**local: Unpack[Local]) -> dict[str, str]:
    """The variables by which a worker is told so. Raises SettingsError for what cannot work."""
    found = {}
    if local.get("fresh"):
        found["PHYLA_FRESH"] = "1"
    if (path := local.get("path")) is not None:
        found["PHYLA_RUNS"] = str(path.absolute())
    if (journal := local.get("journal")) is not None:
        if journal not in JOURNALS:
            raise SettingsError(f"--journal {journal}: expected {' or '.join(JOURNALS)}, which processes can share")
        found["PHYLA_JOURNAL"] = journal
    if (checkpoints := local.get("checkpoints")) is not None:
        found["PHYLA_CHECKPOINTS"] = str(checkpoints.absolute())
    if (lease := local.get("lease")) is not None:
        if not (math.isfinite(lease) and lease > 0):
            raise SettingsError(f"--lease {lease:g}: expected seconds above 0")
        found["PHYLA_LEASE"] = repr(lease)
    if (end := end_time(local.get("deadline"))) is not None:
        found["PHYLA_DEADLINE"] = repr(end)
    return found


def end_time(deadline: str | None) -> float | None:
    """When a launch must end, in seconds since 1970: after the given time, else with Slurm's job; None: it need not."""
    if deadline is not None:
        return time.time() + seconds(deadline)
    for name in ("PHYLA_DEADLINE", "SLURM_JOB_END_TIME"):
        if given := os.environ.get(name):
            try:
                return float(given)
            except ValueError:
                raise SettingsError(f"${name} is {given!r}; expected seconds since 1970") from None
    return None


def seconds(duration: str) -> float:
    """`90`, `10m` or `2h` in seconds."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd]?)\s*", duration)
    if match is None or not float(match[1]):
        raise SettingsError(f"--deadline {duration}: expected a time from now such as 90 (seconds), 10m, 2h or 1d")
    return float(match[1]) * _UNITS[match[2]]


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def devices() -> list[str]:
    """The CUDA devices that this process may use, by number or id."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        found = [name.strip() for name in given.split(",") if name.strip()]
        return found[: found.index("-1")] if "-1" in found else found  # as the driver reads it
    try:
        return [str(number) for number, _ in enumerate(Path("/proc/driver/nvidia/gpus").iterdir())]
    except OSError:
        pass
    try:
        told = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(number) for number, _ in enumerate(line for line in told.splitlines() if line.startswith("GPU "))]


def places(each: float, there: Sequence[str]) -> list[str]:
    """The devices of each worker, for as many workers as these devices hold: several share one, or one has several."""
    if each < 1:
        share = math.floor(1 / each + 1e-9)
        return list(there) * share  # in turn, so that few workers on many devices have one each
    if each != int(each):
        raise SettingsError(f"--gpus-per-worker {each:g}: expected a whole number of devices, or a part of one below 1")
    count = int(each)
    return [",".join(there[start : start + count]) for start in range(0, len(there) - count + 1, count)]


def assign(workers: int, each: float, there: Sequence[str]) -> list[str]:
    """The devices of each of so many workers."""
    found = places(each, there)
    if len(found) < workers:
        seen = f"{len(there)} ({', '.join(there)})" if there else "none"
        raise SettingsError(
            f"--gpus-per-worker {each:g}: there are devices for {len(found)} workers and not for {workers}; "
            f"devices that are visible: {seen}. Start fewer workers, give each a smaller part, or set $CUDA_VISIBLE_DEVICES"
        )
    return found[:workers]


def script_command(script: str | None, module: str | None, args: Sequence[str]) -> list[str]:
    """What runs a script, or a module, with its own arguments. Raises SettingsError where there is none."""
    if module is not None:
        return [sys.executable, "-m", module, *args]
    if script is None:
        raise SettingsError("which script? Expected SCRIPT, or -m MODULE")
    if not Path(script).is_file():
        raise SettingsError(f"there is no script {script}")
    return [sys.executable, script, *args]
