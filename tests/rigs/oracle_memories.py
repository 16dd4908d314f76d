"""Random memories that BIOSes are tried on: sets, leftovers, cut images, and lookalikes.

A memory is a list of pieces that are put into a RAM file one after the other, later ones over
earlier ones. Each piece is a few numbers that say what it is, so that a memory that makes trouble
shrinks to a small one and can be read.

Nothing is put where the emulated BIOSes have something of their own, which a real machine has
elsewhere or protected: the PowerEdge's POST from 64 KiB on (its code would be overwritten, or would
overwrite what is there), and the hole from 640 KiB to 1 MiB with their other code, stacks and ROM.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from hypothesis import strategies as st

from openrbu.bios.rules.ruleset import Identity
from openrbu.formats.check_words import CHECK_WORDS, register
from openrbu.formats.hdr import HEADER, SystemId
from openrbu.formats.packet_header import PACKET_HEADER, word_sums
from openrbu.units import GIB, KIB, MIB, PAGE_SIZE
from rigs.oracle import D500_SYSTEM, POWEREDGE_SYSTEM, REAL_FLASH_BYTES

NEW_TEXT = b"Copyright 2005 Dell Inc."
OLD_TEXT = b"Copyright 2005 Dell Computer Corporation"

_OWN = ((0x10000, 0x20000), (640 * KIB, 1 * MIB))
"""Where the emulated BIOSes are."""

LOW_TOPS = (8 * MIB, 20 * MIB, 64 * MIB, 65 * MIB)
HIGH_BYTES = (0, 0, 0, 1 * MIB, 32 * MIB)
"""RAM above 4 GiB: mostly none."""


@lru_cache(maxsize=64)
def content(seed: int, size_bytes: int) -> bytes:
    """Data to be told apart by its seed. Seed 0: zeros; 9: with the collector's own mark."""
    if seed == 0:
        return bytes(size_bytes)
    if seed == 9:
        return (b"GEOR" + bytes(12)) * (size_bytes // 16) + bytes(size_bytes % 16)
    return random.Random(seed).randbytes(size_bytes)


class Part(Protocol):
    """Something that lies at an address."""

    @property
    def at(self) -> int: ...

    def build(self) -> bytes: ...


class _Short:
    """Shows no more than what differs from the usual."""

    def __repr__(self) -> str:
        told = []
        for entry in fields(self):  # type: ignore[arg-type]  # a dataclass is made of it
            value = getattr(self, entry.name)
            if value != entry.default:
                told.append(f"{entry.name}={value:#x}" if entry.name == "at" else
                            f"{entry.name}={value!r}")  # fmt: skip
        return f"{type(self).__name__}({', '.join(told)})"


@dataclass(frozen=True, repr=False)
class Picture(_Short):
    """An image, whole or wrong in one way; `size_bytes` of it are there (0: all)."""

    at: int
    seed: int = 1
    system: int = POWEREDGE_SYSTEM
    revision: int = 0
    entry: int = 0
    length: int = 0x54
    major: int = 2
    minor: int = 1
    text: bytes = NEW_TEXT
    version: bytes = b"\0\2\x09"
    features: int = 0
    flip_first: int = 0
    flip_second: int = 0
    data_bytes: int = REAL_FLASH_BYTES
    dock: bool = False
    size_bytes: int = 0

    def build(self) -> bytes:
        return self.whole[: self.size_bytes or None]

    @property
    def whole(self) -> bytes:
        systems = [0] * 12
        systems[self.entry] = SystemId(self.system, self.revision).pack()
        head = HEADER.pack(
            header_length=self.length,
            header_major_ver=self.major,
            header_minor_ver=self.minor,
            num_systems=1,
            quick_check=self.text.ljust(40),
            bios_version=self.version,
            compat_flags=self.features,
            system_id_list=tuple(systems),
        )
        data = content(self.seed, self.data_bytes)
        if self.dock:
            data = data[:16] + b"D-DOCK RBU UPDATE\0" + data[34:]
            body = (head + data)[:0x6094]
            return body + (register(body) ^ self.flip_second).to_bytes(4, "little")
        first = register(data) ^ self.flip_first
        second = register(head + data + first.to_bytes(4, "little")) ^ self.flip_second
        return head + data + CHECK_WORDS.pack(data_word=first, whole_word=second)


def packet(
    number: int, total: int, data: bytes, *, kib: int = 4, set_id: int = 0x1234, header: int = 2,
    claims: int = 2, checksum: int = 0, version: int = 1, reserved: int = 0,
) -> bytes:  # fmt: skip
    """A packet whose data begins behind `header` paragraphs; `claims` stands in hdrSize."""
    head = PACKET_HEADER.pack(
        pktSize=kib, hdrSize=claims, pktSetId=set_id, pktNum=number, totPkts=total,
        pktVer=version, reserved1=reserved,
    )  # fmt: skip
    size = max(kib, 1) * KIB
    whole = bytearray((head + bytes(16 * header - 32) + data).ljust(size, b"\0")[:size])
    total_words = int(word_sums(np.frombuffer(whole, np.uint8).reshape(1, -1))[0])
    whole[30:32] = (-total_words & 0xFFFF ^ checksum).to_bytes(2, "little")
    return bytes(whole)


@dataclass(frozen=True, repr=False)
class Packet(_Short):
    """One packet, right or wrong; `inner` is in its data, on a page of its own."""

    at: int
    number: int = 0
    total: int = 4
    seed: int = 0
    kib: int = 4
    set_id: int = 0x1234
    claims: int = 2
    checksum: int = 0
    version: int = 1
    reserved: int = 0
    item: bytes = b""
    inner: Packet | None = None

    def build(self) -> bytes:
        size = max(self.kib, 1) * KIB - 32
        data = bytearray((self.item + content(self.seed, size))[:size])
        if self.inner is not None:
            start = self.inner.at - 32
            data[start : start + 4 * KIB] = self.inner.build()[: max(0, size - start)]
        options = {name: getattr(self, name) for name in
                   ("kib", "set_id", "claims", "checksum", "version", "reserved")}  # fmt: skip
        return packet(self.number, self.total, bytes(data)[:size], **options)


@dataclass(frozen=True, repr=False)
class Set(_Short):
    """A packet set of some content, each of its packets at an address of `places`.

    `places` can lack packets, and have some twice: number and address.
    """

    at: int
    places: tuple[tuple[int, int], ...]
    seed: int = 1
    size_bytes: int = 10_000
    kib: int = 4
    header: int = 2
    set_id: int = 0x1234
    item: bytes = b""
    picture: Picture | None = None

    @property
    def packets(self) -> list[bytes]:
        whole = content(self.seed, self.size_bytes) if self.picture is None else self.picture.whole
        room = self.kib * KIB - 16 * self.header
        parts = [whole[start : start + room] for start in range(0, len(whole), room)]
        return [
            packet(number, len(parts) + 1, part, kib=self.kib, set_id=self.set_id,
                   header=self.header, claims=self.header)
            for number, part in enumerate([self.item, *parts])
        ]  # fmt: skip


@dataclass(frozen=True)
class Made:
    """A memory, and the machine that it is looked at by."""

    parts: tuple[Part | Set, ...]
    low_top: int = 64 * MIB
    high_bytes: int = 0
    machine: Identity = field(default_factory=lambda: Identity(POWEREDGE_SYSTEM, REAL_FLASH_BYTES))

    @property
    def size_bytes(self) -> int:
        return 4 * GIB + self.high_bytes if self.high_bytes else self.low_top

    def write(self, path: Path) -> None:
        """Make the RAM file, sparse."""
        with path.open("wb") as file:
            file.truncate(self.size_bytes)
            for at, data in self._pieces():
                for start, end in self._ram():
                    low, high = max(start, at), min(end, at + len(data))
                    if low < high:
                        os.pwrite(file.fileno(), data[low - at : high - at], low)

    def _ram(self) -> list[tuple[int, int]]:
        """Where things may be put."""
        (low, low_end), (hole, hole_end) = _OWN
        spans = [(0, low), (low_end, hole), (hole_end, self.low_top)]
        return [*spans, (4 * GIB, 4 * GIB + self.high_bytes)] if self.high_bytes else spans

    def _pieces(self) -> list[tuple[int, bytes]]:
        pieces: list[tuple[int, bytes]] = []
        for part in self.parts:
            if isinstance(part, Set):
                packets = part.packets
                pieces += [(at, packets[number % len(packets)]) for number, at in part.places]
            else:
                pieces.append((part.at, part.build()))
        return pieces


# -- what is drawn -------------------------------------------------------------------------------


def addresses(low_top: int, high_bytes: int) -> st.SearchStrategy[int]:
    """Pages anywhere, those at a border more often; a few addresses are on no page."""
    borders = [64 * KIB, 128 * KIB, 640 * KIB, MIB, 4 * MIB, low_top, 0x101000, 5 * MIB]
    near = st.builds(
        lambda border, pages: border + pages * PAGE_SIZE,
        st.sampled_from(borders),
        st.integers(-20, 20),
    )
    ordinary = st.integers(32, low_top // PAGE_SIZE - 1).map(lambda page: page * PAGE_SIZE)
    crowded = st.integers(0, 40).map(lambda page: 4 * MIB + page * PAGE_SIZE)
    kinds = [ordinary, near, crowded]
    if high_bytes:
        kinds.append(st.integers(0, 30).map(lambda page: 4 * GIB + page * PAGE_SIZE))
        kinds.append(st.integers(1, 30).map(lambda page: 4 * GIB + high_bytes - page * PAGE_SIZE))
    return st.one_of(kinds).filter(lambda at: at >= 0)


SET_IDS = st.sampled_from([0x1234, 0x1234, 0x1234, 0x9999, 0])
KIBS = st.sampled_from([4, 4, 4, 1, 2, 3, 5, 8, 16, 64])


_ITEMS = [b"", b"", b"\x81\1\2\3\4", b"\1\1\2\3\4", b"\x80\5\6\7\x08"]


@st.composite
def lone_packets(draw: st.DrawFn, where: st.SearchStrategy[int]) -> Packet:
    """A packet of its own, with something odd about it."""
    odd: dict[str, Any] = draw(
        st.sampled_from(
            [
                {}, {"checksum": 1}, {"version": 0}, {"reserved": 7}, {"claims": 3}, {"claims": 0},
                {"claims": 64}, {"claims": 600}, {"total": 0}, {"total": 1}, {"kib": 0},
                {"total": 2}, {"total": 700}, {"number": 9}, {"seed": 9, "number": 1},
            ]
        )
    )  # fmt: skip
    given: dict[str, Any] = {
        "number": draw(st.integers(0, 4)),
        "total": draw(st.sampled_from([4, 4, 3, 2])),
        "seed": draw(st.integers(0, 2)),
        "kib": draw(KIBS),
        "set_id": draw(SET_IDS),
        "item": draw(
            st.sampled_from([b"", b"", b"\x81\1\2\3\4", b"\1\1\2\3\4", b"\x80\5\6\7\x08"])
        ),
    }
    given.update(odd)
    inner = None
    if given["kib"] >= 8 and draw(st.booleans()):
        page = draw(st.integers(1, given["kib"] // 4 - 1))
        inner = Packet(
            page * PAGE_SIZE,
            number=draw(st.integers(0, 3)),
            kib=draw(st.sampled_from([4, 1, 8])),
            seed=0,
            set_id=draw(SET_IDS),
        )
    return Packet(draw(where), inner=inner, **given)


@st.composite
def sets(
    draw: st.DrawFn, where: st.SearchStrategy[int], pictures: st.SearchStrategy[Picture] | None
) -> Set:
    """A set: whole or not, in order or not, here and there or back to back."""
    picture = None if pictures is None else draw(pictures)
    kib = draw(st.sampled_from([16, 64, 4, 256]) if picture else KIBS)
    header = draw(st.sampled_from([2, 2, 2, 2, 4, 3]))
    size = draw(st.sampled_from([100, 5_000, 10_000, 4064, 40_000, 200, 3_500_000, 4_500_000]))
    if size > 1_000_000:
        kib = max(kib, 16)
    length = len(picture.whole) if picture else size
    count = 1 + -(-length // (kib * KIB - 16 * header))
    numbers = list(range(count))
    order = draw(st.sampled_from(["up", "down", "mixed"]))
    if order == "down":
        numbers.reverse()
    elif order == "mixed":
        random.Random(draw(st.integers(0, 9))).shuffle(numbers)
    lost = draw(st.sampled_from([0, 0, 0, 0, 1, 2]))
    numbers = numbers[lost:]
    if numbers and draw(st.integers(0, 3)) == 0:
        numbers += draw(st.lists(st.sampled_from(numbers), max_size=3))
    start = draw(where)
    stride = -(-kib // 4) * PAGE_SIZE + draw(st.sampled_from([0, 0, PAGE_SIZE, 8 * PAGE_SIZE]))
    places = [start + index * stride for index in range(len(numbers))]
    moved = draw(st.lists(st.tuples(st.integers(0, len(numbers)), where), max_size=4))
    for index, at in moved:
        if index < len(places):
            places[index] = at
    return Set(
        start,
        tuple(zip(numbers, places, strict=True)),
        seed=draw(st.sampled_from([1, 2, 0, 9])),
        size_bytes=size,
        kib=kib,
        header=header,
        set_id=draw(SET_IDS),
        item=draw(st.sampled_from([b"", b"\x81\1\2\3\4"])),
        picture=picture,
    )


_ODD_PICTURES: Sequence[dict[str, Any]] = (
    *([{}] * 16),
    {"revision": 1}, {"entry": 11}, {"entry": 1}, {"length": 0x55}, {"major": 1}, {"major": 2},
    {"major": 3}, {"minor": 0}, {"text": OLD_TEXT}, {"text": NEW_TEXT.replace(b"5", b"9")},
    {"text": b"x"}, {"version": b"A\0\0"}, {"version": b"A00"}, {"version": b"X1\0"},
    {"version": b"X\0\x99"}, {"features": 1}, {"features": 3}, {"features": 0xFFFF},
    {"flip_first": 1}, {"flip_second": 1}, {"flip_first": 1, "flip_second": 1},
    {"data_bytes": MIB - 64 * KIB}, {"data_bytes": MIB + 64 * KIB}, {"data_bytes": 64 * KIB},
    {"size_bytes": 300_000}, {"size_bytes": 4096}, {"size_bytes": MIB + 91},
    {"seed": 0}, {"seed": 2}, {"dock": True}, {"dock": True, "flip_second": 1},
    {"dock": True, "system": 0x153},
)  # fmt: skip


@st.composite
def images(draw: st.DrawFn, where: st.SearchStrategy[int], system: int) -> Picture:
    """An image, mostly right or wrong in one way."""
    given: dict[str, Any] = {"system": draw(st.sampled_from([system] * 6 + [0x1BB]))}
    if system == D500_SYSTEM:
        given |= {"major": 1, "minor": 0, "text": OLD_TEXT, "version": b"A11"}
    given["seed"] = draw(st.integers(1, 2))
    for _ in range(draw(st.sampled_from([1, 1, 1, 2]))):
        given |= draw(st.sampled_from(_ODD_PICTURES))
    at = draw(where) + draw(st.sampled_from([0] * 9 + [512]))
    if draw(st.integers(0, 9)) == 0:  # such as to end where RAM ends
        at -= at % PAGE_SIZE + 0x101000
    return Picture(max(at, 0), **given)


_ALL_KINDS = ["set", "set", "set", "packet", "packet", "image", "carried", "carried"]


@st.composite
def poweredge_memories(draw: st.DrawFn) -> Made:
    """What a PowerEdge's BIOS may meet."""
    low_top = draw(st.sampled_from(LOW_TOPS))
    high = draw(st.sampled_from(HIGH_BYTES))
    where = addresses(low_top, high)
    pictures = images(where, POWEREDGE_SYSTEM)
    parts: list[Part | Set] = []
    kinds, most = draw(
        st.sampled_from([(["image"], 5), (["carried"], 2), (_ALL_KINDS, 5), (_ALL_KINDS, 5)])
    )
    for _ in range(draw(st.integers(1, most))):
        kind = draw(st.sampled_from(kinds))
        if kind == "set":
            parts.append(draw(sets(where, None)))
        elif kind == "packet":
            parts.append(draw(lone_packets(where)))
        elif kind == "image":
            parts.append(draw(pictures))
        else:
            parts.append(draw(sets(where, pictures)))
    machine = Identity(
        POWEREDGE_SYSTEM,
        REAL_FLASH_BYTES,
        revision=draw(st.sampled_from([0] * 9 + [1])),
        features=draw(st.sampled_from([0] * 9 + [1, 2, 0xFFFF])),
    )
    return Made(tuple(parts), low_top, high, machine)


@st.composite
def d500_memories(draw: st.DrawFn) -> Made:
    """What a Latitude D500's BIOS may meet."""
    low_top = draw(st.sampled_from(LOW_TOPS))
    where = addresses(low_top, 0)
    pictures = images(where, D500_SYSTEM)
    parts: list[Part | Set] = list(draw(st.lists(pictures, min_size=1, max_size=5)))
    if draw(st.booleans()):
        parts.append(draw(sets(where, pictures)))
    machine = Identity(D500_SYSTEM, REAL_FLASH_BYTES, revision=draw(st.sampled_from([0] * 9 + [1])))
    return Made(tuple(parts), low_top, 0, machine)
