"""What a BIOS remembers besides CMOS and flash: settings, the last update, an update under way.

A real BIOS keeps this in a corner of its flash. Here it is one small file, replaced whole by a
rename, so that a power cut leaves the old one or the new one.
"""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from openrbu.bios.power import PowerRail
from openrbu.errors import DamagedInputError, MachineError
from openrbu.file_format import parse_object
from openrbu.formats.dell import CompletionCode
from openrbu.system.files import write_whole
from openrbu.typed_json import Natural, read


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
        try:
            document = parse_object(data)
            document.setdefault("is_ending", False)  # machines of openrbu before 0.2 have none
            kept = read(NvramRecord, document)
        except DamagedInputError as error:
            raise ValueError(str(error)) from None
        _check(kept)
        settings = {int(location): value for location, value in kept.settings.items()}
        return cls(
            settings,
            kept.completion_code,
            kept.completed_at,
            kept.flashing_from,
            kept.admin_password_crc,
            kept.is_ending,
        )

    def build(self) -> bytes:
        document = asdict(self)
        if not self.is_ending:  # so openrbu before 0.2 still reads the machines that it made
            del document["is_ending"]
        return json.dumps(document).encode()


@dataclass(frozen=True, slots=True)
class NvramRecord:
    """An `Nvram` as it is in its file. There is no number: the openrbu that made a machine can
    always read it."""

    settings: dict[str, Natural]
    completion_code: Natural
    completed_at: str | None
    flashing_from: Natural | None
    admin_password_crc: Natural | None
    is_ending: bool


_CODES = frozenset(map(int, CompletionCode))


def _check(kept: NvramRecord) -> None:
    """
    :raise ValueError: when a value is one that it can't have.
    """
    if kept.completed_at is not None:
        dt.datetime.fromisoformat(kept.completed_at)
    if kept.is_ending and (kept.completed_at is None or kept.completion_code not in _CODES):
        raise ValueError("a result is being recorded, and there is none")
    locations = [int(location) for location in kept.settings]
    words = [kept.completion_code, *locations, *kept.settings.values()]
    optional = [kept.flashing_from or 0, kept.admin_password_crc or 0]
    if min(words) < 0 or max(words) >= 1 << 16 or max(optional) >= 1 << 32:
        raise ValueError("a number is larger than NVRAM has room for it")


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
