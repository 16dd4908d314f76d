"""Verify: what was staged is what was meant, and lies where the BIOS will look.

Two looks, because each alone has been wrong on real machines: a driver's read-back can be right
while no BIOS would find the image (pages of a Xen guest are not contiguous in machine memory), and
can be wrong while the memory is right (kernels since 5.7 skipped a packet).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from openrbu.buffers import Buffer, same_bytes
from openrbu.errors import UpdateFailedError
from openrbu.memory.physical import PhysicalMemory, Region
from openrbu.memory.scan import FoundSet, Sightings, search
from openrbu.units import PhysAddr
from openrbu.update.driver import Mode


class ReadBack(Enum):
    """What the driver's `data` file gives back."""

    RIGHT = "right"
    NOTHING = "nothing"
    SKIPS_A_PACKET = "skips a packet"
    DIFFERENT = "different"


@dataclass(frozen=True, slots=True)
class Verified:
    """What was seen. `extents`: where in physical memory; None where the host shows none."""

    read_back: ReadBack
    extents: tuple[Region, ...] | None


def compare(staged: Iterable[bytes], meant: Buffer, *, packet_size_bytes: int | None) -> ReadBack:
    """Compare what the driver gives back with what it was given, byte for byte."""
    expected = memoryview(meant)
    chunks, position, is_right = [], 0, True
    for chunk in staged:
        is_right = is_right and same_bytes(expected[position : position + len(chunk)], chunk)
        position += len(chunk)
        chunks.append(chunk)
    if position == 0 and expected:
        return ReadBack.NOTHING
    if position != len(expected):
        return ReadBack.DIFFERENT
    if is_right:
        return ReadBack.RIGHT
    if packet_size_bytes and _skips_a_packet(b"".join(chunks), expected, packet_size_bytes):
        return ReadBack.SKIPS_A_PACKET
    return ReadBack.DIFFERENT


def _skips_a_packet(staged: bytes, expected: memoryview, packet_size_bytes: int) -> bool:
    """Whether one packet is left out and the rest moved up: the bug of kernels since 5.7."""
    same = (a == b for a, b in zip(staged, expected, strict=True))
    first_wrong = next(i for i, is_same in enumerate(same) if not is_same)
    gap = first_wrong - first_wrong % packet_size_bytes
    rest = expected[gap + packet_size_bytes :]
    return staged[gap : gap + len(rest)] == rest


def find_staged(memory: PhysicalMemory, meant: Buffer, *, mode: Mode) -> tuple[Region, ...]:
    """Where a BIOS would find what was staged, by the search that a BIOS does.

    `meant` is the image, without packets around it.

    :raise UpdateFailedError: when no BIOS would find it, or would find something else too.
    """
    sightings = search(memory, flash_size_bytes=None if mode == "packet" else _flash_size(meant))
    if mode == "packet":
        return _find_packets(memory, meant, sightings)
    return _find_monolithic(memory, meant, sightings)


def _find_packets(
    memory: PhysicalMemory, meant: Buffer, sightings: Sightings
) -> tuple[Region, ...]:
    sets = sightings.packet_sets
    if not sets:
        raise UpdateFailedError("a BIOS would find no packet in physical memory")
    if len(sets) > 1:
        others = ", ".join(f"{found.set_id:#010x} at {found.lowest:#x}" for found in sets)
        raise UpdateFailedError(
            f"a BIOS would find packets of different sets in memory ({others}) and refuse both: "
            "restart the machine without an update, power cycled, to clear its memory"
        )
    _check_whole(sets[0])
    if not same_bytes(memoryview(sets[0].assemble(memory))[: len(meant)], meant):
        raise UpdateFailedError("the packets in physical memory hold another image")
    return sets[0].extents


def _check_whole(found: FoundSet) -> None:
    if found.conflicts:
        raise UpdateFailedError("packets in physical memory contradict each other")
    if not found.is_complete:
        raise UpdateFailedError(
            f"{len(found.missing)} of {found.total} packets would not be found by a BIOS: they are "
            "not in memory that it searches, not on a page boundary or not contiguous"
        )


def _find_monolithic(
    memory: PhysicalMemory, meant: Buffer, sightings: Sightings
) -> tuple[Region, ...]:
    """The image at any of the headers in memory; a vendor's file need not have our trailer."""
    wanted = memoryview(meant)
    places = [
        seen.address
        for seen in sightings.headers
        if _contiguous(memory, seen.address, len(wanted))
        and same_bytes(memory.view(seen.address, len(wanted)), wanted)
    ]
    if not places:
        raise UpdateFailedError(
            "a BIOS would not find the image in physical memory: it is not there in one piece"
        )
    strangers = [seen for seen in sightings.images if seen.address not in places]
    if strangers:
        raise UpdateFailedError(
            f"another whole image is in memory, at {strangers[0].address:#x}, and a BIOS would "
            "refuse both: restart the machine without an update, power cycled, to clear its memory"
        )
    return (Region(places[0], PhysAddr(places[0] + len(wanted))),)


def _contiguous(memory: PhysicalMemory, address: PhysAddr, size_bytes: int) -> bool:
    end = address + size_bytes
    return any(region.start <= address and end <= region.end for region in memory.regions)


def _flash_size(meant: Buffer) -> int:
    return len(meant) - 92
