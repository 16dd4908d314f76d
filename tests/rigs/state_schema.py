"""What is kept in files, as readable text: made from the records that the reader uses.

Each kind of file has a section, with the number of its format. The directory of a released version
(`tests/data/states/VERSION`) has in `formats` what they were in that version, written by
`make_state_goldens`.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from openrbu.bios.nvram import NvramRecord
from openrbu.machine import config, guest_spec, state_formats
from openrbu.xen import hypervisor

FILES = {
    f"state.json, format {state_formats.FORMAT.number}": state_formats.MachineState,
    f"machine.json, format {config.FORMAT.number}": config.MachineConfig,
    f"guest.json, format {guest_spec.FORMAT.number}": guest_spec.GuestSpec,
    f"host.json, format {hypervisor.FORMAT.number}": hypervisor.HostConfig,
    "nvram.json": NvramRecord,
}


def sections() -> dict[str, str]:
    """For each kind of file, what is in it."""
    return {title: section(kind) for title, kind in FILES.items()}


def to_text(parts: dict[str, str]) -> str:
    """All sections in one text."""
    return "\n".join(f"= {title}\n\n{part}" for title, part in parts.items())


def from_text(text: str) -> dict[str, str]:
    """The sections of a text."""
    parts = (part.partition("\n\n") for part in ("\n" + text).split("\n= ")[1:])
    return {title: part for title, _, part in parts}


def section(root: type) -> str:
    """A record, and those that it names, by numbers: what they are called in Python is not kept."""
    known: dict[Any, str] = {}
    _record(root, known)
    return "\n".join(f"#{number}\n{text}" for number, text in enumerate(known.values(), 1))


def _name(kind: Any, known: dict[Any, str]) -> str:
    """A kind in words. The records that it names are put into `known`."""
    origin, arguments = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _record(kind, known)
    if origin is Literal:
        return " | ".join(map(repr, arguments))
    if origin is Annotated:
        return "natural"
    inner = ["..." if each is ... else _name(each, known) for each in arguments]
    if origin in (Union, types.UnionType):
        return " | ".join(inner)
    brackets = {tuple: "[%s]", dict: "{%s}"}
    name = "null" if kind is types.NoneType else getattr(kind, "__name__", "")
    return brackets[origin] % ", ".join(inner) if origin in brackets else name


def _record(kind: Any, known: dict[Any, str]) -> str:
    if kind not in known:
        known[kind] = ""  # it may have its own kind inside
        known[kind] = "".join(_lines(kind, known))
    return f"#{list(known).index(kind) + 1}"


def _lines(kind: Any, known: dict[Any, str]) -> Iterator[str]:
    hints = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        yield f"    {field.name}: {_name(hints[field.name], known)}\n"
