"""What a simulated kernel says of its memory, and what it lets programs do with it.

`/proc/buddyinfo`, `/proc/iomem`, `/proc/kcore`, `/proc/kpageflags`, `/proc/meminfo`, and
`compact_memory`, `drop_caches` and `nr_hugepages` in `/proc/sys/vm`. The allocator joins free
blocks at once, and what its drivers have is not moved: so there is nothing to compact. What is in
plain files is not a cache: so there is nothing to drop.

Facts: docs/reference/linux-files.md, L4 to L6, L10 and L15.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

from openrbu.bios.rom import ROM, SYSTEM_ROM
from openrbu.drivers.numbers import simple_strtoull_any_base
from openrbu.drivers.sysfs import BinaryAttribute, SysfsTree, TextAttribute
from openrbu.errors import KernelError
from openrbu.kernel.huge_pages import HugePages
from openrbu.kernel.lockdown import Lockdown
from openrbu.kernel.page_flags import PageFlags
from openrbu.kernel.plain_files import PlainFiles
from openrbu.memory.buddy import BuddyAllocator
from openrbu.memory.kcore_file import KcoreFile
from openrbu.memory.physical import Region
from openrbu.units import KIB, MIB, PAGE_SIZE, PhysAddr

KERNEL_IMAGE = Region(PhysAddr(16 * MIB), PhysAddr(32 * MIB))
"""The kernel's own text and data."""

RESERVED = (Region(PhysAddr(0), PhysAddr(1 * MIB)), KERNEL_IMAGE)
"""RAM that is never free: the first MiB, and the kernel itself."""

_COMPACT, _DROP_CACHES = "/sys/vm/compact_memory", "/sys/vm/drop_caches"
_DROPPED = range(1, 5)

_LINES = """\
MemTotal MemFree MemAvailable Buffers Cached SwapCached Active Inactive Active(anon) Inactive(anon)
Active(file) Inactive(file) Unevictable Mlocked SwapTotal SwapFree Zswap Zswapped Dirty Writeback
AnonPages Mapped Shmem KReclaimable Slab SReclaimable SUnreclaim KernelStack PageTables
SecPageTables NFS_Unstable Bounce WritebackTmp CommitLimit Committed_AS VmallocTotal VmallocUsed
VmallocChunk Percpu HardwareCorrupted AnonHugePages ShmemHugePages ShmemPmdMapped FileHugePages
FilePmdMapped"""
"""The lines of 6.1.192, in its order. Those of huge pages follow, and of the direct map."""

_VMALLOC_KIB = 34_359_738_367


class MemoryFiles:
    """The files over `allocator`. `has_huge_pages`: not in a paravirtual guest of Xen.
    `held_bytes`: what programs have that are not simulated."""

    def __init__(
        self,
        allocator: BuddyAllocator,
        files: PlainFiles,
        held_bytes: int = 0,
        *,
        has_huge_pages: bool,
    ) -> None:
        self._allocator, self._files, self._held_bytes = allocator, files, held_bytes
        self._has_huge_pages = has_huge_pages
        self.huge_pages = HugePages(allocator)

    def install(self, sys: SysfsTree, proc: SysfsTree, lockdown: Lockdown) -> None:
        """Add the files."""
        memory = self._allocator.memory
        proc.add("/meminfo", TextAttribute(self._meminfo, mode=0o444, size_bytes=0))
        shown, hidden = (
            "".join(_iomem_lines(memory.regions, is_shown=each)) for each in (True, False)
        )
        iomem = TextAttribute(lambda: shown, mode=0o444, size_bytes=0, show_others=lambda: hidden)
        proc.add("/iomem", iomem)
        core = KcoreFile(memory)
        kcore = BinaryAttribute(core.read, mode=0o400, size_bytes=core.size_bytes)
        kcore.may_open = lockdown.closes("/proc/kcore", "confidentiality")
        proc.add("/kcore", kcore)
        flags = PageFlags(self._allocator, self._files.blocks)
        proc.add("/kpageflags", BinaryAttribute(flags.read, mode=0o400))
        for path, store in ((_COMPACT, _compact), (_DROP_CACHES, _drop_caches)):
            proc.add(path, TextAttribute(store=store, mode=0o200, size_bytes=0))
        if self._has_huge_pages:
            self.huge_pages.install(sys, proc)

    def _meminfo(self) -> str:
        regions = self._allocator.memory.regions
        rows = self._allocator.snapshot().allocated
        allocated_bytes = sum(count * PAGE_SIZE << order for order, _, count, _ in rows)
        managed_bytes = self._allocator.free_bytes + allocated_bytes + self._held_bytes
        in_files = sum(PAGE_SIZE << block.order for block in self._files.blocks())
        free_bytes = self._allocator.free_bytes
        sizes = {
            "MemTotal": managed_bytes,
            "MemFree": free_bytes,
            "MemAvailable": free_bytes,
            "Cached": in_files,
            "Shmem": in_files,
            "CommitLimit": managed_bytes // 2,
            "VmallocTotal": _VMALLOC_KIB * KIB,
        }
        lines = [_line(name, sizes.get(name, 0) // KIB) for name in _LINES.split()]
        if self._has_huge_pages:
            count = len(self.huge_pages)
            lines += [
                _line("HugePages_Total", count, ""),
                _line("HugePages_Free", count, ""),
                _line("HugePages_Rsvd", 0, ""),
                _line("HugePages_Surp", 0, ""),
                _line("Hugepagesize", 2 * KIB),
                _line("Hugetlb", count * 2 * KIB),
            ]
        ram_bytes = sum(each.size_bytes for each in regions)
        in_large = ram_bytes // (2 * MIB) * 2 * MIB
        direct = {"4k": ram_bytes - in_large, "2M": in_large, "1G": 0}
        return "".join(
            [*lines, *(_line(f"DirectMap{name}", size // KIB) for name, size in direct.items())]
        )


def _line(name: str, number: int, unit: str = " kB") -> str:
    return f"{name + ':':<16}{number:>8}{unit}\n"


def _iomem_lines(regions: tuple[Region, ...], *, is_shown: bool) -> Iterator[str]:
    """The lines of `/proc/iomem`. Not `is_shown`: as users other than root see them, each address
    as 0."""

    def line(start: int, end: int, what: str, *, depth: int = 0) -> str:
        first, last = (start, end - 1) if is_shown else (0, 0)
        return f"{'  ' * depth}{first:08x}-{last:08x} : {what}\n"

    low_end = min(regions[0].end, ROM.start)
    yield line(0, PAGE_SIZE, "Reserved")
    yield line(PAGE_SIZE, low_end, "System RAM")
    yield line(low_end, 1 * MIB, "Reserved")
    yield line(SYSTEM_ROM.start, SYSTEM_ROM.end, "System ROM", depth=1)
    for region in filter(None, (each.clip(1 * MIB, each.end) for each in regions)):
        yield line(region.start, region.end, "System RAM")
        if region.clip(KERNEL_IMAGE.start, KERNEL_IMAGE.end) is not None:
            yield line(KERNEL_IMAGE.start, KERNEL_IMAGE.end, "Kernel code", depth=1)


def _compact(_text: bytes) -> None:
    """A write to `compact_memory`: any text has memory compacted, in which nothing moves."""


def _drop_caches(text: bytes) -> None:
    """A write to `drop_caches`.

    :raise KernelError: EINVAL when it is not 1 to 4.
    """
    words = text.split()
    if words and simple_strtoull_any_base(words[0]) not in _DROPPED:
        raise KernelError(errno.EINVAL, f"/proc{_DROP_CACHES}")
