"""The files that a command writes. A file with other content is overwritten only with --force."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from openrbu.errors import ObstacleError, OutputError, UsageError
from openrbu.system.files import write_whole

if TYPE_CHECKING:
    from openrbu.buffers import Buffer


def would_change(path: Path, data: Buffer, *, force: bool) -> bool:
    """Whether writing `data` to `path` would change anything.

    :raise ObstacleError: when the file exists with other content, and `force` is False.
    :raise UsageError: when `path` exists and is not a regular file.
    :raise OutputError: when it can't be read.
    """
    try:
        status = path.lstat()
        if stat.S_ISDIR(status.st_mode):
            raise UsageError(f"{path} is a directory, not a file to write")
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{path} is not a regular file: only regular files are overwritten")
        same = status.st_size == len(data) and path.read_bytes() == data
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError as error:
        raise unwritable(path, error) from None
    if not (same or force):
        raise ObstacleError(f"{path} exists with other content: --force overwrites it")
    return not same


def save(path: Path, data: Buffer, *, force: bool) -> bool:
    """Write a file, unless it has this content already. True: it was written.

    :raise ObstacleError | UsageError: as `would_change`.
    :raise OutputError: when it can't be written.
    """
    changes = would_change(path, data, force=force)
    if changes:
        try:
            write_whole(path, data, lasting=True)
        except OSError as error:
            raise unwritable(path, error) from None
    return changes


def unwritable(path: Path, error: OSError) -> OutputError:
    """The error to raise where a file that the user named can't be written."""
    from openrbu.system.denied import why_refused

    return OutputError(f"{path} can't be written: {why_refused(error, path)}")


def check_directory(path: Path) -> None:
    """Check that a directory is there or can be made, before the work for what goes into it.

    :raise OutputError: when it can't be.
    """
    there = next((each for each in (path, *path.parents) if each.exists()), path)
    if not there.is_dir():
        raise OutputError(f"{path} can't be a directory: {there} is a file")


def make_directory(path: Path) -> None:
    """Make a directory, with its parents, where it does not exist.

    :raise OutputError: when it can't be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        from openrbu.system.denied import why_refused

        why = why_refused(error, path)
        raise OutputError(f"directory {path} can't be made: {why}") from None


def safe_names(stems: Iterable[str], suffix: str) -> list[str]:
    """A file name for each stem: all different, and safe for any text in them."""
    names: list[str] = []
    for text in stems:
        stem = re.sub(r"[^A-Za-z0-9._-]+", "_", text).lstrip(".-")[:100]
        name, number = f"{stem}{suffix}", 2
        while name in names:
            name, number = f"{stem}-{number}{suffix}", number + 1
        names.append(name)
    return names
