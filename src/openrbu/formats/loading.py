"""The images in a file that the user names: the file itself, or those in a package.

What a package says about itself comes with each image, because planning an update uses it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from openrbu.errors import DamagedInputError, NotForRbuError, ObstacleError, UsageError
from openrbu.formats.hdr import MAGIC, Image
from openrbu.system.files import read_input

if TYPE_CHECKING:
    from openrbu.formats.packages.manifest import Manifest


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """An image from a file. `found_at` says where in the file it is, if the file is a package.

    `manifest` is what the package says about itself, such as a minimum version. If the end of the
    image is not known, `image` has a header and no data. `notes`: further lines for the user.
    """

    image: Image
    found_at: str | None = None
    manifest: Manifest | None = None
    end_is_known: bool = True
    notes: tuple[str, ...] = ()

    @property
    def damage(self) -> str | None:
        """What is wrong with the image, in one line; None if it is whole."""
        if self.end_is_known:
            return self.image.damage
        from openrbu.formats.packages.search import NO_END  # noqa: PLC0415  (start-up time)

        return NO_END


@dataclass(frozen=True, slots=True)
class LoadedFile:
    """The contents of a file of `size_bytes`: one image or more, and in `notes` further lines about
    it for the user."""

    images: tuple[LoadedImage, ...]
    size_bytes: int
    manifest: Manifest | None = None
    notes: tuple[str, ...] = ()


@contextlib.contextmanager
def naming_file(path: Path) -> Iterator[None]:
    """Add the file's path to the text of errors about its contents."""
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


def load_images(data: bytes, *, up_to_its_end: bool = False) -> LoadedFile:
    """The images in a file's bytes: the file itself, or all images in a package.

    `up_to_its_end`: if the file is an image that is not whole, search in it for one that is, up to
    its check words.

    :raise DamagedInputError: when there is no image, or the file begins like one and its header is
        not valid.
    :raise NotForRbuError: when there is no image, and the file is known to be for something else.
    :raise ObstacleError: when there may be an image, but another program has to unpack it.
    """
    start = data[: len(MAGIC)]
    if MAGIC.startswith(start):  # an image, its start, or nothing: the error says which
        image = Image.parse(data)
        if image.is_whole or not up_to_its_end:
            return LoadedFile((LoadedImage(image),), len(data))
    from openrbu.formats.packet_header import PACKET_ID  # noqa: PLC0415  (start-up time)

    if start == PACKET_ID:
        raise DamagedInputError(
            "RBU packets, not an image: join them first with rbu join", offset=0
        )
    from openrbu.formats.packages.search import search_package  # noqa: PLC0415  (start-up time)

    contents = search_package(data)
    if not contents.images:
        raise contents.why_no_images() or DamagedInputError(
            f"neither a BIOS image (.HDR) nor a package with an image: it starts with {start!r}",
            offset=0,
            expected=MAGIC,
            actual=start,
        )
    notes = [f"the package's description can't be read: {contents.manifest_problem}"]
    return LoadedFile(
        tuple(
            LoadedImage(each.image, each.path, contents.manifest, each.end_is_known)
            for each in contents.images
        ),
        len(data),
        contents.manifest,
        (
            *(notes if contents.manifest is None and contents.manifest_problem else ()),
            *map(str, contents.named),
        ),
    )


def load_file(path: Path, *, up_to_its_end: bool = False) -> LoadedFile:
    """`load_images` for the file at a path.

    :raise UsageError: when it can't be read.
    :raise DamagedInputError | NotForRbuError | ObstacleError: as `load_images`.
    """
    with naming_file(path):
        return load_images(read_input(path), up_to_its_end=up_to_its_end)


def load_image(path: Path) -> LoadedImage:
    """The only image in a file; it may be damaged: see `Image.damage`. If there are several, the
    only one that is whole.

    :raise UsageError: when the file can't be read, or has several images.
    :raise DamagedInputError: when it has no image, or one whose end is not known.
    :raise NotForRbuError | ObstacleError: as `load_images`.
    """
    found = _usable_images(path)
    if len(found) > 1:
        versions = ", ".join(each.image.header.version.text for each in found)
        raise UsageError(
            f"{path} has {len(found)} images ({versions}): extract them with rbu extract, and name "
            "one of them"
        )
    return found[0]


def only_image(path: Path) -> LoadedImage | None:
    """As `load_image`; None: the file has several images.

    :raise OpenRbuError: as `load_image`.
    """
    found = _usable_images(path)
    return found[0] if len(found) == 1 else None


def _usable_images(path: Path) -> tuple[LoadedImage, ...]:
    """The images in a file, one at least; if there are several, those that are whole, if any is.

    :raise OpenRbuError: as `load_image`, but for the number of images.
    """
    with naming_file(path):
        inside = load_images(read_input(path))
        found = inside.images
        if len(found) > 1:
            found = tuple(each for each in found if each.damage is None) or found
        if not found[0].end_is_known:
            raise DamagedInputError(f"{found[0].found_at}: {found[0].damage}")
    return tuple(replace(each, notes=inside.notes) for each in found)
