"""The crash kernel's memory as the driver's: what `crashkernel=` has kept free.

kexec_load(2) with KEXEC_ON_CRASH copies bytes to any pages of that memory, and Linux uses it for
nothing else. So a "crash kernel" that is the image is loaded, and unloaded at once: the bytes stay,
and a crash of Linux does not jump into them. What is there is read through `/proc/kcore`.

A kernel that is loaded there already, such as kdump's, is lost: until it is loaded again, a crash
leaves no dump. What the kernel does was measured: docs/reference/linux-files.md, L18. Decision:
docs/decisions/0045-memory-of-a-prepared-boot.md.
"""

from __future__ import annotations

import contextlib
import ctypes
import platform
import re
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from openrbu.errors import DamagedInputError, ObstacleError
from openrbu.memory.kcore import open_kcore
from openrbu.memory.physical import Region
from openrbu.own_driver.fixed_region import FixedRegion, region_of
from openrbu.own_driver.obstacles import Obstacle
from openrbu.own_driver.own_memory import (
    AllocatedRows,
    CrashRegionRecord,
    Note,
    OwnMemoryRecord,
)
from openrbu.own_driver.written_memory import Part
from openrbu.system.libc import call
from openrbu.units import BIOS_SEARCH_END, GIB, MIB, PAGE_SIZE, PhysAddr

IOMEM = "/proc/iomem"
LOADED = "/sys/kernel/kexec_crash_loaded"
DISABLED = "/proc/sys/kernel/kexec_load_disabled"

_RANGE = re.compile(r"^ *([0-9a-f]+)-([0-9a-f]+) : (Crash kernel|System RAM)$", re.MULTILINE)

_KEXEC_LOAD = 246  # asm/unistd_64.h
_ON_CRASH = 1  # linux/kexec.h
_MOST_SEGMENTS = 16

_ROOM_BYTES = 2 * MIB
"""The kernel has pages of its own at the start of the memory, where no segment is: 4 pages, and, on
a processor without pages of 1 GiB, one for each GiB of RAM."""

_PREPARE = "start Linux with crashkernel=64M on its command line"


class _Segment(ctypes.Structure):
    _fields_ = (
        ("buffer", ctypes.c_void_p),
        ("buffer_bytes", ctypes.c_size_t),
        ("address", ctypes.c_size_t),
        ("size_bytes", ctypes.c_size_t),
    )


class CrashDoor:
    """The way to the crash kernel's memory of the computer whose files are below `root`."""

    def __init__(self, root: Path, region: Region) -> None:
        self._root, self._region = root, region
        self._kcore = open_kcore(root)

    def read_into(self, address: PhysAddr, buffer: memoryview) -> None:
        if self._kcore is None:
            raise PermissionError(13, "RAM can't be read", f"{self._root}/proc/kcore")
        self._kcore.read_into(address, buffer)

    def write(self, parts: Sequence[Part]) -> None:
        segments = iter(
            [
                _Segment(_address_of(data), data.nbytes, address, data.nbytes)
                for address, data in parts
            ]
        )
        try:
            while batch := list(islice(segments, _MOST_SEGMENTS)):
                _kexec_load(batch)
        finally:
            _kexec_load([])

    def clear(self, region: Region) -> None:
        try:
            _kexec_load([_Segment(None, 0, region.start, region.size_bytes)])
        finally:
            _kexec_load([])

    def is_in_place(self) -> bool:
        return usable_region(self._root) == self._region and not is_loaded(self._root)


def _kexec_load(segments: Sequence[_Segment]) -> None:
    """Have these as the crash kernel; none: have no crash kernel.

    :raise OSError: the kernel's error.
    """
    table = (_Segment * max(1, len(segments)))(*segments)
    entry = min((each.address for each in segments), default=0)  # has to be in the memory
    address = ctypes.addressof(table) if segments else 0
    call("syscall", _KEXEC_LOAD, entry, len(segments), address, _ON_CRASH)


def _address_of(data: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(data))


def usable_region(root: Path) -> Region | None:
    """The part of the crash kernel's memory that the driver uses, of the highest such range; None:
    there is none, or this user does not see it."""
    ranges = [(int(first, 16), int(last, 16) + 1, what) for first, last, what in _ranges(root)]
    crash = [(start, end) for start, end, what in ranges if what == "Crash kernel" and start]
    if not crash:
        return None
    start, end = max(crash)
    highest = max(end for _, end, _ in ranges)
    start += _ROOM_BYTES + -(-highest // GIB) * PAGE_SIZE
    start, end = -(-start // MIB) * MIB, end // PAGE_SIZE * PAGE_SIZE
    return Region(PhysAddr(start), PhysAddr(end)) if start < end else None


def _ranges(root: Path) -> list[tuple[str, str, str]]:
    return _RANGE.findall(_text(root, IOMEM))


def is_loaded(root: Path) -> bool:
    """Whether a crash kernel is loaded, such as kdump's."""
    return _text(root, LOADED).strip() == "1"


def lost_by(record: CrashRegionRecord, root: Path) -> str:
    """What is lost by staging in this memory, and what brings it back; empty: nothing."""
    if not record.was_loaded:
        return ""
    return (
        "a crash kernel (kdump) was loaded there: it is lost when something is staged, and a crash "
        f"of Linux leaves no dump until it is loaded again, after rbu driver stop: "
        f"{_how_to_reload(root)}"
    )


def _how_to_reload(root: Path) -> str:
    for program, command in (
        ("usr/sbin/kdump-config", "kdump-config load"),
        ("usr/bin/kdumpctl", "kdumpctl restart"),
    ):
        if (root / program).exists():
            return command
    return "systemctl restart kdump, or kexec -p"


def obstacles(root: Path = Path("/")) -> Iterator[Obstacle]:
    """What keeps a process from using the crash kernel's memory of the computer whose files are
    below `root`, as far as files say it. The names: `wrong_processor`, `no_crash_region`,
    `no_kexec`, `locked_down`, `memory_unreadable`."""
    if platform.machine() != "x86_64":
        yield Obstacle("wrong_processor", "openrbu can do this on 64-bit x86 only", "")
        return
    region = usable_region(root)
    if region is None:
        text = "Linux keeps no memory for a crash kernel, or not enough, or hides it from this user"
        yield Obstacle("no_crash_region", text, f"{_PREPARE}, and use root")
        return
    if region.start >= BIOS_SEARCH_END:
        text = f"the crash kernel's memory is at {region.start:#x}: no BIOS searches above 4 GiB"
        yield Obstacle("no_crash_region", text, f"{_PREPARE}, without ,high")
        return
    if not (root / LOADED.lstrip("/")).exists() or _text(root, DISABLED).strip() == "1":
        text = "this kernel does not let anybody load a crash kernel"
        yield Obstacle("no_kexec", text, "use another kernel (CONFIG_KEXEC, kexec_load_disabled 0)")
    if open_kcore(root) is None:
        text = "this kernel does not show its RAM (/proc/kcore), so nothing could be verified"
        yield Obstacle("memory_unreadable", text, "use root, and a kernel that is not locked down")


class CrashRegionBackend:
    """Makes the driver's memory of the crash kernel's. `root`: the directory of `/proc` and
    `/sys`."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def new(self, note: Note) -> FixedRegion:
        """Nothing is changed before something is written.

        :raise ObstacleError: when there is no such memory, or it can't be used.
        """
        for obstacle in obstacles(self._root):
            raise ObstacleError(str(obstacle))
        region = usable_region(self._root)
        assert region is not None
        return self._make(region, note, was_loaded=is_loaded(self._root))

    def open(self, record: OwnMemoryRecord, note: Note) -> FixedRegion:
        """Continue with what another process has left, or look at what it has.

        :raise DamagedInputError: when the record says what can't be.
        """
        if not isinstance(record, CrashRegionRecord):
            raise DamagedInputError(f"not the record of a crash kernel's memory: {record.kind}")
        region = region_of(record.start, record.end)
        memory = self._make(region, note, was_loaded=record.was_loaded)
        memory.restore(record.allocated, is_used=record.is_used)
        return memory

    def _make(self, region: Region, note: Note, *, was_loaded: bool) -> FixedRegion:
        def record(is_used: bool, allocated: AllocatedRows) -> CrashRegionRecord:
            return CrashRegionRecord(
                "crash_region", region.start, region.end, was_loaded, is_used, allocated
            )

        return FixedRegion("crash_region", region, CrashDoor(self._root, region), record, note)


def _text(root: Path, path: str) -> str:
    with contextlib.suppress(OSError):
        return (root / path.lstrip("/")).read_text("ascii", "replace")
    return ""
