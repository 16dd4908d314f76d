"""Traces what a program under `rbu run` does with the machine, into a file of JSON lines.

A `Trace` writes the file; `openrbu.run.traced_files` stands around the machine's files and tells it
each call. Where no trace is asked for, neither is there.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol

from openrbu import __version__
from openrbu.bios.post_report import PostReport
from openrbu.errors import MachineError, ObstacleError, UsageError
from openrbu.kernel.files import File, Files
from openrbu.machine.base import Machine
from openrbu.machine.clock import local_now
from openrbu.machine.kernel_log import read_log
from openrbu.run.overlay import Overlay
from openrbu.run.trace_file import SCHEMA, TraceEvent, TraceHead, is_trace
from openrbu.run.traced_files import TracedFile, TracedFiles, errno_name
from openrbu.typed_json import to_document

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
        from openrbu.system.denied import why_refused  # noqa: PLC0415  (start-up time)

        why = why_refused(error, path)
        raise ObstacleError(f"the trace can't be written: {path}: {why}") from None
    return fd


def _post_words(post: PostReport) -> str:
    """What a BIOS did at a start."""
    if post.completion_code is None:
        words = f"BIOS {post.version_after}, which tried no update"
    else:
        versions = f"{post.version_before} -> {post.version_after}"
        words = f"BIOS {versions}, completion code {post.completion_code.value:#06x}"
    return f"{words}: {post.reason}" if post.reason else words
