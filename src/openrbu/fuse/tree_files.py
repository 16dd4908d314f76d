"""The files below `/sys` of a driver that no virtual machine's kernel has, for a mount."""

from __future__ import annotations

import contextlib
import errno
import stat
from contextlib import AbstractContextManager
from typing import Protocol

from openrbu.drivers.sysfs import ROOT, Caller, Change, Stat, SysfsTree
from openrbu.errors import KernelError
from openrbu.kernel.files import File, LockedFile

SYS = "/sys"
_ROOT_INODE = 1 << 31
"""Above the numbers of the nodes in the tree."""


class HasTree(Protocol):
    """Something with files."""

    @property
    def tree(self) -> SysfsTree:
        """The files, by their paths below `/sys`."""

    @property
    def lock(self) -> AbstractContextManager[object]:
        """Locked while the tree is used."""


class TreeFiles:
    """The tree of `driver` at `/sys`, as `kernel.files.Files`. Any thread may call."""

    def __init__(self, driver: HasTree) -> None:
        self._driver = driver

    def stat(self, path: str) -> Stat:
        with self._driver.lock:
            if path == "/":
                born_at = self._driver.tree.root.born_at
                return Stat(stat.S_IFDIR | 0o755, 3, 0, _ROOT_INODE, born_at)
            return self._driver.tree.stat(_inner(path), follow=False)

    def change(self, path: str, wanted: Change, caller: Caller = ROOT) -> None:
        if path == "/":
            raise KernelError(errno.EPERM, path)
        with self._driver.lock:
            self._driver.tree.change(_inner(path), wanted, caller)

    def list(self, path: str) -> list[str]:
        if path == "/":
            return [SYS.lstrip("/")]
        with self._driver.lock:
            return self._driver.tree.list(_inner(path))

    def readlink(self, path: str) -> str:
        if path == "/":
            raise KernelError(errno.EINVAL, path)
        with self._driver.lock:
            return self._driver.tree.readlink(_inner(path))

    def open(
        self, path: str, *, reading: bool = False, writing: bool = False, caller: Caller = ROOT
    ) -> File:
        if path == "/":
            raise KernelError(errno.EISDIR, path)
        with self._driver.lock:
            file = self._driver.tree.open(
                _inner(path), reading=reading, writing=writing, caller=caller
            )
            return LockedFile(file, self._driver.lock)


class ServedTree:
    """The tree of `driver` for a mount (`mounting.Served`)."""

    def __init__(self, driver: HasTree) -> None:
        self.files = TreeFiles(driver)

    def check_connection(self) -> None:
        """Does nothing: the driver is in this process."""

    def path_lock(self, _path: str) -> AbstractContextManager[None]:
        """Nothing to lock: no other process uses the driver."""
        return contextlib.nullcontext()


def _inner(path: str) -> str:
    """
    :raise KernelError: ENOENT for a path that is not below `/sys`.
    """
    if path != SYS and not path.startswith(f"{SYS}/"):
        raise KernelError(errno.ENOENT, path)
    return path.removeprefix(SYS) or "/"
