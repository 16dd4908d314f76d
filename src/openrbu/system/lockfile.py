"""A file that one process at a time locks, with a text about that process.

`owned` is for a resource with one owner: it takes the lock, and writes the owner into the file.
`LockFile` is for other texts.

The lock is the kernel's (flock(2)): it is released when its process ends in any way. The process
that has the lock may remove the file. A process that opened the file before has a file that no
other process can open, so `acquire` checks that the file it locked is the one at the path.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from openrbu.system.kept_files import open_kept
from openrbu.system.waiting import CLOCK, Clock, Deadline, comes_about

_MAX_BYTES = 64 * 1024

_OWNER_BYTES = 32
"""The size of an owner's text: its process ID, its role, and blanks. The file never grows after
this, so it can be written on a full disk."""

_FIRST_WAIT_S, _LONGEST_WAIT_S = 1e-4, 1e-3


class LockFile:
    """The file at `path`, open. With `create`, it is made if it is missing.

    :raise FileNotFoundError: when it is missing, without `create`.
    :raise OddFileError: when it is not a regular file (a symbolic link is not one).
    :raise OSError: when it can't be opened.
    """

    def __init__(self, path: Path, *, create: bool) -> None:
        self.path, self._create = path, create
        self._fd = self._open()

    def _open(self) -> int:
        return open_kept(self.path, os.O_RDWR | (os.O_CREAT if self._create else 0))

    def acquire(self) -> bool:
        """Lock the file that is at the path now; False when another process has the lock.

        :raise FileNotFoundError: when it was removed, without `create`.
        :raise OSError: when it can't be opened any more.
        """
        while True:
            is_ours = try_lock(self._fd)
            if self.is_in_place():
                return is_ours
            fresh = self._open()
            os.close(self._fd)
            self._fd = fresh

    def is_locked(self) -> bool:
        """Whether another process has locked the file that was opened here, even if the file was
        removed since.

        Only for a process without the lock: this call releases it.
        """
        if not try_lock(self._fd, fcntl.LOCK_SH):
            return True
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        return False

    def is_in_place(self) -> bool:
        """Whether the file that is open here is still the one at the path."""
        try:
            return os.path.samestat(os.fstat(self._fd), self.path.lstat())
        except FileNotFoundError:
            return False

    def read(self) -> str:
        """The file's text without the blanks around it; empty if its owner wrote nothing yet.

        :raise OSError: when it can't be read.
        """
        return os.pread(self._fd, _MAX_BYTES, 0).decode("utf-8", "replace").strip()

    def write(self, text: str) -> None:
        """Replace the file's text. Only the process with the lock may.

        The file never gets smaller: a text of the same length fits again, on a full disk, too.

        :raise OSError: when it can't be written.
        """
        size = min(os.fstat(self._fd).st_size, _MAX_BYTES)  # `read` reads no more
        os.pwrite(self._fd, text.encode().ljust(size), 0)

    def remove(self) -> None:
        """Remove the file. Only the process with the lock may; `read` and `write` still work."""
        self.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file and release the lock."""
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class TakenError(Exception):
    """Another process has the lock.

    `owner` is the ID of that process, None if it has not written it yet. `role` is its role, mostly
    empty.
    """

    def __init__(self, owner: str | None, role: str) -> None:
        super().__init__(f"taken by process {owner or 'unknown'}")
        self.owner, self.role = owner, role


@contextlib.contextmanager
def owned(path: Path, role: str = "", *, create: bool = True) -> Iterator[LockFile]:
    """Lock the file at `path` for the block, and write this process's ID and its `role` (one word)
    into it. With `create`, the file is made if it is missing.

    :raise TakenError: when another process has the lock.
    :raise FileNotFoundError: when the file is missing, without `create`.
    :raise OSError: when it can't be opened, or the disk is too full for the owner's ID.
    """
    with LockFile(path, create=create) as lock:
        if not lock.acquire():
            raise TakenError(*_owner_in(lock))
        lock.write(f"{os.getpid()} {role}".ljust(_OWNER_BYTES))
        try:
            yield lock
        finally:
            # So that this process is not shown as the next owner. Only the lock itself counts.
            with contextlib.suppress(OSError):
                lock.write("")


@contextlib.contextmanager
def looked_at(path: Path) -> Iterator[None]:
    """Share the lock of a file that this process may only read: until the end of the block no
    process owns it.

    :raise TakenError: when one does.
    :raise OSError: when the file is missing, or can't be read.
    """
    fd = open_kept(path, os.O_RDONLY)
    try:
        if not try_lock(fd, fcntl.LOCK_SH):
            text = os.pread(fd, _OWNER_BYTES, 0).decode("utf-8", "replace")
            raise TakenError(*_owner_as(text.strip()))
        yield
    finally:
        os.close(fd)


def owner_of(path: Path) -> str | None:
    """The ID of the process that is in the file as its owner; None if there is none."""
    with contextlib.suppress(OSError), LockFile(path, create=False) as lock:
        return _owner_in(lock)[0]
    return None


def _owner_in(lock: LockFile) -> tuple[str | None, str]:
    """The owner and its role, as `TakenError` has them."""
    return _owner_as(lock.read())


def _owner_as(text: str) -> tuple[str | None, str]:
    owner, _, role = text.partition(" ")
    return owner or None, role


def try_lock(fd: int, kind: int = fcntl.LOCK_EX) -> bool:
    """Lock an open file; False when another process has the lock."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def acquire_within(acquire: Callable[[], bool], seconds: float, *, clock: Clock = CLOCK) -> bool:
    """Try again and again to acquire a lock that processes have only for a moment. False when it
    was not free in that time: a process with the lock may be stopped (Ctrl-Z)."""
    if acquire():  # it is free in most cases
        return True
    deadline = Deadline("a lock", seconds, clock=clock)
    return comes_about(acquire, deadline, _FIRST_WAIT_S, longest_s=_LONGEST_WAIT_S)
