"""A guest that is up: calls are made in it, and programs run.

Three things can become of a guest meanwhile. It restarts or switches itself off: then it stands
still, RAM and all, and `GuestStoppedError` says which. It is lost: its kernel died, QEMU ended, or
it does not answer; `GuestLostError` says so, and has what it wrote to its console last. That is
never to be taken for an answer of the kernel's.
"""

from __future__ import annotations

import os
import re
import select
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from openrbu.buffers import Buffer
from openrbu.errors import OpenRbuError
from openrbu.lab import agent, calls
from openrbu.lab.qemu import Qemu
from openrbu.machine import wire
from openrbu.signals import LOOK_UP_S

START_LIMIT_S = 300.0
"""From the processor's start to the agent's first word. Emulated: 6 s; on a busy machine, 30 s."""

CALLS_LIMIT_S = 120.0

_TAIL_CHARACTERS = 2000

_DEATH = re.compile(r"Kernel panic|Oops|general protection fault|BUG: ")

Output = Callable[[int, bytes], None]
"""Takes what a program writes: to 1, standard output, or 2, standard error."""


class GuestLostError(OpenRbuError):
    """The guest is gone, and what was asked of it has no answer. `console`: what it said last."""

    def __init__(self, why: str, console: str = "") -> None:
        super().__init__(f"the guest was lost: {why}")
        self.console = console[-_TAIL_CHARACTERS:]
        if self.console:
            self.add_note(f"its console:\n{self.console}")


class GuestStoppedError(OpenRbuError):
    """The guest asked for it: `reason` is QEMU's, `guest-reset` or `guest-shutdown`."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the guest stopped: {reason}")
        self.reason = reason


class Guest:
    """What runs on `qemu`, whose agent is at the other end of `connection`. The console's output
    goes to the file `console`."""

    def __init__(self, qemu: Qemu, connection: socket.socket, console: int) -> None:
        self._qemu, self._connection, self._console = qemu, connection, console
        self._deadline_s: float | None = None
        self.release = ""

    def wait_until_up(self, limit_s: float = START_LIMIT_S) -> None:
        """Wait for the agent's greeting.

        :raise GuestLostError: when it does not come.
        :raise GuestStoppedError: when the guest stopped before.
        """
        header = self._receive(limit_s).header
        if header.get("protocol") != agent.PROTOCOL:
            raise GuestLostError("its agent speaks another language", self.console_text)
        self.release = header["release"]

    def calls(self, wanted: Sequence[calls.Call]) -> list[calls.Result]:
        """Make system calls, one after the other; what each of them answered.

        :raise GuestLostError: when there is no answer.
        """
        header, payload = calls.calls_to_message(wanted)
        answer = self._ask("calls", header, payload, limit_s=CALLS_LIMIT_S)
        return calls.results_of_message(answer.header["result"], answer.payload)

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: str = "/",
        standard_input: bytes = b"",
        output: Output = lambda stream, data: None,
        limit_s: float | None = None,
    ) -> int:
        """Run a program to its end; its exit status.

        :raise OSError: when it can't be run.
        :raise GuestStoppedError: when the guest stopped before.
        :raise GuestLostError: when the guest was lost.
        """
        words = {"argv": list(argv), "env": dict(env), "cwd": cwd}
        answer = self._ask("run", words, standard_input, limit_s=limit_s, output=output)
        return int(answer.header["result"]["status"])

    def shell(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: str = "/") -> int:
        """Run a program on the terminal that QEMU shares; its exit status.

        :raise OSError, GuestStoppedError, GuestLostError: as `run`.
        """
        columns, rows = os.get_terminal_size()
        size = {"rows": rows, "columns": columns}
        words = {"argv": list(argv), "env": dict(env), "cwd": cwd, **size}
        return int(self._ask("shell", words).header["result"]["status"])

    @property
    def console_text(self) -> str:
        """All that the BIOS and the kernel said."""
        size = os.fstat(self._console).st_size
        return os.pread(self._console, size, 0).decode(errors="replace").replace("\r", "")

    def close(self) -> None:
        """Let go of the channel. The guest itself is QEMU's."""
        self._connection.close()

    # -- the channel ------------------------------------------------------------------------

    def _ask(
        self,
        what: str,
        words: Mapping[str, Any],
        payload: Buffer = b"",
        *,
        limit_s: float | None = None,
        output: Output | None = None,
    ) -> wire.Message:
        try:
            wire.send(self._connection, {"do": what, "with": words}, payload)
        except OSError:
            self._check_on_qemu()
            raise GuestLostError("it takes no requests any more", self.console_text) from None
        while True:
            message = self._receive(limit_s)
            if "out" in message.header and output is not None:
                output(message.header["out"], message.payload)
                continue
            if "error" in message.header:
                raise wire.error_of(message.header["error"])
            return message

    def _receive(self, limit_s: float | None) -> wire.Message:
        """The next message, or why none will come."""
        self._deadline_s = None if limit_s is None else time.monotonic() + limit_s
        try:
            message = wire.receive(self)
        except (wire.WireError, OSError):
            message = None
        if message is None:
            self._check_on_qemu()
            raise GuestLostError("its agent has ended", self.console_text)
        return message

    def sendall(self, data: Buffer, flags: int = 0, /) -> None:
        """For `wire`."""
        self._connection.sendall(data, flags)

    def recv(self, size_bytes: int, /) -> bytes:
        """For `wire`: what has come, or b"" when no more will.

        :raise GuestLostError: when the time is over.
        """
        while True:
            channel = self._connection.fileno()
            ready, _, _ = select.select([channel, self._qemu.waker], [], [], LOOK_UP_S)
            if channel in ready:
                return self._connection.recv(size_bytes)
            if ready:
                return b""
            if self._deadline_s is not None and time.monotonic() > self._deadline_s:
                raise GuestLostError("it does not answer", self.console_text)

    def _check_on_qemu(self) -> None:
        """Say what became of it, where it is QEMU that ended or stands still."""
        console = self.console_text
        if _DEATH.search(console):
            raise GuestLostError("its kernel died", console)
        if self._qemu.stop_reason is not None:
            raise GuestStoppedError(self._qemu.stop_reason)
        if self._qemu.has_ended:
            raise GuestLostError(f"QEMU ended: {self._qemu.said.strip()}", console)
