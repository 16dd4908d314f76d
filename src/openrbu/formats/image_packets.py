"""An image as RBU packets, and back: the layer between `hdr` (images) and `packet` (any bytes).

A damaged image is refused here, as a BIOS would refuse its packets.
"""

from __future__ import annotations

from dataclasses import dataclass

from openrbu.buffers import Buffer
from openrbu.errors import DamagedInputError, UsageError
from openrbu.formats import packet
from openrbu.formats.hdr import Image, image_at
from openrbu.formats.packet import PacketSet


@dataclass(frozen=True, slots=True)
class ImagePackets:
    """The packets of an image, back to back in `data`, each of `packet_size_bytes`."""

    data: memoryview
    packet_size_bytes: int
    set_id: int
    has_password: bool

    @property
    def count(self) -> int:
        """The number of packets, packet 0 included."""
        return len(self.data) // self.packet_size_bytes


def packets_of(
    image: Image,
    *,
    packet_size_bytes: int = packet.DEFAULT_PACKET_BYTES,
    set_id: str | bytes | int | None = None,
    password_crc: int | None = None,
) -> ImagePackets:
    """The packets of a whole image.

    `set_id` None: `packet.own_set_id`. `password_crc` goes into packet 0: see
    `packet.password_crc`.

    :raise DamagedInputError: when the image is damaged.
    :raise UsageError: when packets can't have this size, this set ID or this CRC-32.
    """
    packet.check_packet_size(packet_size_bytes)
    if password_crc is not None and not 0 <= password_crc <= 0xFFFFFFFF:
        raise UsageError(f"the password's CRC-32 {password_crc:#x} does not fit 32 bits")
    if image.damage is not None:
        raise DamagedInputError(image.damage)
    whole = image.build()
    if set_id is None:
        set_id = packet.own_set_id(whole, packet_size_bytes, password_crc)
    data = packet.split(
        whole, packet_size_bytes=packet_size_bytes, set_id=set_id, password_crc=password_crc
    )
    number = packet.set_id_number(set_id)
    return ImagePackets(data, packet_size_bytes, number, password_crc is not None)


@dataclass(frozen=True, slots=True)
class JoinedImage:
    """A whole image from a checked packet set."""

    image: Image
    packets: PacketSet


def join_image(data: Buffer) -> JoinedImage:
    """The image in a file of packets, back to back.

    :raise DamagedInputError: as `packet.join`; when the data in the packets is not an image, or a
        damaged one; when more bytes follow the image than the zeros that fill the last packet.
    """
    joined = packet.join(data)
    try:
        image = image_at(joined.image) or Image.parse(joined.image)
    except DamagedInputError as error:
        raise DamagedInputError(f"the data in the packets is {error}") from None
    if image.damage is not None:
        raise DamagedInputError(f"the packets are valid, but {image.damage}")
    behind = joined.image[image.size_bytes :]
    if len(behind) >= len(joined.image) // (joined.total - 1) or any(behind):
        raise DamagedInputError(
            f"the packets are valid, but {len(behind)} bytes follow the image in them, more than "
            "the zeros that fill the last packet"
        )
    return JoinedImage(image, joined)
