"""What a rule set is, and what it says of a memory: the words that all rule sets share.

A rule set is what one kind of BIOS does with a staged update: where it looks, in which order, what
it checks, which of several finds it takes. It only looks: memory is never written, so it serves the
BIOS at a restart and the tool before one alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from openrbu.errors import OpenRbuError
from openrbu.formats.dell import CompletionCode
from openrbu.formats.hdr import Image, SystemId
from openrbu.formats.revision import MAX_REVISION
from openrbu.memory.physical import ReadableMemory, Region, joined
from openrbu.units import PhysAddr

_SYSTEM_ID_BITS = 0x1FFF


@dataclass(frozen=True, slots=True)
class Identity:
    """What a BIOS knows of its own machine.

    `revision` is the hardware's (0 to 7), `features` the running BIOS's own feature word (0: none),
    `flash_size_bytes` how much data an image has to carry, exactly. `knows_packets` is what the
    machine's RBU structure says. `password_crc` is that of its admin password, None without one.
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

        More bits of an ID do not count (run: PowerEdge 2950, Latitude D500).
        """
        if self.system_id is None:
            return None
        return SystemId(self.system_id & _SYSTEM_ID_BITS, self.revision & MAX_REVISION).pack()


@dataclass(frozen=True, slots=True)
class Find:
    """The update that the BIOS took: `mode` is `mono` or `packet`, `extents` where it lay.

    Of several `copies` it is the one that the BIOS takes.
    """

    mode: str
    image: Image
    extents: tuple[Region, ...]
    copies: int = 1


class RejectedError(OpenRbuError):
    """The BIOS does not take the update; `code` is what it records."""

    kind = "rejected"

    def __init__(self, code: CompletionCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code


class TokenCleared(Enum):
    """When the activation token is cleared."""

    FIRST = "first"
    """Before memory is looked at, so that a bad image can't loop."""

    LAST = "last"
    """When all is done, together with the result."""


@dataclass(frozen=True, slots=True)
class RuleSet:
    """What one kind of BIOS does.

    `records_in_cmos`: the result stands in CMOS too, see `bios.cmos_result`. `looks_above_4_gib`:
    for packets. `real_data_bytes`: how much data the real BIOS wants in an image, where there is
    one; ours wants as much as its flash has. `find` says what such a BIOS takes out of a memory, or
    raises `RejectedError`.
    """

    name: str
    summary: str
    token_cleared: TokenCleared
    records_in_cmos: bool
    knows_packets: bool
    looks_above_4_gib: bool
    real_data_bytes: int | None
    find: Callable[[ReadableMemory, Identity], Find]


# -- what happened, step by step: for the comparison with the real code ----------------------------


@dataclass(frozen=True, slots=True)
class Candidate:
    """A page that begins like an image, and the first check that it failed."""

    address: PhysAddr
    failed: str


@dataclass(frozen=True, slots=True)
class MonoSearch:
    """A search for an image in one piece. `candidates` are those that failed, in its order.

    `accepted` is where the image is that was taken, None without one. `is_cut_short`: a failed
    check ended the search. `is_dock`: what was taken is a dock's firmware, not a BIOS.
    `unchecked` counts candidates that would have been more work than anybody wants.
    """

    accepted: PhysAddr | None
    candidates: tuple[Candidate, ...]
    is_cut_short: bool = False
    is_dock: bool = False
    unchecked: int = 0


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collector of packets came to. Sizes in bytes.

    `reason` says why the set is not complete, empty where it is. `set_id` is None while no sound
    packet was met; `total`, `data_size`, `header_size` are then 0. `taken` are the addresses, in
    the order of the search, that packets were taken from, which may have been moved there;
    `sources` where each lay at first.
    `password_crc` is what packet 0 carries. `image` is what was put together, where complete.
    `runs_wild`: the real BIOS writes or reads without an end then.
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
    runs_wild: bool = False

    @property
    def extents(self) -> tuple[Region, ...]:
        """Where the packets lay at first, ascending; adjacent ones are one extent."""
        size = self.header_size + self.data_size
        return joined((at, at + size) for at in sorted(self.sources))


@dataclass(frozen=True, slots=True)
class Trace:
    """All that a BIOS did with a memory: in one piece; packets; once more in one piece.

    What was not done is None.
    """

    first: MonoSearch
    packets: Collected | None = None
    second: MonoSearch | None = None

    @property
    def accepted(self) -> PhysAddr | None:
        """Where the image is that is taken."""
        last = self.first if self.second is None else self.second
        return last.accepted
