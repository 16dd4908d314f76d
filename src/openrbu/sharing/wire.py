"""What goes over the socket between a program and the process that has a machine.

A message is two lengths (u32 each, big endian), a header of that many bytes (a JSON object) and a
payload of that many bytes (what a file is read or written with). A request's header is
`{"do": NAME, "with": {…}, "closed": […]}`; `closed` are the numbers of files that the program has
closed. A reply has `{"result": …}` or `{"error": {…}}`. The first message on a connection is the
server's greeting, a reply with `{"protocol": 2, "owner": PID}`.

Both ends belong to one user, so the limits are against mistakes, not against attacks.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, get_args

from openrbu import errors
from openrbu.buffers import Buffer
from openrbu.errors import DamagedInputError, KernelError, OpenRbuError, PowerCutError
from openrbu.units import MIB

PROTOCOL = 4

SOCKET_NAME = "socket"

MAX_HEADER_BYTES = 4 * MIB
"""A report on an update of 16 MiB in scattered packets has 100 KiB."""

MAX_PAYLOAD_BYTES = 4 * MIB

MAX_INT = (1 << 63) - 1

_MAX_ERRNO = 4095  # Linux keeps the numbers below 4096 for errors

_LENGTHS = struct.Struct(">II")
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid (unix(7), SO_PEERCRED)

Failure = OpenRbuError | OSError | PowerCutError
"""The exceptions that are sent as an error. Any other exception is a defect of openrbu."""

_PLAIN: Mapping[str, type[Exception]] = {
    kind.__name__: kind
    for kind in (
        errors.OpenRbuError,
        errors.UsageError,
        errors.NotForThisMachineError,
        errors.ObstacleError,
        errors.MachineError,
        errors.PowerFailedError,
        errors.UpdateFailedError,
        PowerCutError,
    )
}
"""The errors that have a text and nothing else, by class name."""


class WireError(Exception):
    """What was received is not a message of this protocol, or was cut off."""


class Message(NamedTuple):
    """A header and a payload."""

    header: dict[str, Any]
    payload: bytes = b""


class Transport(Protocol):
    """What this module needs of a socket."""

    def sendall(self, data: Buffer, flags: int, /) -> None: ...

    def recv(self, size_bytes: int, /) -> bytes: ...


def send(connection: Transport, header: Mapping[str, Any], payload: Buffer = b"") -> None:
    """Send a message.

    :raise OSError: when the other end is gone.
    """
    text = json.dumps(header, separators=(",", ":")).encode()
    start = _LENGTHS.pack(len(text), len(payload)) + text
    connection.sendall(start, socket.MSG_NOSIGNAL)
    if payload:
        connection.sendall(payload, socket.MSG_NOSIGNAL)


def receive(connection: Transport) -> Message | None:
    """The next message; None when the other end has closed the connection before it.

    :raise WireError: when what comes is not a message.
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
        raise WireError("a header that is not JSON") from None
    if not isinstance(header, dict):
        raise WireError("a header that is not an object")
    return Message(header, _whole(_take(connection, payload_bytes), payload_bytes))


def _take(connection: Transport, size_bytes: int) -> bytes:
    """`size_bytes`, or less where the connection ends before."""
    data = bytearray()
    while len(data) < size_bytes:
        chunk = connection.recv(min(size_bytes - len(data), MIB))
        if not chunk:
            break
        data += chunk
    return bytes(data)


def _whole(data: bytes, size_bytes: int) -> bytes:
    if len(data) < size_bytes:
        raise WireError("a message that was cut off")
    return data


def fields(document: object, kinds: Mapping[str, Any]) -> dict[str, Any]:
    """`document`, checked: it has the fields of `kinds` and no others, each of its type or of one
    of the types of its union.

    :raise WireError: when it is not so, or an integer is negative or has more than 63 bits.
    """
    if not isinstance(document, dict) or document.keys() != kinds.keys():
        raise WireError(f"not the fields {', '.join(kinds) or '(none)'}")
    for name, kind in kinds.items():
        value = document[name]
        if type(value) not in (get_args(kind) or (kind,)):
            raise WireError(f"{name} is of another type")
        if type(value) is int and not 0 <= value <= MAX_INT:
            raise WireError(f"{name} is out of range")
    return document


@contextlib.contextmanager
def socket_address(directory: Path) -> Iterator[str]:
    """A short path to the socket in `directory`, because an address has at most 107 bytes: unix(7).

    :raise OSError: when there is no such directory, or this user may not enter it.
    """
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{fd}/{SOCKET_NAME}"
    finally:
        os.close(fd)


class Peer(NamedTuple):
    """The process at the other end of a connection, and its user."""

    pid: int
    uid: int


def peer(connection: socket.socket) -> Peer:
    """The process at the other end, as the kernel knows it."""
    data = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return Peer(*_CREDENTIALS.unpack(data)[:2])


# -- errors ---------------------------------------------------------------------------------


def error_document(error: Failure) -> dict[str, Any]:
    """An exception as JSON for the wire. `error_of` is its inverse."""
    if isinstance(error, KernelError):
        text = (error.strerror or "").removeprefix(os.strerror(error.errno or 0))
        detail = text.removeprefix(": ")
        return {"kernel": error.errno, "path": error.filename, "detail": detail}
    if isinstance(error, OSError) and error.errno is not None:
        path = None if error.filename is None else str(error.filename)
        return {"errno": error.errno, "text": error.strerror, "path": path}
    if isinstance(error, DamagedInputError):
        return {"damage": str(error), "offset": error.offset, "kind": error.kind}
    names = (each.__name__ for each in type(error).__mro__)
    known = next((name for name in names if name in _PLAIN), OpenRbuError.__name__)
    kind = error.kind if isinstance(error, OpenRbuError) else None
    return {"class": known, "text": str(error), "kind": kind}


def error_of(document: object) -> Exception:
    """The exception that was sent: with the same text, errno and kind; of the same class, or of
    the nearest class above it that this module knows.

    :raise WireError: when `document` is not an error of `error_document`.
    """
    if not isinstance(document, dict):
        raise WireError("an error that is not an object")
    if "kernel" in document:
        fields(document, {"kernel": int, "path": str | None, "detail": str})
        return KernelError(_errno(document["kernel"]), document["path"], document["detail"])
    if "errno" in document:
        fields(document, {"errno": int, "text": str | None, "path": str | None})
        return OSError(_errno(document["errno"]), document["text"], document["path"])
    if "damage" in document:
        fields(document, {"damage": str, "offset": int | None, "kind": str})
        error: Exception = DamagedInputError(document["damage"], offset=document["offset"])
    else:
        fields(document, {"class": str, "text": str, "kind": str | None})
        if document["class"] not in _PLAIN:
            raise WireError("an error of an unknown class")
        error = _PLAIN[document["class"]](document["text"])
    if isinstance(error, OpenRbuError) and document["kind"] is not None:
        error.kind = document["kind"]
    return error


def _errno(number: int) -> int:
    if not 0 < number <= _MAX_ERRNO:
        raise WireError(f"an error with the number {number}")
    return number
