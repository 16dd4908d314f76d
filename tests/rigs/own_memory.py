"""Memory for openrbu's own driver that is a RAM file: a search in that file finds what is staged.

A directory stands for the computer: `ram` is its RAM, `free` lists the huge pages that its kernel
has to give (addresses, one a line, in the sequence in which it gives them), and `moved` those that
are somewhere else by now.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from openrbu.errors import KernelError
from openrbu.memory.physical import Region, joined
from openrbu.memory.ram_file import RamFile
from openrbu.own_driver.own_memory import (
    HugePagesRecord,
    Note,
    OwnMemoryRecord,
    PageFile,
)
from openrbu.units import MIB, PAGE_SHIFT, PAGE_SIZE, PhysAddr

HUGE = 2 * MIB

_KERNEL_FILES = {
    "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "0\n",
    "sys/kernel/mm/hugepages/hugepages-2048kB/surplus_hugepages": "0\n",
    "proc/filesystems": "nodev\thugetlbfs\n\text4\n",
    "proc/self/pagemap": "",
    "proc/self/status": "Name:\trbu\nCapEff:\t000001ffffffffff\n",
    "proc/self/mounts": "proc /proc proc rw,nosuid 0 0\nsysfs /sys sysfs rw,nosuid 0 0\n",
}
"""What a plan looks at: root on a kernel that has all that is needed."""


def make_computer(root: Path, free: Sequence[int], *, ram_bytes: int = 64 * MIB) -> None:
    """Make the directory of a computer with these free huge pages, or add them to one."""
    boot_id = root / "proc/sys/kernel/random/boot_id"
    if not boot_id.exists():
        boot_id.parent.mkdir(parents=True, exist_ok=True)
        boot_id.write_text("1f0b3a5c\n")
    for path, content in _KERNEL_FILES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(content)
    (root / "free").write_text("".join(f"{page}\n" for page in free))
    RamFile.create(root / "ram", (Region(PhysAddr(0), PhysAddr(ram_bytes)),))


def whole_ram(root: Path) -> RamFile:
    """All RAM of the computer, as a BIOS sees it."""
    return RamFile(root / "ram", (Region(PhysAddr(0), PhysAddr((root / "ram").stat().st_size)),))


def free_pages(root: Path) -> list[int]:
    """The huge pages that the kernel has now."""
    return [int(line) for line in (root / "free").read_text().splitlines()]


class RamFileMemory:
    """An `OwnMemory`. `step` is called before each change of the RAM or of the kernel."""

    kind = "huge_pages"
    largest_order = 14

    def __init__(
        self, root: Path, record: OwnMemoryRecord, note: Note, step: Callable[[str], None]
    ) -> None:
        self._root, self._note, self._step = root, note, step
        assert isinstance(record, HugePagesRecord)
        self._held = [address for file in record.files for _, address in file.pages]
        self._allocated = {first << PAGE_SHIFT: order for order, first, _, _ in record.allocated}
        self._take_out()

    def _take_out(self) -> None:
        regions = joined((page, page + HUGE) for page in sorted(self._held))
        none = (Region(PhysAddr(0), PhysAddr(0)),)
        self._memory = _Stepped(self._root / "ram", regions or none, self._step)
        self._regions = regions

    @property
    def memory(self) -> RamFile:
        return self._memory

    def allocate(self, order: int, *, below: PhysAddr | None = None) -> PhysAddr:
        size_bytes = PAGE_SIZE << order
        while (place := self._find(size_bytes, below)) is None:
            self._take(below)
        self._allocated[place] = order
        return PhysAddr(place)

    def free(self, address: PhysAddr, order: int) -> None:
        assert self._allocated.pop(address) == order

    def reserve(self, size_bytes: int, *, block_bytes: int, below: PhysAddr | None = None) -> None:
        while len(self._held) * HUGE < size_bytes or self._find(block_bytes, below) is None:
            self._take(below)

    def _find(self, size_bytes: int, below: PhysAddr | None) -> int | None:
        step = min(size_bytes, HUGE)
        taken = [(start, start + (PAGE_SIZE << order)) for start, order in self._allocated.items()]
        for region in self._regions:
            end = min(region.end, below or region.end)
            for start in range(region.start, end - size_bytes + 1, step):
                if all(start >= last or start + size_bytes <= first for first, last in taken):
                    return start
        return None

    def _take(self, below: PhysAddr | None) -> None:
        free = free_pages(self._root)
        if not free:
            raise KernelError(errno.ENOMEM, detail=f"{len(self._held)} huge pages were got")
        self._note(self._record_with([*self._held, free[0]]))
        self._step("take a page")
        (self._root / "free").write_text("".join(f"{page}\n" for page in free[1:]))
        self._held.append(free[0])
        self._take_out()
        self._note(self.record())

    def moved(self) -> tuple[Region, ...]:
        path = self._root / "moved"
        pages = [int(line) for line in path.read_text().split()] if path.exists() else []
        return tuple(Region(PhysAddr(page), PhysAddr(page + HUGE)) for page in pages)

    def flush(self, regions: Iterable[Region]) -> bool:
        self._step("flush")
        return True

    def record(self) -> OwnMemoryRecord:
        return self._record_with(self._held)

    def _record_with(self, held: list[int]) -> OwnMemoryRecord:
        rows = tuple((order, at >> PAGE_SHIFT, 1, 0) for at, order in self._allocated.items())
        file = PageFile("ram", HUGE, tuple(enumerate(held)))
        return HugePagesRecord("huge_pages", "/ram", False, (), (file,), rows)

    def give_back(self) -> None:
        for page in self._held:
            self._memory.zero(PhysAddr(page), HUGE)
        self._step("give the pages back")
        free = [*free_pages(self._root), *(each for each in self._held)]
        (self._root / "free").write_text("".join(f"{page}\n" for page in dict.fromkeys(free)))
        self._held, self._allocated = [], {}


class _Stepped(RamFile):
    def __init__(
        self, path: Path, regions: tuple[Region, ...], step: Callable[[str], None]
    ) -> None:
        super().__init__(path, regions)
        self._step = step

    def write(self, address: PhysAddr, data: bytes | bytearray | memoryview) -> None:
        self._step("write")
        super().write(address, data)

    def zero(self, address: PhysAddr, size_bytes: int) -> None:
        self._step("clear")
        super().zero(address, size_bytes)


class RamFileBackend:
    """Makes `RamFileMemory` of the computer at `root`."""

    def __init__(self, root: Path, step: Callable[[str], None] = lambda what: None) -> None:
        self._root, self._step = root, step

    def new(self, note: Note) -> RamFileMemory:
        empty = HugePagesRecord("huge_pages", "/ram", False, (), (), ())
        return RamFileMemory(self._root, empty, note, self._step)

    def open(self, record: OwnMemoryRecord, note: Note) -> RamFileMemory:
        return RamFileMemory(self._root, record, note, self._step)
