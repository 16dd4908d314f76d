"""What keeps a program away from this computer's firmware and power."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
import subprocess
from collections.abc import Callable

import pytest

from openrbu.run.guard import guard
from rigs.machines import in_child
from rigs.needs import leave_out
from rigs.run import needs_root, needs_x86_64

PER_LINUX32 = 8  # linux/personality.h

# Numbers of system calls: asm/unistd_64.h
REBOOT, IOPL, IOPERM = 169, 172, 173
X32 = 0x40000000


def answer(name: str, *arguments: object) -> str:
    """The errno that a function of the C library ends with."""
    libc = ctypes.CDLL(None, use_errno=True)
    ctypes.set_errno(0)
    ended = getattr(libc, name)(*(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments))
    return errno.errorcode[ctypes.get_errno()] if ended == -1 else "done"


def guarded(work: Callable[[], None]) -> None:
    """Do it in a guarded process."""
    needs_root()

    def child() -> None:
        guard()
        work()

    assert in_child(child) == 0


@pytest.fixture
def x86_64() -> None:
    needs_x86_64()


def test_reboot_is_refused() -> None:
    """With wrong magic numbers, so that nothing happens whatever the answer: reboot(2) looks at the
    capability first."""
    before = answer("syscall", REBOOT, 0, 0, 0, None)
    assert before == ("EPERM" if os.geteuid() else "EINVAL")

    def work() -> None:
        assert answer("syscall", REBOOT, 0, 0, 0, None) == "EPERM"

    guarded(work)


def test_the_capabilities_are_out_of_reach_of_what_is_executed() -> None:
    """Those that are inheritable, too: the bounding set does not hold them back."""
    taken = 1 << 16 | 1 << 22  # linux/capability.h: CAP_SYS_MODULE, CAP_SYS_BOOT

    def sets() -> dict[str, int]:
        """Of a program that is executed now."""
        shown = subprocess.check_output(["cat", "/proc/self/status"], text=True)
        lines = [line.split() for line in shown.splitlines() if line.startswith("Cap")]
        return {name: int(value, 16) for name, value in lines}

    def child() -> None:
        header = struct.pack("Ii", 0x20080522, 0)
        words = (ctypes.c_uint32 * 6)()
        assert answer("capget", header, words) == "done"
        words[2] |= taken
        assert answer("capset", header, words) == "done"
        assert [each & taken for each in sets().values()] == [taken] * 4 + [0]  # none is ambient
        guard()
        after = sets()
        assert [each & taken for each in after.values()] == [0] * 5
        assert after["CapEff:"] & 1 << 17  # CAP_SYS_RAWIO, which the driver asks for

    needs_root()
    assert in_child(child) == 0


@pytest.mark.usefixtures("x86_64")
def test_port_io_is_refused() -> None:
    def work() -> None:
        assert answer("iopl", 0) == "EPERM"
        assert answer("ioperm", 0x70, 2, 1) == "EPERM"
        for number in (IOPL, IOPERM):
            assert answer("syscall", number | X32, 0, 0, 0) == "EPERM"

    assert answer("iopl", 0) in ("done", "ENOSYS")  # no level asked for: no privilege is needed
    guarded(work)


@pytest.mark.usefixtures("x86_64")
def test_port_io_is_refused_whatever_the_personality() -> None:
    """What `setarch i686` sets: uname(2) shows a 32-bit computer then."""

    def child() -> None:
        assert answer("personality", PER_LINUX32) == "done"
        assert os.uname().machine != "x86_64"
        guard()
        assert answer("iopl", 0) == "EPERM"
        with pytest.raises(PermissionError):
            os.kill(1, 0)

    needs_root()
    assert in_child(child) == 0


@pytest.mark.usefixtures("x86_64")
def test_port_io_is_refused_to_32_bit_calls() -> None:
    """By machine code that calls as a 32-bit program does (`int 0x80`)."""
    code = bytes.fromhex("53 89f8 89f3 cd80 5b c3".replace(" ", ""))
    # push rbx; mov eax, edi; mov ebx, esi; int 0x80; pop rbx; ret

    def call_32(number: int, argument: int) -> int:
        import mmap

        with mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as page:
            page.write(code)
            address = ctypes.addressof(ctypes.c_char.from_buffer(page))
            kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int)
            result = kind(address)(number, argument)
            os.write(1, struct.pack("i", result))
            os._exit(0)

    def try_it(number: int, *, guarded_first: bool) -> int | None:
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            os.dup2(writing, 1)
            if guarded_first:
                guard()
            call_32(number, 0)
        os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            said = pipe.read()
        os.waitpid(child, 0)
        return struct.unpack("i", said)[0] if said else None

    needs_root()
    getpid, iopl, ioperm = 20, 110, 101  # asm/unistd_32.h
    if (try_it(getpid, guarded_first=False) or -1) < 0:
        leave_out("this kernel takes no 32-bit calls")
    assert (try_it(getpid, guarded_first=True) or -1) > 0
    assert try_it(iopl, guarded_first=False) != -errno.EPERM
    assert try_it(iopl, guarded_first=True) == -errno.EPERM
    assert try_it(ioperm, guarded_first=True) == -errno.EPERM


@pytest.mark.usefixtures("x86_64")
def test_process_1_and_all_at_once_get_no_signals_and_others_do() -> None:
    def work() -> None:
        for none in (1, -1):
            with pytest.raises(PermissionError):
                os.kill(none, 0)
        os.kill(0, 0)  # a group
        other = subprocess.Popen(["sleep", "60"])
        os.kill(other.pid, signal.SIGTERM)
        assert other.wait() == -signal.SIGTERM

    os.kill(1, 0) if not os.geteuid() else None
    guarded(work)
