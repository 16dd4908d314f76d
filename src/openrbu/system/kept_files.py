"""Reads and removes the files that openrbu keeps for itself, whatever is found in their places.

Such a file is a regular one, and of moderate size. Anything else at its path was put there by
something else. Opening a FIFO would wait for a writer, a link leads to another file, and a file
without an end would fill memory.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from pathlib import Path

from openrbu.units import MIB, human_size

MAX_KEPT_BYTES = MIB
"""The most that a file of settings may have: far more than any of them needs."""

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class OddFileError(OSError):
    """What is at a file's path is not a regular file, or is too large. `strerror` says which."""


def read_kept(path: Path, *, max_bytes: int = MAX_KEPT_BYTES) -> bytes:
    """All bytes of a file.

    :raise FileNotFoundError: when there is nothing at the path.
    :raise OddFileError: when it is not a regular file (a symbolic link is not one), or is larger
        than `max_bytes`.
    :raise OSError: when it can't be read.
    """
    fd = open_kept(path, os.O_RDONLY)
    with os.fdopen(fd, "rb") as file:
        data = b""
        if os.fstat(fd).st_size <= max_bytes:
            data = file.read(max_bytes + 1)
            if len(data) <= max_bytes:
                return data
    raise too_large(max_bytes, path)


def too_large(max_bytes: int, path: Path | None = None) -> OddFileError:
    """The error for a file that is larger than it may be."""
    why = f"it is larger than {human_size(max_bytes)}"
    return OddFileError(errno.EINVAL, why, None if path is None else str(path))


def open_kept(path: Path, flags: int) -> int:
    """Open a file; its descriptor. `flags` are those of `os.open`. A file that they make is for its
    owner alone.

    :raise OddFileError: when it is not a regular file.
    :raise OSError: when it can't be opened.
    """
    try:
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise _kind_error(path, path.lstat().st_mode) from None
        raise
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        raise _kind_error(path, mode)
    return fd


def _kind_error(path: Path, mode: int) -> OddFileError:
    kind = _KINDS.get(stat.S_IFMT(mode), "something else")
    return OddFileError(errno.EINVAL, f"it is {kind}, not a file", str(path))


def is_odd(path: Path) -> bool:
    """Whether there is something other than a regular file at a path.

    :raise OSError: when that can't be seen.
    """
    try:
        return not stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def remove_whatever(path: Path) -> None:
    """Remove what is at a path: a file, a link (not its target), a directory with all in it.

    :raise OSError: when it can't be removed.
    """
    with contextlib.suppress(FileNotFoundError):
        try:
            path.unlink()
        except IsADirectoryError:
            shutil.rmtree(path)
