"""POST: what the machine's BIOS does with a staged update when it starts.

The BIOS trusts nothing that the driver or the tool says. It looks at memory, at CMOS and at its own
NVRAM only:

1. finish what a power cut interrupted: say whether the programming got through;
2. the activation token; without it, boot and change nothing;
3. clear the token, so that a bad image can't loop;
4. search RAM from 1 MiB to 4 GiB for packet sets (where this BIOS knows packets) and for whole
   monolithic images, past all ghosts;
5. check: one image only, for this system, of the flash's size, whole, with the right password;
6. program the flash, block by block;
7. record completion code, date and time.

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
from openrbu.errors import DamagedInputError, OpenRbuError
from openrbu.formats.dell import CompletionCode
from openrbu.formats.hdr import HEADER_SIZE_BYTES, TRAILER_SIZE_BYTES, Image, TrailerState
from openrbu.memory.physical import PhysicalMemory, Region
from openrbu.memory.scan import FoundSet, Sightings, search
from openrbu.units import PhysAddr


class Switch(Protocol):
    """The activation token, wherever it is kept."""

    @property
    def is_armed(self) -> bool: ...

    def disarm(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Board:
    """What a BIOS has to work with. `switch` is None where the machine has no RBU tokens."""

    memory: PhysicalMemory
    flash: Flash
    nvram: NvramFile
    switch: Switch | None
    system_id: int | None
    knows_packets: bool


@dataclass(frozen=True, slots=True)
class Find:
    """The update that the BIOS took: `mode` is `mono` or `packet`, `extents` where it lay."""

    mode: str
    image: Image
    extents: tuple[Region, ...]


@dataclass(frozen=True, slots=True)
class PostReport:
    """What one start did. `completion_code` is None when no update was tried or finished."""

    version_before: str
    version_after: str
    completion_code: CompletionCode | None = None
    reason: str = ""
    mode: str | None = None
    extents: tuple[Region, ...] = ()

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
    if board.switch is None or not board.switch.is_armed:
        return report or PostReport(before, before)
    board.switch.disarm()
    find: Find | None = None
    try:
        find = find_update(board)
        _program(board, find.image, now)
        code, reason = CompletionCode.COMPLETED, ""
    except (RejectedError, FlashError) as refusal:
        code, reason = refusal.code, str(refusal)
    _record(board, code, now)
    return PostReport(
        before,
        board.flash.current.version,
        code,
        reason,
        find.mode if find else None,
        find.extents if find else (),
    )


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

    :raise RejectedError: when there is no update, or not one that this machine takes.
    """
    size = board.flash.size_bytes
    sightings = search(board.memory, flash_size_bytes=size)
    finds = [_monolithic(board.memory, sightings)]
    if board.knows_packets:
        finds.append(_packets(board, sightings.packet_sets))
    found = [find for find in finds if find is not None]
    if not found:
        raise RejectedError(CompletionCode.IMAGE_NOT_FOUND, "no update in memory")
    if len({find.image.build() for find in found} if len(found) > 1 else found) > 1:
        raise _inconsistent("a packet set and a monolithic image that differ are in memory")
    find = found[0]
    if board.system_id is None or not find.image.header.is_for(board.system_id):
        systems = ", ".join(str(system) for system in find.image.header.systems)
        raise _inconsistent(f"the image is for {systems}, not for this system")
    return find


def _inconsistent(reason: str) -> RejectedError:
    return RejectedError(CompletionCode.INCONSISTENT_IMAGE, reason)


def _monolithic(memory: PhysicalMemory, sightings: Sightings) -> Find | None:
    """The one image among all whole copies of it."""
    if not sightings.images:
        return None
    first = sightings.images[0]
    for other in sightings.images[1:]:
        if (other.size_bytes, other.crc) != (first.size_bytes, first.crc):
            raise _inconsistent(
                f"two different images are in memory, at {first.address:#x} and {other.address:#x}"
            )
    image = Image.parse(memory.view(first.address, first.size_bytes))
    extent = Region(first.address, PhysAddr(first.address + first.size_bytes))
    return Find("mono", image, (extent,))


def _packets(board: Board, packet_sets: tuple[FoundSet, ...]) -> Find | None:
    """The one packet set, put together."""
    if not packet_sets:
        return None
    if len({packet_set.set_id for packet_set in packet_sets}) > 1:
        raise _inconsistent("packets of two different sets are in memory")
    packet_set = packet_sets[0]
    if len(packet_sets) > 1 or packet_set.conflicts:
        raise _inconsistent("packets of one set contradict each other")
    if not packet_set.is_complete:
        raise _inconsistent(
            f"{len(packet_set.missing)} of the set's {packet_set.total} packets are missing"
        )
    password = packet_set.password.crc if packet_set.password.present else None
    if password != board.nvram.contents.admin_password_crc:
        raise _inconsistent("packet 0 does not carry this machine's password")
    padded = memoryview(packet_set.assemble(board.memory))
    size = HEADER_SIZE_BYTES + board.flash.size_bytes + TRAILER_SIZE_BYTES
    if not size <= len(padded) < size + packet_set.packet_size_bytes or any(padded[size:]):
        raise _inconsistent("the image is not of this machine's flash size")
    try:
        image = Image.parse(padded[:size])
    except DamagedInputError as damage:
        raise _inconsistent(str(damage)) from None
    if image.trailer is not TrailerState.GOOD:
        raise _inconsistent("the image's own checksum is wrong")
    return Find("packet", image, packet_set.extents)


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
