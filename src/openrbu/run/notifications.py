"""System calls that wait for an answer: the listener of a seccomp filter (`openrbu.run.filter`).

Source: seccomp_unotify(2).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import struct
from dataclasses import dataclass

from openrbu.run.filter import NUMBERS, X32_BIT

# linux/seccomp.h: struct seccomp_notif (with struct seccomp_data in it), seccomp_notif_resp
_NOTICE = struct.Struct("=QII iIQ6Q")
_ANSWER = struct.Struct("=QqiI")

# SECCOMP_IOCTL_NOTIF_RECV, _SEND, _ID_VALID
_RECEIVE, _SEND, _ID_VALID = 0xC0502100, 0xC0182101, 0x40082102

_NAMES = {
    architecture: {number: name for name, number in numbers.items()}
    for architecture, numbers in NUMBERS.items()
}


@dataclass(frozen=True, slots=True)
class Call:
    """A system call that waits for an answer, of which `listener` has told.

    `thread` is the number of the thread that made it, 0 where that has no number here. `arguments`
    are its six arguments, of 64 bits, as the program set them: what they point to is in the
    program's memory, and what a register has above the argument's own type is undefined.
    """

    listener: int
    identity: int
    thread: int
    name: str
    arguments: tuple[int, ...]

    def still_waits(self) -> bool:
        """Whether it waits now: so long its thread's number is that thread's, and no other's."""
        try:
            fcntl.ioctl(self.listener, _ID_VALID, struct.pack("=Q", self.identity))
        except OSError:
            return False
        return True

    def answer(self, error: int) -> None:
        """Have it return: 0, or -1 with the errno `error`. Does nothing when it does not wait."""
        message = _ANSWER.pack(self.identity, 0, -error, 0)
        with contextlib.suppress(OSError):
            fcntl.ioctl(self.listener, _SEND, message)


def receive(listener: int) -> Call | None:
    """Wait for the next call. None when who made it was killed meanwhile.

    :raise OSError: the kernel's error.
    """
    notice = bytearray(_NOTICE.size)
    try:
        fcntl.ioctl(listener, _RECEIVE, notice)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EINTR):
            return None
        raise
    identity, thread, _, number, architecture, _, *arguments = _NOTICE.unpack(notice)
    name = _NAMES[architecture][number & ~X32_BIT]
    return Call(listener, identity, thread, name, tuple(arguments))
