"""One RBU packet: its header, the rules for all headers, its checksum, the password item.

Facts: docs/reference/packets.md, P0 to P10.

The header rules are stated once, in `HEADER_RULES`, as comparisons for both one header (a dict of
ints) and a numpy array of headers: the search through RAM uses them, too.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from openrbu.buffers import Buffer
from openrbu.errors import DamagedInputError, UsageError
from openrbu.formats.layout import Field, Layout
from openrbu.lazy import np, npt
from openrbu.units import KIB, MIB

PACKET_ID = b"$RPK"

PACKET_MAGIC = 0x4B505224
"""`$RPK` as a little-endian u32."""

PACKET_HEADER = Layout(
    "packet header",
    Field("pktId", "I", required=PACKET_MAGIC),
    Field("pktSize", "H", "KiB"),
    Field("reserved1", "H", required=0),
    Field("hdrSize", "H", "16-byte paragraphs", default=2),
    Field("reserved2", "H", required=0),
    Field("pktSetId", "I"),
    Field("pktNum", "H"),
    Field("totPkts", "H", "packets"),
    Field("pktVer", "B", required=1),
    Field("reserved3", "B", required=0),  # 9 reserved bytes, as two numbers
    Field("reserved4", "Q", required=0),
    Field("pktChksum", "H"),
)

HEADER_SIZE_BYTES = PACKET_HEADER.size_bytes
PARAGRAPH_BYTES = 16
MAX_HEADER_BYTES = 4 * KIB
MAX_PACKET_BYTES = 64 * MIB - KIB
"""The largest size in the u16 count of KiB (docs/reference/packets.md, P7)."""
MAX_PACKETS = 0xFFFF
"""Packets of a set, packet 0 included (docs/reference/packets.md, P7)."""
MIN_PACKETS = 2
"""Packet 0 has no image data (docs/reference/packets.md, P2): a set of one has no image."""

PASSWORD_ITEM = Layout("password item", Field("info", "B"), Field("crc", "I"))
PASSWORD_INFO_BITS = 0x81
"""Bits 0 and 7 of the info byte. Sources differ: both are written, either is accepted
(docs/reference/packets.md, P10)."""


_SUM_BITS = 64


@dataclass(frozen=True, slots=True)
class HeaderRule:
    """One rule: what it asks of a field, and what it says where that is not so.

    `is_broken` takes a header's fields: for ints it returns a bool, for arrays of shape (n,) an
    array of bools, shape (n,). The rules multiply nothing, so that u16 arrays can't overflow.
    """

    field: str
    asks: str
    says: str
    is_broken: Callable[[Any], Any]


def _constant_rule(field: Field) -> HeaderRule:
    constant = "$RPK" if field.name == "pktId" else repr(field.required)
    return HeaderRule(
        field.name,
        f"is {constant}",
        f"is not {constant}",
        lambda fields: fields[field.name] != field.required,
    )


HEADER_RULES: tuple[HeaderRule, ...] = (
    *(_constant_rule(field) for field in PACKET_HEADER.fields if field.required is not None),
    HeaderRule(
        "hdrSize", "is 2 or more (32 bytes)", "is below 2 (32 bytes)", lambda h: h["hdrSize"] < 2
    ),
    HeaderRule(
        "hdrSize",
        "is 256 or less (4 KiB)",
        "is over 256 (4 KiB)",
        lambda h: h["hdrSize"] > MAX_HEADER_BYTES // PARAGRAPH_BYTES,
    ),
    HeaderRule(
        "hdrSize",
        "leaves room for data",
        "leaves no room for data",
        lambda h: h["hdrSize"] // 64 >= h["pktSize"],
    ),
    HeaderRule(
        "totPkts", "is 2 or more", "is below 2: no image", lambda h: h["totPkts"] < MIN_PACKETS
    ),
    HeaderRule(
        "pktNum", "is below totPkts", "is not below totPkts", lambda h: h["pktNum"] >= h["totPkts"]
    ),
)
"""The rules for every packet header. A pktSize of 0 has no room for data; a u16 can't be over
64 MiB (docs/reference/packets.md, P3, P4 and P7)."""


@dataclass(frozen=True, slots=True)
class PacketHeader:
    """A packet's header. Sizes in bytes; `size_bytes` is that of the whole packet with this header.

    With the right `checksum`, all 16-bit words of the packet add up to 0 modulo 65536.
    """

    size_bytes: int
    header_size_bytes: int
    set_id: int
    number: int
    total: int
    checksum: int

    @classmethod
    def parse(cls, data: Buffer, offset: int = 0, name: str = "packet header") -> PacketHeader:
        """The header at `offset`. All `HEADER_RULES` are checked, the checksum is not.

        `name` is the header's name in the text of an error.

        :raise DamagedInputError: when the header is cut short or breaks a rule.
        """
        fields = PACKET_HEADER.unpack(data, offset)
        for rule in HEADER_RULES:
            if rule.is_broken(fields):
                actual = fields[rule.field]
                raise DamagedInputError(
                    f"{name} at offset {offset:#x}: {rule.field} {rule.says} (it is {actual:#x})",
                    offset=offset + PACKET_HEADER.offset_of(rule.field),
                    actual=actual,
                )
        return cls(
            size_bytes=fields["pktSize"] * KIB,
            header_size_bytes=fields["hdrSize"] * PARAGRAPH_BYTES,
            set_id=fields["pktSetId"],
            number=fields["pktNum"],
            total=fields["totPkts"],
            checksum=fields["pktChksum"],
        )

    def build(self) -> bytes:
        """The 32 bytes. `parse` gives the same header back."""
        return PACKET_HEADER.pack(
            pktSize=self.size_bytes // KIB,
            hdrSize=self.header_size_bytes // PARAGRAPH_BYTES,
            pktSetId=self.set_id,
            pktNum=self.number,
            totPkts=self.total,
            pktChksum=self.checksum,
        )


@dataclass(frozen=True, slots=True)
class PasswordItem:
    """The first item of packet 0: the CRC-32 of the BIOS admin password, if one was given.

    `crc` is 0 if it is not present.
    """

    present: bool
    crc: int = 0

    def build(self) -> bytes:
        """The item's 5 bytes."""
        return PASSWORD_ITEM.pack(info=PASSWORD_INFO_BITS if self.present else 0, crc=self.crc)


def parse_password_item(data: Buffer) -> PasswordItem:
    """The password item at the start of packet 0's data, which follows its header.

    :raise DamagedInputError: when the data is too short for it.
    """
    fields = PASSWORD_ITEM.unpack(data)
    if fields["info"] & PASSWORD_INFO_BITS:
        return PasswordItem(present=True, crc=fields["crc"])
    return PasswordItem(present=False)


def password_crc(password: str) -> int:
    """CRC-32 of a BIOS admin password's bytes, as packet 0 carries it.

    :raise UsageError: when the password is not ASCII: it is not known then which bytes a BIOS uses.
    """
    if not password.isascii():
        raise UsageError(
            "the BIOS password is not plain ASCII: a BIOS setup does not accept such a password"
        )
    return zlib.crc32(password.encode("ascii"))


def set_id_number(set_id: str | bytes | int) -> int:
    """A set ID as the u32 of the header; four bytes are taken as they are.

    :raise UsageError: when it is not four bytes, or not a u32.
    """
    if isinstance(set_id, str):
        set_id = set_id.encode()
    if isinstance(set_id, bytes):
        if len(set_id) != 4:
            raise UsageError(f"packet set ID {set_id!r} has {len(set_id)} bytes, not 4")
        return int.from_bytes(set_id, "little")
    if not 0 <= set_id <= 0xFFFFFFFF:
        raise UsageError(f"packet set ID {set_id:#x} does not fit 32 bits")
    return set_id


def set_id_text(set_id: int) -> str:
    """A set ID for people: `_A05` if it is printable ASCII, else `0x0000beef`."""
    raw = set_id.to_bytes(4, "little")
    text = raw.decode("latin-1")
    return text if text.isascii() and text.isprintable() else f"{set_id:#010x}"


def word_sum(packet: Buffer) -> int:
    """The sum of a packet's 16-bit words modulo 65536: 0 if it is intact. Its length is even.

    All words are added at once: they are parts of one number, and so are their sums, of which the
    upper half is added to the lower one until 64 bits are left. (A packet has less than 2^25
    words, and so 64 bits have room for their sum.)
    """
    bits = 8 * len(packet)
    number = int.from_bytes(packet, "little")
    for part_bits in (16, 32):  # words into sums of 32 bits, these into sums of 64
        mask = _every_other(bits, part_bits)
        number = (number & mask) + (number >> part_bits & mask)
    while bits > _SUM_BITS:
        bits = -(-bits // 2 // _SUM_BITS) * _SUM_BITS
        number = (number & (1 << bits) - 1) + (number >> bits)
    return number & 0xFFFF


@lru_cache(maxsize=4)
def _every_other(bits: int, part_bits: int) -> int:
    """A mask for every other part of a number of so many bits, the lowest included."""
    part = b"\xff" * (part_bits // 8)
    count = -(-bits // (2 * part_bits))
    return int.from_bytes((part + bytes(len(part))) * count, "little")


def word_sums(packets: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
    """The sum of each row's 16-bit words modulo 65536; shape (n, size) gives (n,).

    The sum is 0 if a packet is intact. Rows are contiguous and of even length.
    """
    sums: npt.NDArray[np.uint16] = packets.view("<u2").sum(axis=1, dtype="u2")
    return sums


def header_array(packets: npt.NDArray[np.uint8]) -> npt.NDArray[np.void]:
    """The headers at the start of the rows, a view of them; shape (n, ≥32) gives (n,)."""
    return packets[:, :HEADER_SIZE_BYTES].view(PACKET_HEADER.dtype)[:, 0]
