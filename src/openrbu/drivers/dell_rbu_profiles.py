"""The differences of `dell_rbu` between kernels, as named behaviours.

Theory of operation. The driver asks its profile *what* to do and never *which kernel* it is: each
difference between the document and the kernels is one field here and one `if` in the driver.

The table of fields and profiles: docs/reference/driver-files.md, D7. `documented` does what the
kernel's document says.
`linux` was compared with Debian's 6.1.192. The other profiles follow published descriptions of
kernels' bugs (CVE-2025-38197 for those of 5.7); these kernels were not tried here.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from types import MappingProxyType

from openrbu.errors import KernelError, UsageError
from openrbu.units import BIOS_SEARCH_END, MAX_BLOCK_BYTES, PAGE_SIZE, PhysAddr


class KernelOopsError(KernelError):
    """The kernel crashed (an oops) in the call: nothing works until the machine is restarted."""

    kind = "kernel_died"

    def __init__(self, detail: str) -> None:
        super().__init__(errno.EIO, detail=f"the kernel crashed: {detail}")
        self.detail = detail


class BadPacketSize(Enum):
    """What happens when text that is not a number is written to `packet_size`."""

    KEEP = "keep"  # the packets are dropped, the value stays
    GARBAGE = "garbage"  # the packets are dropped, the value becomes GARBAGE_PACKET_SIZE
    REFUSE = "refuse"  # EINVAL, the packets stay; also, fewer texts count as numbers


GARBAGE_PACKET_SIZE = 0x5A5A5A5A
"""Stands for the unknown value on an old kernel's stack. It is larger than any real packet."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One known behaviour of the driver. `summary`: whose it is, in one line.

    - `entry_at_load`: loading the module makes the firmware entry. If not, `init` makes it.
    - `entry_comes_back`: after a load that delivered data there is a new entry.
    - `data_before_loading`: an entry accepts data before `1` is written, and `1` discards them. If
      not, such a write returns ENODEV.
    - `packets_below`: packets lie wholly below this address, up to which a BIOS searches. None:
      they are ordinary kernel pages, and memory above 4 GiB is used first. That is why packet mode
      fails on machines with more RAM than fits below 4 GiB: the BIOS never finds the packets.
    - `transfer_limit_bytes`: one read or write of a binary file moves at most this much; the caller
      has to call again. None: no limit (every kernel has one).
    - `most_packets_below_floor`: if more packets than this would fit below `allocation_floor`, none
      can be staged. With the default floor, this excludes only a packet size of 1. (The kernel's
      list of these packets would take over 4 MiB, at 8 bytes each.) None: no limit.
    - `bad_packet_size`: see `BadPacketSize`.
    - `skips_first_packet`: when packets are read back, the first of the list is left out, and as
      many bytes at the end are not filled (they are zeros here). The size is right.
    - `oopses_on_clearing`: to clear a packet list that is not empty crashes the kernel, after all
      packets except the first were cleared.
    - `clears_past_a_short_packet`: to clear a packet clears `packet_size` bytes, even if the packet
      is shorter and so has a smaller block: the memory after that block is cleared, too. Packets of
      up to a page are not affected.
    """

    name: str
    summary: str = ""
    entry_at_load: bool = False
    entry_comes_back: bool = False
    data_before_loading: bool = True
    packets_below: PhysAddr | None = None
    transfer_limit_bytes: int | None = PAGE_SIZE
    most_packets_below_floor: int | None = MAX_BLOCK_BYTES // 8
    bad_packet_size: BadPacketSize = BadPacketSize.GARBAGE
    skips_first_packet: bool = False
    oopses_on_clearing: bool = False
    clears_past_a_short_packet: bool = False


_DOCUMENTED = Profile(
    "documented",
    "as the kernel's document says (the default)",
    entry_at_load=True,
    entry_comes_back=True,
    data_before_loading=False,
    packets_below=BIOS_SEARCH_END,
    transfer_limit_bytes=None,
    most_packets_below_floor=None,
    bad_packet_size=BadPacketSize.KEEP,
)
_OLD = Profile("linux-2.6.16", "Linux 2.6.16 to 5.6: init makes the entry, packets go on any page")
_BROKEN = replace(
    _OLD,
    name="linux-5.7",
    summary="Linux 5.7 to 6.15: packets are read back wrong, and dropping them crashes the kernel",
    skips_first_packet=True,
    oopses_on_clearing=True,
    clears_past_a_short_packet=True,
)
_REPAIRED = replace(_OLD, name="linux-6.16", summary="Linux 6.16: those bugs are repaired")
_CURRENT = replace(
    _OLD,
    name="linux",
    summary="Linux 6.1, compared with the real one: refuses a packet_size that is no number",
    bad_packet_size=BadPacketSize.REFUSE,
)

PROFILES: Mapping[str, Profile] = MappingProxyType(
    {each.name: each for each in (_DOCUMENTED, _OLD, _BROKEN, _REPAIRED, _CURRENT)}
)
"""All profiles by name; `documented` is the default."""


def profile(name: str) -> Profile:
    """The profile of that name.

    :raise UsageError: when there is none.
    """
    try:
        return PROFILES[name]
    except KeyError:
        raise UsageError(
            f"there is no profile {name!r}; there are: {', '.join(PROFILES)}"
        ) from None
