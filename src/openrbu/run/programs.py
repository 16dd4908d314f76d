"""Runs a program that finds a virtual machine's files at their usual paths: `rbu run`.

Theory of operation. Two processes. The parent has the machine and serves its files from a thread.
The child becomes the program; it is forked before the parent has any thread::

    child                                       parent
    enters its namespaces                       opens the machine
    opens /dev/fuse, mounts it on /sys
    sends the descriptor            ── fd ──▶   serves it
                                    ◀─ "go" ──
    mounts the files at their paths
    guards this computer, execs     ── EOF ─▶   waits for the program's end

When something goes wrong in the child, it sends a message with the error in place of what the
parent waits for. When the parent ends, the machine has a power cut, and the child is killed
(PR_SET_PDEATHSIG).

While the program runs, the terminal sends Ctrl-C and Ctrl-\\ to the program, and the parent ignores
them. The parent passes SIGTERM and SIGHUP on to the program.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from openrbu.errors import CommandError, ObstacleError
from openrbu.run import guard, namespace
from openrbu.run.overlay import Overlay, RealEntry, real_entries
from openrbu.system.fuse_mounts import RUN_TYPE, mount_device, open_device
from openrbu.system.interrupts import ENDING_SIGNALS
from openrbu.system.libc import call
from openrbu.system.signals import SIGNAL_CHECK_S

# The same exit statuses as of env(1) and of shells.
EXIT_CANNOT_RUN = 126
EXIT_NOT_FOUND = 127

_PR_SET_PDEATHSIG = 1  # linux/prctl.h

_GO = b"go"
_MAX_MESSAGE_BYTES = 16384
_MAX_WORD = 256
"""How many characters of the command a message quotes. A command may be longer than a message."""
_ENDED: Mapping[str, str | int] = {"text": "the process of the program was ended before it began"}


def run(
    directory: Path,
    command: Sequence[str],
    *,
    waiting: Callable[[int], None] = lambda programs: None,
    log: Callable[[str], None] = lambda line: None,
) -> int:
    """Run `command` with the files of the machine in `directory`; its exit status, or the negative
    number of the signal that ended it.

    Call it in the main thread, and in a process without other threads. When the program has ended
    and others use the machine through this process, it waits for them: see
    `access.serve_or_connect`, which gets `waiting`. `log` gets a line for each defect.

    :raise MachineError: when the machine is off, or can't be opened.
    :raise ObstacleError: when this computer does not allow to run a program in this way.
    :raise CommandError: when there is no such program, or it can't be executed.
    """
    real = real_entries()
    child = _Child(directory, command, real)
    with contextlib.closing(child):
        # After the fork, because numpy starts threads when it is imported.
        from openrbu.fuse.callers import CallerMap  # noqa: PLC0415  (threads)
        from openrbu.fuse.session import FuseSession  # noqa: PLC0415  (threads)
        from openrbu.sharing.access import serve_or_connect  # noqa: PLC0415  (threads)

        with serve_or_connect(directory, waiting=waiting) as machine:
            machine.exists("/sys")  # raises when the machine is off
            files = Overlay(machine.files, real)
            session = FuseSession(
                files, child.device(), CallerMap(), log=log, path_lock=machine.path_lock
            )
            try:
                session.start()
                with child.signals():
                    return child.result()
            finally:
                session.stop()


class _Child:
    """The process that becomes the program, as its parent sees it."""

    def __init__(
        self, directory: Path, command: Sequence[str], real: Mapping[str, RealEntry]
    ) -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        self._pid: int | None = os.fork()
        if not self._pid:
            self._channel.close()
            _run_child(directory, command, real, theirs, parent)
        theirs.close()

    def device(self) -> int:
        """The descriptor of the FUSE device that the child has mounted.

        :raise ObstacleError: when the child could not mount it.
        """
        message, fds, _, _ = socket.recv_fds(self._channel, _MAX_MESSAGE_BYTES, 1)
        if not fds:
            _raise_childs_error(message)
        return fds[0]

    def result(self) -> int:
        """Have the child continue, and wait for the end of the program; its status, as of `run`.

        :raise CommandError: when the program can't be executed.
        :raise ObstacleError: when the files could not be mounted at their paths.
        """
        message = b""
        # Where the child was killed, its status says so.
        with contextlib.suppress(BrokenPipeError):
            self._channel.send(_GO)
        with contextlib.suppress(ConnectionResetError):  # it was killed before it read that
            message = self._channel.recv(_MAX_MESSAGE_BYTES)
        status = self._wait()
        if message:
            _raise_childs_error(message)
        return status

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """In this block signals are for the program. Only SIGKILL ends this process."""

        def pass_on(signum: int, _frame: FrameType | None) -> None:
            if self._pid is not None:
                with contextlib.suppress(ProcessLookupError):  # it has just ended
                    os.kill(self._pid, signum)

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
        if self._pid is not None:
            os.kill(self._pid, signal.SIGKILL)
            self._wait()

    def _wait(self) -> int:
        """Wait for the child; its exit status, or the negative number of a signal."""
        assert self._pid is not None
        end = os.pidfd_open(self._pid)
        try:
            while not select.select([end], [], [], SIGNAL_CHECK_S)[0]:
                pass
        finally:
            os.close(end)
        _, status = os.waitpid(self._pid, 0)
        self._pid = None
        return os.waitstatus_to_exitcode(status)


def _raise_childs_error(message: bytes) -> NoReturn:
    try:
        document = json.loads(message)
    except ValueError:  # empty, or cut off
        document = _ENDED
    if "status" in document:
        raise CommandError(document["text"], document["status"])
    raise ObstacleError(document["text"])


# -- in the child -----------------------------------------------------------------------------


def _run_child(
    directory: Path,
    command: Sequence[str],
    real: Mapping[str, RealEntry],
    channel: socket.socket,
    parent: int,
) -> NoReturn:
    """In the child: execute the program, or send the error to the parent."""
    document = dict(_ENDED)
    try:
        _restore_signals()
        _prepare(directory, real, channel, parent)
        document = _execute(command)
    except ObstacleError as error:
        document = {"text": str(error)}
    except OSError as error:
        document = {"text": _text(error)}
    except Exception:  # noqa: BLE001  (this process ends here, so a defect must be printed here)
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(OSError):
            channel.send(json.dumps(document).encode())
        os._exit(EXIT_CANNOT_RUN)


def _execute(command: Sequence[str]) -> dict[str, str | int]:
    """Execute the program. Returns only when that fails: the error, for the parent."""
    try:
        if not command[0]:  # a shell does not find it; Python would raise another error
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        os.execvp(command[0], list(command))
    except OSError as error:
        is_missing = error.errno in (errno.ENOENT, errno.ENOTDIR)
        status = EXIT_NOT_FOUND if is_missing else EXIT_CANNOT_RUN
        word = command[0] if len(command[0]) <= _MAX_WORD else f"{command[0][:_MAX_WORD]}…"
        return {"text": f"{word}: {error.strerror}", "status": status}


def _text(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"the program can't be given the machine's files: {where}{error.strerror}"


def _restore_signals() -> None:
    """Set the handlers as they were when this process began: Python ignores some signals, and the
    command line handles some."""
    for signum in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(signum, signal.SIG_DFL)
    for signum in ENDING_SIGNALS:
        if signal.getsignal(signum) is not signal.SIG_IGN:
            signal.signal(signum, signal.SIG_DFL)


def _prepare(
    directory: Path, real: Mapping[str, RealEntry], channel: socket.socket, parent: int
) -> None:
    """Mount the machine's files in this process's namespace, and guard this computer.

    :raise ObstacleError: when this computer does not allow it.
    :raise OSError: the kernel's error.
    """
    namespace.enter()
    call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(EXIT_CANNOT_RUN)
    with namespace.pinned("/sys") as real_sys:
        fd = open_device()
        mount_device(fd, "/sys", str(directory), kind=RUN_TYPE, allow_other=True)
        socket.send_fds(channel, [b"device"], [fd])
        os.close(fd)
        if channel.recv(len(_GO)) != _GO:  # the parent reports an error, and has closed it
            os._exit(EXIT_CANNOT_RUN)
        with namespace.pinned("/sys") as served:
            namespace.install_files(served, real_sys, real)
    namespace.show_history(directory)
    guard.guard()
