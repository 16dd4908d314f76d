"""Files for a lab's machine, without a name where possible, removed with the machine."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from openrbu.errors import ObstacleError
from openrbu.system.denied import why_refused
from openrbu.system.home import cache_home
from openrbu.system.lockfile import try_lock

MACHINE_PREFIX = "openrbu-lab-"
"""Begins the name of a machine's directory; the ID of its process follows."""

USED = "used"
"""The file in the cache that each guest has locked while it runs: what is in the cache stays."""


@contextlib.contextmanager
def cache_in_use() -> Iterator[None]:
    """Keep what is in the cache there in the block. A cache that this user may not write is not
    removed by this user either."""
    fd = -1
    with contextlib.suppress(OSError, ObstacleError):
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(cache_home() / USED, flags, 0o600)
        try_lock(fd, fcntl.LOCK_SH)
    try:
        yield
    finally:
        if fd >= 0:
            os.close(fd)


def memory_file(name: str, data: bytes = b"", size_bytes: int | None = None) -> int:
    """Make a file in memory, memfd_create(2), with `data`, and with zeros behind it up to
    `size_bytes` where that is given; its descriptor."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    with open(fd, "wb", closefd=False) as file:
        file.write(data)
    os.ftruncate(fd, len(data) if size_bytes is None else size_bytes)
    return fd


def text_of(fd: int) -> str:
    """The whole content of a file now, as text."""
    return os.pread(fd, os.fstat(fd).st_size, 0).decode(errors="replace")


def fd_path(fd: int) -> str:
    """A path to an open descriptor, valid in the process that has it."""
    return f"/proc/self/fd/{fd}"


def new_file(path: Path, size_bytes: int) -> int:
    """Make a file with all its disk space allocated, because QEMU crashes when the disk is full;
    its descriptor.

    :raise ObstacleError: when the file exists, or can't be made.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, size_bytes)
        except BaseException:
            os.close(fd)
            path.unlink()
            raise
        return fd
    except FileExistsError:
        raise ObstacleError(f"{path} exists already, and is not overwritten") from None
    except OSError as error:
        raise ObstacleError(f"{path} can't be made: {why_refused(error, path)}") from None


def remove_tree(directory: Path) -> None:
    """Remove a machine's directory, also where the guest has changed modes of directories in it."""
    for path, names, _ in os.walk(directory):
        for each in (Path(path, name) for name in names):
            if not each.is_symlink():
                each.chmod(0o700)
    shutil.rmtree(directory)
