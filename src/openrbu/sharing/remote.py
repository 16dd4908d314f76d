"""A machine that another process has and serves.

Every call goes over a socket (`sharing.wire`), except for what never changes and for RAM: its file
is read here. When that process ends, every call raises MachineError.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from itertools import count
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from openrbu.bios.post_report import PostReport
from openrbu.buffers import Buffer
from openrbu.drivers.sysfs import ROOT, Caller, Change, Stat
from openrbu.errors import MachineError
from openrbu.kernel.files import File
from openrbu.machine import store
from openrbu.machine.base import MachineStatus
from openrbu.machine.config import load_config
from openrbu.machine.path_locks import path_lock
from openrbu.memory.frames import Frames
from openrbu.memory.physical import PhysicalMemory, Region, pc_regions
from openrbu.memory.ram_file import RamFile
from openrbu.ports import IoPorts
from openrbu.sharing import client, deadline, replies, wire
from openrbu.sharing.client import Call
from openrbu.sharing.deadline import DeadlineTransport, PeerStoppedError
from openrbu.sharing.wire import Message, WireError, fields
from openrbu.system.descriptors import readable
from openrbu.system.signals import SIGNAL_CHECK_S, DeferredSignals, signals_deferred

_HAS_ENDED = "has ended, and the machine's power may be lost with it"

T = TypeVar("T")
P = ParamSpec("P")


class NotServedError(Exception):
    """No process serves this machine, not yet or not any more."""


class Connection:
    """The connection to the process that has the machine in `directory`. Any thread may call;
    calls of several threads are done one after another.

    :raise NotServedError: when no process serves the machine.
    :raise MachineError: when that process is another user's, another version of openrbu's, or is
        stopped.
    """

    def __init__(self, directory: Path) -> None:
        self._name = directory.name
        self._lock = threading.Lock()
        self._closed_files: deque[int] = deque()
        self._problem = ""
        self._owner: int | None = None
        self._socket = _connect(directory)
        try:
            self._check_greeting()
        except BaseException:
            self._socket.close()
            raise

    def _check_greeting(self) -> None:
        server = wire.peer(self._socket)
        if server.uid != os.geteuid():
            raise MachineError(
                f"machine {self._name!r} is served by user {server.uid}, and to that user only"
            )
        self._owner = server.pid
        try:
            greeting = wire.receive(DeadlineTransport(self._socket, DeferredSignals()))
        except PeerStoppedError:
            raise self._broken(self._stopped()) from None
        except (OSError, WireError):
            greeting = None
        if greeting is None:
            raise NotServedError
        try:
            known = fields(greeting.header["result"], {"protocol": int, "owner": int})
            is_known = known["protocol"] == wire.PROTOCOL
        except (LookupError, WireError):
            is_known = False
        if not is_known:
            raise MachineError(
                f"machine {self._name!r} is served by another version of openrbu: end that first"
            )

    def call(
        self, call: Call[P], read: Callable[[Message], T], /, *_: P.args, **arguments: P.kwargs
    ) -> T:
        """Make a call, wait for its reply, and read that with `read`. Arguments have names.

        Signals are deferred until the reply has come; otherwise it would be taken for the reply to
        the next call. A process that does not reply can defer them for
        `deadline.AFTER_A_SIGNAL_S` only.

        :raise MachineError: when the process that has the machine has ended, does not reply, or
            replies with what the call can't return.
        :raise OpenRbuError | OSError | PowerCutError: as the machine's call raises it.
        """
        given: dict[str, Any] = dict(arguments)
        payload: Buffer = given.pop("data", b"")
        with signals_deferred() as deferred, self._lock:
            if self._problem:
                raise MachineError(self._problem)
            closed = [self._closed_files.popleft() for _ in range(len(self._closed_files))]
            request = {"do": call.name, "with": given, "closed": closed}
            try:
                connection = DeadlineTransport(self._socket, deferred)
                wire.send(connection, request, payload)
                reply = wire.receive(connection)
                if reply is None:
                    raise ConnectionResetError
                if "error" not in reply.header:
                    return read(reply)
                failure = wire.error_of(reply.header["error"])
            except TimeoutError:
                how_long = "" if deferred.has_pending else f" for {deadline.REPLY_WITHIN_S:.0f} s"
                raise self._broken(f"does not reply{how_long}") from None
            except PeerStoppedError:
                raise self._broken(self._stopped()) from None
            except WireError as nonsense:
                raise self._broken(f"sends invalid replies ({nonsense})") from None
            except OSError:
                raise self._broken(_HAS_ENDED) from None
        raise failure

    def check_connection(self) -> None:
        """:raise MachineError: when the process that has the machine has ended."""
        if not self._lock.acquire(blocking=False):
            return  # a call is under way: it raises the error
        try:
            if self._problem:
                raise MachineError(self._problem)
            if readable([self._socket], 0):  # no reply is due: it has closed it
                raise self._broken(_HAS_ENDED)
        finally:
            self._lock.release()

    def _stopped(self) -> str:
        return f"is stopped: let it go on (fg, or kill -CONT {self._owner})"

    def _broken(self, what: str) -> MachineError:
        """Close the connection, and remember why for later calls; the error to raise."""
        self._problem = f"process {self._owner}, which has machine {self._name!r}, {what}"
        self._socket.close()
        return MachineError(self._problem)

    def close_later(self, number: int) -> None:
        """Close a file with the next request, so that closing needs no request of its own."""
        self._closed_files.append(number)

    def close(self) -> None:
        with self._lock:
            self._problem = f"machine {self._name!r} is not used here any more"
            self._socket.close()


def _connect(directory: Path) -> socket.socket:
    """A connection to the socket in a directory.

    :raise NotServedError: when there is no socket, or no process accepts connections at it.
    """
    with contextlib.ExitStack() as stack, store.disk_errors(directory):
        connection = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        connection.settimeout(SIGNAL_CHECK_S)
        try:
            with wire.socket_address(directory) as address:
                connection.connect(address)
        except (FileNotFoundError, ConnectionError, BlockingIOError):
            raise NotServedError from None
        stack.pop_all()
    return connection


class RemotePorts:
    """A machine's I/O ports, with an index register of this client's own: see `ports.OwnPorts`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def out8(self, port: int, value: int) -> None:
        self._connection.call(client.OUT8, replies.no_value, port=port, value=value)

    def in8(self, port: int) -> int:
        return self._connection.call(client.IN8, replies.number(0xFF), port=port)


class RemoteFile:
    """A file of the machine that is open there."""

    def __init__(self, connection: Connection, number: int) -> None:
        self._connection, self._number = connection, number

    def stat(self) -> Stat:
        return self._connection.call(client.FILE_STAT, replies.stat, file=self._number)

    def read(self, offset: int, size_bytes: int) -> bytes:
        """One `pread`, of `wire.MAX_PAYLOAD_BYTES` at most."""
        bounded = replies.data(size_bytes)
        return self._connection.call(
            client.FILE_READ, bounded, file=self._number, offset=offset, size_bytes=size_bytes
        )

    def write(self, offset: int, data: Buffer, *, sys_rawio: bool = True) -> int:
        """One `pwrite`, of `wire.MAX_PAYLOAD_BYTES` at most; the number of bytes written."""
        part = memoryview(data)[: wire.MAX_PAYLOAD_BYTES]
        bounded = replies.number(len(part))
        return self._connection.call(
            client.FILE_WRITE,
            bounded,
            file=self._number,
            offset=offset,
            sys_rawio=sys_rawio,
            data=part,
        )

    def close(self) -> None:
        self._connection.close_later(self._number)


class RemoteFiles:
    """The machine's files, as `kernel.files.Files`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def stat(self, path: str) -> Stat:
        return self._connection.call(client.STAT, replies.stat, path=path)

    def change(self, path: str, wanted: Change, caller: Caller = ROOT) -> None:
        self._connection.call(
            client.CHANGE,
            replies.no_value,
            path=path,
            wanted=dataclasses.asdict(wanted),
            caller=dataclasses.asdict(caller),
        )

    def list(self, path: str) -> list[str]:
        return self._connection.call(client.LIST, replies.names, path=path)

    def readlink(self, path: str) -> str:
        return self._connection.call(client.READLINK, replies.text, path=path)

    def open(
        self,
        path: str,
        *,
        reading: bool = False,
        writing: bool = False,
        caller: Caller = ROOT,
        must_be_on: bool = False,
    ) -> File:
        """Open a file. `must_be_on`: raise MachineError, not ENOENT, when the machine is off."""
        number = self._connection.call(
            client.OPEN,
            replies.number(),
            path=path,
            reading=reading,
            writing=writing,
            caller=dataclasses.asdict(caller),
            must_be_on=must_be_on,
        )
        return RemoteFile(self._connection, number)


class RemoteMachine:
    """The machine in `directory`, through the process that serves it: see `machine.base.Machine`.

    :raise NotServedError, MachineError: as `Connection`.
    """

    def __init__(self, directory: Path) -> None:
        self.directory, self.name = directory, directory.name
        self.original = directory
        self.last_post: PostReport | None = None
        self._ram: RamFile | None = None
        self._holders = count(1)
        self.config = load_config(directory)
        self._connection = Connection(directory)
        self.files = RemoteFiles(self._connection)

    def close(self) -> None:
        """Disconnect. The machine stays as it is."""
        self._connection.close()
        if self._ram is not None:
            self._ram.close()

    @property
    def is_on(self) -> bool:
        return self._connection.call(client.IS_ON, replies.boolean)

    def status(self) -> MachineStatus:
        return self._connection.call(client.STATUS, replies.status)

    def power_on(self) -> PostReport:
        self.last_post = post = self._connection.call(client.POWER_ON, replies.post)
        return post

    def restart(self, *, cold: bool | None = None) -> PostReport:
        self.last_post = post = self._connection.call(client.RESTART, replies.post, cold=cold)
        return post

    def kexec(self) -> None:
        self._connection.call(client.KEXEC, replies.no_value)

    def load_kexec(self, *, is_loaded: bool) -> None:
        self._connection.call(client.LOAD_KEXEC, replies.no_value, is_loaded=is_loaded)

    def power_off(self) -> None:
        self._connection.call(client.POWER_OFF, replies.no_value)

    @property
    def ram(self) -> PhysicalMemory:
        if self._ram is None:
            with store.disk_errors(self.directory):
                regions = pc_regions(self.config.ram_bytes)
                is_mapped = self.config.xen is None
                path = self.directory / "ram"
                self._ram = RamFile(path, regions, writable=False, is_mapped=is_mapped)
        return self._ram

    @property
    def frame_table(self) -> Frames | None:
        if self.config.xen is None:
            return None
        from openrbu.machine.dom0 import read_frame_table  # noqa: PLC0415  (start-up time)

        return read_frame_table(self.directory)

    @property
    def held_regions(self) -> tuple[Region, ...]:
        return self._connection.call(client.HELD_REGIONS, replies.regions)

    @property
    def ports(self) -> IoPorts:
        self._connection.call(client.CHECK_RUNNING, replies.no_value)
        return RemotePorts(self._connection)

    def check_connection(self) -> None:
        self._connection.check_connection()

    def exists(self, path: str) -> bool:
        return self._connection.call(client.EXISTS, replies.boolean, path=path)

    def open(self, path: str, *, reading: bool = False, writing: bool = False) -> File:
        return self.files.open(path, reading=reading, writing=writing, must_be_on=True)

    def make_file(self, path: str) -> None:
        self._connection.call(client.MAKE_FILE, replies.no_value, path=path)

    def remove_file(self, path: str) -> None:
        self._connection.call(client.REMOVE_FILE, replies.no_value, path=path)

    def use_root(self, root: int | None) -> None:
        path = "" if root is None else f"/proc/{os.getpid()}/fd/{root}"
        self._connection.call(client.USE_ROOT, replies.no_value, root=path)

    @property
    def modules(self) -> tuple[str, ...]:
        return tuple(self._connection.call(client.MODULES, replies.names))

    def load_module(self, name: str, parameters: Mapping[str, str]) -> None:
        self._connection.call(
            client.LOAD_MODULE, replies.no_value, name=name, parameters=dict(parameters)
        )

    def unload_module(self, name: str) -> None:
        self._connection.call(client.UNLOAD_MODULE, replies.no_value, name=name)

    def path_lock(self, path: str) -> AbstractContextManager[None]:
        holder = next(self._holders)

        def acquire() -> bool:
            return self._connection.call(client.ACQUIRE, replies.boolean, path=path, holder=holder)

        def release() -> None:
            with contextlib.suppress(MachineError):  # its connection ended, and that released it
                self._connection.call(client.RELEASE, replies.no_value, path=path, holder=holder)

        return path_lock(path, acquire, release)
