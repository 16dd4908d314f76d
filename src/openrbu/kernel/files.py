"""The files of a machine, with the operations of system calls: a mount serves them.

Paths are absolute on the machine: `/sys/…`, `/proc/…`, `/dev/…`. A machine that is off has no
files.
"""

from __future__ import annotations

import errno
import stat
from contextlib import AbstractContextManager
from typing import Protocol

from openrbu.buffers import Buffer
from openrbu.drivers.sysfs import ROOT, Caller, Change, OpenFile, Stat
from openrbu.errors import KernelError
from openrbu.kernel.kernel import Kernel, KernelFile

TOP = ("dev", "proc", "sys")
"""The directories at the root."""

ROOT_INODE = 1


class File(Protocol):
    """A file that a program has open."""

    def stat(self) -> Stat:
        """fstat(2)."""

    def read(self, offset: int, size_bytes: int) -> bytes:
        """One pread(2).

        :raise OSError: the error of the machine's kernel.
        """

    def write(self, offset: int, data: Buffer, *, sys_rawio: bool = True) -> int:
        """One pwrite(2); the number of bytes written. `sys_rawio`: the caller has CAP_SYS_RAWIO.

        :raise OSError: the error of the machine's kernel.
        """

    def close(self) -> None:
        """close(2)."""


class Files(Protocol):
    """All files of a machine. Any thread may call.

    Every call raises OSError with the error of the machine's kernel, and MachineError when that
    kernel has crashed.
    """

    def stat(self, path: str) -> Stat:
        """lstat(2)."""

    def change(self, path: str, wanted: Change, caller: Caller = ROOT) -> None:
        """chmod(2), lchown(2) or utimensat(2). The state of a machine does not keep it."""

    def list(self, path: str) -> list[str]:
        """The names in a directory."""

    def readlink(self, path: str) -> str:
        """The target of a symbolic link."""

    def open(
        self, path: str, *, reading: bool = False, writing: bool = False, caller: Caller = ROOT
    ) -> File:
        """Open a file."""


class HasKernel(Protocol):
    """A machine with a kernel."""

    @property
    def kernel(self) -> Kernel | None:
        """The running kernel; None while the machine is off."""


class MachineFiles:
    """The files of a machine that this process has. Every call locks `lock`."""

    def __init__(self, machine: HasKernel, lock: AbstractContextManager[object]) -> None:
        self._machine, self._lock = machine, lock

    def stat(self, path: str) -> Stat:
        with self._lock:
            if path == "/":
                return self._root()
            tree, inner = self._kernel(path).tree(path)
            return tree.stat(inner, follow=False)

    def change(self, path: str, wanted: Change, caller: Caller = ROOT) -> None:
        with self._lock:
            is_fixed = path == "/" or path.startswith("/proc/sys/")  # all but times
            if is_fixed and (wanted.mode, wanted.uid, wanted.gid) != (None, None, None):
                raise KernelError(errno.EPERM, path)
            tree, inner = self._kernel(path).tree(path)
            tree.change(inner, wanted, caller)

    def list(self, path: str) -> list[str]:
        with self._lock:
            return list(self._top()) if path == "/" else self._kernel(path).list(path)

    def readlink(self, path: str) -> str:
        with self._lock:
            if path == "/":
                raise KernelError(errno.EINVAL, path)
            tree, inner = self._kernel(path).tree(path)
            return tree.readlink(inner)

    def open(
        self, path: str, *, reading: bool = False, writing: bool = False, caller: Caller = ROOT
    ) -> File:
        with self._lock:
            if path == "/":
                raise KernelError(errno.EISDIR, path)
            file = self._kernel(path).open(path, reading=reading, writing=writing, caller=caller)
            return LockedFile(file, self._lock)

    def _root(self) -> Stat:
        kernel = self._machine.kernel
        born_at = 0.0 if kernel is None else kernel.sys.root.born_at
        return Stat(stat.S_IFDIR | 0o755, 2 + len(self._top()), 0, ROOT_INODE, born_at)

    def _top(self) -> tuple[str, ...]:
        return TOP if self._machine.kernel is not None else ()

    def _kernel(self, path: str) -> Kernel:
        if self._machine.kernel is None:
            raise KernelError(errno.ENOENT, path)
        return self._machine.kernel


class LockedFile:
    """A file of a kernel or of a tree, as `File`. Every call locks `lock`."""

    def __init__(self, file: KernelFile | OpenFile, lock: AbstractContextManager[object]) -> None:
        self._file, self._lock = file, lock

    def stat(self) -> Stat:
        with self._lock:
            return self._file.stat()

    def read(self, offset: int, size_bytes: int) -> bytes:
        with self._lock:
            return self._file.read(offset, size_bytes)

    def write(self, offset: int, data: Buffer, *, sys_rawio: bool = True) -> int:
        with self._lock:
            return self._file.write(offset, data, sys_rawio=sys_rawio)

    def close(self) -> None:
        """Does nothing: such a file has no state of its own."""
