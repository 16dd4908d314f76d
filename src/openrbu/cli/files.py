"""The user's own files: read with clear errors, written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from openrbu.cli.show import OutputError
from openrbu.errors import DamagedInputError, ObstacleError, UsageError
from openrbu.units import MIB, human_size

if TYPE_CHECKING:
    from openrbu.buffers import Buffer
    from openrbu.formats.hdr import Image

MAX_INPUT_BYTES = 512 * MIB
"""More than any vendor's package; less than what an endless file would fill memory with."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """An image out of a file; `found_at` says where inside, where the file is a package."""

    image: Image
    found_at: str | None = None


def read_input(path: Path, *, max_size_bytes: int = MAX_INPUT_BYTES) -> bytes:
    """A whole file that the user named.

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


@contextlib.contextmanager
def about(path: Path) -> Iterator[None]:
    """Name the file in what is said about damage in it."""
    try:
        yield
    except DamagedInputError as error:
        raise DamagedInputError(
            f"{path}: {error}", offset=error.offset, expected=error.expected, actual=error.actual
        ) from None


def load_images(data: bytes) -> list[Loaded]:
    """The images in a file's bytes: the one that it is, or all those inside a package.

    :raise DamagedInputError: when there is none; when it should be one and is damaged.
    """
    from openrbu.formats.hdr import MAGIC, Image
    from openrbu.formats.packet_header import PACKET_ID

    start = data[: len(MAGIC)]
    if MAGIC.startswith(start):  # an image, a scrap of one, or nothing: say precisely which
        return [Loaded(Image.parse(data))]
    if start == PACKET_ID:
        raise DamagedInputError(
            "RBU packets, not an image: put them together first with rbu join", offset=0
        )
    from openrbu.formats.package import find_images

    found = [Loaded(each.image, each.path) for each in find_images(data)]
    if not found:
        raise DamagedInputError(
            f"neither a BIOS image (.HDR) nor a package with one inside: it starts with {start!r}",
            offset=0,
            expected=MAGIC,
            actual=start,
        )
    return found


def load_image(path: Path) -> Loaded:
    """The one image that a file is or holds; it may be damaged: see `Image.damage`.

    :raise UsageError: when the file can't be read, or holds several.
    :raise DamagedInputError: when there is none in it.
    """
    with about(path):
        found = load_images(read_input(path))
    if len(found) > 1:
        versions = ", ".join(each.image.header.version.text for each in found)
        raise UsageError(
            f"{path} holds {len(found)} images ({versions}): get them out with rbu extract, and "
            "name the one that is meant"
        )
    return found[0]


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


def write_whole(path: Path, data: Buffer) -> None:
    """Write a file so that it is there whole, or as it was before.

    :raise OutputError: when it can't be written.
    """
    fresh = path.with_name(f".{path.name[:200]}.{os.getpid()}.new")
    try:
        try:
            with fresh.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OutputError(f"{path} can't be written: {error.strerror}") from None


def save(path: Path, data: Buffer, *, force: bool) -> bool:
    """Write a file where it is not there just so already; whether it was written.

    :raise ObstacleError | UsageError | OutputError: as `would_change` and `write_whole`.
    """
    changes = would_change(path, data, force=force)
    if changes:
        write_whole(path, data)
    return changes


def make_directory(path: Path) -> None:
    """Have a directory there.

    :raise OutputError: when it can't be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"directory {path} can't be made: {error.strerror}") from None
