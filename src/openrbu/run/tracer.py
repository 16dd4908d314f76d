"""Traces threads of programs, so that we see the instructions at which they fault.

Theory of operation. `trace` begins to trace one thread, from a new thread of this process: the
tracer. What the traced thread starts (threads, processes, programs) has the same tracer. It waits
for its traced threads to stop, and has each go on as if nobody traced it: signals, job control and
exits take their course. Only where a thread stops for a SIGSEGV of the processor (a general
protection fault) is the `Follower` asked first.

ptrace belongs to a thread, so each tracer waits for its own traced threads only. When the last one
has ended, the tracer ends. When this process is killed, they go on untraced.

The real parent of a traced process must be in another process than this one: this thread reaps what
it traces, and the kernel shows it to the real parent then.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from openrbu.run import ptrace

# linux/wait.h: __WALL, __WNOTHREAD
_WAIT = os.WEXITED | os.WSTOPPED | 0x40000000 | 0x20000000

_CHILD_EVENTS = (ptrace.EVENT_FORK, ptrace.EVENT_VFORK, ptrace.EVENT_CLONE)
_STOP_SIGNALS = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)


class Follower(Protocol):
    """Is told of traced threads, by their numbers, in the thread that traces them."""

    def faulted(self, thread: int) -> bool:
        """It has stopped at an instruction that the processor refuses. True: it may go on, and gets
        no signal."""

    def began(self, thread: int, parent: int) -> None:
        """`parent` has started it; it has done nothing yet."""

    def renumbered(self, before: int, thread: int) -> None:
        """It has executed a program, and has another number now."""

    def ended(self, thread: int) -> None: ...


def trace(thread: int, follower: Follower, log: Callable[[str], None]) -> threading.Thread:
    """Trace a thread, which may run; the thread of this process that traces it. `log` gets a line
    when that ends by a defect.

    :raise OSError: the kernel's error, when it may not be traced.
    """
    tracer = _Tracer(thread, follower, log)
    tracer.start()
    tracer.has_begun.wait()
    if tracer.error is not None:
        raise tracer.error
    return tracer


class _Tracer(threading.Thread):
    def __init__(self, thread: int, follower: Follower, log: Callable[[str], None]) -> None:
        super().__init__(name=f"tracer of {thread}", daemon=True)
        self._first, self._follower, self._log = thread, follower, log
        self._known = {thread}
        self._early: set[int] = set()
        """Threads that stopped before the event of the one that has started them."""
        self.has_begun = threading.Event()
        self.error: OSError | None = None

    def run(self) -> None:
        try:
            ptrace.seize(self._first)
        except OSError as error:
            self.error = error
            return
        finally:
            self.has_begun.set()
        try:
            self._follow()
        except Exception as error:  # noqa: BLE001  (the traced threads go on without this one)
            self._log(f"the tracer of process {self._first}: {type(error).__name__}: {error}")

    def _follow(self) -> None:
        """Have the traced threads go on whenever they stop, until none is left."""
        while True:
            try:
                seen = os.waitid(os.P_ALL, 0, _WAIT)
            except ChildProcessError:
                return
            if seen is None:
                continue
            with contextlib.suppress(ProcessLookupError):  # it was killed while it was stopped
                if seen.si_code == os.CLD_TRAPPED:
                    self._stopped(seen.si_pid, seen.si_status & 0xFF, seen.si_status >> 8)
                else:
                    self._ended(seen.si_pid)

    def _stopped(self, thread: int, signum: int, event: int) -> None:
        """Have a thread that has stopped for a signal or an event go on."""
        if event == ptrace.EVENT_STOP:
            if signum in _STOP_SIGNALS:
                ptrace.stay_stopped(thread)
            elif thread in self._known:
                ptrace.go_on(thread)
            else:
                self._early.add(thread)
                self._release_orphans()  # its parent may have been killed before this
        elif event in _CHILD_EVENTS:
            child = ptrace.event_message(thread)
            self._follower.began(child, thread)
            self._known.add(child)
            if child in self._early:
                self._early.discard(child)
                with contextlib.suppress(ProcessLookupError):
                    ptrace.go_on(child)
            ptrace.go_on(thread)
        elif event == ptrace.EVENT_EXEC:
            before = ptrace.event_message(thread)
            if before != thread:
                self._follower.renumbered(before, thread)
                self._known.discard(before)
                self._known.add(thread)
            ptrace.go_on(thread)
        else:
            is_fault = signum == signal.SIGSEGV and ptrace.signal_code(thread) == ptrace.SI_KERNEL
            is_done = is_fault and self._follower.faulted(thread)
            ptrace.go_on(thread, 0 if is_done else signum)

    def _ended(self, thread: int) -> None:
        self._known.discard(thread)
        self._early.discard(thread)
        self._follower.ended(thread)
        self._release_orphans()

    def _release_orphans(self) -> None:
        """Have the processes go on whose parent was killed as it started them, and will not say so
        any more. (Threads were killed with it.)"""
        for child in list(self._early):
            if status_number(child, "Tgid") == child and not self._has_its_parent(child):
                self._early.discard(child)
                self._known.add(child)
                with contextlib.suppress(ProcessLookupError):
                    ptrace.go_on(child)

    def _has_its_parent(self, process: int) -> bool:
        """Whether a thread of its parent is traced here."""
        parent = status_number(process, "PPid")
        return parent in self._known or any(
            status_number(each, "Tgid") == parent for each in self._known
        )


def status_number(thread: int, key: str) -> int:
    """A number of `/proc/PID/status`, such as `TracerPid`; 0 when the thread has ended."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path(f"/proc/{thread}/status").read_text(errors="replace").splitlines()
        return int(next(line for line in lines if line.startswith(f"{key}:")).split()[1])
    return 0
