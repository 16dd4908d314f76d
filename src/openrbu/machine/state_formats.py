"""The formats of a state file, and how older formats are converted.

A state file is an object of `format`, `crc32` and `state`; the checksum is over the state as
`json.dumps` writes it. An older state is converted to today's format, which is read as a
`MachineState`. docs/state.md says when the format is to be raised, and how.
"""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass

from openrbu.errors import DamagedInputError
from openrbu.file_format import Document, FileFormat, NewerFormatError, parse_object
from openrbu.kernel.states import KernelState
from openrbu.typed_json import read as read_record


@dataclass(frozen=True, slots=True)
class MachineState:
    """The saved state of a machine: the kernel's state, and the ID of its boot."""

    boot_id: str
    kernel: KernelState


def build(text: str) -> bytes:
    """The content of the file for a state that is given as JSON text."""
    crc = zlib.crc32(text.encode())
    return f'{{"format": {FORMAT.number}, "crc32": {crc}, "state": {text}}}'.encode()


def read(data: bytes) -> MachineState:
    """The state in a file.

    :raise NewerFormatError: when its format is newer than `FORMAT`.
    :raise DamagedInputError: when it is damaged, or does not have its format.
    """
    try:
        document = parse_object(data)
        found = FORMAT.number_of(document)
        if not document.keys() == {"format", "crc32", "state"}:
            raise DamagedInputError("it is not format, crc32 and state")
        state = document["state"]
        if document["crc32"] != zlib.crc32(json.dumps(state).encode()):
            raise DamagedInputError("its checksum is wrong")
    except NewerFormatError:
        raise
    except DamagedInputError as error:
        raise DamagedInputError(f"state.json is damaged: {error}") from None
    record = read_record(MachineState, FORMAT.convert(state, found))
    if not record.boot_id.isascii():
        raise DamagedInputError(f"boot_id: an ID expected, {record.boot_id!a:.40} found")
    return record


def _from_1(state: Document) -> Document:
    """In format 1 modules are an object, and `parameters` another one; the state of a module has
    its parameters too. There are no plain files, no search path for firmware and no kexec; of the
    restart there is its mode, and nothing is locked down."""
    kernel = {**state["kernel"]}
    mode = kernel.pop("reboot_mode")
    of_kexec = {"by_kexec": False, "kexec_loaded": False}
    kernel["restart"] = {"mode": mode, "type": "acpi", "force": False, **of_kexec}
    modules, parameters = kernel["modules"], kernel.pop("parameters")
    if modules.keys() != parameters.keys():
        raise ValueError("modules and their parameters differ")
    kernel["modules"] = [{"module": name, **modules[name]} for name in parameters]
    switches = {"ignore_sysfs_fallback": False, "force_sysfs_fallback": False}
    kernel["firmware"] = {**kernel["firmware"], "search_path": "", "switches": switches}
    kernel["files"] = {}
    kernel["lockdown"] = "none"
    return {**state, "kernel": kernel}


FORMAT = FileFormat(2, {1: _from_1})
"""Of the state. 1: openrbu up to 0.2.0; 2: modules are a list, without their parameters, and
the kernel has plain files, a search path for firmware, all files of its restart and a level of
lockdown, and may have been started by kexec or have a kernel loaded for it."""
