"""The capabilities of processes: capabilities(7), capget(2)."""

from __future__ import annotations

import ctypes

from openrbu.system.libc import LIBC, call

# linux/capability.h
CAP_SYS_MODULE = 16
CAP_SYS_RAWIO = 17
CAP_SYS_PTRACE = 19
CAP_SYS_BOOT = 22
CAP_SYS_TIME = 25
CAP_MKNOD = 27
_VERSION_3 = 0x20080522

_PR_CAPBSET_DROP = 24  # linux/prctl.h

_SETS = 3
"""Effective, permitted, inheritable: their low 32 each, then their high 32."""


class Capabilities:
    """Reads capabilities with capget(2), always into the same memory: only for use in one thread.

    capget takes 1 µs; reading /proc/PID/status takes 25 µs. It is done at each write.
    """

    def __init__(self) -> None:
        self._header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)  # the version, the process
        self._words = (ctypes.c_uint32 * (2 * _SETS))()
        self._capget = LIBC.capget
        self._arguments = ctypes.byref(self._header), ctypes.byref(self._words)

    def has(self, pid: int, number: int) -> bool:
        """Whether capability `number` (below 32) is effective in a process or thread. False when it
        has ended, or can't be seen from here."""
        if not pid:  # capget takes 0 for this process
            return False
        self._header[1] = pid
        return not self._capget(*self._arguments) and bool(self._words[0] >> number & 1)

    def drop(self, *numbers: int) -> None:
        """Remove capabilities (below 32) from this process and from all programs that it executes.
        They can't be regained.

        :raise OSError: the kernel's error.
        """
        for number in numbers:
            call("prctl", _PR_CAPBSET_DROP, number, 0, 0, 0)
        # The bounding set does not limit the inheritable set, so that is changed too.
        self._header[1] = 0
        call("capget", self._header, self._words)
        for low in range(_SETS):
            for number in numbers:
                self._words[low] &= ~(1 << number)
        call("capset", self._header, self._words)
