"""Breaks free memory into single pages: run in a guest.

It fills two lots of pipes in turn, a page each time, and closes one lot. A page in a pipe is the
kernel's own and can't be moved, so that compacting memory does not help. It stops taking pages
where few blocks of more than a page are left; its one word is how many MiB have to stay available.
Then it says what is free, and keeps the pages until its standard input ends.
"""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

_PIPE_BYTES = 1 << 20
_PAGE = bytes(4096)
_PAGES_PER_PIPE = _PIPE_BYTES // len(_PAGE)


def available_kib() -> int:
    """MemAvailable."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))


def new_pipe() -> tuple[int, int]:
    """A pipe that holds 1 MiB, which nobody waits for."""
    ends = os.pipe2(os.O_NONBLOCK)
    fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return ends


def fragment(keep_mib: int) -> list[tuple[int, int]]:
    """Take memory until so much is left, give every second page back; the pipes with the others."""
    kept, given = [], []
    while available_kib() > keep_mib * 1024:
        one, other = new_pipe(), new_pipe()
        for _ in range(_PAGES_PER_PIPE):
            os.write(one[1], _PAGE)
            os.write(other[1], _PAGE)
        kept.append(one)
        given.append(other)
    for pipe in given:
        for end in pipe:
            os.close(end)
    return kept


if __name__ == "__main__":
    Path("/proc/self/oom_score_adj").write_text("1000")
    pipes = fragment(int(sys.argv[1]))
    print(Path("/proc/buddyinfo").read_text(), available_kib(), "KiB available", flush=True)
    sys.stdin.read()
