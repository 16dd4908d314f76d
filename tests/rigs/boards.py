"""A BIOS to try: RAM, flash, CMOS and NVRAM in files, started as often as a test wants.

A `Computer` holds nothing open: each call opens the files afresh, as a start after a power cut.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import random
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from openrbu.bios.activation import bios_activation
from openrbu.bios.cmos_file import CMOS_FILE_BYTES, CmosFile
from openrbu.bios.cmos_result import CmosResult
from openrbu.bios.flash import Flash, FlashFile
from openrbu.bios.nvram import Nvram, NvramFile
from openrbu.bios.post import Board, post
from openrbu.bios.post_report import PostReport
from openrbu.bios.power import PowerRail
from openrbu.bios.rules import rule_set
from openrbu.bios.smi import SmiHandler
from openrbu.cmos import IndexedActivation, check_value_is_right, write_check_value
from openrbu.errors import PowerCutError
from openrbu.faults import FaultKind
from openrbu.formats import dell, smbios
from openrbu.formats.check_words import check_words
from openrbu.formats.dell import CompletionCode
from openrbu.formats.hdr import HEADER, HEADER_SIZE_BYTES, SystemId, make_image
from openrbu.formats.packet import PACKET_HEADER, split
from openrbu.formats.tokens import (
    ACTIVATE,
    CANCEL,
    CheckRange,
    CheckType,
    IndexedIoToken,
    make_calling_interface,
    make_indexed_io,
    tokens_for_update,
)
from openrbu.formats.version import BiosVersion
from openrbu.memory.physical import Region
from openrbu.memory.ram_file import RamFile
from openrbu.ports import PortCmos
from openrbu.units import GIB, KIB, MIB, PAGE_SIZE, PhysAddr

REGIONS = tuple(
    Region(PhysAddr(start), PhysAddr(end))
    for start, end in [(0, 640 * KIB), (MIB, 4 * MIB), (6 * MIB, 7 * MIB), (4 * GIB, 4 * GIB + MIB)]
)
"""Three MiB, one more behind a gap, and one that no BIOS searches."""

PAGES = [*range(MIB, 4 * MIB, PAGE_SIZE), *range(6 * MIB, 7 * MIB, PAGE_SIZE)]
"""The pages that a BIOS searches."""

COMPLETED = CompletionCode.COMPLETED
REFUSED = CompletionCode.INCONSISTENT_IMAGE
NOT_FOUND = CompletionCode.IMAGE_NOT_FOUND


SYSTEM_ID = 0x01DE
FLASH_BYTES = 128 * KIB
OLD_VERSION, NEW_VERSION, OTHER_VERSION = "2.1.2", "2.3.0", "2.4.0"
OLD = random.Random(1).randbytes(FLASH_BYTES)
NEW = random.Random(2).randbytes(FLASH_BYTES)
OTHER = random.Random(3).randbytes(FLASH_BYTES)
SET_ID = b"_230"
NOW = dt.datetime(2026, 3, 4, 5, 6, 7, tzinfo=dt.UTC)

_TOKENS = {
    "cmos": make_indexed_io(
        handle=0xD401,
        index_port=0x70,
        data_port=0x71,
        check=CheckRange(CheckType.NEGATED_WORD_SUM, 0x40, 0x5B, 0x6D),
        tokens=[(ACTIVATE, 0x78, 0xBF, 0x40), (CANCEL, 0x78, 0xBF, 0x00)],
    ),
    "checked-cmos": make_indexed_io(
        handle=0xD401,
        index_port=0x72,
        data_port=0x73,
        check=CheckRange(CheckType.CRC, 0x60, 0x6F, 0x70),
        tokens=[(ACTIVATE, 0x68, 0xF8, 0x02), (CANCEL, 0x68, 0xF8, 0x00)],
    ),
    "smi": make_calling_interface(
        handle=0xDA00,
        port=0xB2,
        code=0x4F,
        supported=3,
        tokens=[(ACTIVATE, ACTIVATE, 1), (CANCEL, CANCEL, 0)],
    ),
}
TOKEN_PLACES = tuple(_TOKENS)


def make_tables(tokens: str | None) -> smbios.Tables:
    """The tables of a machine that has its RBU tokens in one of `TOKEN_PLACES`, or has none."""
    structures = [
        dell.make_oem_strings(["Dell System", f"1[{SYSTEM_ID:04X}]"]),
        *([_TOKENS[tokens]] if tokens else []),
        smbios.make_structure(127, 0x7F00, b""),
    ]
    return smbios.make_tables(smbios.make_entry_point(version=(2, 6)), structures)


class Computer:
    """A machine with an old BIOS; `completion_code` is left over from the update before."""

    def __init__(
        self,
        directory: Path,
        *,
        tokens: str | None = "cmos",
        knows_packets: bool = True,
        system_id: int | None = SYSTEM_ID,
        faults: Collection[FaultKind] = (),
        password_crc: int | None = None,
        completion_code: int = 0xFFFF,
        rules: str = "published",
        revision: int = 0,
    ) -> None:
        directory.mkdir(exist_ok=True)
        self.directory, self._faults = directory, faults
        self._knows_packets, self._system_id = knows_packets, system_id
        self.rules, self._revision = rule_set(rules), revision
        self._tables = make_tables(tokens)
        RamFile.create(directory / "ram", REGIONS).close()
        (directory / "flash").unlink(missing_ok=True)
        Flash.create(directory / "flash", OLD, version=OLD_VERSION, release_date="10/31/2006")
        (directory / "cmos").write_bytes(bytes(CMOS_FILE_BYTES))
        contents = Nvram(
            {ACTIVATE: 0, CANCEL: 0},
            completion_code=completion_code,
            completed_at="2020-01-01T00:00:00+00:00",
            admin_password_crc=password_crc,
        )
        NvramFile.create(directory / "nvram.json", contents)
        pair = tokens_for_update(self._tables)
        if pair and isinstance(pair.activate, IndexedIoToken):
            write_check_value(self._bank(pair.activate), pair.activate, SYSTEM_ID)

    @contextlib.contextmanager
    def ram(self) -> Iterator[RamFile]:
        with contextlib.closing(RamFile(self.directory / "ram", REGIONS)) as ram:
            yield ram

    @contextlib.contextmanager
    def board(self, cut_at: int | None = None) -> Iterator[Board]:
        """All parts, their power to be cut at an operation."""
        rail = PowerRail(cut_at)
        cmos = CmosFile(self.directory / "cmos", rail)
        nvram = NvramFile(self.directory / "nvram.json", rail)
        path = self.directory / "flash"
        with (
            contextlib.closing(FlashFile(path, rail=rail, faults=self._faults)) as device,
            self.ram() as ram,
        ):
            yield Board(
                memory=ram,
                flash=Flash(device, faults=self._faults),
                nvram=nvram,
                activation=bios_activation(self._tables, cmos, nvram),
                system_id=self._system_id,
                knows_packets=self._knows_packets,
                rules=self.rules,
                revision=self._revision,
                cmos_result=CmosResult(cmos, self._tables),
            )

    def start(self, cut_at: int | None = None, now: dt.datetime = NOW) -> PostReport:
        """One POST. RAM stays as it is."""
        with self.board(cut_at) as board:
            return post(board, now)

    def survives(self, cut_at: int) -> bool:
        """Start with the power cut at an operation; True when there were not so many."""
        try:
            self.start(cut_at)
        except PowerCutError:
            return False
        return True

    def put(self, address: int, data: bytes | bytearray) -> None:
        with self.ram() as ram:
            ram.write(PhysAddr(address), data)

    def put_all(self, pieces: Sequence[bytes], addresses: Sequence[int]) -> None:
        with self.ram() as ram:
            for address, piece in zip(addresses, pieces, strict=True):
                ram.write(PhysAddr(address), piece)

    def lose_ram(self) -> None:
        with self.ram() as ram:
            ram.clear()

    def arm(self) -> None:
        """What the tool does."""
        with self.board() as board:
            if isinstance(board.activation, IndexedActivation):
                board.activation.arm()
            else:
                assert isinstance(board.activation, SmiHandler)
                board.activation.set_armed(True)

    def start_armed(self) -> PostReport:
        self.arm()
        return self.start()

    @property
    def is_armed(self) -> bool:
        with self.board() as board:
            return board.activation is not None and board.activation.is_armed

    @property
    def cmos_is_sound(self) -> bool:
        """Whether the check value over the token's range is right, where there is one."""
        pair = tokens_for_update(self._tables)
        if pair is None or not isinstance(pair.activate, IndexedIoToken):
            return True
        return check_value_is_right(self._bank(pair.activate), pair.activate, SYSTEM_ID)

    def _bank(self, token: IndexedIoToken) -> PortCmos:
        return PortCmos(CmosFile(self.directory / "cmos"), token.ports)

    def cmos_bytes(self, index: int, count: int = 1) -> bytes:
        """Bytes of the CMOS that every PC has."""
        start = 256 * 0x70 + index
        return (self.directory / "cmos").read_bytes()[start : start + count]

    @property
    def bios(self) -> bytes:
        with self.board() as board:
            return board.flash.image()

    @property
    def version(self) -> str:
        with self.board() as board:
            return board.flash.current.version

    @property
    def nvram(self) -> Nvram:
        return NvramFile(self.directory / "nvram.json").contents

    def kept(self) -> dict[str, bytes]:
        """Every byte that is kept without power."""
        names = ("flash", "cmos", "nvram.json")
        return {name: (self.directory / name).read_bytes() for name in names}


def image_of(
    flash_data: bytes = NEW, version: str = NEW_VERSION, system_id: int = SYSTEM_ID
) -> bytes:
    return make_image(flash_data, version=BiosVersion.parse(version), systems=[SystemId(system_id)])


def image_with_long_header(flash_data: bytes, extra: bytes) -> bytes:
    """An image with more header than the known fields, and right check words."""
    fields = HEADER.unpack(IMAGE)
    header = HEADER.pack(fields | {"header_length": HEADER.size_bytes + len(extra)}) + extra
    return header + flash_data + check_words(header, flash_data)


def with_checksum_of(model: bytes, image: bytes, offset: int) -> bytes:
    """The image with four bytes at `offset`, of its header or of its data, so that the CRC-32 of
    that part is that of the model's, and right check words."""
    part = (
        slice(0, HEADER_SIZE_BYTES) if offset < HEADER_SIZE_BYTES else slice(HEADER_SIZE_BYTES, -8)
    )

    def patched(patch: int) -> bytes:
        return image[:offset] + patch.to_bytes(4, "little") + image[offset + 4 :]

    def crc_with(patch: int) -> int:
        return zlib.crc32(patched(patch)[part])

    missing = crc_with(0) ^ zlib.crc32(model[part])
    patch = 0
    rows = [(crc_with(1 << bit) ^ crc_with(0), 1 << bit) for bit in range(32)]
    for bit in range(32):  # what each bit of the patch changes: solve for what is missing
        pivot = next(row for row in rows if row[0] >> bit & 1)
        rows.remove(pivot)
        rows = [(a ^ pivot[0], b ^ pivot[1]) if a >> bit & 1 else (a, b) for a, b in rows]
        if missing >> bit & 1:
            missing, patch = missing ^ pivot[0], patch ^ pivot[1]
    made = patched(patch)[:-8]
    return made + check_words(made[:HEADER_SIZE_BYTES], made[HEADER_SIZE_BYTES:])


def packets_of(
    payload: bytes, *, size: int = 4096, set_id: bytes = SET_ID, password_crc: int | None = None
) -> list[bytes]:
    data = bytes(split(payload, packet_size_bytes=size, set_id=set_id, password_crc=password_crc))
    return [data[start : start + size] for start in range(0, len(data), size)]


def resummed(packet: bytes) -> bytes:
    """The packet with a right checksum."""
    bare = packet[:30] + bytes(2) + packet[32:]
    total = int(np.frombuffer(bare, "<u2").sum(dtype="u8"))
    return bare[:30] + (-total % 0x10000).to_bytes(2, "little") + bare[32:]


def changed(packet: bytes, **fields: int) -> bytes:
    """The packet with other header fields and a right checksum."""
    return resummed(PACKET_HEADER.pack(PACKET_HEADER.unpack(packet) | fields) + packet[32:])


def places_for(pieces: Sequence[bytes], seed: int = 1) -> list[int]:
    """Page addresses in random order with room for each piece, none overlapping."""
    free = set(PAGES)
    order = random.Random(seed).sample(PAGES, len(PAGES))
    places = []
    for piece in pieces:
        pages = range(0, len(piece), PAGE_SIZE)
        place = next(at for at in order if all(at + page in free for page in pages))
        free.difference_update(place + page for page in pages)
        places.append(place)
    return places


IMAGE = image_of()
OTHER_IMAGE = image_of(OTHER, OTHER_VERSION)
PACKETS = packets_of(IMAGE)
STRAY = b"$RPK, but no packet".ljust(PAGE_SIZE, b"\x5a")


def scatter(computer: Computer, *pieces: bytes, seed: int = 1) -> list[int]:
    """Put the pieces on pages in random order; gives their addresses."""
    places = places_for(pieces, seed)
    computer.put_all(pieces, places)
    return places


def pages_of(data: bytes) -> list[bytes]:
    return [data[start : start + PAGE_SIZE] for start in range(0, len(data), PAGE_SIZE)]


def check_took(computer: Computer, report: PostReport, mode: str) -> None:
    """The update was taken, and is recorded."""
    assert (report.completion_code, report.reason) == (COMPLETED, "")
    assert (report.version_before, report.version_after) == (OLD_VERSION, NEW_VERSION)
    assert report.mode == mode
    assert computer.bios == NEW
    check_recorded(computer, COMPLETED, NEW_VERSION)


def check_refused(
    computer: Computer, report: PostReport, code: CompletionCode, why: str = ""
) -> None:
    """The update was not taken, and that is recorded."""
    assert report.completion_code == code
    assert why in report.reason
    assert (report.version_before, report.version_after) == (OLD_VERSION, OLD_VERSION)
    assert (report.mode, report.extents) == (None, ())
    assert computer.bios == OLD
    check_recorded(computer, code, OLD_VERSION)


def check_recorded(computer: Computer, code: CompletionCode, version: str) -> None:
    """What is kept says so, and the next start, with RAM as it is, does nothing."""
    assert computer.version == version
    assert computer.nvram.completion_code == code
    assert computer.nvram.completed_at == NOW.replace(second=0).isoformat()
    assert computer.nvram.flashing_from is None
    assert not computer.is_armed
    kept = computer.kept()
    assert computer.start() == PostReport(version, version)
    assert computer.kept() == kept
