"""`/proc/kcore`: the RAM of the computer that this process runs on, for reading.

The file is an ELF core (elf(5)). Its loadable segments are ranges of the kernel's address space;
`p_paddr` is the physical address of a segment. The *direct map* has all of RAM: in its segments the
difference of file offset and physical address is the same everywhere. Seen on Debian's 6.1.192,
x86-64 (docs/reference/linux-files.md, L6):

==========================  ====================================================================
direct map                  one segment for each range of RAM; `p_paddr` is its address
the kernel's own text       has a `p_paddr` too, with another difference; the direct map also has
                            these bytes
vmalloc, modules, vmemmap   `p_paddr` is all ones: no physical address
==========================  ====================================================================

The kernel reads into a page of its own, page by page, and copies from there. What was read last
stays in that page, also when the file is closed: a copy at the start of a page, where a BIOS finds
it (seen on 6.1.192 and 6.12.117: it took the 4 bytes of `$RPK` for a packet, and refused the
update). So after each read that leaves such a beginning a harmless page is read over it.

A segment may contain more than RAM, and a read of a device's registers can have any effect. So only
the ranges that `/proc/iomem` calls System RAM are read. Only root sees their addresses there; other
users see zeros.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from openrbu.errors import DamagedInputError
from openrbu.formats import elf_core
from openrbu.formats.hdr import MAGIC
from openrbu.memory.file_of_ram import FileOfRam
from openrbu.memory.physical import Region
from openrbu.units import BIOS_SEARCH_END, BIOS_SEARCH_START, PAGE_SIZE, PhysAddr

KCORE = "proc/kcore"
IOMEM = "proc/iomem"
HYPERVISOR = "sys/hypervisor/type"
XEN_GUEST_TYPE = "sys/hypervisor/guest_type"
XEN_CAPABILITIES = "proc/xen/capabilities"

_MOST_TRIED = 64
"""Pages of the lowest RAM, in which neither the kernel nor a BIOS has an update."""

_LAST_OFFSET = (1 << 63) - 1
"""Of a file, for the kernel: `off_t` has 64 bits with a sign."""

_SYSTEM_RAM = re.compile(r"^ *([0-9a-f]+)-([0-9a-f]+) : System RAM\b", re.MULTILINE)
_PERSISTENT = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) : Persistent Memory\b", re.MULTILINE)


class _Segment(NamedTuple):
    """A range of physical memory. Its first byte is at offset `start + distance` of the file."""

    start: int
    end: int
    distance: int


class Kcore(FileOfRam):
    """RAM through `/proc/kcore`, of which the kernel keeps no copy that a BIOS would find."""

    def __init__(self, fd: int, regions: tuple[Region, ...], distance: int) -> None:
        super().__init__(fd, regions, distance, f"/{KCORE}")
        self._harmless: PhysAddr | None = None
        self._scrap = bytearray(PAGE_SIZE)

    def read_into(self, address: PhysAddr, buffer: bytearray | memoryview) -> None:
        left = MAGIC[:1]
        try:
            super().read_into(address, buffer)
            left = _first_of_last_page(address, buffer)
        finally:
            if left == MAGIC[:1]:
                self._leave_no_copy()

    def _leave_no_copy(self) -> None:
        """Read a page that a BIOS does not take for anything over the kernel's copy of the last
        one. The first that serves is used as long as it does."""
        if self._harmless is not None and self._is_harmless(self._harmless):
            return
        first = self._regions[0]
        pages = range(first.start, first.end, PAGE_SIZE)[:_MOST_TRIED]
        self._harmless = next(filter(self._is_harmless, map(PhysAddr, pages)), None)

    def _is_harmless(self, page: PhysAddr) -> bool:
        """Read this page. Whether it could be read whole, and begins like no image or packet."""
        try:
            done = os.preadv(self._fd, [self._scrap], page + self._distance)
        except OSError:
            return False
        return done == PAGE_SIZE and self._scrap[:1] != MAGIC[:1]


def _first_of_last_page(address: PhysAddr, buffer: bytearray | memoryview) -> bytes:
    """The first byte of what was read of the last page: so the kernel's copy begins."""
    page = (address + len(buffer) - 1) // PAGE_SIZE * PAGE_SIZE
    return bytes(buffer[max(page - address, 0) :][:1])


def open_kcore(root: Path) -> Kcore | None:
    """The RAM of the machine whose `/proc` is below `root`.

    None where the kernel does not show it (no such file, not root, lockdown), where the file lacks
    a part of the RAM that a BIOS searches, and where its addresses are not the machine's (Xen).
    """
    seen = look_at_kcore(root)
    return None if _searched(seen.missing) else seen.memory


@dataclass(frozen=True, slots=True)
class KcoreView:
    """What `/proc/kcore` shows: `memory` (None: nothing, and `why` says why), and the parts of the
    RAM that it does not show, ascending."""

    memory: Kcore | None
    missing: tuple[Region, ...] = ()
    why: str = ""


def look_at_kcore(root: Path) -> KcoreView:
    """What is to be seen of the RAM of the machine whose `/proc` is below `root`."""
    if has_pseudo_physical_addresses(root):
        return KcoreView(None, why="the kernel runs on Xen and does not know real addresses")
    try:
        system_ram = read_system_ram(root)
        fd = os.open(root / KCORE, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        return KcoreView(None, why=f"{error.filename}: {error.strerror}")
    try:
        segments = _direct_map(_parse_segments(fd))
    except (OSError, DamagedInputError) as error:
        os.close(fd)
        return KcoreView(None, why=f"/{KCORE}: {error}")
    regions = tuple(_intersection(system_ram, segments))
    if not regions:
        os.close(fd)
        why = "no RAM is in it" if system_ram else f"/{IOMEM} hides where RAM is"
        return KcoreView(None, why=f"/{KCORE}: {why}")
    missing = tuple(_without(system_ram, regions))
    return KcoreView(Kcore(fd, regions, segments[0].distance), missing)


def read_system_ram(root: Path) -> tuple[Region, ...]:
    """The whole pages of RAM, ascending, by `/proc/iomem`. None for users who are not root, because
    they see zeros there.

    :raise OSError: the kernel's error.
    """
    return _parse_iomem(_iomem(root), _SYSTEM_RAM)


def read_persistent_memory(root: Path) -> tuple[Region, ...]:
    """The same of persistent memory (`Persistent Memory (legacy)` with `memmap=`), of which
    `/proc/kcore` shows nothing. None where the file can't be read."""
    try:
        return _parse_iomem(_iomem(root), _PERSISTENT)
    except OSError:
        return ()


def _iomem(root: Path) -> str:
    return (root / IOMEM).read_bytes().decode("latin-1")


def _without(regions: Iterable[Region], seen: tuple[Region, ...]) -> Iterator[Region]:
    """The parts of the regions that are in none of `seen`; both ascend."""
    for region in regions:
        low = region.start
        for part in seen:
            if part.end <= low or part.start >= region.end:
                continue
            if part.start > low:
                yield Region(low, part.start)
            low = part.end
        if low < region.end:
            yield Region(low, region.end)


def has_pseudo_physical_addresses(root: Path) -> bool:
    """Whether this is Xen's dom0 or a paravirtual guest. There Linux has page numbers of its own,
    and `p_paddr` is made from them; a BIOS searches the machine's memory.

    Source: the kernel's document sysfs-hypervisor-xen. In dom0 the capabilities have `control_d`.
    """
    if _words(root / HYPERVISOR) != ["xen"]:
        return False
    return _words(root / XEN_GUEST_TYPE) == ["PV"] or "control_d" in _words(root / XEN_CAPABILITIES)


def _words(path: Path) -> list[str]:
    """The words in a file; none where the file can't be read."""
    try:
        return path.read_bytes().decode("latin-1").split()
    except OSError:
        return []


def _parse_iomem(text: str, kind: re.Pattern[str]) -> tuple[Region, ...]:
    """The whole pages of the ranges of a kind, ascending. Adjacent ranges are joined."""
    ranges = [(int(first, 16), int(last, 16) + 1) for first, last in kind.findall(text)]
    regions: list[Region] = []
    for start, end in _joined(ranges):
        low, high = -(-start // PAGE_SIZE) * PAGE_SIZE, end // PAGE_SIZE * PAGE_SIZE
        if low < high:
            regions.append(Region(PhysAddr(low), PhysAddr(high)))
    return tuple(regions)


def _parse_segments(fd: int) -> list[_Segment]:
    """The loadable segments that have a physical address.

    :raise OSError: the kernel's error.
    :raise DamagedInputError: when the file is not an ELF core.
    """

    def read(offset: int, size_bytes: int) -> bytes:
        return os.pread(fd, size_bytes, offset) if offset <= _LAST_OFFSET else b""

    segments = list(elf_core.loadable_segments(read))
    if any(each.offset + each.file_bytes > _LAST_OFFSET for each in segments):
        raise DamagedInputError("a segment of this core ends where no file has bytes")
    return [
        _Segment(each.physical_address, each.physical_address + each.file_bytes, distance)
        for each in segments
        if each.physical_address  # kernels before 4.11 have 0 in all segments
        for distance in [each.offset - each.physical_address]
    ]


def _direct_map(segments: list[_Segment]) -> list[_Segment]:
    """The segments of the direct map: those with the distance of the largest one, ascending.

    :raise DamagedInputError: when there are no segments.
    """
    if not segments:
        raise DamagedInputError("no segment of this core has a physical address")
    distance = max(segments, key=lambda segment: segment.end - segment.start).distance
    return sorted(segment for segment in segments if segment.distance == distance)


def _intersection(regions: Iterable[Region], segments: list[_Segment]) -> Iterator[Region]:
    """The parts of the regions that are in the segments, ascending."""
    ranges = list(_joined((segment.start, segment.end) for segment in segments))
    for region in regions:
        for start, end in ranges:
            part = region.clip(start, end)
            if part is not None:
                yield part


def _joined(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The same ranges, ascending. Ranges that overlap or are adjacent are joined."""
    low = high = -1
    for start, end in sorted(ranges):
        if start <= high:
            high = max(high, end)
            continue
        if high >= 0:
            yield low, high
        low, high = start, end
    if high >= 0:
        yield low, high


def _searched(regions: Iterable[Region]) -> int:
    """How many bytes of the regions a BIOS searches."""
    parts = (region.clip(BIOS_SEARCH_START, BIOS_SEARCH_END) for region in regions)
    return sum(part.size_bytes for part in parts if part is not None)
