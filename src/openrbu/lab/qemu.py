"""A QEMU process, controlled over QMP, which also reports when it stops.

It needs no path in a file system: sockets are pairs, and RAM, BIOS and tables are files without a
name that it inherits (`/proc/self/fd/N`). When this process ends, for any reason, QEMU ends too.

QMP is asynchronous and has its own thread. So the main thread waits only for `waker`, and can run
handlers of signals.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import subprocess
import threading
from collections.abc import Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from openrbu.errors import ObstacleError, OpenRbuError
from openrbu.lab.programs import find_qemu, killed_with_parent
from openrbu.lab.scratch import memory_file, text_of
from openrbu.system.installed import find_bundled, remedy_for
from openrbu.system.signals import SIGNAL_CHECK_S
from openrbu.system.waiting import Deadline

find_bundled()
try:
    from qemu.qmp import QMPClient, QMPError
except ModuleNotFoundError:
    raise ObstacleError(f"the lab needs the Python package qemu.qmp: {remedy_for('lab')}") from None

_REPLY_LIMIT_S = 60.0
"""For one QMP command. They take milliseconds; on a busy computer QEMU may need seconds."""

_END_LIMIT_S = 10.0

_PORT_VALUE = re.compile(r"= 0x([0-9a-f]+)")

T = TypeVar("T")


class QemuError(OpenRbuError):
    """QEMU did not start, or it has ended, or a command failed; `said` is its output."""

    kind = "qemu"

    def __init__(self, what: str, said: str = "") -> None:
        words = " ".join(said.split())
        super().__init__(f"{what}: {words}" if words else what)
        self.said = said


class Qemu:
    """QEMU with `arguments`, its processor halted. It inherits the descriptors `fds`.

    With `on_terminal` it shares this process's standard input and output.

    :raise QemuError: when it does not start.
    :raise ObstacleError: when QEMU is not installed.
    """

    def __init__(
        self, arguments: Sequence[str], *, fds: Sequence[int], on_terminal: bool = False
    ) -> None:
        program = [str(find_qemu()), *arguments]
        ours, theirs = socket.socketpair()
        self.waker, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._errors = memory_file("qemu-stderr")
        self._files = [self.waker, self._wake, self._errors]
        self.stop_reason: str | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        with contextlib.ExitStack() as undo:
            undo.callback(self._close_files)
            undo.callback(self._loop.close)
            undo.callback(ours.close)
            with theirs:
                self._process = subprocess.Popen(
                    [*killed_with_parent(), *program, *_qmp(theirs.fileno())],
                    pass_fds=[*fds, theirs.fileno()],
                    stdin=None if on_terminal else subprocess.DEVNULL,
                    stdout=None if on_terminal else subprocess.DEVNULL,
                    stderr=self._errors,
                    start_new_session=not on_terminal,  # Ctrl-C is ours to handle
                )
            undo.pop_all()
            undo.callback(self.close)
            self._monitor = QMPClient("lab")
            self._thread.start()
            self._await(self._connect(ours))
            undo.pop_all()

    async def _connect(self, connection: socket.socket) -> None:
        await self._monitor.connect(connection)
        self._watching = asyncio.ensure_future(self._watch())

    async def _watch(self) -> None:
        """Wait until the machine stops or QEMU ends; record the reason, and make `waker`
        readable."""
        with self._monitor.listener("SHUTDOWN") as events:
            ended = asyncio.ensure_future(self._monitor.runstate_changed())
            stopped = asyncio.ensure_future(events.get())
            done, others = await asyncio.wait((ended, stopped), return_when=asyncio.FIRST_COMPLETED)
            if stopped in done:
                data: Any = stopped.result()["data"]
                self.stop_reason = str(data["reason"])
            for other in others:
                other.cancel()
        os.write(self._wake, b"!")

    def _await(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` in the loop's thread; what it returns.

        :raise QemuError: when QEMU has ended, or does not reply.
        """
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return self._result(future)
        except QMPError as error:
            text = str(error)
        except TimeoutError:
            text = "it does not reply"
        finally:
            future.cancel()
        self.has_ended()  # waits a moment for its end, and so for all of its output
        raise QemuError("QEMU failed", self.said or text)

    def _result(self, future: Future[T]) -> T:
        for is_last in Deadline("a reply of QEMU", _REPLY_LIMIT_S).checks(pause_s=0):
            if is_last or future.done():
                break
            with contextlib.suppress(TimeoutError):
                return future.result(SIGNAL_CHECK_S)
        return future.result(0)

    # -- commands ---------------------------------------------------------------------------

    def execute(self, command: str, **arguments: object) -> object:
        """A QMP command.

        :raise QemuError: when QEMU refuses or has ended.
        """
        return self._await(self._monitor.execute(command, arguments))

    def human(self, line: str) -> str:
        """Run a command of the human monitor (`human-monitor-command`); its output.

        :raise QemuError: as `execute`.
        """
        return str(self.execute("human-monitor-command", **{"command-line": line}))

    def halt(self) -> None:
        """Halt the processor, so that nothing changes while RAM and CMOS are read.

        :raise QemuError: as `execute`.
        """
        self.execute("stop")

    def resume(self) -> None:
        """Let the processor run.

        :raise QemuError: as `execute`.
        """
        self.execute("cont")

    def out8(self, port: int, value: int) -> None:
        """Write a byte to an I/O port.

        :raise QemuError: as `execute`.
        """
        self.human(f"o /b {port:#x} {value:#x}")

    def in8(self, port: int) -> int:
        """Read a byte from an I/O port.

        :raise QemuError: as `execute`.
        """
        said = self.human(f"i /b {port:#x}")
        value = _PORT_VALUE.search(said)
        if value is None:
            raise QemuError("QEMU can't read a port", said)
        return int(value[1], 16)

    # -- its end ----------------------------------------------------------------------------

    def has_ended(self) -> bool:
        """Whether QEMU has ended. Waits up to `SIGNAL_CHECK_S`, because its sockets close
        before."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(SIGNAL_CHECK_S)
        return self._process.returncode is not None

    @property
    def said(self) -> str:
        """What it wrote to standard error."""
        return text_of(self._errors)

    def close(self) -> None:
        """End QEMU, and close all its files."""
        self._process.kill()  # it has no state that would have to be saved
        self._process.wait()
        if self._thread.is_alive():
            future = asyncio.run_coroutine_threadsafe(self._disconnect(), self._loop)
            with contextlib.suppress(TimeoutError):
                future.result(_END_LIMIT_S)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._loop.close()
        self._close_files()

    async def _disconnect(self) -> None:
        with contextlib.suppress(QMPError, EOFError, OSError):
            await self._monitor.disconnect()

    def _close_files(self) -> None:
        while self._files:
            os.close(self._files.pop())


def _qmp(fd: int) -> list[str]:
    return ["-S", "-chardev", f"socket,id=qmp,fd={fd}", "-mon", "chardev=qmp,mode=control"]
