"""A Linux machine by its files: a tree made for the test, and the machine that the test runs on."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import resource
import signal
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from openrbu.errors import NotForThisMachineError, ObstacleError, OpenRbuError
from openrbu.hosts.base import DMI_TABLE, read_file, read_text
from openrbu.hosts.linux import LinuxHost
from openrbu.hosts.virtual import VirtualHost
from openrbu.machine import path_locks
from openrbu.update import flow, report
from openrbu.update.options import Options
from openrbu.update.plan import make_plan
from openrbu.update.restart import safe_command
from openrbu.update.target import read_target
from rigs.machines import (
    DEVICE,
    REBOOT_MODE,
    Quiet,
    Watched,
    as_nobody,
    image,
    in_child,
    make,
    opened_up,
    running,
)
from rigs.needs import leave_out

PORT_FILE_BYTES = 1 << 16


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENRBU_HOME", str(tmp_path / "state"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The files of a Precision 390, taken from a virtual one; `/dev/port` is a plain file."""
    root = tmp_path / "root"
    with running(make(tmp_path / "home")) as machine:
        host = VirtualHost(machine)
        for path in (
            "/sys/firmware/dmi/tables/smbios_entry_point",
            "/sys/firmware/dmi/tables/DMI",
            "/proc/buddyinfo",
            "/proc/sys/kernel/random/boot_id",
            REBOOT_MODE,
        ):
            put(root, path, read_file(host, path))
    put(root, "/dev/port", bytes(PORT_FILE_BYTES))
    return root


def put(root: Path, path: str, data: bytes) -> Path:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file


# -- files ----------------------------------------------------------------------------------


def test_files_are_looked_up_below_the_root(root: Path) -> None:
    host = LinuxHost(root)
    assert read_text(host, REBOOT_MODE) == "cold"
    assert host.exists(REBOOT_MODE)
    assert not host.exists("/etc/hostname")
    assert host.name == f"the machine at {root}"
    assert LinuxHost().name == "this machine"


@pytest.mark.parametrize("size_bytes", [1, 7, 100, 4096])
def test_a_file_is_read_in_order_in_chunks_of_at_most_that_size(
    tmp_path: Path, size_bytes: int
) -> None:
    data = bytes(range(256)) * 4
    put(tmp_path, "/f", data)
    chunks = list(LinuxHost(tmp_path).chunks("/f", size_bytes))
    assert b"".join(chunks) == data
    assert max(map(len, chunks)) <= size_bytes


def test_a_write_goes_to_its_offset_and_leaves_the_rest(tmp_path: Path) -> None:
    file = put(tmp_path, "/f", b"0123456789")
    host = LinuxHost(tmp_path)
    host.write("/f", b"AB")
    host.write("/f", memoryview(b"CD"), 5)
    host.write("/f", b"")
    assert file.read_bytes() == b"AB234CD789"


def test_a_write_of_which_only_a_part_is_taken_is_an_error(tmp_path: Path) -> None:
    file = put(tmp_path, "/f", b"")

    def work() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))
        with pytest.raises(OSError, match="File too large"):
            LinuxHost(tmp_path).write("/f", bytes(20))

    assert in_child(work) == 0
    assert file.stat().st_size == 10


@pytest.mark.parametrize("path", ["/nothing", "/dir"])
def test_what_the_kernel_refuses_names_the_file(tmp_path: Path, path: str) -> None:
    (tmp_path / "dir").mkdir()
    for call in (
        lambda host: read_file(host, path),
        lambda host: host.write(path, b"x"),
        lambda host: host.path_lock(path).__enter__(),
    ):
        with pytest.raises(OSError, match=r"\[Errno") as refusal:
            call(LinuxHost(tmp_path))
        assert path in str(refusal.value.filename)


def test_a_refusal_of_the_write_itself_names_the_file_too() -> None:
    with pytest.raises(OSError, match="No space left") as refusal:
        LinuxHost().write("/dev/full", b"x")
    assert (refusal.value.errno, refusal.value.filename) == (errno.ENOSPC, "/dev/full")


def test_a_file_that_may_not_be_seen_is_not_there(tmp_path: Path) -> None:
    put(tmp_path, "/closed/f", b"x")
    opened_up(tmp_path / "closed")
    (tmp_path / "closed").chmod(0o700 if os.geteuid() == 0 else 0)

    def work() -> None:
        assert not LinuxHost(tmp_path).exists("/closed/f")

    as_nobody(work)
    (tmp_path / "closed").chmod(0o755)


# -- the lock that programs agree on --------------------------------------------------------


def test_the_lock_is_had_by_one_process_at_a_time(tmp_path: Path) -> None:
    file = put(tmp_path, "/smi_request", b"")
    script = (
        "import fcntl, sys\n"
        "with open(sys.argv[1], 'w') as file:\n"
        "    try: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "    except BlockingIOError: print('taken')\n"
        "    else: print('free')\n"
    )

    def seen() -> str:
        done = [sys.executable, "-c", script, str(file)]
        return subprocess.run(done, capture_output=True, text=True, check=True).stdout.strip()

    with LinuxHost(tmp_path).path_lock("/smi_request"):
        assert seen() == "taken"
    assert seen() == "free"


def test_a_lock_that_another_program_keeps_is_told_with_that_programs_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = put(tmp_path, "/smi_request", b"")
    monkeypatch.setattr(path_locks, "TIMEOUT_S", 0.1)
    with file.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        name = Path("/proc/self/comm").read_text().strip()
        holder = re.escape(f"{name} (process {os.getpid()})")
        with (
            pytest.raises(ObstacleError, match=f"^{holder} has had /smi_request locked for 0 s"),
            LinuxHost(tmp_path).path_lock("/smi_request"),
        ):
            pass
    with LinuxHost(tmp_path).path_lock("/smi_request"):
        pass


def test_a_file_of_sysfs_that_can_only_be_written_can_be_locked() -> None:
    """`smi_request` is such a file: opening it for reading too is refused, even to root."""
    if os.geteuid():
        leave_out("only root may open the write-only files of sysfs")
    candidates = [
        path
        for path in Path("/sys/bus").glob("*/drivers_probe")
        if stat.S_IMODE(path.stat().st_mode) == 0o200
    ]
    if not candidates:
        leave_out("this machine's sysfs has no write-only file in /sys/bus")
    path = str(candidates[0])
    with pytest.raises(PermissionError), open(path, "r+b"):  # noqa: PTH123
        pass
    with LinuxHost().path_lock(path):
        pass


# -- memory, modules, restart ----------------------------------------------------------------


def put_identity(root: Path, system_id: int, revision: int) -> Path:
    """A `/dev/mem` that has a BIOS's identity in it, and ends there."""
    identity = struct.pack("<H3sBB5x", system_id, b"212", 0xFE, revision)
    return put(root, "/dev/mem", bytes(0xFE840) + identity)


def test_the_hardware_revision_is_what_the_bios_keeps_in_its_rom(root: Path) -> None:
    put_identity(root, 0x01DE, 5)
    assert LinuxHost(root).hardware_revision(0x01DE) == 5
    plan = make_plan(LinuxHost(root), image(), Options())
    (obstacle,) = [each for each in plan.obstacles if each.kind == "wrong_revision"]
    assert "revision 0 of this system" in obstacle.message
    assert obstacle.message.endswith("(0x01de) has revision 5")


@pytest.mark.parametrize("what", ["no file", "another system", "cut short"])
def test_a_rom_that_does_not_say_it_leaves_the_hardware_revision_unknown(
    root: Path, what: str
) -> None:
    mem = put_identity(root, 0x01B2 if what == "another system" else 0x01DE, 0)
    if what == "no file":
        mem.unlink()
    elif what == "cut short":
        mem.write_bytes(mem.read_bytes()[:-1])
    assert LinuxHost(root).hardware_revision(0x01DE) is None


def test_without_a_system_id_the_hardware_revision_is_unknown(root: Path) -> None:
    put_identity(root, 0, 1)
    assert LinuxHost(root).hardware_revision(None) is None


def test_a_plan_reads_the_smbios_tables_once(root: Path) -> None:
    reads: list[str] = []

    def note(name: str, arguments: tuple[object, ...]) -> None:
        if name == "chunks":
            reads.append(str(arguments[0]))

    make_plan(Watched(LinuxHost(root), note), image(), Options())
    assert reads.count(DMI_TABLE) == 1


def test_a_memory_that_may_not_be_read_leaves_the_hardware_revision_unknown(root: Path) -> None:
    mem = put_identity(root, 0x01DE, 1)
    opened_up(mem)
    mem.chmod(0o600 if os.geteuid() == 0 else 0)

    def work() -> None:
        assert read_target(LinuxHost(root)).system_id == 0x01DE
        assert LinuxHost(root).hardware_revision(0x01DE) is None

    as_nobody(work)


def test_a_directory_of_files_loads_no_module_and_does_not_restart(root: Path) -> None:
    host = LinuxHost(root)
    calls: tuple[tuple[Callable[[], object], str], ...] = (
        (lambda: host.load_module("dell_rbu", {"image_type": "mono"}), "dell_rbu can't be loaded"),
        (lambda: host.unload_module("dell_rbu"), "dell_rbu can't be unloaded"),
        (host.restart, "can't be restarted"),
    )
    for call, says in calls:
        with pytest.raises(
            ObstacleError, match=f"{says}: .* is only a directory, not a running machine"
        ):
            call()


def test_a_restart_is_one_with_the_bios(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins for the programs that restart a machine, found first."""
    programs, called = tmp_path / "bin", tmp_path / "called"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    for name in ("systemctl", "reboot"):
        stand_in = programs / name
        skips = "$SYSTEMCTL_SKIP_AUTO_KEXEC$SYSTEMCTL_SKIP_AUTO_SOFT_REBOOT"
        stand_in.write_text(f'#!/bin/sh\necho "{name} $* {skips}" > {called}\n')
        stand_in.chmod(0o755)
    LinuxHost().restart()
    runs_systemd = Path("/run/systemd/system").exists()
    expected = "systemctl reboot 11" if runs_systemd else "reboot"
    assert called.read_text().strip() == expected


def test_the_command_that_restarts_with_the_bios_is_that_of_the_init_system(root: Path) -> None:
    assert safe_command(LinuxHost(root)) == "reboot"
    (root / "run/systemd/system").mkdir(parents=True)
    assert safe_command(LinuxHost(root)) == (
        "SYSTEMCTL_SKIP_AUTO_KEXEC=1 SYSTEMCTL_SKIP_AUTO_SOFT_REBOOT=1 systemctl reboot"
    )


def test_a_module_is_there_when_sys_module_says_so(root: Path) -> None:
    assert not LinuxHost(root).module_is_loaded("dell_rbu")
    (root / "sys/module/dell_rbu").mkdir(parents=True)
    assert LinuxHost(root).module_is_loaded("dell_rbu")


def test_what_a_module_loader_says_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for modprobe, found first: the real one is not asked to change this machine."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    with pytest.raises(ObstacleError, match="the program modprobe is not installed"):
        LinuxHost().load_module("dell_rbu", {})
    modprobe = programs / "modprobe"
    modprobe.write_text('#!/bin/sh\necho "FATAL:  Module $*" >&2\necho not found >&2\nexit 1\n')
    modprobe.chmod(0o755)
    with pytest.raises(
        ObstacleError,
        match="dell_rbu can't be loaded: FATAL: Module dell_rbu image_type=mono not found",
    ):
        LinuxHost().load_module("dell_rbu", {"image_type": "mono"})
    modprobe.write_text("#!/bin/sh\nexit 7\n")
    with pytest.raises(ObstacleError, match=r"can't be loaded: .*modprobe ended with 7"):
        LinuxHost().load_module("dell_rbu", {})
    modprobe.write_text("#!/bin/sh\nexit 0\n")
    LinuxHost().load_module("dell_rbu", {})


# -- the tool on such a machine -------------------------------------------------------------


def test_a_plan_is_made_from_the_files_and_changes_none(root: Path) -> None:
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    plan = make_plan(LinuxHost(root), image(), Options())
    assert plan.obstacles == ()
    assert plan.target.system_id == 0x01DE
    assert any("physical memory can't be read here" in note for note in plan.notes)
    after = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    changed = {path.name for path in before if before[path] != after[path]}
    assert changed <= {"port"}  # the index register: a byte of CMOS has to be asked for
    assert before.keys() == after.keys()


def test_an_update_that_finds_no_driver_says_so_and_leaves_the_machine_alone(root: Path) -> None:
    host = LinuxHost(root)
    plan = make_plan(host, image(), Options())
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    with pytest.raises(ObstacleError, match="dell_rbu can't be loaded") as refusal:
        flow.perform(host, plan, Quiet())
    assert "could not be undone" not in str(refusal.value)
    after = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert after.pop(host.journal_path).count(b"\n") == 2
    assert after == before
    assert report.read_status(host).last is not None


def test_a_driver_whose_file_refuses_a_write_is_told_by_its_path(root: Path) -> None:
    put(root, f"{DEVICE}/image_type", b"mono\n")
    put(root, f"{DEVICE}/packet_size", b"0\n")
    put(root, f"{DEVICE}/data", b"")
    put(root, "/sys/class/firmware/dell_rbu/data", b"")
    (root / "sys/class/firmware/dell_rbu/loading").symlink_to("/dev/full")
    with pytest.raises(OpenRbuError, match=r"No space left on device \(.*loading\)"):
        flow.perform(LinuxHost(root), make_plan(LinuxHost(root), image(), Options()), Quiet())


@pytest.mark.parametrize(
    "missing",
    ["sys/firmware/dmi/tables/smbios_entry_point", "sys/firmware/dmi/tables/DMI"],
)
def test_a_machine_that_shows_no_tables_can_not_be_known(root: Path, missing: str) -> None:
    (root / missing).unlink()
    with pytest.raises(ObstacleError, match="has no SMBIOS tables, so its model can't be known"):
        read_target(LinuxHost(root))


def test_tables_that_only_root_may_read_are_told_of(root: Path) -> None:
    table = root / "sys/firmware/dmi/tables/DMI"
    opened_up(table)
    table.chmod(0o600 if os.geteuid() == 0 else 0)

    def work() -> None:
        with pytest.raises(ObstacleError, match="only root can read the SMBIOS tables"):
            read_target(LinuxHost(root))

    as_nobody(work)


def test_this_very_machine_is_looked_at_without_a_traceback_and_not_updated() -> None:
    """Unless it is a Precision 390 it is not what the image is for, or can't be known."""
    host = LinuxHost()
    had_journal = host.journal_path.exists()
    before = {
        path: Path(path).read_bytes()
        for path in (REBOOT_MODE, "/proc/sys/kernel/random/boot_id")
        if Path(path).exists()
    }
    try:
        plan = make_plan(host, image(), Options())
    except ObstacleError as error:
        assert "SMBIOS tables" in str(error)  # noqa: PT017
    else:
        with pytest.raises(NotForThisMachineError):
            flow.refuse(plan)
        with pytest.raises(NotForThisMachineError):
            flow.perform(host, plan, Quiet())
    assert host.journal_path.exists() == had_journal
    assert {path: Path(path).read_bytes() for path in before} == before
