"""Packet sets: splits an image into packets, and joins packets.

A set is packet 0, which has a list of items and no image data, and packets 1 … total-1, which have
the image in sequence, the last one padded with zeros. Facts: docs/reference/packets.md. One packet,
its header and its rules are in `packet_header`.
"""

from __future__ import annotations

import zlib
from collections.abc import Set
from dataclasses import dataclass, replace
from typing import NoReturn

from openrbu.buffers import Buffer
from openrbu.errors import DamagedInputError, UsageError
from openrbu.formats.check_words import CHECK_WORDS_BYTES
from openrbu.formats.packet_header import (
    HEADER_SIZE_BYTES,
    MAX_HEADER_BYTES,
    MAX_PACKET_BYTES,
    MAX_PACKETS,
    MIN_PACKETS,
    PACKET_HEADER,
    PACKET_MAGIC,
    PARAGRAPH_BYTES,
    PacketHeader,
    PasswordItem,
    header_array,
    parse_password_item,
    password_crc,
    set_id_number,
    set_id_text,
    word_sums,
)
from openrbu.lazy import np, npt
from openrbu.units import KIB

__all__ = [
    "DEFAULT_PACKET_BYTES",
    "HEADER_SIZE_BYTES",
    "MAX_HEADER_BYTES",
    "MAX_PACKETS",
    "MAX_PACKET_BYTES",
    "MIN_PACKETS",
    "MIN_PACKET_BYTES",
    "PACKET_HEADER",
    "PACKET_MAGIC",
    "PARAGRAPH_BYTES",
    "PacketHeader",
    "PacketSet",
    "PasswordItem",
    "check_packet_size",
    "header_array",
    "join",
    "own_set_id",
    "packets_needed",
    "parse_password_item",
    "password_crc",
    "set_id_number",
    "set_id_text",
    "split",
    "word_sums",
]

DEFAULT_PACKET_BYTES = 4 * KIB

MIN_PACKET_BYTES = KIB

_IDENTITY_BYTES = 128
"""The longest header that is read. After a shorter one, some data counts twice."""

_BLOCK_BYTES = 512 * KIB
"""Packets are copied and summed in blocks that stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class PacketSet:
    """A complete and checked set. `image` is padded with zeros to the end of the last packet.

    `packet_size_bytes` is that of packets 1 and up; `total` counts packet 0, too.
    """

    image: memoryview
    set_id: int
    packet_size_bytes: int
    total: int
    password: PasswordItem


def check_packet_size(packet_size_bytes: int) -> None:
    """Check that packets can have this size. (A machine's memory is not considered.)

    :raise UsageError: when it is not a whole number of KiB from 1 to 65,535.
    """
    advice = f"give a multiple of {KIB} bytes, such as {DEFAULT_PACKET_BYTES}"
    if packet_size_bytes <= 0:
        raise UsageError(f"packet size {packet_size_bytes} is not a size: {advice}")
    if packet_size_bytes < MIN_PACKET_BYTES:
        raise UsageError(f"packet size {packet_size_bytes} is below 1 KiB: {advice}")
    if packet_size_bytes > MAX_PACKET_BYTES:
        raise UsageError(
            f"packet size {packet_size_bytes} is over the {MAX_PACKET_BYTES} bytes "
            f"({MAX_PACKET_BYTES // KIB} KiB) that fit in a packet header: {advice}"
        )
    if packet_size_bytes % KIB:
        raise UsageError(f"packet size {packet_size_bytes} is not a whole number of KiB: {advice}")


def packets_needed(image_size_bytes: int, packet_size_bytes: int) -> int:
    """How many packets of this size, packet 0 included, an image of this size needs.

    :raise UsageError: when packets can't have this size, the image has 0 bytes, or a set can't
        have so many packets.
    """
    check_packet_size(packet_size_bytes)
    if image_size_bytes <= 0:
        raise UsageError("an image of 0 bytes can't be put into packets")
    total = 1 + -(-image_size_bytes // (packet_size_bytes - HEADER_SIZE_BYTES))
    if total <= MAX_PACKETS:
        return total
    least_data = -(-image_size_bytes // (MAX_PACKETS - 1))
    least_kib = -(-(least_data + HEADER_SIZE_BYTES) // KIB)
    if least_kib * KIB > MAX_PACKET_BYTES:
        raise UsageError(f"an image of {image_size_bytes} bytes is too large for any packet set")
    raise UsageError(
        f"an image of {image_size_bytes} bytes makes {total} packets of {packet_size_bytes} bytes, "
        f"over the {MAX_PACKETS} of a set: use packets of {least_kib * KIB} bytes or more"
    )


def block_rows(packet_size_bytes: int) -> int:
    """How many packets of a size to process at once so that they stay in the cache."""
    return max(1, _BLOCK_BYTES // packet_size_bytes)


def split(
    image: Buffer,
    *,
    packet_size_bytes: int = DEFAULT_PACKET_BYTES,
    set_id: str | bytes | int,
    password_crc: int | None = None,
) -> memoryview:
    """All packets of an image back to back, packet 0 first, each of `packet_size_bytes`.

    `password_crc` (see the function of that name) goes into packet 0; None says "no password".

    :raise UsageError: when a set can't have these sizes or this set ID.
    """
    total = packets_needed(len(image), packet_size_bytes)
    header = PacketHeader(packet_size_bytes, HEADER_SIZE_BYTES, set_id_number(set_id), 0, total, 0)
    password = PasswordItem(password_crc is not None, password_crc or 0)
    source = np.frombuffer(image, np.uint8)
    data_size = packet_size_bytes - HEADER_SIZE_BYTES
    whole = len(source) // data_size  # packets that the image fills
    chunks = source[: whole * data_size].reshape(whole, data_size)
    headers = _numbered(header, total).view(np.uint8).reshape(total, HEADER_SIZE_BYTES)
    packets = np.empty((total, packet_size_bytes), np.uint8)
    checksums = header_array(packets)["pktChksum"]
    _fill(packets[0, HEADER_SIZE_BYTES:], password.build())
    if whole + 1 < total:
        _fill(packets[-1, HEADER_SIZE_BYTES:], source[whole * data_size :].data)
    step = block_rows(packet_size_bytes)
    for low in range(0, total, step):
        high = min(low + step, total)
        first, last = max(low, 1), min(high, whole + 1)  # packet n carries chunk n-1
        packets[low:high, :HEADER_SIZE_BYTES] = headers[low:high]
        packets[first:last, HEADER_SIZE_BYTES:] = chunks[first - 1 : last - 1]
        checksums[low:high] = -word_sums(packets[low:high])
    return packets.reshape(-1).data


def own_set_id(image: Buffer, packet_size_bytes: int, password_crc: int | None) -> int:
    """The set ID that only packets of this image, size and password have (two sets have the same
    one by chance: 1 in 2**32).

    It is made from the header, the check words (which depend on the data), the size and the
    password. The CRC-32 of the whole image can't be used: it is the same for all intact images.
    """
    view = memoryview(image)
    made_of = f"{packet_size_bytes} {password_crc}".encode()
    return zlib.crc32(b"".join((view[:_IDENTITY_BYTES], view[-CHECK_WORDS_BYTES:], made_of)))


def _numbered(model: PacketHeader, count: int) -> npt.NDArray[np.void]:
    """`count` headers like `model`, numbered from its number on; shape (count,)."""
    headers = np.frombuffer(model.build() * count, PACKET_HEADER.dtype).copy()
    headers["pktNum"] = np.arange(model.number, model.number + count)
    return headers


def _fill(room: npt.NDArray[np.uint8], data: Buffer) -> None:
    """Write `data` at the start of `room`, and zeros after it."""
    room[: len(data)] = np.frombuffer(data, np.uint8)
    room[len(data) :] = 0


def join(data: Buffer) -> PacketSet:
    """Join a file of packets back to back, made by `split` or another tool.

    Packet 0 may have a different size. The image keeps the last packet's padding: a set does not
    say how long the image is. One more packet is accepted if its number is the set's total: Dell's
    old client writes one after an image that fills its packets (docs/reference/packets.md, P12),
    and BIOSes ignore it.

    :raise DamagedInputError: when a packet breaks a header rule, has a wrong checksum, is missing,
        a duplicate, out of sequence, of another set or cut short, or when bytes follow the last
        one. The text has the packet's number and its offset in the file.
    """
    first = _header_in_file(data, 0, 0)
    source = np.frombuffer(data, np.uint8)
    start = first.size_bytes  # of packet 1
    lead = source[: len(source) // start * start].reshape(-1, start)
    due = _ExpectedPacket(0, 0, start, first)
    _check_packets(data, lead, due, lead[:1, :HEADER_SIZE_BYTES], word_sums(lead[:1]))
    second = _header_in_file(data, 1, start, first.total)
    size, skip = second.size_bytes, second.header_size_bytes
    packets = source[start : start + (len(source) - start) // size * size].reshape(-1, size)
    count = min(len(packets), first.total - 1)
    image = np.empty((count, size - skip), np.uint8)
    headers = np.empty((count, HEADER_SIZE_BYTES), np.uint8)
    sums = np.empty(count, np.uint16)
    step = block_rows(size)
    for low in range(0, count, step):
        high = min(low + step, count)
        image[low:high] = packets[low:high, skip:]
        headers[low:high] = packets[low:high, :HEADER_SIZE_BYTES]
        sums[low:high] = word_sums(packets[low:high])
    _check_packets(data, packets, _ExpectedPacket(1, start, size, first), headers, sums)
    due = _ExpectedPacket(count + 1, start + count * size, size, first)
    if not _is_surplus(packets[count:], due):
        _check_end(data, due)
    return PacketSet(
        image=image.reshape(-1).data,
        set_id=first.set_id,
        packet_size_bytes=size,
        total=first.total,
        password=parse_password_item(memoryview(data)[first.header_size_bytes : start]),
    )


@dataclass(frozen=True, slots=True)
class _ExpectedPacket:
    """The packet that should be at an offset in a file. `first` is the header of packet 0."""

    number: int
    offset: int
    size_bytes: int
    first: PacketHeader


def _header_in_file(
    data: Buffer, number: int, offset: int, total: int = MAX_PACKETS
) -> PacketHeader:
    """The header at `offset`, where packet `number` of `total` should be.

    :raise DamagedInputError: when that packet is missing, cut short, or its header breaks a rule.
    """
    left = len(data) - offset
    if number > 0 and left == 0:
        raise DamagedInputError(
            f"packet {number} is missing: the file ends at offset {offset:#x}, "
            f"with {number} of {total} packets",
            offset=offset,
            expected=total,
            actual=number,
        )
    size = HEADER_SIZE_BYTES
    if left >= size:
        header = PacketHeader.parse(data, offset, f"packet {number}")
        size = header.size_bytes
    if left < size:
        raise DamagedInputError(
            f"packet {number} at offset {offset:#x} is cut short: {left} of {size} bytes",
            offset=offset,
            expected=size,
            actual=left,
        )
    return header


def _check_packets(
    data: Buffer,
    packets: npt.NDArray[np.uint8],
    due: _ExpectedPacket,
    headers: npt.NDArray[np.uint8],
    sums: npt.NDArray[np.uint16],
) -> None:
    """Check that the packets in a file are valid, in sequence and all of one set.

    `packets` are the file's rows from `due.offset` on, shape (≥n, size). As many of them are
    checked as there are `headers`, shape (n, 32), and `sums`, shape (n,).

    :raise DamagedInputError: when one of them is not.
    """
    # Packet 0's header follows the rules, and all others equal it (docs/reference/packets.md, P1).
    model = replace(due.first, size_bytes=due.size_bytes, number=due.number)
    expected = _numbered(model, len(sums))
    expected["pktChksum"] = header_array(headers)["pktChksum"]
    differs = expected.view("<u8").reshape(len(sums), -1) != headers.view("<u8")
    bad = differs.any(axis=1) | (sums != 0)
    if bad.any():
        row = int(bad.argmax())
        culprit = replace(due, number=due.number + row, offset=due.offset + row * due.size_bytes)
        _explain(data, culprit, int(sums[row]), set(header_array(packets)["pktNum"][row:].tolist()))


def _explain(data: Buffer, due: _ExpectedPacket, word_sum: int, later: Set[int]) -> NoReturn:
    """Raise the error for a packet that is not the expected one.

    `word_sum` is 0 unless the checksum is wrong; `later` are the numbers of the packets from there
    to the end of the file.

    :raise DamagedInputError: always.
    """
    first, at = due.first, f"offset {due.offset:#x}"
    header = _header_in_file(data, due.number, due.offset, first.total)
    where = f"packet {due.number} at {at}"
    expected, actual = due.number, header.number
    if header.size_bytes != due.size_bytes:
        expected, actual = due.size_bytes, header.size_bytes
        text = f"{where} has {actual} bytes, those before it {expected}"
    elif word_sum:
        expected, actual = 0, word_sum
        text = f"{where} has a wrong checksum: its words sum to {actual:#06x}, not 0"
    elif header.set_id != first.set_id:
        expected, actual = first.set_id, header.set_id
        text = f"{where} is of another set ({set_id_text(actual)}, not {set_id_text(expected)})"
    elif header.total != first.total:
        expected, actual = first.total, header.total
        text = f"{where} says that its set has {actual} packets, packet 0 says {expected}"
    elif header.header_size_bytes != first.header_size_bytes:
        expected, actual = first.header_size_bytes, header.header_size_bytes
        text = f"{where} has a header of {actual} bytes, packet 0 one of {expected}"
    elif actual < expected:
        text = f"packet {actual} is there twice, the second time at {at}"
    elif expected in later:
        text = f"packet {actual} at {at} is out of order: packet {expected} should be there"
    else:
        text = f"packet {expected} is missing: packet {actual} is at {at}, where it should be"
    raise DamagedInputError(text, offset=due.offset, expected=expected, actual=actual)


def _is_surplus(left: npt.NDArray[np.uint8], due: _ExpectedPacket) -> bool:
    """Whether a file ends with one packet too many: `left`, shape (1, size), is valid and its
    number is the total."""
    if len(left) != 1 or due.number != due.first.total or word_sums(left)[0]:
        return False
    model = replace(due.first, size_bytes=due.size_bytes, number=due.number)
    header = header_array(left)
    expected = _numbered(model, 1)
    expected["pktChksum"] = header["pktChksum"]
    return bool((header == expected)[0])


def _check_end(data: Buffer, due: _ExpectedPacket) -> None:
    """Check that a file ends with the last packet of the set.

    :raise DamagedInputError: when it does not.
    """
    left = len(data) - due.offset
    magic = PACKET_MAGIC.to_bytes(4, "little")
    if due.number < due.first.total or bytes(data[due.offset : due.offset + 4]) == magic:
        _explain(data, due, 0, frozenset())
    if left:
        raise DamagedInputError(
            f"{left} bytes follow the last packet, at offset {due.offset:#x}",
            offset=due.offset,
            expected=0,
            actual=left,
        )
