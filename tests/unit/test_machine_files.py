"""A machine's files as a mount serves them."""

from __future__ import annotations

import errno
import stat
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from openrbu.drivers.sysfs import Caller
from openrbu.errors import KernelError, MachineError
from openrbu.kernel.files import MachineFiles
from openrbu.machine.virtual import VirtualMachine
from rigs.machines import DEVICE, ENTRY, REBOOT_MODE, make

PORT = "/dev/port"
SOMEBODY = Caller(uid=1000, sys_rawio=False)


class Lock:
    """A lock that counts how often it was taken, and says whether it is held."""

    def __init__(self) -> None:
        self.is_held, self.times = False, 0

    def __enter__(self) -> None:
        assert not self.is_held
        self.is_held = True
        self.times += 1

    def __exit__(self, *_: object) -> None:
        self.is_held = False


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[VirtualMachine]:
    with VirtualMachine(make(tmp_path)) as machine:
        yield machine


@pytest.fixture
def files(machine: VirtualMachine) -> MachineFiles:
    """Of a machine that is on, with dell_rbu."""
    machine.power_on()
    machine.running_kernel().load_module("dell_rbu", {})
    return MachineFiles(machine, threading.Lock())


def errno_of(call: Callable[[], object]) -> str:
    with pytest.raises(OSError) as caught:  # noqa: PT011
        call()
    return errno.errorcode[caught.value.errno or 0]


def test_the_root_has_three_directories(files: MachineFiles) -> None:
    assert files.list("/") == ["dev", "proc", "sys"]
    seen = files.stat("/")
    assert (seen.mode, seen.link_count) == (stat.S_IFDIR | 0o755, 5)
    inodes = {files.stat(path).inode for path in ("/", "/dev", "/proc", "/sys")}
    assert len(inodes) == 4
    assert all(stat.S_ISDIR(files.stat(f"/{name}").mode) for name in files.list("/"))


def test_a_machine_that_is_off_has_an_empty_root(machine: VirtualMachine) -> None:
    files = MachineFiles(machine, threading.Lock())
    assert files.list("/") == []
    assert files.stat("/").link_count == 2
    for call in (files.stat, files.list, files.readlink, files.open):
        assert errno_of(partial(call, "/sys")) == "ENOENT"


def test_the_root_is_no_link_and_no_file(files: MachineFiles) -> None:
    assert errno_of(lambda: files.readlink("/")) == "EINVAL"
    assert errno_of(lambda: files.open("/", reading=True)) == "EISDIR"
    assert errno_of(lambda: files.open("/sys", reading=True)) == "EISDIR"


@pytest.mark.parametrize("path", ["/etc", "/system", "/sys/nothing", "/sys/class/firmware/none"])
def test_what_is_not_there_is_enoent(files: MachineFiles, path: str) -> None:
    for call in (files.stat, files.list, files.readlink, files.open):
        assert errno_of(partial(call, path)) == "ENOENT"


def test_stat_sees_a_link_and_readlink_where_it_leads(files: MachineFiles) -> None:
    assert stat.S_ISLNK(files.stat(ENTRY).mode)
    target = files.readlink(ENTRY)
    assert target == "../../devices/platform/dell_rbu/firmware/dell_rbu"
    assert files.list(f"/sys/class/firmware/{target}") == files.list(ENTRY)


def test_a_file_is_read_and_written_as_system_calls_do(files: MachineFiles) -> None:
    file = files.open(REBOOT_MODE, reading=True, writing=True)
    assert file.write(0, b"warm") == 4
    assert file.read(0, 100) == b"warm\n"
    assert file.read(5, 100) == b""
    assert file.stat() == files.stat(REBOOT_MODE)
    file.close()


def test_only_root_opens_for_writing_and_only_with_the_capability_data_is_written(
    files: MachineFiles,
) -> None:
    loading, data = f"{ENTRY}/loading", f"{ENTRY}/data"
    assert errno_of(lambda: files.open(loading, writing=True, caller=SOMEBODY)) == "EACCES"
    assert files.open(loading, reading=True, caller=SOMEBODY).read(0, 9) == b"0\n"
    files.open(loading, writing=True).write(0, b"1")
    file = files.open(data, writing=True)
    assert errno_of(lambda: file.write(0, b"image", sys_rawio=False)) == "EPERM"
    assert file.write(0, b"image", sys_rawio=True) == 5


def test_a_file_that_was_open_at_a_restart_is_enodev(
    machine: VirtualMachine, files: MachineFiles
) -> None:
    file = files.open(REBOOT_MODE, reading=True, writing=True)
    machine.restart()
    assert errno_of(lambda: file.read(0, 9)) == "ENODEV"
    assert errno_of(lambda: file.write(0, b"warm")) == "ENODEV"
    assert files.open(REBOOT_MODE, reading=True).read(0, 9) == b"cold\n"
    assert errno_of(lambda: files.stat(DEVICE)) == "ENOENT"
    machine.power_off()
    assert errno_of(lambda: file.read(0, 9)) == "ENODEV"


def test_a_kernel_that_has_died_has_no_files(machine: VirtualMachine, files: MachineFiles) -> None:
    file = files.open(REBOOT_MODE, reading=True)
    machine.running_kernel().is_dead = True
    for call in (
        lambda: file.read(0, 9),
        lambda: files.stat("/sys"),
        lambda: files.list("/sys"),
        lambda: files.open(REBOOT_MODE, reading=True),
    ):
        with pytest.raises(MachineError, match="kernel has crashed: restart the machine"):
            call()


def test_the_lock_is_held_in_every_call_and_in_none_after_it(
    machine: VirtualMachine, files: MachineFiles
) -> None:
    lock = Lock()
    files = MachineFiles(machine, lock)
    file = files.open(REBOOT_MODE, reading=True, writing=True)
    calls: tuple[Callable[[], object], ...] = (
        lambda: files.stat("/"),
        lambda: files.list("/sys"),
        lambda: files.readlink(ENTRY),
        lambda: files.open(PORT),
        file.stat,
        lambda: file.read(0, 9),
        lambda: file.write(0, b"warm"),
    )
    for number, call in enumerate(calls, start=1):
        assert (lock.times, lock.is_held) == (number, False)
        call()
    with pytest.raises(KernelError):
        files.stat("/nowhere")
    assert not lock.is_held


# -- /dev/port --------------------------------------------------------------------------------


def test_port_is_the_ports_of_the_machine(machine: VirtualMachine, files: MachineFiles) -> None:
    port = files.open(PORT, reading=True, writing=True)
    assert port.write(0x70, b"\x78") == 1
    before = port.read(0x71, 1)
    assert port.write(0x71, bytes([before[0] ^ 0x40])) == 1
    machine.cmos.out8(0x70, 0x78)
    assert machine.cmos.in8(0x71) == before[0] ^ 0x40


def test_one_write_goes_to_one_port_after_the_other(files: MachineFiles) -> None:
    port = files.open(PORT, reading=True, writing=True)
    assert port.write(0x70, b"\x78\x5a") == 2
    assert port.read(0x71, 1) == b"\x5a"
    assert len(port.read(0x70, 2)) == 2


def test_there_are_65536_ports(files: MachineFiles) -> None:
    port = files.open(PORT, reading=True, writing=True)
    assert len(port.read(0xFFFF, 5)) == 1
    assert port.read(0x10000, 5) == b""
    assert port.write(0x10000, b"x") == 1


def test_port_takes_root_to_open_and_the_capability_to_write(files: MachineFiles) -> None:
    for how in ({"reading": True}, {"writing": True}):
        assert errno_of(partial(files.open, PORT, caller=SOMEBODY, **how)) == "EACCES"
    port = files.open(PORT, writing=True)
    assert errno_of(lambda: port.write(0x70, b"\x78", sys_rawio=False)) == "EPERM"
