"""The kernel that runs on a virtual machine: its files, its modules, how it is put away."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from openrbu.drivers.dcdbas import DEVICE_PATH, SMI_MAGIC, SMI_REQUEST
from openrbu.drivers.dell_rbu_profiles import profile
from openrbu.errors import KernelError, MachineError, UsageError
from openrbu.kernel.kernel import Kernel
from openrbu.kernel.memory_files import RESERVED
from openrbu.kernel.restart_files import REBOOT_MODES, RestartFiles
from openrbu.kernel.states import KernelState
from openrbu.memory.physical import pc_regions
from openrbu.memory.ram_file import RamFile
from openrbu.units import MIB, PAGE_SIZE
from rigs.kept import kept
from rigs.machines import DEVICE, ENTRY, REBOOT_MODE

DMI = (b"the entry point", b"the tables")
DCDBAS = "/sys/devices/platform/dcdbas"


def echo(buffer: bytes) -> bytes:
    """A BIOS that answers an SMI with what it was asked."""
    return buffer


class Machine:
    """A kernel over RAM in a file; `changes` counts what it announces."""

    def __init__(
        self,
        directory: Path,
        profile_name: str = "documented",
        *,
        smi: Callable[[bytes], bytes] | None = echo,
    ) -> None:
        self.memory = RamFile.create(directory / "ram", pc_regions(64 * MIB))
        self.changes = 0
        self.log: list[str] = []
        self._profile, self._smi = profile(profile_name), smi
        self.kernel = self.fresh()

    def fresh(self, saved: KernelState | None = None) -> Kernel:
        return Kernel(
            self.memory,
            profile=self._profile,
            boot_id="0f3c",
            dmi=DMI,
            smi=self._smi,
            saved=saved,
            before_change=self._count,
            log=self.log.append,
        )

    def _count(self) -> None:
        self.changes += 1

    def read(self, path: str) -> bytes:
        return self.kernel.read(path, 0, 1 << 20)

    def write(self, path: str, data: bytes) -> None:
        self.kernel.write(path, data, 0)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path)
    yield machine
    machine.memory.close()


def test_it_shows_the_tables_its_boot_and_its_memory(machine: Machine) -> None:
    tables = "/sys/firmware/dmi/tables"
    assert (machine.read(f"{tables}/smbios_entry_point"), machine.read(f"{tables}/DMI")) == DMI
    assert machine.kernel.read(f"{tables}/DMI", 4, 3) == b"tab"
    assert machine.read("/proc/sys/kernel/random/boot_id") == b"0f3c\n"
    assert machine.read("/proc/buddyinfo") == machine.kernel.allocator.buddyinfo().encode()
    assert machine.kernel.list("/sys/firmware/dmi/tables") == ["DMI", "smbios_entry_point"]


def test_memory_that_a_kernel_needs_itself_is_never_handed_out(machine: Machine) -> None:
    pages = []
    with contextlib.suppress(KernelError):
        while True:
            pages.append(machine.kernel.pages.allocate(0))
    assert not any(area.start <= page < area.end for page in pages for area in RESERVED)
    assert len(pages) == (64 - 1 - 16) * MIB // PAGE_SIZE


@pytest.mark.parametrize("path", ["/etc/passwd", "/system", "/dev/port", "sys", "/sys/nothing"])
def test_other_paths_are_not_there(machine: Machine, path: str) -> None:
    for call in (machine.read, machine.kernel.list, lambda path: machine.write(path, b"")):
        with pytest.raises(KernelError) as refusal:
            call(path)
        assert refusal.value.errno == errno.ENOENT


def test_only_paths_that_are_there_exist(machine: Machine) -> None:
    assert machine.kernel.exists(REBOOT_MODE)
    assert not machine.kernel.exists(DEVICE)


# -- the kind of restart --------------------------------------------------------------------


def test_a_boot_begins_with_a_cold_restart_chosen(machine: Machine) -> None:
    assert machine.read(REBOOT_MODE) == b"cold\n"


@pytest.mark.parametrize("mode", REBOOT_MODES)
@pytest.mark.parametrize("tail", ["", "\n", "ish"])
def test_a_kind_of_restart_is_known_by_its_start(machine: Machine, mode: str, tail: str) -> None:
    machine.write(REBOOT_MODE, f"{mode}{tail}".encode())
    assert machine.read(REBOOT_MODE) == f"{mode}\n".encode()


@pytest.mark.parametrize("text", [b"\n", b"w", b" warm", b"lukewarm"])
def test_another_word_is_refused_and_changes_nothing(machine: Machine, text: bytes) -> None:
    with pytest.raises(KernelError) as refusal:
        machine.write(REBOOT_MODE, text)
    assert refusal.value.errno == errno.EINVAL
    assert machine.read(REBOOT_MODE) == b"cold\n"


@pytest.mark.parametrize(
    ("file", "text", "shown"),
    [
        *(("type", each, each) for each in ("acpi", "kbd", "efi", "bios", "pci", "triple")),
        *(("type", each, None) for each in ("a", "pc", "PCI", " bios", "cf9_force")),
        *(("type", each, "pci") for each in ("pci\n", "pci_")),
        *(("force", each, "1") for each in ("1", "y", "on", "true", "1\n")),
        *(("force", each, "0") for each in ("0", "n", "off")),
        *(("force", each, None) for each in ("2", " 1", "x")),
        *(("cpu", each, "0") for each in ("0", "0\n", "0x0")),
        *(("cpu", each, None) for each in ("-1", "x", " 0")),
    ],
)
def test_the_way_of_a_restart_is_written_as_on_linux(
    machine: Machine, file: str, text: str, shown: str | None
) -> None:
    """Each of these was seen on 6.1.192."""
    path = f"/sys/kernel/reboot/{file}"
    before = machine.read(path)
    if shown is not None:
        machine.write(path, text.encode())
        assert machine.read(path) == f"{shown}\n".encode()
        return
    with pytest.raises(KernelError) as refusal:
        machine.write(path, text.encode())
    assert refusal.value.errno == errno.EINVAL
    assert machine.read(path) == before


@pytest.mark.parametrize("number", [b"1", b"4096", b"99999999999"])
def test_a_processor_that_is_not_there_restarts_no_machine(machine: Machine, number: bytes) -> None:
    with pytest.raises(KernelError) as refusal:
        machine.write("/sys/kernel/reboot/cpu", number)
    assert refusal.value.errno == errno.ERANGE


def test_the_command_line_chooses_the_way_of_a_restart() -> None:
    restart = RestartFiles("quiet reboot=w,p,force", has_files=True, by_kexec=False)
    assert (restart.mode, restart.type, restart.force) == ("warm", "pci", True)


# -- huge pages -----------------------------------------------------------------------------

HUGE_PAGES = "/proc/sys/vm/nr_hugepages"


def test_huge_pages_are_taken_as_many_as_there_are_and_given_back(machine: Machine) -> None:
    before = machine.read("/proc/buddyinfo")
    machine.write(HUGE_PAGES, b"3\n")
    assert machine.read(HUGE_PAGES) == b"3\n"
    assert machine.read("/proc/buddyinfo") != before
    machine.write(HUGE_PAGES, b"1000")
    taken = int(machine.read(HUGE_PAGES))
    assert taken == (64 - 2 - 16) // 2, "of 64 MiB but those that the kernel needs, in whole pairs"
    machine.write(HUGE_PAGES, b"0")
    assert machine.read("/proc/buddyinfo") == before


@pytest.mark.parametrize(
    ("text", "count"), [("4", 4), ("0x5", 5), ("010", 8), (" 6 7", 6), ("", 2)]
)
def test_a_number_of_huge_pages_is_read_as_a_kernel_reads_it(
    machine: Machine, text: str, count: int
) -> None:
    machine.write(HUGE_PAGES, b"2")
    machine.write(HUGE_PAGES, text.encode())
    assert int(machine.read(HUGE_PAGES)) == count


@pytest.mark.parametrize("text", [b"abc", b"-1", b"2x", b"9" * 20])
def test_what_is_no_number_of_huge_pages_is_refused(machine: Machine, text: bytes) -> None:
    machine.write(HUGE_PAGES, b"2")
    with pytest.raises(KernelError) as refusal:
        machine.write(HUGE_PAGES, text)
    assert refusal.value.errno == errno.EINVAL
    assert machine.read(HUGE_PAGES) == b"2\n"


def test_huge_pages_outlast_the_process_and_no_driver_is_taken_for_them(tmp_path: Path) -> None:
    """A driver's packets of 2 MiB are blocks of the same order."""
    machine = Machine(tmp_path, "linux")
    machine.kernel.load_module("dell_rbu", {"image_type": "packet"})
    machine.write(f"{DEVICE}/packet_size", b"%d" % (2 * MIB))
    machine.write(HUGE_PAGES, b"3")
    machine.write(f"{DEVICE}/image_type", b"init")
    machine.write(f"{ENTRY}/loading", b"1")
    machine.write(f"{ENTRY}/data", b"x" * PAGE_SIZE)
    machine.kernel.write(f"{ENTRY}/data", b"y", 3 * MIB)
    machine.write(f"{ENTRY}/loading", b"0")
    before = machine.read("/proc/buddyinfo")
    machine.kernel = machine.fresh(kept(machine.kernel.snapshot()))
    assert machine.read(HUGE_PAGES) == b"3\n"
    assert machine.read("/proc/buddyinfo") == before
    machine.write(HUGE_PAGES, b"0")
    assert machine.read(f"{DEVICE}/data")[:1] == b"x"
    machine.memory.close()


# -- modules --------------------------------------------------------------------------------


def test_modules_come_and_go(machine: Machine) -> None:
    kernel = machine.kernel
    assert machine.read("/proc/modules") == b""
    kernel.load_module("dell_rbu", {"image_type": "packet", "allocation_floor": "0x200000"})
    kernel.load_module("dcdbas", {})
    assert [line.split()[0] for line in machine.read("/proc/modules").splitlines()] == [
        b"dell_rbu",
        b"dcdbas",
    ]
    assert machine.read(f"{DEVICE}/image_type") == b"packet\n"
    assert machine.read("/sys/module/dell_rbu/parameters/allocation_floor") == b"2097152\n"
    machine.write(f"{ENTRY}/loading", b"-1")
    for name in ("dell_rbu", "dcdbas"):
        kernel.unload_module(name)
        assert not kernel.exists(f"/sys/module/{name}")
    assert kernel.snapshot() == machine.fresh().snapshot()


def test_a_module_is_counted_as_used_while_its_entry_is_there(machine: Machine) -> None:
    """Seen on Debian's 6.1.192."""
    machine.kernel.load_module("dell_rbu", {})
    for text, count in ((b"-1", b"0"), (b"init", b"1")):
        machine.write(f"{DEVICE}/image_type" if count == b"1" else f"{ENTRY}/loading", text)
        assert machine.read("/sys/module/dell_rbu/refcnt") == count + b"\n"
        assert machine.read("/proc/modules").split()[2] == count


def test_a_module_is_loaded_once_and_unloaded_when_it_is_loaded(machine: Machine) -> None:
    machine.kernel.load_module("dcdbas", {})
    with pytest.raises(KernelError) as refusal:
        machine.kernel.load_module("dcdbas", {})
    assert refusal.value.errno == errno.EEXIST
    with pytest.raises(KernelError) as refusal:
        machine.kernel.unload_module("dell_rbu")
    assert refusal.value.errno == errno.ENOENT


def test_a_module_in_use_stays(machine: Machine) -> None:
    machine.kernel.load_module("dell_rbu", {})
    with pytest.raises(KernelError) as refusal:
        machine.kernel.unload_module("dell_rbu")
    assert refusal.value.errno == errno.EBUSY
    assert machine.kernel.exists(ENTRY)


def test_dcdbas_is_loaded_on_a_machine_without_the_calling_interface(tmp_path: Path) -> None:
    """As by the real kernel. A call changes nothing there."""
    machine = Machine(tmp_path, smi=None)
    machine.kernel.load_module("dcdbas", {})
    command = SMI_MAGIC.to_bytes(4, "little") + bytes(range(32))
    machine.kernel.write(f"/sys{DEVICE_PATH}/smi_data", command, 0)
    machine.kernel.write(f"/sys{SMI_REQUEST}", b"1", 0)
    assert machine.kernel.read(f"/sys{DEVICE_PATH}/smi_data", 0, 99) == command
    machine.memory.close()


@pytest.mark.parametrize(
    ("name", "parameters", "says"),
    [
        ("xfs", {}, "no module is called 'xfs'; there are: dell_rbu, dcdbas"),
        ("dell_rbu", {"type": "mono"}, "no parameter 'type' .it has: image_type, allocation_floor"),
        ("dell_rbu", {"allocation_floor": "high"}, "allocation_floor takes an address, not 'high'"),
        ("dell_rbu", {"allocation_floor": "-1"}, "allocation_floor takes an address, not '-1'"),
        ("dcdbas", {"smi": "1"}, "dcdbas has no parameter 'smi' .it has: none"),
    ],
)
def test_what_no_module_takes_is_a_usage_error(
    machine: Machine, name: str, parameters: dict[str, str], says: str
) -> None:
    before = machine.kernel.snapshot()
    with pytest.raises(UsageError, match=says):
        machine.kernel.load_module(name, parameters)
    assert machine.kernel.snapshot() == before


def test_a_parameter_that_the_driver_refuses_leaves_it_unloaded(machine: Machine) -> None:
    with pytest.raises(KernelError) as refusal:
        machine.kernel.load_module("dell_rbu", {"image_type": "x" * 17})
    assert refusal.value.errno == errno.ENOSPC
    assert machine.kernel.modules == {}


# -- files that are open ----------------------------------------------------------------------


def test_every_open_file_of_a_kernel_that_has_stopped_is_enodev(machine: Machine) -> None:
    kernel = machine.kernel
    kernel.load_module("dell_rbu", {})
    paths = (REBOOT_MODE, f"{DEVICE}/packet_size", f"{ENTRY}/data")
    files = [kernel.open(path, reading=True, writing=True) for path in paths]
    files.append(kernel.open("/proc/buddyinfo", reading=True))
    assert all(file.read(0, 99) for file in files if file is not files[2])
    changes, before = machine.changes, [file.stat() for file in files]
    kernel.stop()
    for file in files:
        for call in (
            lambda file=file: file.read(0, 1),
            lambda file=file: file.write(0, b"1"),
            lambda: kernel.open(REBOOT_MODE, reading=True),
            lambda: kernel.load_module("dcdbas", {}),
        ):
            with pytest.raises(KernelError) as refusal:
                call()
            assert refusal.value.errno == errno.ENODEV
    assert [file.stat() for file in files] == before
    assert machine.changes == changes


def test_every_file_has_an_inode_number_of_its_own(machine: Machine) -> None:
    machine.kernel.load_module("dell_rbu", {})
    numbers = []

    def walk(path: str) -> None:
        tree, inner = machine.kernel.tree(path)
        seen = tree.stat(inner, follow=False)
        numbers.append(seen.inode)
        if stat.S_ISDIR(seen.mode):
            for name in machine.kernel.list(path):
                walk(f"{path}/{name}")

    for top in ("/sys", "/proc", "/dev"):
        walk(top)
    assert len(numbers) > 30
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize(
    ("path", "size_bytes"), [("/proc/buddyinfo", 0), ("/proc/modules", 0), (REBOOT_MODE, PAGE_SIZE)]
)
def test_text_has_the_size_of_a_page_in_sys_and_none_in_proc(
    machine: Machine, path: str, size_bytes: int
) -> None:
    """Seen on Debian's 6.1.192."""
    assert machine.kernel.open(path, reading=True).stat().size_bytes == size_bytes


# -- changes --------------------------------------------------------------------------------


def test_every_change_is_announced_and_no_look_is(machine: Machine) -> None:
    kernel = machine.kernel
    changes: list[Callable[[], object]] = [
        lambda: kernel.load_module("dell_rbu", {}),
        lambda: machine.write(f"{ENTRY}/loading", b"1"),
        lambda: machine.write(f"{ENTRY}/data", b"an image"),
        lambda: machine.write(f"{ENTRY}/loading", b"0"),
        lambda: machine.write(f"{ENTRY}/loading", b"-1"),
        lambda: kernel.unload_module("dell_rbu"),
    ]
    for number, change in enumerate(changes):
        assert machine.changes == number
        change()
        for look in (kernel.exists, kernel.list):
            look("/sys/devices")
        machine.read("/proc/modules")
        kernel.snapshot()


def test_a_signal_waits_until_the_kernel_is_through(tmp_path: Path) -> None:
    done = []

    def interrupt_then_work(buffer: bytes) -> bytes:
        os.kill(os.getpid(), signal.SIGINT)
        done.append(buffer)
        return buffer

    machine = Machine(tmp_path, smi=interrupt_then_work)
    machine.kernel.load_module("dcdbas", {})
    machine.write(f"{DCDBAS}/smi_data", b"1IMS" + bytes(48))
    with pytest.raises(KeyboardInterrupt):
        machine.write(f"{DCDBAS}/smi_request", b"1")
    assert len(done) == 1
    machine.memory.close()


def test_a_kernel_that_dies_says_what_to_do_and_does_nothing_any_more(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "linux-5.7")
    kernel = machine.kernel
    kernel.load_module("dell_rbu", {"image_type": "packet"})
    machine.write(f"{DEVICE}/packet_size", b"4096")
    machine.write(f"{DEVICE}/image_type", b"init")
    machine.write(f"{ENTRY}/loading", b"1")
    machine.write(f"{ENTRY}/data", b"x" * 8192)
    machine.write(f"{ENTRY}/loading", b"0")
    with pytest.raises(MachineError, match=r"kernel has crashed \(.*\): restart the machine"):
        machine.write(f"{DEVICE}/image_type", b"mono")
    again = machine.fresh(kept(kernel.snapshot()))
    for dead in (kernel, again):
        calls: list[Callable[[], object]] = [
            partial(dead.read, REBOOT_MODE, 0, 9),
            partial(dead.write, REBOOT_MODE, b"warm", 0),
            partial(dead.exists, "/sys"),
            partial(dead.load_module, "dcdbas", {}),
            partial(dead.unload_module, "dell_rbu"),
        ]
        for call in calls:
            with pytest.raises(MachineError, match="kernel has crashed: restart the machine"):
                call()
    machine.memory.close()


def test_the_directories_of_devices_and_modules_are_there_without_any(machine: Machine) -> None:
    assert machine.kernel.list("/sys/devices/platform") == []
    assert machine.kernel.list("/sys/module") == ["firmware_class"]
