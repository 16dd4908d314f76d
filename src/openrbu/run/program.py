"""The process that becomes a program under `rbu run`, as its parent sees it.

`openrbu.run.child` is what that process does, and the other end of the channel. The messages::

    child                                       parent
    mounts a FUSE file system, sends
    the descriptor                  ── fd ──▶   `device`, and serves the files
                                    ◀─ "go" ──  `result`
    what it has to tell             ──────▶     `Take`
    becomes the program             ── EOF ─▶   waits for the program's end
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from openrbu.errors import CommandError, ObstacleError
from openrbu.run import child as in_child
from openrbu.run.launcher import Launcher

Take = Callable[[bytes, list[int]], bool]
"""Gets a message of the child, and its descriptors. Whether it was for it; if not, it is an error.
"""


def take_nothing(_message: bytes, _fds: list[int]) -> bool:
    """For a child that has nothing to tell."""
    return False


class Program:
    """The program number `number` of a launcher, whose process is begun with this object."""

    def __init__(self, launcher: Launcher, number: int, command: Sequence[str]) -> None:
        self._launcher, self.command = launcher, command
        self._has_begun = False
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._launcher.start(number, theirs)

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

    def has_begun(self, pid: int) -> bool:
        """Whether the program has begun, when the process `pid` makes a call. Until then that is a
        fork of this process, which has the same words. Any thread may ask."""
        if not self._has_begun:
            with contextlib.suppress(OSError):  # none: it has ended
                self._has_begun = _words_of(pid) not in (b"", _words_of("self"))
        return self._has_begun

    def result(self, take: Take = take_nothing, wake_up: int | None = None) -> int | None:
        """Have the child continue, and wait for the end of the program; its exit status, or the
        negative number of the signal that ended it. None: it runs, and `wake_up` can be read.

        `take` gets what the child sends until it becomes the program.

        :raise CommandError: when the program can't be executed.
        :raise ObstacleError: when the files could not be mounted at their paths.
        """
        message = b""
        # Where the child was killed, its status says so.
        with contextlib.suppress(BrokenPipeError):
            self._channel.send(in_child.GO)
        with contextlib.suppress(ConnectionResetError):  # it was killed before it read that
            message = self._error_of_begin(take)
        status = self._launcher.wait(None if message else wake_up)
        if message:
            _raise_childs_error(message)
        return status

    def _error_of_begin(self, take: Take) -> bytes:
        """The child's error; empty when it has become the program."""
        while True:
            message, fds, _, _ = socket.recv_fds(self._channel, in_child.MAX_MESSAGE_BYTES, 1)
            if not message or not take(message, fds):
                return message

    def end_all(self, *, at_once: bool) -> int:
        """End the program, and all that it has started: `Launcher.end_all`."""
        return self._launcher.end_all(at_once=at_once)

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
        """Release the channel. A child that has not become the program ends."""
        self._channel.close()


def _words_of(process: int | str) -> bytes:
    """
    :raise OSError: when there is no such process.
    """
    return Path(f"/proc/{process}/cmdline").read_bytes()


def _raise_childs_error(message: bytes) -> NoReturn:
    try:
        document = json.loads(message)
    except ValueError:  # empty, or cut off
        document = in_child.ENDED
    if "status" in document:
        raise CommandError(document["text"], document["status"])
    raise ObstacleError(document["text"])
