"""The user's own files: read with clear errors, written whole or not at all."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from openrbu.errors import DamagedInputError, NotForRbuError, ObstacleError, OutputError, UsageError
from openrbu.system.files import write_whole
from openrbu.units import MIB, human_size

if TYPE_CHECKING:
    from openrbu.buffers import Buffer
    from openrbu.formats.hdr import Image
    from openrbu.formats.packages.manifest import Manifest

MAX_INPUT_BYTES = 512 * MIB
"""More than any vendor's package; less than what an endless file would fill memory with."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """An image out of a file; `found_at` says where inside, where the file is a package.

    `manifest` is what the package says of itself, a minimum version for instance. Where the end of
    the image is not known, `image` has a header and no data. `notes`: what else is to be told.
    """

    image: Image
    found_at: str | None = None
    manifest: Manifest | None = None
    end_is_known: bool = True
    notes: tuple[str, ...] = ()

    @property
    def damage(self) -> str | None:
        """What is wrong with the image, in one line; None: it is whole."""
        if self.end_is_known:
            return self.image.damage
        from openrbu.formats.packages.search import NO_END

        return NO_END


@dataclass(frozen=True, slots=True)
class Inside:
    """What a file is or holds: one image or more, and what else is known of it, a line each."""

    images: list[Loaded]
    manifest: Manifest | None = None
    notes: tuple[str, ...] = ()


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
    """Name the file in what is said about damage in it, or of what it is."""
    try:
        yield
    except DamagedInputError as error:
        raise DamagedInputError(
            f"{path}: {error}", offset=error.offset, expected=error.expected, actual=error.actual
        ) from None
    except NotForRbuError as error:
        raise NotForRbuError(f"{path}: {error}") from None
    except ObstacleError as error:
        raise ObstacleError(f"{path}: {error}") from None


def load_images(data: bytes, *, up_to_its_end: bool = False) -> Inside:
    """The images in a file's bytes: the one that it is, or all those inside a package.

    `up_to_its_end`: where the file is an image that is not whole, look in it for one that is, up to
    where its check words hold.

    :raise DamagedInputError: when there is none; when it should be one and has no sound header.
    :raise NotForRbuError: when there is none, and the file is known to be for something else.
    :raise ObstacleError: when there may be one, and another program has to get it out.
    """
    from openrbu.formats.hdr import MAGIC, Image
    from openrbu.formats.packet_header import PACKET_ID

    start = data[: len(MAGIC)]
    if MAGIC.startswith(start):  # an image, a scrap of one, or nothing: say precisely which
        image = Image.parse(data)
        if image.is_whole or not up_to_its_end:
            return Inside([Loaded(image)])
    if start == PACKET_ID:
        raise DamagedInputError(
            "RBU packets, not an image: put them together first with rbu join", offset=0
        )
    from openrbu.formats.packages.search import search_package

    contents = search_package(data)
    if not contents.images:
        raise contents.why_nothing() or DamagedInputError(
            f"neither a BIOS image (.HDR) nor a package with one inside: it starts with {start!r}",
            offset=0,
            expected=MAGIC,
            actual=start,
        )
    notes = [f"what the package says of itself is not known: {contents.manifest_problem}"]
    return Inside(
        [
            Loaded(each.image, each.path, contents.manifest, each.end_is_known)
            for each in contents.images
        ],
        contents.manifest,
        (
            *(notes if contents.manifest is None and contents.manifest_problem else ()),
            *map(str, contents.named),
        ),
    )


def load_image(path: Path) -> Loaded:
    """The one image that a file is or holds; it may be damaged: see `Image.damage`. Of several,
    the one that is whole.

    :raise UsageError: when the file can't be read, or holds several.
    :raise DamagedInputError: when there is none in it, or one whose end is not known.
    :raise NotForRbuError | ObstacleError: as `load_images`.
    """
    with about(path):
        inside = load_images(read_input(path))
        found = inside.images
        if len(found) > 1:
            found = [each for each in found if each.damage is None] or found
        if not found[0].end_is_known:
            raise DamagedInputError(f"{found[0].found_at}: {found[0].damage}")
    if len(found) > 1:
        versions = ", ".join(each.image.header.version.text for each in found)
        raise UsageError(
            f"{path} holds {len(found)} images ({versions}): get them out with rbu extract, and "
            "name the one that is meant"
        )
    return replace(found[0], notes=inside.notes)


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
