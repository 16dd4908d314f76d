"""What the calls of a served machine bring: for the wire, and out of it.

A reader makes of an answer what the call promises, and raises WireError for everything else, so
that a server that is broken does not break who asks it.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
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

T = TypeVar("T")

_POST: Mapping[str, Any] = {
    "version_before": str,
    "version_after": str,
    "completion_code": int | None,
    "reason": str,
    "mode": str | None,
    "extents": list,
    "copies": int,
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

_STAT: Mapping[str, Any] = {
    "mode": int,
    "link_count": int,
    "size_bytes": int,
    "inode": int,
    "changed_at": int | float,
}


# -- plain values ---------------------------------------------------------------------------


def _plain(kind: type[T]) -> Callable[[Message], T]:
    """Reads one value of a type."""

    def read(answer: Message) -> T:
        value: T = fields(answer.header, {"result": kind})["result"]
        return value

    return read


no_value = _plain(NoneType)
boolean = _plain(bool)
_any_text = _plain(str)
_list = _plain(list)
_document = _plain(dict)


def number(most: int = MAX_INT) -> Callable[[Message], int]:
    """Reads a number from 0 to `most`."""

    def read(answer: Message) -> int:
        value = _plain(int)(answer)
        if value > most:
            raise WireError(f"{value}, which is more than {most}")
        return value

    return read


def data(most_bytes: int) -> Callable[[Message], bytes]:
    """Reads a payload of no more than this size."""

    def read(answer: Message) -> bytes:
        _document(answer)
        if len(answer.payload) > most_bytes:
            raise WireError(f"{len(answer.payload)} bytes, which is more than {most_bytes}")
        return answer.payload

    return read


def text(answer: Message) -> str:
    """Reads what a link or a file's name can be."""
    return _checked_text(_any_text(answer))


def names(answer: Message) -> list[str]:
    """Reads the names in a directory, or of modules."""
    return [_checked_name(each) for each in _list(answer)]


def _checked_name(name: object) -> str:
    if name in ("", ".", "..") or "/" in (checked := _checked_text(name)):
        raise WireError("a name that can't be one")
    return checked


def _checked_text(value: object) -> str:
    if not isinstance(value, str) or "\0" in value:
        raise WireError("a text that is none")
    try:
        os.fsencode(value)
    except UnicodeEncodeError:
        raise WireError("a text that is no bytes") from None
    return value


# -- a start of the machine -----------------------------------------------------------------


def post_document(post: PostReport) -> dict[str, Any]:
    """For the wire."""
    return {
        "version_before": post.version_before,
        "version_after": post.version_after,
        "completion_code": None if post.completion_code is None else int(post.completion_code),
        "reason": post.reason,
        "mode": post.mode,
        "extents": [[int(extent.start), int(extent.end)] for extent in post.extents],
        "copies": post.copies,
    }


def post(answer: Message) -> PostReport:
    """The same out of an answer."""
    document = fields(_document(answer), _POST)
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
    """Fields that come as a list of their values."""
    if not isinstance(value, list) or len(value) != len(kinds):
        raise WireError(f"no list of {', '.join(kinds)}")
    return fields(dict(zip(kinds, value, strict=True)), kinds)


# -- its status -----------------------------------------------------------------------------


def status_message(status: MachineStatus) -> Message:
    """For the wire: the machine's SMBIOS table is the payload."""
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


def status(answer: Message) -> MachineStatus:
    """The same out of an answer."""
    document = dict(fields(_document(answer), _STATUS))
    try:
        tables = Tables.parse(bytes.fromhex(document.pop("entry_point")), answer.payload)
    except (ValueError, DamagedInputError):
        raise WireError("SMBIOS tables without an entry point") from None
    modules = tuple(_checked_name(each) for each in document["modules"])
    return MachineStatus(**document | {"tables": tables, "modules": modules})


# -- a file ---------------------------------------------------------------------------------


def stat_list(stat: Stat) -> list[float]:
    """For the wire."""
    return [stat.mode, stat.link_count, stat.size_bytes, stat.inode, stat.changed_at]


def stat(answer: Message) -> Stat:
    """The same out of an answer."""
    document = _row(_list(answer), _STAT)
    if not math.isfinite(document["changed_at"]):
        raise WireError("a time that is none")
    return Stat(**document)
