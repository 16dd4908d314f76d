"""Give an image to the kernel as a file, where it makes no firmware entry or a file is in the way.

A kernel that is asked for `dell_rbu` searches for a file of that name first, and of all places in
the directory that its parameter `path` names (docs/reference/firmware-class.md, F5). So a file of
ours in a directory of ours comes before any other file, in both modes and without a firmware entry.

Beside the file is a record of what the parameter was before. With it, `take_away` puts everything
back after a process that was killed. Files are overwritten with zeros before they are removed:
otherwise copies of the image would stay in free memory, where a BIOS finds them.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from openrbu.buffers import Buffer
from openrbu.errors import ObstacleError
from openrbu.hosts.base import Host, read_file
from openrbu.linux.firmware_class import LIBRARY, SEARCH_PATH
from openrbu.system.signals import signals_deferred
from openrbu.units import MIB
from openrbu.update.exclusion import alone_on

NAME = "dell_rbu"

DIRECTORY = "openrbu-firmware"
"""The name of the directory of ours."""

_PARENTS = ("/run", "/dev/shm")
"""File systems in memory, which a restart clears."""

_RECORD = "search-path-before"

_CHUNK_BYTES = 1 * MIB


@contextlib.contextmanager
def given_as_file(host: Host, data: Buffer, *, zeros: int = 0) -> Iterator[None]:
    """For the block, have `data` as the file that the kernel loads when `init` is written. As many
    `zeros` follow, which take no memory of their own.

    :raise ObstacleError: when no such file can be made; the text says why.
    :raise OSError: what the kernel returns.
    """
    take_away(host)
    if not host.exists(SEARCH_PATH):
        raise ObstacleError(
            f"the kernel makes no firmware entry for {NAME}, and can't be told where to search for "
            f"a file ({SEARCH_PATH} is missing): put the image at {LIBRARY}/{NAME} by hand"
        )
    try:
        directory = _make_files(host, data, zeros)
        path = host.kernel_path(directory)
        host.write(SEARCH_PATH, path.encode() + b"\0")
        yield
    finally:
        with signals_deferred():
            take_away(host)


def _make_files(host: Host, data: Buffer, zeros: int) -> str:
    """Make the record and the file; the directory in which they are.

    :raise ObstacleError: when there is no place for them.
    """
    problems = []
    for parent in _PARENTS:
        directory = f"{parent}/{DIRECTORY}"
        try:
            _make(host, f"{directory}/{_RECORD}", read_file(host, SEARCH_PATH).removesuffix(b"\n"))
            _make(host, f"{directory}/{NAME}", data)
            if zeros:  # a file with a hole
                host.write(f"{directory}/{NAME}", b"\0", len(data) + zeros - 1)
        except OSError as error:
            if error.errno == errno.ENOMEM:
                raise
            take_away(host)
            problems.append(f"{parent}: {error.strerror}")
        else:
            return directory
    raise ObstacleError(
        f"the kernel makes no firmware entry for {NAME}, and no file can be made in its place "
        f"({'; '.join(problems)})"
    )


def _make(host: Host, path: str, data: Buffer) -> None:
    host.make_file(path)
    for offset in range(0, len(data), _CHUNK_BYTES):
        host.write(path, memoryview(data)[offset : offset + _CHUNK_BYTES], offset)


def is_left(host: Host) -> bool:
    """Whether a file or a record of ours is there: one is in use now, or its process was killed."""
    return any(host.exists(path) for path in _all_files())


def take_away_of_killed(host: Host) -> None:
    """`take_away` where the process that made the file was killed: no update is under way.

    :raise OSError: what the kernel returns.
    """
    if is_left(host):
        with contextlib.suppress(ObstacleError), alone_on(host):
            take_away(host)


def take_away(host: Host) -> None:
    """Put the kernel's search path back, and remove the file. Does nothing where none is left.

    :raise OSError: what the kernel returns.
    """
    for parent in _PARENTS:
        record, file = (f"{parent}/{DIRECTORY}/{name}" for name in (_RECORD, NAME))
        if host.exists(record):
            _put_path_back(host, read_file(host, record), f"{parent}/{DIRECTORY}")
        if host.exists(file):
            _overwrite(host, file)
            host.remove_file(file)
        if host.exists(record):  # last: as long as it is there, the rest is not done
            host.remove_file(record)


def _put_path_back(host: Host, before: bytes, directory: str) -> None:
    """Put the search path back, unless somebody has changed it since."""
    with contextlib.suppress(FileNotFoundError):
        now = read_file(host, SEARCH_PATH).removesuffix(b"\n").decode("latin-1")
        if now == directory or now.endswith(f"/root{directory}"):
            host.write(SEARCH_PATH, before + b"\0")


def _overwrite(host: Host, path: str) -> None:
    """Overwrite what is not zero: a hole stays one."""
    offset = 0
    for chunk in host.chunks(path, _CHUNK_BYTES):
        if any(chunk):
            host.write(path, bytes(len(chunk)), offset)
        offset += len(chunk)


def _all_files() -> list[str]:
    return [f"{parent}/{DIRECTORY}/{name}" for parent in _PARENTS for name in (_RECORD, NAME)]
