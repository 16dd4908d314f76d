"""Machines that a process of its own serves."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from openrbu.machine.store import locked
from openrbu.sharing import wire
from openrbu.sharing.remote import RemoteMachine
from openrbu.sharing.wire import Message

A_DAY_S = 86400.0
"""A limit so long that no test reaches it. A test that would wait for it is ended by pytest's own
limit (pyproject.toml)."""

GREETING = Message({"result": {"protocol": wire.PROTOCOL, "owner": 4711}})

_SERVER = """
import sys
from pathlib import Path
from openrbu.sharing.access import serve_or_connect

def say(text):
    print(text, flush=True)

def waiting(programs):
    say(f"waiting for {programs}")

with serve_or_connect(Path(sys.argv[1]), waiting=waiting) as machine:
    if not machine.is_on:
        machine.power_on()
    say("ready")
    sys.stdin.read()
say("gone")
"""


def send(process: subprocess.Popen[Any], number: signal.Signals) -> None:
    """Send a signal; SIGSTOP is waited for, which is not there when it is sent."""
    os.kill(process.pid, number)
    if number == signal.SIGSTOP:
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


class Server:
    """A process that serves a machine until it is told to end."""

    def __init__(self, directory: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVER, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def line(self) -> str:
        """The next line that it says; empty when it has ended."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def leave(self) -> None:
        """Ask it to end, and don't wait for it."""
        assert self._process.stdin is not None
        self._process.stdin.close()

    def end(self) -> int:
        """Ask it to end; its exit code."""
        self.leave()
        return self._process.wait(60)

    def signal(self, number: signal.Signals) -> None:
        send(self._process, number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(60)

    def close(self) -> None:
        if self._process.poll() is None:
            self.kill()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()


@contextlib.contextmanager
def serving(directory: Path) -> Iterator[Server]:
    """The machine in a directory, switched on and served by another process."""
    with contextlib.closing(Server(directory)) as server:
        assert server.line() == "ready"
        yield server


def client(directory: Path) -> contextlib.closing[RemoteMachine]:
    """The machine as a program has it that another process serves."""
    return contextlib.closing(RemoteMachine(directory))


def connected(directory: Path) -> socket.socket:
    """A connection to the machine's socket, greeted."""
    raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    raw.settimeout(60)
    with wire.socket_address(directory) as address:
        raw.connect(address)
    assert wire.receive(raw) is not None
    return raw


@contextlib.contextmanager
def answering(
    directory: Path,
    answer: Callable[[Message], Message],
    greeting: Message = GREETING,
) -> Iterator[None]:
    """A machine that is served by somebody who answers each request with what `answer` makes."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(ConnectionError):
                wire.send(connection, *greeting)
                while (request := wire.receive(connection)) is not None:
                    wire.send(connection, *answer(request))

    with locked(directory, serving=True), socket.socket(socket.AF_UNIX) as listener:
        with wire.socket_address(directory) as address:
            listener.bind(address)
        listener.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            (directory / wire.SOCKET_NAME).unlink()
