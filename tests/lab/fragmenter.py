"""Breaks free memory into single pages: run in a guest, as root.

It fills two lots of pipes in turn, a page each time, and closes one lot: every second page is free
then. A page in a pipe is the kernel's own and can't be moved, so compacting memory does not help.
What is still free in larger blocks it takes for rings of packet sockets, whose blocks lie in one
piece, the largest first. Its word is how many MiB it leaves available before it gives pages back.
Then it says what is free, and keeps what it took until its standard input ends.
"""

from __future__ import annotations

import fcntl
import os
import resource
import socket
import struct
import sys
from pathlib import Path

PAGE_BYTES = 4096
LARGEST_ORDER = 10
_PIPE_BYTES = 1 << 20
_FILES = 4096
_SOL_PACKET, _PACKET_RX_RING = 263, 5


def available_kib() -> int:
    """MemAvailable."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))


def free_blocks(order: int) -> int:
    """How many blocks of 2**order pages are free."""
    lines = Path("/proc/buddyinfo").read_text().splitlines()
    return sum(int(line.split()[4 + order]) for line in lines)


def new_pipe() -> tuple[int, int]:
    """A pipe that holds 1 MiB, which nobody waits for."""
    ends = os.pipe2(os.O_NONBLOCK)
    fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return ends


def take_every_second_page(keep_mib: int) -> list[tuple[int, int]]:
    """Take memory until so much is left, give every second page back; the pipes with the others."""
    kept, given = [], []
    while available_kib() > keep_mib * 1024:
        one, other = new_pipe(), new_pipe()
        for _ in range(_PIPE_BYTES // PAGE_BYTES):
            os.write(one[1], bytes(PAGE_BYTES))
            os.write(other[1], bytes(PAGE_BYTES))
        kept.append(one)
        given.append(other)
    for pipe in given:
        for end in pipe:
            os.close(end)
    return kept


def take_blocks(order: int) -> list[socket.socket]:
    """Take the free blocks of 2**order pages, as long as that makes them fewer; the sockets."""
    rings = []
    before = None
    while (count := free_blocks(order)) and count != before:
        before = count
        ring = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        frames = count << order
        request = struct.pack("4I", PAGE_BYTES << order, count, PAGE_BYTES, frames)
        ring.setsockopt(_SOL_PACKET, _PACKET_RX_RING, request)
        rings.append(ring)
    return rings


if __name__ == "__main__":
    Path("/proc/self/oom_score_adj").write_text("1000")
    Path("/proc/sys/vm/lowmem_reserve_ratio").write_text("0 0 0 0 0")  # zone DMA, too
    resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES, _FILES))
    pipes = take_every_second_page(int(sys.argv[1]))
    sockets = [each for order in range(LARGEST_ORDER, 0, -1) for each in take_blocks(order)]
    print(Path("/proc/buddyinfo").read_text(), available_kib(), "KiB available", flush=True)
    sys.stdin.read()
