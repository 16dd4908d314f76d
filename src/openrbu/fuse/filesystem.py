"""A machine's files as a FUSE file system. This module only translates requests.

What the kernel's own VFS and FUSE do before a request comes here, or without one:

- They follow links, check `O_EXCL`, and read execute permission from the mode.
- For a request that is not implemented here libfuse returns ENOSYS. The kernel turns that into what
  sysfs returns too: EOPNOTSUPP for extended attributes and fallocate, ENOTTY for ioctl, success for
  fsync and flush. It sends such a request only once, which saves a request with each close.
- They cache no name and no attribute (all timeouts are 0), and no data (direct I/O). What they read
  for sendfile(2) and the like is refused (`openrbu.fuse.translation`).
- They do not check permissions: this module and `SysfsTree` do.
- They handle flock(2) among the programs of this mount, so this module is not asked. For the files
  in `LOCKED_WHILE_OPEN` it stands in for these programs against all others that use the machine.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import posixpath
import stat
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Any, NoReturn, TypeVar, cast

from openrbu.drivers.dcdbas import SMI_REQUEST
from openrbu.drivers.sysfs import Caller, Stat
from openrbu.errors import KernelError, MachineError, ObstacleError
from openrbu.fuse.callers import CallerMap
from openrbu.fuse.library import mfusepy
from openrbu.fuse.requests import Requests
from openrbu.kernel.files import File, Files
from openrbu.units import PAGE_SIZE

_Operation = TypeVar("_Operation", bound=Callable[..., Any])

_MAX_NAME_BYTES = 255

LOCKED_WHILE_OPEN = frozenset((f"/sys{SMI_REQUEST}",))
"""Files that programs lock with flock(2) before they use them. While some program of this mount has
one open for writing, it is locked for all programs of the mount together: a program that locks the
file has it open."""


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
    `locked_path`: the path, where it is one of `LOCKED_WHILE_OPEN` and open for writing.
    """

    file: File
    position: int | None
    locked_path: str = ""


def _answering(operation: _Operation) -> _Operation:
    """Turn every exception of an operation into an errno; log those that are defects."""

    @functools.wraps(operation)
    def answer(self: FileSystem, *arguments: Any) -> Any:
        try:
            return operation(self, *arguments)
        except OSError as error:
            if error.errno:
                raise
            raise self.unexpected(operation.__name__, error) from None
        except MachineError:  # the machine's kernel has crashed, or the process that has it ended
            raise KernelError(errno.EIO) from None
        except Exception as error:  # noqa: BLE001  (a defect is logged, and does not end the mount)
            raise self.unexpected(operation.__name__, error) from None

    return cast("_Operation", answer)


class FileSystem(mfusepy.Operations):  # type: ignore[misc]  # mfusepy has no types
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
        self._files, self._callers, self._log = files, callers, log
        self.requests = requests
        self._path_lock = path_lock
        self._locked: dict[str, tuple[int, contextlib.ExitStack]] = {}
        self.root_uid, self.root_gid = callers.root_uid, callers.root_gid
        self._handles: dict[int, _Handle] = {}
        self._directories: dict[int, str] = {}
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

    def unexpected(self, name: str, error: Exception) -> OSError:
        """Log an error that no program can have caused; the error to return for it."""
        self._log(f"{name}: {type(error).__name__}: {error}")
        return KernelError(errno.EIO)

    def init_with_config(self, _connection: object, config: Any) -> None:
        """Settings of libfuse's high-level interface (struct fuse_config)."""
        config.entry_timeout = config.attr_timeout = config.negative_timeout = 0.0
        config.direct_io = config.use_ino = config.nullpath_ok = 1

    # -- names and attributes ---------------------------------------------------------------

    @_answering
    def stat_of(self, path: str | None, handle: int | None) -> Stat:
        """The attributes of a path, or of an open file. `Translation` calls this for `getattr`."""
        if path is None:
            assert handle is not None
            return self._handles[handle].file.stat()
        return self._files.stat(path)

    @_answering
    def opendir(self, path: str) -> int:
        directory = next(self._numbers)
        self._directories[directory] = path
        return directory

    @_answering
    def readdir(self, _path: None, fh: int) -> list[tuple[str, dict[str, int], int]]:
        path = self._directories[fh]
        entries = [(".", self._entry(path), 0), ("..", self._entry(posixpath.dirname(path)), 0)]
        for name in self._files.list(path):
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                entries.append((name, self._entry(posixpath.join(path, name)), 0))
        return entries

    def _entry(self, path: str) -> dict[str, int]:
        what = self._files.stat(path)
        return {"st_mode": what.mode, "st_ino": what.inode}

    @_answering
    def releasedir(self, _path: None, fh: int) -> int:
        del self._directories[fh]
        return 0

    @_answering
    def readlink(self, path: str) -> str:
        return self._files.readlink(path)

    @_answering
    def access(self, path: str, amode: int) -> int:
        """access(2). The kernel also asks this for chdir(2), as a search."""
        mode = self._files.stat(path).mode
        if self._caller().is_root:
            # root may read and write everything, and execute what any user may execute
            allowed = os.R_OK | os.W_OK
            if stat.S_ISDIR(mode) or mode & 0o111:
                allowed |= os.X_OK
        else:
            allowed = mode & 0o7
        if amode & ~allowed:
            raise KernelError(errno.EACCES, path)
        return 0

    def statfs(self, _path: str) -> dict[str, int]:
        return {"f_bsize": PAGE_SIZE, "f_frsize": PAGE_SIZE, "f_namemax": _MAX_NAME_BYTES}

    # -- files ------------------------------------------------------------------------------

    @_answering
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
            caller=self._caller(),
        )
        locked = path if access != os.O_RDONLY and path in LOCKED_WHILE_OPEN else ""
        if locked:
            try:
                self._lock(path)
            except KernelError:
                file.close()
                raise
        handle = next(self._numbers)
        self._handles[handle] = _Handle(file, 0 if flags & os.O_APPEND else None, locked)
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

    @_answering
    def read(self, _path: None, size: int, offset: int, fh: int) -> bytes:
        return self._handles[fh].file.read(offset, size)

    @_answering
    def write(self, _path: None, data: bytes, offset: int, fh: int) -> int:
        handle = self._handles[fh]
        uid, _, pid = mfusepy.fuse_get_context()
        sys_rawio = self._callers.has_rawio(uid, pid)
        if handle.position is None:
            return handle.file.write(offset, data, sys_rawio=sys_rawio)
        done = handle.file.write(handle.position, data, sys_rawio=sys_rawio)
        handle.position += done
        return done

    @_answering
    def release(self, _path: None, fh: int) -> int:
        handle = self._handles.pop(fh)
        handle.file.close()
        if handle.locked_path:
            self._unlock(handle.locked_path)
        return 0

    @_answering
    def truncate(self, path: str | None, _length: int, fh: int | None = None) -> int:
        """Does nothing, as in sysfs, when the caller may write. mfusepy gives no path together with
        a handle."""
        if fh is None and path is not None:
            self._require_writable(path)
        return 0

    def _require_writable(self, path: str) -> None:
        """Whether the mode lets the caller write; root may truncate what it can't write, too."""
        if not (self._caller().is_root or self._files.stat(path).mode & stat.S_IWOTH):
            raise KernelError(errno.EACCES, path)

    # -- what sysfs refuses -----------------------------------------------------------------

    @_answering
    def create(self, path: str, _mode: int, _flags: int) -> NoReturn:
        """libfuse also calls this for `mknod` of a plain file."""
        raise KernelError(errno.EACCES, path)

    @_answering
    def mknod(self, path: str, _mode: int, _device: int) -> NoReturn:
        self._refuse(path)

    @_answering
    def mkdir(self, path: str, _mode: int) -> NoReturn:
        self._refuse(path)

    @_answering
    def unlink(self, path: str) -> NoReturn:
        self._refuse(path)

    @_answering
    def rmdir(self, path: str) -> NoReturn:
        self._refuse(path)

    @_answering
    def symlink(self, path: str, _target: str) -> NoReturn:
        self._refuse(path)

    @_answering
    def rename(self, path: str, _new: str) -> NoReturn:
        self._refuse(path)

    def _refuse(self, path: str) -> NoReturn:
        """Refuse to change a directory: EPERM for root, EACCES for other users."""
        raise KernelError(errno.EPERM if self._caller().is_root else errno.EACCES, path)

    @_answering
    def link(self, path: str, _source: str) -> NoReturn:
        raise KernelError(errno.EPERM, path)

    # A real kernel lets root do these three. Here modes, owners and times never change.

    @_answering
    def chmod(self, path: str, _mode: int) -> NoReturn:
        raise KernelError(errno.EPERM, path)

    @_answering
    def chown(self, path: str, _uid: int, _gid: int) -> NoReturn:
        raise KernelError(errno.EPERM, path)

    @_answering
    def utimens(self, path: str, _times: tuple[int, int] | None = None) -> NoReturn:
        raise KernelError(errno.EPERM, path)

    # -- inside -----------------------------------------------------------------------------

    def _caller(self) -> Caller:
        uid, _, pid = mfusepy.fuse_get_context()
        return self._callers.caller(uid, pid)
