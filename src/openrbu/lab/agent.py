"""The program in a guest that makes system calls and runs programs, as requested from outside.

Its channel is a virtio-serial port, and the messages are those of `sharing.wire`:

===========  ===========================================  ==========================================
do           with                                         reply
===========  ===========================================  ==========================================
``calls``    a list of calls: `lab.call_messages`         their results
``run``      ``argv``, ``env``, ``cwd``; payload:         ``{"out": 1 or 2}`` with what the program
             standard input                               writes, as it comes; then ``status``
``shell``    ``argv``, ``env``, ``cwd``, ``rows``,        ``status``, when the program on the
             ``columns``                                  guest's terminal has ended
===========  ===========================================  ==========================================

The agent sends the first message: ``{"protocol": 2, "release": …}``. The reply to a request that
fails is ``{"error": …}``.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from openrbu.buffers import Buffer
from openrbu.errors import OpenRbuError, UsageError
from openrbu.lab import call_messages
from openrbu.lab.scratch import memory_file
from openrbu.sharing import wire
from openrbu.units import KIB

PROTOCOL = 2

PORT_NAME = "openrbu.agent"

TERMINAL = "/dev/hvc0"

_CHUNK_BYTES = 64 * KIB


class Port:
    """A virtio-serial port as a `wire.Transport`.

    :raise OSError: when there is no port `name`.
    """

    def __init__(self, name: str) -> None:
        self._fd = os.open(_device(name), os.O_RDWR | os.O_CLOEXEC)

    def sendall(self, data: Buffer, flags: int = 0, /) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._fd, rest) :]

    def recv(self, size_bytes: int, /) -> bytes:
        return os.read(self._fd, size_bytes)


def _device(name: str) -> str:
    """The device of a port. (The names in /dev/virtio-ports are udev's, which does not run.)"""
    for file in Path("/sys/class/virtio-ports").glob("*/name"):  # a console's port has no name
        if file.read_text().strip() == name:
            return f"/dev/{file.parent.name}"
    raise FileNotFoundError(f"no virtio-serial port has the name {name}")


def serve(port: wire.Transport) -> None:
    """Handle requests until the other end disconnects. An error is the reply to its request."""
    wire.send(port, {"protocol": PROTOCOL, "release": os.uname().release})
    while (message := wire.receive(port)) is not None:
        words = message.header["with"]
        try:
            match message.header["do"]:
                case "calls":
                    performed = call_messages.perform_message(words, message.payload)
                    wire.send(port, {"result": performed[0]}, performed[1])
                case "run":
                    status = _run(port, **words, standard_input=message.payload)
                    wire.send(port, {"result": {"status": status}})
                case "shell":
                    wire.send(port, {"result": {"status": _shell(**words)}})
                case unknown:
                    raise wire.WireError(f"nothing is called {unknown!r} here")
        except wire.WireError as error:
            wire.send(port, {"error": wire.error_document(UsageError(f"the request: {error}"))})
        except (OSError, OpenRbuError) as error:
            wire.send(port, {"error": wire.error_document(error)})


def _run(
    port: wire.Transport,
    argv: Sequence[str],
    env: Mapping[str, str],
    cwd: str,
    standard_input: bytes,
) -> int:
    """Run a program until it ends; its exit status as a shell gives it (a signal: 128 and its
    number). Programs that it left in the background go on, and what they write is not passed on.

    :raise OSError: when it can't be run.
    """
    with (
        _file_with(standard_input) as stdin,
        subprocess.Popen(
            argv, env=env, cwd=cwd, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as program,
        selectors.DefaultSelector() as selector,
        os.fdopen(os.pidfd_open(program.pid), "rb", buffering=0) as end,
    ):
        assert program.stdout is not None
        assert program.stderr is not None
        selector.register(program.stdout, selectors.EVENT_READ, 1)
        selector.register(program.stderr, selectors.EVENT_READ, 2)
        selector.register(end, selectors.EVENT_READ)
        has_ended = False
        while not has_ended:
            has_ended = any(key.fileobj is end for key, _ in selector.select())
            for key, _ in selector.select(0):  # after the end: what is in the pipes, a chunk each
                if key.fileobj is end:
                    continue
                data = os.read(key.fd, _CHUNK_BYTES)
                if data:
                    wire.send(port, {"out": key.data}, data)
                else:
                    selector.unregister(key.fileobj)
    return _as_shell(program.returncode)


@contextlib.contextmanager
def _file_with(data: bytes) -> Any:
    fd = memory_file("stdin", data)
    try:
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


def _shell(argv: Sequence[str], env: Mapping[str, str], cwd: str, rows: int, columns: int) -> int:
    """Run a program on the guest's terminal. The program has to make that its controlling terminal
    (`setsid -c`).

    :raise OSError: when it can't be run.
    """
    fd = os.open(TERMINAL, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

        program = subprocess.Popen(argv, env=env, cwd=cwd, stdin=fd, stdout=fd, stderr=fd)
        return _as_shell(program.wait())
    finally:
        os.close(fd)


def _as_shell(returncode: int) -> int:
    return 128 - returncode if returncode < 0 else returncode


if __name__ == "__main__":
    serve(Port(sys.argv[1]))
