"""ptrace(2), for threads of x86-64 Linux: what a tracer of threads needs of it.

Only the thread that traces another one may call these functions for it. Each raises OSError with
the kernel's error, ProcessLookupError above all: the traced thread was killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from collections.abc import Callable

from openrbu.system.libc import LIBC

# linux/ptrace.h
_PEEKTEXT, _CONT, _GETREGS, _SETREGS = 1, 7, 12, 13
_GETEVENTMSG, _GETSIGINFO, _SEIZE, _LISTEN = 0x4201, 0x4202, 0x4206, 0x4208

EVENT_FORK, EVENT_VFORK, EVENT_CLONE, EVENT_EXEC, EVENT_STOP = 1, 2, 3, 4, 128
_OPTIONS = sum(1 << event for event in (EVENT_FORK, EVENT_VFORK, EVENT_CLONE, EVENT_EXEC))

SI_KERNEL = 0x80
"""asm-generic/siginfo.h: the code of a signal for a fault that is not one of memory."""

CS_64_BIT, CS_32_BIT = 0x33, 0x23
"""The code segments of a program on a 64-bit kernel."""

_WORD_BYTES = 8

_function: Callable[[int, int, int, int], int] = LIBC["ptrace"]
_function.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_ulong, ctypes.c_ulong]  # type: ignore[attr-defined]
_function.restype = ctypes.c_long  # type: ignore[attr-defined]


_REGISTERS = [
    "r15",
    "r14",
    "r13",
    "r12",
    "rbp",
    "rbx",
    "r11",
    "r10",
    "r9",
    "r8",
    "rax",
    "rcx",
    "rdx",
    "rsi",
    "rdi",
    "orig_rax",
    "rip",
    "cs",
    "eflags",
    "rsp",
    "ss",
    "fs_base",
    "gs_base",
    "ds",
    "es",
    "fs",
    "gs",
]


class Registers(ctypes.Structure):
    """sys/user.h: struct user_regs_struct."""

    _fields_ = [(name, ctypes.c_uint64) for name in _REGISTERS]
    rax: int
    rdx: int
    rip: int
    cs: int
    eflags: int


def _ptrace(request: int, thread: int, address: int = 0, data: int = 0) -> int:
    ctypes.set_errno(0)
    result = _function(request, thread, address, data)
    if result == -1 and (number := ctypes.get_errno()):
        raise OSError(number, os.strerror(number))
    return result


def seize(thread: int) -> None:
    """Begin to trace a thread, which goes on; what it starts is traced too."""
    _ptrace(_SEIZE, thread, 0, _OPTIONS)


def go_on(thread: int, signum: int = 0) -> None:
    """Have a stopped thread go on, and get a signal (0: none)."""
    _ptrace(_CONT, thread, 0, signum)


def stay_stopped(thread: int) -> None:
    """Leave a thread stopped that job control has stopped, until SIGCONT."""
    _ptrace(_LISTEN, thread)


def event_message(thread: int) -> int:
    """The number that belongs to the event for which a thread has stopped."""
    number = ctypes.c_ulong()
    _ptrace(_GETEVENTMSG, thread, 0, ctypes.addressof(number))
    return number.value


def signal_code(thread: int) -> int:
    """The `si_code` of the signal for which a thread has stopped."""
    information = ctypes.create_string_buffer(128)  # siginfo_t
    _ptrace(_GETSIGINFO, thread, 0, ctypes.addressof(information))
    code: int = struct.unpack_from("3i", information)[2]
    return code


def registers(thread: int) -> Registers:
    """The registers of a stopped thread."""
    found = Registers()
    _ptrace(_GETREGS, thread, 0, ctypes.addressof(found))
    return found


def set_registers(thread: int, values: Registers) -> None:
    """Set the registers of a stopped thread."""
    _ptrace(_SETREGS, thread, 0, ctypes.addressof(values))


def code_at(thread: int, address: int, size_bytes: int) -> bytes:
    """The bytes in a stopped thread's memory from `address` on: `size_bytes`, or less where the
    memory ends before."""
    start = address - address % _WORD_BYTES
    code = b""
    with contextlib.suppress(OSError):  # a word never crosses the end of a page
        for word in range(start, address + size_bytes, _WORD_BYTES):
            code += struct.pack("q", _ptrace(_PEEKTEXT, thread, word))
    return code[address - start :][:size_bytes]
