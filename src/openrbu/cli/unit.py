"""The systemd units that have `rbu status` run by itself."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from openrbu.cli.show import Answer

RESULT_UNIT, RESULT_TIMER = "openrbu-result.service", "openrbu-result.timer"
"""Records how the last update ended: at boot, and from time to time."""

METRICS_UNIT, METRICS_TIMER = "openrbu-metrics.service", "openrbu-metrics.timer"
"""Writes metrics."""

UNITS = (RESULT_UNIT, RESULT_TIMER, METRICS_UNIT, METRICS_TIMER)

_COMMAND = "ExecStart=rbu "


def unit_text(program: Path | None, name: str = RESULT_UNIT) -> str:
    """A unit. `program`: the `rbu` that it runs; None: the one that systemd finds by its name."""
    path = Path(__file__).parent.parent / "share" / name
    text = path.read_text(encoding="utf-8")
    if program is None:
        return text
    word = str(program).replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return text.replace(_COMMAND, f'ExecStart="{word}" ')


def show_unit(name: str) -> Answer:
    """A unit, with the program that runs now."""
    found = shutil.which(sys.argv[0])
    text = unit_text(None if found is None else Path(found).absolute(), name)
    return Answer({"unit": text}, text.splitlines())
