"""What a kernel holds for the BIOS: the pages in which a driver keeps a staged update.

All other pages may be overwritten before a restart is done: free ones, a buffer from which an image
is delivered, the page cache, a program's own memory (docs/decisions/0008).
"""

from __future__ import annotations

from openrbu.bios.post_report import BeforeStart
from openrbu.drivers.dell_rbu import NAME, DellRbu
from openrbu.kernel.kernel import Kernel
from openrbu.memory.frames import Frames
from openrbu.memory.physical import Region
from openrbu.units import PAGE_SHIFT, PAGE_SIZE, PhysAddr


def before_start(
    kernel: Kernel | None, table: Frames | None, *, memory_is_kept: bool, is_armed: bool
) -> BeforeStart:
    """What is there now that a kernel is restarted. `table`: as of `held_regions`."""
    return BeforeStart(held_regions(kernel, table), memory_is_kept, is_armed)


def held_regions(kernel: Kernel | None, table: Frames | None) -> tuple[Region, ...]:
    """Where the pages of a kernel's `dell_rbu` are; nowhere without a kernel.

    `table`: the machine frame of each of the kernel's frames, where it is a guest of Xen.
    """
    driver = None if kernel is None else kernel.modules.get(NAME)
    if not isinstance(driver, DellRbu):
        return ()
    spans = [(block.address, block.capacity_bytes) for block in driver.staged_blocks]
    if table is not None:
        frames = (
            int(table[frame])
            for start, size in spans
            for frame in range(start >> PAGE_SHIFT, (start + size) >> PAGE_SHIFT)
        )
        spans = [(PhysAddr(frame << PAGE_SHIFT), PAGE_SIZE) for frame in frames]
    return tuple(Region(start, PhysAddr(start + size)) for start, size in spans)
