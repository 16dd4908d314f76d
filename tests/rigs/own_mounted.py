"""openrbu's own driver on a mount: a `System` of `rig`, with memory of this computer."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from openrbu.memory.physical import Region
from openrbu.own_driver.driver import open_own_driver
from openrbu.own_driver.hugetlbfs import USUAL_MOUNT
from openrbu.own_driver.own_memory import Backend, Note, OwnMemory, OwnMemoryRecord
from openrbu.system.fuse_mounts import unmount
from openrbu.system.libc import call
from openrbu.units import HUGE_PAGE_BYTES, PAGE_SIZE, PhysAddr
from rigs.huge_pages import needs_huge_pages, number_locked
from rigs.mounted import Mount, needs_fuse
from rigs.own_rbu import FewPages

_PAGES = 6


class KeptMemory:
    """An `OwnMemory` that stays when the driver gives it back, so that another one has it then.

    It has the pages of `memory`, and takes no more of them.
    """

    def __init__(self, memory: OwnMemory) -> None:
        self._inner = memory
        self.memory = memory.memory
        self.kind, self.largest_order = memory.kind, memory.largest_order

    def new(self, _note: Note) -> KeptMemory:
        """As `Backend`."""
        return self

    def open(self, _record: OwnMemoryRecord, _note: Note) -> KeptMemory:
        """As `Backend`."""
        raise AssertionError("no other process goes on with it")

    @property
    def handed_out_bytes(self) -> int:
        """How much of it is in use."""
        rows = self._inner.record().allocated
        return sum(count * PAGE_SIZE << order for order, _, count, _ in rows)

    def allocate(self, order: int, *, below: PhysAddr | None = None) -> PhysAddr:
        return self._inner.allocate(order, below=below)

    def free(self, address: PhysAddr, order: int) -> None:
        self._inner.free(address, order)

    def reserve(self, size_bytes: int, *, block_bytes: int, below: PhysAddr | None = None) -> None:
        self._inner.reserve(size_bytes, block_bytes=block_bytes, below=below)

    def moved(self) -> tuple[Region, ...]:
        return self._inner.moved()

    def flush(self, regions: Iterable[Region]) -> bool:
        return self._inner.flush(regions)

    def record(self) -> OwnMemoryRecord:
        return self._inner.record()

    def give_back(self) -> None:
        """All was freed, and is clear."""
        assert not self.handed_out_bytes
        for region in self.memory.regions:
            assert not any(self.memory.view(region.start, region.size_bytes).tobytes().strip(b"\0"))


@contextlib.contextmanager
def huge_pages(root: Path) -> Iterator[KeptMemory]:
    """A few huge pages of this computer, in a mount of their own in the directory `root`."""
    needs_huge_pages()
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/mounts").write_text(f"none {USUAL_MOUNT} hugetlbfs rw,pagesize=2M 0 0\n")
    pages = root / USUAL_MOUNT.lstrip("/")
    pages.mkdir(parents=True)
    call("mount", b"none", os.fsencode(pages), b"hugetlbfs", 0, b"pagesize=2M")
    try:
        memory = FewPages(root).new(lambda record: None)
        try:
            with number_locked():
                memory.reserve(_PAGES * HUGE_PAGE_BYTES, block_bytes=HUGE_PAGE_BYTES)
            yield KeptMemory(memory)
        finally:
            with number_locked():
                memory.give_back()
    finally:
        unmount(str(pages))


class MountedOwnDriver(Mount):
    """The driver, not loaded, on a mount in `directory`. It has the pages of `memory`."""

    def __init__(self, directory: Path, memory: KeptMemory) -> None:
        needs_fuse()
        from openrbu.fuse.tree_files import ServedTree

        boot_id = directory / "proc/sys/kernel/random/boot_id"
        boot_id.parent.mkdir(parents=True)
        boot_id.write_text("1f0b3a5c\n")
        self._memory = memory
        backend: Backend = memory
        with contextlib.ExitStack() as stack:
            self.driver = stack.enter_context(open_own_driver(backend, root=directory))
            stack.callback(self._stop)
            super().__init__(directory / "mount", str(directory), stack, ServedTree(self.driver))

    def _stop(self) -> None:
        if self.driver.is_loaded:
            self.driver.stop()

    # -- a `System` -------------------------------------------------------------------------

    def load_module(self, **parameters: str) -> None:
        self.driver.load(parameters)

    def unload_module(self) -> None:
        self.driver.unload()

    def settle(self) -> None:
        """A write returns when all that it sets off is done."""

    def find_in_memory(self, data: bytes) -> Sequence[int]:
        """The addresses are those that the kernel told of its pages."""
        memory = self._memory.memory
        return [
            address
            for region in memory.regions
            for address in range(region.start, region.end - len(data) + 1, PAGE_SIZE)
            if memory.view(PhysAddr(address), len(data)) == data
        ]

    def free_bytes(self) -> int:
        """What is handed out is not free, whatever more there may be."""
        return -self._memory.handed_out_bytes
