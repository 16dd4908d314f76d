"""A machine's RAM through `/proc/kcore`: made cores, and that of the machine that this runs on."""

from __future__ import annotations

import ctypes
import mmap
import os
import random
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from machines import Watched, as_nobody, opened_up
from openrbu.errors import AddressError, UpdateFailedError
from openrbu.formats import packet
from openrbu.formats.hdr import SystemId, make_image
from openrbu.formats.version import BiosVersion
from openrbu.hosts.linux import LinuxHost
from openrbu.memory import ram_array
from openrbu.memory.kcore import Kcore, open_kcore
from openrbu.memory.physical import RamFile, Region
from openrbu.memory.scan import search
from openrbu.units import GIB, KIB, MIB, PAGE_SIZE, PhysAddr
from openrbu.update.stage import make_payload, verify
from openrbu.update.verify import ReadBack, Verified

NO_PLACE = (1 << 64) - 1
DISTANCE = 0x5000
"""Of the direct map in the cores made here: file offset less physical address."""

RAM_END = 8 * MIB
IOMEM = f"""\
00000000-00000fff : Reserved
00001000-0009fbff : System RAM
000a0000-000bffff : PCI Bus 0000:00
00100000-{RAM_END - 1:08x} : System RAM
  00200000-003fffff : Kernel code
fec00000-fec003ff : IOAPIC 0
"""
LOW = (0x1000, 0x9F000)
HIGH = (MIB, RAM_END)

Segment = tuple[int, int, int]
"""Offset in the file, physical address, size."""


def direct(start: int, end: int) -> Segment:
    return (start + DISTANCE, start, end - start)


SEGMENTS = [
    (RAM_END + DISTANCE, 2 * MIB, 2 * MIB),  # the kernel's own text: other bytes in this made core
    (0x100, NO_PLACE, 1 << 45),
    direct(*LOW),
    direct(*HIGH),
]


def put_core(
    root: Path, segments: list[Segment] = SEGMENTS, iomem: str = IOMEM, *, kind: int = 4
) -> Path:
    """`proc/kcore` and `proc/iomem` below `root`; the core is a note, then these segments."""
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/iomem").write_text(iomem)
    core = root / "proc/kcore"
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    count = len(segments) + 1
    head = ident + struct.pack("<HHIQQQIHHHHHH", kind, 62, 1, 0, 64, 0, 0, 64, 56, count, 0, 0, 0)
    table = struct.pack("<IIQQQQQQ", 4, 0, 0x200, 0, 0, 0x100, 0, 0)
    for offset, address, size in segments:
        table += struct.pack("<IIQQQQQQ", 1, 7, offset, 1 << 63 | offset, address, size, size, 1)
    with core.open("wb") as file:
        file.write(head + table)
        file.truncate(max(DISTANCE + RAM_END + 2 * MIB, len(head + table)))
    return core


def put(root: Path, address: int, data: bytes) -> None:
    with (root / "proc/kcore").open("r+b") as file:
        file.seek(address + DISTANCE)
        file.write(data)


def opened(root: Path) -> Kcore:
    memory = open_kcore(root)
    assert memory is not None
    return memory


def open_files() -> set[str]:
    return {path.name for path in Path("/proc/self/fd").iterdir()}


def regions(*spans: tuple[int, int]) -> tuple[Region, ...]:
    return tuple(Region(PhysAddr(start), PhysAddr(end)) for start, end in spans)


def image_bytes(seed: int = 7, size_bytes: int = 64 * KIB) -> bytes:
    data = random.Random(seed).randbytes(size_bytes)
    return make_image(data, version=BiosVersion.parse("A06"), systems=[SystemId(0x0121)])


# -- what is RAM ----------------------------------------------------------------------------


def test_regions_are_the_whole_pages_of_system_ram(tmp_path: Path) -> None:
    put_core(tmp_path)
    memory = opened(tmp_path)
    assert memory.regions == regions(LOW, HIGH)
    assert list(memory.populated(PhysAddr(0x2000), PhysAddr(2 * MIB))) == list(
        regions((0x2000, 0x9F000), (MIB, 2 * MIB))
    )


def test_what_lies_between_stretches_of_ram_is_never_read(tmp_path: Path) -> None:
    put_core(tmp_path, [direct(0x1000, RAM_END)])
    memory = opened(tmp_path)
    assert memory.regions == regions(LOW, HIGH)
    for address, size_bytes in ((0, 1), (0x9EFFF, 2), (0xA0000, 4), (RAM_END - 1, 2)):
        with pytest.raises(AddressError):
            memory.read(PhysAddr(address), size_bytes)
        with pytest.raises(AddressError):
            memory.view(PhysAddr(address), size_bytes)


def test_stretches_without_a_gap_between_them_are_one_region(tmp_path: Path) -> None:
    middle = 4 * MIB
    iomem = f"00100000-{middle - 1:08x} : System RAM\n{middle:08x}-{RAM_END - 1:08x} : System RAM\n"
    put_core(tmp_path, [direct(middle, RAM_END), direct(MIB, middle)], iomem)
    assert opened(tmp_path).regions == regions(HIGH)


def test_bytes_come_from_the_direct_map(tmp_path: Path) -> None:
    put_core(tmp_path)
    put(tmp_path, 3 * MIB - 2, b"RAM!")
    memory = opened(tmp_path)
    buffer = bytearray(4)
    memory.read_into(PhysAddr(3 * MIB - 2), buffer)
    assert buffer == b"RAM!"
    assert memory.read(PhysAddr(3 * MIB - 2), 4) == b"RAM!"
    view = memory.view(PhysAddr(3 * MIB - 2), 4)
    assert (view == b"RAM!", view.readonly) == (True, True)


def test_ram_above_what_a_bios_searches_may_be_missing(tmp_path: Path) -> None:
    iomem = IOMEM + f"{4 * GIB:x}-{5 * GIB - 1:x} : System RAM\n"
    put_core(tmp_path, iomem=iomem)
    assert opened(tmp_path).regions == regions(LOW, HIGH)


# -- where it can't be seen -----------------------------------------------------------------


def cut(core: Path) -> None:
    core.write_bytes(core.read_bytes()[:100])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda root: (root / "proc/kcore").unlink(),
        lambda root: (root / "proc/iomem").unlink(),
        lambda root: put_core(root, iomem="00000000-00000000 : System RAM\n" * 3),
        lambda root: put_core(root, [direct(*LOW), direct(MIB, RAM_END - PAGE_SIZE)]),
        lambda root: put_core(root, [SEGMENTS[0], direct(MIB, 2 * MIB), direct(4 * MIB, RAM_END)]),
        lambda root: put_core(root, [(offset, 0, size) for offset, _, size in SEGMENTS]),
        lambda root: put_core(root, [(0x100, NO_PLACE, 1 << 45)]),
        lambda root: put_core(root, kind=2),
        lambda root: (root / "proc/kcore").write_bytes(b""),
        lambda root: cut(root / "proc/kcore"),
    ],
    ids=[
        "no core",
        "no list of RAM",
        "a list for others than root",
        "a page is missing",
        "pages are in the kernel's text alone",
        "no physical addresses, as before 4.11",
        "no direct map",
        "another kind of ELF file",
        "an empty file",
        "a cut file",
    ],
)
def test_there_is_no_memory_to_be_seen_where_the_kernel_does_not_show_it(
    tmp_path: Path, spoil: Callable[[Path], object]
) -> None:
    put_core(tmp_path)
    assert LinuxHost(tmp_path).physical_memory is not None
    before = open_files()
    spoil(tmp_path)
    assert LinuxHost(tmp_path).physical_memory is None
    assert open_files() == before


def test_a_core_that_may_not_be_opened_is_none(tmp_path: Path) -> None:
    core = put_core(tmp_path)
    opened_up(core)
    core.chmod(0o600 if os.geteuid() == 0 else 0)

    def work() -> None:
        assert LinuxHost(tmp_path).physical_memory is None

    as_nobody(work)


def test_a_core_that_ends_before_ram_does_is_an_error_with_the_files_name(tmp_path: Path) -> None:
    core = put_core(tmp_path)
    memory = opened(tmp_path)
    os.truncate(core, DISTANCE + 2 * MIB)
    with pytest.raises(OSError, match="ends where RAM should be") as refusal:
        memory.read(PhysAddr(2 * MIB - 4), 8)
    assert refusal.value.filename == "/proc/kcore"


def test_the_file_is_closed_when_the_memory_is_gone(tmp_path: Path) -> None:
    put_core(tmp_path)
    before = open_files()
    memory = opened(tmp_path)
    assert open_files() != before
    del memory
    assert open_files() == before


# -- the search -----------------------------------------------------------------------------


def test_a_search_finds_the_same_as_in_a_mapped_file(tmp_path: Path) -> None:
    put_core(tmp_path)
    packets = packet.split(image_bytes(), packet_size_bytes=KIB, set_id=1)
    ram = RamFile.create(tmp_path / "ram", regions(LOW, HIGH))
    places = random.Random(5).sample(range(MIB, 4 * MIB, PAGE_SIZE), len(packets) // KIB)
    parts = [
        (at, bytes(packets[KIB * n : KIB * n + KIB])) for n, at in enumerate([*places, *places])
    ]
    for at, part in [*parts, (5 * MIB, image_bytes()), (6 * MIB, image_bytes()[:PAGE_SIZE])]:
        ram.write(PhysAddr(at), part)
        put(tmp_path, at, part)
    ram.write(PhysAddr(7 * MIB), b"$RPK")
    put(tmp_path, 7 * MIB, b"$RPK")
    memory = opened(tmp_path)
    for flash_size in (None, 64 * KIB):
        seen = search(memory, flash_size_bytes=flash_size)
        assert seen == search(ram, flash_size_bytes=flash_size)
        assert seen.packet_sets[0].is_complete
        assert [found.address for found in seen.images] == [5 * MIB]
        assert seen.packet_sets[0].assemble(memory)[: len(image_bytes())] == image_bytes()


def test_a_search_reads_a_large_memory_through_a_small_window(tmp_path: Path) -> None:
    end = 256 * MIB
    iomem = f"00100000-{end - 1:08x} : System RAM\n"
    with put_core(tmp_path, [direct(MIB, end)], iomem).open("r+b") as core:
        core.truncate(end + DISTANCE)
    put(tmp_path, end - PAGE_SIZE, b"$RPK")
    memory = opened(tmp_path)
    tracemalloc.start()
    try:
        assert search(memory).rejects[0].address == end - PAGE_SIZE
        assert tracemalloc.get_traced_memory()[1] < 4 * MIB
    finally:
        tracemalloc.stop()


class Noting:
    """Notes where the buffers are that are read into."""

    def __init__(self, memory: Kcore) -> None:
        self._memory = memory
        self.buffers: list[tuple[int, int]] = []
        self.regions, self.is_mapped = memory.regions, memory.is_mapped
        self.read, self.view, self.populated = memory.read, memory.view, memory.populated

    def read_into(self, address: PhysAddr, buffer: bytearray | memoryview) -> None:
        place = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
        self.buffers.append((place, len(buffer)))
        self._memory.read_into(address, buffer)


def test_no_copy_of_a_page_or_packet_begins_on_a_page_of_the_searcher(tmp_path: Path) -> None:
    """Or it would find its own copies, which change while it compares them."""
    put_core(tmp_path)
    packets = packet.split(image_bytes(), packet_size_bytes=KIB, set_id=1)
    for number in range(len(packets) // KIB):
        at = MIB + number * PAGE_SIZE
        put(tmp_path, at, bytes(packets[KIB * number : KIB * (number + 1)]))
    memory = Noting(opened(tmp_path))
    assert search(memory).packet_sets[0].is_complete
    copies = [place for place, size in memory.buffers if size >= KIB]
    assert {size for _, size in memory.buffers} >= {KIB, ram_array._WINDOW_BYTES}
    view = memory.view(PhysAddr(MIB), 3 * PAGE_SIZE)
    copies.append(np.frombuffer(view, np.uint8).ctypes.data)
    assert all(place % PAGE_SIZE for place in copies)


# -- verifying an update in it --------------------------------------------------------------


class Moving(Noting):
    """Memory of which a page is taken by another program each time that a copy is made of it."""

    def __init__(self, root: Path, *takes: int) -> None:
        super().__init__(opened(root))
        self._root, self._takes = root, list(takes)
        self.view = self._view_and_lose

    def _view_and_lose(self, address: PhysAddr, size_bytes: int) -> memoryview:
        for taken in self._takes[:1]:
            if taken <= address < taken + PAGE_SIZE:
                put(self._root, self._takes.pop(0), bytes(PAGE_SIZE))
        return self._memory.view(address, size_bytes)


PLACE = 6 * MIB


def verified(root: Path, *takes: int, ghosts: int) -> Verified:
    """Verify packets in memory that has ghosts of packet 1 at 2 MiB and up; `takes`: see above."""
    payload = make_payload(image_bytes(), mode="packet", packet_size_bytes=4 * KIB, password=None)
    put_core(root)
    put(root, PLACE, bytes(payload.staged))
    for number in range(ghosts):
        packet_1 = bytes(payload.staged[PAGE_SIZE : 2 * PAGE_SIZE])
        put(root, 2 * MIB + number * PAGE_SIZE, packet_1)
    host = Watched(
        LinuxHost(root), lambda name, arguments: None, {"physical_memory": Moving(root, *takes)}
    )
    return verify(host, payload, ReadBack.RIGHT, packets_known=True)


def test_packets_are_found_where_they_lie(tmp_path: Path) -> None:
    size = len(packet.split(image_bytes(), set_id=1))
    assert verified(tmp_path, ghosts=0).extents == regions((PLACE, PLACE + size))


def test_a_page_that_is_taken_during_the_search_is_no_reason_to_refuse(tmp_path: Path) -> None:
    """Seen on Debian's 6.1.192: the loader's freed pages become the searcher's own memory."""
    extents = verified(tmp_path, 2 * MIB, 2 * MIB + PAGE_SIZE, ghosts=2).extents
    assert extents is not None
    assert extents[0].start == PLACE


def test_what_is_wrong_at_every_look_is_refused(tmp_path: Path) -> None:
    takes = [2 * MIB + number * PAGE_SIZE for number in range(3)]
    with pytest.raises(UpdateFailedError, match="hold another image"):
        verified(tmp_path, *takes, ghosts=3)


# -- this machine's own ---------------------------------------------------------------------


def shows_a_core() -> bool:
    """Not where it is locked down, kept from users, or hidden by a container."""
    try:
        with open("/proc/kcore", "rb", buffering=0) as core:  # noqa: PTH123
            return core.read(4) == b"\x7fELF"
    except OSError:
        return False


def test_this_machines_own_memory_shows_what_this_process_wrote() -> None:
    memory = LinuxHost().physical_memory
    if memory is None:
        assert not shows_a_core()
        return
    own = mmap.mmap(-1, PAGE_SIZE)
    text = os.urandom(PAGE_SIZE)
    own[:] = text
    address = ctypes.addressof(ctypes.c_char.from_buffer(own))
    with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:  # noqa: PTH123
        pagemap.seek(address // PAGE_SIZE * 8)
        (entry,) = struct.unpack("<Q", pagemap.read(8))
    frame = entry & ((1 << 55) - 1)
    assert memory.read(PhysAddr(frame * PAGE_SIZE), PAGE_SIZE) == text
