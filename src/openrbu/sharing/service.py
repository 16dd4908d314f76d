"""Lets other programs use a machine that this process has, through a socket in its directory.

Theory of operation. A thread accepts connections, and each has a thread that answers its requests
one by one. What a request does is a call of the machine, which has a lock of its own. A connection
is a program: the files that it has open, its index registers and the paths that it holds are let
go of when it ends, be it by SIGKILL.

Only this process's user is answered: the socket is that user's by its mode, and the kernel is asked
who is at the other end.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable

from openrbu.machine import store
from openrbu.machine.virtual import VirtualMachine
from openrbu.sharing import wire
from openrbu.sharing.client import Client
from openrbu.system.signals import SIGNAL_CHECK_S

MAX_CONNECTIONS = 256

_NEXT_TRY_S = 0.1
"""When a connection can't be accepted, such as for want of descriptors, until it is tried again."""


class Service:
    """Serves `machine`, which this process has, from `start` until `stop`."""

    def __init__(self, machine: VirtualMachine) -> None:
        self._machine = machine
        self._path = machine.directory / wire.SOCKET_NAME
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._accepting = threading.Thread(target=self._accept, name="accept", daemon=True)
        self._is_stopping = threading.Event()
        self._changed = threading.Condition()
        self._connections: dict[socket.socket, threading.Thread] = {}

    def start(self) -> None:
        """Make the socket, in place of one that a process left that was killed; begin to serve.

        :raise MachineError: when the directory does not allow it.
        """
        try:
            with store.disk_errors(self._machine.directory):
                self._path.unlink(missing_ok=True)
                with wire.socket_address(self._machine.directory) as address:
                    self._socket.bind(address)
                self._path.chmod(0o600)  # nobody connects before `listen`
                self._socket.listen(MAX_CONNECTIONS)
        except BaseException:
            self._socket.close()
            raise
        self._accepting.start()

    def stop_accepting(self) -> None:
        """Take no new connections; those that there are stay."""
        self._is_stopping.set()
        with contextlib.suppress(OSError):
            self._path.unlink()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes `accept`
        self._accepting.join()
        self._socket.close()

    def wait_until_unused(self, waiting: Callable[[int], None]) -> None:
        """Wait until all connections have ended, of themselves.

        `waiting` is called with how many there are, at first and whenever that changes.
        """
        told = 0
        with self._changed:
            while now := len(self._connections):
                if now != told:
                    told = now
                    waiting(now)
                self._changed.wait(SIGNAL_CHECK_S)

    def stop(self) -> None:
        """End the connections that there still are; what each is doing is done first."""
        with self._changed:
            left = dict(self._connections)
        for connection, thread in left.items():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                connection.shutdown(socket.SHUT_RDWR)
            thread.join()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                if self._is_stopping.wait(_NEXT_TRY_S):
                    return
                continue
            if not self._begin(connection):
                connection.close()

    def _begin(self, connection: socket.socket) -> bool:
        """Answer a program, in a thread of its own; False when it is not to be, or can't be."""
        thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
        with self._changed:
            if wire.peer(connection).uid != os.geteuid():
                return False
            if len(self._connections) >= MAX_CONNECTIONS:
                return False
            try:
                thread.start()
            except RuntimeError:  # this computer has no more threads for this user
                return False
            self._connections[connection] = thread
            return True

    def _serve(self, connection: socket.socket) -> None:
        try:
            self._answer(connection)
        except (OSError, wire.WireError):  # it has gone, or makes no sense
            pass
        finally:
            with self._changed:
                del self._connections[connection]
                connection.close()
                self._changed.notify_all()

    def _answer(self, connection: socket.socket) -> None:
        """Answer a program until it hangs up.

        :raise OSError: when it has gone.
        :raise WireError: when it makes no sense.
        """
        client = Client(self._machine)
        try:
            greeting = {"protocol": wire.PROTOCOL, "owner": os.getpid()}
            wire.send(connection, {"result": greeting})
            while (request := wire.receive(connection)) is not None:
                wire.send(connection, *client.answer(request))
        finally:
            client.release_all()
