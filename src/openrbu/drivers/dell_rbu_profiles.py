"""What `dell_rbu` does on which kernel, as named behaviours.

Theory of operation. The driver asks its profile *what* to do and never *which kernel* it is: each
difference between the document and the kernels is one field here, and one `if` in the driver.

==============================  ==========  ============  =========  ==========  =====
field                           documented  linux-2.6.16  linux-5.7  linux-6.16  linux
==============================  ==========  ============  =========  ==========  =====
`entry_at_load`                 yes
`entry_comes_back`              yes
`data_before_loading`                       yes           yes        yes         yes
`packets_below`                 4 GiB
`transfer_limit_bytes`                      4 KiB         4 KiB      4 KiB       4 KiB
`most_packets_below_floor`                  524,288       524,288    524,288     524,288
`bad_packet_size`               keep        garbage       garbage    garbage     refuse
`skips_first_packet`                                      yes
`dies_on_clearing`                                        yes
`clears_past_a_short_packet`                              yes
==============================  ==========  ============  =========  ==========  =====

Sources: docs/reference/driver-files.md, D7. `documented` does what the kernel's document says.
`linux` was compared with Debian's 6.1.192. The profiles in between are of kernels that were not
tried here, after published descriptions of their bugs (CVE-2025-38197 for those of 5.7).
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from types import MappingProxyType

from openrbu.errors import KernelError, UsageError
from openrbu.units import BIOS_SEARCH_END, MAX_BLOCK_BYTES, PAGE_SIZE, PhysAddr


class KernelDiedError(KernelError):
    """The kernel oopsed inside the call: nothing works any more until the machine is restarted."""

    kind = "kernel_died"

    def __init__(self, detail: str) -> None:
        super().__init__(errno.EIO, detail=f"the kernel died: {detail}")
        self.detail = detail


class BadPacketSize(Enum):
    """What becomes of `packet_size` when text that is no number is written to it."""

    KEEP = "keep"  # the packets are dropped, the value stays
    GARBAGE = "garbage"  # the packets are dropped, the value is GARBAGE_PACKET_SIZE
    REFUSE = "refuse"  # EINVAL, and the packets stay; what counts as a number is stricter, too


GARBAGE_PACKET_SIZE = 0x5A5A5A5A
"""Stands for whatever an old kernel had on its stack: large, so that nobody takes it for a size."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One way that the driver is known to behave.

    - `entry_at_load`: loading the module makes the firmware entry; otherwise `init` has to.
    - `entry_comes_back`: a load that brought data is followed by a new entry.
    - `data_before_loading`: an entry takes data before `1` is written, and `1` throws it away;
      otherwise that is ENODEV.
    - `packets_below`: packets lie wholly below this address, which is where a BIOS looks. None:
      they are ordinary kernel pages, and memory above 4 GiB goes first. That is what makes packet
      mode fail on machines with more RAM than fits below 4 GiB: the BIOS never sees the packets.
    - `transfer_limit_bytes`: one read or write of a binary file moves no more than this; the
      caller has to come again. None: as much as is asked for, which no kernel does.
    - `most_packets_below_floor`: where more packets than this would fit below `allocation_floor`,
      none can be staged: with the usual floor, not with a packet size of 1. (The kernel's list of
      them would take over 4 MiB, at 8 bytes each.) None: no limit.
    - `bad_packet_size`: see `BadPacketSize`.
    - `skips_first_packet`: reading packets back leaves out the first of the list, and as many
      bytes at the end are never filled (they are zeros here). The size is right.
    - `dies_on_clearing`: clearing a packet list that is not empty kills the kernel, after all
      packets but the first have been cleared.
    - `clears_past_a_short_packet`: clearing a packet clears `packet_size` bytes, even where the
      packet is shorter than the others and so has a smaller block: its neighbour in memory loses
      the rest. Packets of up to a page never notice.
    """

    name: str
    entry_at_load: bool = False
    entry_comes_back: bool = False
    data_before_loading: bool = True
    packets_below: PhysAddr | None = None
    transfer_limit_bytes: int | None = PAGE_SIZE
    most_packets_below_floor: int | None = MAX_BLOCK_BYTES // 8
    bad_packet_size: BadPacketSize = BadPacketSize.GARBAGE
    skips_first_packet: bool = False
    dies_on_clearing: bool = False
    clears_past_a_short_packet: bool = False


_DOCUMENTED = Profile(
    "documented",
    entry_at_load=True,
    entry_comes_back=True,
    data_before_loading=False,
    packets_below=BIOS_SEARCH_END,
    transfer_limit_bytes=None,
    most_packets_below_floor=None,
    bad_packet_size=BadPacketSize.KEEP,
)
_OLD = Profile("linux-2.6.16")
_BROKEN = replace(
    _OLD,
    name="linux-5.7",
    skips_first_packet=True,
    dies_on_clearing=True,
    clears_past_a_short_packet=True,
)
_REPAIRED = replace(_OLD, name="linux-6.16")
_CURRENT = replace(_OLD, name="linux", bad_packet_size=BadPacketSize.REFUSE)

PROFILES: Mapping[str, Profile] = MappingProxyType(
    {each.name: each for each in (_DOCUMENTED, _OLD, _BROKEN, _REPAIRED, _CURRENT)}
)
"""All profiles by name; `documented` is the one to use where nothing else is asked for."""


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
