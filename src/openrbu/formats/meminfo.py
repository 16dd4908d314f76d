"""`/proc/meminfo`: sizes of this computer's memory.

Facts: docs/reference/linux-files.md, L13.
"""

from __future__ import annotations

import re

from openrbu.units import KIB, MIB

MARGIN_BYTES = 128 * MIB
"""What is left to the machine when memory is taken. (With less than 30 MiB available, a run of this
program did not come back.)"""

_LINE = re.compile(r"^(?P<name>\S+): +(?P<kib>[0-9]{1,19}) kB$", re.MULTILINE)


def meminfo_bytes(text: str, name: str) -> int | None:
    """A size in bytes, such as that of `MemAvailable`; None where the file does not have it."""
    sizes = {match["name"]: int(match["kib"]) * KIB for match in _LINE.finditer(text)}
    return sizes.get(name)
