"""A file that one process at a time has locked, and that says something about that process.

`owned` is what a thing with one owner needs: the lock, and in the file who has it. `LockFile` is
for those who say something else in it.

The lock is the kernel's (flock(2)): it ends with its process, however that ends. Its holder may
remove the file. Who opened it before then has a lock that nobody else looks at, so `take` sees to
it that what it locked is what is there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from openrbu.system.waiting import CLOCK, Clock, Deadline, comes_about

_MAX_BYTES = 64 * 1024

_OWNER_BYTES = 32
"""What an owner writes: its number, its role, and blanks. The file never grows afterwards, so a
full disk is no reason to fail."""

_FIRST_WAIT_S, _LONGEST_WAIT_S = 1e-4, 1e-3


class LockFile:
    """The file at `path`, open. It is made where it is missing, if `create`.

    :raise FileNotFoundError: when it is missing, and not to be made.
    :raise OSError: when it can't be opened, or is no regular file (a symbolic link is none).
    """

    def __init__(self, path: Path, *, create: bool) -> None:
        self.path, self._create = path, create
        self._fd = self._open()

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        fd = os.open(self.path, flags | (os.O_CREAT if self._create else 0), 0o600)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "not a regular file", str(self.path))
        return fd

    def take(self) -> bool:
        """Lock the file that is at the path now; False when another process has it.

        :raise FileNotFoundError: when it has been removed, and is not to be made.
        :raise OSError: when it can't be opened any more.
        """
        while True:
            is_ours = try_lock(self._fd)
            if self.is_in_place():
                return is_ours
            fresh = self._open()
            os.close(self._fd)
            self._fd = fresh

    def is_held(self) -> bool:
        """Whether another process has the file that was opened here, removed meanwhile or not.

        For who does not have it: asking lets go of it.
        """
        if not try_lock(self._fd, fcntl.LOCK_SH):
            return True
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        return False

    def is_in_place(self) -> bool:
        """Whether the file that is open here is the one at the path still."""
        try:
            return os.path.samestat(os.fstat(self._fd), self.path.lstat())
        except FileNotFoundError:
            return False

    def read(self) -> str:
        """What the file says, without blanks around it; empty when its holder wrote nothing yet.

        :raise OSError: when it can't be read.
        """
        return os.pread(self._fd, _MAX_BYTES, 0).decode("utf-8", "replace").strip()

    def write(self, text: str) -> None:
        """Have the file say `text` and nothing else. Only who has the lock may.

        It never gets smaller: what once fitted fits again, on a full disk too.

        :raise OSError: when the disk refuses.
        """
        os.pwrite(self._fd, text.encode().ljust(os.fstat(self._fd).st_size), 0)

    def remove(self) -> None:
        """Remove the file. Only who has the lock may; `read` and `write` go on working."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the file, and of the lock."""
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class TakenError(Exception):
    """Another process has the file.

    `owner` is the number of that process, None while it has not said so yet. `role` is what it said
    of itself besides, mostly nothing.
    """

    def __init__(self, owner: str | None, role: str) -> None:
        super().__init__(f"taken by process {owner or 'unknown'}")
        self.owner, self.role = owner, role


@contextlib.contextmanager
def owned(path: Path, role: str = "", *, create: bool = True) -> Iterator[LockFile]:
    """Have the file at `path` for this process in the block; the file says so, and the `role`: one
    word. It is made where it is missing, if `create`.

    :raise TakenError: when another process has it.
    :raise FileNotFoundError: when it is missing, and not to be made.
    :raise OSError: when it can't be opened, or the disk has no room for the owner's number.
    """
    with LockFile(path, create=create) as lock:
        if not lock.take():
            raise TakenError(*_owner_in(lock))
        lock.write(f"{os.getpid()} {role}".ljust(_OWNER_BYTES))
        try:
            yield lock
        finally:
            # Only so that the next owner is not taken for this one: who has the lock counts.
            with contextlib.suppress(OSError):
                lock.write("")


def owner_of(path: Path) -> str | None:
    """The process that `owned` a file last, where it is there and says so."""
    with contextlib.suppress(OSError), LockFile(path, create=False) as lock:
        return _owner_in(lock)[0]
    return None


def _owner_in(lock: LockFile) -> tuple[str | None, str]:
    """The owner and its role, as `TakenError` has them."""
    owner, _, role = lock.read().partition(" ")
    return owner or None, role


def try_lock(fd: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Lock an open file; False when another process has it."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def take_within(take: Callable[[], bool], seconds: float, *, clock: Clock = CLOCK) -> bool:
    """Try to take a lock that its holders have for a moment only, again and again. False
    when it could not be taken in that time: a holder may be stopped (Ctrl-Z)."""
    if take():  # mostly it is free, and a hypercall is short
        return True
    deadline = Deadline("a lock", seconds, clock=clock)
    return comes_about(take, deadline, _FIRST_WAIT_S, longest_s=_LONGEST_WAIT_S)
