"""Packet sets: an image cut into packets, and put together again.

A set is packet 0, which carries a list of items and no image data, and packets 1 … total-1, which
carry the image in order, the last one zero padded. Facts: docs/reference/packets.md.
One packet, its header and its rules are in `packet_header`.
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
"""The longest header that is read; behind a shorter one some data counts twice."""

_BLOCK_BYTES = 512 * KIB
"""Packets are copied and summed in blocks that stay in the processor's cache."""


@dataclass(frozen=True, slots=True)
class PacketSet:
    """A whole, checked set. `image` is zero padded to the end of the last packet's data.

    `packet_size_bytes` is that of packets 1 and up; `total` counts packet 0 too.
    """

    image: memoryview
    set_id: int
    packet_size_bytes: int
    total: int
    password: PasswordItem


def check_packet_size(packet_size_bytes: int) -> None:
    """That packets can have this size. (What a machine's memory has room for is not looked at.)

    :raise UsageError: when it is not a whole number of KiB from 1 to 65,535.
    """
    advice = f"give a multiple of {KIB} bytes, such as {DEFAULT_PACKET_BYTES}"
    if packet_size_bytes <= 0:
        raise UsageError(f"packet size {packet_size_bytes} is no size: {advice}")
    if packet_size_bytes < MIN_PACKET_BYTES:
        raise UsageError(f"packet size {packet_size_bytes} is below 1 KiB: {advice}")
    if packet_size_bytes > MAX_PACKET_BYTES:
        raise UsageError(
            f"packet size {packet_size_bytes} is over the {MAX_PACKET_BYTES} bytes "
            f"({MAX_PACKET_BYTES // KIB} KiB) that a packet header can say: {advice}"
        )
    if packet_size_bytes % KIB:
        raise UsageError(f"packet size {packet_size_bytes} is not a whole number of KiB: {advice}")


def packets_needed(image_size_bytes: int, packet_size_bytes: int) -> int:
    """How many packets of this size, packet 0 included, carry an image of this size.

    :raise UsageError: when the size is not one for packets, there is no image, or the packets
        are more than a set can count.
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
    """How many packets of a size to handle at once so that they stay in the cache."""
    return max(1, _BLOCK_BYTES // packet_size_bytes)


def split(
    image: Buffer,
    *,
    packet_size_bytes: int = DEFAULT_PACKET_BYTES,
    set_id: bytes | int,
    password_crc: int | None = None,
) -> memoryview:
    """All packets of an image back to back, packet 0 first, each of `packet_size_bytes`.

    `password_crc` (see the function of that name) goes into packet 0; None says "no password".

    :raise UsageError: when the sizes or the set ID are none that a set can have.
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
    """The set ID that only packets of this image, size and password have (but for chance: 1 in
    2**32).

    It comes from the header, the check words, which stand for the data, and what else the set is
    made of. The CRC-32 of the whole image would not do: it is the same for every intact one.
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
    """Put `data` at the start of `room`, zeros behind it."""
    room[: len(data)] = np.frombuffer(data, np.uint8)
    room[len(data) :] = 0


def join(data: Buffer) -> PacketSet:
    """The image in a file of packets back to back: what `split` made, or another tool.

    Packet 0 may have a size of its own. The image keeps the last packet's padding: nothing in a
    set says how long the image is. One more packet than the set has is taken, where its number is
    their total: Dell's old client writes one behind an image that fills its packets
    (docs/reference/packets.md, P12), and no BIOS minds it.

    :raise DamagedInputError: when a packet breaks a header rule, has a wrong checksum, is missing,
        there twice, out of order, of another set or cut short, or when something is behind the
        last one. The text has the packet's number and its offset in the file.
    """
    first = _header_in_file(data, 0, 0)
    source = np.frombuffer(data, np.uint8)
    start = first.size_bytes  # of packet 1
    lead = source[: len(source) // start * start].reshape(-1, start)
    due = _Due(0, 0, start, first)
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
    _check_packets(data, packets, _Due(1, start, size, first), headers, sums)
    due = _Due(count + 1, start + count * size, size, first)
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
class _Due:
    """What should be at an offset in a file of packets. `first` is the header of packet 0."""

    number: int
    offset: int
    size_bytes: int
    first: PacketHeader


def _header_in_file(
    data: Buffer, number: int, offset: int, total: int = MAX_PACKETS
) -> PacketHeader:
    """The header at `offset`, where packet `number` of `total` should be, whole."""
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
    due: _Due,
    headers: npt.NDArray[np.uint8],
    sums: npt.NDArray[np.uint16],
) -> None:
    """That the packets in a file are sound, in order and all of one set.

    `packets` are the file's rows from `due.offset` on. Checked are as many of them as there are
    `headers`, shape (n, 32), and `sums`, shape (n,).
    """
    # Packet 0's header keeps the rules, and all others are like it (docs/reference/packets.md, P1).
    model = replace(due.first, size_bytes=due.size_bytes, number=due.number)
    expected = _numbered(model, len(sums))
    expected["pktChksum"] = header_array(headers)["pktChksum"]
    differs = expected.view("<u8").reshape(len(sums), -1) != headers.view("<u8")
    bad = differs.any(axis=1) | (sums != 0)
    if bad.any():
        row = int(bad.argmax())
        culprit = replace(due, number=due.number + row, offset=due.offset + row * due.size_bytes)
        _explain(data, culprit, int(sums[row]), set(header_array(packets)["pktNum"][row:].tolist()))


def _explain(data: Buffer, due: _Due, word_sum: int, later: Set[int]) -> NoReturn:
    """Say why what is at an offset is not what is due there.

    `word_sum` is 0 unless the checksum is wrong; `later` are the numbers of the packets from there
    to the end of the file.
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
        text = f"packet {actual} at {at} is out of order: packet {expected} is due there"
    else:
        text = f"packet {expected} is missing: packet {actual} is at {at}, where it should be"
    raise DamagedInputError(text, offset=due.offset, expected=expected, actual=actual)


def _is_surplus(left: npt.NDArray[np.uint8], due: _Due) -> bool:
    """Whether the one packet that is `left` in a file, shape (1, size), only counts too far."""
    if len(left) != 1 or due.number != due.first.total or word_sums(left)[0]:
        return False
    model = replace(due.first, size_bytes=due.size_bytes, number=due.number)
    header = header_array(left)
    expected = _numbered(model, 1)
    expected["pktChksum"] = header["pktChksum"]
    return bool((header == expected)[0])


def _check_end(data: Buffer, due: _Due) -> None:
    """That a file of packets ends with the last one of the set."""
    left = len(data) - due.offset
    magic = PACKET_MAGIC.to_bytes(4, "little")
    if due.number < due.first.total or bytes(data[due.offset : due.offset + 4]) == magic:
        _explain(data, due, 0, frozenset())
    if left:
        raise DamagedInputError(
            f"{left} bytes behind the last packet, at offset {due.offset:#x}, belong to no packet",
            offset=due.offset,
            expected=0,
            actual=left,
        )
