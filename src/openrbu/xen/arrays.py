"""Where a host's state is kept: numbers and arrays, in one process or in files that several map.

::

    DIRECTORY/
        host.json    what the host is: made last, never changed
        words        counters, and a row for each guest: see `xen.records`
        stack        the heap's stack, for all machine frames: a sparse file
        table.ID     the frame table of guest ID
        lock         locked for each hypercall (flock(2))
        next         locked by the process that gets that lock next

Files are mapped, so that the other processes see at once what one writes, and it stays when that
one is killed. Disk space is allocated before a file is written to, so that a full disk is an error
and not a SIGBUS.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
from pathlib import Path
from typing import Protocol

from openrbu.errors import MachineError
from openrbu.lazy import np
from openrbu.memory.frames import Frames
from openrbu.system.lockfile import acquire_within, try_lock
from openrbu.units import MIB

_FRAME_BYTES = 4
_STACK_STEP_BYTES = 1 * MIB

LOCK_WITHIN_S = 10.0
"""How long to wait for a lock. A hypercall takes milliseconds, making a large guest takes a second.
"""


class HypercallError(MachineError):
    """Another process is inside of a hypercall, and stays there."""

    kind = "hypercall"


class HostArrays(Protocol):
    """A host's state. All numbers are 0 at first."""

    words: memoryview
    """Numbers of 64 bits, each written whole or not at all."""
    stack: Frames
    """Room for all machine frames. The part that `make_stack_room` made may be used."""

    def lock(self) -> None:
        """Wait until no other process is inside of a hypercall.

        :raise MachineError: when one stays there.
        """

    def unlock(self) -> None: ...

    def make_stack_room(self, count: int) -> None:
        """Make the first `count` elements of the stack writable.

        :raise OSError: when the disk refuses.
        """

    def make_table(self, number: int, frame_count: int) -> Frames:
        """Make a frame table, with any contents.

        :raise OSError: when the disk refuses.
        """

    def table(self, number: int, frame_count: int) -> Frames:
        """The frame table of a guest, which must have been made."""

    def drop_table(self, number: int) -> None:
        """Remove a frame table, if there is one."""

    def table_numbers(self) -> list[int]:
        """The numbers of all frame tables."""

    def close(self) -> None:
        """Close the files: no hypercall is possible then. Arrays of what is mapped can still be
        read."""


class PrivateArrays:
    """Arrays in this process's memory. Only the parts that are used take memory."""

    def __init__(self, word_count: int, machine_frames: int) -> None:
        self.words = memoryview(bytearray(word_count * 8)).cast("Q")
        self.stack: Frames = np.empty(machine_frames, np.uint32)
        self._tables: dict[int, Frames] = {}

    def lock(self) -> None: ...

    def unlock(self) -> None: ...

    def make_stack_room(self, count: int) -> None: ...

    def make_table(self, number: int, frame_count: int) -> Frames:
        self._tables[number] = table = np.empty(frame_count, np.uint32)
        return table

    def table(self, number: int, frame_count: int) -> Frames:
        return self._tables[number]

    def drop_table(self, number: int) -> None:
        self._tables.pop(number, None)

    def table_numbers(self) -> list[int]:
        return list(self._tables)

    def close(self) -> None: ...


class SharedArrays:
    """Arrays in the files of a directory.

    :raise MachineError: when a file is missing, or shorter than it was.
    """

    def __init__(self, directory: Path, word_count: int, machine_frames: int) -> None:
        self._directory = directory
        self.words = memoryview(_mapped(directory / "words", word_count * 8)).cast("Q")
        stack = _mapped(directory / "stack", machine_frames * _FRAME_BYTES)
        self.stack: Frames = np.frombuffer(stack, np.uint32)
        self._stack_bytes = 0
        self._lock, self._next = (
            os.open(directory / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            for name in ("lock", "next")
        )
        self._thread_lock = threading.Lock()  # flock(2) does not lock out other threads

    @classmethod
    def create(cls, directory: Path, word_count: int, machine_frames: int) -> SharedArrays:
        """Make new files. The contents of older ones are lost.

        :raise OSError: when the disk refuses.
        """
        for path in directory.glob("table.*"):
            path.unlink()
        _make_file(directory / "words", word_count * 8, taken_bytes=word_count * 8)
        _make_file(directory / "stack", machine_frames * _FRAME_BYTES, taken_bytes=0)
        return cls(directory, word_count, machine_frames)

    def lock(self) -> None:
        self._thread_lock.acquire()
        try:
            self._flock(self._next)  # else one process that returns at once could starve the others
            try:
                self._flock(self._lock)
            finally:
                fcntl.flock(self._next, fcntl.LOCK_UN)
        except BaseException:
            self._thread_lock.release()
            raise

    def _flock(self, fd: int) -> None:
        if not acquire_within(lambda: try_lock(fd), LOCK_WITHIN_S):
            raise HypercallError(
                f"another process is inside of a hypercall on the Xen host in {self._directory}, "
                "and stays there: let it go on (fg), or end it"
            )

    def unlock(self) -> None:
        fcntl.flock(self._lock, fcntl.LOCK_UN)
        self._thread_lock.release()

    def make_stack_room(self, count: int) -> None:
        size_bytes = count * _FRAME_BYTES
        if size_bytes <= self._stack_bytes:
            return
        steps = -(-size_bytes // _STACK_STEP_BYTES)
        size_bytes = min(steps * _STACK_STEP_BYTES, self.stack.nbytes)
        fd = os.open(self._directory / "stack", os.O_RDWR | os.O_CLOEXEC)
        try:
            os.posix_fallocate(fd, 0, size_bytes)
        finally:
            os.close(fd)
        self._stack_bytes = size_bytes

    def make_table(self, number: int, frame_count: int) -> Frames:
        size_bytes = frame_count * _FRAME_BYTES
        _make_file(self._table_path(number), size_bytes, taken_bytes=size_bytes)
        return self.table(number, frame_count)

    def table(self, number: int, frame_count: int) -> Frames:
        mapped = _mapped(self._table_path(number), frame_count * _FRAME_BYTES)
        return np.frombuffer(mapped, np.uint32)

    def drop_table(self, number: int) -> None:
        self._table_path(number).unlink(missing_ok=True)

    def table_numbers(self) -> list[int]:
        names = [path.name for path in self._directory.glob("table.*")]
        return [int(name.removeprefix("table.")) for name in names]

    def close(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            os.close(self._next)
        self._lock = self._next = -1  # another file may get these numbers next

    def _table_path(self, number: int) -> Path:
        return self._directory / f"table.{number}"


def _make_file(path: Path, size_bytes: int, *, taken_bytes: int) -> None:
    """Make a file of zeros in place of an older one. Disk space is allocated for its first
    `taken_bytes`.

    The older file is not truncated: another process may have it mapped, and would get a SIGBUS.

    :raise OSError: when the disk refuses.
    """
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(fd, size_bytes)
        if taken_bytes:
            os.posix_fallocate(fd, 0, taken_bytes)
    finally:
        os.close(fd)


def _mapped(path: Path, size_bytes: int) -> mmap.mmap:
    """Map the file at `path`, shared with other processes.

    :raise MachineError: when it is missing, or too short.
    """
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        raise MachineError(f"the Xen host has lost its file {path}") from None
    try:
        if os.fstat(fd).st_size < size_bytes:
            raise MachineError(f"the Xen host's file {path} was cut")
        return mmap.mmap(fd, size_bytes)
    finally:
        os.close(fd)
