"""Which processes have a file locked with flock(2), as `/proc/locks` says (proc(5))."""

from __future__ import annotations

import os
import re
from pathlib import Path

_LINE = re.compile(
    r"\d+: FLOCK +\w+ +\w+ (?P<pid>-?\d+) (?P<major>[0-9a-f]+):(?P<minor>[0-9a-f]+):(?P<inode>\d+) "
)
"""A lock that a process has. The line of one that waits has `->` behind its number."""


def flock_holders(fd: int, proc: Path = Path("/proc")) -> tuple[int, ...]:
    """The IDs of the processes that have the open file `fd` locked; empty where it can't be known,
    because such a process is in another PID namespace."""
    seen = os.fstat(fd)
    try:
        lines = (proc / "locks").read_text().splitlines()
    except OSError:
        return ()
    found = []
    for line in lines:
        match = _LINE.match(line)
        if match is None:
            continue
        device = os.makedev(int(match["major"], 16), int(match["minor"], 16))
        if (device, int(match["inode"])) == (seen.st_dev, seen.st_ino) and int(match["pid"]) > 0:
            found.append(int(match["pid"]))
    return tuple(found)


def process_title(pid: int, proc: Path = Path("/proc")) -> str:
    """A process in a message: its name, where that can be read, and its ID."""
    try:
        name = (proc / str(pid) / "comm").read_text().strip()
    except OSError:
        return f"process {pid}"
    return f"{name} (process {pid})"
