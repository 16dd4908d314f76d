"""A machine's files with those of this computer beside them."""

from __future__ import annotations

import errno
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from openrbu.drivers.xen_balloon_profiles import BALLOON_PROFILES
from openrbu.errors import KernelError
from openrbu.kernel.files import Files
from openrbu.machine.virtual import VirtualMachine
from openrbu.run.overlay import MACHINE_ONLY, MERGED, PROCESSES, REFUSED, Overlay, real_entries
from rigs.machines import make, running
from rigs.run import xen_order

DIRECTORIES = (
    "bus/xen_memory",
    "block",
    "bus/platform/devices",
    "bus/pci",
    "class/dmi/id",
    "class/net",
    "devices/platform/dell_rbu",
    "devices/platform/serial8250",
    "devices/system/cpu",
    "devices/system/xen_memory",
    "firmware/efi",
    "hypervisor/properties",
    "kernel/mm",
    "kernel/reboot",
    "module/dell_rbu",
    "module/ext4",
    "power",
)
LINKS = {
    "bus/platform/devices/dell_rbu": "../../../devices/platform/dell_rbu",
    "bus/platform/devices/serial8250": "../../../devices/platform/serial8250",
}


@pytest.fixture
def computer(tmp_path: Path) -> Path:
    """A real computer's root, with a dell_rbu of its own, and a guest of Xen."""
    sys = tmp_path / "computer" / "sys"
    for name in DIRECTORIES:
        (sys / name).mkdir(parents=True)
    for name, target in LINKS.items():
        (sys / name).symlink_to(target)
    (sys / "kernel/uevent_seqnum").write_text("1\n")
    (sys / "kernel/uevent_seqnum").chmod(0o444)
    proc = sys.parent / "proc"
    for name in ("1", "4711", "bus", "sys/kernel/random", "xen"):
        (proc / name).mkdir(parents=True)
    for name in ("buddyinfo", "version"):
        (proc / name).touch()
    for name, target in (("self", "4711"), ("thread-self", "4711/task/1"), ("net", "self/net")):
        (proc / name).symlink_to(target)
    return sys.parent


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[VirtualMachine]:
    with running(make(tmp_path / "home", "precision-t7600")) as machine:
        yield machine


@pytest.fixture
def files(machine: VirtualMachine, computer: Path) -> Overlay:
    return Overlay(machine.files, real_entries(computer), proc=computer / "proc")


def error_of(action: Callable[..., object], *arguments: str, **keywords: bool) -> str:
    with pytest.raises(KernelError) as caught:
        action(*arguments, **keywords)
    return caught.value.name


def test_a_merged_directory_lists_both(machine: VirtualMachine, files: Overlay) -> None:
    assert files.list("/sys") == [
        "block", "bus", "class", "devices", "firmware", "kernel", "module",
    ]  # fmt: skip
    assert files.list("/sys/class") == ["dmi", "firmware", "net"]
    assert files.list("/sys/module") == ["ext4", "firmware_class"]
    machine.running_kernel().load_module("dell_rbu", {})
    assert files.list("/sys/module") == ["dell_rbu", "ext4", "firmware_class"]


def test_a_merged_directory_that_the_machine_lacks_is_this_computers(
    machine: VirtualMachine, files: Overlay
) -> None:
    assert "platform" not in machine.files.list("/sys/bus")
    assert stat.S_ISDIR(files.stat("/sys/bus/platform/devices").mode)
    assert files.list("/sys/bus/platform/devices") == ["serial8250"]


def error_of_real(action: Callable[..., object], *arguments: str) -> str:
    """As `error_of`, of what this computer answers."""
    with pytest.raises(OSError, match="No such file") as caught:
        action(*arguments)
    return errno.errorcode[caught.value.errno or 0]


def test_one_that_neither_has_is_not_there(files: Overlay) -> None:
    assert error_of(files.stat, "/sys/bus/platform/drivers") == "ENOENT"
    assert error_of(files.list, "/sys/bus/platform/drivers") == "ENOENT"


def test_this_computers_driver_never_shows_through(files: Overlay) -> None:
    for path in ("/sys/devices/platform/dell_rbu", "/sys/module/dell_rbu"):
        assert error_of(files.stat, path) == "ENOENT"
    assert error_of(files.readlink, "/sys/bus/platform/devices/dell_rbu") == "ENOENT"


def test_firmware_and_reboot_mode_are_the_machines_alone(files: Overlay) -> None:
    assert files.list("/sys/firmware") == ["dmi"]
    assert files.list("/sys/kernel/reboot") == ["cpu", "force", "mode", "type"]
    assert stat.S_ISLNK(files.stat("/sys/class/dmi/id").mode)


def test_what_puts_this_computer_to_sleep_is_not_there(files: Overlay) -> None:
    assert error_of(files.stat, "/sys/power") == "ENOENT"


def test_the_machines_files_are_as_they_are_without_this_computers(
    machine: VirtualMachine, files: Overlay
) -> None:
    path = "/sys/firmware/dmi/tables/smbios_entry_point"
    assert files.stat(path) == machine.files.stat(path)
    opened = files.open(path, reading=True)
    assert opened.read(0, 4) == b"_SM_"
    opened.close()
    assert files.readlink("/sys/class/dmi/id") == machine.files.readlink("/sys/class/dmi/id")
    names = ["bootloader_type", "firmware_config", "modules_disabled", "random"]
    assert files.list("/proc/sys/kernel") == machine.files.list("/proc/sys/kernel") == names


def test_a_hypervisor_below_this_computer_never_shows_through(files: Overlay) -> None:
    assert files.list("/sys/devices/system") == ["cpu"]
    paths = ("/sys/hypervisor", "/sys/devices/system/xen_memory", "/sys/bus/xen_memory",
             "/proc/xen")  # fmt: skip
    for path in paths:
        assert error_of(files.stat, path) == "ENOENT", path


def test_proc_lists_what_both_have_and_the_processes_of_this_computer(files: Overlay) -> None:
    names = files.list("/proc")
    assert sorted(names) == [
        "1", "4711", "buddyinfo", "bus", "cmdline", "cpuinfo", "iomem", "kcore", "kpageflags",
        "meminfo", "modules", "net", "self", "sys", "thread-self", "version",
    ]  # fmt: skip
    assert len(set(names)) == len(names)


def test_processes_are_links_to_where_the_real_proc_is_to_be_bound(files: Overlay) -> None:
    for name in ("1", "self", "thread-self"):
        assert stat.S_ISLNK(files.stat(f"/proc/{name}").mode)
        assert f"/proc/{files.readlink(f'/proc/{name}')}" == f"{PROCESSES}/{name}"
    assert stat.S_ISDIR(files.stat(PROCESSES).mode)
    assert files.readlink("/proc/net") == "self/net"


def test_processes_come_and_go(files: Overlay, computer: Path) -> None:
    assert error_of_real(files.stat, "/proc/4712") == "ENOENT"
    (computer / "proc/4712").mkdir()
    assert "4712" in files.list("/proc")
    assert stat.S_ISLNK(files.stat("/proc/4712").mode)
    (computer / "proc/4712").rmdir()
    assert "4712" not in files.list("/proc")
    assert error_of_real(files.readlink, "/proc/4712") == "ENOENT"


def test_only_numbers_of_proc_itself_are_processes(files: Overlay) -> None:
    for path in ("/proc/4711x", "/proc/-1", "/proc/\u0661", "/proc/sys/1", "/sys/1", "/1", "1"):
        assert error_of(files.stat, path) == "ENOENT", path


def test_placeholders_have_the_kind_of_what_they_stand_for(files: Overlay, computer: Path) -> None:
    assert stat.S_ISDIR(files.stat("/sys/kernel/mm").mode)
    assert files.stat("/sys/kernel/uevent_seqnum").mode == stat.S_IFREG | 0o444
    link = "/sys/bus/platform/devices/serial8250"
    assert stat.S_ISLNK(files.stat(link).mode)
    assert files.readlink(link) == LINKS[link.removeprefix("/sys/")]
    assert error_of(files.readlink, "/sys/kernel/mm") == "EINVAL"


def test_placeholders_stay_as_they_are_when_the_real_entry_goes(
    files: Overlay, computer: Path
) -> None:
    before = files.stat("/sys/kernel/mm")
    (computer / "sys/kernel/mm").rmdir()
    assert files.stat("/sys/kernel/mm") == before
    assert "mm" in files.list("/sys/kernel")


def test_no_two_inodes_are_alike(files: Overlay, machine: VirtualMachine) -> None:
    machine.running_kernel().load_module("dell_rbu", {})
    numbers = [files.stat(f"{above}/{name}").inode for above in MERGED
               if above != "/sys/bus/platform/drivers"
               for name in files.list(above)]  # fmt: skip
    numbers += [files.stat(path).inode for path in (REFUSED, PROCESSES)]
    assert len(numbers) > 20
    assert len(set(numbers)) == len(numbers)


def test_what_is_refused_can_be_opened_by_nobody_and_is_not_listed(files: Overlay) -> None:
    assert stat.S_ISREG(files.stat(REFUSED).mode)
    assert error_of(files.open, REFUSED, reading=True) == "EPERM"
    assert error_of(files.open, REFUSED, writing=True) == "EPERM"
    assert REFUSED[1:] not in files.list("/")


def test_a_machine_that_is_switched_off_leaves_what_is_this_computers(
    machine: VirtualMachine, files: Overlay
) -> None:
    machine.power_off()
    assert files.list("/sys/class") == ["net"]
    assert "version" in files.list("/proc")
    assert all(stat.S_ISDIR(files.stat(path).mode) for path in ("/sys", "/proc", "/sys/class"))
    assert error_of(files.stat, "/sys/firmware") == "ENOENT"


def leftovers(files: Files, directory: str) -> Iterator[str]:
    """Paths of a machine that may be hidden by one of this computer."""
    for name in files.list(directory):
        path = f"{directory}/{name}"
        if path in MERGED:
            yield from leftovers(files, path)
        elif path not in MACHINE_ONLY:
            yield path


def test_all_that_a_machine_can_show_is_merged_or_its_own(machine: VirtualMachine) -> None:
    """So that no name of this computer hides one of the machine that comes later."""
    kernel = machine.running_kernel()
    for module in ("dell_rbu", "dcdbas"):
        kernel.load_module(module, {})
    assert list(leftovers(machine.files, "/sys")) == []


@pytest.mark.parametrize("profile", BALLOON_PROFILES)
def test_so_is_all_that_a_host_of_xen_can_show(tmp_path: Path, profile: str) -> None:
    with running(make(tmp_path / "home", **xen_order(profile))) as machine:
        assert "hypervisor" in machine.files.list("/sys")
        assert list(leftovers(machine.files, "/sys")) == []
        assert list(leftovers(machine.files, "/proc")) == ["/proc/sys"]


def test_this_computers_own_entries_can_be_taken() -> None:
    real = real_entries()
    names = {path for path in real if path.count("/") == 2}
    there = {str(path) for above in ("/sys", "/proc") for path in Path(above).iterdir()}
    processes = {path for path in there if path[len("/proc/") :].isdecimal()}
    assert names == there - MACHINE_ONLY - processes - {"/proc/self", "/proc/thread-self"}
