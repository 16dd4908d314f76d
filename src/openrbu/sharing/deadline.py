"""Waiting for an answer from another process, but not for ever."""

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

ANSWER_WITHIN_S = 60.0
"""What takes longest is a restart that programs the flash: a second."""

AFTER_A_SIGNAL_S = 2.0
"""How much longer an answer is waited for when Ctrl-C has come."""

STOPPED_S = 2.0
"""How long a process may be stopped (Ctrl-Z) before it is no use to wait for it."""

T = TypeVar("T")


class PeerStoppedError(Exception):
    """The process at the other end is stopped: it answers when somebody lets it go on."""


class DeadlineTransport:
    """A connection that waits for the other end for so long, and not much longer once a signal of
    `deferred` has come, or that process is stopped.

    :raise TimeoutError: in every call, when the time is over.
    :raise PeerStoppedError: in every call, when the other end has been stopped for a while.
    """

    def __init__(self, connection: socket.socket, deferred: DeferredSignals) -> None:
        self._socket, self._deferred = connection, deferred
        self._deadline = Deadline("an answer", ANSWER_WITHIN_S)
        self._until_stopped: Deadline | None = None  # while the other end is stopped

    def sendall(self, data: Buffer, flags: int, /) -> None:
        left = memoryview(data)
        while left:
            left = left[self._wait(partial(self._socket.send, left, flags)) :]

    def recv(self, size_bytes: int, /) -> bytes:
        return self._wait(partial(self._socket.recv, size_bytes))

    def _wait(self, step: Callable[[], T]) -> T:
        for _ in self._deadline.looks(pause_s=0):
            try:
                return step()  # it takes SIGNAL_CHECK_S at most
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
    """Whether a process is (proc(5)): its state comes after its name, which may hold anything."""
    try:
        state = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state in (b"T", b"t")
