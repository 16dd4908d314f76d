"""Runs a program that finds a virtual machine's files at their usual paths: `rbu run`.

Theory of operation. Three processes. The parent has the machine and serves its files from a thread.
Before it has any thread it forks the launcher (`openrbu.run.launcher`), and that forks the child,
which becomes the program (`openrbu.run.child`)::

    child                                       parent
    enters its namespaces                       opens the machine
    opens /dev/fuse, mounts it on /sys
    sends the descriptor            ── fd ──▶   serves it
                                    ◀─ "go" ──
    mounts the files at their paths
    guards this computer, execs     ── EOF ─▶   waits for the program's end

When something goes wrong in the child, it sends a message with the error in place of what the
parent waits for. When the parent ends, the machine has a power cut, and the child is killed.

While the program runs, the terminal sends Ctrl-C and Ctrl-\\ to the program, and the parent ignores
them. The parent passes SIGTERM and SIGHUP on to the program.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

from openrbu.errors import CommandError, ObstacleError
from openrbu.run import child as in_child
from openrbu.run.launcher import Launcher
from openrbu.run.overlay import Overlay, RealEntry, real_entries

if TYPE_CHECKING:
    from openrbu.run.trace import Trace


def run(
    directory: Path,
    command: Sequence[str],
    *,
    waiting: Callable[[int], None] = lambda programs: None,
    log: Callable[[str], None] = lambda line: None,
    trace: Trace | None = None,
) -> int:
    """Run `command` with the files of the machine in `directory`; its exit status, or the negative
    number of the signal that ended it.

    Call it in the main thread, and in a process without other threads. When the program has ended
    and others use the machine through this process, it waits for them: see
    `access.serve_or_connect`, which gets `waiting`. `log` gets a line for each defect. `trace`
    is told what the program does with the machine's files.

    :raise MachineError: when the machine is off, or can't be opened.
    :raise ObstacleError: when this computer does not allow to run a program in this way.
    :raise CommandError: when there is no such program, or it can't be executed.
    """
    real = real_entries()
    child = _Child(directory, command, real)
    with contextlib.closing(child):
        # After the fork, because numpy starts threads when it is imported.
        from openrbu.fuse.callers import CallerMap  # noqa: PLC0415  (threads)
        from openrbu.fuse.filesystem import caller_pid  # noqa: PLC0415  (threads)
        from openrbu.fuse.session import FuseSession  # noqa: PLC0415  (threads)
        from openrbu.sharing.access import serve_or_connect  # noqa: PLC0415  (threads)

        with serve_or_connect(directory, waiting=waiting) as machine:
            machine.exists("/sys")  # raises when the machine is off
            overlay = Overlay(machine.files, real)
            session = FuseSession(
                overlay if trace is None else trace.begin(machine, overlay, child, caller_pid),
                child.device(),
                CallerMap(),
                log=log,
                path_lock=machine.path_lock,
                on_ioctl=None if trace is None else trace.ioctl,
            )
            try:
                session.start()
                with child.signals():
                    status = child.result()
                if trace is not None:
                    trace.end(status)
                return status
            finally:
                session.stop()


class _Child:
    """The process that becomes the program, as its parent sees it."""

    def __init__(
        self, directory: Path, command: Sequence[str], real: Mapping[str, RealEntry]
    ) -> None:
        self.command = command

        def become(_number: int, channel: socket.socket, parent: int) -> NoReturn:
            in_child.become(directory, command, real, channel, parent)

        self._launcher = Launcher(become)
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._launcher.start(0, theirs)

    @property
    def pid(self) -> int:
        """The number of the process."""
        assert self._launcher.program_pid is not None
        return self._launcher.program_pid

    def device(self) -> int:
        """The descriptor of the FUSE device that the child has mounted.

        :raise ObstacleError: when the child could not mount it.
        """
        message, fds, _, _ = socket.recv_fds(self._channel, in_child.MAX_MESSAGE_BYTES, 1)
        if not fds:
            _raise_childs_error(message)
        return fds[0]

    @property
    def has_begun(self) -> bool:
        """Whether the program has begun, or never will. Any thread may ask."""
        with contextlib.suppress(BlockingIOError):  # nothing was sent, and it is not closed
            self._channel.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            return True
        return False

    def result(self) -> int:
        """Have the child continue, and wait for the end of the program; its status, as of `run`.

        :raise CommandError: when the program can't be executed.
        :raise ObstacleError: when the files could not be mounted at their paths.
        """
        message = b""
        # Where the child was killed, its status says so.
        with contextlib.suppress(BrokenPipeError):
            self._channel.send(in_child.GO)
        with contextlib.suppress(ConnectionResetError):  # it was killed before it read that
            message = self._channel.recv(in_child.MAX_MESSAGE_BYTES)
        status = self._launcher.wait()
        assert status is not None
        if message:
            _raise_childs_error(message)
        return status

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """In this block signals are for the program. Only SIGKILL ends this process."""

        def pass_on(signum: int, _frame: FrameType | None) -> None:
            self._launcher.signal(signum)

        before = {
            signum: signal.signal(signum, signal.SIG_IGN)
            for signum in (signal.SIGINT, signal.SIGQUIT)
        }
        for signum in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(signum) is not signal.SIG_IGN:
                before[signum] = signal.signal(signum, pass_on)
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def close(self) -> None:
        """Kill the child if it still runs."""
        self._channel.close()
        self._launcher.close()


def _raise_childs_error(message: bytes) -> NoReturn:
    try:
        document = json.loads(message)
    except ValueError:  # empty, or cut off
        document = in_child.ENDED
    if "status" in document:
        raise CommandError(document["text"], document["status"])
    raise ObstacleError(document["text"])
