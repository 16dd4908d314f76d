"""System calls as data: made here, performed in a guest, their results compared.

A call is one of the classes of `Call`; `perform` makes it on the Linux that this runs on and gives
a `Result`, a value or an errno. Lists of both go over the framing of `sharing/wire.py`, many in one
message: the header says what each is, the payload has the bytes of all of them, one after the
other.

The agent imports this module in an emulated guest, where imports are slow; so it imports little.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from openrbu.errors import ObstacleError
from openrbu.sharing.wire import MAX_PAYLOAD_BYTES, Message, WireError, fields
from openrbu.system import libc
from openrbu.system.waiting import Deadline
from openrbu.units import PAGE_SIZE

DATA = "/sys/class/firmware/dell_rbu/data"
USE_COUNT = "/sys/module/dell_rbu/refcnt"

MAX_CALLS = 10_000
"""How many calls `split` puts into one message. Their header is well below `wire`'s limit."""

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


Call = Read | Write | Exists | ListDir | Stat | ReadLink | Load | Unload | WaitForDriver


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


# -- on the wire ----------------------------------------------------------------------------

_KINDS: Mapping[str, tuple[type[Call], Mapping[str, Any]]] = {
    "read": (Read, {"path": str, "offset": int, "size_bytes": int}),
    "write": (Write, {"path": str, "data": int, "offset": int}),
    "exists": (Exists, {"path": str}),
    "list": (ListDir, {"path": str}),
    "stat": (Stat, {"path": str}),
    "readlink": (ReadLink, {"path": str}),
    "load": (Load, {"module": str, "parameters": dict}),
    "unload": (Unload, {"module": str}),
    "wait_for_driver": (WaitForDriver, {}),
}
"""By name on the wire: the class, and its fields in the header. For bytes that is their length."""

_NAMES = {kind: name for name, (kind, _) in _KINDS.items()}


def split(calls: Sequence[Call]) -> Iterator[Sequence[Call]]:
    """The calls in groups, so that the calls of a group, and also their results, fit into one
    message.

    A single call of more than `wire.MAX_PAYLOAD_BYTES` is a group of its own, and does not fit.
    """
    start = written = read = 0
    for index, call in enumerate(calls):
        more_written = len(call.data) if isinstance(call, Write) else 0
        more_read = call.size_bytes if isinstance(call, Read) else 0
        is_full = max(written + more_written, read + more_read) > MAX_PAYLOAD_BYTES
        if index > start and (is_full or index - start == MAX_CALLS):
            yield calls[start:index]
            start, written, read = index, 0, 0
        written, read = written + more_written, read + more_read
    if start < len(calls):
        yield calls[start:]


def calls_to_message(calls: Sequence[Call]) -> Message:
    """The message that requests the calls."""
    documents, chunks = [], []
    for call in calls:
        name = _NAMES[type(call)]
        document = {each: getattr(call, each) for each in _KINDS[name][1]}
        if isinstance(call, Write):
            document["data"] = len(call.data)
            chunks.append(call.data)
        elif isinstance(call, Load):
            document["parameters"] = dict(call.parameters)
        documents.append({"call": name, "with": document})
    return Message({"calls": documents}, b"".join(chunks))


def perform_message(header: Mapping[str, Any], payload: bytes) -> Message:
    """Make the calls that a message requests; the reply.

    :raise WireError: as `calls_of_message`.
    :raise ObstacleError: as `perform`.
    """
    return results_to_message([perform(call) for call in calls_of_message(header, payload)])


def calls_of_message(header: Mapping[str, Any], payload: bytes) -> list[Call]:
    """The calls that a message of `calls_to_message` requests.

    :raise WireError: when it is not such a message.
    """
    chunks = _Chunks(payload)
    calls = [_call_of(each, chunks) for each in _list_of(header, "calls")]
    chunks.check_end()
    return calls


def _call_of(document: object, chunks: _Chunks) -> Call:
    whole = fields(document, {"call": str, "with": dict})
    if whole["call"] not in _KINDS:
        raise WireError(f"there is no call {whole['call']!r}")
    kind, kinds = _KINDS[whole["call"]]
    values = dict(fields(whole["with"], kinds))
    if kind is Write:
        values["data"] = chunks.take(values["data"])
    elif kind is Load and not all(isinstance(text, str) for text in values["parameters"].values()):
        raise WireError("a parameter that is not text")
    return kind(**values)


def results_to_message(results: Sequence[Result]) -> Message:
    """The reply to `calls_to_message`: a result for each call, in the same sequence."""
    documents: list[dict[str, object]] = []
    chunks = []
    for result in results:
        value = result.value
        if result.errno is not None:
            documents.append({"errno": result.errno})
        elif isinstance(value, bytes):
            documents.append({"bytes": len(value)})
            chunks.append(value)
        elif isinstance(value, LinkStatus):
            documents.append({"status": value})
        elif isinstance(value, tuple):
            documents.append({"names": value})
        else:
            documents.append({"value": value})
    return Message({"results": documents}, b"".join(chunks))


def results_of_message(header: Mapping[str, Any], payload: bytes) -> list[Result]:
    """The results in a message of `results_to_message`.

    :raise WireError: when it is not such a message.
    """
    chunks = _Chunks(payload)
    results = [_result_of(each, chunks) for each in _list_of(header, "results")]
    chunks.check_end()
    return results


def _result_of(document: object, chunks: _Chunks) -> Result:
    match document:
        case {"errno": int(number)}:
            return Result(errno=number)
        case {"bytes": int(size_bytes)}:
            return Result(chunks.take(size_bytes))
        case {"status": [int(mode), int(size_bytes)]}:
            return Result(LinkStatus(mode, size_bytes))
        case {"names": list(names)} if all(isinstance(name, str) for name in names):
            return Result(tuple(names))
        case {"value": bool() | int() | str() | None as value}:
            return Result(value)
        case _:
            raise WireError("not a result of a call")


def _list_of(header: Mapping[str, Any], name: str) -> list[object]:
    found = fields(header, {name: list})[name]
    assert isinstance(found, list)
    return found


class _Chunks:
    """The payload of a message, taken in chunks from its start."""

    def __init__(self, payload: bytes) -> None:
        self._payload, self._taken = payload, 0

    def take(self, size_bytes: int) -> bytes:
        start, self._taken = self._taken, self._taken + size_bytes
        if size_bytes < 0 or self._taken > len(self._payload):
            raise WireError("a payload that is shorter than its header says")
        return self._payload[start : self._taken]

    def check_end(self) -> None:
        if self._taken != len(self._payload):
            raise WireError("a payload that is longer than its header says")
