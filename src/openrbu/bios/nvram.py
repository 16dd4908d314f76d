"""What a BIOS stores outside of CMOS and flash banks: settings, the last update, a running update.

A real BIOS stores this in a part of its flash. Here it is one small file that a rename replaces, so
that after a power cut it is the old file or the new one.
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
from openrbu.system.kept_files import OddFileError, read_kept
from openrbu.typed_json import Natural, read
from openrbu.units import KIB

ROOM_BYTES = 64 * KIB
"""More than what a BIOS writes apart from its flash. The space for the flash is allocated when a
machine is made."""


@dataclass(slots=True)
class Nvram:
    """The contents.

    `settings`: the value at each location of an SMI token. `completion_code` and `completed_at`
    (ISO 8601; None if no update was ever tried) are what SMBIOS 0xDE shows. `flashing_from` is the
    sequence number of the flash record that was current when programming began; None when no
    programming is in progress. After a power cut it tells whether the update was completed.
    `is_ending`: the result is recorded here, but perhaps not yet in CMOS. Of the admin password
    there are two CRC-32, of its text and of its keys' scan codes; None: there is no password, or it
    can't be typed as up to 8 keys.
    """

    settings: dict[int, int] = field(default_factory=dict)
    completion_code: int = 0xFFFF
    completed_at: str | None = None
    flashing_from: int | None = None
    admin_password_crc: int | None = None
    is_ending: bool = False
    admin_password_keys_crc: int | None = None

    @classmethod
    def parse(cls, data: bytes) -> Nvram:
        """The contents in bytes that `build` made.

        :raise ValueError: when `data` is something else.
        """
        try:
            document = parse_object(data)
            document.setdefault("is_ending", False)  # machines of openrbu before 0.2 have none
            document.setdefault("admin_password_keys_crc", None)  # nor have those before 0.3
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
            kept.admin_password_keys_crc,
        )

    def build(self) -> bytes:
        document = asdict(self)
        if not self.is_ending:  # so openrbu before 0.2 still reads the machines that it made
            del document["is_ending"]
        if self.admin_password_keys_crc is None:
            del document["admin_password_keys_crc"]
        return json.dumps(document).encode()


@dataclass(frozen=True, slots=True)
class NvramRecord:
    """An `Nvram` as it is in its file. The file has no format number: the openrbu that made the
    machine can always read it."""

    settings: dict[str, Natural]
    completion_code: Natural
    completed_at: str | None
    flashing_from: Natural | None
    admin_password_crc: Natural | None
    is_ending: bool
    admin_password_keys_crc: Natural | None


_CODES = frozenset(map(int, CompletionCode))


def _check(kept: NvramRecord) -> None:
    """Check the values.

    :raise ValueError: when one of them is not possible.
    """
    if kept.completed_at is not None:
        dt.datetime.fromisoformat(kept.completed_at)
    if kept.is_ending and (kept.completed_at is None or kept.completion_code not in _CODES):
        raise ValueError("a result is being recorded, but there is no result")
    locations = [int(location) for location in kept.settings]
    words = [kept.completion_code, *locations, *kept.settings.values()]
    optional = [
        kept.flashing_from or 0,
        kept.admin_password_crc or 0,
        kept.admin_password_keys_crc or 0,
    ]
    if min(words) < 0 or max(words) >= 1 << 16 or max(optional) >= 1 << 32:
        raise ValueError("a number is too large for its field")


class NvramFile:
    """An `Nvram` saved in a file.

    :raise MachineError: when the file is missing or damaged.
    """

    def __init__(self, path: Path, rail: PowerRail | None = None) -> None:
        self._path = path
        self._rail = rail or PowerRail()
        try:
            self.contents = Nvram.parse(read_kept(path))
        except FileNotFoundError:
            raise MachineError(f"the NVRAM file {path} is missing") from None
        except OddFileError as error:
            raise MachineError(f"the NVRAM file {path} is damaged: {error.strerror}") from None
        except (ValueError, RecursionError):
            raise MachineError(f"the NVRAM file {path} is damaged") from None

    @staticmethod
    def create(path: Path, contents: Nvram) -> None:
        path.write_bytes(contents.build())

    def save(self) -> None:
        """Save `contents` in the file.

        :raise PowerCutError: when the power fails. The file is as it was before.
        """
        if self._rail.operation():
            self._rail.fail()
        write_whole(self._path, self.contents.build())
