"""The result of a search through RAM: packet sets, images, headers, and rejected pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from openrbu.errors import DamagedInputError
from openrbu.formats.hdr import Header
from openrbu.formats.image_check import ImageState
from openrbu.formats.packet import PacketHeader, PasswordItem, set_id_text
from openrbu.memory.physical import ReadableMemory, Region, joined
from openrbu.units import PAGE_SIZE, PhysAddr


@dataclass(frozen=True, slots=True)
class Reject:
    """A page that begins like a packet or an image but is not one, and the reason."""

    address: PhysAddr
    why: str


@dataclass(frozen=True, slots=True)
class FoundHeader:
    """An image header at the start of a page, and what follows it.

    `state` is `WHOLE`, `DATA_CHANGED` (an image of `size_bytes` was overwritten), `HEADER_CHANGED`
    (only its header was) or `CUT` (no end of an image was found). `is_limited`: there are so many
    headers that not everything was tried to find its end.
    """

    address: PhysAddr
    header: Header
    state: ImageState
    size_bytes: int = 0
    is_limited: bool = False


@dataclass(frozen=True, slots=True)
class FoundImage:
    """A whole image without a gap, with the right check words.

    `size_bytes` counts header, data and check words. `data_word` is the check word over the data,
    `whole_word` the one over header, data and `data_word`.
    """

    address: PhysAddr
    header: Header
    size_bytes: int
    data_word: int
    whole_word: int = 0


@dataclass(frozen=True, slots=True)
class DifferingCopy:
    """A packet that differs from the lowest packet with the same set ID and number."""

    number: int
    address: PhysAddr
    lowest: PhysAddr
    """The address of that lowest packet."""


@dataclass(frozen=True, slots=True)
class DamagedPacket:
    """A packet with a header that follows the rules and a wrong checksum.

    `word_sum` is the sum of its 16-bit words modulo 65536, which is 0 in an intact packet.
    """

    address: PhysAddr
    header: PacketHeader
    word_sum: int


@dataclass(frozen=True, slots=True)
class FoundSet:
    """The valid packets that have one set ID.

    `places` has for each packet number the addresses of the packet and its copies, ascending.
    `conflicts` says how the packets contradict each other (docs/reference/packets.md, P1 and P5);
    a set with conflicts can't be used. A packet whose total, packet size or header size differs
    from that of the lowest packet with data is a conflict and not in `places`. `packet_size_bytes`
    is the size of packets 1 and up, if there are any. `password` is absent when packet 0 is
    missing.
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
    """The header of the image in the packets; None if packet 1 is missing or has no valid one."""

    differing: tuple[DifferingCopy, ...] = ()
    """The copies that differ, ascending by address; `conflicts` has a text about the first ones."""

    @property
    def is_usable(self) -> bool:
        """Whether its image can be joined: no packet is missing, and none contradicts another."""
        return self.is_complete and not self.conflicts

    @property
    def place_count(self) -> int:
        """How many packets were found, copies included."""
        return sum(map(len, self.places.values()))

    @property
    def missing(self) -> tuple[int, ...]:
        """The numbers of the missing packets, ascending."""
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
        """The size of a packet in bytes; packet 0 may have a different size."""
        return self.packet_size_bytes if number else self.packet_0_size_bytes

    @property
    def extents(self) -> tuple[Region, ...]:
        """Where the packets are that `assemble` reads, ascending; adjacent ones are one extent."""
        lowest = sorted((at[0], number) for number, at in self.places.items())
        return joined((at, at + self.size_of(number)) for at, number in lowest)

    @property
    def extent_count(self) -> int:
        return len(self.extents)

    @property
    def all_extents(self) -> tuple[Region, ...]:
        """Where all packets are, copies included, ascending; adjacent ones are one extent."""
        every = sorted((at, number) for number, places in self.places.items() for at in places)
        return joined((at, at + self.size_of(number)) for at, number in every)

    @property
    def joined_size_bytes(self) -> int:
        """The size of what `assemble` makes of a complete set."""
        return (self.total - 1) * self.data_size_bytes

    @property
    def data_size_bytes(self) -> int:
        """How much of the image each packet has; the last one may have zeros at its end."""
        return self.packet_size_bytes - self.header_size_bytes

    def assemble(self, memory: ReadableMemory) -> bytes:
        """The image, from the lowest copy of each packet, with the zeros at the end of the last.

        :raise DamagedInputError: when a packet is missing or there are conflicts.
        """
        if self.conflicts:
            raise DamagedInputError(f"packet set {set_id_text(self.set_id)}: {self.conflicts[0]}")
        if not self.is_complete:
            raise DamagedInputError(
                f"packet set {set_id_text(self.set_id)}: {len(self.missing)} of {self.total} "
                f"packets are missing, the first is packet {self.missing[0]}"
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

    `headers` has every valid header, those of `images` included (of the first 4096 pages that begin
    like one). `rejects` has the first 1000 rejects found; `reject_count` counts all. Packets with a
    wrong checksum are rejects; `damaged` has the first 1000 of them, and `damaged_count` counts
    all.
    """

    packet_sets: tuple[FoundSet, ...]
    images: tuple[FoundImage, ...]
    headers: tuple[FoundHeader, ...]
    rejects: tuple[Reject, ...]
    reject_count: int
    damaged: tuple[DamagedPacket, ...] = ()
    damaged_count: int = 0

    @property
    def off_page_count(self) -> int:
        """How many of the packets and headers begin off a page, where no BIOS searches."""
        places = (
            at for each in self.packet_sets for all_at in each.places.values() for at in all_at
        )
        begins = (*places, *(each.address for each in self.headers))
        return sum(address % PAGE_SIZE != 0 for address in begins)


NOTHING = SearchResult((), (), (), (), 0)
