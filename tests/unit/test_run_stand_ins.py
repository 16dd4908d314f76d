"""The commands that load modules and restart, under `rbu run`: they act on the virtual machine."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from itertools import cycle
from pathlib import Path

import pytest

from openrbu.machine.models import MODELS
from rigs.cli import RBU, Cli, names_in
from rigs.machines import NEWER, PROFILES, image_bytes
from rigs.mounted import needs_fuse
from rigs.needs import program
from rigs.run import USERS, Runner, needs_root, runner
from rigs.update_tools import PAGE_COMMANDS, PAGE_TOOL, page_tool

RELEASE = os.uname().release
MODEL = "precision-t7600"


@pytest.fixture(params=USERS)
def run(request: pytest.FixtureRequest, rbu: Cli, tmp_path: Path) -> Runner:
    return runner(tmp_path / "home", request.param, MODEL)


@pytest.fixture
def run_as_root(rbu: Cli, tmp_path: Path) -> Runner:
    return runner(tmp_path / "home", "root", MODEL)


def after_restart(
    run: Runner, *words: object, then: tuple[str, ...]
) -> subprocess.CompletedProcess[str]:
    options = [word for line in then for word in ("--after-restart", line)]
    *before, mark = run.line()
    command = [*before, *options, mark, *map(str, words)]
    return subprocess.run(command, capture_output=True, check=False, text=True)


def boot_id(run: Runner) -> str:
    return run.says("cat", "/proc/sys/kernel/random/boot_id")


# -- modules ----------------------------------------------------------------------------------


def test_modules_come_and_go_as_with_kmod(run: Runner) -> None:
    """All in one program: what each command says, in order, and its exit status where it fails."""
    said = run(
        "sh",
        "-c",
        """
        exec 2>&1
        modprobe dell-rbu image_type=packet no_such_parameter=1 && modprobe dell_rbu
        cat /sys/devices/platform/dell_rbu/image_type
        /sbin/lsmod
        modprobe --first-time dell_rbu || echo $?
        modprobe -r dell_rbu || echo $?
        rmmod dell_rbu || echo $?
        echo -1 > /sys/class/firmware/dell_rbu/loading
        /usr/sbin/modprobe -r -v dell_rbu
        rmmod dell_rbu || echo $?
        modprobe -a nosuch dcdbas || echo $?
        /sbin/insmod ./dcdbas.ko || echo $?
        rmmod dcdbas; insmod /lib/modules/x/dcdbas.ko.xz; ls -d /sys/module/dcdbas
        modprobe nosuch || echo $?
        modprobe -q nosuch || echo $?
        modprobe -r nosuch || echo $?
        modprobe dell_rbu allocation_floor=x || echo $?
        modprobe || echo $?
        """,
    )
    assert said.stdout.splitlines() == [
        "packet",
        "Module                  Size  Used by",
        "dell_rbu               16384  1",
        "modprobe: ERROR: could not insert 'dell_rbu': Module already in kernel",
        "1",
        "modprobe: FATAL: Module dell_rbu is in use.",
        "1",
        "rmmod: ERROR: Module dell_rbu is in use",
        "1",
        "rmmod dell_rbu",
        "rmmod: ERROR: Module dell_rbu is not currently loaded",
        "1",
        f"modprobe: WARNING: Module nosuch not found in directory /lib/modules/{RELEASE}",
        "1",
        "insmod: ERROR: could not insert module ./dcdbas.ko: File exists",
        "1",
        "/sys/module/dcdbas",
        f"modprobe: FATAL: Module nosuch not found in directory /lib/modules/{RELEASE}",
        "1",
        "1",
        "modprobe: FATAL: Module nosuch not found.",
        "1",
        "modprobe: ERROR: could not insert 'dell_rbu': Invalid argument",
        "1",
        "modprobe: ERROR: missing parameters. See -h.",
        "1",
    ]


def test_dcdbas_is_loaded_on_a_machine_with_tokens_in_cmos_too(rbu: Cli, tmp_path: Path) -> None:
    """As the real kernel does. A call changes nothing there."""
    run = runner(tmp_path / "home", "root", "precision-390")
    driver, call = "/sys/devices/platform/dcdbas", "1IMS" + "x" * 16
    script = f"printf {call} > {driver}/smi_data; echo 1 > {driver}/smi_request"
    said = run.says("sh", "-euc", f"modprobe dcdbas; {script}; head -c 20 {driver}/smi_data")
    assert said == call


def test_modprobes_configuration_counts(run_as_root: Runner) -> None:
    """What is on the command line comes after it."""
    made = "mount -t tmpfs none /run; mkdir /run/modprobe.d"
    line = "options dell-rbu image_type=packet allocation_floor=0x1000000"
    run = run_as_root.privately(f"{made}; echo '{line}' > /run/modprobe.d/rbu.conf")
    show = "cat /sys/devices/platform/dell_rbu/image_type"
    end = "echo -1 > /sys/class/firmware/dell_rbu/loading; rmmod dell_rbu"
    script = f"modprobe dell_rbu; {show}; {end}; modprobe dell_rbu image_type=mono; {show}"
    said = run.says("sh", "-c", script)
    assert said.split() == ["packet", "mono"]


# -- the restart ------------------------------------------------------------------------------

WITH = dict(zip(PROFILES, cycle(("precision-t7600", "precision-390", "poweredge-2650"))))
"""The model for each profile: tokens behind SMI calls, and two with tokens in CMOS, which
smbios-token-ctl sets by port instructions."""


@pytest.mark.parametrize("profile", PROFILES)
def test_a_tool_of_a_few_lines_does_a_whole_update(rbu: Cli, tmp_path: Path, profile: str) -> None:
    model = WITH[profile]
    run = runner(tmp_path / "home", "root", model, profile=profile)
    image = rbu.write("new.hdr", image_bytes(model))
    ended = after_restart(run, *page_tool(image), then=("dmidecode -s bios-version",))
    assert ended.returncode == 0, ended
    assert ended.stdout.splitlines()[-1] == NEWER[model]
    told = " ".join(ended.stderr.split())
    assert f"box restarted BIOS: {MODELS[model].bios_version} → {NEWER[model]}" in told
    assert "0x0000" in told


def test_the_page_works_word_for_word(rbu: Cli) -> None:
    needs_fuse()
    needs_root()
    for name in ("dmidecode", "smbios-token-ctl"):
        program(name, "dmidecode or smbios-utils")
    rbu.write("update.sh", PAGE_TOOL.encode()).chmod(0o755)
    script = f'rbu() {{ {shlex.join(RBU)} "$@"; }}\nset -e\n{PAGE_COMMANDS}'
    ended = subprocess.run(
        ["sh", "-c", script], capture_output=True, check=False, cwd=rbu.directory, text=True
    )
    assert ended.returncode == 0, ended
    assert ended.stdout.splitlines()[-1] == "A06", ended


def test_a_program_that_uses_ports_is_ended_by_a_restart_like_others(run_as_root: Runner) -> None:
    """It is traced, and so are its threads. This one does not end by SIGTERM."""
    script = (
        "import ctypes, os, signal, threading, time\n"
        "print(ctypes.CDLL(None).iopl(3), flush=True)\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "threading.Thread(target=time.sleep, args=(1000,)).start()\n"
        "os.system('reboot')\n"
        "time.sleep(1000)\n"
    )
    ended = run_as_root(sys.executable, "-c", script)
    assert (ended.returncode, ended.stdout.split()) == (0, ["0"]), ended


LEFT_BEHIND = """
(trap '' TERM; sh -c 'echo $PPID' >> $1; exec sleep 1000 > /dev/null 2>&1) &
setsid sh -c 'echo $$ >> $1; exec sleep 1000 > /dev/null 2>&1' sh $1 < /dev/null &
sh -c '(setsid sh -c "echo \\$\\$ >> $1; exec sleep 1000 > /dev/null 2>&1" &)' sh $1
while [ $(wc -l < $1) != 3 ]; do :; done
"""


@pytest.mark.parametrize("how", ["reboot; echo not reached", "shutdown -r +1"])
def test_a_restart_ends_all_processes_of_the_run(run: Runner, how: str) -> None:
    """One that ignores SIGTERM, one in a session of its own, and a daemon."""
    pids = run.directory.parents[1] / "pids"
    pids.write_text("")
    pids.chmod(0o666)
    ended = run("sh", "-c", LEFT_BEHIND + how, "sh", pids)
    left = pids.read_text().split()
    assert (ended.returncode, ended.stdout, len(left)) == (0, "", 3)
    assert not [pid for pid in left if Path("/proc", pid).exists()]


def test_a_program_that_is_asked_to_end_may_use_others_for_that(run: Runner) -> None:
    """Each process that runs when the restart begins gets SIGTERM once. What is started after that
    does not get it."""
    said = run.directory.parents[1] / "said"
    said.write_text("")
    said.chmod(0o666)
    cleaning = 'sh -c "sleep 0.3; echo cleaned" >"$1"; exit'
    ended = run("sh", "-c", f"trap '{cleaning}' TERM; reboot", "sh", said)
    assert (ended.returncode, said.read_text()) == (0, "cleaned\n")


def test_what_restarts_a_linux_restarts_the_machine(run_as_root: Runner) -> None:
    """Each on the machine that the one before has restarted."""
    lines = (
        "/sbin/reboot --force",
        "systemctl --no-block start reboot.target",
        "init 6",
        "shutdown -r +1; echo reached",
    )
    seen = "cat /proc/sys/kernel/random/boot_id"
    ended = after_restart(run_as_root, "reboot", then=tuple(f"{seen}; {line}" for line in lines))
    assert ended.returncode == 0
    assert ended.stderr.count("box restarted\n  BIOS:") == 1 + len(lines)
    *boots, last = ended.stdout.split()
    assert (len(set(boots)), last) == (len(lines), "reached")


@pytest.mark.parametrize("line", ["poweroff", "shutdown -h now"])
def test_what_switches_a_linux_off_switches_the_machine_off(
    rbu: Cli, run_as_root: Runner, line: str
) -> None:
    ended = after_restart(run_as_root, *line.split(), then=("true",))
    assert ended.returncode == 4
    assert ended.stderr == (
        "box is off\nrbu: the program switched the machine off: nothing can run after the restart\n"
    )
    shown = rbu.json("machine", "show", "box")
    assert (shown["is_on"], shown["lost_power"]) == (False, False)


def test_kexec_starts_another_kernel_without_the_bios(run_as_root: Runner) -> None:
    line = "kexec -e || echo $?; kexec -l /boot/vmlinuz --reuse-cmdline; kexec -e; echo not reached"
    ended = after_restart(
        run_as_root, "sh", "-c", line, then=("cat /proc/sys/kernel/bootloader_type",)
    )
    assert ended.returncode == 0
    assert ended.stdout.split() == ["1", str(0xD << 4)]  # what kexec writes
    assert ended.stderr == (
        "Nothing has been loaded!\nbox runs another kernel; the BIOS did not run\n"
    )


def test_a_kernel_stays_loaded_for_the_next_program(run_as_root: Runner) -> None:
    loaded = "cat /sys/kernel/kexec_loaded"
    assert run_as_root.says("sh", "-c", f"{loaded}; kexec -l vmlinuz; {loaded}") == "0\n1\n"
    assert run_as_root.says("sh", "-c", f"{loaded}; kexec -u; {loaded}") == "1\n0\n"


def test_the_exit_status_is_the_tools_own_where_it_has_one(run_as_root: Runner) -> None:
    as_of_sigterm = "trap 'exit 143' TERM; reboot & wait; sleep 1000"
    assert run_as_root("sh", "-c", as_of_sigterm).returncode == 0
    handled = ("sh", "-c", "trap 'exit 7' TERM; reboot & wait; sleep 1000")
    assert after_restart(run_as_root, *handled, then=("exit 3",)).returncode == 7
    assert after_restart(run_as_root, "reboot", then=("true", "exit 3", "exit 4")).returncode == 3
    failed = after_restart(run_as_root, "sh", "-c", "exit 5", then=("true",))
    assert (failed.returncode, failed.stderr) == (
        5,
        "rbu: the program did not restart the machine: nothing can run after the restart\n",
    )


def test_what_only_root_may_is_refused_to_others(run_as_root: Runner) -> None:
    drop = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    for line, told in {
        "reboot": "reboot: must be superuser.\n",
        "modprobe dell_rbu": "modprobe: ERROR: could not insert 'dell_rbu': "
        "Operation not permitted\n",
    }.items():
        ended = run_as_root(*drop, "sh", "-c", line)
        assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", told)


def test_other_uses_of_systemctl_are_told_whose_it_is(run_as_root: Runner) -> None:
    ended = run_as_root("systemctl", "status", "fwupd")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("systemctl: the virtual machine box runs no systemd")
    assert ended.stderr.count("\n") == 1


def test_openrbu_itself_restarts_the_machine(rbu: Cli, run_as_root: Runner) -> None:
    image = rbu.write("new.hdr", image_bytes(MODEL))
    tool = f"modprobe dcdbas; {shlex.join(RBU)} update {image} --reboot"
    ended = after_restart(run_as_root, "sh", "-c", tool, then=("dmidecode -s bios-version",))
    assert (ended.returncode, ended.stdout.split()[-1]) == (0, NEWER[MODEL]), ended


# -- where the stand-ins are ------------------------------------------------------------------


def test_they_are_at_all_places_where_programs_look(run: Runner) -> None:
    """Whether the real command is there or not, and whether it is a link or not."""
    places = ("/sbin/modprobe", "/usr/sbin/modprobe", "/usr/sbin/kexec", "/bin/systemctl")
    first_lines = 'for file; do head -n1 "$file"; done; ls /usr/sbin'
    said = run.says("sh", "-c", first_lines, "sh", *places).splitlines()
    assert said[: len(places)] == ["#!/bin/sh"] * len(places)
    assert set(said[len(places) :]) == set(names_in(Path("/usr/sbin"))) | {
        "halt", "init", "insmod", "kexec", "lsmod", "modprobe", "poweroff", "reboot", "rmmod",
        "shutdown", "telinit",
    }  # fmt: skip


def test_where_a_directory_has_mounts_they_stay(run_as_root: Runner) -> None:
    """A container may have one there; an overlay does not show it."""
    run = run_as_root.privately("mount --bind /bin/echo /usr/sbin/dmidecode")
    assert run.says("/usr/sbin/dmidecode", "x") == "x\n"
    assert run.says("sh", "-c", "lsmod | wc -l; ls /usr/sbin | wc -l").split()[0] == "1"


def test_roots_commands_are_found_with_the_path_of_a_plain_user(run: Runner) -> None:
    env = {**os.environ, "PATH": "/usr/local/bin:/usr/bin:/bin"}
    assert run("dmidecode", "-s", "bios-version", env=env).stdout
    said = run("sh", "-c", "command -v lsmod modprobe; echo $PATH", env=env).stdout.split()
    assert said[-1] == "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
