"""`/proc/self/pagemap`: the physical address of each page of this process.

A u64 for each page of the process's addresses. Bits 0 to 54 are the page frame number, bit 63 says
that the page is in RAM. Without CAP_SYS_ADMIN the numbers are 0 (and the file can be read all the
same). Facts: docs/reference/linux-files.md, L17.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from openrbu.errors import ObstacleError
from openrbu.units import PAGE_SHIFT, PAGE_SIZE, PhysAddr

PAGEMAP = "/proc/self/pagemap"

ENTRY_BYTES = 8
_FRAME = (1 << 55) - 1
_PRESENT = 1 << 63

HIDDEN = (
    "this kernel does not tell the physical addresses of pages to a process without CAP_SYS_ADMIN: "
    "use root, not in a container"
)


def addresses_in(pagemap: Path, places: Iterable[int]) -> list[PhysAddr | None]:
    """The physical addresses of the pages at these addresses of this process; None for a page that
    is not in RAM.

    :raise ObstacleError: when the kernel does not tell them.
    :raise OSError: when the file can't be read.
    """
    found: list[PhysAddr | None] = []
    fd = os.open(pagemap, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for place in places:
            data = os.pread(fd, ENTRY_BYTES, place // PAGE_SIZE * ENTRY_BYTES)
            found.append(address_of(int.from_bytes(data, "little")))
    finally:
        os.close(fd)
    return found


def address_of(entry: int) -> PhysAddr | None:
    """The physical address in an entry; None where the page is not in RAM.

    :raise ObstacleError: when the kernel does not tell it.
    """
    if not entry & _PRESENT:
        return None
    if not entry & _FRAME:
        raise ObstacleError(HIDDEN)
    return PhysAddr((entry & _FRAME) << PAGE_SHIFT)
