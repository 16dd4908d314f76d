"""What a program under `rbu run` tries on this computer, as root and as a plain user, in vain.

Nothing here would change this computer if it worked: a file is only asked whether it could be
written, gets the value that it has, or is one that the machine's lies over; and the system calls
have arguments that Linux refuses after it has checked who may call.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs.cli import Cli
from rigs.needs import leave_out
from rigs.run import USERS, Runner, runner

WRITABLE = "find {} -type f -writable -exec stat -c '%d %n' {{}} + 2>/dev/null; true"

REACHES = """
import ctypes, errno, json, os, stat, sys

libc = ctypes.CDLL(None, use_errno=True)

def answer(work):
    try:
        work()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"

def call(name, *arguments):
    function = getattr(libc, name)
    function.restype = ctypes.c_long
    if function(*(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)) == -1:
        raise OSError(ctypes.get_errno(), name)

def write_again(path):
    if not os.path.exists(path):
        raise OSError(errno.ENOSYS, path)
    with open(path) as file:
        value = file.read()
    with open(path, "w") as file:
        file.write(value)

def node(number):
    path = sys.argv[1] + "/node"
    os.mknod(path, stat.S_IFCHR | 0o600, number)
    os.unlink(path)

KEXEC_LOAD, KEXEC_FILE_LOAD = 246, 320  # asm/unistd_64.h
print(json.dumps({
    "kexec": answer(lambda: call("syscall", KEXEC_LOAD, 0, 1 << 20, None, 0)),
    "kexec from a file": answer(lambda: call("syscall", KEXEC_FILE_LOAD, -1, -1, 0, None, 1 << 20)),
    "memory by a node": answer(lambda: node(os.makedev(1, 1))),
    "ports by a node": answer(lambda: node(os.makedev(1, 4))),
    "CMOS by a node": answer(lambda: node(os.makedev(10, 144))),
    "a sysctl": answer(lambda: write_again("/proc/sys/vm/swappiness")),
    "what loads modules": answer(lambda: write_again("/proc/sys/kernel/modprobe")),
    "a setting of memory": answer(
        lambda: write_again("/sys/kernel/mm/transparent_hugepage/khugepaged/pages_to_scan")
    ),
    "process 1": answer(lambda: os.kill(1, 0)),
}))
"""
"""Says what each attempt ended with."""

OUTSIDE = """
import ctypes, errno, json, os, subprocess, sys

libc = ctypes.CDLL(None, use_errno=True)
PTRACE_SEIZE, PTRACE_DETACH, CLONE_NEWNS = 0x4206, 17, 0x20000  # linux/ptrace.h, linux/sched.h

def answer(work):
    try:
        work()
    except OSError as error:
        return errno.errorcode[error.errno]
    return "done"

def call(name, *arguments):
    if getattr(libc, name)(*map(ctypes.c_long, arguments)) == -1:
        raise OSError(ctypes.get_errno(), name)

def reaches(process):
    return {
        "its namespace": answer(lambda: call("setns", os.pidfd_open(process), CLONE_NEWNS)),
        "a file of its namespace": answer(lambda: open(f"/proc/{process}/ns/mnt").close()),
        "its memory": answer(lambda: open(f"/proc/{process}/mem", "r+b").close()),
        "its root": answer(lambda: os.listdir(f"/proc/{process}/root/")),
        "tracing": answer(lambda: call("ptrace", PTRACE_SEIZE, process, 0, 0)),
    }

own = subprocess.Popen(["sleep", "60"])
found = [reaches(process) for process in (int(sys.argv[1]), own.pid)]
own.kill()
print(json.dumps(found))
"""
"""Says what it can do with a process outside, and with a child of its own."""

CAPABILITIES = "sed -n 's/^CapBnd:.//p; s/^CapEff:.//p' /proc/self/status"
# linux/capability.h
MODULE, PTRACE, BOOT, TIME, MKNOD = 1 << 16, 1 << 19, 1 << 22, 1 << 25, 1 << 27

SETTINGS = (
    "/proc/sys/vm/nr_hugepages",
    "/proc/sys/vm/swappiness",
    "/proc/sys/kernel/random/boot_id",
    "/proc/sys/kernel/modprobe",
    "/sys/kernel/reboot/mode",
    "/sys/kernel/reboot/type",
    "/sys/kernel/kexec_loaded",
    "/sys/module/firmware_class/parameters/path",
)
"""Of this computer, where it has them."""


@pytest.fixture(params=USERS)
def run(request: pytest.FixtureRequest, rbu: Cli, tmp_path: Path) -> Runner:
    return runner(tmp_path / "home", request.param)


def settings() -> dict[str, str]:
    return {path: Path(path).read_text() for path in SETTINGS if Path(path).exists()}


def test_every_file_of_the_kernel_that_can_be_written_is_the_machines(run: Runner) -> None:
    """Such as the space of PCI devices, the processors, the parameters of modules, sysctls."""
    directories = "/sys /proc/sys /proc/bus /proc/irq /proc/fs /proc/acpi /proc/scsi"
    # The devices of a namespace are numbered anew, so both are asked for in one.
    script = f"stat -c %d /sys/kernel/reboot/mode; {WRITABLE.format(directories)}"
    device, *found = run.says("sh", "-c", script).splitlines()
    files = dict(line.split(" ", 1)[::-1] for line in found)
    assert "/sys/kernel/reboot/mode" in files
    assert [path for path, on in files.items() if on != device] == []


def test_no_system_call_and_no_node_reaches_it(run: Runner) -> None:
    python = "/usr/bin/python3"  # a plain user may not get at that of the tests
    if not Path(python).exists():
        leave_out(f"there is no {python}")
    said = json.loads(run.says(python, "-c", REACHES, run.directory.parents[1]))
    refused = ("EPERM", "EROFS", "EACCES", "ENOSYS")  # a kernel may have no kexec
    assert {name: errno for name, errno in said.items() if errno not in refused} == {}


def test_what_is_set_inside_is_not_set_outside(run: Runner) -> None:
    before = settings()
    run(
        "sh",
        "-c",
        """
        echo 3 > /proc/sys/vm/nr_hugepages
        echo 1 > /proc/sys/vm/compact_memory
        echo warm > /sys/kernel/reboot/mode
        echo /run/x > /sys/module/firmware_class/parameters/path
        modprobe -a dell_rbu dcdbas
        kexec -l /boot/vmlinuz
        reboot
        """,
    )
    assert settings() == before
    assert not Path("/sys/module/dell_rbu").exists()


def test_the_capabilities_for_that_are_taken(run: Runner) -> None:
    for line in run.says("sh", "-c", CAPABILITIES).split():
        assert int(line, 16) & (MODULE | PTRACE | BOOT | TIME | MKNOD) == 0


@pytest.fixture
def outside() -> Iterator[int]:
    """A process in a mount namespace of its own."""
    line = ["unshare", "--mount", "sh", "-c", "echo; exec sleep 60"]
    if os.geteuid():
        line[1:1] = ["--user", "--map-root-user"]
    with subprocess.Popen(line, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it has that namespace
        yield process.pid
        process.send_signal(signal.SIGKILL)


def test_no_process_outside_is_a_way_out(run: Runner, outside: int) -> None:
    """But its own processes can be traced, as by gdb."""
    python = "/usr/bin/python3"
    if not Path(python).exists():
        leave_out(f"there is no {python}")
    of_outside, of_own = json.loads(run.says(python, "-c", OUTSIDE, outside))
    assert set(of_outside.values()) <= {"EPERM", "EACCES"}, of_outside
    assert of_own.pop("its namespace") == "EPERM"  # whosever it is
    assert set(of_own.values()) == {"done"}, of_own
