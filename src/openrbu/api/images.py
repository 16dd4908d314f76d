"""Images and packets: read, make, split and join them.

The names without an underscore are part of `openrbu.api`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openrbu.formats.hdr import Image, SystemId
    from openrbu.formats.image_packets import ImagePackets, JoinedImage
    from openrbu.formats.loading import LoadedFile, LoadedImage
    from openrbu.formats.packet_explained import PacketReading

StrPath = str | os.PathLike[str]


def read_image(path: StrPath) -> LoadedImage:
    """Read the only image in a file: an image file, or a package. It may be damaged: see
    `LoadedImage.damage`.

    :raise UsageError: when the file can't be read, or contains several images.
    :raise DamagedInputError: when it contains none, or one whose end is not known.
    :raise NotForRbuError: when the file is known to be for another tool.
    :raise ObstacleError: when another program has to unpack the file.
    """
    from openrbu.formats.loading import load_image

    return load_image(Path(path))


def read_images(path: StrPath, *, up_to_its_end: bool = False) -> LoadedFile:
    """Read all images in a file, and the package's description of itself.

    `up_to_its_end`: end an image where its check words are right, without the bytes after that.

    :raise OpenRbuError: as `read_image`; several images are not an error.
    """
    from openrbu.formats.loading import load_file

    return load_file(Path(path), up_to_its_end=up_to_its_end)


def build_image(
    flash_data: bytes,
    *,
    version: str,
    systems: Iterable[SystemId | str],
    flash_size_bytes: int | None = None,
) -> Image:
    """Make an image for these systems (`0x0121`, with a revision `0x0121:2`).

    `flash_size_bytes`: the size of the flash; 0xFF bytes are put before the data up to that size.

    :raise UsageError: when an image's header can't have a value.
    """
    from openrbu.formats.hdr import Image, SystemId, make_image
    from openrbu.formats.version import BiosVersion

    made = make_image(
        flash_data,
        version=BiosVersion.parse(version),
        systems=[SystemId.parse(each) if isinstance(each, str) else each for each in systems],
        flash_size_bytes=flash_size_bytes,
    )
    return Image.parse(made)


def packets(
    image: Image | LoadedImage,
    *,
    packet_size_bytes: int = 4096,
    set_id: str | bytes | int | None = None,
    password_crc: int | None = None,
) -> ImagePackets:
    """Split an image into the packets that the driver takes in packet mode.

    `set_id`: four ASCII characters, or a number; None: one that is made from the image.
    `password_crc`: the CRC-32 of the BIOS admin password, for packet 0.

    :raise DamagedInputError: when the image is damaged.
    :raise UsageError: when packets can't have a value.
    """
    from openrbu.formats.image_packets import packets_of
    from openrbu.formats.loading import LoadedImage

    return packets_of(
        image.image if isinstance(image, LoadedImage) else image,
        packet_size_bytes=packet_size_bytes,
        set_id=set_id,
        password_crc=password_crc,
    )


def join(data: bytes | memoryview) -> JoinedImage:
    """Join packets that are back to back into an image.

    :raise DamagedInputError: when a packet is missing or damaged, or the image is not whole.
    """
    from openrbu.formats.image_packets import join_image

    return join_image(data)


def explain_packet(data: bytes | memoryview, place: int = 0) -> PacketReading:
    """Explain one of the packets that are back to back, field by field; it may be damaged: see
    `PacketReading.problems`. `place` counts from 0; in a valid set it is the packet's number.

    :raise UsageError: when there is no packet at this place.
    :raise DamagedInputError: when its header is cut short.
    """
    from openrbu.formats.packet_explained import explain_packet as explain

    return explain(data, place)
