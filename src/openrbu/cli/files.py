"""The files that a command writes: nothing that differs is overwritten unasked."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING

from openrbu.errors import ObstacleError, OutputError, UsageError
from openrbu.system.files import write_whole

if TYPE_CHECKING:
    from openrbu.buffers import Buffer


def would_change(path: Path, data: Buffer, *, force: bool) -> bool:
    """Whether writing `data` to `path` would change anything.

    :raise ObstacleError: when another file is there, and `force` is not given.
    :raise UsageError: when something else than a file is there.
    """
    try:
        status = path.lstat()
        if stat.S_ISDIR(status.st_mode):
            raise UsageError(f"{path} is a directory, not a file to write")
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{path} is no plain file: nothing else is overwritten")
        same = status.st_size == len(data) and path.read_bytes() == data
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError as error:
        raise OutputError(f"{path} can't be written: {error.strerror}") from None
    if not (same or force):
        raise ObstacleError(f"{path} is there already and differs: --force overwrites it")
    return not same


def save(path: Path, data: Buffer, *, force: bool) -> bool:
    """Write a file where it is not there just so already; whether it was written.

    :raise ObstacleError | UsageError: as `would_change`.
    :raise OutputError: when it can't be written.
    """
    changes = would_change(path, data, force=force)
    if changes:
        try:
            write_whole(path, data, lasting=True)
        except OSError as error:
            raise OutputError(f"{path} can't be written: {error.strerror}") from None
    return changes


def make_directory(path: Path) -> None:
    """Have a directory there.

    :raise OutputError: when it can't be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"directory {path} can't be made: {error.strerror}") from None
