"""What the calls of a served machine return: written for the wire, and read from it.

A reader turns a reply into the type that the call promises, and raises WireError for everything
else, so that a broken server does not break its clients.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import asdict
from types import NoneType
from typing import Any, TypeVar

from openrbu.bios.post_report import PostReport
from openrbu.drivers.sysfs import Stat
from openrbu.errors import DamagedInputError
from openrbu.formats.dell import CompletionCode
from openrbu.formats.smbios import Tables
from openrbu.machine.base import MachineStatus
from openrbu.memory.physical import Region
from openrbu.sharing.wire import MAX_INT, Message, WireError, fields
from openrbu.typed_json import DocumentError
from openrbu.typed_json import read as read_record
from openrbu.units import PhysAddr

T = TypeVar("T")

_POST: Mapping[str, Any] = {
    "version_before": str,
    "version_after": str,
    "completion_code": int | None,
    "reason": str,
    "mode": str | None,
    "extents": list,
    "copies": int,
    "found_in_held_memory": bool | None,
    "held_bytes": int | None,
    "memory_was_kept": bool | None,
    "was_armed": bool | None,
}

_STATUS: Mapping[str, Any] = {
    "entry_point": str,
    "is_on": bool,
    "lost_power": bool,
    "is_armed": bool,
    "flash_size_bytes": int,
    "modules": list,
    "reboot_mode": str | None,
}


# -- plain values ---------------------------------------------------------------------------


def _plain(kind: type[T]) -> Callable[[Message], T]:
    """A reader of one value of type `kind`."""

    def read(reply: Message) -> T:
        value: T = fields(reply.header, {"result": kind})["result"]
        return value

    return read


no_value = _plain(NoneType)
boolean = _plain(bool)
_any_text = _plain(str)
_list = _plain(list)
_document = _plain(dict)


def number(most: int = MAX_INT) -> Callable[[Message], int]:
    """A reader of a number from 0 to `most`."""

    def read(reply: Message) -> int:
        value = _plain(int)(reply)
        if value > most:
            raise WireError(f"{value}, which is more than {most}")
        return value

    return read


def data(most_bytes: int) -> Callable[[Message], bytes]:
    """A reader of a payload of at most `most_bytes`."""

    def read(reply: Message) -> bytes:
        _document(reply)
        if len(reply.payload) > most_bytes:
            raise WireError(f"{len(reply.payload)} bytes, which is more than {most_bytes}")
        return reply.payload

    return read


def text(reply: Message) -> str:
    """Reads the target of a link: text without NUL that can be encoded as a file name."""
    return _checked_text(_any_text(reply))


def names(reply: Message) -> list[str]:
    """Reads the names in a directory, or of modules."""
    return [_checked_name(each) for each in _list(reply)]


def _checked_name(name: object) -> str:
    if name in ("", ".", "..") or "/" in (checked := _checked_text(name)):
        raise WireError("not a file name")
    return checked


def _checked_text(value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise WireError("not text without NUL")
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        raise WireError("text that can't be encoded") from None
    return value


# -- a start of the machine -----------------------------------------------------------------


def post_document(post: PostReport) -> dict[str, Any]:
    """A report of a start, as JSON for the wire."""
    return {
        "version_before": post.version_before,
        "version_after": post.version_after,
        "completion_code": None if post.completion_code is None else int(post.completion_code),
        "reason": post.reason,
        "mode": post.mode,
        "extents": [[int(extent.start), int(extent.end)] for extent in post.extents],
        "copies": post.copies,
        "found_in_held_memory": post.found_in_held_memory,
        "held_bytes": post.held_bytes,
        "memory_was_kept": post.memory_was_kept,
        "was_armed": post.was_armed,
    }


def post(reply: Message) -> PostReport:
    """Reads what `post_document` wrote."""
    document = fields(_document(reply), _POST)
    code = document["completion_code"]
    try:
        completion_code = None if code is None else CompletionCode(code)
    except ValueError:
        raise WireError(f"the completion code {code}") from None
    extents = tuple(_region(each) for each in document["extents"])
    return PostReport(**document | {"completion_code": completion_code, "extents": extents})


def _region(value: object) -> Region:
    return Region(**_row(value, {"start": int, "end": int}))


def _row(value: object, kinds: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a list of values, in the order of `kinds`."""
    if not isinstance(value, list) or len(value) != len(kinds):
        raise WireError(f"not a list of {', '.join(kinds)}")
    return fields(dict(zip(kinds, value, strict=True)), kinds)


# -- its status -----------------------------------------------------------------------------


def status_message(status: MachineStatus) -> Message:
    """A status for the wire: the payload is the machine's SMBIOS table."""
    entry_point, table = status.tables.build()
    document = {
        "entry_point": entry_point.hex(),
        "is_on": status.is_on,
        "lost_power": status.lost_power,
        "is_armed": status.is_armed,
        "flash_size_bytes": status.flash_size_bytes,
        "modules": status.modules,
        "reboot_mode": status.reboot_mode,
    }
    return Message(document, table)


def status(reply: Message) -> MachineStatus:
    """Reads what `status_message` wrote."""
    document = dict(fields(_document(reply), _STATUS))
    try:
        tables = Tables.parse(bytes.fromhex(document.pop("entry_point")), reply.payload)
    except (ValueError, DamagedInputError):
        raise WireError("SMBIOS tables without an entry point") from None
    modules = tuple(_checked_name(each) for each in document["modules"])
    return MachineStatus(**document | {"tables": tables, "modules": modules})


# -- ranges of its memory -------------------------------------------------------------------


def regions_message(regions: tuple[Region, ...]) -> Message:
    """Ranges of memory for the wire: the payload is a start and an end of each."""
    bounds = [bound for region in regions for bound in (region.start, region.end)]
    return Message({"count": len(regions)}, struct.pack(f"<{len(bounds)}Q", *bounds))


def regions(reply: Message) -> tuple[Region, ...]:
    """Reads what `regions_message` wrote."""
    count = fields(_document(reply), {"count": int})["count"]
    if len(reply.payload) != 16 * count:
        raise WireError("not the ranges of memory that were announced")
    pairs = struct.iter_unpack("<QQ", reply.payload)
    return tuple(Region(PhysAddr(start), PhysAddr(end)) for start, end in pairs)


# -- a file ---------------------------------------------------------------------------------


def stat_document(what: Stat) -> dict[str, Any]:
    """A `Stat` for the wire."""
    return asdict(what)


def stat(reply: Message) -> Stat:
    """Reads what `stat_document` wrote."""
    what = record(Stat, _document(reply))
    if not math.isfinite(what.changed_at):
        raise WireError("not a finite time")
    return what


def record(kind: type[T], document: dict[str, Any]) -> T:
    """A record that came over the wire.

    :raise WireError: when it is not one of this kind.
    """
    try:
        return read_record(kind, document)
    except DocumentError as error:
        raise WireError(str(error)) from None
