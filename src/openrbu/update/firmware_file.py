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

DIRECTORY = "/run/openrbu-firmware"
"""The directory of ours: in memory, so that a restart clears it, and below one in which only root
can make anything. (Where every user can, one of them could put a link there to a file of root's,
which is overwritten then.)"""

_FILE, _RECORD = f"{DIRECTORY}/{NAME}", f"{DIRECTORY}/search-path-before"

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
        _make_files(host, data, zeros)
        path = host.kernel_path(DIRECTORY)
        host.write(SEARCH_PATH, path.encode() + b"\0")
        yield
    finally:
        with signals_deferred():
            take_away(host)


def _make_files(host: Host, data: Buffer, zeros: int) -> None:
    """Make the record and the file.

    :raise ObstacleError: when they can't be made.
    :raise OSError: ENOMEM, when there is no memory for them.
    """
    try:
        _make(host, _RECORD, read_file(host, SEARCH_PATH).removesuffix(b"\n"))
        _make(host, _FILE, data)
        if zeros:  # a file with a hole
            host.write(_FILE, b"\0", len(data) + zeros - 1)
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise
        raise ObstacleError(
            f"the kernel makes no firmware entry for {NAME}, and no file can be made in its place "
            f"({_FILE}: {error.strerror})"
        ) from None


def _make(host: Host, path: str, data: Buffer) -> None:
    host.make_file(path)
    for offset in range(0, len(data), _CHUNK_BYTES):
        host.write(path, memoryview(data)[offset : offset + _CHUNK_BYTES], offset)


def is_left(host: Host) -> bool:
    """Whether a file or a record of ours is there: one is in use now, or its process was killed."""
    return host.exists(_RECORD) or host.exists(_FILE)


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
    if host.exists(_RECORD):
        _put_path_back(host, read_file(host, _RECORD))
    if host.exists(_FILE):
        _overwrite(host, _FILE)
        host.remove_file(_FILE)
    if host.exists(_RECORD):  # last: as long as it is there, the rest is not done
        host.remove_file(_RECORD)


def _put_path_back(host: Host, before: bytes) -> None:
    """Put the search path back, unless somebody has changed it since."""
    with contextlib.suppress(FileNotFoundError):
        now = read_file(host, SEARCH_PATH).removesuffix(b"\n").decode("latin-1")
        if now == DIRECTORY or now.endswith(f"/root{DIRECTORY}"):
            host.write(SEARCH_PATH, before + b"\0")


def _overwrite(host: Host, path: str) -> None:
    """Overwrite what is not zero: a hole stays one."""
    offset = 0
    for chunk in host.chunks(path, _CHUNK_BYTES):
        if any(chunk):
            host.write(path, bytes(len(chunk)), offset)
        offset += len(chunk)
