"""Begins programs under `rbu run`, and ends them together with all that they have started.

Theory of operation. A process that has threads must not fork, and the parent has threads as soon as
it serves files. So the launcher is forked before. It has no threads, and stays outside of the
namespaces of the programs, so that each gets fresh ones::

    parent                       launcher
    "start N", a channel   ──▶   forks the program number N, which gets the channel
                           ◀──   "began PID"
    "signal S"             ──▶   sends it to the program
                           ◀──   "ended STATUS", when the program has ended
    "end" or "kill"        ──▶   ends every process that a program has started
                           ◀──   "none left"

The launcher is a subreaper (prctl(2)): a process whose parent has ended becomes its child. So all
that a program has started is below it, daemons too, and when it has no child, none of them runs.

When the parent closes its socket, the launcher kills the program if that still runs, and ends. What
the program has left in the background goes on. When the parent dies, so do the launcher and the
program (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import NoReturn

from openrbu.system.descriptors import readable
from openrbu.system.interrupts import ENDING_SIGNALS
from openrbu.system.processes import (
    adopt_descendants,
    be_told_of_parents_end,
    end_descendants,
    signal_descendants,
)
from openrbu.system.signals import SIGNAL_CHECK_S

GRACE_S = 2.0
"""How long programs have after SIGTERM, until SIGKILL ends them."""

_MAX_MESSAGE_BYTES = 64
_LOOK_AGAIN_S = 0.05

Become = Callable[[int, socket.socket, int], NoReturn]
"""Gets the number of a program, its channel, and the process that has forked it. It is called in a
new process with the signal handlers of a program."""


class Launcher:
    """The launcher, as its parent sees it. `become` executes a program in a process of its own.

    Make it in the main thread of a process without other threads.
    """

    def __init__(self, become: Become) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._status: int | None = None
        self.program_pid: int | None = None
        parent = os.getpid()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        self._pid = os.fork()
        if not self._pid:
            self._control.close()
            _launch(theirs, become, parent)
        theirs.close()

    def start(self, number: int, channel: socket.socket) -> None:
        """Start the program of that number, which gets `channel`.

        :raise OSError: when the launcher was killed.
        """
        self._status = None
        socket.send_fds(self._control, [b"start %d" % number], [channel.fileno()])
        if self._receive() != "began":
            raise BrokenPipeError(errno.EPIPE, "the process that begins programs was killed")

    def signal(self, signum: int) -> None:
        """Send a signal to the program. Nothing happens when it has ended."""
        with contextlib.suppress(OSError):
            self._control.send(b"signal %d" % signum)

    def wait(self, wake_up: int | None = None) -> int | None:
        """Wait for the program's end, or until the descriptor `wake_up` can be read; its exit
        status, or the negative number of a signal; None: it runs.

        Signals are handled meanwhile.
        """
        wanted: list[int | socket.socket] = [self._control]
        wanted += [] if wake_up is None else [wake_up]
        while self._status is None:
            ready = readable(wanted, SIGNAL_CHECK_S)
            if self._control in ready:
                self._receive()
            elif ready:
                break
        return self._status

    def end_all(self, *, at_once: bool = False) -> int:
        """End the program and all that it has started, as init does at a restart: SIGTERM, and
        SIGKILL after `GRACE_S`; `at_once`: SIGKILL. The program's exit status, as of `wait`."""
        with contextlib.suppress(OSError):
            self._control.send(b"kill" if at_once else b"end")
            while self._receive() != "none":
                pass
        return -signal.SIGKILL if self._status is None else self._status

    def close(self) -> None:
        """End it, and the program if that still runs."""
        self._control.close()
        os.waitpid(self._pid, 0)

    def _receive(self) -> str:
        """Handle one message of the launcher; its first word."""
        message = b""
        with contextlib.suppress(ConnectionResetError):
            message = self._control.recv(_MAX_MESSAGE_BYTES)
        word, _, number = message.decode().partition(" ")
        if word == "began":
            self.program_pid = int(number)
        elif word == "ended":
            self._status = int(number)
        elif not message:  # it was killed, and the program with it
            self._status, word = -signal.SIGKILL, "none"
        return word


# -- in the launcher --------------------------------------------------------------------------


def _launch(control: socket.socket, become: Become, parent: int) -> NoReturn:
    try:
        _LauncherProcess(control, become, parent).run()
    except Exception:  # noqa: BLE001  (this process ends here, so a defect must be printed here)
        sys.excepthook(*sys.exc_info())
        end_descendants()  # the parent takes this end for that of all programs
    finally:
        os._exit(0)


class _LauncherProcess:
    def __init__(self, control: socket.socket, become: Become, parent: int) -> None:
        self._control, self._become = control, become
        self._program = 0
        adopt_descendants()
        be_told_of_parents_end(signal.SIGKILL, parent)
        self._ignored = [
            signum
            for signum in (*ENDING_SIGNALS, signal.SIGQUIT, signal.SIGCHLD)
            if signal.getsignal(signum) is signal.SIG_IGN
        ]
        for signum in (*ENDING_SIGNALS, signal.SIGQUIT):
            signal.signal(signum, signal.SIG_IGN)
        self._woken, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wakes, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def run(self) -> None:
        while True:
            control = self._control.fileno()
            ready = readable([control, self._woken])
            if self._woken in ready:
                self._reap()
            if control in ready:
                message, fds = b"", list[int]()
                with contextlib.suppress(ConnectionResetError):  # closed, and has not read all
                    message, fds, _, _ = socket.recv_fds(self._control, _MAX_MESSAGE_BYTES, 1)
                if not message:
                    break
                word, _, number = message.decode().partition(" ")
                if word == "start":
                    self._start(int(number), socket.socket(fileno=fds[0]))
                elif word == "signal":
                    self._kill(int(number))
                elif word in ("end", "kill"):
                    self._end_all(GRACE_S if word == "end" else 0.0)
        self._kill(signal.SIGKILL)

    def _start(self, number: int, channel: socket.socket) -> None:
        channel.set_inheritable(False)
        me = os.getpid()
        self._program = os.fork()
        if not self._program:
            self._control.close()
            self._restore_signals()
            self._become(number, channel, me)
        channel.close()
        self._control.send(b"began %d" % self._program)

    def _restore_signals(self) -> None:
        """Set the handlers as they were when the parent began: Python ignores some signals, and the
        command line handles some."""
        signal.set_wakeup_fd(-1)
        ours = (*ENDING_SIGNALS, signal.SIGQUIT, signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ)
        for signum in ours:
            ignored = signum in self._ignored
            signal.signal(signum, signal.SIG_IGN if ignored else signal.SIG_DFL)

    def _kill(self, signum: int) -> None:
        if self._program:  # it is not reaped, so the number is its own
            os.kill(self._program, signum)

    def _reap(self) -> bool:
        """Reap the processes that have ended, and say so of the program. Whether others run."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._woken, 512)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if not pid:
                return True
            if pid == self._program:
                self._program = 0
                with contextlib.suppress(OSError):  # the parent has closed its end
                    self._control.send(b"ended %d" % os.waitstatus_to_exitcode(status))

    def _end_all(self, grace_s: float) -> None:
        if grace_s:
            signal_descendants(os.getpid(), signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while self._reap() and (left_s := deadline - time.monotonic()) > 0:
            readable([self._woken], left_s)
        while self._reap():  # one that is killed may have started another
            signal_descendants(os.getpid(), signal.SIGKILL)
            readable([self._woken], _LOOK_AGAIN_S)
        self._control.send(b"none left")
