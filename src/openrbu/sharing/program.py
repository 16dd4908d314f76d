"""A program that uses a machine over the wire, as the process that has the machine sees it."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from types import MappingProxyType
from typing import Any

from openrbu.drivers.dev_port import PORTS
from openrbu.drivers.sysfs import Caller
from openrbu.errors import KernelError, OpenRbuError, PowerCutError
from openrbu.kernel.files import File
from openrbu.machine.holds import STEP_S
from openrbu.machine.virtual import VirtualMachine
from openrbu.ports import OwnPorts
from openrbu.sharing import answers, wire
from openrbu.sharing.wire import Message, WireError

MAX_OPEN_FILES = 4096
"""As of a Linux process by default (RLIMIT_NOFILE, the hard limit)."""

_FILE: Mapping[str, Any] = {"file": int}
_PATH: Mapping[str, Any] = {"path": str}
_HOLD: Mapping[str, Any] = {"path": str, "holder": int}
_OPEN: Mapping[str, Any] = {
    "path": str,
    "reading": bool,
    "writing": bool,
    "uid": int,
    "sys_rawio": bool,
    "must_be_on": bool,
}

CALLS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "is_on": {},
        "standing": {},
        "power_on": {},
        "restart": {"cold": bool | None},
        "power_off": {},
        "check_running": {},
        "in8": {"port": int},
        "out8": {"port": int, "value": int},
        "modules": {},
        "load_module": {"name": str, "parameters": dict},
        "unload_module": {"name": str},
        "take": _HOLD,
        "release": _HOLD,
        "exists": _PATH,
        "stat": _PATH,
        "list": _PATH,
        "readlink": _PATH,
        "open": _OPEN,
        "file_stat": _FILE,
        "file_read": {"file": int, "offset": int, "size_bytes": int},
        "file_write": {"file": int, "offset": int, "sys_rawio": bool, "data": bytes},
    }
)
"""What a program may ask for, and with what. `data` is the payload; integers are not negative."""


@dataclass(frozen=True, slots=True)
class _Opened:
    """A file, and what it was opened for."""

    file: File
    path: str
    reading: bool
    writing: bool


class Program:
    """What a program has of the machine, and the answers to its requests."""

    def __init__(self, machine: VirtualMachine) -> None:
        self._machine, self._files = machine, machine.files
        self._ports = OwnPorts(machine.cmos, machine.lock)
        self._opened: dict[int, _Opened] = {}
        self._numbers = count(1)
        self._holds: set[tuple[str, int]] = set()

    def answer(self, request: Message) -> Message:
        """Do what is asked for.

        :raise WireError: when it is nothing that can be asked for.
        """
        call, arguments = _checked(request)
        for number in _closed(request):
            self._opened.pop(number, None)
        try:
            result = getattr(self, f"_{call}")(**arguments)
        except PowerCutError as cut:
            self._machine.lose_power()
            return Message({"error": wire.error_document(cut)})
        except (OpenRbuError, OSError) as error:
            return Message({"error": wire.error_document(error)})
        if isinstance(result, Message):
            return Message({"result": result.header}, result.payload)
        return Message({"result": result})

    def leave(self) -> None:
        """The program has gone: nothing stays in others' way."""
        self._opened.clear()
        for path, holder in self._holds:
            self._machine.holds.release(path, (self, holder))
        self._holds.clear()

    # -- power and hardware -----------------------------------------------------------------

    def _is_on(self) -> bool:
        return self._machine.is_on

    def _standing(self) -> Message:
        return answers.standing_message(self._machine.standing())

    def _power_on(self) -> dict[str, Any]:
        return answers.post_document(self._machine.power_on())

    def _restart(self, cold: bool | None) -> dict[str, Any]:
        return answers.post_document(self._machine.restart(cold=cold))

    def _power_off(self) -> None:
        self._machine.power_off()

    def _check_running(self) -> None:
        self._machine.running_kernel()

    def _in8(self, port: int) -> int:
        return self._ports.in8(port % PORTS)

    def _out8(self, port: int, value: int) -> None:
        self._ports.out8(port % PORTS, value & 0xFF)

    # -- modules and paths ------------------------------------------------------------------

    def _modules(self) -> tuple[str, ...]:
        return self._machine.modules

    def _load_module(self, name: str, parameters: dict[str, str]) -> None:
        if not all(isinstance(value, str) for value in parameters.values()):
            raise WireError("a module's parameters are text")
        self._machine.load_module(name, parameters)

    def _unload_module(self, name: str) -> None:
        self._machine.unload_module(name)

    def _take(self, path: str, holder: int) -> bool:
        """Hold a path; False when another program holds it, and it is time to ask again."""
        self._holds.add((path, holder))
        return self._machine.holds.take(path, (self, holder), wait_s=STEP_S)

    def _release(self, path: str, holder: int) -> None:
        self._holds.discard((path, holder))
        self._machine.holds.release(path, (self, holder))

    def _exists(self, path: str) -> bool:
        return self._machine.exists(path)

    def _stat(self, path: str) -> list[float]:
        return answers.stat_list(self._files.stat(path))

    def _list(self, path: str) -> list[str]:
        return self._files.list(path)

    def _readlink(self, path: str) -> str:
        return self._files.readlink(path)

    # -- open files -------------------------------------------------------------------------

    def _open(
        self,
        path: str,
        *,
        reading: bool,
        writing: bool,
        uid: int,
        sys_rawio: bool,
        must_be_on: bool,
    ) -> int:
        if len(self._opened) >= MAX_OPEN_FILES:
            raise KernelError(errno.EMFILE, path)
        if must_be_on:
            file = self._machine.open(path, reading=reading, writing=writing)
        else:
            caller = Caller(uid, sys_rawio)
            file = self._files.open(path, reading=reading, writing=writing, caller=caller)
        number = next(self._numbers)
        self._opened[number] = _Opened(file, path, reading, writing)
        return number

    def _file_stat(self, file: int) -> list[float]:
        return answers.stat_list(self._find(file).file.stat())

    def _file_read(self, file: int, offset: int, size_bytes: int) -> Message:
        opened = self._find(file)
        if not opened.reading:
            raise KernelError(errno.EBADF, opened.path)
        size_bytes = min(size_bytes, wire.MAX_PAYLOAD_BYTES)
        return Message({}, opened.file.read(offset, size_bytes))

    def _file_write(self, file: int, offset: int, *, sys_rawio: bool, data: bytes) -> int:
        opened = self._find(file)
        if not opened.writing:
            raise KernelError(errno.EBADF, opened.path)
        return opened.file.write(offset, data, sys_rawio=sys_rawio)

    def _find(self, number: int) -> _Opened:
        if number not in self._opened:
            raise KernelError(errno.EBADF)
        return self._opened[number]


def _checked(request: Message) -> tuple[str, dict[str, Any]]:
    """The call that a request is for, and its arguments.

    :raise WireError: when there is no such call, or the arguments are not the call's.
    """
    call, given = request.header.get("do"), request.header.get("with")
    if not (isinstance(call, str) and call in CALLS and isinstance(given, dict)):
        raise WireError("no such call")
    kinds = CALLS[call]
    arguments = given | {"data": request.payload} if "data" in kinds else given
    return call, wire.fields(arguments, kinds)


def _closed(request: Message) -> list[int]:
    """The files that the program let go of since its last request.

    :raise WireError: when they are no list of numbers.
    """
    closed = request.header.get("closed", [])
    if not (isinstance(closed, list) and all(isinstance(each, int) for each in closed)):
        raise WireError("no list of files")
    return closed
