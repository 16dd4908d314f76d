"""File systems that are soon full, and disks that refuse."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from rigs.needs import leave_out


@contextlib.contextmanager
def small_tmpfs(directory: Path, size_bytes: int) -> Iterator[Path]:
    """A tmpfs of that size, mounted on the directory."""
    if os.geteuid():
        leave_out("only root can mount a small tmpfs")
    options = f"size={size_bytes}"
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        leave_out(f"a small tmpfs can't be mounted: {done.stderr.strip()}")
    try:
        yield directory
    finally:
        # lazily: a test that failed may have a file of it open still
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def fill_up(directory: Path) -> Path:
    """A file that takes all the space that is left."""
    path = directory / "filler"
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return path


def pages_taken(path: Path) -> int:
    """How many pages of memory a file on a tmpfs, or a memfd, takes."""
    return path.stat().st_blocks * 512 // 4096


@contextlib.contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """A block in which this process may not write files beyond a size."""
    with _size_limit() as limit:
        limit(size_bytes)
        yield


@contextlib.contextmanager
def no_writes() -> Iterator[Callable[[], None]]:
    """What is called in the block makes each write to a file fail with EFBIG until its end, also
    one to a place that is there already, as on a disk that went bad. The kernel does it itself."""
    with _size_limit() as limit:
        yield lambda: limit(0)


@contextlib.contextmanager
def _size_limit() -> Iterator[Callable[[int], None]]:
    """What sets the largest size of a file that this process may write, until the block's end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda size_bytes: resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
