"""What a plan says of the driver: whether it is there, takes an image, and is nobody else's."""

from __future__ import annotations

import gzip
import lzma
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from openrbu.hosts.linux import LinuxHost
from openrbu.hosts.virtual import VirtualHost
from openrbu.linux.firmware_class import IGNORE_FALLBACK, SEARCH_PATH
from openrbu.linux.modules import read_module
from openrbu.machine.virtual import VirtualMachine
from openrbu.update.checks.check import Check, Verdict
from openrbu.update.driver import RbuDriver
from openrbu.update.options import Options
from openrbu.update.plan import make_plan
from rigs.hazards import KERNEL, put, sound_machine
from rigs.machines import image, image_bytes, make, running, update

FINE, HANDLED, IN_THE_WAY, UNKNOWN = (
    Verdict.FINE,
    Verdict.HANDLED,
    Verdict.IN_THE_WAY,
    Verdict.UNKNOWN,
)
MODULES = f"/lib/modules/{KERNEL}"
FILE = "kernel/drivers/platform/x86/dell/dell_rbu.ko"
SIGNATURE = b"~Module signature appended~\n"
LOCKDOWN = "/sys/kernel/security/lockdown"


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of a sound machine, on which the driver is not loaded."""
    monkeypatch.setenv("OPENRBU_HOME", str(tmp_path / "state"))
    return sound_machine(tmp_path)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[VirtualMachine]:
    with running(make(tmp_path, profile="linux")) as machine:
        yield machine


def row(host: LinuxHost | VirtualHost, name: str) -> Check | None:
    checks = make_plan(host, image(), Options()).checks
    return next((each for each in checks if each.name == name), None)


def driver_row(tree: Path) -> Check:
    check = row(LinuxHost(tree), "driver")
    assert check is not None
    return check


# -- is it there? ---------------------------------------------------------------------------


def test_a_module_that_is_listed_and_there_is_loaded_by_the_update(tree: Path) -> None:
    check = driver_row(tree)
    assert (check.verdict, check.advice) == (HANDLED, "the update loads it")


def test_a_machine_that_does_not_show_its_kernel_is_not_judged(tree: Path) -> None:
    (tree / "proc/sys/kernel/osrelease").unlink()
    assert driver_row(tree).verdict is HANDLED


def test_a_driver_that_is_built_in_needs_no_loading(tree: Path) -> None:
    put(tree, f"{MODULES}/modules.dep", "")
    put(tree, f"{MODULES}/modules.builtin", f"{FILE}\n")
    check = driver_row(tree)
    assert (check.verdict, check.found) == (FINE, "the dell_rbu driver is built into the kernel")


@pytest.mark.parametrize(
    ("listed", "there"),
    [("dell-rbu.ko.xz", "dell-rbu.ko.xz"), ("dell_rbu.ko.zst", "dell_rbu.ko.zst")],
)
def test_a_packed_module_is_one_whatever_its_dash(tree: Path, listed: str, there: str) -> None:
    put(tree, f"{MODULES}/modules.dep", f"kernel/a.ko: kernel/b.ko\nextra/{listed}: kernel/a.ko\n")
    put(tree, f"{MODULES}/extra/{there}", b"packed")
    assert driver_row(tree).verdict is HANDLED


def no_directory(tree: Path) -> None:
    (tree / MODULES[1:]).rename(tree / "away")


def not_listed(tree: Path) -> None:
    put(tree, f"{MODULES}/modules.dep", "kernel/dell_rbu_other.ko:\n")


def no_file(tree: Path) -> None:
    (tree / MODULES[1:] / FILE).unlink()


@pytest.mark.parametrize(
    ("plant", "says"),
    [
        (no_directory, f"no directory of modules for the running kernel ({MODULES})"),
        (not_listed, f"the running kernel {KERNEL} has no such module"),
        (no_file, f"{FILE} is missing"),
    ],
)
def test_a_module_that_modprobe_can_not_find_is_in_the_way(
    tree: Path, plant: Callable[[Path], None], says: str
) -> None:
    plant(tree)
    check = driver_row(tree)
    assert (check.verdict, check.kind) == (IN_THE_WAY, "driver_absent")
    assert says in check.found
    assert check.advice


# -- would it be loaded? --------------------------------------------------------------------


REFUSED = {
    "modules disabled": ("/proc/sys/kernel/modules_disabled", "1\n", "kernel.modules_disabled"),
    "command line": ("/proc/cmdline", "ro module_blacklist=a,dell_rbu quiet\n", "module_blacklist"),
    "install line": (
        "/etc/modprobe.d/no.conf",
        "# no\ninstall dell-rbu \\\n /bin/false\n",
        "runs a command in place of it (/bin/false)",
    ),
    "lockdown": (LOCKDOWN, "none [integrity] confidentiality\n", "dell_rbu.ko is not signed"),
    "sig_enforce": ("/sys/module/module/parameters/sig_enforce", "Y\n", "is not signed"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_module_that_would_be_refused_is_in_the_way(tree: Path, what: str) -> None:
    path, content, says = REFUSED[what]
    put(tree, path, content)
    check = driver_row(tree)
    assert (check.verdict, check.kind) == (IN_THE_WAY, "driver_refused")
    assert says in check.found
    assert check.advice


@pytest.mark.parametrize(
    "line", ["blacklist dell_rbu\n", "#install dell_rbu /bin/false\n", "install other /bin/false\n"]
)
def test_lines_that_keep_nobody_from_loading_it_by_name(tree: Path, line: str) -> None:
    put(tree, "/etc/modprobe.d/no.conf", line)
    assert driver_row(tree).verdict is HANDLED


def test_of_two_files_of_one_name_the_first_directory_counts(tree: Path) -> None:
    put(tree, "/usr/lib/modprobe.d/no.conf", "install dell_rbu /bin/false\n")
    assert read_module(LinuxHost(tree), "dell_rbu").install == "/bin/false"
    put(tree, "/etc/modprobe.d/no.conf", "")
    assert read_module(LinuxHost(tree), "dell_rbu").install == ""


PACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".xz": lzma.compress,
    ".gz": gzip.compress,
}


@pytest.mark.parametrize("end", PACKED)
@pytest.mark.parametrize("is_signed", [True, False])
def test_a_signature_is_seen_in_a_packed_module_too(tree: Path, end: str, is_signed: bool) -> None:
    content = b"\x7fELF" + (SIGNATURE if is_signed else b"")
    put(tree, f"{MODULES}/modules.dep", f"{FILE}{end}:\n")
    put(tree, f"{MODULES}/{FILE}{end}", PACKED[end](content))
    put(tree, LOCKDOWN, "none [integrity] confidentiality\n")
    assert read_module(LinuxHost(tree), "dell_rbu").is_signed is is_signed
    assert driver_row(tree).verdict is (HANDLED if is_signed else IN_THE_WAY)


DAMAGED_GZIP = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\xff\xff\xff"


@pytest.mark.parametrize(
    ("end", "content"),
    [(".zst", b"(\xb5/\xfd"), (".xz", b"not xz"), (".gz", b"not gzip"), (".gz", DAMAGED_GZIP)],
)
def test_a_signature_that_can_not_be_read_is_not_known(
    tree: Path, end: str, content: bytes
) -> None:
    put(tree, f"{MODULES}/modules.dep", f"{FILE}{end}:\n")
    put(tree, f"{MODULES}/{FILE}{end}", content)
    put(tree, LOCKDOWN, "none [integrity] confidentiality\n")
    check = driver_row(tree)
    assert (check.verdict, check.advice) == (UNKNOWN, "load it now to see: modprobe dell_rbu")


# -- can an image be given to it? -----------------------------------------------------------


def test_a_kernel_with_the_fallback_is_fine(tree: Path) -> None:
    check = row(LinuxHost(tree), "firmware_class")
    assert check is not None
    assert check.verdict is FINE


@pytest.mark.parametrize("why", ["is told to ignore", "does not have"])
@pytest.mark.parametrize("can_be_file", [True, False])
def test_a_kernel_without_the_fallback_gets_a_file(tree: Path, why: str, can_be_file: bool) -> None:
    if why == "does not have":
        (tree / "sys/class/firmware").rename(tree / "away")
    else:
        put(tree, IGNORE_FALLBACK, "1\n")
    if not can_be_file:
        (tree / SEARCH_PATH[1:]).unlink()
    check = row(LinuxHost(tree), "firmware_class")
    if (why, can_be_file) == ("does not have", False):
        assert check is None, "it shows no firmware class at all"
        return
    assert check is not None
    assert check.verdict is (HANDLED if can_be_file else IN_THE_WAY)
    assert f"the kernel {why} the sysfs fallback" in check.found
    assert ("by hand" in check.advice) is not can_be_file


@pytest.mark.parametrize("path", ["/lib/firmware/dell_rbu", "/lib/firmware/updates/dell_rbu.xz"])
@pytest.mark.parametrize("can_be_file", [True, False])
def test_a_file_of_somebody_is_named(tree: Path, path: str, can_be_file: bool) -> None:
    put(tree, path, b"somebody's")
    if not can_be_file:
        (tree / SEARCH_PATH[1:]).unlink()
    check = row(LinuxHost(tree), "firmware_file")
    assert check is not None
    assert check.verdict is (HANDLED if can_be_file else IN_THE_WAY)
    assert path in check.found


# -- is it free? ----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["mono", "packet"])
def test_what_is_staged_and_armed_by_nobody_is_freed_by_the_update(
    machine: VirtualMachine, mode: str
) -> None:
    host = VirtualHost(machine)
    assert row(host, "staged_already") is None
    update(host, image(seed=5, version="2.2.9"), mode=mode)
    check = row(host, "staged_already")
    assert check is not None
    assert (check.verdict, check.advice) == (HANDLED, "the update frees it")


def test_packets_that_do_not_show_whether_they_can_be_dropped_are_in_the_way(
    machine: VirtualMachine,
) -> None:
    host = VirtualHost(machine)
    host.load_module("dell_rbu", {"image_type": "packet"})
    driver = RbuDriver(host)
    driver.set_packet_size(4096)
    driver.deliver(image_bytes(), lambda count: None)
    check = row(host, "staged_already")
    assert check is not None
    assert check.verdict is IN_THE_WAY
    assert "in packets are staged already, and this kernel may crash" in check.found
    assert "128.1 KiB in packets are staged already, and this kernel may crash when" in check.found


@pytest.mark.parametrize("name", ["dell-update.lock", ".dsu.lck", "DUPLock"])
def test_a_lock_of_the_vendors_programs_is_told(tree: Path, name: str) -> None:
    assert row(LinuxHost(tree), "other_tool") is None
    put(tree, f"/var/lock/{name}", "")
    put(tree, "/var/lock/LCK..ttyS0", "")
    check = row(LinuxHost(tree), "other_tool")
    assert check is not None
    assert check.verdict is UNKNOWN
    assert check.found.endswith(f"(/var/lock/{name})")
