"""Answers the stand-ins of `rbu run`: what a command that acts on the machine does and says.

Theory of operation. A stand-in (`openrbu.run.stand_ins`) opens the file `overlay.COMMANDS` for
reading and writing, writes its words there, each with a NUL byte after it, and reads. What it reads
is a program for sh(1), which says what the real command would say, and ends with its exit status.
With the first read the words are complete; the command is carried out then.
"""

from __future__ import annotations

import errno
import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from openrbu.buffers import Buffer
from openrbu.drivers.dell_rbu import NAME as RBU
from openrbu.drivers.sysfs import Caller, Stat
from openrbu.errors import KernelError
from openrbu.kernel.faults import NO_MODULE
from openrbu.machine.base import Machine
from openrbu.run import module_commands, power_commands
from openrbu.run.power import PowerSwitch
from openrbu.run.said import PowerCommand, Said

_WAITING = ("PATH=/usr/bin:/bin:$PATH", "exec sleep 2147483647")
"""Waits for ever, as this process itself. A child would not do: one that is being started while
SIGTERM is sent does not get it, and runs until SIGKILL."""

_MAX_REQUEST_BYTES = 4 << 20  # more than Linux lets a command line have, execve(2)

ANSWERS: Mapping[str, Callable[[PowerCommand], Said]] = MappingProxyType(
    {
        "halt": power_commands.halt,
        "init": power_commands.init,
        "insmod": module_commands.insmod,
        "kexec": power_commands.kexec,
        "lsmod": module_commands.lsmod,
        "modprobe": module_commands.modprobe,
        "poweroff": power_commands.halt,
        "reboot": power_commands.halt,
        "rmmod": module_commands.rmmod,
        "shutdown": power_commands.shutdown,
        "systemctl": power_commands.systemctl,
        "telinit": power_commands.init,
    }
)
"""What carries out a command, by its name."""

Answer = Callable[[Sequence[str], Caller], Said]
"""Carries out a command of a caller, as `Desk.answer`."""


@dataclass(frozen=True)
class Desk:
    """Where the stand-ins ask: it has the machine, and the switch for its power."""

    machine: Machine
    switch: PowerSwitch

    def open(self, caller: Caller, stat: Stat) -> Request:
        """Open the file for one command of `caller`. `stat` is what fstat(2) says of it."""
        return Request(self.answer, caller, stat)

    def answer(self, words: Sequence[str], caller: Caller) -> Said:
        """Carry out a command. The first two words are what it was called by, and its name.

        :raise MachineError: when the machine is off, or its process has ended.
        """
        if len(words) < 2:
            raise KernelError(errno.EINVAL)
        called = os.path.basename(words[0])  # noqa: PTH119  (a text, and not a path of ours)
        name = called if called in ANSWERS else words[1]
        if name not in ANSWERS:
            raise KernelError(errno.EINVAL)
        command = PowerCommand(
            name,
            tuple(words[2:]),
            is_root=caller.is_root,
            lacks=frozenset((RBU,) if NO_MODULE.name in self.machine.config.faults else ()),
            machine=self.machine,
            switch=self.switch,
        )
        return ANSWERS[name](command)


class Request:
    """One command: a `kernel.files.File` that takes its words and gives the answer."""

    def __init__(self, answer: Answer, caller: Caller, stat: Stat) -> None:
        self._carry_out, self._caller, self._stat = answer, caller, stat
        self._words = b""
        self._answer: bytes | None = None

    def stat(self) -> Stat:
        return self._stat

    def write(self, _offset: int, data: Buffer, *, sys_rawio: bool = True) -> int:
        """More of the command's words.

        :raise KernelError: EFBIG when there are too many.
        """
        data = bytes(data)
        if self._answer is not None or len(self._words) + len(data) > _MAX_REQUEST_BYTES:
            raise KernelError(errno.EFBIG)
        self._words += data
        return len(data)

    def read(self, _offset: int, size_bytes: int) -> bytes:
        """More of the answer. Before the first of it the command is carried out.

        :raise KernelError: EINVAL when the words are of no command.
        :raise MachineError: as `Desk.answer`.
        """
        if self._answer is None:
            words = [os.fsdecode(word) for word in self._words.split(b"\0")[:-1]]
            self._answer = _script(self._carry_out(words, self._caller))
        data, self._answer = self._answer[:size_bytes], self._answer[size_bytes:]
        return data

    def close(self) -> None:
        """Does nothing: a command that was not asked for its answer is not carried out."""


def _script(said: Said) -> bytes:
    """A program for sh(1) that says it."""
    lines = [f"printf '%s\\n' {shlex.quote(line)}" for line in said.out]
    lines += [f"printf '%s\\n' {shlex.quote(line)} >&2" for line in said.errors]
    if said.waits:
        lines += _WAITING
    lines.append(f"exit {said.status}")  # a trace reads it, also where nothing comes to it
    return os.fsencode("\n".join(lines) + "\n")
