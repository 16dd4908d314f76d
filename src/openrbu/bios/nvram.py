"""What a BIOS remembers besides CMOS and flash: settings, the last update, an update under way.

A real BIOS keeps this in a corner of its flash. Here it is one small file, replaced whole by a
rename, so that a power cut leaves the old one or the new one.
"""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from openrbu.bios.power import PowerRail
from openrbu.errors import MachineError
from openrbu.formats.dell import CompletionCode
from openrbu.system.files import write_whole


@dataclass(slots=True)
class Nvram:
    """The contents.

    `settings`: SMI token location → value. `completion_code` and `completed_at` (ISO 8601, None
    where no update was ever tried) are what SMBIOS 0xDE shows. `flashing_from` is the sequence
    number of the flash record that was in force when programming began, None when no programming
    is under way: it tells after a power cut whether the update got through. `is_ending`: the
    result is recorded here, and what goes to CMOS may not be.
    """

    settings: dict[int, int] = field(default_factory=dict)
    completion_code: int = 0xFFFF
    completed_at: str | None = None
    flashing_from: int | None = None
    admin_password_crc: int | None = None
    is_ending: bool = False

    @classmethod
    def parse(cls, data: bytes) -> Nvram:
        """The contents, out of what `build` made.

        :raise ValueError: when it is anything else.
        """
        document = json.loads(data)
        if not _is_sound(document):
            raise ValueError("not the fields of NVRAM, or not values that they can have")
        settings = {int(location): value for location, value in document.pop("settings").items()}
        return cls(settings, **document)

    def build(self) -> bytes:
        document = asdict(self)
        if not self.is_ending:  # so openrbu before 0.2 still reads the machines that it made
            del document["is_ending"]
        return json.dumps(document).encode()


_CODES = frozenset(map(int, CompletionCode))


def _is_sound(document: Any) -> bool:
    """Whether these are all fields of an `Nvram`, each with a value that it can have.

    :raise ValueError: when a text is not the number or the time that it should be.
    """
    names = {field.name for field in fields(Nvram)}
    if not isinstance(document, dict) or document.keys() | {"is_ending"} != names:
        return False
    is_ending = document.get("is_ending", False)  # machines of openrbu before 0.2 have none
    if not isinstance(is_ending, bool):
        return False
    settings, completed_at = document["settings"], document["completed_at"]
    if not isinstance(settings, dict) or not isinstance(completed_at, str | None):
        return False
    if completed_at is not None:
        dt.datetime.fromisoformat(completed_at)
    if is_ending and (completed_at is None or document["completion_code"] not in _CODES):
        return False
    words = [document["completion_code"], *map(int, settings), *settings.values()]
    optional = [document["flashing_from"], document["admin_password_crc"]]
    return all(_is_number(word, bits=16) for word in words) and all(
        number is None or _is_number(number, bits=32) for number in optional
    )


def _is_number(value: object, *, bits: int) -> bool:
    return isinstance(value, int) and 0 <= value < 1 << bits


class NvramFile:
    """An `Nvram` kept in a file.

    :raise MachineError: when the file is missing or does not hold one.
    """

    def __init__(self, path: Path, rail: PowerRail | None = None) -> None:
        self._path = path
        self._rail = rail or PowerRail()
        try:
            self.contents = Nvram.parse(path.read_bytes())
        except FileNotFoundError:
            raise MachineError(f"the NVRAM file {path} is missing") from None
        except (ValueError, RecursionError):
            raise MachineError(f"the NVRAM file {path} is damaged") from None

    @staticmethod
    def create(path: Path, contents: Nvram) -> None:
        path.write_bytes(contents.build())

    def save(self) -> None:
        """Make what is in `contents` last.

        :raise PowerCutError: when the power fails; then the file is as it was.
        """
        if self._rail.operation():
            self._rail.fail()
        write_whole(self._path, self.contents.build())
