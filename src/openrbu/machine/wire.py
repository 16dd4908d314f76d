"""What goes over the socket between a program and the process that has a machine.

A message is two lengths (u32 each, big endian), a header of that many bytes (a JSON object) and a
payload of that many bytes (what a file is read or written with). A request's header is
`{"do": NAME, "with": {…}, "closed": […]}`; `closed` are files that the program let go of. An answer
has `{"result": …}` or `{"error": {…}}`. The first message on a connection is the server's greeting,
an answer with `{"protocol": 1, "owner": PID}`.

Both ends are one user's, or root's, so the limits are against mistakes, not against floods.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from openrbu import errors
from openrbu.bios.post import PostReport
from openrbu.bios.power import PowerCutError
from openrbu.buffers import Buffer
from openrbu.drivers.sysfs import Stat
from openrbu.errors import DamagedInputError, KernelError, OpenRbuError
from openrbu.formats.dell import CompletionCode
from openrbu.formats.smbios import Tables
from openrbu.machine.base import Standing
from openrbu.memory.physical import Region
from openrbu.units import MIB, PhysAddr

PROTOCOL = 1

SOCKET_NAME = "socket"

MAX_HEADER_BYTES = 4 * MIB
"""A report on an update of 16 MiB in scattered packets has 100 KiB."""

MAX_PAYLOAD_BYTES = 4 * MIB

_LENGTHS = struct.Struct(">II")
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid (unix(7), SO_PEERCRED)

Failure = OpenRbuError | OSError | PowerCutError
"""What goes over the wire as an error. Anything else is a mistake in this program."""

_PLAIN: Mapping[str, type[Exception]] = {
    kind.__name__: kind
    for kind in (
        errors.OpenRbuError,
        errors.UsageError,
        errors.NotForThisMachineError,
        errors.ObstacleError,
        errors.MachineError,
        errors.UpdateFailedError,
        PowerCutError,
    )
}
"""The errors that are their text and nothing else."""


class WireError(Exception):
    """What came is no message of this protocol, or it was cut off."""


class Message(NamedTuple):
    """A header and a payload."""

    header: dict[str, Any]
    payload: bytes = b""


def send(connection: socket.socket, header: Mapping[str, Any], payload: Buffer = b"") -> None:
    """Send a message.

    :raise OSError: when the other end is gone.
    """
    text = json.dumps(header, separators=(",", ":")).encode()
    start = _LENGTHS.pack(len(text), len(payload)) + text
    connection.sendall(start, socket.MSG_NOSIGNAL)
    if payload:
        connection.sendall(payload, socket.MSG_NOSIGNAL)


def receive(connection: socket.socket) -> Message | None:
    """The next message; None when the other end has closed the connection before it.

    :raise WireError: when it is none.
    :raise OSError: when the connection is broken.
    """
    start = _take(connection, _LENGTHS.size)
    if not start:
        return None
    header_bytes, payload_bytes = _LENGTHS.unpack(_whole(start, _LENGTHS.size))
    if header_bytes > MAX_HEADER_BYTES or payload_bytes > MAX_PAYLOAD_BYTES:
        raise WireError(f"a message of {header_bytes} and {payload_bytes} bytes")
    text = _whole(_take(connection, header_bytes), header_bytes)
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        raise WireError("a header that is no JSON") from None
    if not isinstance(header, dict):
        raise WireError("a header that is no object")
    return Message(header, _whole(_take(connection, payload_bytes), payload_bytes))


def _take(connection: socket.socket, size_bytes: int) -> bytes:
    """So many bytes, or what comes before the end."""
    data = bytearray()
    while len(data) < size_bytes:
        piece = connection.recv(min(size_bytes - len(data), MIB))
        if not piece:
            break
        data += piece
    return bytes(data)


def _whole(data: bytes, size_bytes: int) -> bytes:
    if len(data) < size_bytes:
        raise WireError("a message that was cut off")
    return data


@contextlib.contextmanager
def socket_address(directory: Path) -> Iterator[str]:
    """A short way to the socket in a directory: an address has no more than 107 bytes (unix(7)).

    :raise OSError: when there is no such directory, or it may not be passed.
    """
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{SOCKET_NAME}"
    finally:
        os.close(fd)


def peer_uid(connection: socket.socket) -> int:
    """The user at the other end, as the kernel knows it."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(data)[1]
    return uid


# -- errors ---------------------------------------------------------------------------------


def error_document(error: Failure) -> dict[str, Any]:
    """An error for the wire."""
    if isinstance(error, KernelError):
        text = (error.strerror or "").removeprefix(os.strerror(error.errno or 0))
        detail = text.removeprefix(": ")
        return {"kernel": error.errno, "path": error.filename, "detail": detail}
    if isinstance(error, OSError) and error.errno is not None:
        path = None if error.filename is None else str(error.filename)
        return {"errno": error.errno, "text": error.strerror, "path": path}
    if isinstance(error, DamagedInputError):
        return {"damage": str(error), "offset": error.offset}
    kinds = (kind.__name__ for kind in type(error).__mro__)
    known = next((name for name in kinds if name in _PLAIN), OpenRbuError.__name__)
    return {"kind": known, "text": str(error)}


def error_of(document: Mapping[str, Any]) -> Exception:
    """The error that was sent: of the same class, with the same text and errno.

    :raise WireError: when it is none.
    """
    try:
        if "kernel" in document:
            return KernelError(document["kernel"], document["path"], document["detail"])
        if "errno" in document:
            return OSError(document["errno"], document["text"], document["path"])
        if "damage" in document:
            return DamagedInputError(document["damage"], offset=document["offset"])
        return _PLAIN[document["kind"]](document["text"])
    except (LookupError, TypeError, ValueError):
        raise WireError("an error that is none") from None


# -- what calls bring -----------------------------------------------------------------------


def post_document(post: PostReport) -> dict[str, Any]:
    """A start of the machine for the wire."""
    return {
        "version_before": post.version_before,
        "version_after": post.version_after,
        "completion_code": None if post.completion_code is None else int(post.completion_code),
        "reason": post.reason,
        "mode": post.mode,
        "extents": [[int(extent.start), int(extent.end)] for extent in post.extents],
        "copies": post.copies,
    }


def post_of(document: dict[str, Any]) -> PostReport:
    """The same out of an answer."""
    code = document["completion_code"]
    extents = tuple(Region(PhysAddr(start), PhysAddr(end)) for start, end in document["extents"])
    more = {
        "completion_code": None if code is None else CompletionCode(code),
        "extents": extents,
    }
    return PostReport(**document | more)


def standing_message(standing: Standing) -> Message:
    """How the machine stands for the wire: its SMBIOS table is the payload."""
    entry_point, table = standing.tables.build()
    document = {
        "entry_point": entry_point.hex(),
        "is_on": standing.is_on,
        "lost_power": standing.lost_power,
        "is_armed": standing.is_armed,
        "flash_size_bytes": standing.flash_size_bytes,
        "modules": standing.modules,
        "reboot_mode": standing.reboot_mode,
    }
    return Message(document, table)


def standing_of(document: dict[str, Any], table: bytes) -> Standing:
    """The same out of an answer."""
    entry_point = bytes.fromhex(document.pop("entry_point"))
    tables, modules = Tables.parse(entry_point, table), tuple(document["modules"])
    return Standing(**document | {"tables": tables, "modules": modules})


def stat_list(stat: Stat) -> list[float]:
    """A `Stat` for the wire."""
    return [stat.mode, stat.link_count, stat.size_bytes, stat.inode, stat.changed_at]


def stat_of(fields: list[Any]) -> Stat:
    """The same out of an answer."""
    return Stat(*fields)
