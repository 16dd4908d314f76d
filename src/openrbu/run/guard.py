"""Keeps a program under `rbu run` from this computer's own firmware, and from restarting it.

The program believes that it runs on the virtual machine. As root it could reach more of this
computer than files:

- `reboot(2)`, `kexec` and kernel modules: the program and all its children lose CAP_SYS_BOOT and
  CAP_SYS_MODULE (capabilities(7): the bounding set).
- Port I/O by `iopl(2)` and `ioperm(2)`, which reaches this computer's CMOS, and signals to process
  1, with which some programs restart a computer: a seccomp filter returns EPERM. The filter knows
  the system calls of x86, because only x86 has ports. On other architectures signals to process 1
  pass.

CAP_SYS_RAWIO stays, because the driver requires it for writing to its firmware `data`.
"""

from __future__ import annotations

import ctypes
import errno
import struct

from openrbu.fuse.capabilities import CAP_SYS_BOOT, CAP_SYS_MODULE, Capabilities
from openrbu.system.libc import call

_PR_SET_SECCOMP = 22  # linux/prctl.h

# linux/seccomp.h, linux/filter.h: BPF_LD|BPF_W|BPF_ABS, BPF_ALU|BPF_AND|BPF_K, …
_SECCOMP_MODE_FILTER = 2
_LOAD, _AND, _JUMP_IF, _RETURN = 0x20, 0x54, 0x15, 0x06
_ALLOW = 0x7FFF0000
_REFUSE = 0x00050000 | errno.EPERM

# struct seccomp_data: the call's number, the architecture, its first argument's low half
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16

# linux/audit.h: AUDIT_ARCH_X86_64, AUDIT_ARCH_I386
_X86_64, _I386 = 0xC000003E, 0x40000003

_X32_BIT = 0x40000000
"""Set in the number of a call of the x32 ABI, whose numbers are those of x86-64 otherwise."""


def guard() -> None:
    """Guard this computer against this process and all programs that it runs. It can't be undone.

    :raise OSError: the kernel's error.
    """
    Capabilities().drop(CAP_SYS_BOOT, CAP_SYS_MODULE)
    # uname(2) is not asked: it shows a personality, which setarch(8) can set.
    _filter(_refusals())


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """A `struct sock_filter`; jumps count the instructions that are skipped."""
    return struct.pack("HBBI", code, if_true, if_false, value)


def _table(kill: int, iopl: int, ioperm: int) -> list[bytes]:
    """The filter's verdict for calls with these numbers, and for all others."""
    return [
        _instruction(_JUMP_IF, iopl, if_true=5),
        _instruction(_JUMP_IF, ioperm, if_true=4),
        _instruction(_JUMP_IF, kill, if_false=2),
        _instruction(_LOAD, _FIRST_ARGUMENT),
        _instruction(_JUMP_IF, 1, if_true=1),
        _instruction(_RETURN, _ALLOW),
        _instruction(_RETURN, _REFUSE),
    ]


def _refusals() -> bytes:
    """The filter, for x86-64 and for the 32-bit calls that such a kernel also has. Calls of other
    architectures pass."""
    wide = _table(kill=62, iopl=172, ioperm=173)
    narrow = _table(kill=37, iopl=110, ioperm=101)
    load_number = [_instruction(_LOAD, _NUMBER), _instruction(_AND, ~_X32_BIT & 0xFFFFFFFF)]
    return b"".join(
        [
            _instruction(_LOAD, _ARCHITECTURE),
            _instruction(_JUMP_IF, _X86_64, if_false=len(load_number + wide)),
            *load_number,
            *wide,
            _instruction(_JUMP_IF, _I386, if_true=1),
            _instruction(_RETURN, _ALLOW),
            *load_number,
            *narrow,
        ]
    )


def _filter(program: bytes) -> None:
    instructions = ctypes.create_string_buffer(program, len(program))
    length = len(program) // 8
    header = struct.pack("HP", length, ctypes.addressof(instructions))  # struct sock_fprog
    call("prctl", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0)
