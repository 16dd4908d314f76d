"""A guest's memory: physical to its kernel, and made of scattered frames of the machine's."""

from __future__ import annotations

from collections.abc import Iterator

from openrbu.buffers import Buffer
from openrbu.errors import AddressError, MachineError
from openrbu.lazy import np
from openrbu.memory.frames import frame_runs
from openrbu.memory.physical import PhysicalMemory, Region
from openrbu.units import PAGE_SHIFT, PAGE_SIZE, PhysAddr
from openrbu.xen.domain import Domain
from openrbu.xen.state import INVALID

_IN_PAGE = PAGE_SIZE - 1


class GuestMemory:
    """The memory of a guest, from address 0 up to its last frame; `machine` is the host's memory.

    Access to a page that is ballooned out raises an `AddressError`. A guest that was destroyed has
    no memory, and any access raises a `MachineError`. The machine frame of a page can change
    between two calls, so `view` always returns a copy: a view of machine memory would show
    another guest's page later.
    """

    def __init__(self, domain: Domain, machine: PhysicalMemory) -> None:
        self._domain, self._table, self._machine = domain, domain.table, machine
        self._size_bytes = domain.frame_count * PAGE_SIZE

    @property
    def regions(self) -> tuple[Region, ...]:
        return (Region(PhysAddr(0), PhysAddr(self._size_bytes)),)

    @property
    def is_mapped(self) -> bool:
        return False

    def machine_runs(self, address: PhysAddr, size_bytes: int) -> list[Region]:
        """Where these bytes are in machine memory, in order. Neighbouring frames make one region.

        :raise AddressError: when any of them is outside RAM, or ballooned out.
        :raise MachineError: when the guest was destroyed.
        """
        if not 0 <= address <= address + size_bytes <= self._size_bytes:
            raise AddressError(address, size_bytes)
        if not size_bytes:
            return []
        first, last = address >> PAGE_SHIFT, (address + size_bytes - 1) >> PAGE_SHIFT
        skip = address & _IN_PAGE
        if first == last:
            frame = int(self._table[first])
            if frame == INVALID:
                raise self._no_page(address, size_bytes)
            start = (frame << PAGE_SHIFT) + skip
            return [Region(PhysAddr(start), PhysAddr(start + size_bytes))]
        frames = self._table[first : last + 1]
        if int(frames.max()) == INVALID:
            raise self._no_page(address, size_bytes)
        runs: list[Region] = []
        for frame, count in frame_runs(frames):
            start = (frame << PAGE_SHIFT) + skip
            end = min((frame + count) << PAGE_SHIFT, start + size_bytes)
            runs.append(Region(PhysAddr(start), PhysAddr(end)))
            size_bytes -= end - start
            skip = 0
        return runs

    def _no_page(self, address: PhysAddr, size_bytes: int) -> AddressError | MachineError:
        if not self._domain.is_there:
            return MachineError(f"guest {self._domain.name!r} was destroyed")
        return AddressError(address, size_bytes)

    def read(self, address: PhysAddr, size_bytes: int) -> bytes:
        runs = self.machine_runs(address, size_bytes)
        if len(runs) == 1:
            return self._machine.read(runs[0].start, size_bytes)
        return b"".join(self._machine.read(run.start, run.size_bytes) for run in runs)

    def read_into(self, address: PhysAddr, buffer: bytearray | memoryview) -> None:
        target, done = memoryview(buffer), 0
        for run in self.machine_runs(address, len(target)):
            self._machine.read_into(run.start, target[done : done + run.size_bytes])
            done += run.size_bytes

    def view(self, address: PhysAddr, size_bytes: int) -> memoryview:
        return memoryview(self.read(address, size_bytes))

    def write(self, address: PhysAddr, data: Buffer) -> None:
        source, done = memoryview(data), 0
        for run in self.machine_runs(address, len(source)):
            self._machine.write(run.start, source[done : done + run.size_bytes])
            done += run.size_bytes

    def zero(self, address: PhysAddr, size_bytes: int) -> None:
        for run in self.machine_runs(address, size_bytes):
            self._machine.zero(run.start, run.size_bytes)

    def populated(self, start: PhysAddr, end: PhysAddr) -> Iterator[Region]:
        """The parts of [start, end) that may have anything but zeros, ascending.

        Machine memory is asked once, from the lowest to the highest machine page.
        """
        for low, high in self._mapped_runs(start >> PAGE_SHIFT, -(-end // PAGE_SIZE)):
            part = Region(PhysAddr(low << PAGE_SHIFT), PhysAddr(high << PAGE_SHIFT))
            clipped = part.clip(start, end)
            if clipped is not None:
                yield clipped

    def _mapped_runs(self, first: int, end: int) -> Iterator[tuple[int, int]]:
        """The frames in [first, end) that may have anything, as (first, behind the last)."""
        frames = self._table[first:end]
        present = frames[frames != INVALID]
        if not len(present):
            return
        low, high = int(present.min()), int(present.max()) + 1
        spans = self._machine.populated(PhysAddr(low << PAGE_SHIFT), PhysAddr(high << PAGE_SHIFT))
        bounds = np.array([(span.start, span.end) for span in spans], np.int64).reshape(-1, 2)
        # a machine frame is in a span when more spans begin at or before it than end there
        begun = np.searchsorted(bounds[:, 0] >> PAGE_SHIFT, frames, "right")
        ended = np.searchsorted(-(-bounds[:, 1] >> PAGE_SHIFT), frames, "right")
        edges = np.diff(begun > ended, prepend=False, append=False).nonzero()[0] + first
        yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
