"""A lease of a file: nobody makes it shorter while its bytes are looked at through a mapping.

A byte of a mapped file that is no longer there ends the process with SIGBUS, without a word. With
a read lease (fcntl(2), F_SETLEASE) the kernel lets whoever opens the file for writing, or makes it
shorter, wait until the lease is given back, for up to 45 s (`/proc/sys/fs/lease-break-time`); one
who does not want to wait gets EAGAIN, and finds it given back the next time.
"""

from __future__ import annotations

import contextlib
import fcntl
import signal
from collections.abc import Iterator

_NOTICE = signal.SIGURG
"""Comes when somebody waits, and is ignored unless a program has a handler: `is_held` asks. (The
kernel's own choice, SIGIO, would end this process.)"""


class Lease:
    """A read lease of an open file, until `give_back`. `fd` was opened for reading only."""

    def __init__(self, fd: int) -> None:
        """:raise OSError: when there is none: somebody has the file open for writing (EAGAIN), it
        is another user's (EACCES), or its file system has no leases (EINVAL).
        """
        self._fd = fd
        fcntl.fcntl(fd, fcntl.F_SETSIG, _NOTICE)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        self._is_ours = True

    def is_held(self) -> bool:
        """Whether nobody waits for the file. If somebody does, the lease is given back."""
        if self._is_ours and fcntl.fcntl(self._fd, fcntl.F_GETLEASE) != fcntl.F_RDLCK:
            self.give_back()
        return self._is_ours

    def give_back(self) -> None:
        """From now on, the file may become shorter."""
        if self._is_ours:
            self._is_ours = False
            with contextlib.suppress(OSError):  # the kernel took it: somebody waited too long
                fcntl.fcntl(self._fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)


@contextlib.contextmanager
def leased(fd: int) -> Iterator[Lease | None]:
    """A lease for the block, or None where there is none."""
    try:
        lease = Lease(fd)
    except OSError:
        yield None
        return
    try:
        yield lease
    finally:
        lease.give_back()
