"""A machine's files with each call told to a trace, as they are under `rbu run --trace`.

What a call writes is not kept, but for short plain text: `echo 1 > loading` shows the 1, and an
image or an SMI buffer nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shlex
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from openrbu.buffers import Buffer
from openrbu.drivers.sysfs import ROOT, Caller, Change, Stat
from openrbu.kernel.files import File, Files
from openrbu.run.overlay import COMMANDS

_MAX_TEXT_BYTES = 64

_SECRET = "/dcdbas/"
"""In the path of a file whose content is never kept: a password is given to the BIOS by it."""

_STATUS = re.compile(rb"(?:^|\n)exit (\d+)\n\Z")
"""The end of an answer to a stand-in (`openrbu.run.answers`)."""


class Calls(Protocol):
    """What is told of each call."""

    def call(self, event: str, pid: int, **values: Any) -> None:
        """A call of the process `pid`."""


def errno_name(number: int) -> str:
    """The name of an errno, such as `ENOENT`."""
    return errno.errorcode.get(number, str(number))


def short_text(path: str, offset: int, data: Buffer) -> str | None:
    """What a trace keeps of what was read or written: text, if it is short and plain and begins
    the file."""
    if offset or not len(data) or len(data) > _MAX_TEXT_BYTES or _SECRET in path:
        return None
    text = bytes(data).decode("ascii", "replace")
    return text if text.rstrip("\n").isprintable() and text.isascii() else None


class TracedFiles:
    """`files`, as `kernel.files.Files`, with each call told to `trace`. Any thread may call.

    `caller_pid`: the process whose call is being answered. `counts`: whether a path is traced.
    """

    def __init__(
        self,
        files: Files,
        trace: Calls,
        caller_pid: Callable[[], int],
        counts: Callable[[str], bool] = lambda path: True,
    ) -> None:
        self._files, self._trace, self._pid, self._counts = files, trace, caller_pid, counts

    def stat(self, path: str) -> Stat:
        with self._looking_up(path):
            return self._files.stat(path)

    def change(self, path: str, wanted: Change, caller: Caller = ROOT) -> None:
        self._files.change(path, wanted, caller)

    def list(self, path: str) -> list[str]:
        return self._files.list(path)

    def readlink(self, path: str) -> str:
        return self._files.readlink(path)

    def open(
        self, path: str, *, reading: bool = False, writing: bool = False, caller: Caller = ROOT
    ) -> File:
        if not self._counts(path):
            return self._files.open(path, reading=reading, writing=writing, caller=caller)
        if path == COMMANDS:
            file = self._files.open(path, reading=reading, writing=writing, caller=caller)
            return TracedCommand(file, self._trace, self._pid())
        access = "read_write" if reading and writing else "write" if writing else "read"
        with traced(self._trace, "open", self._pid(), path=path, access=access):
            file = self._files.open(path, reading=reading, writing=writing, caller=caller)
        return TracedFile(file, path, self._trace, self._pid)

    @contextlib.contextmanager
    def _looking_up(self, path: str) -> Iterator[None]:
        """In this block a path is looked up: the trace gets a line when it is not there."""
        try:
            yield
        except OSError as error:
            if self._counts(path):
                failure = errno_name(error.errno or errno.EIO)
                self._trace.call("lookup", self._pid(), path=path, errno=failure)
            raise


class TracedFile:
    """A file that a program has open, with each call told to a trace."""

    def __init__(self, file: File, path: str, trace: Calls, caller_pid: Callable[[], int]) -> None:
        self._file, self._path, self._trace, self._pid = file, path, trace, caller_pid

    def stat(self) -> Stat:
        return self._file.stat()

    def read(self, offset: int, size_bytes: int) -> bytes:
        with self._traced("read", offset, size_bytes) as values:
            data = self._file.read(offset, size_bytes)
            values.update(done_bytes=len(data), text=short_text(self._path, offset, data))
        return data

    def write(self, offset: int, data: Buffer, *, sys_rawio: bool = True) -> int:
        with self._traced("write", offset, len(data)) as values:
            values.update(text=short_text(self._path, offset, data))
            done = self._file.write(offset, data, sys_rawio=sys_rawio)
            values.update(done_bytes=done)
        return done

    def ioctl(self, request: int) -> None:
        """Tell of an ioctl, which no file of the kernel answers."""
        not_answered = errno_name(errno.ENOTTY)
        values = {"path": self._path, "request": request, "errno": not_answered}
        self._trace.call("ioctl", self._pid(), **values)

    def close(self) -> None:
        self._file.close()

    def _traced(
        self, event: str, offset: int, size_bytes: int
    ) -> contextlib.AbstractContextManager[dict[str, Any]]:
        return traced(
            self._trace, event, self._pid(),
            path=self._path, offset_bytes=offset, size_bytes=size_bytes,
        )  # fmt: skip


class TracedCommand:
    """What a stand-in asks, such as that of modprobe(8): one line of a trace, when it is answered.
    `pid`: the stand-in."""

    def __init__(self, file: File, trace: Calls, pid: int) -> None:
        self._file, self._trace, self._pid = file, trace, pid
        self._asked, self._is_told = b"", False

    def stat(self) -> Stat:
        return self._file.stat()

    def write(self, offset: int, data: Buffer, *, sys_rawio: bool = True) -> int:
        self._asked += bytes(data)
        return self._file.write(offset, data, sys_rawio=sys_rawio)

    def read(self, offset: int, size_bytes: int) -> bytes:
        answer = self._file.read(offset, size_bytes)
        status = _STATUS.search(answer)
        if status is not None and not self._is_told:
            self._is_told = True
            called, _, *words = [os.fsdecode(word) for word in self._asked.split(b"\0")[:-1]]
            text = shlex.join([os.path.basename(called), *words])  # noqa: PTH119  (no path of ours)
            self._trace.call("command", self._pid, text=text, exit_code=int(status[1]))
        return answer

    def close(self) -> None:
        self._file.close()


@contextlib.contextmanager
def traced(trace: Calls, event: str, pid: int, **values: Any) -> Iterator[dict[str, Any]]:
    """Tell a trace of a call, which is the block, with what it ends with. The block may add to
    `values`."""
    try:
        yield values
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        trace.call(event, pid, **values, errno=errno_name(number or errno.EIO))
        raise
    trace.call(event, pid, **values)
