"""Traces what a program under `rbu run` does with the machine, into a file of JSON lines.

A `Trace` writes the file; `TracedFiles` stands around the machine's files and tells it each call.
Where no trace is asked for, neither is there. What a call writes is not kept, but for short plain
text: `echo 1 > loading` shows the 1, and an image or an SMI buffer nothing.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shlex
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol

from openrbu import __version__
from openrbu.bios.post_report import PostReport
from openrbu.buffers import Buffer
from openrbu.drivers.sysfs import ROOT, Caller, Change, Stat
from openrbu.errors import MachineError, ObstacleError, UsageError
from openrbu.kernel.files import File, Files
from openrbu.machine.base import Machine
from openrbu.machine.clock import local_now
from openrbu.machine.kernel_log import read_log
from openrbu.run.overlay import COMMANDS, Overlay
from openrbu.run.trace_file import SCHEMA, TraceEvent, TraceHead, is_trace
from openrbu.typed_json import to_document

_MAX_TEXT_BYTES = 64

_SECRET = "/dcdbas/"
"""In the path of a file whose content is never kept: a password is given to the BIOS by it."""

_FIELDS = tuple(field.name for field in fields(TraceEvent))


class TracedProgram(Protocol):
    """What a trace wants to know of a program."""

    @property
    def command(self) -> Sequence[str]:
        """Its words."""

    def has_begun(self, pid: int) -> bool:
        """Whether it has begun, when the process `pid` makes a call: what is done before that is
        not the program's."""


class Trace:
    """A trace that is being written. Any thread may call.

    `log` gets one line when the file can't be written any more; the program goes on.

    :raise UsageError: when `path` has something else than a trace, or is `-`.
    :raise ObstacleError: when it can't be written.
    """

    def __init__(
        self,
        path: Path,
        *,
        log: Callable[[str], None] = lambda line: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._log, self._now = path, log, now
        self._lock = threading.Lock()
        self._fd: int | None = _open(path)
        self._began, self._began_at = now(), local_now()
        self._machine: Path | None = None
        self._status: int | None = None
        self._names: dict[int, str | None] = {}

    def begin(
        self,
        machine: Machine,
        overlay: Overlay,
        program: TracedProgram,
        caller_pid: Callable[[], int],
    ) -> Files:
        """Write the first line, when this is the first program. Returns the files of `overlay`,
        whose calls are traced.

        `caller_pid`: the process whose call is being answered.
        """
        if self._machine is None:
            self._write_head(machine, program.command)
        return TracedFiles(
            overlay,
            self,
            caller_pid,
            lambda path: program.has_begun(caller_pid()) and overlay.is_machines(path),
        )

    def _write_head(self, machine: Machine, command: Sequence[str]) -> None:
        from openrbu.formats import dell  # noqa: PLC0415  (start-up time)

        self._began, self._began_at = self._now(), local_now()
        self._machine = machine.directory
        config = machine.config
        head = TraceHead(
            schema=SCHEMA,
            openrbu=__version__,
            began_at=self._began_at.isoformat(timespec="seconds"),
            machine=machine.name,
            model=config.model,
            profile=config.profile,
            bios_version=dell.BiosInformation.of(machine.status().tables).version,
            command=tuple(command),
        )
        self._write(to_document(head))

    def call(self, event: str, pid: int, **values: Any) -> None:
        """A call on a file by the process `pid`; `values` are fields of `TraceEvent`."""
        new_name = event in ("open", "lookup")  # later on it may have executed another program
        self.add(event, pid=pid or None, program=self._name(pid, again=new_name), **values)

    def port(
        self,
        pid: int,
        port: int,
        size_bytes: int,
        value: int,
        *,
        writing: bool,
        error: int | None = None,
    ) -> None:
        """A port instruction: `in`, or with `writing` `out`. `error`: the errno that it failed
        with."""
        access = "write" if writing else "read"
        failure = None if error is None else errno_name(error)
        self.call(
            "port", pid, port=port, size_bytes=size_bytes, value=value, access=access, errno=failure
        )

    def ioctl(self, file: File, request: int) -> None:
        """An ioctl on a file, which no file of the kernel answers."""
        if isinstance(file, TracedFile):
            file.ioctl(request)

    def restart(self, action: str, post: PostReport | None = None) -> None:
        """The machine did what a program has asked for: `action`. `post`: what its BIOS did; None:
        it did not run."""
        text = action if post is None else f"{action}: {_post_words(post)}"
        self.add("restart", text=text)

    def end(self, status: int) -> None:
        """The program ended, with this exit status, or by this signal (negative); add what the
        machine's kernel said meanwhile, and close the file."""
        self.program_ended(status)
        self.close()

    def program_ended(self, status: int) -> None:
        """A program ended, with this exit status, or by this signal (negative). That of the first
        one is the end of the trace."""
        if self._status is None:
            self._status = status

    def close(self) -> None:
        """Write the end, where there is one, and close the file."""
        if self._status is not None:
            self._add_kernel_log()
            self.add("end", exit_code=self._status)
        with self._lock:
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None

    def _add_kernel_log(self) -> None:
        if self._machine is None:
            return
        with contextlib.suppress(MachineError):
            for line in read_log(self._machine):
                if line.when >= self._began_at and line.event == "line":
                    time_s = (line.when - self._began_at).total_seconds()
                    self.add("log", time_s=time_s, text=line.text)

    def add(self, event: str, *, time_s: float | None = None, **values: Any) -> None:
        """Write a line; `values` are fields of `TraceEvent`. One that is None is left out.
        `time_s`: None: now."""
        if time_s is None:
            time_s = self._now() - self._began
        document: dict[str, Any] = {"event": event, "time_s": round(time_s, 6)}
        for name in _FIELDS:
            if values.get(name) is not None:
                document[name] = values[name]
        self._write(document)

    def _write(self, document: dict[str, Any]) -> None:
        line = (json.dumps(document) + "\n").encode()
        with self._lock:
            if self._fd is None:
                return
            try:
                while line:
                    line = line[os.write(self._fd, line) :]
            except OSError as error:
                os.close(self._fd)
                self._fd = None
                self._log(f"the trace ends here: {self._path}: {error.strerror}")

    def _name(self, pid: int, *, again: bool) -> str | None:
        """The name of a process, which is looked up `again` when it may be another one now."""
        if again or pid not in self._names:
            with contextlib.suppress(OSError):
                comm = Path(f"/proc/{pid}/comm").read_bytes()
                self._names[pid] = comm.decode(errors="replace").rstrip("\n")
        return self._names.get(pid)


def _open(path: Path) -> int:
    """A descriptor for the file of a trace, which is empty then.

    :raise UsageError | ObstacleError: as `Trace`.
    """
    if str(path) == "-":
        raise UsageError(
            "--trace -: a trace goes to a file, because standard output and error are the "
            "program's; give a file, and show it with rbu trace FILE"
        )
    try:
        if path.is_file() and path.stat().st_size and not is_trace(path):
            raise UsageError(f"{path} has something else than a trace, which is not overwritten")
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        if stat.S_ISREG(os.fstat(fd).st_mode):
            os.ftruncate(fd, 0)
    except OSError as error:
        raise ObstacleError(f"the trace can't be written: {path}: {error.strerror}") from None
    return fd


def _post_words(post: PostReport) -> str:
    """What a BIOS did at a start."""
    if post.completion_code is None:
        words = f"BIOS {post.version_after}, which tried no update"
    else:
        versions = f"{post.version_before} -> {post.version_after}"
        words = f"BIOS {versions}, completion code {post.completion_code.value:#06x}"
    return f"{words}: {post.reason}" if post.reason else words


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
        trace: Trace,
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

    def __init__(self, file: File, path: str, trace: Trace, caller_pid: Callable[[], int]) -> None:
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

    def __init__(self, file: File, trace: Trace, pid: int) -> None:
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


_STATUS = re.compile(rb"(?:^|\n)exit (\d+)\n\Z")
"""The end of an answer to a stand-in (`openrbu.run.answers`)."""


@contextlib.contextmanager
def traced(trace: Trace, event: str, pid: int, **values: Any) -> Iterator[dict[str, Any]]:
    """Tell a trace of a call, which is the block, with what it ends with. The block may add to
    `values`."""
    try:
        yield values
    except Exception as error:
        number = error.errno if isinstance(error, OSError) else None
        trace.call(event, pid, **values, errno=errno_name(number or errno.EIO))
        raise
    trace.call(event, pid, **values)
