"""What a search through RAM finds: packet sets, images, headers, and what only looked like them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from openrbu.errors import DamagedInputError
from openrbu.formats.hdr import Header
from openrbu.formats.judgement import ImageState
from openrbu.formats.packet import PasswordItem, set_id_text
from openrbu.memory.physical import ReadableMemory, Region, joined
from openrbu.units import PhysAddr


@dataclass(frozen=True, slots=True)
class Reject:
    """A page that begins like a packet or an image, and why it is none."""

    address: PhysAddr
    why: str


@dataclass(frozen=True, slots=True)
class FoundHeader:
    """An image header at a page's start, and what is behind it.

    `state` is `WHOLE`; `DATA_CHANGED`, where an image of `size_bytes` was overwritten; or `CUT`,
    where there is no end of one.
    """

    address: PhysAddr
    header: Header
    state: ImageState
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class FoundImage:
    """A whole image without a gap, its check words right.

    `size_bytes` is header, data and words; `data_word` the word over the data.
    """

    address: PhysAddr
    header: Header
    size_bytes: int
    data_word: int


@dataclass(frozen=True, slots=True)
class FoundSet:
    """The sound packets of one set ID.

    `places` has for each packet number the addresses where it lies, ascending; several where there
    are copies of it. `conflicts` says in words what about the packets can't be of one set
    (docs/reference/packets.md, P1 and P5): such a set is not usable. A packet that differs in more
    than its number from the lowest one is a conflict and not in `places`. `packet_size_bytes` is
    that of packets 1 and up, where there are any. `password` is absent when packet 0 is missing.
    """

    set_id: int
    total: int
    packet_size_bytes: int
    packet_0_size_bytes: int
    header_size_bytes: int
    places: Mapping[int, tuple[PhysAddr, ...]]
    conflicts: tuple[str, ...]
    password: PasswordItem
    image_header: Header | None = None
    """That of the image in them: None where packet 1 is missing, or begins with none."""

    @property
    def missing(self) -> tuple[int, ...]:
        """The numbers that no sound packet has, ascending."""
        return tuple(number for number in range(self.total) if number not in self.places)

    @property
    def is_complete(self) -> bool:
        """Whether no packet is missing. See `conflicts` too."""
        return len(self.places) == self.total

    @property
    def lowest(self) -> PhysAddr:
        """The lowest address of a packet, copies included."""
        return min(places[0] for places in self.places.values())

    @property
    def highest(self) -> PhysAddr:
        """The highest address of a packet, copies included."""
        return max(places[-1] for places in self.places.values())

    def size_of(self, number: int) -> int:
        """The bytes of a packet; packet 0 may have a size of its own."""
        return self.packet_size_bytes if number else self.packet_0_size_bytes

    @property
    def extents(self) -> tuple[Region, ...]:
        """Where the packets lie that `assemble` takes, ascending; adjacent ones are one extent."""
        lowest = sorted((at[0], number) for number, at in self.places.items())
        return joined(Region(at, PhysAddr(at + self.size_of(number))) for at, number in lowest)

    @property
    def extent_count(self) -> int:
        return len(self.extents)

    def assemble(self, memory: ReadableMemory) -> bytes:
        """The image, zero padded to the last packet's end, out of the lowest copy of each packet.

        :raise DamagedInputError: when a packet is missing or there are conflicts.
        """
        if self.conflicts:
            raise DamagedInputError(f"packet set {set_id_text(self.set_id)}: {self.conflicts[0]}")
        if not self.is_complete:
            raise DamagedInputError(
                f"packet set {set_id_text(self.set_id)} lacks {len(self.missing)} of "
                f"{self.total} packets, packet {self.missing[0]} first"
            )
        skip = self.header_size_bytes
        size = self.packet_size_bytes - skip
        places = self.places
        return b"".join(
            memory.view(PhysAddr(places[number][0] + skip), size) for number in range(1, self.total)
        )


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search found. Each tuple ascends by (lowest) address.

    `headers` has every header that parses, those of `images` included (of the first 4096 pages
    that begin like one). `rejects` keeps up to 1000; `reject_count` counts them all.
    """

    packet_sets: tuple[FoundSet, ...]
    images: tuple[FoundImage, ...]
    headers: tuple[FoundHeader, ...]
    rejects: tuple[Reject, ...]
    reject_count: int
