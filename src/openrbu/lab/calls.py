"""System calls as data: made here, performed in a guest, their results compared.

A call is one of the classes of `Call`; `perform` makes it on the Linux that this runs on and gives
a `Result`, a value or an errno. `lab/call_messages.py` sends lists of both.

The agent imports this module in an emulated guest, where imports are slow; so it imports little.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

from openrbu.errors import ObstacleError
from openrbu.system import libc
from openrbu.system.waiting import Deadline
from openrbu.units import PAGE_SIZE

DATA = "/sys/class/firmware/dell_rbu/data"
USE_COUNT = "/sys/module/dell_rbu/refcnt"

_IDLE_WITHIN_S = 10.0
_IDLE_CHECK_S = 0.001
_LOOKS, _YIELDS = 4, 3
_FINIT_MODULE, _DELETE_MODULE = 313, 176  # system call numbers of x86-64 (asm/unistd_64.h)
_COMPRESSED = 4  # MODULE_INIT_COMPRESSED_FILE of linux/module.h


class LinkStatus(NamedTuple):
    """The result of `lstat`: the mode with its type bits, and the size in bytes."""

    mode: int
    size_bytes: int


Value = bytes | bool | int | str | tuple[str, ...] | LinkStatus | None


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a call: its value, or an errno."""

    value: Value = None
    errno: int | None = None


@dataclass(frozen=True, slots=True)
class Read:
    """Open for reading, one `pread`, close. Its value: the bytes."""

    path: str
    offset: int = 0
    size_bytes: int = PAGE_SIZE

    def make(self) -> bytes:
        fd = os.open(self.path, os.O_RDONLY)
        try:
            return os.pread(fd, self.size_bytes, self.offset)
        finally:
            os.close(fd)


@dataclass(frozen=True, slots=True)
class Write:
    """Open for writing, one `pwrite`, close. Its value: how many bytes were taken."""

    path: str
    data: bytes
    offset: int = 0

    def make(self) -> int:
        fd = os.open(self.path, os.O_WRONLY)
        try:
            return os.pwrite(fd, self.data, self.offset)
        finally:
            os.close(fd)


@dataclass(frozen=True, slots=True)
class Send:
    """Open for reading, one sendfile(2) to a pipe, close. Its value: the bytes."""

    path: str
    offset: int = 0
    size_bytes: int = PAGE_SIZE

    def make(self) -> bytes:
        fd = os.open(self.path, os.O_RDONLY)
        reading, writing = os.pipe()
        try:
            done = os.sendfile(writing, fd, self.offset, self.size_bytes)
            return os.read(reading, done) if done else b""
        finally:
            for each in (fd, reading, writing):
                os.close(each)


@dataclass(frozen=True, slots=True)
class SpliceIn:
    """Open for writing, one splice(2) from a pipe that holds all of the data, close. Its value: how
    many bytes were taken. `data`: 64 KiB at most, which is what a pipe holds."""

    path: str
    data: bytes
    offset: int = 0

    def make(self) -> int:
        fd = os.open(self.path, os.O_WRONLY)
        reading, writing = os.pipe()
        try:
            os.write(writing, self.data)
            return os.splice(reading, fd, len(self.data), offset_dst=self.offset)
        finally:
            for each in (fd, reading, writing):
                os.close(each)


@dataclass(frozen=True, slots=True)
class SetMode:
    """chmod(2). It has no value."""

    path: str
    mode: int

    def make(self) -> None:
        os.chmod(self.path, self.mode)  # noqa: PTH101


@dataclass(frozen=True, slots=True)
class Exists:
    """Its value: whether the path exists, links followed."""

    path: str

    def make(self) -> bool:
        return os.path.exists(self.path)  # noqa: PTH110 - paths are as they were given


@dataclass(frozen=True, slots=True)
class ListDir:
    """Its value: the names in a directory, sorted."""

    path: str

    def make(self) -> tuple[str, ...]:
        return tuple(sorted(os.listdir(self.path)))  # noqa: PTH208


@dataclass(frozen=True, slots=True)
class Stat:
    """`lstat`. Its value: a `LinkStatus`."""

    path: str

    def make(self) -> LinkStatus:
        seen = os.lstat(self.path)
        return LinkStatus(seen.st_mode, seen.st_size)


@dataclass(frozen=True, slots=True)
class ReadLink:
    """Its value: the target of a symbolic link."""

    path: str

    def make(self) -> str:
        return os.readlink(self.path)  # noqa: PTH115


@dataclass(frozen=True, slots=True)
class Load:
    """`finit_module`, after the modules that this one needs. It has no value."""

    module: str
    parameters: Mapping[str, str] = field(default_factory=dict)

    def make(self) -> None:
        *needed, file = module_files(Path("/lib/modules") / os.uname().release, self.module)
        for each in needed:
            with contextlib.suppress(FileExistsError):  # loaded already
                _insert(each, "")
        # A value with a blank in it has to be quoted, others may be (kernel-parameters(7)).
        _insert(file, " ".join(f'{name}="{value}"' for name, value in self.parameters.items()))


@dataclass(frozen=True, slots=True)
class Unload:
    """`delete_module`, without waiting. It has no value.

    A module in use is EAGAIN here (seen on Debian's 6.1.192), where `rmmod` says `is in use`.
    """

    module: str

    def make(self) -> None:
        libc.call("syscall", _DELETE_MODULE, self.module.encode(), os.O_NONBLOCK)


@dataclass(frozen=True, slots=True)
class WaitForDriver:
    """Wait until dell_rbu has done all that the last call started. Its value: whether it was done
    in time.

    The kernel makes and removes the firmware entry in the background. The entry exists exactly
    when the module's use count is 1 (docs/decisions/0014). Both must agree several times, a
    millisecond apart, because an entry that is about to be removed still exists at first. On a busy
    computer a guest's milliseconds pass while its kernel gets no time: so the kernel is given the
    processor before each look (seen on 6.12.117: it had not ended a load that was aborted, after
    two looks).
    """

    def make(self) -> bool:
        in_a_row = 0
        for _ in Deadline("dell_rbu", _IDLE_WITHIN_S).checks(_IDLE_CHECK_S):
            for _ in range(_YIELDS):
                os.sched_yield()
            in_a_row = in_a_row + 1 if _driver_is_idle() else 0
            if in_a_row == _LOOKS:
                return True
        return False


Call = (
    Read
    | Write
    | Send
    | SpliceIn
    | SetMode
    | Exists
    | ListDir
    | Stat
    | ReadLink
    | Load
    | Unload
    | WaitForDriver
)


def perform(call: Call) -> Result:
    """Make the call on this Linux.

    :raise ObstacleError: when the running kernel's `modules.dep` does not have the module to load.
    """
    try:
        return Result(call.make())
    except OSError as error:
        return Result(errno=error.errno)


@cache
def module_files(modules: Path, name: str) -> tuple[Path, ...]:
    """The files to load for the module `name`, in sequence: the modules that it needs, then itself.
    `modules` is a kernel's `/lib/modules/RELEASE`.

    :raise ObstacleError: when `modules.dep` does not have the module.
    """
    with (modules / "modules.dep").open() as lines:  # modules.dep(5)
        for line in lines:
            file, _, needed = line.partition(":")
            if module_name(file) == name.replace("-", "_"):
                return tuple(modules / each for each in (*reversed(needed.split()), file))
    raise ObstacleError(f"{modules}/modules.dep has no module {name}")


def module_name(file: str) -> str:
    """The name of the module in a file: `kernel/fs/9p/9p.ko.xz` has `9p`."""
    return Path(file).name.partition(".")[0].replace("-", "_")


def _insert(file: Path, parameters: str) -> None:
    flags = 0 if file.suffix == ".ko" else _COMPRESSED
    fd = os.open(file, os.O_RDONLY)
    try:
        libc.call("syscall", _FINIT_MODULE, fd, parameters.encode(), flags)
    finally:
        os.close(fd)


def _driver_is_idle() -> bool:
    try:
        users = int(Path(USE_COUNT).read_text())
    except FileNotFoundError:  # the module is not loaded
        return True
    return users == int(_takes_data())


def _takes_data() -> bool:
    """Whether there is an entry that stays. The data of one that is being removed can't be read."""
    try:
        Read(DATA, 0, 1).make()
    except OSError:  # ENOENT, or ENODEV
        return False
    return True
