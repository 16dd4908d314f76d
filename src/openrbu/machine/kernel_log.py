"""The log of a machine's kernel: what its drivers had to say, and when it was started.

A file of JSON lines in the machine's directory, kernel.log. It goes on over restarts, until the
machine is removed. When it is larger than `MAX_BYTES`, its older half is dropped. A log that can't
be written disturbs nothing: the line is lost.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from openrbu.errors import DamagedInputError
from openrbu.file_format import parse_object
from openrbu.machine.clock import Clock
from openrbu.machine.store import disk_errors
from openrbu.system.files import write_whole
from openrbu.system.kept_files import open_kept, read_kept
from openrbu.typed_json import Natural, read, to_text
from openrbu.units import KIB

MAX_BYTES = 256 * KIB

_MAX_TEXT = 4096
_MAX_LINE_BYTES = 32 * KIB  # a character may be six bytes of JSON
_NUMBER = re.compile(rb'^\{"number": (\d+)', re.MULTILINE)
_FILE = "kernel.log"


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line. `number` counts all lines that there were, from 1 on. `at`: date and time, ISO
    8601. `event`: `boot` when a kernel starts, else `line`. `boot_id`: which start of the kernel it
    belongs to."""

    number: Natural
    at: str
    event: Literal["boot", "line"]
    boot_id: str
    text: str

    @property
    def when(self) -> dt.datetime:
        """`at`."""
        return dt.datetime.fromisoformat(self.at)


class KernelLog:
    """The log of the machine in `directory`, to be written. `also` gets the texts, too."""

    def __init__(self, directory: Path, clock: Clock, also: Callable[[str], None]) -> None:
        self._path, self._clock, self._also = directory / _FILE, clock, also

    def of_boot(self, boot_id: str, *, is_new: bool, by_kexec: bool) -> Callable[[str], None]:
        """What takes the texts of the kernel of this start. `is_new`: it starts now; by kexec,
        where `by_kexec`."""
        if is_new:
            how = "by kexec, without the BIOS" if by_kexec else "after the BIOS"
            self._write("boot", boot_id, f"the kernel starts, {how}")

        def add(text: str) -> None:
            self._write("line", boot_id, text)
            self._also(text)

        return add

    def _write(self, event: Literal["boot", "line"], boot_id: str, text: str) -> None:
        with contextlib.suppress(OSError):
            fd = open_kept(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
            try:
                at = self._clock().isoformat(timespec="microseconds")
                line = LogLine(_last_number(fd) + 1, at, event, boot_id, text[:_MAX_TEXT])
                os.write(fd, to_text(line).encode() + b"\n")
                is_large = os.fstat(fd).st_size > MAX_BYTES
            finally:
                os.close(fd)
            if is_large:
                data = read_kept(self._path, max_bytes=2 * MAX_BYTES)
                write_whole(self._path, data[data.index(b"\n", len(data) // 2) + 1 :])


def read_log(directory: Path) -> tuple[LogLine, ...]:
    """The log of the machine in `directory`. A line that is damaged, such as one that a full disk
    has cut, is passed over.

    :raise MachineError: when it can't be read.
    """
    with disk_errors(directory):
        return _lines(directory / _FILE)


def _lines(path: Path) -> tuple[LogLine, ...]:
    """
    :raise OSError: when the file can't be read.
    """
    lines: list[LogLine] = []
    with contextlib.suppress(FileNotFoundError):
        for line in read_kept(path, max_bytes=2 * MAX_BYTES).splitlines():
            with contextlib.suppress(DamagedInputError, ValueError):
                read_line = read(LogLine, parse_object(line))
                _ = read_line.when  # raises when it is none
                lines.append(read_line)
    return tuple(lines)


def _last_number(fd: int) -> int:
    """The number of the last line in an open file; 0: there is none. It reads the end only, so a
    long log costs no more than a short one.

    :raise OSError: when it can't be read.
    """
    end = os.fstat(fd).st_size
    numbers = _NUMBER.findall(os.pread(fd, _MAX_LINE_BYTES, max(0, end - _MAX_LINE_BYTES)))
    return int(numbers[-1]) if numbers else 0
