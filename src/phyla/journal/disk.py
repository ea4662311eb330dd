"""What a journal must know of the disk below it: whether it is across a network, and how to make a file durable."""

from __future__ import annotations

import functools
import os
import re
import sys
from pathlib import Path

if sys.platform == "darwin":
    import fcntl

NETWORK = (
    "nfs nfs4 cifs smb3 smbfs ncpfs afs 9p ceph lustre gpfs beegfs fhgfs glusterfs orangefs pvfs2 panfs wekafs ocfs2 gfs2 "
    "fuse.sshfs fuse.glusterfs fuse.ceph fuse.ceph-fuse fuse.s3fs fuse.gcsfuse fuse.rclone fuse.juicefs fuse.mfs "
    "fuse.quobyte fuse.davfs fuse.blobfuse fuse.blobfuse2"
)
"""File systems whose locks or shared memory cannot be relied on, by the names that the kernel gives them."""

MOUNTS = Path("/proc/self/mountinfo")


@functools.cache
def network_file_system(directory: Path) -> str | None:
    """The type of the network file system that holds this directory; None where it is local, or nobody knows (macOS)."""
    try:
        lines = MOUNTS.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    place = f"{directory.resolve()}/"
    mounts: list[tuple[int, int, str]] = []  # the deepest holds it, of equals the one that was mounted last
    for line in lines:
        left, _, right = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), left.split()[4])
        if place.startswith(f"{point.rstrip('/')}/"):
            mounts.append((len(point), len(mounts), right.split()[0]))
    kind = max(mounts)[2] if mounts else ""
    return kind if kind in NETWORK.split() else None


def fsync(file: int) -> None:
    """Makes what was written to a file durable."""
    if sys.platform == "darwin":
        fcntl.fcntl(file, fcntl.F_FULLFSYNC)  # fsync stops at the drive's cache there
    else:
        os.fsync(file)


def fsync_directory(path: Path) -> None:
    """Makes the names in a directory durable."""
    if sys.platform == "win32":
        return  # a directory cannot be opened there
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
