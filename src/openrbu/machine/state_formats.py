"""The formats of a state file, and how older ones become today's.

A state file is an object of `format`, `crc32` and `state`; the checksum is over the state as
`json.dumps` writes it. The state of format N is changed into that of N + 1 by `_CONVERTERS[N]`,
until it is today's, which is read as a `MachineState`. docs/state.md says when the format is to be
raised, and how.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from openrbu.errors import DamagedInputError
from openrbu.kernel.states import KernelState
from openrbu.typed_json import read as read_record

FORMAT = 2
"""Of the state. 1: openrbu up to 0.2.0; 2: modules are a list, without their parameters."""

State = dict[str, Any]
"""A state of any format, as it is in the file."""


@dataclass(frozen=True, slots=True)
class MachineState:
    """A kernel that was put away, and the ID of its boot."""

    boot_id: str
    kernel: KernelState


class NewerFormatError(DamagedInputError):
    """A state is of a format that only a newer openrbu knows."""

    kind = "newer_format"

    def __init__(self, found: int) -> None:
        super().__init__(
            f"a newer openrbu put it away (format {found}; this one knows up to {FORMAT})",
            expected=FORMAT,
            actual=found,
        )


def build(text: str) -> bytes:
    """What is in the file for a state, given as JSON text."""
    crc = zlib.crc32(text.encode())
    return f'{{"format": {FORMAT}, "crc32": {crc}, "state": {text}}}'.encode()


def read(data: bytes) -> MachineState:
    """The state in a file.

    :raise NewerFormatError: when its format is newer than these.
    :raise DamagedInputError: when it is damaged, or not what its format says.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise DamagedInputError("state.json is damaged: it is not JSON") from None
    if not isinstance(document, dict) or type(found := document.get("format")) is not int:
        raise DamagedInputError("state.json is damaged: it has no format number")
    if found > FORMAT:
        raise NewerFormatError(found)
    if found < 1 or not document.keys() == {"format", "crc32", "state"}:
        raise DamagedInputError("state.json is damaged: it is not format, crc32 and state")
    state = document["state"]
    if document["crc32"] != zlib.crc32(json.dumps(state).encode()):
        raise DamagedInputError("state.json is damaged: its checksum is wrong")
    for number in range(found, FORMAT):
        state = _converted(state, number)
    return read_record(MachineState, state)


def _converted(state: Any, number: int) -> Any:
    """A state of format `number` in the next one.

    :raise DamagedInputError: when it is not one.
    """
    try:
        return _CONVERTERS[number](state)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise DamagedInputError(f"not a state of format {number}: {error!r}") from None


def _from_1(state: State) -> State:
    """Modules were an object, and their parameters beside them. Those are in what a module itself
    keeps."""
    kernel = dict(state["kernel"])
    modules, parameters = kernel["modules"], kernel.pop("parameters")
    if modules.keys() != parameters.keys():
        raise ValueError("modules and their parameters differ")
    kernel["modules"] = [{"module": name, **modules[name]} for name in parameters]
    return {**state, "kernel": kernel}


_CONVERTERS: Mapping[int, Callable[[State], State]] = MappingProxyType({1: _from_1})
"""From each old format to the next one."""
