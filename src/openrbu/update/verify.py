"""Verify: what was staged is what was meant, and lies where the BIOS will look.

Two looks, because each alone has been wrong on real machines: a driver's read-back can be right
while no BIOS would find the image (pages of a Xen guest are not contiguous in machine memory), and
can be wrong while the memory is right (kernels since 5.7 skipped a packet). And what is found may
be a ghost: the buffer that the image came in by is freed, not cleared; the page cache has the file;
this program has the image. So the pages have to be held by the kernel, as far as it says which are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import Enum

from openrbu.buffers import Buffer, same_bytes
from openrbu.errors import UpdateFailedError
from openrbu.formats.hdr import Image
from openrbu.formats.packet import set_id_text
from openrbu.hosts.base import Host
from openrbu.memory.kpageflags import ENTRY_BYTES, SEARCHED_BYTES, FreePages
from openrbu.memory.physical import ReadableMemory, Region
from openrbu.memory.scan import FoundSet, Sightings, search
from openrbu.units import PhysAddr
from openrbu.update.driver import CHUNK_BYTES, Mode
from openrbu.update.target import is_on_xen

KPAGEFLAGS = "/proc/kpageflags"


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
    chunks: list[bytes] = []
    size_bytes, is_right = 0, True
    for chunk in staged:
        end = size_bytes + len(chunk)
        is_right = is_right and same_bytes(expected[size_bytes:end], chunk)
        size_bytes = end
        chunks.append(chunk)
    if not size_bytes and len(meant):
        return ReadBack.NOTHING
    if is_right and size_bytes == len(meant):
        return ReadBack.RIGHT
    given = b"".join(chunks)
    if packet_size_bytes and _skips_a_packet(given, memoryview(meant), packet_size_bytes):
        return ReadBack.SKIPS_A_PACKET
    return ReadBack.DIFFERENT


def _skips_a_packet(given: bytes, meant: memoryview, packet_size_bytes: int) -> bool:
    """Whether packet 0 or 1 is left out and the rest moved up: the bug of kernels since 5.7. The
    size is right; what stands at the end is anything."""
    if len(given) != len(meant):
        return False
    view = memoryview(given)
    return any(
        same_bytes(view[:gap], meant[:gap])
        and same_bytes(view[gap:-packet_size_bytes], meant[gap + packet_size_bytes :])
        for gap in (0, packet_size_bytes)
    )


def read_free_pages(host: Host) -> FreePages | None:
    """Which pages are free or will be; None where the host does not say, or on Xen does not say
    where they are."""
    if not host.exists(KPAGEFLAGS):
        return None
    table = host.frame_table
    if table is None and is_on_xen(host):
        return None
    wanted_bytes = SEARCHED_BYTES if table is None else ENTRY_BYTES * len(table)
    flags = bytearray()
    for chunk in host.chunks(KPAGEFLAGS, CHUNK_BYTES):
        flags += chunk
        if len(flags) >= wanted_bytes:
            break
    return FreePages(bytes(flags), table)


def find_staged(
    memory: ReadableMemory,
    image: Image,
    *,
    mode: Mode,
    packets_known: bool,
    free: FreePages | None = None,
) -> tuple[Region, ...]:
    """Where a BIOS would find what was staged, by the search that a BIOS does.

    What else lies there that a BIOS would take for an update is looked for, too: it refuses both.
    `packets_known` says whether this machine's BIOS looks for packets; all look for images. A copy
    in `free` pages does not count as staged: it may be overwritten before the restart is done.

    :raise UpdateFailedError: when no BIOS would find it, or would find something else too.
    """
    sightings = search(memory, flash_size_bytes=image.flash_size_bytes)
    if mode == "packet":
        found = _find_packets(memory, image, sightings, free)
    else:
        found = _find_monolithic(memory, image, sightings, free)
        if packets_known:
            _refuse_packets(memory, image, sightings)
    for seen in sightings.images:
        if not _holds(memory, seen.address, image):
            raise _stranger(f"another whole image is in memory, at {seen.address:#x}")
    return found


def _find_packets(
    memory: ReadableMemory, image: Image, sightings: Sightings, free: FreePages | None
) -> tuple[Region, ...]:
    sets = sightings.packet_sets
    if not sets:
        raise UpdateFailedError(
            "a BIOS would find no packet in physical memory: they lie where it does not look"
        )
    if len(sets) > 1:
        places = ", ".join(f"{set_id_text(each.set_id)} at {each.lowest:#x}" for each in sets)
        raise _stranger(f"packets of different sets are in memory ({places})")
    if sets[0].conflicts:
        raise _stranger(f"packets in memory contradict each other ({sets[0].conflicts[0]})")
    if not sets[0].is_complete:
        raise UpdateFailedError(
            f"{len(sets[0].missing)} of {sets[0].total} packets would not be found by a BIOS: they "
            "are not in memory that it searches, not on a page boundary or not contiguous"
        )
    held = _held(sets[0], free)
    if not _carries(memory, held, image):
        raise UpdateFailedError("the packets in physical memory hold another image")
    return held.extents


def _held(found: FoundSet, free: FreePages | None) -> FoundSet:
    """The set without the copies that lie in `free` pages.

    :raise UpdateFailedError: when a packet has no other.
    """
    if free is None:
        return found
    held = {
        number: tuple(at for at in places if not free.any_in(at, found.size_of(number)))
        for number, places in found.places.items()
    }
    lost = sum(not places for places in held.values())
    if lost:
        raise UpdateFailedError(
            f"{lost} of {found.total} packets are only in memory that is free, a file's or a "
            "program's, where they may be overwritten: a BIOS would not find the driver's own "
            "copies"
        )
    return replace(found, places=held)


def _find_monolithic(
    memory: ReadableMemory, image: Image, sightings: Sightings, free: FreePages | None
) -> tuple[Region, ...]:
    """The image at any of the headers in memory; a vendor's file need not have our trailer."""
    copies = [seen.address for seen in sightings.headers if _holds(memory, seen.address, image)]
    if not copies:
        raise UpdateFailedError(
            "a BIOS would not find the image in physical memory: it is not there in one piece"
        )
    for address in copies:
        if free is None or not free.any_in(address, image.size_bytes):
            return (Region(address, PhysAddr(address + image.size_bytes)),)
    raise UpdateFailedError(
        "the image is only in memory that is free, a file's or a program's, where it may be "
        "overwritten: a BIOS would not find the driver's own copy"
    )


def _refuse_packets(memory: ReadableMemory, image: Image, sightings: Sightings) -> None:
    """Packets beside a monolithic image do no harm when they carry the very same one.

    :raise UpdateFailedError: when they don't.
    """
    for found in sightings.packet_sets:
        if found.conflicts or not found.is_complete or not _carries(memory, found, image):
            text = f"packets of set {set_id_text(found.set_id)} are in memory, at {found.lowest:#x}"
            raise _stranger(text)


def _carries(memory: ReadableMemory, found: FoundSet, image: Image) -> bool:
    """Whether a whole packet set carries this image."""
    return _is_image(memoryview(found.assemble(memory))[: image.size_bytes], image)


def _holds(memory: ReadableMemory, address: PhysAddr, image: Image) -> bool:
    """Whether an image lies at an address, in one piece."""
    end = address + image.size_bytes
    is_ram = any(region.start <= address and end <= region.end for region in memory.regions)
    return is_ram and _is_image(memory.view(address, image.size_bytes), image)


def _is_image(data: memoryview, image: Image) -> bool:
    header = image.header.build()
    return data[: len(header)] == header and same_bytes(data[len(header) :], image.body)


def _stranger(what: str) -> UpdateFailedError:
    return UpdateFailedError(
        f"{what}, and a BIOS would refuse the update for it: power cycle the machine, which clears "
        "its memory, and try again"
    )
