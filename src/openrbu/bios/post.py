"""POST: what the machine's BIOS does with a staged update when it starts.

The BIOS trusts nothing that the driver or the tool says. It looks at memory, at CMOS and at its own
NVRAM only:

1. finish what a power cut interrupted: say whether the programming got through;
2. the activation token; without it, boot and change nothing (CMOS with a wrong check value is not
   believed: the token is cleared then, and the check value made right);
3. record 0x000D: what stands if the power fails from here on until the programming begins, because
   the staged update is gone then (without it, the result of an earlier update would stand);
4. clear the token, before anything in memory is looked at, so that a bad image can't loop;
5. search RAM from 1 MiB to 4 GiB for packet sets (where this BIOS knows packets) and for whole
   monolithic images, past all ghosts;
6. check: one image only, for this system, of the flash's size, whole, with the right password;
7. program the flash, block by block;
8. record completion code, date and time.

Codes where the published rules leave a choice: 0x000D when there is nothing that looks like an
update or no monolithic candidate is whole; 0x0001 when sound packets are there but not all of them,
or anything contradicts (the update was staged, and it failed a check).
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Protocol

from openrbu.bios.flash import Flash, FlashError
from openrbu.bios.nvram import NvramFile
from openrbu.buffers import same_bytes
from openrbu.errors import DamagedInputError, OpenRbuError
from openrbu.formats import dell
from openrbu.formats.check_words import CHECK_WORDS_BYTES
from openrbu.formats.dell import CompletionCode
from openrbu.formats.hdr import MAX_HEADER_LENGTH, Image, image_at
from openrbu.formats.smbios import Tables
from openrbu.memory.physical import PhysicalMemory, Region
from openrbu.memory.scan import FoundImage, FoundSet, Sightings, search
from openrbu.units import PhysAddr


class Switch(Protocol):
    """The activation token, wherever it is kept."""

    @property
    def is_armed(self) -> bool: ...

    def disarm(self) -> None: ...

    def drop_unbelieved(self) -> str:
        """Have no update wanted where its settings can't be believed. Why; empty: they can."""


@dataclass(frozen=True, slots=True)
class Board:
    """What a BIOS has to work with. `switch` is None where the machine has no RBU tokens."""

    memory: PhysicalMemory
    flash: Flash
    nvram: NvramFile
    switch: Switch | None
    system_id: int | None
    knows_packets: bool

    @classmethod
    def of(
        cls,
        tables: Tables,
        memory: PhysicalMemory,
        flash: Flash,
        nvram: NvramFile,
        switch: Switch | None,
    ) -> Board:
        """The board of the machine that left the factory with these SMBIOS tables."""
        rbu = dell.RbuInformation.of(tables)
        knows_packets = rbu is not None and rbu.packet_supported
        return cls(memory, flash, nvram, switch, dell.system_id(tables), knows_packets)


@dataclass(frozen=True, slots=True)
class Find:
    """The update that the BIOS took: `mode` is `mono` or `packet`, `extents` where it lay.

    Of several `copies` it is the lowest.
    """

    mode: str
    image: Image
    extents: tuple[Region, ...]
    copies: int = 1


@dataclass(frozen=True, slots=True)
class PostReport:
    """What one start did. `completion_code` is None when no update was tried or finished; `reason`
    says then why none was armed, where the BIOS did not believe the token."""

    version_before: str
    version_after: str
    completion_code: CompletionCode | None = None
    reason: str = ""
    mode: str | None = None
    extents: tuple[Region, ...] = ()
    copies: int = 0

    @property
    def attempted(self) -> bool:
        return self.completion_code is not None


class RejectedError(OpenRbuError):
    """The BIOS does not take the update; `code` is what it records."""

    def __init__(self, code: CompletionCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


def post(board: Board, now: dt.datetime) -> PostReport:
    """Start the machine once; `now` is its clock.

    :raise PowerCutError: when the power fails; the next start goes on from there.
    :raise MachineError: when the flash holds no BIOS to start.
    """
    before = board.flash.current.version
    report = _finish_interrupted(board, now)
    dropped = board.switch.drop_unbelieved() if board.switch else ""
    if board.switch is None or not board.switch.is_armed:
        return report or PostReport(before, before, reason=dropped)
    _record(board, CompletionCode.IMAGE_NOT_FOUND, now)
    board.switch.disarm()
    find: Find | None = None
    code, reason = CompletionCode.COMPLETED, ""
    try:
        find = find_update(board)
        _program(board, find.image, now)
    except (RejectedError, FlashError) as refusal:
        code, reason = refusal.code, str(refusal)
    _record(board, code, now)
    after = board.flash.current.version
    if find is None:
        return PostReport(before, after, code, reason)
    return PostReport(before, after, code, reason, find.mode, find.extents, find.copies)


def _finish_interrupted(board: Board, now: dt.datetime) -> PostReport | None:
    """After a power cut during programming: say what became of it."""
    started_from = board.nvram.contents.flashing_from
    if started_from is None:
        return None
    current = board.flash.current
    done = current.sequence > started_from
    code = CompletionCode.COMPLETED if done else CompletionCode.FLASH_FAILURE
    _record(board, code, now)
    what = "was complete" if done else "was not complete: the old BIOS is still in force"
    return PostReport(
        current.version, current.version, code, f"the power failed; the programming {what}"
    )


def find_update(board: Board) -> Find:
    """Search RAM and check what is found against this machine.

    Several copies of one image are one update, be they in packets or not; the packets' place is
    the one that is told then.

    :raise RejectedError: when there is no update, or not one that this machine takes.
    """
    sightings = search(board.memory, flash_size_bytes=board.flash.size_bytes)
    images = sightings.images
    finds = [_monolithic(board.memory, image, copies=len(images)) for image in images]
    if board.knows_packets and sightings.packet_sets:
        finds.insert(0, _packets(board, sightings.packet_sets))
    if not finds:
        raise RejectedError(CompletionCode.IMAGE_NOT_FOUND, _why_none(sightings))
    find = finds[0]
    header, body = find.image.header, find.image.body
    for other in finds[1:]:
        if other.image.header != header or not same_bytes(other.image.body, body):
            raise _inconsistent(
                "two different images are in memory, "
                f"at {find.extents[0].start:#x} and {other.extents[0].start:#x}"
            )
    if board.system_id is None or not header.is_for(board.system_id):
        systems = ", ".join(map(str, header.systems)) or "no system"
        raise _inconsistent(f"the image is for {systems}, not for this machine")
    return find


def _why_none(sightings: Sightings) -> str:
    """Why nothing that was seen is an update."""
    if not sightings.headers:
        return "nothing in memory looks like one"
    return (
        f"the image header at {sightings.headers[0].address:#x} has no data of this flash's size "
        "with the right check words behind it"
    )


def _inconsistent(reason: str) -> RejectedError:
    return RejectedError(CompletionCode.INCONSISTENT_IMAGE, reason)


def _monolithic(memory: PhysicalMemory, found: FoundImage, *, copies: int) -> Find:
    """An image that the search found whole."""
    image = Image.parse(memory.view(found.address, found.size_bytes))
    extent = Region(found.address, PhysAddr(found.address + found.size_bytes))
    return Find("mono", image, (extent,), copies)


def _packets(board: Board, packet_sets: tuple[FoundSet, ...]) -> Find:
    """The one packet set, put together."""
    packet_set, *others = packet_sets
    if others:
        raise _inconsistent("packets of two different sets are in memory")
    if packet_set.conflicts:
        raise _inconsistent(f"packets of one set contradict each other: {packet_set.conflicts[0]}")
    if not packet_set.is_complete:
        raise _inconsistent(
            f"{len(packet_set.missing)} of the set's {packet_set.total} packets are missing"
        )
    password = packet_set.password.crc if packet_set.password.present else None
    if password != board.nvram.contents.admin_password_crc:
        raise _inconsistent("packet 0 does not carry this machine's password")
    copies = min(map(len, packet_set.places.values()))
    return Find("packet", _joined(board, packet_set), packet_set.extents, copies)


def _joined(board: Board, packet_set: FoundSet) -> Image:
    """The image in a sound set: nothing but zeros behind it, and none of them a packet's worth."""
    wrong_size = _inconsistent("the image in the packets is not of this machine's flash size")
    flash_size = board.flash.size_bytes
    room = packet_set.packet_size_bytes - packet_set.header_size_bytes
    largest = MAX_HEADER_LENGTH + flash_size + CHECK_WORDS_BYTES
    if (packet_set.total - 1) * room >= largest + room:
        raise wrong_size  # before it is put together: overlapping packets can claim any size
    padded = memoryview(packet_set.assemble(board.memory))
    try:
        image = image_at(padded) or Image.parse(padded)
    except DamagedInputError as damage:
        raise _inconsistent(str(damage)) from None
    if not image.is_whole:
        raise _inconsistent(f"in the packets {image.damage}")
    padding = len(padded) - image.size_bytes
    padding_is_right = padding < room and not any(padded[image.size_bytes :])
    if image.flash_size_bytes != flash_size or not padding_is_right:
        raise wrong_size
    return image


def _program(board: Board, image: Image, now: dt.datetime) -> None:
    """Write the flash. The header carries no release date; the day of the flash stands for it."""
    nvram = board.nvram
    nvram.contents.flashing_from = board.flash.current.sequence
    nvram.save()
    board.flash.install(
        image.flash_data, version=image.header.version.text, release_date=f"{now:%m/%d/%Y}"
    )


def _record(board: Board, code: CompletionCode, now: dt.datetime) -> None:
    """Completion code and time, and that no programming is under way: one write."""
    contents = board.nvram.contents
    contents.completion_code = int(code)
    contents.completed_at = now.replace(second=0, microsecond=0).isoformat()
    contents.flashing_from = None
    board.nvram.save()
