"""A seccomp filter: which system calls of a program are refused, and of which we are told.

`install` makes the filter from a table of `Rule`s. A call that is refused returns EPERM. With
`listening` a call with the verdict `NOTIFY` waits until whoever has the filter's listener answers
it (`openrbu.run.notifications`); the kernel does not execute it. Without, it is refused.

The filter knows the calls of x86, because only x86 has ports. On other architectures all calls
pass. Sources: seccomp(2), seccomp_unotify(2), Documentation/userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum

from openrbu.system.libc import call

_PR_SET_SECCOMP = 22  # linux/prctl.h
_SECCOMP = 317  # asm/unistd_64.h

# linux/seccomp.h, linux/filter.h: BPF_LD|BPF_W|BPF_ABS, BPF_ALU|BPF_AND|BPF_K,
# BPF_JMP|BPF_JA (which skips as many as it likes), …
_SECCOMP_MODE_FILTER = 2
_SET_MODE_FILTER, _NEW_LISTENER, _WAIT_KILLABLE = 1, 1 << 3, 1 << 5
_LOAD, _AND, _JUMP, _JUMP_IF, _RETURN = 0x20, 0x54, 0x05, 0x15, 0x06
_ALLOW = 0x7FFF0000
_USER_NOTIFICATION = 0x7FC00000
_REFUSE = 0x00050000 | errno.EPERM

# struct seccomp_data: the call's number, the architecture, its first argument's low half
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16

# linux/audit.h: AUDIT_ARCH_X86_64, AUDIT_ARCH_I386
X86_64, I386 = 0xC000003E, 0x40000003

X32_BIT = 0x40000000
"""Set in the number of a call of the x32 ABI, whose numbers are those of x86-64 otherwise."""

NUMBERS: Mapping[int, Mapping[str, int]] = {  # asm/unistd_64.h, asm/unistd_32.h
    X86_64: {
        "delete_module": 176,
        "finit_module": 313,
        "init_module": 175,
        "ioperm": 173,
        "iopl": 172,
        "kill": 62,
        "reboot": 169,
        "setns": 308,
        "syslog": 103,
    },
    I386: {
        "delete_module": 129,
        "finit_module": 350,
        "init_module": 128,
        "ioperm": 101,
        "iopl": 110,
        "kill": 37,
        "reboot": 88,
        "setns": 346,
        "syslog": 103,
    },
}
"""The number of each call that a rule may name, by architecture."""


class Verdict(Enum):
    """What becomes of a call."""

    REFUSE = "EPERM"
    NOTIFY = "the listener answers it"


@dataclass(frozen=True, slots=True)
class Rule:
    """The verdict for a call (a key of `NUMBERS`): whatever its arguments, or with one of these
    `first_arguments` (their low 32 bits) only."""

    call: str
    verdict: Verdict
    first_arguments: tuple[int, ...] = ()


def install(rules: Iterable[Rule], *, listening: bool = False) -> int:
    """Filter the calls of this process and of all its children from now on. It can't be undone.

    Returns the listener's descriptor with `listening`, else 0. Where a filter of this process has a
    listener already, the kernel gives no other one (EBUSY).

    :raise OSError: the kernel's error; nothing is filtered then.
    """
    program = program_of(rules, listening=listening)
    instructions = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HP", len(program) // 8, ctypes.addressof(instructions))  # sock_fprog
    if not listening:
        return call("prctl", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0)
    if struct.calcsize("P") != struct.calcsize("Q"):  # the call has another number there
        raise OSError(errno.ENOSYS, "not from a 32-bit Python")
    try:  # so that a signal does not have a call that is being answered begin again: Linux 5.19
        return call("syscall", _SECCOMP, _SET_MODE_FILTER, _NEW_LISTENER | _WAIT_KILLABLE, header)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return call("syscall", _SECCOMP, _SET_MODE_FILTER, _NEW_LISTENER, header)


def program_of(rules: Iterable[Rule], *, listening: bool) -> bytes:
    """The filter, as an array of `struct sock_filter`."""
    table = list(rules)
    program = [_instruction(_LOAD, _ARCHITECTURE)]
    for architecture, numbers in NUMBERS.items():
        block = _block(table, numbers, listening=listening)
        over = _instruction(_JUMP_IF, architecture, if_true=1)
        program += [over, _instruction(_JUMP, len(block)), *block]
    return b"".join([*program, _instruction(_RETURN, _ALLOW)])


def _block(rules: Iterable[Rule], numbers: Mapping[str, int], *, listening: bool) -> list[bytes]:
    """The verdicts for the calls of one architecture."""
    block = [_instruction(_LOAD, _NUMBER), _instruction(_AND, ~X32_BIT & 0xFFFFFFFF)]
    for rule in rules:
        if rule.call not in numbers:
            continue
        is_told = listening and rule.verdict is Verdict.NOTIFY
        verdict = [_instruction(_RETURN, _USER_NOTIFICATION if is_told else _REFUSE)]
        if rule.first_arguments:
            left = range(len(rule.first_arguments), 0, -1)
            verdict = [
                _instruction(_LOAD, _FIRST_ARGUMENT),
                *(
                    _instruction(_JUMP_IF, *each)
                    for each in zip(rule.first_arguments, left, strict=True)
                ),
                _instruction(_RETURN, _ALLOW),
                *verdict,
            ]
        block.append(_instruction(_JUMP_IF, numbers[rule.call], if_false=len(verdict)))
        block += verdict
    return [*block, _instruction(_RETURN, _ALLOW)]


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    """A `struct sock_filter`; jumps count the instructions that are skipped."""
    return struct.pack("HBBI", code, if_true, if_false, value)
