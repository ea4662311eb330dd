"""Which process this is: a worker's id says where it runs, so that its neighbours can see whether it still does."""

from __future__ import annotations

import hashlib
import itertools
import os
import platform
import re
from functools import cache
from pathlib import Path

_counter = itertools.count(1)


@cache
def boot() -> str:
    """This boot of this machine, and this space of process ids; empty where the system does not tell."""
    try:
        told = Path("/proc/sys/kernel/random/boot_id").read_text() + str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
    return hashlib.blake2b(told.encode(), digest_size=4).hexdigest()


def _stat(pid: int) -> list[bytes]:
    """What Linux says of a process, from its state on; nothing if there is none, or this is no Linux."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rsplit(b")", 1)[1].split()
    except (OSError, IndexError):
        return []


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if there is none. A reused pid has another start time."""
    fields = _stat(pid)
    return int(fields[19]) if fields and fields[0] not in (b"Z", b"X") else None


def runs(pid: int) -> bool:
    """Whether a process exists and is not stopped; True where the system does not tell."""
    fields = _stat(pid)
    if not fields:
        return not Path("/proc/self/stat").exists()
    return fields[0] not in (b"T", b"t", b"Z", b"X")


def new_worker_id() -> str:
    """One per incarnation: host, pid, start time, boot, and a number for several in one process."""
    node = re.sub(r"[^A-Za-z0-9-]", "-", platform.node())[:40] or "host"
    pid = os.getpid()
    return f"{node}.{pid}.{start_time(pid) or 0}.{boot() or 'x'}.{next(_counter)}"


def _process(worker: str) -> tuple[int, int] | None:
    """The pid and the start time of a worker of this boot of this machine; None for any other."""
    parts = worker.rsplit(".", 4)
    if len(parts) != 5 or not boot() or parts[3] != boot() or not (parts[1].isdigit() and parts[2].isdigit()):
        return None
    return int(parts[1]), int(parts[2])


def pid_here(worker: str) -> int | None:
    """The process of a worker that is known to live on this machine; None if it does not, or nobody can tell from here."""
    process = _process(worker)
    return process[0] if process is not None and start_time(process[0]) == process[1] else None


def is_gone(worker: str) -> bool:
    """Whether that worker ran on this boot of this machine, and its process no longer exists."""
    process = _process(worker)
    return process is not None and start_time(process[0]) != process[1]
