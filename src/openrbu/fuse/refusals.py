"""What sysfs refuses whoever asks, and how the errors of a file system are answered."""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar, cast

from openrbu.drivers.sysfs import Caller
from openrbu.errors import KernelError, MachineError
from openrbu.fuse.callers import CallerMap
from openrbu.fuse.library import mfusepy

_Operation = TypeVar("_Operation", bound=Callable[..., Any])


def answering(operation: _Operation) -> _Operation:
    """Turn every exception of an operation into an errno; log those that are defects."""

    @functools.wraps(operation)
    def answer(self: Refusals, *arguments: Any) -> Any:
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


class Refusals(mfusepy.Operations):  # type: ignore[misc]  # mfusepy has no types
    """The operations that make, remove and rename. `log` gets a line for each defect."""

    def __init__(self, callers: CallerMap, log: Callable[[str], None]) -> None:
        self.callers, self._log = callers, log

    def unexpected(self, name: str, error: Exception) -> OSError:
        """Log an error that no program can have caused; the error to return for it."""
        self._log(f"{name}: {type(error).__name__}: {error}")
        return KernelError(errno.EIO)

    def caller(self) -> Caller:
        """Who makes the call that is being answered."""
        return self.callers.caller(*mfusepy.fuse_get_context())

    @answering
    def create(self, path: str, _mode: int, _flags: int) -> NoReturn:
        """libfuse also calls this for `mknod` of a plain file."""
        raise KernelError(errno.EACCES, path)

    @answering
    def mknod(self, path: str, _mode: int, _device: int) -> NoReturn:
        self._refuse(path)

    @answering
    def mkdir(self, path: str, _mode: int) -> NoReturn:
        self._refuse(path)

    @answering
    def unlink(self, path: str) -> NoReturn:
        self._refuse(path)

    @answering
    def rmdir(self, path: str) -> NoReturn:
        self._refuse(path)

    @answering
    def symlink(self, path: str, _target: str) -> NoReturn:
        self._refuse(path)

    @answering
    def rename(self, path: str, _new: str) -> NoReturn:
        self._refuse(path)

    def _refuse(self, path: str) -> NoReturn:
        """Refuse to change a directory: EPERM for root, EACCES for other users."""
        raise KernelError(errno.EPERM if self.caller().is_root else errno.EACCES, path)

    @answering
    def link(self, path: str, _source: str) -> NoReturn:
        raise KernelError(errno.EPERM, path)
