"""The systemd unit that records at boot how the last update ended."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from openrbu.cli.show import Answer

UNIT = "openrbu-result.service"

_COMMAND = "ExecStart=rbu "


def unit_text(program: Path | None) -> str:
    """The unit. `program`: the `rbu` that it runs; None: the one that systemd finds by its name."""
    path = Path(__file__).parent.parent / "share" / UNIT
    text = path.read_text(encoding="utf-8")
    if program is None:
        return text
    word = str(program).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return text.replace(_COMMAND, f'ExecStart="{word}" ')


def show_unit() -> Answer:
    """The unit, with the program that runs now."""
    found = shutil.which(sys.argv[0])
    text = unit_text(None if found is None else Path(found).absolute())
    return Answer({"unit": text}, text.splitlines())
