"""The SMI driver. What is marked so was seen on Debian's 6.1.192."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrbu.drivers.dcdbas import DEVICE_PATH, MAX_BUFFER_BYTES, SMI_MAGIC, Dcdbas
from openrbu.drivers.sysfs import Caller, SysfsTree
from openrbu.errors import KernelError
from openrbu.memory.buddy import BuddyAllocator
from openrbu.memory.physical import pc_regions
from openrbu.memory.ram_file import RamFile
from openrbu.units import GIB, PhysAddr
from rigs.kept import kept

DATA = f"{DEVICE_PATH}/smi_data"
SIZE = f"{DEVICE_PATH}/smi_data_buf_size"
ADDRESS = f"{DEVICE_PATH}/smi_data_buf_phys_addr"
REQUEST = f"{DEVICE_PATH}/smi_request"

COMMAND = struct.pack("<IIIHBB", SMI_MAGIC, 0, 0x42534931, 0xB2, 0xFF, 0) + bytes(36)


class Bios:
    """Answers each call with its bytes, the last four of them changed."""

    def __init__(self) -> None:
        self.calls: list[bytes] = []

    def __call__(self, buffer: bytes) -> bytes:
        self.calls.append(buffer)
        return buffer[:-4] + b"done"


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[RamFile]:
    memory = RamFile.create(tmp_path / "ram", pc_regions(5 * GIB))
    yield memory
    memory.close()


@pytest.fixture
def pages(memory: RamFile) -> BuddyAllocator:
    return BuddyAllocator(memory)


@pytest.fixture
def bios() -> Bios:
    return Bios()


@pytest.fixture
def tree(pages: BuddyAllocator, bios: Bios) -> SysfsTree:
    tree = SysfsTree()
    Dcdbas(tree, pages, bios).load()
    return tree


def refusal(tree: SysfsTree, path: str, data: bytes, offset: int = 0) -> int | None:
    with pytest.raises(KernelError) as refused:
        tree.write(path, data, offset)
    return refused.value.errno


def test_at_first_there_is_no_buffer(tree: SysfsTree) -> None:
    assert tree.read(SIZE) == b"0\n"
    assert tree.read(ADDRESS) == b"0\n"
    assert tree.read(DATA) == b""


def test_the_sequence_of_libsmbios_makes_a_call(tree: SysfsTree, bios: Bios) -> None:
    """It clears what is there, sizes, writes, fires with `1` and a NUL at offset 1, reads."""
    tree.write(SIZE, b"52")  # an earlier call's
    tree.write(REQUEST, b"0")
    tree.write(SIZE, str(len(COMMAND)).encode())
    tree.write(DATA, COMMAND)
    tree.write(REQUEST, b"1\0", 1)
    assert bios.calls == [COMMAND]
    assert tree.read(DATA, 0, len(COMMAND)) == COMMAND[:-4] + b"done"


def test_the_handler_gets_all_of_the_buffer(tree: SysfsTree, bios: Bios) -> None:
    tree.write(SIZE, b"100")
    tree.write(DATA, COMMAND)
    tree.write(REQUEST, b"1")
    assert bios.calls == [COMMAND.ljust(100, b"\0")]


@pytest.mark.parametrize("text", [b"0", b"0\n", b"\0", b"abc", b"-1", b"0x1"])
def test_zero_and_what_is_no_number_clear_the_buffer(
    tree: SysfsTree, bios: Bios, text: bytes
) -> None:
    """Seen on Linux."""
    tree.write(DATA, COMMAND)
    tree.write(REQUEST, text)
    assert tree.read(DATA) == bytes(len(COMMAND))
    assert bios.calls == []


@pytest.mark.parametrize("text", [b"3", b"7\n", b"11"])
def test_any_other_request_is_einval(tree: SysfsTree, bios: Bios, text: bytes) -> None:
    tree.write(DATA, COMMAND)
    assert refusal(tree, REQUEST, text) == errno.EINVAL
    assert tree.read(DATA) == COMMAND
    assert bios.calls == []


@pytest.mark.parametrize("size", [0, 4, 16])
@pytest.mark.parametrize("text", [b"0", b"1", b"7"])
def test_without_room_for_a_command_a_request_is_enodev(
    tree: SysfsTree, size: int, text: bytes
) -> None:
    """Seen on Linux."""
    tree.write(SIZE, str(size).encode())
    assert refusal(tree, REQUEST, text) == errno.ENODEV


def test_a_command_without_its_magic_number_is_ebadr(tree: SysfsTree, bios: Bios) -> None:
    """Seen on Linux."""
    tree.write(DATA, b"X" + COMMAND[1:])
    assert refusal(tree, REQUEST, b"1") == errno.EBADR
    assert bios.calls == []


@pytest.mark.parametrize(
    ("text", "size"),
    [(b"60\n", 60), (b"100x", 100), (b"10", 52), (b"abc", 52), (b"0x40", 52), (b" 90", 52)],
)
def test_writing_the_size_grows_the_buffer_and_never_shrinks_it(
    tree: SysfsTree, text: bytes, size: int
) -> None:
    """Seen on Linux."""
    tree.write(SIZE, b"52")
    tree.write(SIZE, text)
    assert tree.read(SIZE) == f"{size}\n".encode()


def test_a_buffer_that_grows_keeps_what_is_in_it(tree: SysfsTree, pages: BuddyAllocator) -> None:
    before = pages.free_bytes
    tree.write(SIZE, b"52")
    tree.write(DATA, b"keep me", 40)
    tree.write(DATA, b"x", 100_000)
    assert tree.read(SIZE) == b"100001\n"
    assert tree.read(DATA, 40, 12) == b"keep me" + bytes(5)
    assert tree.read(DATA, 100_000, 5) == b"x"
    assert tree.read(DATA, 200_000, 5) == b""
    assert pages.free_bytes == before - 128 * 1024


def test_the_buffer_holds_at_most_256_kib(tree: SysfsTree) -> None:
    """Seen on Linux."""
    assert refusal(tree, SIZE, str(MAX_BUFFER_BYTES + 1).encode()) == errno.EINVAL
    assert refusal(tree, DATA, b"x", MAX_BUFFER_BYTES) == errno.EINVAL
    assert refusal(tree, DATA, b"x", 2**60) == errno.EINVAL
    tree.write(SIZE, str(MAX_BUFFER_BYTES).encode())
    assert tree.read(SIZE) == f"{MAX_BUFFER_BYTES}\n".encode()


def test_the_buffer_is_below_4_gib_and_its_address_is_shown_in_hex(
    tree: SysfsTree, memory: RamFile
) -> None:
    tree.write(DATA, COMMAND)
    address = int(tree.read(ADDRESS), 16)
    assert 0 < address < 4 * GIB
    assert tree.read(ADDRESS) == f"{address:x}\n".encode()
    assert memory.read(PhysAddr(address), len(COMMAND)) == COMMAND


def test_a_new_buffer_is_clear_and_an_old_one_is_cleared(
    pages: BuddyAllocator, memory: RamFile, bios: Bios
) -> None:
    dirty = pages.allocate(0, below=PhysAddr(4 * GIB))
    memory.write(dirty, b"\xff" * 4096)
    pages.free(dirty, 0)
    tree = SysfsTree()
    driver = Dcdbas(tree, pages, bios)
    driver.load()
    tree.write(SIZE, b"100")
    assert tree.read(DATA) == bytes(100)
    tree.write(DATA, b"password")
    address = PhysAddr(int(tree.read(ADDRESS), 16))
    driver.unload()
    assert memory.read(address, 4096) == bytes(4096)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("smi_data", 0o600),
        ("smi_data_buf_size", 0o600),
        ("smi_data_buf_phys_addr", 0o400),
        ("smi_request", 0o200),
        ("host_control_action", 0o600),
        ("host_control_smi_type", 0o600),
        ("host_control_on_shutdown", 0o600),
    ],
)
def test_only_root_uses_the_files(tree: SysfsTree, name: str, mode: int) -> None:
    """Modes seen on Linux."""
    assert tree.lookup(f"{DEVICE_PATH}/{name}").mode == mode
    with pytest.raises(KernelError) as refused:
        tree.read(f"{DEVICE_PATH}/{name}", caller=Caller(uid=1000))
    assert refused.value.errno == errno.EACCES


def test_requests_can_only_be_written(tree: SysfsTree) -> None:
    with pytest.raises(KernelError) as refused:
        tree.read(REQUEST)
    assert refused.value.errno == errno.EACCES


def test_host_control_numbers_are_kept(tree: SysfsTree) -> None:
    path = f"{DEVICE_PATH}/host_control_action"
    assert tree.read(path) == b"0\n"
    tree.write(path, b"2\n")
    assert tree.read(path) == b"2\n"
    assert tree.read(f"{DEVICE_PATH}/host_control_smi_type") == b"0\n"


def test_unloading_frees_everything_and_takes_the_files_away(
    pages: BuddyAllocator, bios: Bios
) -> None:
    before = pages.free_bytes
    tree = SysfsTree()
    driver = Dcdbas(tree, pages, bios)
    driver.load()
    tree.write(SIZE, b"9000")
    driver.unload()
    assert pages.free_bytes == before
    assert tree.list("/devices/platform") == []
    assert tree.list("/module") == []


def test_a_restored_driver_has_the_same_buffer(pages: BuddyAllocator, bios: Bios) -> None:
    tree = SysfsTree()
    driver = Dcdbas(tree, pages, bios)
    driver.load()
    tree.write(DATA, COMMAND)
    tree.write(f"{DEVICE_PATH}/host_control_action", b"1")
    other_tree = SysfsTree()
    other = Dcdbas(other_tree, pages, bios)
    other.restore(kept(driver.snapshot()))
    for path in (DATA, SIZE, ADDRESS, f"{DEVICE_PATH}/host_control_action"):
        assert other_tree.read(path) == tree.read(path)
    other_tree.write(REQUEST, b"1")
    assert bios.calls == [COMMAND]
    other.unload()
    assert pages.free_bytes == BuddyAllocator(pages.memory).free_bytes


def test_an_answer_of_another_size_is_logged_and_stays_in_the_buffer(
    pages: BuddyAllocator,
) -> None:
    log: list[str] = []
    tree = SysfsTree()
    Dcdbas(tree, pages, lambda buffer: buffer + b"more", log=log.append).load()
    tree.write(DATA, COMMAND)
    tree.write(REQUEST, b"1")
    assert tree.read(DATA) == COMMAND
    assert len(log) == 1
