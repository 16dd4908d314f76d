"""A machine's RAM through `/proc/kcore`: made cores, and that of the machine that this runs on."""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from openrbu.errors import AddressError
from openrbu.hosts.linux import LinuxHost
from openrbu.units import GIB, MIB, PAGE_SIZE, PhysAddr
from rigs.cores import (
    DISTANCE,
    HIGH,
    IOMEM,
    LOW,
    NO_PLACE,
    RAM_END,
    SEGMENTS,
    direct,
    opened,
    put,
    put_core,
    regions,
)
from rigs.machines import as_nobody, opened_up


def open_files() -> set[str]:
    """Their numbers, those that the rubbish of earlier tests holds not among them."""
    gc.collect()
    return {path.name for path in Path("/proc/self/fd").iterdir()}


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
    assert (bytes(view) == b"RAM!", view.readonly) == (True, True)


def test_ram_above_what_a_bios_searches_may_be_missing(tmp_path: Path) -> None:
    iomem = IOMEM + f"{4 * GIB:x}-{5 * GIB - 1:x} : System RAM\n"
    put_core(tmp_path, iomem=iomem)
    assert opened(tmp_path).regions == regions(LOW, HIGH)


# -- where it can't be seen -----------------------------------------------------------------


def headers_at(core: Path, field: int, offset: int, count: int = 1) -> None:
    """Write the offset of the program headers (field 32) or of the section headers (40)."""
    data = bytearray(core.read_bytes())
    struct.pack_into("<Q", data, field, offset)
    struct.pack_into("<H", data, 56, count)
    core.write_bytes(data)


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
        lambda root: headers_at(root / "proc/kcore", 32, 1 << 63),
        lambda root: headers_at(root / "proc/kcore", 40, (1 << 64) - 1, count=0xFFFF),
        lambda root: put_core(root, [((1 << 63) - MIB, MIB, RAM_END)]),
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
        "program headers where no file has bytes",
        "section headers where no file has bytes",
        "a segment where no file has bytes",
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


XEN = {"sys/hypervisor/type": "xen\n"}
PV, PVH, HVM = ({"sys/hypervisor/guest_type": f"{name}\n"} for name in ("PV", "PVH", "HVM"))
DOM0, DOM_U = ({"proc/xen/capabilities": text} for text in ("control_d\n", ""))


@pytest.mark.parametrize(
    ("files", "is_seen"),
    [
        (XEN | PV, False),
        (XEN | PV | DOM0, False),
        (XEN | PVH | DOM0, False),
        (XEN | DOM0, False),
        (XEN | PVH, True),
        (XEN | HVM | DOM_U, True),
        (XEN, True),
        ({"sys/hypervisor/type": "other\n"} | PV, True),
    ],
)
def test_addresses_that_xen_has_linux_make_up_are_not_taken_for_the_machines(
    tmp_path: Path, files: dict[str, str], is_seen: bool
) -> None:
    put_core(tmp_path)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert (LinuxHost(tmp_path).physical_memory is not None) is is_seen


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
