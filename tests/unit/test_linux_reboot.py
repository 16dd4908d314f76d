"""What a Linux says of its restart, and what an update makes of it: on trees of files."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import struct
from functools import partial
from pathlib import Path

import pytest

from openrbu.errors import ObstacleError
from openrbu.formats.fadt import RESET, RESET_AT, ResetRegister, parse_reset_register
from openrbu.formats.reboot_words import RebootWords, parse_reboot_words
from openrbu.hosts.linux import LinuxHost
from openrbu.linux import reboot
from openrbu.system.immutable import is_immutable
from openrbu.update import restart
from openrbu.update.checks.check import Verdict
from openrbu.update.journal import Journal
from openrbu.update.options import Options
from openrbu.update.plan import make_plan
from openrbu.update.report import read_status
from openrbu.update.restart import next_kind
from openrbu.update.undo import Undo
from rigs.hazards import put, sound_machine
from rigs.machines import Watched, image
from rigs.needs import leave_out


def tree(root: Path, **files: str | bytes) -> LinuxHost:
    """A host with these files; in a name `__` stands for a slash."""
    for name, data in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else f"{data}\n".encode())
    return LinuxHost(root)


def fadt(value: int, *, address: int = 0xCF9, flags: int = 1 << 10, space: int = 1) -> bytes:
    part = RESET.pack(flags=flags, space=space, width=8, address=address, value=value)
    return b"FACP".ljust(RESET_AT, b"\0") + part + bytes(100)


def choose_warm(host: LinuxHost, *, allow_any: bool = False) -> Undo:
    """Choose it as an update does; what puts it back."""
    undo = Undo(host, Journal(host.journal_path), "an update")
    restart.choose_warm(host, partial(undo.before_change, "a setting"), allow_any=allow_any)
    return undo


def text(root: Path, path: str) -> str:
    return (root / path).read_text().strip()


# -- facts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("root=/dev/sda1 ro", RebootWords()),
        ("reboot=w", RebootWords("warm")),
        ("reboot=warm,bios quiet", RebootWords("warm", "bios")),
        ("reboot=b", RebootWords(None, "bios")),
        ("reboot=cold reboot=w,p", RebootWords("warm", "pci")),
        ("reboot=w reboot=efi,force", RebootWords("warm", "efi", force=True)),
        ("reboot=smp3,a", RebootWords(None, "acpi", cpu=3)),
        ("reboot=soft", RebootWords("soft")),
        ("reboot=s12", RebootWords(cpu=12)),
        ("reboot=panic_warm", RebootWords()),
        ("noreboot=w xreboot=w reboot", RebootWords()),
        ("reboot=,,w", RebootWords("warm")),
        ("ro -- reboot=w", RebootWords()),
        ("reboot=c -- reboot=w,p", RebootWords("cold")),
    ],
)
def test_the_words_of_a_command_line_count_by_their_first_letter(
    line: str, words: RebootWords
) -> None:
    assert parse_reboot_words(line) == words


def test_a_reset_register_is_there_when_its_flag_says_so() -> None:
    assert parse_reset_register(fadt(0x0F)) == ResetRegister(True, 0xCF9, 0x0F)
    assert parse_reset_register(fadt(0x0F, flags=0xFFFF & ~(1 << 10))) is None
    assert parse_reset_register(fadt(0x0F)[: RESET_AT + RESET.size_bytes - 1]) is None
    assert parse_reset_register(b"APIC" + fadt(0x0F)[4:]) is None


@pytest.mark.parametrize(
    ("register", "cycles"),
    [
        (ResetRegister(True, 0xCF9, 0x0E), True),
        (ResetRegister(True, 0xCF9, 0x0F), True),
        (ResetRegister(True, 0xCF9, 0x06), False),
        (ResetRegister(True, 0x64, 0xFE), False),
        (ResetRegister(False, 0xCF9, 0x0F), False),
    ],
)
def test_a_full_reset_of_the_reset_control_register_cycles_the_power(
    register: ResetRegister, *, cycles: bool
) -> None:
    assert register.cycles_power is cycles


def test_kexec_is_told_by_each_of_its_signs(tmp_path: Path) -> None:
    nothing = reboot.read_kexec(tree(tmp_path / "nothing"))
    assert nothing == reboot.Kexec(None, "", False, False)
    everything = tree(
        tmp_path / "everything",
        sys__kernel__kexec_loaded="1",
        etc__default__kexec='# kexec-tools\nLOAD_KEXEC="true"',
        run__nextroot__etc="",
    )
    unit = tmp_path / "everything" / "etc" / "systemd" / "system" / "reboot.target"
    unit.parent.mkdir(parents=True)
    unit.write_text("[Unit]\nRequires=systemd-kexec.service\n")
    assert reboot.read_kexec(everything) == reboot.Kexec(True, f"/{UNITS}", True, True)
    not_loaded = tree(
        tmp_path / "no", sys__kernel__kexec_loaded="0", etc__default__kexec="LOAD_KEXEC=false"
    )
    assert reboot.read_kexec(not_loaded) == reboot.Kexec(False, "", False, False)


UNITS = "etc/systemd/system/reboot.target"
NEEDS = "[Unit]\nRequires=systemd-kexec.service\n"


@pytest.mark.parametrize(
    ("files", "is_on"),
    [
        ({"kexec": "LOAD_KEXEC='true'"}, True),
        ({"kexec": "export LOAD_KEXEC=true"}, True),
        ({"kexec": "LOAD_KEXEC=true # at each restart"}, True),
        ({"kexec": "LOAD_KEXEC=true;"}, True),
        ({"kexec": 'A=1;LOAD_KEXEC=tr"ue"'}, True),
        ({"kexec": "LOAD_KEXEC=true\nX='no end"}, True),
        ({"kexec": "LOAD_KEXEC=true\nLOAD_KEXEC=false"}, False),
        ({"kexec": "LOAD_KEXEC=false\nLOAD_KEXEC=true"}, True),
        ({"kexec": "# LOAD_KEXEC=true\nNO_LOAD_KEXEC=true"}, False),
        ({"kexec": "A='LOAD_KEXEC=false'\nB=' LOAD_KEXEC=true'"}, False),
        ({"kexec.d/a": "LOAD_KEXEC=true"}, True),
        ({"kexec": "LOAD_KEXEC=true", "kexec.d/a": "LOAD_KEXEC=false"}, False),
        ({"kexec.d/a": "LOAD_KEXEC=false", "kexec.d/b": "LOAD_KEXEC=true"}, True),
    ],
)
def test_what_kexec_tools_is_told_is_read_as_a_shell_reads_it(
    tmp_path: Path, files: dict[str, str], *, is_on: bool
) -> None:
    for name, content in files.items():
        put(tmp_path, f"/etc/default/{name}", f"{content}\n")
    assert reboot.read_kexec(LinuxHost(tmp_path)).loads_at_shutdown is is_on


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({f"{UNITS}.d/a.conf": NEEDS}, f"/{UNITS}.d/a.conf"),
        ({f"{UNITS}.d/a.conf": "Wants=a.service \\\n kexec.target"}, f"/{UNITS}.d/a.conf"),
        ({f"{UNITS}.d/a.txt": NEEDS}, ""),
        ({f"{UNITS}.d/a.conf": "", "lib/systemd/system/reboot.target.d/a.conf": NEEDS}, ""),
        (
            {f"{UNITS}.requires/systemd-kexec.service": ""},
            f"/{UNITS}.requires/systemd-kexec.service",
        ),
        ({"lib/systemd/system/reboot.target": NEEDS}, "/lib/systemd/system/reboot.target"),
        ({"usr/lib/systemd/system/reboot.target": NEEDS}, "/usr/lib/systemd/system/reboot.target"),
        ({UNITS: "", "lib/systemd/system/reboot.target": NEEDS}, ""),
        ({UNITS: "# Requires=systemd-kexec.service\nAfter=systemd-kexec.service"}, ""),
    ],
)
def test_a_restart_by_kexec_is_seen_wherever_systemd_is_told_so(
    tmp_path: Path, files: dict[str, str], found: str
) -> None:
    for path, content in files.items():
        put(tmp_path, path, f"{content}\n")
    assert reboot.read_kexec(LinuxHost(tmp_path)).reboot_unit == found


def test_a_link_to_kexec_target_is_followed(tmp_path: Path) -> None:
    put(tmp_path, "/lib/systemd/system/kexec.target", NEEDS)
    (tmp_path / "lib/systemd/system/reboot.target").symlink_to("kexec.target")
    assert reboot.read_kexec(LinuxHost(tmp_path)).reboot_unit.startswith("/lib/")


@pytest.mark.parametrize(("number", "by_kexec"), [("208", True), ("114", False), ("x", None)])
def test_the_boot_loaders_number_tells_a_boot_by_kexec(
    tmp_path: Path, number: str, *, by_kexec: bool | None
) -> None:
    host = tree(tmp_path, proc__sys__kernel__bootloader_type=number)
    assert reboot.read_boot(host).is_by_kexec is by_kexec


@pytest.mark.parametrize(
    ("files", "verdict", "says"),
    [
        ({"sys/kernel/kexec_loaded": "0"}, Verdict.FINE, "no kernel is loaded"),
        (
            {"sys/kernel/kexec_loaded": "1", "run/systemd/system/x": ""},
            Verdict.HANDLED,
            "--reboot keeps it from that; without it: SYSTEMCTL_SKIP_AUTO_KEXEC=1 .* reboot",
        ),
        ({"sys/kernel/kexec_loaded": "1"}, Verdict.IN_THE_WAY, "kexec -u"),
        ({"etc/default/kexec": "LOAD_KEXEC=true"}, Verdict.IN_THE_WAY, "LOAD_KEXEC=false"),
        (
            {"etc/systemd/system/reboot.target": "[Unit]\nRequires=systemd-kexec.service"},
            Verdict.IN_THE_WAY,
            "put systemd's own reboot.target back",
        ),
        ({"sys/kernel/kexec_loaded": "yes"}, Verdict.UNKNOWN, "can't be known"),
        ({"sys/kernel/kexec_loaded/x": ""}, Verdict.UNKNOWN, "can't be known"),
    ],
)
def test_a_plan_tells_what_would_start_another_kernel(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    files: dict[str, str],
    verdict: Verdict,
    says: str,
) -> None:
    monkeypatch.setenv("OPENRBU_HOME", str(tmp_path / "state"))
    machine = sound_machine(tmp_path)
    (machine / "sys/kernel/kexec_loaded").unlink()
    shutil.rmtree(machine / "run", ignore_errors=True)
    for path, data in files.items():
        put(machine, path, f"{data}\n")
    host = LinuxHost(machine)
    for options in (Options(), Options(allow_any_restart=True)):
        (check,) = (x for x in make_plan(host, image(), options).checks if x.name == "kexec")
        assert re.search(says, check.message)
        is_taken_on = options.allow_any_restart and verdict is Verdict.IN_THE_WAY
        assert check.verdict is (Verdict.UNKNOWN if is_taken_on else verdict)


def test_an_active_watchdog_and_a_soft_reboot_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENRBU_HOME", str(tmp_path / "state"))
    machine = sound_machine(tmp_path)
    tree(
        machine,
        sys__class__watchdog__watchdog0__state="active",
        sys__class__watchdog__watchdog0__identity="iTCO_wdt",
        run__nextroot__etc="",
        run__systemd__system__x="",
    )
    found = {x.name: x for x in make_plan(LinuxHost(machine), image(), Options()).checks}
    assert "iTCO_wdt is active" in found["watchdog"].found
    assert found["watchdog"].verdict is Verdict.UNKNOWN
    assert found["soft_reboot"].verdict is Verdict.HANDLED


# -- what becomes of the restart ------------------------------------------------------------


def test_a_way_that_cycles_the_power_is_changed_and_put_back(tmp_path: Path) -> None:
    host = tree(
        tmp_path,
        proc__cmdline="ro",
        sys__kernel__reboot__mode="cold",
        sys__kernel__reboot__type="acpi",
        sys__firmware__acpi__tables__FACP=fadt(0x0F),
    )
    assert next_kind(host).problem
    undo = choose_warm(host)
    assert text(tmp_path, "sys/kernel/reboot/mode") == "warm"
    assert text(tmp_path, "sys/kernel/reboot/type") == "pci"
    assert next_kind(host).problem == ""
    assert undo.run() == []
    assert text(tmp_path, "sys/kernel/reboot/mode") == "cold"
    assert text(tmp_path, "sys/kernel/reboot/type") == "acpi"


@pytest.mark.parametrize(("way", "value"), [("acpi", 0x06), ("kbd", 0x0F), ("bios", 0x0F)])
def test_a_way_that_keeps_memory_stays(tmp_path: Path, way: str, value: int) -> None:
    host = tree(
        tmp_path,
        sys__kernel__reboot__mode="cold",
        sys__kernel__reboot__type=way,
        sys__firmware__acpi__tables__FACP=fadt(value),
    )
    choose_warm(host)
    assert text(tmp_path, "sys/kernel/reboot/type") == way


@pytest.mark.parametrize(
    ("line", "value", "why"),
    [
        ("ro", 0x06, "restarts cold, which clears memory: start Linux with reboot=w "),
        ("reboot=b", 0x06, "restarts cold"),
        ("reboot=w", 0x0E, "with a power cycle here, .*: start Linux with reboot=w,p "),
        ("reboot=w,a", 0x0E, "with a power cycle"),
    ],
)
def test_without_the_files_the_command_line_has_to_be_right(
    tmp_path: Path, line: str, value: int, why: str
) -> None:
    host = tree(tmp_path, proc__cmdline=line, sys__firmware__acpi__tables__FACP=fadt(value))
    with pytest.raises(ObstacleError, match=f"{why}.*or accept that"):
        choose_warm(host)
    choose_warm(host, allow_any=True)


@pytest.mark.parametrize(("line", "value"), [("reboot=w", 0x06), ("reboot=w,b", 0x0F)])
def test_and_where_it_is_right_nothing_has_to_be_done(
    tmp_path: Path, line: str, value: int
) -> None:
    host = tree(tmp_path, proc__cmdline=line, sys__firmware__acpi__tables__FACP=fadt(value))
    choose_warm(host)
    assert next_kind(host).problem == ""


def test_what_another_program_chose_meanwhile_stays(tmp_path: Path) -> None:
    host = tree(
        tmp_path,
        sys__kernel__reboot__mode="cold",
        sys__kernel__reboot__type="acpi",
        sys__firmware__acpi__tables__FACP=fadt(0x0F),
    )
    undo = choose_warm(host)
    tree(tmp_path, sys__kernel__reboot__mode="hard", sys__kernel__reboot__type="kbd")
    assert undo.run() == []
    assert text(tmp_path, "sys/kernel/reboot/mode") == "hard"
    assert text(tmp_path, "sys/kernel/reboot/type") == "kbd"


@pytest.mark.parametrize(
    ("files", "words", "force", "cpu"),
    [
        ({"force": "0\n", "cpu": "0\n"}, "reboot=f,s3", Verdict.FINE, Verdict.FINE),
        ({"force": "1\n", "cpu": "2\n"}, "", Verdict.UNKNOWN, Verdict.UNKNOWN),
        (None, "reboot=w,f", Verdict.UNKNOWN, None),
        (None, "reboot=w,s2", Verdict.FINE, Verdict.UNKNOWN),
        (None, "reboot=w", Verdict.FINE, None),
    ],
    ids=str,
)
def test_a_plan_says_which_processors_have_a_part_in_the_restart(
    tmp_path: Path,
    files: dict[str, str] | None,
    words: str,
    force: Verdict,
    cpu: Verdict | None,
) -> None:
    """By the kernel's files, else by its command line; which one it is else, nothing says."""
    machine = sound_machine(tmp_path)
    put(machine, "/proc/cmdline", words)
    if files is None:
        shutil.rmtree(machine / "sys/kernel/reboot")
    for name, content in (files or {}).items():
        put(machine, f"/sys/kernel/reboot/{name}", content)
    checks = make_plan(LinuxHost(machine), image(), Options()).checks
    rows = {each.name: each for each in checks}
    assert rows["restart_force"].verdict is force
    assert (rows["restart_cpu"].verdict if "restart_cpu" in rows else None) is cpu
    for name in ("restart_force", "restart_cpu"):
        if name in rows and rows[name].verdict is Verdict.UNKNOWN:
            assert f"/sys/kernel/reboot/{name.removeprefix('restart_')}" in rows[name].advice


def test_on_xen_no_file_of_linux_is_named_as_what_keeps_memory(
    tmp_path: Path,
) -> None:
    machine = sound_machine(tmp_path)
    put(machine, "/sys/hypervisor/type", "xen\n")
    assert next_kind(LinuxHost(machine)).problem == ""
    assert "echo" not in read_status(LinuxHost(machine)).restart_problem


def test_on_xen_the_files_of_linux_decide_nothing(tmp_path: Path) -> None:
    host = tree(
        tmp_path,
        proc__cmdline="ro",
        sys__hypervisor__type="xen",
        sys__firmware__acpi__tables__FACP=fadt(0x0F),
    )
    choose_warm(host)
    assert next_kind(host).problem == ""


# -- the firmware's request to clear memory -------------------------------------------------

ATTRIBUTES = b"\x07\0\0\0"


def with_request(root: Path, value: int, lock: int | None = None) -> LinuxHost:
    put(root, reboot.OVERWRITE_REQUEST, ATTRIBUTES + bytes([value]))
    if lock is not None:
        put(root, reboot.OVERWRITE_LOCK, ATTRIBUTES + bytes([lock]))
    return LinuxHost(root)


def request_of(root: Path) -> bytes:
    return (root / reboot.OVERWRITE_REQUEST.lstrip("/")).read_bytes()


@pytest.mark.parametrize(("value", "kept"), [(0x01, 0x00), (0x11, 0x10), (0x10, 0x10)])
def test_a_firmware_that_clears_memory_is_asked_to_keep_it_and_then_as_before(
    tmp_path: Path, value: int, kept: int
) -> None:
    host = with_request(tmp_path, value)
    assert bool(next_kind(host).problem) == bool(value & 1)
    undo = choose_warm(host)
    assert request_of(tmp_path) == ATTRIBUTES + bytes([kept])
    assert next_kind(host).problem == ""
    assert host.journal_path.exists() == (value != kept), "in case that this is killed"
    assert undo.run() == []
    assert request_of(tmp_path) == ATTRIBUTES + bytes([value])


def test_an_immutable_variable_is_written_and_is_immutable_again(tmp_path: Path) -> None:
    host = with_request(tmp_path, 1)
    file = tmp_path / reboot.OVERWRITE_REQUEST.lstrip("/")
    set_immutable(file)
    try:
        with pytest.raises(PermissionError):
            file.write_bytes(b"x")
        choose_warm(host)
        assert request_of(tmp_path) == ATTRIBUTES + b"\0"
        assert is_immutable(file)
    finally:
        clear_flags(file)  # or the test's directory could not be removed


def set_immutable(file: Path) -> None:
    """The test is left out where the file system or this user can't."""
    try:
        set_flags(file, 0x10)
    except OSError as error:
        leave_out(f"no immutable files here: {error.strerror}")


def clear_flags(file: Path) -> None:
    set_flags(file, 0)


def set_flags(file: Path, flags: int) -> None:
    """FS_IOC_SETFLAGS."""
    with file.open("rb") as opened:
        fcntl.ioctl(opened, 0x40086602, struct.pack("l", flags))


def test_a_variable_that_the_firmware_has_locked_is_in_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENRBU_HOME", str(tmp_path / "state"))
    host = with_request(sound_machine(tmp_path), 1, lock=1)
    for options in (Options(), Options(allow_any_restart=True)):
        obstacles = {each.name: each.kind for each in make_plan(host, image(), options).obstacles}
        assert ("memory_overwrite" in obstacles) is not options.allow_any_restart


@pytest.mark.parametrize("number", [errno.EPERM, errno.EROFS])
def test_a_firmware_that_does_not_take_it_refuses_the_update(tmp_path: Path, number: int) -> None:
    """It has locked the variable, or its variables are mounted read-only."""
    host = with_request(tmp_path, 1)

    def refuse(path: str, data: bytes) -> None:
        raise OSError(number, os.strerror(number), path)

    stuck = Watched(host, lambda *_: None, {"write": refuse})
    undo = Undo(stuck, Journal(host.journal_path), "an update")
    choose = partial(restart.choose_warm, stuck, partial(undo.before_change, "a setting"))
    with pytest.raises(ObstacleError, match=r"keeps it so: see its setup, or accept that"):
        choose()
    choose(allow_any=True)


@pytest.mark.parametrize("data", [b"", b"\1", ATTRIBUTES, ATTRIBUTES + b"\1\0"])
def test_a_variable_of_another_size_is_none(tmp_path: Path, data: bytes) -> None:
    put(tmp_path, reboot.OVERWRITE_REQUEST, data)
    assert reboot.read_overwrite_request(LinuxHost(tmp_path)) is None
