"""What a rule set is, and its results: the types that all rule sets share.

A rule set is what one kind of BIOS does with a staged update: where it searches, in which sequence,
what it checks, which of several updates it takes. It never writes to memory. So both the BIOS, at a
restart, and the tool, before a restart, use it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from openrbu.buffers import same_bytes
from openrbu.errors import OpenRbuError
from openrbu.formats.dell import CompletionCode
from openrbu.formats.hdr import Image, SystemId
from openrbu.formats.revision import MAX_REVISION
from openrbu.memory.physical import ReadableMemory, Region, joined
from openrbu.units import PhysAddr

_SYSTEM_ID_BITS = 0x1FFF


@dataclass(frozen=True, slots=True)
class Identity:
    """What a BIOS knows about its own machine.

    `revision` is the hardware's (0 to 7). `features` is the running BIOS's own feature word (0:
    none). `flash_size_bytes` is the exact size of the data in an image. `knows_packets` is what the
    machine's RBU structure says. `password_crc` is the CRC of its admin password, None without one.
    """

    system_id: int | None
    flash_size_bytes: int
    revision: int = 0
    features: int = 0
    knows_packets: bool = True
    password_crc: int | None = None

    @property
    def system_word(self) -> int | None:
        """The u16 that an image's system list has for this machine: 13 bits of ID, 3 of revision.

        Higher bits of an ID are ignored (run: PowerEdge 2950, Latitude D500).
        """
        if self.system_id is None:
            return None
        return SystemId(self.system_id & _SYSTEM_ID_BITS, self.revision & MAX_REVISION).pack()


@dataclass(frozen=True, slots=True)
class FoundUpdate:
    """The update that the BIOS takes from memory.

    `mode` is `mono` or `packet`. `extents` are where it lies. `copies`: how many copies of it are
    in memory; `extents` are those of the one that the BIOS takes.
    """

    mode: str
    image: Image
    extents: tuple[Region, ...]
    copies: int = 1

    def has(self, image: Image) -> bool:
        """Whether the update is this image, wherever it lies."""
        return self.image.header == image.header and same_bytes(self.image.body, image.body)


class RejectedError(OpenRbuError):
    """The BIOS refuses the update; `code` is what it records."""

    kind = "rejected"

    def __init__(self, code: CompletionCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class TokenCleared(Enum):
    """When the activation token is cleared."""

    FIRST = "first"
    """Before memory is searched, so that a bad image is not tried at each start."""

    LAST = "last"
    """At the end, together with the result."""


@dataclass(frozen=True, slots=True)
class RuleSet:
    """What one kind of BIOS does.

    `records_in_cmos`: the result is recorded in CMOS, too; see `bios.cmos_result`.
    `searches_above_4_gib`: whether it searches for packets there. `real_data_bytes`: how much data
    the real BIOS demands in an image, None if there is no real one; a virtual machine demands as
    much as its flash has. `searched` names the pages that it searches for an image, for people.
    `find_update` returns what such a BIOS takes from a memory, or raises
    `RejectedError`.
    """

    name: str
    summary: str
    token_cleared: TokenCleared
    records_in_cmos: bool
    knows_packets: bool
    searches_above_4_gib: bool
    real_data_bytes: int | None
    searched: str
    find_update: Callable[[ReadableMemory, Identity], FoundUpdate]


# -- the steps of a search: for the comparison with the real code ----------------------------------


@dataclass(frozen=True, slots=True)
class Candidate:
    """A page that begins like an image, and the name of the first check that it failed."""

    address: PhysAddr
    failed: str


@dataclass(frozen=True, slots=True)
class MonoSearch:
    """The result of a search for an image in one piece.

    `accepted` is the address of the image that is taken, None if there is none. `candidates` are
    those that failed, in the sequence of the search. `is_cut_short`: a failed check ended the
    search. `is_dock`: the image is a dock's firmware, not a BIOS. `unchecked` counts the candidates
    that were not checked because of the limit of work.
    """

    accepted: PhysAddr | None
    candidates: tuple[Candidate, ...]
    is_cut_short: bool = False
    is_dock: bool = False
    unchecked: int = 0


@dataclass(frozen=True, slots=True)
class Collected:
    """The result of collecting packets. Sizes in bytes.

    `reason` says why the set is not complete; it is empty if it is. `set_id` is None if no valid
    packet was found; `total`, `data_size`, `header_size` are then 0. `seen` counts the pages that
    begin like a packet, `sound` the valid packets. `taken` are the addresses from which packets
    were taken, in the sequence of the search; packets may have been moved there, and `sources` are
    the addresses where they were before. `password_crc` is the CRC in packet 0, None without one.
    `image` is the joined image of a complete set, else empty. `leaves_ram`: the real BIOS would not
    stop reading or writing.
    """

    is_complete: bool
    reason: str
    set_id: int | None = None
    total: int = 0
    data_size: int = 0
    header_size: int = 0
    seen: int = 0
    sound: int = 0
    taken: tuple[PhysAddr, ...] = ()
    sources: tuple[PhysAddr, ...] = ()
    password_crc: int | None = None
    image: bytes = b""
    leaves_ram: bool = False

    @property
    def extents(self) -> tuple[Region, ...]:
        """Where the packets were before any was moved, ascending; adjacent ones are one extent."""
        size = self.header_size + self.data_size
        return joined((at, at + size) for at in sorted(self.sources))


@dataclass(frozen=True, slots=True)
class Trace:
    """All searches of a BIOS: for an image in one piece; for packets; again for one in one piece.

    A search that was not done is None.
    """

    first: MonoSearch
    packets: Collected | None = None
    second: MonoSearch | None = None

    @property
    def accepted(self) -> PhysAddr | None:
        """The address of the image that is taken, None if there is none."""
        last = self.first if self.second is None else self.second
        return last.accepted
