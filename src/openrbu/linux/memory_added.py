"""Memory that was added while a machine runs, or may have been: a BIOS that starts anew may not
have it, or set it up as new.

Facts: docs/reference/linux-files.md, L14.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from openrbu.hosts.base import Host
from openrbu.linux.files import names_in, number_of, text_of

BLOCKS = "/sys/devices/system/memory"
DEVICES = "/sys/bus/acpi/devices"
IOMEM = "/proc/iomem"

_BLOCK = re.compile(r"memory[0-9]+")
_MEMORY_DEVICE = "PNP0C80:"
"""ACPI's name of memory that can come and go."""

_PRESENT = 1
"""Bit 0 of a device's status: it is there."""

_ADDED = re.compile(r"^ *[0-9a-f]+-[0-9a-f]+ : (System RAM \([^)]+\))$", re.MULTILINE)
"""A driver's own range of RAM, such as `System RAM (virtio_mem)`."""


@dataclass(frozen=True, slots=True)
class MemoryAdded:
    """`devices`: the ACPI devices of memory that is there and can come and go. `by_drivers`: the
    ranges that drivers have added, by their names in `/proc/iomem`. `offline`: how many blocks of
    memory are there and not in use."""

    devices: tuple[str, ...]
    by_drivers: tuple[str, ...]
    offline: int

    @property
    def text(self) -> str:
        """What was seen, in words; empty: nothing."""
        told = list(dict.fromkeys(self.by_drivers))
        if self.devices:
            more = f" and {len(self.devices) - 1} more" if len(self.devices) > 1 else ""
            told.insert(0, f"ACPI device {self.devices[0]}{more}")
        if self.offline:
            told.append(f"{self.offline} block{'s' if self.offline > 1 else ''} offline")
        return ", ".join(told)


def read_memory_added(host: Host) -> MemoryAdded | None:
    """What the kernel says of it; None where it does not divide memory into blocks: then none can
    be added."""
    if not host.exists(BLOCKS):
        return None
    blocks = [name for name in names_in(host, BLOCKS) if _BLOCK.fullmatch(name)]
    devices = [name for name in names_in(host, DEVICES) if name.startswith(_MEMORY_DEVICE)]
    return MemoryAdded(
        devices=tuple(name for name in devices if _is_present(host, name)),
        by_drivers=tuple(_ADDED.findall(text_of(host, IOMEM) or "")),
        offline=sum(text_of(host, f"{BLOCKS}/{name}/state") == "offline" for name in blocks),
    )


def _is_present(host: Host, device: str) -> bool:
    """Whether the memory is there; a device without a status is."""
    status = number_of(host, f"{DEVICES}/{device}/status")
    return status is None or bool(status & _PRESENT)
