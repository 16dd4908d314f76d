"""Memory that Linux was told to leave alone, as the driver's: `memmap=32M!192M`.

Linux shows such memory as a device of persistent memory, `/dev/pmem0`, whose physical address is in
sysfs. It is written and read there with direct I/O: a page cache would keep copies, which a BIOS
could find.

A device may as well be somebody's storage. So only memory that the command line names is taken, and
only where nothing is on it. Facts: docs/reference/linux-files.md, L19. Decision:
docs/decisions/0045-memory-of-a-prepared-boot.md.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from openrbu.errors import DamagedInputError, ObstacleError
from openrbu.memory.physical import Region
from openrbu.own_driver.fixed_region import FixedRegion, region_of
from openrbu.own_driver.obstacles import Obstacle
from openrbu.own_driver.own_memory import AllocatedRows, Note, OwnMemoryRecord, PmemRecord
from openrbu.own_driver.written_memory import Part
from openrbu.units import BIOS_SEARCH_END, MIB, PAGE_SIZE, PhysAddr

BLOCK = "/sys/block"
COMMAND_LINE = "/proc/cmdline"

_PIECE_BYTES = 4 * MIB
_SECTOR_BYTES = 512

_WORD = re.compile(r"^(0x[0-9a-fA-F]+|[0-9]+)([KMGT]?)!(0x[0-9a-fA-F]+|[0-9]+)([KMGT]?)$")
_DEVICE = re.compile(r"^pmem[0-9]{1,4}$")

_SIGNATURES = (
    ("a partition table", 510, b"\x55\xaa"),
    ("a partition table", 512, b"EFI PART"),
    ("an ext file system", 1080, b"\x53\xef"),
    ("XFS", 0, b"XFSB"),
    ("Btrfs", 0x10040, b"_BHRfS_M"),
    ("encrypted data", 0, b"LUKS\xba\xbe"),
    ("LVM", 512, b"LABELONE"),
    ("a RAID", 4096, b"\xfc\x4e\x2b\xa9"),
    ("swap space", PAGE_SIZE - 10, b"SWAPSPACE2"),
    ("a namespace's description", 4096, b"NVDIMM_PFN_INFO"),
    ("a namespace's description", 4096, b"NVDIMM_DAX_INFO"),
    ("a block translation table", 4096, b"BTT_ARENA_INFO"),
)
"""What says that somebody uses a device, and where."""

_SEEN_BYTES = 0x11000

_PREPARE = (
    "start Linux with memmap=32M!192M on its command line (memory that dmesg calls usable), and "
    "load the modules nd_e820 and nd_pmem"
)


@dataclass(frozen=True, slots=True)
class Device:
    """A device, such as `pmem0`, and the memory that it is. `whose`: why it is not to be used;
    empty: nobody uses it."""

    name: str
    region: Region
    whose: str


class PmemDoor:
    """The way to the memory of the device `name`, whose files are below `root`."""

    def __init__(self, root: Path, name: str, region: Region) -> None:
        self._root, self._region, self._name = root, region, name
        self._path = root / "dev" / name

    def read_into(self, address: PhysAddr, buffer: memoryview) -> None:
        with self._opened(os.O_RDONLY) as fd:
            _read_whole(fd, buffer, address - self._region.start)

    def write(self, parts: Sequence[Part]) -> None:
        with self._opened(os.O_RDWR | os.O_EXCL) as fd:
            for address, data in parts:
                _write_whole(fd, data, address - self._region.start)
            os.fsync(fd)

    def clear(self, region: Region) -> None:
        zeros = memoryview(mmap.mmap(-1, _PIECE_BYTES))
        starts = range(region.start, region.end, _PIECE_BYTES)
        self.write([(PhysAddr(at), zeros[: region.end - at]) for at in starts])

    def is_in_place(self) -> bool:
        return any(
            each.name == self._name and each.region == self._region and not each.whose
            for each in devices(self._root, look_inside=False)
        )

    @contextlib.contextmanager
    def _opened(self, flags: int) -> Iterator[int]:
        fd = os.open(self._path, flags | os.O_DIRECT | os.O_CLOEXEC)
        try:
            yield fd
        finally:
            os.close(fd)


def _read_whole(fd: int, buffer: memoryview, offset: int) -> None:
    while buffer:
        done = os.preadv(fd, [buffer], offset)
        if not done:
            raise OSError(5, "the device ends where its memory should be")
        buffer, offset = buffer[done:], offset + done


def _write_whole(fd: int, data: memoryview, offset: int) -> None:
    while data:
        done = os.pwritev(fd, [data], offset)
        data, offset = data[done:], offset + done


def devices(root: Path, *, look_inside: bool = True) -> Iterator[Device]:
    """The devices of persistent memory of the computer whose files are below `root`. With
    `look_inside` their first bytes are read, too."""
    asked = _asked_for(root)
    try:
        names = sorted(each.name for each in (root / BLOCK.lstrip("/")).iterdir())
    except OSError:
        return
    for name in filter(_DEVICE.match, names):
        block = root / BLOCK.lstrip("/") / name
        try:
            start = int(_text(block / "device/resource"), 0)
            size_bytes = int(_text(block / "device/size"))
        except ValueError:
            continue  # sysfs hides it from this user
        if size_bytes <= 0 or start % PAGE_SIZE or size_bytes % PAGE_SIZE:
            continue
        region = Region(PhysAddr(start), PhysAddr(start + size_bytes))
        whose = "" if region in asked else "the command line does not name it (memmap=SIZE!START)"
        if region.start >= BIOS_SEARCH_END:
            whose = whose or f"it is at {start:#x}, and no BIOS searches above 4 GiB"
        whose = whose or _use_of(block, name, size_bytes)
        if not whose and look_inside:
            whose = _signature_on(root / "dev" / name)
        yield Device(name, region, whose)


def _asked_for(root: Path) -> list[Region]:
    """The memory that the command line has made devices of."""
    regions = []
    for word in _text(root / COMMAND_LINE.lstrip("/")).split():
        option, _, value = word.partition("=")
        for each in value.split(",") if option == "memmap" else ():
            match = _WORD.match(each)
            if match:
                size_bytes, start = _number(*match.group(1, 2)), _number(*match.group(3, 4))
                regions.append(Region(PhysAddr(start), PhysAddr(start + size_bytes)))
    return regions


def _number(digits: str, unit: str) -> int:
    return int(digits, 0) << (10 * " KMGT".index(unit or " "))


def _use_of(block: Path, name: str, size_bytes: int) -> str:
    """Who uses the device, as sysfs says it; empty: nobody."""
    if int(_text(block / "size") or 0) * _SECTOR_BYTES != size_bytes:
        return "only a part of it is a device"
    if _text(block / "device/holder"):
        return "a namespace is on it"
    if any(child.name.startswith(name) for child in block.iterdir()):
        return "it has partitions"
    with contextlib.suppress(OSError):
        if any((block / "holders").iterdir()):
            return "another device is on it"
    return ""


def _signature_on(path: Path) -> str:
    """What is on the device, or keeps it from being read; empty: nothing that is known."""
    seen = memoryview(mmap.mmap(-1, _SEEN_BYTES + PAGE_SIZE))[_SECTOR_BYTES:][:_SEEN_BYTES]
    try:
        fd = os.open(path, os.O_RDWR | os.O_EXCL | os.O_DIRECT | os.O_CLOEXEC)
        try:
            _read_whole(fd, seen, 0)
        finally:
            os.close(fd)
    except OSError as error:
        return f"it can't be opened: {error.strerror}"
    for what, offset, mark in _SIGNATURES:
        if seen[offset : offset + len(mark)] == mark:
            return f"{what} is on it (wipefs -a removes that)"
    return ""


def obstacles(root: Path = Path("/")) -> Iterator[Obstacle]:
    """What keeps a process from using such memory of the computer whose files are below `root`.
    The names: `no_pmem`, `pmem_in_use`."""
    found = list(devices(root))
    if not found:
        text = "Linux shows no device of persistent memory, or hides its address from this user"
        yield Obstacle("no_pmem", text, f"{_PREPARE}, and use root")
    elif all(each.whose for each in found):
        text = "; ".join(f"/dev/{each.name} is not to be used: {each.whose}" for each in found)
        yield Obstacle("pmem_in_use", text, "")


class PmemBackend:
    """Makes the driver's memory of the largest such device that nobody uses. `root`: the directory
    of `/proc`, `/sys` and `/dev`."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def new(self, note: Note) -> FixedRegion:
        """Nothing is changed before something is written.

        :raise ObstacleError: when there is no such device.
        """
        for obstacle in obstacles(self._root):
            raise ObstacleError(str(obstacle))
        free = [each for each in devices(self._root) if not each.whose]
        best = max(free, key=lambda each: each.region.size_bytes)
        return self._make(best.name, best.region, note)

    def open(self, record: OwnMemoryRecord, note: Note) -> FixedRegion:
        """Continue with what another process has left, or look at what it has.

        :raise DamagedInputError: when the record says what can't be.
        """
        if not isinstance(record, PmemRecord) or not _DEVICE.match(record.device):
            raise DamagedInputError(f"not the record of a device of memory: {record.kind}")
        memory = self._make(record.device, region_of(record.start, record.end), note)
        memory.restore(record.allocated, is_used=record.is_used)
        return memory

    def _make(self, device: str, region: Region, note: Note) -> FixedRegion:
        def record(is_used: bool, allocated: AllocatedRows) -> PmemRecord:
            return PmemRecord("pmem", device, region.start, region.end, is_used, allocated)

        return FixedRegion("pmem", region, PmemDoor(self._root, device, region), record, note)


def _text(path: Path) -> str:
    """The text of a file, without blanks around it; empty where it can't be read."""
    with contextlib.suppress(OSError):
        return path.read_text("ascii", "replace").strip()
    return ""
