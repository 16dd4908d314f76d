"""The search through `/proc/kcore`, and verifying an update in it, in memory that changes."""

from __future__ import annotations

import ctypes
import errno
import random
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from openrbu.errors import DamagedInputError, UpdateFailedError
from openrbu.formats import packet
from openrbu.formats.hdr import Image, SystemId, make_image
from openrbu.formats.version import BiosVersion
from openrbu.hosts.linux import LinuxHost
from openrbu.memory import packet_sums, windows
from openrbu.memory.kcore import Kcore
from openrbu.memory.ram_file import RamFile
from openrbu.memory.scan import search
from openrbu.units import KIB, MIB, PAGE_SIZE, PhysAddr
from openrbu.update.driver import ReadBack
from openrbu.update.stage import make_payload, verify
from openrbu.update.verify import Verified
from rigs.cores import (
    DISTANCE,
    HIGH,
    LOW,
    direct,
    image_bytes,
    opened,
    put,
    put_core,
    regions,
)
from rigs.machines import Watched, published

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
    """Notes where the buffers are that memory is read into."""

    def __init__(self, memory: Kcore) -> None:
        self._memory = memory
        self.buffers: list[tuple[int, int]] = []
        self.regions, self.is_mapped = memory.regions, memory.is_mapped
        self.read, self.populated = memory.read, memory.populated
        self.view: Callable[[PhysAddr, int], memoryview] = self._noted_view

    def _noted_view(self, address: PhysAddr, size_bytes: int) -> memoryview:
        view = self._memory.view(address, size_bytes)
        self.buffers.append((np.frombuffer(view, np.uint8).ctypes.data, size_bytes))
        return view

    def read_into(self, address: PhysAddr, buffer: bytearray | memoryview) -> None:
        place = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
        self.buffers.append((place, len(buffer)))
        self._memory.read_into(address, buffer)


@pytest.mark.parametrize("few", [0, 5000])
def test_no_copy_that_is_made_begins_on_a_page_of_the_searcher(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    """Or it would find its own copies, which change while it compares them."""
    monkeypatch.setattr(packet_sums, "FEW", few)
    put_core(tmp_path)
    packets = packet.split(image_bytes(size_bytes=160 * KIB), packet_size_bytes=KIB, set_id=1)
    for number in range(len(packets) // KIB):
        at = MIB + number * PAGE_SIZE
        put(tmp_path, at, bytes(packets[KIB * number : KIB * (number + 1)]))
    memory = Noting(opened(tmp_path))
    assert search(memory).packet_sets[0].is_complete
    sizes = Counter(size for _, size in memory.buffers)
    assert sizes.keys() >= {packet.HEADER_SIZE_BYTES, KIB, windows.COPIED_BYTES}
    assert sizes[packet.HEADER_SIZE_BYTES] > PAGE_SIZE // packet.HEADER_SIZE_BYTES
    memory.view(PhysAddr(MIB), 3 * PAGE_SIZE)
    assert all(place % PAGE_SIZE for place, _ in memory.buffers)


class Reused(Noting):
    """Memory in which a page gets other bytes as soon as a copy of it was made."""

    def __init__(self, root: Path, page: int, other: bytes) -> None:
        super().__init__(opened(root))
        self._root, self._page, self._other = root, page, other
        self.view = self._view_and_change

    def _view_and_change(self, address: PhysAddr, size_bytes: int) -> memoryview:
        seen = self._memory.view(address, size_bytes)
        if address == self._page:
            put(self._root, self._page, self._other)
        return seen


@pytest.mark.parametrize(
    "other",
    [
        bytes(PAGE_SIZE),
        b"$RBU\x80",
        b"$RBU\xff",
        b"$RBU" + bytes(80),
        make_image(b"x", version=BiosVersion.parse("A07"), systems=[SystemId(0x0121)])[:84],
    ],
    ids=["nothing", "a longer one", "one too long", "a damaged one", "another one"],
)
@pytest.mark.parametrize("flash_size", [64 * KIB, None])
def test_a_header_that_changes_while_it_is_read_is_a_reject(
    tmp_path: Path, other: bytes, flash_size: int | None
) -> None:
    put_core(tmp_path)
    for at in (2 * MIB, 6 * MIB):
        put(tmp_path, at, image_bytes())
    seen = search(Reused(tmp_path, 2 * MIB, other), flash_size_bytes=flash_size)
    assert [found.address for found in seen.images] == [6 * MIB]
    why = "image: its header changed while it was read"
    assert [(reject.address, reject.why) for reject in seen.rejects] == [(2 * MIB, why)]


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


def verified(root: Path, *takes: int, leftovers: int) -> Verified:
    """Verify packets in memory that has leftovers of packet 1 from 2 MiB on; `takes`: see above."""
    return verified_in(root, lambda: Moving(root, *takes), leftovers=leftovers)


def verified_in(root: Path, memory: Callable[[], Noting], *, leftovers: int = 0) -> Verified:
    """The same in a memory of another kind."""
    payload = make_payload(image_bytes(), mode="packet", packet_size_bytes=4 * KIB, password=None)
    put_core(root)
    put(root, PLACE, bytes(payload.staged))
    for number in range(leftovers):
        packet_1 = bytes(payload.staged[PAGE_SIZE : 2 * PAGE_SIZE])
        put(root, 2 * MIB + number * PAGE_SIZE, packet_1)
    host = Watched(LinuxHost(root), lambda name, arguments: None, {"physical_memory": memory()})
    bioses = published(Image.parse(image_bytes()))
    return verify(host, payload, ReadBack.RIGHT, bioses)


def test_packets_are_found_where_they_lie(tmp_path: Path) -> None:
    size = len(packet.split(image_bytes(), set_id=1))
    assert verified(tmp_path, leftovers=0).extents == regions((PLACE, PLACE + size))


def test_a_page_that_is_taken_during_the_search_is_no_reason_to_refuse(tmp_path: Path) -> None:
    """Seen on Debian's 6.1.192: the loader's freed pages become the searcher's own memory."""
    extents = verified(tmp_path, 2 * MIB, 2 * MIB + PAGE_SIZE, leftovers=2).extents
    assert extents is not None
    assert extents[0].start == PLACE


def test_what_is_wrong_at_every_search_is_refused(tmp_path: Path) -> None:
    def memory() -> Noting:
        put(tmp_path, PLACE + 5 * PAGE_SIZE, bytes(PAGE_SIZE))
        return Noting(opened(tmp_path))

    with pytest.raises(
        UpdateFailedError, match="1 of the set's 18 packets is missing or damaged: "
    ):
        verified_in(tmp_path, memory)


class Refusing(Noting):
    """Memory that can't be read a number of times, as where a page has just been taken away."""

    def __init__(self, root: Path, *errors: Exception) -> None:
        super().__init__(opened(root))
        self._errors = list(errors)

    def read_into(self, address: PhysAddr, buffer: bytearray | memoryview) -> None:
        if self._errors:
            raise self._errors.pop(0)
        super().read_into(address, buffer)


def test_what_can_not_be_read_for_a_moment_is_looked_at_again(tmp_path: Path) -> None:
    def memory() -> Refusing:
        return Refusing(tmp_path, OSError(errno.EFAULT, ""), DamagedInputError("changed"))

    assert verified_in(tmp_path, memory).extents


def test_what_can_never_be_read_is_an_error_with_the_kernels_answer(tmp_path: Path) -> None:
    faults = [OSError(errno.EFAULT, "Bad address") for _ in range(3)]
    with pytest.raises(OSError, match="Bad address") as refusal:
        verified_in(tmp_path, lambda: Refusing(tmp_path, *faults))
    assert refusal.value.errno == errno.EFAULT
