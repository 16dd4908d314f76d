"""Rule set `published`: the published rules, applied strictly.

Facts: docs/reference/bios-rules.md, B3 and B4, and docs/reference/packets.md. RAM from 1 MiB to 4
GiB is searched on 4 KiB boundaries, for packet sets (if this BIOS knows packets) and for whole
images in one piece. A page that only looks like a packet, and a candidate with wrong check words,
are skipped. Several copies of one image are one update, whether in packets or in one piece; if some
are in packets, the update's extents are those of the packets. All other contradictions are refused:
two sets, packets of one set that differ, two images.

Completion codes where the rules leave a choice: 0x000D when nothing looks like an update or no
candidate in one piece is whole; 0x0001 when a packet set is not complete, or there is a
contradiction (the update was staged, and it failed a check).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from openrbu.bios.rules.ruleset import (
    FoundUpdate,
    Identity,
    RejectedError,
    RuleSet,
    TokenCleared,
)
from openrbu.errors import DamagedInputError
from openrbu.formats.check_words import CHECK_WORDS_BYTES
from openrbu.formats.dell import CompletionCode
from openrbu.formats.hdr import MAX_HEADER_LENGTH, Image, SystemId, image_at
from openrbu.memory.physical import ReadableMemory, Region
from openrbu.units import BIOS_SEARCH_END, PhysAddr

if TYPE_CHECKING:
    from openrbu.memory.search_result import FoundImage, FoundSet, SearchResult

_MISSING_SHOWN = 5
"""So many numbers of missing packets are in a message."""


def find_update(memory: ReadableMemory, machine: Identity) -> FoundUpdate:
    """Search RAM, and check what is found against this machine.

    :raise RejectedError: when there is no update, or none that this machine takes.
    """
    return _find(memory, machine, BIOS_SEARCH_END)


def find_anywhere(memory: ReadableMemory, machine: Identity) -> FoundUpdate:
    """`find_update` that searches RAM above 4 GiB, too, as real BIOSes do for packets.

    :raise RejectedError: as `find_update`.
    """
    return _find(memory, machine, memory.regions[-1].end)


def _find(memory: ReadableMemory, machine: Identity, end: PhysAddr) -> FoundUpdate:
    from openrbu.memory.scan import search  # noqa: PLC0415  (start-up time)

    result = search(memory, end=end, flash_size_bytes=machine.flash_size_bytes)
    images = result.images
    # One at a time: many copies of a large image would not fit in this process's memory.
    finds = (_monolithic(memory, image, copies=len(images)) for image in images)
    if machine.knows_packets and result.packet_sets:
        found: FoundUpdate | None = _packets(memory, machine, result.packet_sets)
    else:
        found = next(finds, None)
    if found is None:
        raise RejectedError(CompletionCode.IMAGE_NOT_FOUND, _why_none(result))
    for other in finds:
        if not found.has(other.image):
            raise _inconsistent(
                "two different images are in memory, "
                f"at {found.extents[0].start:#x} and {other.extents[0].start:#x}"
            )
    listed = found.image.header.systems
    if not _is_for(machine, listed):
        systems = ", ".join(map(str, listed)) or "no system"
        raise _inconsistent(f"the image is for {systems}, not for this machine")
    return found


def _is_for(machine: Identity, systems: tuple[SystemId, ...]) -> bool:
    """Whether a list has this machine with its hardware revision."""
    return machine.system_id is not None and (
        SystemId(machine.system_id, machine.revision) in systems
    )


def _why_none(result: SearchResult) -> str:
    """Why nothing that was seen is an update."""
    if not result.headers:
        return "nothing in memory looks like one"
    return (
        f"the image header at {result.headers[0].address:#x} has no data of this flash's size "
        "followed by the right check words"
    )


def _inconsistent(reason: str) -> RejectedError:
    return RejectedError(CompletionCode.INCONSISTENT_IMAGE, reason)


def _monolithic(memory: ReadableMemory, found: FoundImage, *, copies: int) -> FoundUpdate:
    """The update of an image in one piece."""
    image = Image.parse(memory.view(found.address, found.size_bytes))
    extent = Region(found.address, PhysAddr(found.address + found.size_bytes))
    return FoundUpdate("mono", image, (extent,), copies)


def _packets(
    memory: ReadableMemory, machine: Identity, packet_sets: tuple[FoundSet, ...]
) -> FoundUpdate:
    """The update of the only packet set.

    :raise RejectedError: when there are several sets, or it is not complete or not for this
        machine.
    """
    packet_set, *others = packet_sets
    if others:
        count = len(packet_sets) if len(others) > 1 else "two"
        raise _inconsistent(f"packets of {count} different sets are in memory")
    if packet_set.conflicts:
        raise _inconsistent(f"packets of one set contradict each other: {packet_set.conflicts[0]}")
    if not packet_set.is_complete:
        raise _inconsistent(_missing_text(packet_set))
    password = packet_set.password.crc if packet_set.password.present else None
    if password != machine.password_crc:
        raise _inconsistent("packet 0 does not carry this machine's password")
    copies = min(map(len, packet_set.places.values()))
    return FoundUpdate("packet", _joined(memory, machine, packet_set), packet_set.extents, copies)


def _missing_text(packet_set: FoundSet) -> str:
    """How many packets the BIOS lacks, and the first of their numbers."""
    missing = packet_set.missing
    numbers = ", ".join(map(str, missing[:_MISSING_SHOWN]))
    rest = ", …" if len(missing) > _MISSING_SHOWN else ""
    are = "is" if len(missing) == 1 else "are"
    return (
        f"{len(missing)} of the set's {packet_set.total} packets {are} missing or damaged: "
        f"{numbers}{rest}"
    )


def _joined(memory: ReadableMemory, machine: Identity, packet_set: FoundSet) -> Image:
    """The image in a complete set. Only zeros may follow it, fewer than the data of one packet.

    :raise RejectedError: when it is not such an image.
    """
    wrong_size = _inconsistent("the image in the packets is not of this machine's flash size")
    flash_size = machine.flash_size_bytes
    room = packet_set.packet_size_bytes - packet_set.header_size_bytes
    largest = MAX_HEADER_LENGTH + flash_size + CHECK_WORDS_BYTES
    if (packet_set.total - 1) * room >= largest + room:
        raise wrong_size  # before it is joined: overlapping packets can claim any size
    padded = memoryview(packet_set.assemble(memory))
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


RULES = RuleSet(
    name="published",
    summary="the published rules, strictly: 1 MiB to 4 GiB, nothing that contradicts",
    token_cleared=TokenCleared.FIRST,
    records_in_cmos=False,
    knows_packets=True,
    searches_above_4_gib=False,
    real_data_bytes=None,
    searched="pages from 1 MiB to 4 GiB",
    find_update=find_update,
)
