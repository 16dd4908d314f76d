"""How much memory this computer has available: /proc/meminfo, proc(5)."""

from __future__ import annotations

from pathlib import Path

from openrbu.units import KIB

_MEMINFO = Path("/proc/meminfo")


def available_memory_bytes() -> int | None:
    """What programs can still have without swapping; None when the kernel does not say it."""
    for line in _MEMINFO.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * KIB
    return None
