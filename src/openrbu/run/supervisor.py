"""Answers the system calls of a program under `rbu run` that the kernel must not execute.

Theory of operation. The program's seccomp filter has the kernel hold some calls
(`openrbu.run.guard` lists them) and tell the supervisor, a thread of the program's parent. The
supervisor has a handler for each, which does what the call would do on the virtual machine and
returns what the call is to return: 0, or an errno. The call itself is never executed: when the
parent is killed, it returns ENOSYS.

One call is answered at a time, so a handler must not wait for the program.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import threading
from collections.abc import Callable, Mapping

from openrbu.run import notifications
from openrbu.run.notifications import Call

Handler = Callable[[Call], int]
"""Does a call; returns 0, the errno with which the call fails, or `UNANSWERED`."""

UNANSWERED = -1
"""The call does not return, as that which restarts a machine: its thread waits to be killed."""

_HEARS_NOTHING = (
    "iopl and ioperm, by which programs reach I/O ports, are refused under `rbu run` on this "
    "computer (seccomp: {why}); `rbu lab shell` is the way for programs that need them"
)


class Supervisor:
    """Answers notified calls with `handlers`, by the call's name, from `listen` to `close`.

    A handler that raises is a defect: `log` gets a line, and the call is refused (EPERM). If the
    caller was killed meanwhile, that is no defect: its files in /proc are gone.
    """

    def __init__(self, handlers: Mapping[str, Handler], log: Callable[[str], None]) -> None:
        self._handlers, self._log = handlers, log
        self._thread: threading.Thread | None = None
        self._listener = -1
        self._bell = os.eventfd(0, os.EFD_CLOEXEC)

    def listen(self, listener: int) -> None:
        """Answer the calls of which `listener` tells, a descriptor that is closed here."""
        self._listener = listener
        self._thread = threading.Thread(target=self._answer_calls, name="supervisor", daemon=True)
        self._thread.start()

    def hears_nothing(self, why: str) -> None:
        """Say that there is no listener, so that the calls are refused."""
        self._log(_HEARS_NOTHING.format(why=why))

    def close(self) -> None:
        """Answer no more calls: those that wait and those that come return ENOSYS."""
        if self._thread is not None:
            os.eventfd_write(self._bell, 1)
            self._thread.join()
            self._thread = None
        os.close(self._bell)

    def _answer_calls(self) -> None:
        poller = select.poll()
        poller.register(self._listener, select.POLLIN)
        poller.register(self._bell, select.POLLIN)
        try:
            while True:
                ready = dict(poller.poll())
                # Without POLLIN: no process with this filter is left.
                if self._bell in ready or not ready[self._listener] & select.POLLIN:
                    return
                call = notifications.receive(self._listener)
                if call is not None and (result := self._result(call)) != UNANSWERED:
                    call.answer(result)
        finally:
            os.close(self._listener)

    def _result(self, call: Call) -> int:
        """What a call returns: 0, or an errno."""
        try:
            return self._handlers[call.name](call)
        except Exception as error:  # noqa: BLE001  (whatever it is, the caller waits for an answer)
            if call.still_waits():
                with contextlib.suppress(Exception):
                    self._log(f"{call.name}: {type(error).__name__}: {error}")
            return errno.EPERM
