"""Memory gone through from its start to its end, a *window* at a time: for searches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from openrbu.memory.physical import ReadableMemory, unaligned_buffer
from openrbu.units import MIB, PhysAddr

VIEWED_BYTES = 32 * MIB
"""A window where nothing is copied."""

COPIED_BYTES = MIB
"""A window where bytes are copied: it stays in the processor's cache."""

Window = tuple[PhysAddr, memoryview]
"""An address, and the bytes from there on."""


@runtime_checkable
class HasWindows(Protocol):
    """Memory that has a cheaper way to be gone through than `view` and `read_into`."""

    def windows(self, start: PhysAddr, end: PhysAddr) -> Iterator[Window]:
        """What `windows` gives for this memory."""


def windows(memory: ReadableMemory, start: PhysAddr, end: PhysAddr) -> Iterator[Window]:
    """The parts of memory in [start, end) that may have a byte that is not 0, ascending, in windows
    of at most 32 MiB. Adjacent windows share no bytes.

    A window's bytes are there until the next one is taken, and are not to be written. As few as are
    needed are in this process's memory at once, whatever the size of all.
    """
    own = getattr(memory, "windows", None)  # several times as fast as isinstance with a protocol
    if own is not None:
        yield from own(start, end)
        return
    buffer = memoryview(b"") if memory.is_mapped else unaligned_buffer(COPIED_BYTES)
    step = VIEWED_BYTES if memory.is_mapped else COPIED_BYTES
    for run in memory.populated(start, end):
        for low in range(run.start, run.end, step):
            address, size = PhysAddr(low), min(step, run.end - low)
            if memory.is_mapped:
                yield address, memory.view(address, size)
            else:
                memory.read_into(address, buffer[:size])
                yield address, buffer[:size].toreadonly()
