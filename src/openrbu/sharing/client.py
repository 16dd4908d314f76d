"""The server's side of one connection: what a client has open, and how its requests are done."""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from types import MappingProxyType
from typing import Any, Concatenate, Generic, ParamSpec

from openrbu.buffers import Buffer
from openrbu.drivers.dev_port import PORTS
from openrbu.drivers.sysfs import Caller, Change
from openrbu.errors import KernelError, OpenRbuError, PowerCutError
from openrbu.kernel.files import File
from openrbu.machine.path_locks import STEP_S
from openrbu.machine.virtual import VirtualMachine
from openrbu.ports import OwnPorts
from openrbu.sharing import replies, wire
from openrbu.sharing.wire import Message, WireError

MAX_OPEN_FILES = 4096
"""The default hard limit of a Linux process: RLIMIT_NOFILE, getrlimit(2)."""

P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class _Opened:
    """An open file, and for what it was opened."""

    file: File
    path: str
    reading: bool
    writing: bool


class Client:
    """One client of `machine`: its open files, index registers and path locks."""

    def __init__(self, machine: VirtualMachine) -> None:
        self._machine, self._files = machine, machine.files
        self._ports = OwnPorts(machine.cmos, machine.lock)
        self._opened: dict[int, _Opened] = {}
        self._numbers = count(1)
        self._path_locks: set[tuple[str, int]] = set()

    def handle(self, request: Message) -> Message:
        """Do what a request asks for, and return the reply. An error of the call is a reply too.

        :raise WireError: when there is no such call, or its arguments are not of their types.
        """
        call, arguments = _checked(request)
        for number in _closed(request):
            self._opened.pop(number, None)
        try:
            result = call.method(self, **arguments)
        except PowerCutError as cut:
            self._machine.cut_power()
            return Message({"error": wire.error_document(cut)})
        except (OpenRbuError, OSError) as error:
            return Message({"error": wire.error_document(error)})
        if isinstance(result, Message):
            return Message({"result": result.header}, result.payload)
        return Message({"result": result})

    def release_all(self) -> None:
        """Close the files of a client that has disconnected, and release its path locks and its
        root."""
        self._opened.clear()
        for path, holder in self._path_locks:
            self._machine.path_locks.release(path, (self, holder))
        self._path_locks.clear()
        self.use_root("")

    # -- power and hardware -----------------------------------------------------------------

    def is_on(self) -> bool:
        return self._machine.is_on

    def status(self) -> Message:
        return replies.status_message(self._machine.status())

    def held_regions(self) -> Message:
        return replies.regions_message(self._machine.held_regions)

    def power_on(self) -> dict[str, Any]:
        return replies.post_document(self._machine.power_on())

    def restart(self, cold: bool | None) -> dict[str, Any]:
        return replies.post_document(self._machine.restart(cold=cold))

    def kexec(self) -> None:
        self._machine.kexec()

    def load_kexec(self, *, is_loaded: bool) -> None:
        self._machine.load_kexec(is_loaded=is_loaded)

    def power_off(self) -> None:
        self._machine.power_off()

    def check_running(self) -> None:
        self._machine.running_kernel()

    def in8(self, port: int) -> int:
        return self._ports.in8(port % PORTS)

    def out8(self, port: int, value: int) -> None:
        self._ports.out8(port % PORTS, value & 0xFF)

    # -- modules and paths ------------------------------------------------------------------

    def modules(self) -> tuple[str, ...]:
        return self._machine.modules

    def load_module(self, name: str, parameters: dict[str, str]) -> None:
        if not all(isinstance(value, str) for value in parameters.values()):
            raise WireError("a module's parameters are text")
        self._machine.load_module(name, parameters)

    def unload_module(self, name: str) -> None:
        self._machine.unload_module(name)

    def acquire(self, path: str, holder: int) -> bool:
        """Lock a path. False after `STEP_S` when another program still has it locked: the client
        asks again."""
        self._path_locks.add((path, holder))
        return self._machine.path_locks.acquire(path, (self, holder), wait_s=STEP_S)

    def release(self, path: str, holder: int) -> None:
        self._path_locks.discard((path, holder))
        self._machine.path_locks.release(path, (self, holder))

    def exists(self, path: str) -> bool:
        return self._machine.exists(path)

    def make_file(self, path: str) -> None:
        self._machine.make_file(path)

    def remove_file(self, path: str) -> None:
        self._machine.remove_file(path)

    def use_root(self, root: str) -> None:
        with self._machine.lock:
            self._machine.program_files.use(self, root)

    def stat(self, path: str) -> dict[str, Any]:
        return replies.stat_document(self._files.stat(path))

    def change(self, path: str, wanted: dict[str, Any], caller: dict[str, Any]) -> None:
        self._files.change(path, replies.record(Change, wanted), replies.record(Caller, caller))

    def list_directory(self, path: str) -> list[str]:
        return self._files.list(path)

    def readlink(self, path: str) -> str:
        return self._files.readlink(path)

    # -- open files -------------------------------------------------------------------------

    def open_file(
        self,
        path: str,
        *,
        reading: bool,
        writing: bool,
        caller: dict[str, Any],
        must_be_on: bool,
    ) -> int:
        if len(self._opened) >= MAX_OPEN_FILES:
            raise KernelError(errno.EMFILE, path)
        if must_be_on:
            file = self._machine.open(path, reading=reading, writing=writing)
        else:
            user = replies.record(Caller, caller)
            file = self._files.open(path, reading=reading, writing=writing, caller=user)
        number = next(self._numbers)
        self._opened[number] = _Opened(file, path, reading, writing)
        return number

    def file_stat(self, file: int) -> dict[str, Any]:
        return replies.stat_document(self._find(file).file.stat())

    def file_read(self, file: int, offset: int, size_bytes: int) -> Message:
        opened = self._find(file)
        if not opened.reading:
            raise KernelError(errno.EBADF, opened.path)
        size_bytes = min(size_bytes, wire.MAX_PAYLOAD_BYTES)
        return Message({}, opened.file.read(offset, size_bytes))

    def file_write(self, file: int, offset: int, *, sys_rawio: bool, data: Buffer) -> int:
        opened = self._find(file)
        if not opened.writing:
            raise KernelError(errno.EBADF, opened.path)
        return opened.file.write(offset, data, sys_rawio=sys_rawio)

    def _find(self, number: int) -> _Opened:
        if number not in self._opened:
            raise KernelError(errno.EBADF)
        return self._opened[number]


class Call(Generic[P]):
    """A call that a client may ask for: its name on the wire, the method of `Client` that does it,
    and the types of its arguments on the wire. `data` is the payload; integers are not negative.

    `sharing.remote` passes a `Call` together with its arguments, so that mypy checks their names
    and types against the method's.
    """

    def __init__(
        self, name: str, method: Callable[Concatenate[Client, P], object], /, **kinds: Any
    ) -> None:
        self.name, self.method, self.kinds = name, method, kinds


IS_ON = Call("is_on", Client.is_on)
STATUS = Call("status", Client.status)
HELD_REGIONS = Call("held_regions", Client.held_regions)
POWER_ON = Call("power_on", Client.power_on)
RESTART = Call("restart", Client.restart, cold=bool | None)
KEXEC = Call("kexec", Client.kexec)
LOAD_KEXEC = Call("load_kexec", Client.load_kexec, is_loaded=bool)
POWER_OFF = Call("power_off", Client.power_off)
CHECK_RUNNING = Call("check_running", Client.check_running)
IN8 = Call("in8", Client.in8, port=int)
OUT8 = Call("out8", Client.out8, port=int, value=int)
MODULES = Call("modules", Client.modules)
LOAD_MODULE = Call("load_module", Client.load_module, name=str, parameters=dict)
UNLOAD_MODULE = Call("unload_module", Client.unload_module, name=str)
ACQUIRE = Call("acquire", Client.acquire, path=str, holder=int)
RELEASE = Call("release", Client.release, path=str, holder=int)
EXISTS = Call("exists", Client.exists, path=str)
MAKE_FILE = Call("make_file", Client.make_file, path=str)
REMOVE_FILE = Call("remove_file", Client.remove_file, path=str)
USE_ROOT = Call("use_root", Client.use_root, root=str)
STAT = Call("stat", Client.stat, path=str)
CHANGE = Call("change", Client.change, path=str, wanted=dict, caller=dict)
LIST = Call("list", Client.list_directory, path=str)
READLINK = Call("readlink", Client.readlink, path=str)
OPEN = Call(
    "open",
    Client.open_file,
    path=str,
    reading=bool,
    writing=bool,
    caller=dict,
    must_be_on=bool,
)
FILE_STAT = Call("file_stat", Client.file_stat, file=int)
FILE_READ = Call("file_read", Client.file_read, file=int, offset=int, size_bytes=int)
FILE_WRITE = Call("file_write", Client.file_write, file=int, offset=int, sys_rawio=bool, data=bytes)

CALLS: Mapping[str, Call[...]] = MappingProxyType(
    {
        call.name: call
        for call in (
            IS_ON,
            STATUS,
            HELD_REGIONS,
            POWER_ON,
            RESTART,
            KEXEC,
            LOAD_KEXEC,
            POWER_OFF,
            CHECK_RUNNING,
            IN8,
            OUT8,
            MODULES,
            LOAD_MODULE,
            UNLOAD_MODULE,
            ACQUIRE,
            RELEASE,
            EXISTS,
            MAKE_FILE,
            REMOVE_FILE,
            USE_ROOT,
            STAT,
            CHANGE,
            LIST,
            READLINK,
            OPEN,
            FILE_STAT,
            FILE_READ,
            FILE_WRITE,
        )
    }
)
"""All calls that a client may ask for, by name."""


def _checked(request: Message) -> tuple[Call[...], dict[str, Any]]:
    """The call that a request is for, and its arguments.

    :raise WireError: when there is no such call, or the arguments are not the call's.
    """
    name, given = request.header.get("do"), request.header.get("with")
    if not (isinstance(name, str) and name in CALLS and isinstance(given, dict)):
        raise WireError("there is no such call")
    call = CALLS[name]
    arguments = given | {"data": request.payload} if "data" in call.kinds else given
    return call, wire.fields(arguments, call.kinds)


def _closed(request: Message) -> list[int]:
    """The numbers of the files that the client has closed since its last request.

    :raise WireError: when they are not a list of integers.
    """
    closed = request.header.get("closed", [])
    if not (isinstance(closed, list) and all(isinstance(each, int) for each in closed)):
        raise WireError("not a list of files")
    return closed
