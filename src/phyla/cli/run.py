"""`phyla run` and `phyla worker`: a script in several processes of this machine, or in one of a scheduler's."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Unpack

from phyla.cli.app import SCRIPTED, Misuse
from phyla.cli.text import inert
from phyla.errors import SettingsError
from phyla.launch.launcher import Launcher
from phyla.launch.plan import Local, environment, plan, script_command
from phyla.screen import Screen


def run(
    script: str | None,
    args: Sequence[str],
    *,
    module: str | None,
    workers: int | None,
    gpus_per_worker: float | None,
    **local: Unpack[Local],
) -> int:
    """Launches the script; the exit code. local: what a launch's `environment` takes."""
    try:
        planned = plan(
            script_command(*_what(script, module, args)),
            workers=workers,
            gpus_per_worker=gpus_per_worker,
            **local,
        )
    except SettingsError as error:
        raise Misuse(str(error)) from None
    _warn_of_options(script or f"-m {module}", args)
    return Launcher(planned, Screen).run()


def _warn_of_options(script: str, args: Sequence[str]) -> None:
    """Says so where the script is given what may have been meant for `phyla run`."""
    named = list(dict.fromkeys(arg.partition("=")[0] for arg in args))
    if meant := [name for name in named if name in SCRIPTED["run"] | {"--fresh"}]:
        print(
            f"phyla: {', '.join(meant)} after {inert(script)} is the script's own; for phyla run it stands before",
            file=sys.stderr,
        )


def worker(
    script: str | None,
    args: Sequence[str],
    *,
    module: str | None,
    **local: Unpack[Local],
) -> int:
    """Becomes the script's process."""
    try:
        command = script_command(*_what(script, module, args))
        os.environ.update(environment(**local))
    except SettingsError as error:
        raise Misuse(str(error)) from None
    sys.stdout.flush()
    os.execv(command[0], command)


def _what(script: str | None, module: str | None, args: Sequence[str]) -> tuple[str | None, str | None, Sequence[str]]:
    """With -m, what stands in the script's place is the first of the module's arguments."""
    if module is None or script is None:
        return script, module, args
    return None, module, [script, *args]
