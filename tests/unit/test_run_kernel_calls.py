"""Programs under `rbu run` that restart and load modules by system calls."""

from __future__ import annotations

from pathlib import Path

import pytest

from rigs.cli import Cli
from rigs.needs import leave_out
from rigs.run import USERS, Runner, runner

PYTHON = "/usr/bin/python3"
"""A plain user may not get at that of the tests."""

HEAD = """
import ctypes, errno, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *arguments):
    done = libc.syscall(number, *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
    print("done" if done != -1 else errno.errorcode[ctypes.get_errno()], flush=True)
INIT_MODULE, DELETE_MODULE, FINIT_MODULE, REBOOT = 175, 176, 313, 169  # asm/unistd_64.h
MAGIC, MAGIC2 = 0xFEE1DEAD, 0x28121969
RESTART, POWER_OFF, KEXEC, CAD_OFF = 0x01234567, 0x4321FEDC, 0x45584543, 0
"""

MODULES = """
image = b"ELF\\0license=GPL\\0name=dell_rbu\\0vermagic=6\\0"
call(INIT_MODULE, image, len(image), b"allocation_floor=high")
call(INIT_MODULE, image, len(image), b"image_type=packet not_a_parameter=1")
print(open("/sys/devices/platform/dell_rbu/image_type").read().strip(), flush=True)
call(INIT_MODULE, image, len(image), b"")
call(DELETE_MODULE, b"dell_rbu", 0)
open("/sys/class/firmware/dell_rbu/loading", "w").write("-1")
call(DELETE_MODULE, b"dell_rbu", 0)
call(DELETE_MODULE, b"dell_rbu", 0)
with open(sys.argv[1] + "/dcdbas.ko", "wb") as file:
    call(FINIT_MODULE, file.fileno(), b"", 0)
call(FINIT_MODULE, 999, b"", 0)
call(INIT_MODULE, b"\\0" * 64, 64, b"")
call(INIT_MODULE, b"\\0name=nvidia\\0", 13, b"")
call(INIT_MODULE, 4096, 64, b"")
print(*sorted(set(os.listdir("/sys/module")) & {"dell_rbu", "dcdbas"}))
"""

REFUSED = """
call(REBOOT, MAGIC, 1, RESTART, None)
call(REBOOT, MAGIC, MAGIC2, 1234, None)
call(REBOOT, MAGIC, MAGIC2, KEXEC, None)
call(REBOOT, MAGIC, MAGIC2, CAD_OFF, None)
if os.geteuid() == 0 and sys.argv[1:] == ["drop"]:
    os.setuid(65534)
    call(REBOOT, MAGIC, MAGIC2, RESTART, None)
    call(DELETE_MODULE, b"dell_rbu", 0)
"""

RESTART = 'call(REBOOT, MAGIC, MAGIC2, RESTART, None); print("not reached", flush=True)'


@pytest.fixture(params=USERS)
def run(request: pytest.FixtureRequest, rbu: Cli, tmp_path: Path) -> Runner:
    if not Path(PYTHON).exists():
        leave_out(f"there is no {PYTHON}")
    return runner(tmp_path / "home", request.param)


def test_modules_are_those_of_the_machine(run: Runner) -> None:
    said = run.says(PYTHON, "-c", HEAD + MODULES, run.directory.parents[1])
    assert said.split() == [
        "EINVAL", "done", "packet", "EEXIST", "EBUSY", "done", "ENOENT", "done", "EBADF", "ENOEXEC",
        "ENOEXEC", "EFAULT", "dcdbas",
    ]  # fmt: skip


def test_reboot_restarts_the_machine_and_does_not_return(run: Runner) -> None:
    script = f"{PYTHON} -c '{HEAD}{RESTART}'; echo not reached"
    ended = run("sh", "-c", script)
    assert (ended.returncode, ended.stdout) == (0, "")
    assert ended.stderr.startswith("box restarted\n")


def test_reboot_switches_it_off(rbu: Cli, run: Runner) -> None:
    ended = run(PYTHON, "-c", HEAD + RESTART.replace("RESTART", "POWER_OFF"))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "box is off\n")


def test_other_calls_of_reboot_are_as_with_linux(run: Runner) -> None:
    said = run.says(PYTHON, "-c", HEAD + REFUSED).split()
    assert said == ["EINVAL", "EINVAL", "EINVAL", "done"]


def test_only_root_may(rbu: Cli, tmp_path: Path) -> None:
    if not Path(PYTHON).exists():
        leave_out(f"there is no {PYTHON}")
    run = runner(tmp_path / "home", "root")
    assert run.says(PYTHON, "-c", HEAD + REFUSED, "drop").split()[-2:] == ["EPERM", "EPERM"]
