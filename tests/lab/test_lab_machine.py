"""A lab machine that goes wrong says so, soon, and leaves nothing behind; what keeps, keeps."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from openrbu.cmos import read_first_bank
from openrbu.dumps.opening import open_dump
from openrbu.errors import ObstacleError, UsageError
from openrbu.lab.calls import Read, Result, Write
from openrbu.memory.physical import pc_regions
from openrbu.system.descriptors import readable
from openrbu.system.processes import process_ids
from openrbu.units import GIB, MIB, PhysAddr
from rigs.lab import Lab
from rigs.served import send

if TYPE_CHECKING:
    from openrbu.lab.machine import LabMachine

pytestmark = pytest.mark.lab

PORT = "/dev/port"
SPARE_CMOS = b"\x7e"
"""An index that neither a BIOS nor a kernel uses."""


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where machines have their directories."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    monkeypatch.setenv("TMPDIR", str(directory))
    return directory


@pytest.fixture
def own_lab(lab: Lab, temporary: Path) -> Iterator[Lab]:
    """The lab. After a test no QEMU, descriptor or file of its machines may be left."""
    before = descriptors()
    yield lab
    assert not qemus(temporary)
    assert list(temporary.iterdir()) == []
    assert descriptors() == before


def descriptors() -> list[str]:
    """What this process has open, but for the directory that is looked at. Garbage is collected
    before: a mapping of a RAM file has a descriptor of its own, and stays as long as a view of it
    does, also one that only a traceback in a circle of references has. When that goes is chance."""
    gc.collect()
    found = []
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(path.readlink()))
    return sorted(re.sub(r"\d+", "N", text) for text in found if "/proc/" not in text)


def qemus(temporary: Path) -> list[int]:
    """The QEMUs of machines that have their directories there."""
    found = []
    for pid in process_ids():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"qemu-system" in words and os.fsencode(temporary) in words:
                found.append(pid)
    return found


def qemu_of(machine: LabMachine) -> int:
    (pid,) = qemus(machine.directory)
    return pid


# -- a start that fails ---------------------------------------------------------------------


def test_a_qemu_that_refuses_its_arguments_is_told_in_its_words(own_lab: Lab) -> None:
    from openrbu.lab.qemu import QemuError

    with (
        replace(own_lab, accelerator="steam").machine() as machine,
        pytest.raises(QemuError, match=r"^QEMU failed: .*invalid accelerator steam"),
    ):
        machine.power_on()


def test_without_qemu_a_machine_can_not_start(
    own_lab: Lab, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with (
        own_lab.machine() as machine,
        pytest.raises(ObstacleError, match="qemu-system-x86_64 is not installed; rbu lab check"),
    ):
        machine.power_on()


def test_a_kernel_without_its_initramfs_is_a_lost_guest(own_lab: Lab, tmp_path: Path) -> None:
    from openrbu.lab.guest import GuestLostError

    nothing = tmp_path / "initramfs"
    nothing.write_bytes(b"nothing that a kernel could unpack")
    with (
        replace(
            own_lab, software=replace(own_lab.software, initramfs=nothing)
        ).machine() as machine,
        pytest.raises(GuestLostError, match="its kernel panicked: Kernel panic") as lost,
    ):
        machine.power_on()
    assert "Unable to mount root" in lost.value.console


def test_an_agent_that_does_not_start_is_a_lost_guest(
    own_lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    from openrbu.lab.guest import GuestLostError

    monkeypatch.setattr(sys, "executable", "/bin/false")
    with (
        own_lab.machine() as machine,
        pytest.raises(GuestLostError, match="Attempted to kill init"),
    ):
        machine.power_on()


def test_a_machine_that_qemu_can_not_be_leaves_nothing(own_lab: Lab) -> None:
    """What is refused, and why: test_lab_sizes.py."""
    with pytest.raises(UsageError, match="has 256 MiB to 16 GiB of RAM"):
        own_lab.machine(ram_bytes=17 * GIB)


# -- memory above 4 GiB, processors, the kernel's command line ------------------------------


MARK = b"a page above 4 GiB"

MARKER = """\
import ctypes, mmap, os, signal
memory = mmap.mmap(-1, 8 << 20, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for at in range(0, len(memory), 4096):
    memory[at : at + %(size)d] = %(mark)r
first = ctypes.addressof(ctypes.c_char.from_buffer(memory)) >> 12
with open("/proc/self/pagemap", "rb") as file:
    file.seek(8 * first)
    entries = memoryview(file.read(8 * (len(memory) >> 12))).cast("Q")
frames = [entry & (1 << 55) - 1 for entry in entries]
print(hex(max(frames) << 12), flush=True)
if os.fork():
    os._exit(0)
for each in range(3):
    os.close(each)
signal.pause()
"""
"""Tells where a page with the mark is, and holds it."""


def test_memory_above_4_gib_is_where_the_guest_has_it_now_and_in_the_file_that_stays(
    own_lab: Lab, tmp_path: Path
) -> None:
    """It has two processors, too, and further words on its kernel's command line."""
    kept = tmp_path / "ram"
    size = 3 * GIB + 512 * MIB
    with own_lab.machine(
        ram_bytes=size, cpus=2, kernel_words="reboot=warm", ram_file=kept
    ) as machine:
        machine.power_on()
        said = bytearray()
        program = MARKER % {"size": len(MARK), "mark": MARK}
        script = 'nproc; cat /sys/kernel/reboot/mode; exec "$0" -c "$1"'
        words = ["sh", "-euc", script, sys.executable, program]
        ran = machine.run(words, output=lambda stream, data: said.extend(data))
        assert ran.status == 0, said
        cpus, mode, text = said.decode().split()
        address = PhysAddr(int(text, 0))
        assert (cpus, mode) == ("2", "warm")
        assert 4 * GIB <= address < size + GIB
        assert machine.ram.regions == pc_regions(size)
        assert machine.ram.read(address, len(MARK)) == MARK
    assert kept.stat().st_size == size + GIB
    with open_dump(kept) as dump:
        assert dump.read(address, len(MARK)) == MARK
        assert not list(dump.populated(PhysAddr(3 * GIB), PhysAddr(4 * GIB)))


# -- a machine that is lost while it is up --------------------------------------------------


def end(machine: LabMachine) -> None:
    os.kill(qemu_of(machine), signal.SIGTERM)
    machine.guest.calls([Read("/proc/version")])


def stop(machine: LabMachine) -> None:
    os.kill(qemu_of(machine), signal.SIGSTOP)
    machine.guest.run(["true"], env={}, limit_s=0.5)


def fail(machine: LabMachine) -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("how", "words"),
    [(end, "QEMU ended"), (stop, "it does not reply"), (fail, None)],
    ids=["ended", "stopped", "an exception"],
)
def test_a_machine_that_ends_in_the_middle_is_told_and_leaves_nothing(
    own_lab: Lab, how: Callable[[LabMachine], None], words: str | None
) -> None:
    from openrbu.lab.guest import GuestLostError

    def begin() -> None:
        with own_lab.machine() as machine:
            machine.power_on()
            how(machine)

    with pytest.raises(ZeroDivisionError if words is None else GuestLostError, match=words):
        begin()


# -- what keeps -----------------------------------------------------------------------------


CLOCK = "/sys/class/rtc/rtc0/time"


def cmos_of(machine: LabMachine) -> bytes:
    """What its CMOS has besides the clock."""
    return bytes(read_first_bank(machine.cmos, index) for index in range(0x0E, 0x80))


def test_cmos_outlasts_a_restart_and_a_power_cut(own_lab: Lab) -> None:
    """What becomes of RAM is in test_updates.py."""
    from openrbu.lab.machine import ProgramResult

    select_it = Write(PORT, SPARE_CMOS, 0x70)
    with own_lab.machine() as machine:
        machine.power_on()
        machine.guest.calls([select_it, Write(PORT, b"\xa5", 0x71)])
        assert machine.run(["reboot"]).post is not None
        assert machine.guest.calls([select_it, Read(PORT, 0x71, 1)])[1] == Result(b"\xa5")
        kept = cmos_of(machine)
        machine.run(["sh", "-c", f"while :; do cat {CLOCK}; done >/dev/null 2>&1 &"])
        machine.cut_power()  # while the guest is at the same ports
        assert not machine.is_on
        assert cmos_of(machine) == kept
        machine.power_on()
        assert machine.guest.calls([select_it, Read(PORT, 0x71, 1)])[1] == Result(b"\xa5")
        assert machine.run(["halt"]) == ProgramResult(None)
        assert not machine.is_on


# -- signals --------------------------------------------------------------------------------

OWNER = """
import sys
from openrbu.system.interrupts import TerminatedBySignal, signals_raised
from openrbu.errors import OpenRbuError
from rigs.lab import find_lab

def say(text):
    print(text, flush=True)

lab = find_lab()
with signals_raised():
    try:
        say("begun")
        with lab.machine() as machine:
            say("made")
            machine.power_on()
            machine.run(["sh", "-c", "echo up; exec sleep 3600"],
                        output=lambda stream, data: say(data.decode().strip()))
    except TerminatedBySignal as stop:
        sys.exit(stop.exit_code)
"""


@contextlib.contextmanager
def owner(temporary: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has a machine."""
    tests = str(Path(__file__).parent.parent)
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER],
        env={**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": tests},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == word:
            return
    raise AssertionError(f"{word} was not said")


def wait_for_qemu(process: subprocess.Popen[str], temporary: Path) -> int:
    while not (found := qemus(temporary)):
        assert process.poll() is None
    return found[0]


@pytest.mark.parametrize(
    ("number", "phase"),
    [
        (signal.SIGINT, "begun"),
        (signal.SIGTERM, "made"),
        (signal.SIGTERM, "qemu"),
        (signal.SIGINT, "up"),
    ],
)
def test_a_signal_ends_the_machine_with_its_owner(
    own_lab: Lab, temporary: Path, number: signal.Signals, phase: str
) -> None:
    with owner(temporary) as process:
        if phase == "qemu":
            wait_for_qemu(process, temporary)
        else:
            wait_for(process, phase)
        send(process, number)
        assert process.wait(60) == 128 + number


def test_qemu_ends_with_an_owner_that_is_killed_and_the_next_one_clears_up(
    own_lab: Lab, temporary: Path
) -> None:
    with owner(temporary) as process:
        qemu = os.pidfd_open(wait_for_qemu(process, temporary))
        try:
            wait_for(process, "made")
            process.kill()
            process.wait()
            assert readable([qemu], 60), "QEMU has ended"
        finally:
            os.close(qemu)
    assert len(list(temporary.iterdir())) == 1
    with own_lab.machine() as machine:
        assert list(temporary.iterdir()) == [machine.directory]
