"""Whether a kernel survives that its driver drops the staged packets.

Kernels from 5.7 on have two bugs in `dell_rbu` (CVE-2025-38197), until the fix "platform/x86:
dell_rbu: Fix list usage": they crash when a list of packets is dropped, and they skip a packet when
packets are read back. The second shows the first, without a crash. The version of a kernel shows
neither: the fix was carried back unevenly. (docs/reference/driver-files.md, D7)
"""

from __future__ import annotations

from enum import StrEnum

from openrbu.errors import DamagedInputError, ObstacleError

BUG = "CVE-2025-38197"

HAS_THE_BUG = (
    f"this kernel's dell_rbu has the bug {BUG} (Linux 5.7 to 6.15): it skips a packet when packets "
    "are read back, and it may crash when it drops them"
)

_NOT_KNOWN = (
    f"this kernel may crash when its driver drops what is staged (the bug {BUG} of Linux 5.7 to "
    "6.15): whether it has that bug can't be seen, because what is staged is not in packets of a "
    "known order"
)


class Clearing(StrEnum):
    """What happens when the driver drops what is staged."""

    IS_SAFE = "is_safe"
    CRASHES = "crashes"
    """The kernel has the bug: it skips a packet."""
    UNKNOWN = "unknown"
    """It can't be seen whether the kernel has the bug."""

    @property
    def why_not(self) -> str:
        """Why nothing may be dropped; empty: it may."""
        return {Clearing.CRASHES: HAS_THE_BUG, Clearing.UNKNOWN: _NOT_KNOWN}.get(self, "")


class MayCrashError(ObstacleError):
    """The driver was not asked to drop what is staged, because that may crash the kernel."""

    kind = "may_crash"

    def __init__(self, clearing: Clearing) -> None:
        super().__init__(f"{clearing.why_not}: restart the machine first")
        self.clearing = clearing


def clearing_of(staged: bytes, packet_size_bytes: int) -> Clearing:
    """What happens when the driver drops the packets that it gives back as `staged`.

    A kernel that skips a packet gives back one packet less than it says, and arbitrary bytes in its
    place at the end. So packets whose numbers follow each other to the end, or begin with 0 and 1,
    were given back by a sound one.
    """
    if not staged:
        return Clearing.IS_SAFE
    size_bytes = packet_size_bytes or len(staged)
    count = -(-len(staged) // size_bytes)
    numbers = _numbers(staged, size_bytes)
    first = numbers[0] if numbers else 0
    follow = list(range(first, first + len(numbers)))
    begins_well = numbers[:2] == [0, 1][: min(2, count)]
    if begins_well or (len(numbers) == count > 1 and numbers == follow):
        return Clearing.IS_SAFE
    without_one = [number for number in range(count) if number != (0 if first else 1)]
    if len(without_one) > (1 if first == 0 else 0) and numbers[: count - 1] == without_one:
        return Clearing.CRASHES
    return Clearing.UNKNOWN


def _numbers(staged: bytes, size_bytes: int) -> list[int]:
    """The numbers of the packets, up to the first piece that does not begin with a packet's
    header."""
    from openrbu.formats.packet_header import PacketHeader  # noqa: PLC0415  (start-up time)

    numbers: list[int] = []
    try:
        for offset in range(0, len(staged), size_bytes):
            numbers.append(PacketHeader.parse(staged, offset).number)
    except DamagedInputError:
        pass
    return numbers
