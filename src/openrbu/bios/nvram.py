"""What a BIOS remembers besides CMOS and flash: settings, the last update, an update under way.

A real BIOS keeps this in a corner of its flash. Here it is one small file, replaced whole by a
rename, so that a power cut leaves the old one or the new one.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from openrbu.bios.power import PowerRail
from openrbu.errors import MachineError


@dataclass(slots=True)
class Nvram:
    """The contents.

    `settings`: SMI token location → value. `completion_code` and `completed_at` (ISO 8601, None
    where no update was ever tried) are what SMBIOS 0xDE shows. `flashing_from` is the sequence
    number of the flash record that was in force when programming began, None when no programming
    is under way: it tells after a power cut whether the update got through.
    """

    settings: dict[int, int] = field(default_factory=dict)
    completion_code: int = 0xFFFF
    completed_at: str | None = None
    flashing_from: int | None = None
    admin_password_crc: int | None = None


class NvramFile:
    """An `Nvram` kept in a file.

    :raise MachineError: when the file is missing or does not hold one.
    """

    def __init__(self, path: Path, rail: PowerRail | None = None) -> None:
        self._path = path
        self._rail = rail or PowerRail()
        try:
            document = json.loads(path.read_bytes())
            document["settings"] = {int(key): int(v) for key, v in document["settings"].items()}
            self.contents = Nvram(**document)
        except FileNotFoundError:
            raise MachineError(f"the NVRAM file {path} is missing") from None
        except (ValueError, TypeError, KeyError, AttributeError):
            raise MachineError(f"the NVRAM file {path} is damaged") from None

    @staticmethod
    def create(path: Path, contents: Nvram) -> None:
        path.write_text(json.dumps(asdict(contents)))

    def save(self) -> None:
        """Make what is in `contents` last.

        :raise PowerCutError: when the power fails; then the file is as it was.
        """
        if self._rail.operation():
            self._rail.fail()
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(asdict(self.contents)))
        fresh.replace(self._path)
