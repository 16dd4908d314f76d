"""Reads files with a limit, writes files whole or not at all, and checks for disk space."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from openrbu.errors import UsageError
from openrbu.units import MIB, human_size

if TYPE_CHECKING:
    from openrbu.buffers import Buffer


MAX_INPUT_BYTES = 512 * MIB
"""Larger than any vendor's package, and small enough that a file without an end can't fill memory.
"""


def read_input(path: Path, *, max_size_bytes: int = MAX_INPUT_BYTES) -> bytes:
    """All bytes of a file that the user named.

    :raise UsageError: when it can't be read, or is too large.
    """
    pieces, size = [], 0
    try:
        with path.open("rb", buffering=0) as file:
            while size <= max_size_bytes and (piece := file.read(MIB)):
                pieces.append(piece)
                size += len(piece)
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}") from None
    if size > max_size_bytes:
        raise UsageError(f"{path} is larger than {human_size(max_size_bytes)}")
    return b"".join(pieces)


def fresh_directory(parent: Path, prefix: str) -> Path:
    """Make a directory for this process in `parent`. Its name is `prefix`, the process ID and a
    random part. Such directories of processes that were killed are removed.

    :raise OSError: when it can't be made.
    """
    import tempfile  # noqa: PLC0415  (start-up time)

    for left in parent.glob(f"{prefix}*-*"):
        owner = left.name.removeprefix(prefix).partition("-")[0]
        if not Path("/proc", owner).exists():
            shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-", dir=parent))


def make_room(directory: Path, size_bytes: int) -> None:
    """Check that the disk has space for so many bytes.

    :raise OSError: when it has not.
    """
    path = directory / "room"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, size_bytes)
    finally:
        os.close(fd)
        path.unlink()


def write_whole(path: Path, data: Buffer, *, lasting: bool = False) -> None:
    """Write a file so that it is the whole new file or stays as it was before.

    Several processes may write the same file at once; the last one's data remains. `lasting`: the
    data is on the disk when this returns, so that it survives a crash of this computer.

    :raise OSError: when it can't be written.
    """
    # A random name: no link, and no file of a killed process, can be there already.
    fresh = path.with_name(f".{path.name[:200]}.{os.urandom(6).hex()}.new")
    try:
        with fresh.open("xb") as file:
            file.write(data)
            if lasting:
                file.flush()
                os.fsync(file.fileno())
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
