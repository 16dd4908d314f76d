"""A machine's files as a FUSE file system. This module only translates requests.

What the kernel's own VFS and FUSE do before a request comes here, or without one:

- They follow links, check `O_EXCL`, and read execute permission from the mode.
- For a request that is not implemented here libfuse returns ENOSYS. The kernel turns that into what
  sysfs returns too: EOPNOTSUPP for extended attributes and fallocate, ENOTTY for ioctl, success for
  fsync and flush. It sends such a request only once, which saves a request with each close.
- They cache no name and no attribute (all timeouts are 0), and no data (direct I/O) but that of the
  files in `MAPPED`. What they read for sendfile(2) and the like is refused
  (`openrbu.fuse.translation`).
- They do not check permissions: this module and `SysfsTree` do.
- They handle flock(2) among the programs of this mount, so this module is not asked. For the files
  in `LOCKED_WHILE_OPEN` it stands in for these programs against all others that use the machine.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import posixpath
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any, NoReturn

from openrbu.drivers.dcdbas import SMI_REQUEST
from openrbu.drivers.inodes import Time, allowed_bits
from openrbu.drivers.sysfs import Change, Stat
from openrbu.errors import KernelError, ObstacleError
from openrbu.fuse.callers import CallerMap
from openrbu.fuse.library import mfusepy
from openrbu.fuse.refusals import Refusals, answering
from openrbu.fuse.requests import Requests
from openrbu.kernel.files import File, Files
from openrbu.units import PAGE_SIZE

_MAX_NAME_BYTES = 255
_MAX_LENGTH_BYTES = (1 << 31) - 1
"""How long ftruncate(2) may say that a file of sysfs is (measured on 6.1.192)."""

_UNCHANGED = -1
"""Of chown(2): the user, or the group, stays."""

LOCKED_WHILE_OPEN = frozenset((f"/sys{SMI_REQUEST}",))
"""Files that programs lock with flock(2) before they use them. While some program of this mount has
one open for writing, it is locked for all programs of the mount together: a program that locks the
file has it open."""


MAPPED = frozenset(("/dev/mem",))
"""Files that programs map into their memory (mmap(2), MAP_SHARED)."""


def caller_pid() -> int:
    """The process whose request is being answered; 0: none, or one of another PID namespace."""
    pid: int = mfusepy.fuse_get_context()[2]
    return pid


PathLock = Callable[[str], contextlib.AbstractContextManager[None]]
"""`Machine.path_lock`."""


@dataclass(slots=True)
class _Handle:
    """A file that a program has open.

    `position`: the offset of the next write to a file that was opened with O_APPEND. sysfs ignores
    that flag, but FUSE gives the file's size as the offset. None: FUSE gives the right offset.
    `locked_path`: the path, where it is one of `LOCKED_WHILE_OPEN` and open for writing. `node`:
    the kernel's number of the file, as in `Requests`.
    """

    file: File
    position: int | None
    locked_path: str = ""
    node: int = 0


@dataclass(frozen=True, slots=True)
class _Directory:
    """A directory that a program has open: its path, the kernel's number of it, and what it was."""

    path: str
    node: int
    what: Stat


@contextlib.contextmanager
def _missing_ignored() -> Iterator[None]:
    """End the block where a file is not there."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise


class FileSystem(Refusals):
    """The operations that libfuse calls, each for one of `requests`. `log` gets a line for each
    defect. `path_lock` locks a path of the machine against programs that do not use this mount."""

    use_ns = True  # times are whole nanoseconds

    def __init__(
        self,
        files: Files,
        callers: CallerMap,
        requests: Requests,
        log: Callable[[str], None] = lambda line: None,
        *,
        path_lock: PathLock = lambda path: contextlib.nullcontext(),
    ) -> None:
        super().__init__(callers, log)
        self._files = files
        self.requests = requests
        self._path_lock = path_lock
        self._locked: dict[str, tuple[int, contextlib.ExitStack]] = {}
        self._handles: dict[int, _Handle] = {}
        self._directories: dict[int, _Directory] = {}
        self.mapped: set[int] = set()
        """The handles of files in `MAPPED`."""
        self._numbers = count(1)

    def watch_ioctl(self, on_ioctl: Callable[[File, int], None]) -> None:
        """Have `on_ioctl` called with the file and the request of each ioctl, which is answered as
        without this (ENOTTY). libfuse asks for what is there, so there is no method of that name.
        """

        def ioctl(
            _path: None, request: int, _argument: object, fh: int, _flags: int, _data: object
        ) -> NoReturn:
            on_ioctl(self._handles[fh].file, request)
            raise KernelError(errno.ENOTTY)

        self.ioctl = ioctl

    def init_with_config(self, _connection: object, config: Any) -> None:
        """Settings of libfuse's high-level interface (struct fuse_config)."""
        config.entry_timeout = config.attr_timeout = config.negative_timeout = 0.0
        config.use_ino = config.nullpath_ok = 1

    # -- names and attributes ---------------------------------------------------------------

    @answering
    def stat_of(self, path: str | None, handle: int | None) -> Stat:
        """The attributes of a path, or of an open file. `Translation` calls this for `getattr`."""
        if path is None:
            assert handle is not None
            return self._handles[handle].file.stat()
        try:
            return self._files.stat(path)
        except OSError as error:
            vanished = self._vanished() if error.errno == errno.ENOENT else None
            if vanished is None:
                raise
            return vanished

    def _vanished(self) -> Stat | None:
        """The attributes of an open file or directory that is no more at its path, for fstat(2):
        that asks by the kernel's number, not by a name. None: this request asks for no such."""
        node = self.requests.node if self.requests.is_for_attributes else 0
        if not node:
            return None
        for handle in self._handles.values():
            if handle.node == node:
                return handle.file.stat()
        for directory in self._directories.values():
            if directory.node == node:
                return dataclasses.replace(directory.what, link_count=2)
        return None

    @answering
    def opendir(self, path: str) -> int:
        what, caller = self._files.stat(path), self.caller()
        readable = allowed_bits(what.mode, what.uid, what.gid, caller) & os.R_OK
        if not (readable or caller.is_root):
            raise KernelError(errno.EACCES, path)
        number = next(self._numbers)
        self._directories[number] = _Directory(path, self.requests.node, what)
        return number

    @answering
    def readdir(self, _path: None, fh: int) -> list[tuple[str, dict[str, int], int]]:
        path = self._directories[fh].path
        entries: list[tuple[str, dict[str, int], int]] = []
        with _missing_ignored():
            names = [".", "..", *self._files.list(path)]
            for name in names:
                with _missing_ignored():  # it was removed meanwhile
                    where = posixpath.normpath(posixpath.join(path, name))
                    entries.append((name, self._entry(where), 0))
        # of a directory that was removed, only these are left
        return entries or [(name, {"st_mode": stat.S_IFDIR}, 0) for name in (".", "..")]

    def _entry(self, path: str) -> dict[str, int]:
        what = self._files.stat(path)
        return {"st_mode": what.mode, "st_ino": what.inode}

    @answering
    def releasedir(self, _path: None, fh: int) -> int:
        del self._directories[fh]
        return 0

    @answering
    def readlink(self, path: str) -> str:
        return self._files.readlink(path)

    @answering
    def access(self, path: str, amode: int) -> int:
        """access(2). The kernel also asks this for chdir(2), as a search."""
        what, caller = self._files.stat(path), self.caller()
        allowed = allowed_bits(what.mode, what.uid, what.gid, caller)
        if caller.is_root:
            # root may read and write everything, and execute what any user may execute
            allowed |= os.R_OK | os.W_OK | (os.X_OK if stat.S_ISDIR(what.mode) else 0)
        if amode & ~allowed:
            raise KernelError(errno.EACCES, path)
        return 0

    def statfs(self, _path: str) -> dict[str, int]:
        return {"f_bsize": PAGE_SIZE, "f_frsize": PAGE_SIZE, "f_namemax": _MAX_NAME_BYTES}

    # -- files ------------------------------------------------------------------------------

    @answering
    def open(self, path: str, flags: int) -> int:
        if flags & os.O_DIRECT:
            raise KernelError(errno.EINVAL, path)
        if flags & os.O_TRUNC:
            self._require_writable(path)
        access = flags & os.O_ACCMODE
        file = self._files.open(
            path,
            reading=access != os.O_WRONLY,
            writing=access != os.O_RDONLY,
            caller=self.caller(),
        )
        locked = path if access != os.O_RDONLY and path in LOCKED_WHILE_OPEN else ""
        if locked:
            try:
                self._lock(path)
            except KernelError:
                file.close()
                raise
        handle = next(self._numbers)
        self._handles[handle] = _Handle(
            file, 0 if flags & os.O_APPEND else None, locked, self.requests.node
        )
        if path in MAPPED:
            self.mapped.add(handle)
        return handle

    def _lock(self, path: str) -> None:
        """Lock a path against programs of other mounts, once for all that have it open.

        :raise KernelError: EBUSY when another program keeps it locked.
        """
        users, lock = self._locked.get(path, (0, contextlib.ExitStack()))
        if not users:
            try:
                lock.enter_context(self._path_lock(path))
            except ObstacleError:
                raise KernelError(errno.EBUSY, path) from None
        self._locked[path] = (users + 1, lock)

    def _unlock(self, path: str) -> None:
        users, lock = self._locked.pop(path)
        if users > 1:
            self._locked[path] = (users - 1, lock)
        else:
            lock.close()

    @answering
    def read(self, _path: None, size: int, offset: int, fh: int) -> bytes:
        return self._handles[fh].file.read(offset, size)

    @answering
    def write(self, _path: None, data: bytes, offset: int, fh: int) -> int:
        handle = self._handles[fh]
        uid, _, pid = mfusepy.fuse_get_context()
        sys_rawio = self.callers.has_rawio(uid, pid)
        if handle.position is None:
            return handle.file.write(offset, data, sys_rawio=sys_rawio)
        done = handle.file.write(handle.position, data, sys_rawio=sys_rawio)
        handle.position += done
        return done

    @answering
    def release(self, _path: None, fh: int) -> int:
        handle = self._handles.pop(fh)
        self.mapped.discard(fh)
        handle.file.close()
        if handle.locked_path:
            self._unlock(handle.locked_path)
        return 0

    @answering
    def truncate(self, path: str | None, length: int, fh: int | None = None) -> int:
        """Does nothing, as in sysfs, when the caller may write. mfusepy gives no path together with
        a handle."""
        if length > _MAX_LENGTH_BYTES:
            raise KernelError(errno.EFBIG, path)
        if fh is None and path is not None:
            self._require_writable(path)
        return 0

    def _require_writable(self, path: str) -> None:
        """Whether the mode lets the caller write; root may truncate what it can't write, too."""
        caller = self.caller()
        if not caller.is_root:
            what = self._files.stat(path)
            if not allowed_bits(what.mode, what.uid, what.gid, caller) & os.W_OK:
                raise KernelError(errno.EACCES, path)

    # -- modes, owners, times ---------------------------------------------------------------

    @answering
    def chmod(self, path: str, mode: int) -> int:
        return self._change(path, Change(mode=mode & 0o7777))

    @answering
    def chown(self, path: str, uid: int, gid: int) -> int:
        """chown(2); -1 is the user or group that the file has."""
        there = self.callers
        return self._change(
            path,
            Change(
                uid=None if uid == _UNCHANGED else there.uid_there(uid),
                gid=None if gid == _UNCHANGED else there.gid_there(gid),
            ),
        )

    @answering
    def utimens(self, path: str, accessed_ns: Time, modified_ns: Time) -> int:
        """utimensat(2)."""
        return self._change(path, Change(accessed_ns=accessed_ns, modified_ns=modified_ns))

    def _change(self, path: str, wanted: Change) -> int:
        self._files.change(path, wanted, self.caller())
        return 0
