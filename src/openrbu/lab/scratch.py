"""Files for a lab's machine: without a name where that goes, and gone with the machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from openrbu.errors import ObstacleError


def memory_file(name: str, data: bytes = b"", size_bytes: int | None = None) -> int:
    """A file without a name, in memory: its descriptor."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC)
    with open(fd, "wb", closefd=False) as file:
        file.write(data)
    os.ftruncate(fd, len(data) if size_bytes is None else size_bytes)
    return fd


def text_of(fd: int) -> str:
    """All that is in a file now, as text."""
    return os.pread(fd, os.fstat(fd).st_size, 0).decode(errors="replace")


def fd_path(fd: int) -> str:
    """A path to a descriptor, for the process that has it."""
    return f"/proc/self/fd/{fd}"


def new_file(path: Path, size_bytes: int) -> int:
    """A descriptor of a file that was not there, with room for all of it on the disk: QEMU would
    die where there is none.

    :raise ObstacleError: when it was, or can't be made.
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
        raise ObstacleError(f"{path} is there already, and is not written over") from None
    except OSError as error:
        raise ObstacleError(f"{path} can't be made: {error.strerror}") from None


def remove_tree(directory: Path) -> None:
    """Remove a machine's directory, whatever its guest has done to the modes of those in `disk`."""
    for path, names, _ in os.walk(directory):
        for each in (Path(path, name) for name in names):
            if not each.is_symlink():
                each.chmod(0o700)
    shutil.rmtree(directory)
