"""A machine that another process has and serves.

Everything about it is asked over a socket (`machine.wire`), but for its RAM, whose file is looked
at here, and what never changes. When that process ends, every call is a MachineError.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections import deque
from collections.abc import Mapping
from contextlib import AbstractContextManager
from itertools import count
from pathlib import Path
from typing import Any

from openrbu.bios.cmos import IoPorts
from openrbu.bios.post import PostReport
from openrbu.buffers import Buffer
from openrbu.drivers.sysfs import ROOT, Caller, Stat
from openrbu.errors import MachineError
from openrbu.machine import store, wire
from openrbu.machine.base import Standing
from openrbu.machine.files import File
from openrbu.machine.holds import held
from openrbu.machine.wire import Message, WireError
from openrbu.memory.physical import PhysicalMemory, RamFile, pc_regions
from openrbu.signals import signals_held

ANSWER_WITHIN_S = 60.0
"""What takes longest is a restart that programs the flash: a second."""


class NotServedError(Exception):
    """Nobody serves this machine: not yet, or not any more."""


class Line:
    """The connection to the process that has a machine. Any thread may call; one at a time does.

    :raise NotServedError: when nobody answers.
    :raise MachineError: when it may not be used from here.
    """

    def __init__(self, directory: Path) -> None:
        self._name = directory.name
        self._lock = threading.Lock()
        self._closed_files: deque[int] = deque()
        self._problem = ""
        self._owner: int | None = None
        self._socket = _connect(directory)
        try:
            self._greet(directory)
        except BaseException:
            self._socket.close()
            raise

    def _greet(self, directory: Path) -> None:
        server = wire.peer_uid(self._socket)
        if server not in (os.geteuid(), 0, directory.stat().st_uid):
            raise MachineError(
                f"machine {self._name!r} is served by user {server}, who has no business there"
            )
        try:
            greeting = wire.receive(self._socket)
        except (OSError, WireError):
            greeting = None
        if greeting is None:
            if os.geteuid() not in (server, 0):
                raise MachineError(f"machine {self._name!r} is served to user {server} only")
            raise NotServedError
        known = greeting.header.get("result")
        if not isinstance(known, dict) or known.get("protocol") != wire.PROTOCOL:
            raise MachineError(
                f"machine {self._name!r} is served by another version of openrbu: end that first"
            )
        self._owner = known.get("owner")

    def call(self, name: str, payload: Buffer = b"", /, **arguments: Any) -> Message:
        """Ask for something, and wait for the answer: a header with `result`, and a payload.

        Signals wait meanwhile, or the next answer would be taken for this one's.

        :raise MachineError: when the process that has the machine has ended, or does not answer.
        :raise OpenRbuError | OSError | PowerCutError: what the machine answers.
        """
        with signals_held(), self._lock:
            if self._problem:
                raise MachineError(self._problem)
            closed = [self._closed_files.popleft() for _ in range(len(self._closed_files))]
            request = {"do": name, "with": arguments, "closed": closed}
            try:
                wire.send(self._socket, request, payload)
                answer = wire.receive(self._socket)
                error = None if answer is None else answer.header.get("error")
                failure = None if error is None else wire.error_of(error)
            except TimeoutError:
                raise self._broken(f"does not answer for {ANSWER_WITHIN_S:.0f} s") from None
            except WireError as nonsense:
                raise self._broken(f"answers nonsense ({nonsense})") from None
            except OSError:
                answer = None
            if answer is None:
                raise self._broken("has ended, and the machine's power may be lost with it")
        if failure is not None:
            raise failure
        return answer

    def result(self, name: str, payload: Buffer = b"", /, **arguments: Any) -> Any:
        """Ask for something that has no payload.

        :raise MachineError | OpenRbuError | OSError | PowerCutError: as `call`.
        """
        return self.call(name, payload, **arguments).header.get("result")

    def _broken(self, what: str) -> MachineError:
        """The connection is of no use any more, and why."""
        self._problem = f"process {self._owner}, which has machine {self._name!r}, {what}"
        self._socket.close()
        return MachineError(self._problem)

    def forget_file(self, number: int) -> None:
        """Let go of an open file. The next request says so, which nothing has to wait for."""
        self._closed_files.append(number)

    def close(self) -> None:
        with self._lock:
            self._problem = f"machine {self._name!r} is not used here any more"
            self._socket.close()


def _connect(directory: Path) -> socket.socket:
    """A connection to the socket in a directory.

    :raise NotServedError: when there is none, or nobody behind it.
    """
    with contextlib.ExitStack() as stack, store.disk_errors(directory):
        connection = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        connection.settimeout(ANSWER_WITHIN_S)
        try:
            with wire.socket_address(directory) as address:
                connection.connect(address)
        except (FileNotFoundError, ConnectionError, BlockingIOError):
            raise NotServedError from None
        stack.pop_all()
    return connection


class RemotePorts:
    """A machine's I/O ports; the index register is this program's own."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def out8(self, port: int, value: int) -> None:
        self._line.call("out8", port=port, value=value)

    def in8(self, port: int) -> int:
        value: int = self._line.result("in8", port=port)
        return value


class RemoteFile:
    """A file of the machine that is open there."""

    def __init__(self, line: Line, number: int) -> None:
        self._line, self._number = line, number

    def stat(self) -> Stat:
        return wire.stat_of(self._line.result("file_stat", file=self._number))

    def read(self, offset: int, size_bytes: int) -> bytes:
        """One `pread`; of more than `wire.MAX_PAYLOAD_BYTES` a part comes."""
        answer = self._line.call(
            "file_read", file=self._number, offset=offset, size_bytes=size_bytes
        )
        return answer.payload

    def write(self, offset: int, data: Buffer, *, sys_rawio: bool = True) -> int:
        """One `pwrite`; of more than `wire.MAX_PAYLOAD_BYTES` a part is taken."""
        part = memoryview(data)[: wire.MAX_PAYLOAD_BYTES]
        done: int = self._line.result(
            "file_write", part, file=self._number, offset=offset, sys_rawio=sys_rawio
        )
        return done

    def close(self) -> None:
        self._line.forget_file(self._number)


class RemoteFiles:
    """The machine's files, as `machine.files.Files`."""

    def __init__(self, line: Line) -> None:
        self._line = line

    def stat(self, path: str) -> Stat:
        return wire.stat_of(self._line.result("stat", path=path))

    def list(self, path: str) -> list[str]:
        names: list[str] = self._line.result("list", path=path)
        return names

    def readlink(self, path: str) -> str:
        target: str = self._line.result("readlink", path=path)
        return target

    def open(
        self,
        path: str,
        *,
        reading: bool = False,
        writing: bool = False,
        caller: Caller = ROOT,
        must_be_on: bool = False,
    ) -> File:
        """Open a file; `must_be_on`: on a machine that is off it is MachineError, not ENOENT."""
        number = self._line.result(
            "open",
            path=path,
            reading=reading,
            writing=writing,
            uid=caller.uid,
            sys_rawio=caller.sys_rawio,
            must_be_on=must_be_on,
        )
        return RemoteFile(self._line, number)


class RemoteMachine:
    """The machine in `directory`, through the process that serves it: see `machine.base.Machine`.

    :raise NotServedError: when nobody serves it.
    :raise MachineError: when it may not be used from here.
    """

    def __init__(self, directory: Path) -> None:
        self.directory, self.name = directory, directory.name
        self.last_post: PostReport | None = None
        self._ram: RamFile | None = None
        self._holders = count(1)
        self.config = store.load_config(directory)
        self._line = Line(directory)
        self.files = RemoteFiles(self._line)

    def close(self) -> None:
        """Let go of it. The machine stays as it is."""
        self._line.close()
        if self._ram is not None:
            self._ram.close()

    @property
    def is_on(self) -> bool:
        is_on: bool = self._line.result("is_on")
        return is_on

    def standing(self) -> Standing:
        answer = self._line.call("standing")
        return wire.standing_of(answer.header["result"], answer.payload)

    def power_on(self) -> PostReport:
        self.last_post = post = wire.post_of(self._line.result("power_on"))
        return post

    def restart(self, *, cold: bool | None = None) -> PostReport:
        self.last_post = post = wire.post_of(self._line.result("restart", cold=cold))
        return post

    def power_off(self) -> None:
        self._line.call("power_off")

    @property
    def ram(self) -> PhysicalMemory:
        if self._ram is None:
            with store.disk_errors(self.directory):
                regions = pc_regions(self.config.ram_bytes)
                self._ram = RamFile(self.directory / "ram", regions, writable=False)
        return self._ram

    @property
    def ports(self) -> IoPorts:
        self._line.call("check_running")
        return RemotePorts(self._line)

    def exists(self, path: str) -> bool:
        exists: bool = self._line.result("exists", path=path)
        return exists

    def open(self, path: str, *, reading: bool = False, writing: bool = False) -> File:
        return self.files.open(path, reading=reading, writing=writing, must_be_on=True)

    @property
    def modules(self) -> tuple[str, ...]:
        return tuple(self._line.result("modules"))

    def load_module(self, name: str, parameters: Mapping[str, str]) -> None:
        self._line.call("load_module", name=name, parameters=dict(parameters))

    def unload_module(self, name: str) -> None:
        self._line.call("unload_module", name=name)

    def exclusively(self, path: str) -> AbstractContextManager[None]:
        holder = next(self._holders)

        def take() -> bool:
            taken: bool = self._line.result("take", path=path, holder=holder)
            return taken

        def release() -> None:
            with contextlib.suppress(MachineError):  # its connection ended, and that released it
                self._line.call("release", path=path, holder=holder)

        return held(path, take, release)
