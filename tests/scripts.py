"""Users' scripts, run as users run them: each in a process of its own."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent


def write(folder: Path, source: str, name: str = "script.py") -> Path:
    """A script in this folder."""
    path = folder / name
    path.write_text(textwrap.dedent(source))
    return path


def start(script: Path, *args: object, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Starts a script in its own folder."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})}
    return subprocess.Popen(
        [sys.executable, str(script), *map(str, args)],
        cwd=script.parent,
        env={key: value for key, value in environment.items() if key != "PHYLA_FAILPOINT" or key in (env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], timeout: float = 200) -> subprocess.CompletedProcess[str]:
    """Waits for a script's end; one that does not end is killed, and fails the test."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"not finished after {timeout} s\n{out[-2000:]}\n{err[-4000:]}") from None
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run(script: Path, *args: object, env: Mapping[str, str] | None = None, timeout: float = 200):
    """Runs a script to its end, whatever that is."""
    return finish(start(script, *args, env=env), timeout)


def succeed(script: Path, *args: object, env: Mapping[str, str] | None = None, timeout: float = 200):
    """Runs a script that must end well."""
    done = run(script, *args, env=env, timeout=timeout)
    assert done.returncode == 0, done.stderr
    return done


def together(
    script: Path, count: int, *args: object, timeout: float = 200
) -> Sequence[subprocess.CompletedProcess[str]]:
    """Runs several processes of one script at the same time."""
    started = [start(script, *args) for _ in range(count)]
    return [finish(process, timeout) for process in started]


def until(condition: Callable[[], object], timeout: float = 60) -> object:
    """Waits for something to become true, and returns it."""
    deadline = time.monotonic() + timeout
    while not (result := condition()):
        assert time.monotonic() < deadline, f"not within {timeout} s"
        time.sleep(0.01)
    return result


def kill(process: subprocess.Popen[str]) -> None:
    """Ends it as the kernel would, and collects it."""
    process.send_signal(signal.SIGKILL)
    process.communicate()


def children(pid: int) -> list[int]:
    """The processes that this one has started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            if int(fields[1]) == pid and fields[0] != "Z":
                found.append(int(entry.name))
    return found


ZYGOTE = """
import json, os, runpy, sys, traceback
for name in sys.argv[1:]:
    __import__(name)
for line in sys.stdin:
    script, args, count = json.loads(line)
    children = []
    for number in range(count):
        if (child := os.fork()) == 0:
            code = 1
            try:
                os.chdir(os.path.dirname(script))
                sys.argv[:] = [script, *args]
                out = os.open(f"out.{number}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(out, 1), os.dup2(out, 2)
                runpy.run_path(script, run_name="__main__")
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush(), sys.stderr.flush()
                os._exit(code)
        children.append(child)
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]), flush=True)
"""


class Zygote:
    """A process that has imported what takes seconds, and forks one for each script. They end without exit handlers."""

    def __init__(self, *modules: str):
        self._process = subprocess.Popen(
            [sys.executable, "-c", ZYGOTE, *modules], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def succeed(self, script: Path, count: int, *args: object) -> None:
        """Runs a script in several processes at the same time; all must end well."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(script), [str(arg) for arg in args], count]) + "\n")
        self._process.stdin.flush()
        codes = json.loads(self._process.stdout.readline())
        said = "\n".join((script.parent / f"out.{number}").read_text() for number in range(count))
        assert codes == [0] * count, said

    def close(self) -> None:
        self._process.communicate()
