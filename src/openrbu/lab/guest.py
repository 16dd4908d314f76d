"""A running guest: makes system calls and runs programs in it.

While a guest runs, it may restart or switch itself off: then QEMU halts it with its RAM as it is,
and `GuestStoppedError` says which of the two. Or the guest is lost: its kernel panicked, QEMU
ended, or the agent does not reply. Then `GuestLostError` says which, and has the end of the
console's output. A lost guest must never be taken for a result of a system call.
"""

from __future__ import annotations

import math
import os
import re
import select
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from openrbu.buffers import Buffer
from openrbu.errors import OpenRbuError, UsageError
from openrbu.lab import agent, call_messages, calls
from openrbu.lab.qemu import Qemu
from openrbu.lab.scratch import text_of
from openrbu.sharing import wire
from openrbu.system.signals import SIGNAL_CHECK_S
from openrbu.system.waiting import Deadline
from openrbu.units import human_size

START_LIMIT_S = 300.0
"""From the processor's start to the agent's greeting. Emulated it takes 6 s, on a busy computer
30 s."""

CALLS_LIMIT_S = 120.0

RESET, SHUTDOWN = "guest-reset", "guest-shutdown"
"""QEMU's words for a restart and for a power-off that the guest requested."""

_TAIL_CHARACTERS = 2000

_DEATH = re.compile(r"Kernel panic.*|Panic on CPU.*|Hardware Dom0 crashed")
"""What a kernel that panics (at an oops, too) writes to the console; and what Xen writes."""

Output = Callable[[int, bytes], None]
"""Gets what a program writes, with the number of the stream: 1, standard output, or 2, standard
error."""


class GuestLostError(OpenRbuError):
    """The guest is lost, and a request to it has no reply. `console`: the end of its output."""

    kind = "guest_lost"

    def __init__(self, why: str, console: str = "") -> None:
        super().__init__(f"the guest was lost: {why}")
        self.console = console[-_TAIL_CHARACTERS:]
        if self.console:
            self.add_note(f"its console:\n{self.console}")


class GuestStoppedError(OpenRbuError):
    """The guest has stopped at its own request: `reason` is `RESET` or `SHUTDOWN`."""

    kind = "guest_stopped"

    def __init__(self, reason: str) -> None:
        super().__init__(f"the guest stopped: {reason}")
        self.reason = reason


class QemuGuest:
    """The guest of `qemu`. Its agent is at the other end of `connection`; its console's output is
    in the file with the descriptor `console`."""

    def __init__(self, qemu: Qemu, connection: socket.socket, console: int) -> None:
        self._qemu, self._connection, self._console = qemu, connection, console
        self._deadline = Deadline("the guest")
        self.release = ""

    def wait_until_up(self, limit_s: float = START_LIMIT_S) -> None:
        """Wait for the agent's greeting.

        :raise GuestLostError: when it does not come within `limit_s`.
        :raise GuestStoppedError: when the guest stops before.
        """
        header = self._receive(limit_s).header
        while "out" in header:  # what a program wrote that another kernel has ended
            header = self._receive(limit_s).header
        if header.get("protocol") != agent.PROTOCOL:
            raise GuestLostError("its agent has another protocol", self.console_text)
        self.release = header["release"]

    def calls(self, wanted: Sequence[calls.Call]) -> list[calls.Result]:
        """Make system calls, one after the other; the result of each.

        :raise GuestLostError: when there is no reply.
        :raise GuestStoppedError: when the guest stops before.
        """
        header, payload = call_messages.calls_to_message(wanted)
        answer = self._ask("calls", header, payload, limit_s=CALLS_LIMIT_S)
        return call_messages.results_of_message(answer.header["result"], answer.payload)

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
        :raise GuestStoppedError: when the guest stops before.
        :raise GuestLostError: when the guest is lost, or `limit_s` is over.
        """
        words = {"argv": list(argv), "env": dict(env), "cwd": cwd}
        answer = self._ask("run", words, standard_input, limit_s=limit_s, output=output)
        return int(answer.header["result"]["status"])

    def run_until_up(self, argv: Sequence[str], *, env: Mapping[str, str]) -> None:
        """Run a program that starts another kernel in the guest without a restart of the machine
        (kexec), and wait until that one's agent replies.

        :raise GuestStoppedError: when the machine restarts.
        :raise GuestLostError: when the agent of another kernel does not start.
        """
        wire.send(self, {"do": "run", "with": {"argv": list(argv), "env": dict(env), "cwd": "/"}})
        self.wait_until_up()

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
        """All that the BIOS and the kernel have written to the console."""
        return text_of(self._console).replace("\r", "")

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
        if len(payload) > wire.MAX_PAYLOAD_BYTES:
            limit = human_size(wire.MAX_PAYLOAD_BYTES)
            raise UsageError(
                f"a request to a guest may have {limit} at most, not {len(payload)} bytes"
            )
        self._set_deadline(limit_s)
        try:
            wire.send(self, {"do": what, "with": words}, payload)
        except OSError:
            self._check_on_qemu()
            raise GuestLostError("it accepts no more requests", self.console_text) from None
        while True:
            message = self._receive(limit_s)
            if "out" in message.header and output is not None:
                output(message.header["out"], message.payload)
                continue
            if "error" in message.header:
                raise wire.error_of(message.header["error"])
            return message

    def _receive(self, limit_s: float | None) -> wire.Message:
        """The next message, or the error because of which none will come."""
        self._set_deadline(limit_s)
        try:
            message = wire.receive(self)
        except (wire.WireError, OSError):
            message = None
        if message is None:
            self._check_on_qemu()
            raise GuestLostError("its agent has ended", self.console_text)
        return message

    def sendall(self, data: Buffer, flags: int = 0, /) -> None:
        """Of `wire.Transport`. A halted guest receives nothing, so this must not wait for it.

        :raise BrokenPipeError: when the guest has halted or ended.
        :raise GuestLostError: when the time is over.
        """
        rest = memoryview(data)
        while rest:
            if not self._wait_for_channel(to_send=True):
                raise BrokenPipeError
            rest = rest[self._connection.send(rest, flags | socket.MSG_DONTWAIT) :]

    def recv(self, size_bytes: int, /) -> bytes:
        """Of `wire.Transport`: what has been received, or b"" when no more will come.

        :raise GuestLostError: when the time is over.
        """
        return self._connection.recv(size_bytes) if self._wait_for_channel() else b""

    def _set_deadline(self, limit_s: float | None) -> None:
        self._deadline = Deadline("the guest", math.inf if limit_s is None else limit_s)

    def _wait_for_channel(self, *, to_send: bool = False) -> bool:
        """Wait until data can be received or sent. False when QEMU has halted the guest, or has
        ended, so that it will never be possible.

        :raise GuestLostError: when the time is over.
        """
        channel, waker = self._connection.fileno(), self._qemu.waker
        poller = select.poll()
        poller.register(channel, select.POLLOUT if to_send else select.POLLIN)
        poller.register(waker, select.POLLIN)
        for _ in self._deadline.checks(pause_s=0):
            ready = dict(poller.poll(SIGNAL_CHECK_S * 1000))
            if channel in ready:
                return True
            if ready:
                return False
        raise GuestLostError("it does not reply", self.console_text)

    def _check_on_qemu(self) -> None:
        """Raise the error for a guest that has panicked, stopped, or whose QEMU has ended.

        :raise GuestLostError: when its kernel panicked, or QEMU has ended.
        :raise GuestStoppedError: when it has stopped at its own request.
        """
        console = self.console_text
        if death := _DEATH.search(console):
            raise GuestLostError(f"its kernel panicked: {death[0]}", console)
        if self._qemu.stop_reason in (RESET, SHUTDOWN):
            raise GuestStoppedError(self._qemu.stop_reason)
        if self._qemu.has_ended():
            why = self._qemu.said.strip() or self._qemu.stop_reason or "without a word"
            raise GuestLostError(f"QEMU ended: {why}", console)
