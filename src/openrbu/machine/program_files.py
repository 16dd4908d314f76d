"""Firmware files that programs give a virtual machine's kernel: files of this computer, as the
programs see them.

A real kernel looks for a file below the root of its first process, whatever root or namespace the
program has that asks for it (docs/reference/firmware-class.md, F5). Here that root is the one of a
program under `rbu run` when it begins: a directory with mounts of its own, kept open.

Paths are followed by this module, because the kernel would follow a link that begins with `/` from
the root of this process. What lies below `/sys`, `/proc` and `/dev` there is never looked at: those
files are the machine's own, and only this process could answer for them.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from openrbu.errors import KernelError
from openrbu.units import MIB

_SERVED = ("sys", "proc", "dev")
_ROOT = re.compile(r"/proc/(self|[1-9][0-9]*)/fd/[0-9]+", re.ASCII)
_ROOT_OF_PROCESS = re.compile(r"/+proc/+([1-9][0-9]*)/+root(?=/)", re.ASCII)

_OPEN_ROOT = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_MAX_LINKS = 40  # path_resolution(7)
_CHUNK_BYTES = 1 * MIB


@dataclass(frozen=True)
class ProgramFile:
    """A regular file: a `drivers.firmware_class.FirmwareFile`."""

    path: str
    size_bytes: int

    def views(self) -> Iterator[bytes]:
        """Its content.

        :raise OSError: when it can't be read.
        """
        with Path(self.path).open("rb", buffering=0) as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk


class ProgramFiles:
    """The files below the roots of programs. Each user of the machine may have one root."""

    def __init__(self) -> None:
        self._roots: dict[object, int] = {}

    def use(self, user: object, root: str) -> None:
        """Look below this root for `user`, from now on; empty: below none.

        `root`: an open directory, as a path `/proc/PID/fd/N`, in which PID may be `self`.

        :raise KernelError: EINVAL when it is no such path.
        :raise OSError: when it is not open, or this process may not use it.
        """
        if root and not _ROOT.fullmatch(root):
            raise KernelError(errno.EINVAL, root)
        fd = os.open(root, _OPEN_ROOT) if root else -1
        if user in self._roots:
            os.close(self._roots.pop(user))
        if root:
            self._roots[user] = fd

    def find(self, path: str) -> ProgramFile | None:
        """The file at this path below one of the roots; None: there is none."""
        for root in reversed(self._roots.values()):
            with contextlib.suppress(OSError, ValueError):  # there is none, or a NUL in the path
                return _file_below(root, path)
        return None

    def close(self) -> None:
        """Look below no root any more."""
        for user in list(self._roots):
            self.use(user, "")


def _file_below(root: int, path: str) -> ProgramFile:
    """
    :raise OSError: when there is no such file.
    """
    of_process = _ROOT_OF_PROCESS.match(path)
    if of_process is None:
        found = f"/proc/self/fd/{root}/{_without_links(root, path)}"
    else:
        top = os.open(f"/proc/{of_process[1]}/root", _OPEN_ROOT)
        try:
            inner = _without_links(top, path[of_process.end() :])
        finally:
            os.close(top)
        found = f"{of_process[0]}/{inner}"
    seen = os.lstat(found)
    if not stat.S_ISREG(seen.st_mode):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return ProgramFile(found, seen.st_size)


def _without_links(root: int, path: str) -> str:
    """The same path below the directory `root`, relative to it and without links.

    :raise OSError: ENOENT for a path to what is served; ELOOP when there are too many links.
    """
    left, done, links = path.split("/")[::-1], list[str](), 0
    while left:
        name = left.pop()
        if name == "..":
            del done[-1:]
        if name in ("", ".", ".."):
            continue
        if not done and name in _SERVED:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        try:
            target = os.readlink("/".join([*done, name]), dir_fd=root)
        except OSError as error:
            if error.errno != errno.EINVAL:  # it is no link
                raise
            done.append(name)
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
        if target.startswith("/"):
            done.clear()
        left += target.split("/")[::-1]
    return "/".join(done)
