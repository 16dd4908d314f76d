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
from typing import Any

from openrbu.errors import DamagedInputError
from openrbu.formats import hdr
from openrbu.formats.hdr import Header
from openrbu.formats.image_check import ImageState
from openrbu.formats.packet import (
    PACKET_HEADER,
    PACKET_MAGIC,
    PARAGRAPH_BYTES,
    PacketHeader,
    PasswordItem,
    parse_password_item,
)
from openrbu.formats.packet_header import HEADER_RULES
from openrbu.lazy import np, npt
from openrbu.memory.any_alignment import MAX_PLACES, Places, places_anywhere, places_at
from openrbu.memory.image_search import ImageSearch
from openrbu.memory.packet_sums import groups, packet_rows, packet_sums
from openrbu.memory.page_search import pages_beginning_with
from openrbu.memory.physical import ReadableMemory
from openrbu.memory.ram_array import Addresses, RamArray
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
    KIB,
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
MAX_REJECTS = 1000
_CUT_BY_END = "packet: cut by the end of RAM"
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
    rejects = _Rejects()
    if places.ended_at is not None:
        why = f"not searched from here on: over {MAX_PLACES} places begin like a packet or an image"
        rejects.add_one(places.ended_at, why)
    ram = RamArray(memory, start, end, to_pages=not any_alignment)
    return _search(ram, places.packets, places.images, flash_size_bytes, rejects)


def _search(
    ram: RamArray,
    packets: Addresses,
    images: Addresses,
    flash_size_bytes: int | None,
    rejects: _Rejects,
) -> SearchResult:
    """What begins where a packet or an image may begin."""
    sets = _find_sets(ram, packets, rejects)
    told = _headers_in(sets)  # with their sets
    images = np.array([at for at in images.tolist() if at not in told], np.int64)
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


class _Rejects:
    """Keeps the first `MAX_REJECTS` rejects, and as many packets with a wrong checksum; counts
    all."""

    def __init__(self) -> None:
        self.kept: list[Reject] = []
        self.count = 0
        self.damaged: list[DamagedPacket] = []
        self.damaged_count = 0

    def add(self, addresses: Addresses, why: str) -> None:
        self.count += len(addresses)
        room = MAX_REJECTS - len(self.kept)
        self.kept += [Reject(PhysAddr(address), why) for address in addresses[:room].tolist()]

    def add_one(self, address: PhysAddr, why: str) -> None:
        self.add(np.array([address]), why)


class _Candidates:
    """Pages that may be packets; `drop` removes those that are not.

    `addresses` and `headers` (of `PACKET_HEADER`'s dtype) both have shape (n,).
    """

    def __init__(self, ram: RamArray, addresses: Addresses, rejects: _Rejects) -> None:
        self.addresses = addresses
        self.headers = ram.at(addresses, PACKET_HEADER.dtype)
        self._rejects = rejects

    @property
    def sizes(self) -> Addresses:
        """The size of each packet in bytes, shape (n,)."""
        sizes: Addresses = self.headers["pktSize"].astype(np.int64) * KIB
        return sizes

    def drop(self, bad: npt.NDArray[np.bool_], why: str) -> None:
        if bad.any():
            self._rejects.add(self.addresses[bad], why)
            self.addresses, self.headers = self.addresses[~bad], self.headers[~bad]

    def drop_damaged(self, sums: npt.NDArray[np.uint16]) -> None:
        """Drop those whose words do not add up to 0; `sums` has shape (n,)."""
        bad = np.flatnonzero(sums)
        self._rejects.damaged_count += len(bad)
        self._rejects.damaged += [
            DamagedPacket(
                PhysAddr(int(self.addresses[place])),
                PacketHeader.parse(self.headers[place].tobytes()),
                int(sums[place]),
            )
            for place in bad[:MAX_REJECTS].tolist()
        ]
        self.drop(sums != 0, "packet: wrong checksum")


def _find_sets(ram: RamArray, addresses: Addresses, rejects: _Rejects) -> list[FoundSet]:
    """The valid packets at these pages, by set."""
    fits = ram.bytes_left(addresses) >= PACKET_HEADER.size_bytes
    rejects.add(addresses[~fits], _CUT_BY_END)
    found = _Candidates(ram, addresses[fits], rejects)
    for rule in HEADER_RULES:
        found.drop(rule.is_broken(found.headers), f"packet: {rule.field} {rule.says}")
    found.drop(found.sizes > ram.bytes_left(found.addresses), _CUT_BY_END)
    sums, affordable = packet_sums(ram, found.addresses, found.sizes)
    found.drop(~affordable, "packet: not checked, too many overlapping ones claim to be here")
    found.drop_damaged(sums[affordable])
    sets = sorted(groups(found.headers["pktSetId"]), key=lambda members: int(members[0]))
    for members in sets[MAX_PACKET_SETS:]:
        rejects.add(
            found.addresses[members],
            f"packet: not used, memory has packets of more than {MAX_PACKET_SETS} sets",
        )
    return [
        _make_set(ram, found.addresses[members], found.headers[members])
        for members in sets[:MAX_PACKET_SETS]
    ]


def _make_set(ram: RamArray, addresses: Addresses, headers: npt.NDArray[Any]) -> FoundSet:
    """Make the set of the valid packets that have one set ID. `addresses` ascend."""
    with_data = np.flatnonzero(headers["pktNum"])
    model = headers[with_data[0] if len(with_data) else 0]
    alike = (headers["totPkts"] == model["totPkts"]) & (headers["hdrSize"] == model["hdrSize"])
    alike &= (headers["pktNum"] == 0) | (headers["pktSize"] == model["pktSize"])
    conflicts: list[str] = []
    if not alike.all():
        conflicts.append(
            f"{int((~alike).sum())} packets have another total, packet size or header size than "
            f"the others, the first one at {int(addresses[~alike][0]):#x}"
        )
        addresses, headers = addresses[alike], headers[alike]
    differing = _differing_copies(ram, addresses, headers)
    conflicts += _differing_texts(differing)
    copies: dict[int, list[PhysAddr]] = {}
    for number, address in zip(headers["pktNum"].tolist(), addresses.tolist(), strict=True):
        copies.setdefault(number, []).append(PhysAddr(address))
    places = {number: tuple(copies[number]) for number in sorted(copies)}
    header_size = int(model["hdrSize"]) * PARAGRAPH_BYTES
    packet_0_size, password = 0, PasswordItem(present=False)
    if 0 in places:
        packet_0_size = int(headers["pktSize"][headers["pktNum"] == 0][0]) * KIB
        packet_0 = ram.data(places[0][0], packet_0_size)
        password = parse_password_item(packet_0[header_size:])
    return FoundSet(
        set_id=int(model["pktSetId"]),
        total=int(model["totPkts"]),
        packet_size_bytes=int(model["pktSize"]) * KIB,
        packet_0_size_bytes=packet_0_size,
        header_size_bytes=header_size,
        places=places,
        conflicts=tuple(conflicts),
        password=password,
        image_header=_image_header(ram, places, header_size, int(model["pktSize"]) * KIB),
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


def _differing_copies(
    ram: RamArray, addresses: Addresses, headers: npt.NDArray[Any]
) -> tuple[DifferingCopy, ...]:
    """Each packet that differs from the lowest packet with the same number."""
    numbers = headers["pktNum"]
    first = np.zeros(0x10000, np.intp)
    first[numbers[::-1]] = np.arange(len(numbers))[::-1]  # the lowest address is written last
    lowest = first[numbers]
    copies = np.flatnonzero(lowest != np.arange(len(numbers)))
    unequal = np.zeros(len(numbers), np.bool_)
    unequal[copies] = headers[copies] != headers[lowest[copies]]
    same_size = copies[~unequal[copies]]
    for group in groups(headers["pktSize"][same_size]):
        members = same_size[group]
        size = int(headers["pktSize"][members[0]]) * KIB
        originals = packet_rows(ram, addresses[lowest[members]], size)
        for (part, rows), (_, original) in zip(
            packet_rows(ram, addresses[members], size), originals, strict=True
        ):
            unequal[members[part]] = (rows != original).any(axis=1)
    different = np.flatnonzero(unequal)
    columns = (numbers[different], addresses[different], addresses[lowest[different]])
    return tuple(
        DifferingCopy(number, PhysAddr(address), PhysAddr(original))
        for number, address, original in zip(*(each.tolist() for each in columns), strict=True)
    )


def _differing_texts(differing: tuple[DifferingCopy, ...]) -> list[str]:
    says = [
        f"packet {each.number} at {each.lowest:#x} and at {each.address:#x} differ"
        for each in differing[:_MAX_CONFLICTS]
    ]
    if len(differing) > _MAX_CONFLICTS:
        says.append(f"{len(differing) - _MAX_CONFLICTS} more copies of packets differ")
    return says


def _find_images(
    ram: RamArray, addresses: Addresses, flash_size_bytes: int | None, rejects: _Rejects
) -> tuple[list[FoundHeader], list[FoundImage]]:
    """The valid headers at these pages, and those of them that begin a whole image."""
    parsed: list[tuple[PhysAddr, Header]] = []
    headers: list[FoundHeader] = []
    images: list[FoundImage] = []
    image_search = ImageSearch(ram, flash_size_bytes)
    for address in map(PhysAddr, addresses[:MAX_IMAGE_HEADERS].tolist()):
        try:
            room = int(ram.bytes_left(np.array([address]))[0])
            parsed.append((address, hdr.Header.parse(ram.data(address, min(PAGE_SIZE, room)))))
        except DamagedInputError as error:
            rejects.add_one(address, f"image: {error}")
    bodies = image_search.check_bodies(parsed)
    for (address, header), body in zip(parsed, bodies, strict=True):
        found = FoundHeader(address, header, body.state, body.size_bytes, body.is_limited)
        headers.append(found)
        if body.state is ImageState.WHOLE:
            images.append(
                FoundImage(address, header, body.size_bytes, body.data_word, body.whole_word)
            )
        else:
            rejects.add_one(address, body.why)
    rejects.add(
        addresses[MAX_IMAGE_HEADERS:],
        f"image: not checked, memory has more than {MAX_IMAGE_HEADERS} headers",
    )
    return headers, images
