"""Lets other programs use a machine that this process has, through a socket in its directory.

Theory of operation. One thread accepts connections, and each connection has a thread that handles
its requests one after another. A request is a call of the machine, which has its own lock. Each
connection is a client: its open files, index registers and path locks are released when the
connection ends, also by SIGKILL.

Only this process's user is served: the socket's mode admits no other user, and the kernel says
which user is at the other end (SO_PEERCRED).
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
"""How long to wait before the next try when a connection can't be accepted, for example because
this process has no descriptor left."""


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
        """Make the socket, replacing one that a killed process left, and begin to serve.

        :raise MachineError: when the socket can't be made in the machine's directory.
        """
        try:
            with store.disk_errors(self._machine.directory):
                self._path.unlink(missing_ok=True)
                with wire.socket_address(self._machine.directory) as address:
                    self._socket.bind(address)
                self._path.chmod(0o600)  # no process can connect before `listen`
                self._socket.listen(MAX_CONNECTIONS)
        except BaseException:
            self._socket.close()
            raise
        self._accepting.start()

    def stop_accepting(self) -> None:
        """Accept no more connections. Existing ones stay."""
        self._is_stopping.set()
        with contextlib.suppress(OSError):
            self._path.unlink()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes `accept`
        self._accepting.join()
        self._socket.close()

    def wait_until_unused(self, waiting: Callable[[int], None]) -> None:
        """Wait until the clients have closed all connections.

        `waiting` is called with the number of connections, first when the wait begins and then at
        each change.
        """
        reported = 0
        with self._changed:
            while now := len(self._connections):
                if now != reported:
                    reported = now
                    waiting(now)
                self._changed.wait(SIGNAL_CHECK_S)

    def stop(self) -> None:
        """Close the connections that are left, each after the request that it is handling."""
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
        """Serve a client in a new thread. False when it is another user's, or when there are too
        many connections or threads."""
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
            self._handle_requests(connection)
        except (OSError, wire.WireError):  # it has disconnected, or breaks the protocol
            pass
        finally:
            with self._changed:
                del self._connections[connection]
                connection.close()
                self._changed.notify_all()

    def _handle_requests(self, connection: socket.socket) -> None:
        """Reply to a client's requests until it disconnects.

        :raise OSError: when the connection breaks.
        :raise WireError: when a message is not one of this protocol.
        """
        client = Client(self._machine)
        try:
            greeting = {"protocol": wire.PROTOCOL, "owner": os.getpid()}
            wire.send(connection, {"result": greeting})
            while (request := wire.receive(connection)) is not None:
                wire.send(connection, *client.handle(request))
        finally:
            client.release_all()
