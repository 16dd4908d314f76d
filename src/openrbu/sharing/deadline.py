"""Wait for a reply from another process, with a time limit."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from openrbu.buffers import Buffer
from openrbu.sharing import wire
from openrbu.system.signals import DeferredSignals
from openrbu.system.waiting import Deadline

REPLY_WITHIN_S = 60.0
"""The longest wait for a reply. The slowest call is a restart that programs the flash: it takes
one second."""

AFTER_A_SIGNAL_S = 2.0
"""How much longer to wait for a reply after Ctrl-C."""

STOPPED_S = 2.0
"""How long to wait for a process that is stopped (Ctrl-Z)."""

T = TypeVar("T")


class PeerStoppedError(Exception):
    """The process at the other end is stopped (SIGSTOP). It replies only after SIGCONT."""


class DeadlineTransport:
    """A socket as a `wire.Transport` that waits `REPLY_WITHIN_S` for the other end in all its
    calls together, and at most `AFTER_A_SIGNAL_S` more once a signal of `deferred` is pending.

    :raise TimeoutError: in every call, when the time is over.
    :raise PeerStoppedError: in every call, when the process at the other end has been stopped for
        `STOPPED_S`.
    """

    def __init__(self, connection: socket.socket, deferred: DeferredSignals) -> None:
        self._socket, self._deferred = connection, deferred
        self._deadline = Deadline("a reply", REPLY_WITHIN_S)
        self._until_stopped: Deadline | None = None  # while the other end is stopped

    def sendall(self, data: Buffer, flags: int, /) -> None:
        left = memoryview(data)
        while left:
            left = left[self._wait(partial(self._socket.send, left, flags)) :]

    def recv(self, size_bytes: int, /) -> bytes:
        return self._wait(partial(self._socket.recv, size_bytes))

    def _wait(self, step: Callable[[], T]) -> T:
        for _ in self._deadline.checks(pause_s=0):
            try:
                return step()  # it waits SIGNAL_CHECK_S at most
            except TimeoutError:
                if self._deferred.has_pending:
                    self._deadline.shorten(AFTER_A_SIGNAL_S)
                self._check_peer()
        raise TimeoutError

    def _check_peer(self) -> None:
        if not _is_stopped(wire.peer(self._socket).pid):
            self._until_stopped = None
        elif self._until_stopped is None:
            self._until_stopped = Deadline("the process at the other end", STOPPED_S)
        elif self._until_stopped.is_over:
            raise PeerStoppedError


def _is_stopped(pid: int) -> bool:
    """Whether a process is stopped. Its state is behind its name, which may contain anything:
    proc(5)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state in (b"T", b"t")
