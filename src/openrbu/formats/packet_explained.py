"""One packet, field by field: where it is, its bytes, what it means, and which rules hold.

It explains any packet of a file of packets, a damaged one, too: what `packet.join` refuses with one
line is shown here as a whole. Facts: docs/reference/packets.md, P0 to P4, P10 and P12.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from openrbu.buffers import Buffer
from openrbu.errors import DamagedInputError, UsageError
from openrbu.formats.hdr import MAGIC, Header
from openrbu.formats.layout import Layout
from openrbu.formats.packet import join
from openrbu.formats.packet_header import (
    HEADER_RULES,
    HEADER_SIZE_BYTES,
    MAX_PACKETS,
    MIN_PACKETS,
    PACKET_HEADER,
    PACKET_ID,
    PACKET_MAGIC,
    PARAGRAPH_BYTES,
    PASSWORD_INFO_BITS,
    PASSWORD_ITEM,
    PasswordItem,
    parse_password_item,
    set_id_text,
    word_sums,
)
from openrbu.lazy import np
from openrbu.units import KIB

_SAME_IN_A_SET = ("hdrSize", "pktSetId", "totPkts", "pktVer")


@dataclass(frozen=True, slots=True)
class RuleReading:
    """A rule for a field, as a text such as `is 0`, and whether it holds. If it does not, `says`
    tells what is wrong."""

    asks: str
    holds: bool
    says: str


@dataclass(frozen=True, slots=True)
class FieldReading:
    """A field of a packet. `offset` counts from the start of the packet; `meaning` is its value in
    plain words, or empty."""

    name: str
    offset: int
    raw: bytes
    value: int
    meaning: str
    rules: tuple[RuleReading, ...] = ()


@dataclass(frozen=True, slots=True)
class ChecksumReading:
    """The checksum as a sum of 16-bit words modulo 65536.

    `header_sum` is over the header's first 30 bytes, `data_sum` over all after its 32 bytes. The
    three numbers add up to 0 in a valid packet.
    """

    header_sum: int
    data_sum: int
    checksum: int

    @property
    def total(self) -> int:
        return (self.header_sum + self.data_sum + self.checksum) & 0xFFFF

    @property
    def right_checksum(self) -> int:
        """The checksum with which the total is 0."""
        return -(self.header_sum + self.data_sum) & 0xFFFF


@dataclass(frozen=True, slots=True)
class PacketReading:
    """One packet of a file. `place` counts the file's packets from 0, `offset` is that of the
    packet in the file; `size_bytes` is how many bytes of it are there.

    `checksum` is None when the packet is cut short. `data` are the bytes after the header.
    `password_fields` and `password` are packet 0's; `image_header` is that of the image that begins
    in packet 1, None if there is no valid one.
    """

    place: int
    offset: int
    size_bytes: int
    fields: tuple[FieldReading, ...]
    checksum: ChecksumReading | None
    data: bytes
    password_fields: tuple[FieldReading, ...] = ()
    password: PasswordItem | None = None
    image_header: Header | None = None

    @property
    def values(self) -> dict[str, int]:
        """The header's fields by name."""
        return {field.name: field.value for field in self.fields}

    @property
    def header_size_bytes(self) -> int:
        return self.values["hdrSize"] * PARAGRAPH_BYTES

    @property
    def image_offset(self) -> int | None:
        """Where in the image the data of this packet belongs; None for packet 0, for what is no
        packet, and for one whose header leaves no room for data."""
        values = self.values
        room = values["pktSize"] * KIB - self.header_size_bytes
        has_data = values["pktNum"] and values["pktId"] == PACKET_MAGIC and room > 0
        return (values["pktNum"] - 1) * room if has_data else None

    @property
    def problems(self) -> tuple[str, ...]:
        """All that is wrong with the packet, a line each."""
        wrong = [
            f"{field.name} {rule.says} (it is {field.value:#x})"
            for field in (*self.fields, *self.password_fields)
            for rule in field.rules
            if not rule.holds
        ]
        if self.checksum is None:
            wrong.append(
                f"it is cut short: {self.size_bytes} of {self.values['pktSize'] * KIB} bytes"
            )
        elif self.checksum.total:
            wrong.append(f"wrong checksum: its words sum to {self.checksum.total:#06x}, not 0")
        return tuple(wrong)


@dataclass(frozen=True, slots=True)
class SetReading:
    """The packets of a file as one set.

    `total` is how many the set has, as the file's first packet says; `count` how many of its
    numbers are in the file, whether these packets are damaged or not. `missing` are the others,
    ascending. `problem` says what is wrong first, by the packet's number, as `packet.join` does;
    it is empty when all is right.
    """

    total: int
    count: int
    missing: tuple[int, ...]
    problem: str
    offset: int | None
    """Where in the file the problem is."""


def explain_set(data: Buffer) -> SetReading:
    """Whether packets that are back to back are a whole set.

    :raise DamagedInputError: when the first packet's header is cut short.
    """
    total = PACKET_HEADER.unpack(data)["totPkts"]
    spans = (start for start, end in _spans(data) if end - start >= HEADER_SIZE_BYTES)
    headers = (PACKET_HEADER.unpack(data, start) for start in spans)
    numbers = {each["pktNum"] for each in headers if each["pktId"] == PACKET_MAGIC}
    missing = tuple(number for number in range(total) if number not in numbers)
    problem, offset = "", None
    try:
        join(data)
    except DamagedInputError as error:
        problem, offset = str(error), error.offset
    return SetReading(total, total - len(missing), missing, problem, offset)


def is_packet_file(data: Buffer) -> bool:
    """Whether a file has packets back to back: it begins with one, or one follows a beginning that
    is neither a packet nor an image."""
    start = bytes(data[:4])
    return start == PACKET_ID or (start != MAGIC and _next_packet(data, 0) is not None)


def explain_packet(data: Buffer, place: int = 0) -> PacketReading:
    """Explain the packet at this place, counted from 0, of packets that are back to back.

    In a valid file the place is the packet's number.

    :raise UsageError: when there is no packet at this place.
    :raise DamagedInputError: when its header is cut short.
    """
    spans: list[tuple[int, int]] = []
    for span in _spans(data):
        spans.append(span)
        if len(spans) > max(place, 1):
            break
    if not 0 <= place < len(spans):
        raise UsageError(f"there is no packet {place}: the file has {_count_text(data)}")
    offset, end = spans[place]
    view = memoryview(data)[offset:end]
    values = PACKET_HEADER.unpack(view)
    others = {
        number: PACKET_HEADER.unpack(data, spans[number][0])
        for number in (0, 1)
        if number != place and number < len(spans) and len(data) >= spans[number][0] + 32
    }
    distance = end - offset if end < len(data) else None
    rules = {
        field.name: (
            *_rules_for_all(field.name, values),
            *_file_rules(field.name, values, place, distance),
            *_set_rules(field.name, values, place, others),
        )
        for field in PACKET_HEADER.fields
    }
    start = max(values["hdrSize"] * PARAGRAPH_BYTES, HEADER_SIZE_BYTES)
    payload = bytes(view[start:])
    has_item = values["pktNum"] == 0 and len(payload) >= PASSWORD_ITEM.size_bytes
    return PacketReading(
        place=place,
        offset=offset,
        size_bytes=len(view),
        fields=_readings(PACKET_HEADER, view, 0, rules),
        checksum=_checksum(view, values, is_last=distance is None),
        data=payload,
        password_fields=_readings(PASSWORD_ITEM, view, start, {}) if has_item else (),
        password=parse_password_item(payload) if has_item else None,
        image_header=_image_header(payload) if values["pktNum"] == 1 else None,
    )


def _spans(data: Buffer) -> Iterator[tuple[int, int]]:
    """Where the packets in a file start and end. All but packet 0 have one size."""
    size = len(data)
    first = _packet_size(data, 0)
    if size:
        yield 0, min(first, size)
    step = _packet_size(data, first)
    for start in range(first, size, step):
        yield start, min(start + step, size)


def _packet_size(data: Buffer, offset: int) -> int:
    """The size of the packet at `offset`: what its header says, if another packet or the end of the
    file follows there; else up to the next packet."""
    left = len(data) - offset
    claimed = left
    if left >= HEADER_SIZE_BYTES:
        claimed = PACKET_HEADER.unpack(data, offset)["pktSize"] * KIB
    follows = bytes(data[offset + claimed : offset + claimed + 4])
    if claimed and (claimed == left or follows == PACKET_ID):
        return claimed
    return _next_packet(data, offset) or claimed or max(left, KIB)


def _next_packet(data: Buffer, offset: int) -> int | None:
    """How many bytes after `offset` the next packet begins, None if there is none: at a multiple of
    1 KiB, at which all packets of a file begin."""
    words = np.frombuffer(data, "<u4", (len(data) - offset) // 4, offset)
    hits = np.flatnonzero(words[KIB // 4 :: KIB // 4] == PACKET_MAGIC)
    return KIB * (int(hits[0]) + 1) if len(hits) else None


def _count_text(data: Buffer) -> str:
    last = sum(1 for _, _ in zip(_spans(data), range(MAX_PACKETS + 1), strict=False)) - 1
    return f"packets 0 to {last}" if last > 0 else "packet 0 only" if last == 0 else "no packets"


def _rules_for_all(name: str, values: Mapping[str, Any]) -> Iterator[RuleReading]:
    """The rules for a field of every header."""
    is_surplus = values["pktNum"] == values["totPkts"] >= MIN_PACKETS
    for rule in HEADER_RULES:
        if rule.field == name == "pktNum" and is_surplus:  # P12
            yield RuleReading("is totPkts: one packet too many, which does no harm", True, "")
        elif rule.field == name:
            yield RuleReading(rule.asks, not rule.is_broken(values), rule.says)


def _file_rules(
    name: str, values: Mapping[str, Any], place: int, distance: int | None
) -> Iterator[RuleReading]:
    """The rule for a field from where the packet is in a file. `distance`: to the next packet in
    bytes, None for the last one."""
    if name == "pktNum":
        says = f"is not {place}, its place in the file"
        yield RuleReading("is its place in the file", values[name] == place, says)
    elif name == "pktSize" and distance is not None:
        says = f"is not {distance // KIB}, the KiB to the next packet"
        yield RuleReading("ends where the next one begins", values[name] * KIB == distance, says)


def _set_rules(
    name: str, values: Mapping[str, Any], place: int, others: Mapping[int, Mapping[str, Any]]
) -> Iterator[RuleReading]:
    """The rule for a field that all packets of a set have in common (P1)."""
    model = 0 if place and name != "pktSize" else 1
    is_common = name in _SAME_IN_A_SET or (name == "pktSize" and place > 1)
    if is_common and model in others:
        due = others[model][name]
        says = f"is not {due:#x}, that of packet {model}"
        yield RuleReading(f"is that of packet {model}", values[name] == due, says)


def _readings(
    layout: Layout,
    packet: memoryview,
    start: int,
    rules: Mapping[str, tuple[RuleReading, ...]],
) -> tuple[FieldReading, ...]:
    """The fields of a structure at `start` of a packet."""
    values = layout.unpack(packet, start)
    made: list[FieldReading] = []
    for field in layout.fields:
        offset, value = start + layout.offset_of(field.name), values[field.name]
        raw = bytes(packet[offset : offset + field.size_bytes])
        meaning = _meaning(field.name, value, values)
        made.append(
            FieldReading(field.name, offset, raw, value, meaning, rules.get(field.name, ()))
        )
    return tuple(made)


def _meaning(name: str, value: int, values: Mapping[str, Any]) -> str:
    """A field's value in plain words; empty where the number says it all."""
    has_password = name in ("info", "crc") and values["info"] & PASSWORD_INFO_BITS
    meanings = {
        "pktId": "the magic $RPK" if value == PACKET_MAGIC else "not a packet",
        "pktSize": f"{value * KIB} bytes, header included",
        "hdrSize": f"{value * PARAGRAPH_BYTES} bytes",
        "pktSetId": f"set {set_id_text(value)}" if name == "pktSetId" else "",
        "pktNum": "image data" if value else "a list of items, no image data",
        "totPkts": "packets of the set, packet 0 included",
        "info": "a password" if has_password else "no password",
        "crc": "CRC-32 of the BIOS admin password" if has_password else "",
    }
    return meanings.get(name, "")


def _checksum(
    packet: memoryview, values: Mapping[str, Any], *, is_last: bool
) -> ChecksumReading | None:
    """The sums of a packet; None if the file's end cuts it short."""
    if is_last and (len(packet) < values["pktSize"] * KIB or len(packet) % 2):
        return None
    row = np.frombuffer(packet, np.uint8).reshape(1, -1)
    end = PACKET_HEADER.offset_of("pktChksum")
    header, rest = word_sums(row[:, :end].copy()), word_sums(row[:, HEADER_SIZE_BYTES:].copy())
    return ChecksumReading(int(header[0]), int(rest[0]), values["pktChksum"])


def _image_header(payload: bytes) -> Header | None:
    try:
        return Header.parse(payload)
    except DamagedInputError:
        return None
