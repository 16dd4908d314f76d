"""The search for packets and images in RAM: for a BIOS, for the check before arming, and for
`rbu scan`.

A BIOS reads the first four bytes of each 4 KiB page from 1 MiB up to 4 GiB and compares them with
`$RPK` and `$RBU` (docs/reference/bios-rules.md, B3); so does `search`. A page that matches is
either valid, by the packet rules or by the vendor's check words, or a `Reject` with the reason.

The work is limited for any content of memory, such as RAM full of invented headers. The start of
each page is read once. Checksums of packets are over at most 4 × the populated RAM plus 256 MiB,
small packets first; the search for images reads at most 4 GiB. The numbers of packet sets, image
headers and rejects that are kept are limited, too. What a limit leaves out is a reject that says
so.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from itertools import zip_longest

from openrbu.errors import DamagedInputError
from openrbu.formats import hdr
from openrbu.formats.hdr import Header
from openrbu.formats.image_check import ImageState
from openrbu.formats.packet_header import PACKET_MAGIC, PasswordItem, parse_password_item
from openrbu.memory.any_alignment import MAX_PLACES, Places, places_anywhere, places_at
from openrbu.memory.image_search import ImageSearch
from openrbu.memory.packet_copies import differing_copies
from openrbu.memory.packet_search import Packet, packets_at
from openrbu.memory.page_search import pages_beginning_with
from openrbu.memory.physical import ReadableMemory
from openrbu.memory.ram_array import RamArray
from openrbu.memory.rejects import Rejects
from openrbu.memory.search_result import (
    NOTHING,
    DamagedPacket,
    DifferingCopy,
    FoundHeader,
    FoundImage,
    FoundSet,
    Reject,
    SearchResult,
)
from openrbu.units import (
    BIOS_SEARCH_END,
    BIOS_SEARCH_START,
    PAGE_SIZE,
    PhysAddr,
)

__all__ = [
    "DamagedPacket",
    "DifferingCopy",
    "FoundHeader",
    "FoundImage",
    "FoundSet",
    "Reject",
    "SearchResult",
    "search",
]

MAX_PACKET_SETS = 64
MAX_IMAGE_HEADERS = 4096
_MAX_CONFLICTS = 10


def search(
    memory: ReadableMemory,
    start: PhysAddr = BIOS_SEARCH_START,
    end: PhysAddr = BIOS_SEARCH_END,
    *,
    flash_size_bytes: int | None = None,
    any_alignment: bool = False,
) -> SearchResult:
    """Find all packets and images that begin at the start of a page and lie wholly in [start, end).
    With `any_alignment` they may begin at any byte.

    An image counts when header, data of `flash_size_bytes` and the right check words follow each
    other in RAM without a gap. If that size is None, the check words are searched up to 64 MiB
    after the header.
    """
    if any_alignment:
        places = places_anywhere(memory, start, end)
        return search_places(memory, start, end, places, any_alignment=True)
    pages = list(pages_beginning_with(memory, start, end, PACKET_MAGIC, hdr.MAGIC_WORD))
    if not pages:
        return NOTHING
    every = places_at(pages, PhysAddr(0), memory.regions[-1].end)
    return search_places(memory, start, end, every, flash_size_bytes=flash_size_bytes)


def search_places(
    memory: ReadableMemory,
    start: PhysAddr,
    end: PhysAddr,
    places: Places,
    *,
    flash_size_bytes: int | None = None,
    any_alignment: bool = False,
) -> SearchResult:
    """`search`, where what begins like a packet or an image was found before."""
    rejects = Rejects()
    if places.ended_at is not None:
        why = f"not searched from here on: over {MAX_PLACES} places begin like a packet or an image"
        rejects.add([places.ended_at], why)
    ram = RamArray(memory, start, end, to_pages=not any_alignment)
    return _search(ram, places.packets, places.images, flash_size_bytes, rejects)


def _search(
    ram: RamArray,
    packets: Sequence[int],
    images: Sequence[int],
    flash_size_bytes: int | None,
    rejects: Rejects,
) -> SearchResult:
    """What begins where a packet or an image may begin."""
    sets = _find_sets(ram, packets, rejects)
    told = _headers_in(sets)  # with their sets
    images = [at for at in images if at not in told]
    headers, whole = _find_images(ram, images, flash_size_bytes, rejects)
    return SearchResult(
        packet_sets=tuple(sets),
        images=tuple(whole),
        headers=tuple(headers),
        rejects=tuple(sorted(rejects.kept, key=lambda reject: reject.address)),
        reject_count=rejects.count,
        damaged=tuple(sorted(rejects.damaged, key=lambda packet: packet.address)),
        damaged_count=rejects.damaged_count,
    )


def _find_sets(ram: RamArray, addresses: Sequence[int], rejects: Rejects) -> list[FoundSet]:
    """The valid packets at these pages, by set; sets in the sequence of their lowest packets."""
    sets: dict[int, list[Packet]] = {}
    for packet in packets_at(ram, addresses, rejects):
        sets.setdefault(packet.set_id, []).append(packet)
    members = list(sets.values())
    for each in members[MAX_PACKET_SETS:]:
        rejects.add(
            [packet.address for packet in each],
            f"packet: not used, memory has packets of more than {MAX_PACKET_SETS} sets",
        )
    return [_make_set(ram, each) for each in members[:MAX_PACKET_SETS]]


def _make_set(ram: RamArray, packets: list[Packet]) -> FoundSet:
    """Make the set of the valid packets that have one set ID. Their addresses ascend."""
    model = next((each for each in packets if each.number), packets[0])
    shape = (model.total, model.header_size_bytes)
    alike = [
        each
        for each in packets
        if (each.total, each.header_size_bytes) == shape
        and (each.number == 0 or each.size_bytes == model.size_bytes)
    ]
    conflicts: list[str] = []
    if len(alike) < len(packets):
        first = next(one for one, other in zip_longest(packets, alike) if one != other)
        conflicts.append(
            f"{len(packets) - len(alike)} packets have another total, packet size or header size "
            f"than the others, the first one at {first.address:#x}"
        )
    differing = differing_copies(ram, alike)
    conflicts += _differing_texts(differing)
    copies: dict[int, list[PhysAddr]] = {}
    for each in alike:
        copies.setdefault(each.number, []).append(each.address)
    places = {number: tuple(copies[number]) for number in sorted(copies)}
    packet_0_size, password = 0, PasswordItem(present=False)
    if 0 in places:
        packet_0_size = next(each.size_bytes for each in alike if each.number == 0)
        packet_0 = ram.data(places[0][0], packet_0_size)
        password = parse_password_item(packet_0[model.header_size_bytes :])
    return FoundSet(
        set_id=model.set_id,
        total=model.total,
        packet_size_bytes=model.size_bytes,
        packet_0_size_bytes=packet_0_size,
        header_size_bytes=model.header_size_bytes,
        places=places,
        conflicts=tuple(conflicts),
        password=password,
        image_header=_image_header(ram, places, model.header_size_bytes, model.size_bytes),
        differing=differing,
    )


def _headers_in(sets: Sequence[FoundSet]) -> set[int]:
    """Where the data of the sets' packets with the number 1 begins, off a page. (At the start of a
    page a BIOS would find it.)"""
    begins = (at + found.header_size_bytes for found in sets for at in found.places.get(1, ()))
    return {at for at in begins if at % PAGE_SIZE}


def _image_header(
    ram: RamArray,
    places: Mapping[int, tuple[PhysAddr, ...]],
    header_size_bytes: int,
    packet_size_bytes: int,
) -> Header | None:
    """The image header at the start of packet 1's data; None if there is no valid one."""
    if 1 not in places:
        return None
    start = PhysAddr(places[1][0] + header_size_bytes)
    with contextlib.suppress(DamagedInputError):
        return Header.parse(ram.data(start, packet_size_bytes - header_size_bytes))
    return None


def _differing_texts(differing: tuple[DifferingCopy, ...]) -> list[str]:
    says = [
        f"packet {each.number} at {each.lowest:#x} and at {each.address:#x} differ"
        for each in differing[:_MAX_CONFLICTS]
    ]
    if len(differing) > _MAX_CONFLICTS:
        says.append(f"{len(differing) - _MAX_CONFLICTS} more copies of packets differ")
    return says


def _find_images(
    ram: RamArray, addresses: Sequence[int], flash_size_bytes: int | None, rejects: Rejects
) -> tuple[list[FoundHeader], list[FoundImage]]:
    """The valid headers at these pages, and those of them that begin a whole image."""
    parsed: list[tuple[PhysAddr, Header]] = []
    headers: list[FoundHeader] = []
    images: list[FoundImage] = []
    image_search = ImageSearch(ram, flash_size_bytes)
    for address in map(PhysAddr, addresses[:MAX_IMAGE_HEADERS]):
        try:
            room = ram.bytes_left_at(address)
            parsed.append((address, hdr.Header.parse(ram.data(address, min(PAGE_SIZE, room)))))
        except DamagedInputError as error:
            rejects.add([address], f"image: {error}")
    bodies = image_search.check_bodies(parsed)
    for (address, header), body in zip(parsed, bodies, strict=True):
        found = FoundHeader(address, header, body.state, body.size_bytes, body.is_limited)
        headers.append(found)
        if body.state is ImageState.WHOLE:
            images.append(
                FoundImage(address, header, body.size_bytes, body.data_word, body.whole_word)
            )
        else:
            rejects.add([address], body.why)
    rejects.add(
        addresses[MAX_IMAGE_HEADERS:],
        f"image: not checked, memory has more than {MAX_IMAGE_HEADERS} headers",
    )
    return headers, images
