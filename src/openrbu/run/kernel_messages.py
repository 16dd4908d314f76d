"""The log of a virtual machine's kernel as `/dev/kmsg`, where dmesg(1) reads it.

Source of the format: Documentation/ABI/testing/dev-kmsg of Linux. Only what the running kernel said
is in it. What is written is a line of the log (`rbu machine log`).
"""

from __future__ import annotations

import contextlib
import errno
import re
from dataclasses import dataclass

from openrbu.buffers import Buffer
from openrbu.drivers.sysfs import Caller, Stat
from openrbu.errors import KernelError
from openrbu.machine.base import Machine
from openrbu.machine.clock import local_now
from openrbu.machine.kernel_log import KernelLog, LogLine, read_log

_INFORMATION = 6  # syslog(2): the facility "kern" and the level KERN_INFO

_PREFIX = re.compile(r"<\d{1,4}>")
"""The facility and level that a program may write before a text."""


@dataclass(frozen=True)
class KernelMessages:
    """The log of a machine's kernel, to be opened."""

    machine: Machine

    def open(self, caller: Caller, stat: Stat, *, writing: bool) -> OpenMessages:
        """Open it. `stat` is what fstat(2) says of it.

        :raise KernelError: EACCES when a plain user wants to write.
        """
        if writing and not caller.is_root:
            raise KernelError(errno.EACCES)
        return OpenMessages(self.machine, stat)


class OpenMessages:
    """An open `/dev/kmsg`, as `kernel.files.File`: each read is one record, until there is no
    other. It has the records that there were when it was first read."""

    def __init__(self, machine: Machine, stat: Stat) -> None:
        self._machine, self._stat = machine, stat
        self._records: bytes | None = None

    def stat(self) -> Stat:
        return self._stat

    def read(self, offset: int, size_bytes: int) -> bytes:
        """The record at an offset; empty behind the last one.

        :raise KernelError: EINVAL when the record is longer than that.
        :raise MachineError: when the log can't be read.
        """
        if self._records is None:
            lines = read_log(self._machine.directory)
            self._records = _records(lines, _boot_id(self._machine))
        end = self._records.find(b"\n", offset) + 1
        if not end:
            return b""
        if end - offset > size_bytes:
            raise KernelError(errno.EINVAL)
        return self._records[offset:end]

    def write(self, _offset: int, data: Buffer, *, sys_rawio: bool = True) -> int:
        """Add a line to the log."""
        text = _PREFIX.sub("", bytes(data).decode(errors="replace").rstrip("\n"), count=1)
        log = KernelLog(self._machine.directory, local_now, lambda text: None)
        log.of_boot(_boot_id(self._machine), is_new=False, by_kexec=False)(text)
        return len(data)

    def close(self) -> None:
        """Does nothing."""


def _boot_id(machine: Machine) -> str:
    """
    :raise MachineError: when the machine is off.
    """
    path = "/proc/sys/kernel/random/boot_id"
    with contextlib.closing(machine.open(path, reading=True)) as file:
        return file.read(0, 64).decode().strip()


def _records(lines: tuple[LogLine, ...], boot_id: str) -> bytes:
    """What the kernel of this start said, as records."""
    own = [line for line in lines if line.boot_id == boot_id]
    records = []
    for number, line in enumerate(own):
        microseconds = max(0, round((line.when - own[0].when).total_seconds() * 1e6))
        text = "".join(each if each.isprintable() else _escaped(each) for each in line.text)
        records.append(f"{_INFORMATION},{number},{microseconds},-;{text}\n")
    return "".join(records).encode(errors="replace")


def _escaped(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in character.encode(errors="replace"))
