"""What a virtual machine's kernel shows of memory: `/proc/iomem`, `kcore`, `meminfo`, `/dev/mem`.

The formats and errors were seen on 6.1.192 (docs/reference/linux-files.md, L6, L15 and L16).
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrbu.bios.rom import ROM, SYSTEM_ROM, rom_below_1_mib
from openrbu.drivers.sysfs import Caller
from openrbu.errors import KernelError
from openrbu.formats import rom_identity
from openrbu.formats.elf_core import FILE_HEADER, LOAD, PROGRAM_HEADER
from openrbu.formats.entry_point import EntryPoint, make_entry_point
from openrbu.formats.smbios import make_structure, make_tables
from openrbu.kernel.kernel import Kernel
from openrbu.machine.virtual import VirtualMachine
from openrbu.units import GIB, KIB, MIB, PAGE_SIZE, PhysAddr
from rigs.machines import make, running

SOMEBODY = Caller(uid=1000, sys_rawio=False)
RAM_BYTES = 5 * GIB
BEHIND_RAM = 8 * GIB


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VirtualMachine]:
    directory = make(tmp_path_factory.mktemp("home"), ram_bytes=RAM_BYTES, hardware_revision=3)
    with running(directory) as on:
        yield on


@pytest.fixture
def kernel(machine: VirtualMachine) -> Kernel:
    return machine.running_kernel()


def meminfo(kernel: Kernel) -> dict[str, int]:
    text = kernel.read("/proc/meminfo", 0, 1 << 16).decode()
    return {
        name: int(number) for name, number in re.findall(r"^(\S+): +(\d+)(?: kB)?$", text, re.M)
    }


def refused(kernel: Kernel, path: str, data: bytes | None = None, offset: int = 0) -> int:
    """The errno of a read, or of a write of `data`."""
    with pytest.raises(KernelError) as refusal:
        kernel.read(path, offset, 16) if data is None else kernel.write(path, data, offset)
    assert refusal.value.errno is not None
    return refusal.value.errno


def test_iomem_has_the_ram_and_root_alone_sees_where(kernel: Kernel) -> None:
    text = kernel.read("/proc/iomem", 0, 1 << 16).decode()
    assert text == (
        "00000000-00000fff : Reserved\n"
        "00001000-0009ffff : System RAM\n"
        "000a0000-000fffff : Reserved\n"
        "  000f0000-000fffff : System ROM\n"
        "00100000-bfffffff : System RAM\n"
        "  01000000-01ffffff : Kernel code\n"
        "100000000-17fffffff : System RAM\n"
    )
    others = kernel.read("/proc/iomem", 0, 1 << 16, caller=SOMEBODY).decode()
    assert others == re.sub(r"[0-9a-f]{8,}", "00000000", text)


def test_kcore_is_an_elf_core_over_the_ram(machine: VirtualMachine, kernel: Kernel) -> None:
    core = kernel.open("/proc/kcore", reading=True)
    count = FILE_HEADER.unpack(core.read(0, FILE_HEADER.size))[12]
    table = core.read(FILE_HEADER.size, count * PROGRAM_HEADER.size)
    segments = [
        (address, size)
        for kind, _, _, _, address, size, _, _ in PROGRAM_HEADER.iter_unpack(table)
        if kind == LOAD
    ]
    assert segments == [(0x1000, 0x9F000), (MIB, 3 * GIB - MIB), (4 * GIB, 2 * GIB)]
    for number, address in enumerate((0x9000, 40 * MIB, 5 * GIB)):
        machine.ram.write(PhysAddr(address), b"here")
        offset = PROGRAM_HEADER.unpack_from(table, number * PROGRAM_HEADER.size)[2]
        assert core.read(offset + address - segments[number][0], 6) == b"here\0\0"
    last = PROGRAM_HEADER.unpack_from(table, PROGRAM_HEADER.size)[2] + segments[1][1]
    assert core.read(last - 2, 1 << 20) == bytes(1 << 20), "what lies behind RAM is zeros"


def test_kcore_and_dev_mem_are_for_root(kernel: Kernel) -> None:
    for path in ("/proc/kcore", "/dev/mem"):
        with pytest.raises(KernelError) as refusal:
            kernel.open(path, reading=True, caller=SOMEBODY)
        assert refusal.value.errno == errno.EACCES


def test_meminfo_tells_what_is_free_and_what_is_held(kernel: Kernel) -> None:
    before = meminfo(kernel)
    assert list(before)[:3] == ["MemTotal", "MemFree", "MemAvailable"]
    assert before["MemTotal"] == (RAM_BYTES - 1 * MIB - 16 * MIB) // KIB
    assert before["MemFree"] == before["MemAvailable"] == kernel.allocator.free_bytes // KIB
    kernel.write("/proc/sys/vm/nr_hugepages", b"7", 0)
    held = meminfo(kernel)
    kernel.write("/proc/sys/vm/nr_hugepages", b"0", 0)
    assert (held["HugePages_Total"], held["HugePages_Free"], held["Hugepagesize"]) == (7, 7, 2048)
    assert before["MemFree"] - held["MemFree"] == held["Hugetlb"] == 7 * 2048
    assert meminfo(kernel) == before


def test_memory_is_compacted_and_caches_are_dropped_where_nothing_moves(kernel: Kernel) -> None:
    before = kernel.read("/proc/buddyinfo", 0, 1 << 16)
    for path, texts in (("compact_memory", (b"1", b"x")), ("drop_caches", (b"1", b"3\n", b"0x4"))):
        for text in texts:
            assert kernel.write(f"/proc/sys/vm/{path}", text, 0) == len(text)
        assert refused(kernel, f"/proc/sys/vm/{path}") == errno.EACCES
    assert kernel.read("/proc/buddyinfo", 0, 1 << 16) == before


@pytest.mark.parametrize("text", [b"0", b"5", b"-1", b"x"])
def test_other_numbers_drop_no_caches(kernel: Kernel, text: bytes) -> None:
    assert refused(kernel, "/proc/sys/vm/drop_caches", text) == errno.EINVAL


def test_dev_mem_has_the_tables_where_the_entry_point_says(
    machine: VirtualMachine, kernel: Kernel
) -> None:
    entry, table = machine.tables.build()
    rom = kernel.read("/dev/mem", ROM.start, ROM.size_bytes)
    places = [at for at in range(SYSTEM_ROM.start - ROM.start, len(rom), 16)
              if rom.startswith(b"_SM_", at)]  # fmt: skip
    assert [rom[at : at + len(entry)] for at in places] == [entry]
    address = EntryPoint.parse(entry).table_address
    assert kernel.read("/dev/mem", address, len(table)) == table


def test_dev_mem_has_the_hardware_revision(kernel: Kernel) -> None:
    identity = kernel.read("/dev/mem", rom_identity.ADDRESS, 12)
    assert rom_identity.revision_in(identity, 0x01DE) == 3


def test_dev_mem_shows_the_first_page_and_no_other_ram(
    machine: VirtualMachine, kernel: Kernel
) -> None:
    for address in (0x472, 0x5000):
        machine.ram.write(PhysAddr(address), b"\x34\x12")
    assert kernel.read("/dev/mem", 0x470, 4) == b"\0\0\x34\x12"
    assert kernel.read("/dev/mem", 0x5000, 2) == b"\0\0"
    across = kernel.read("/dev/mem", PAGE_SIZE - 4, 8)
    assert across == machine.ram.read(PhysAddr(PAGE_SIZE - 4), 4) + bytes(4)


@pytest.mark.parametrize(
    ("address", "error"),
    [
        (0xFFFF8, errno.EPERM),
        (MIB, errno.EPERM),
        (5 * GIB, errno.EPERM),
        (0xFEC00000, errno.EFAULT),
        (BEHIND_RAM, errno.EFAULT),
    ],
)
def test_dev_mem_ends_at_1_mib(kernel: Kernel, address: int, error: int) -> None:
    assert refused(kernel, "/dev/mem", offset=address) == error


def test_dev_mem_takes_no_write(kernel: Kernel) -> None:
    for address in (0, 0x472, SYSTEM_ROM.start, MIB):
        assert refused(kernel, "/dev/mem", b"\x34\x12", offset=address) == errno.EPERM


def test_a_table_above_1_mib_is_not_in_dev_mem() -> None:
    tables = make_tables(make_entry_point(address=0x7F000000), [make_structure(127, 1, b"")])
    entry, table = tables.build()
    rom = rom_below_1_mib(tables, 0)
    assert rom.count(entry) == 1
    assert table not in rom


# -- lockdown -------------------------------------------------------------------------------

LOCKDOWN = "/sys/kernel/security/lockdown"


@pytest.mark.parametrize(
    ("words", "shown", "closed"),
    [
        ("", "[none] integrity confidentiality\n", ()),
        ("lockdown=integrity", "none [integrity] confidentiality\n", ("/dev/mem", "/dev/port")),
        ("lockdown=confidentiality", "none integrity [confidentiality]\n",
         ("/dev/mem", "/dev/port", "/proc/kcore")),
    ],
)  # fmt: skip
def test_lockdown_closes_memory_and_ports(
    tmp_path: Path, words: str, shown: str, closed: tuple[str, ...]
) -> None:
    with running(make(tmp_path, kernel_words=words)) as on:
        kernel = on.running_kernel()
        assert kernel.read(LOCKDOWN, 0, 99).decode() == shown
        for path in ("/dev/mem", "/dev/port", "/proc/kcore"):
            if path in closed:
                assert refused(kernel, path) == errno.EPERM
            else:
                kernel.open(path, reading=True)
        assert len(kernel.read("/sys/bus/nvmem/devices/cmos_nvram0/nvmem", 0, 4)) == 4


def test_lockdown_is_raised_and_never_lowered_and_stays(tmp_path: Path) -> None:
    directory = make(tmp_path)
    with running(directory) as on:
        kernel = on.running_kernel()
        assert refused(kernel, LOCKDOWN, b"none") == errno.EPERM
        assert refused(kernel, LOCKDOWN, b"much") == errno.EINVAL
        kernel.write(LOCKDOWN, b"integrity\n", 0)
    with VirtualMachine(directory) as on:
        kernel = on.running_kernel()
        assert kernel.read(LOCKDOWN, 0, 99) == b"none [integrity] confidentiality\n"
        assert refused(kernel, LOCKDOWN, b"integrity") == errno.EPERM
        on.restart()
        assert on.running_kernel().read(LOCKDOWN, 0, 6) == b"[none]"
