"""What modprobe, insmod and rmmod do with openrbu's own driver under `rbu run`.

The stand-ins for these commands (`openrbu.run.own_stand_ins`) ask.
"""

from __future__ import annotations

import errno
import stat
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from openrbu.buffers import Buffer
from openrbu.drivers.dell_rbu import NAME as RBU
from openrbu.drivers.sysfs import Caller, Stat
from openrbu.errors import KernelError, ObstacleError
from openrbu.kernel.files import File
from openrbu.kernel.module_parameters import KNOWN_PARAMETERS
from openrbu.own_driver.driver import OwnDriver
from openrbu.run import module_commands
from openrbu.run.answers import Request
from openrbu.run.said import Command, Said

ANSWERS = MappingProxyType(
    {
        "insmod": module_commands.insmod,
        "modprobe": module_commands.modprobe,
        "rmmod": module_commands.rmmod,
    }
)


class OwnModules:
    """This computer with openrbu's own driver as its only module, as `said.ModuleHost`."""

    name = "of this computer"

    def __init__(self, driver: OwnDriver) -> None:
        self._driver = driver

    @property
    def modules(self) -> tuple[str, ...]:
        return (RBU,) if self._driver.is_loaded else ()

    def exists(self, path: str) -> bool:
        return path == f"/sys/module/{RBU}" and self._driver.is_loaded

    def open(self, _path: str, *, reading: bool = False, writing: bool = False) -> File:
        """`/proc/modules`, with what it says of the driver."""
        return _Text("".join(f"{name} 20480 0 - Live 0x0\n" for name in self.modules).encode())

    def load_module(self, _name: str, parameters: Mapping[str, str]) -> None:
        try:
            with self._driver.lock:
                self._driver.load(parameters, is_kept=self._driver.is_kept)
        except ObstacleError:
            raise KernelError(errno.ENOMEM) from None

    def unload_module(self, _name: str) -> None:
        with self._driver.lock:
            self._driver.unload()


class OwnDesk:
    """Where the stand-ins ask (`overlay.Desk`)."""

    def __init__(self, driver: OwnDriver) -> None:
        self._modules = OwnModules(driver)

    def open(self, caller: Caller, what: Stat) -> File:
        return Request(self._answer, caller, what)

    def _answer(self, words: Sequence[str], caller: Caller) -> Said:
        command = Command(
            words[1],
            tuple(words[2:]),
            self._modules,
            caller.is_root,
            frozenset(KNOWN_PARAMETERS.keys() - {RBU}),
        )
        return ANSWERS[command.name](command)


class _Text:
    """A file with a text that does not change."""

    def __init__(self, text: bytes) -> None:
        self._text = text

    def stat(self) -> Stat:
        return Stat(stat.S_IFREG | 0o444, 1, 0, 1, 0.0)

    def read(self, offset: int, size_bytes: int) -> bytes:
        return self._text[offset : offset + size_bytes]

    def write(self, offset: int, data: Buffer, *, sys_rawio: bool = True) -> int:
        raise KernelError(errno.EIO)

    def close(self) -> None: ...
