"""The words `reboot=` of a kernel's command line.

Source: "The kernel's command-line parameters" and "AMD64 Specific Boot Options" in the kernel's
documentation.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

_MODES = {"w": "warm", "c": "cold", "h": "hard", "s": "soft", "g": "gpio"}
_TYPES = {"a": "acpi", "k": "kbd", "e": "efi", "b": "bios", "p": "pci", "t": "triple"}

TYPES = frozenset(_TYPES.values())
"""The ways in which a kernel can reset a machine."""

_PROCESSOR = re.compile(r"sm?p?(\d+)")


@dataclass(frozen=True, slots=True)
class RebootWords:
    """What they choose, by the names of `/sys/kernel/reboot`; None: they don't say. `force`: other
    processors are not waited for. `cpu`: the processor that restarts the machine."""

    mode: str | None = None
    type: str | None = None
    force: bool = False
    cpu: int | None = None


def parse_reboot_words(line: str) -> RebootWords:
    """What a command line chooses. Each word counts by its first letter, and the last one wins;
    `smp…` names a processor, and `panic_…` is for panics only. What follows a word `--` is for the
    init program."""
    mode = kind = cpu = None
    force = False
    for word in itertools.takewhile(lambda each: each != "--", line.split()):
        name, _, values = word.partition("=")
        for value in values.split(",") if name == "reboot" else ():
            processor = _PROCESSOR.match(value)
            if processor is not None:
                cpu = int(processor[1])
            elif not value.startswith(("sm", "panic_")):
                mode = _MODES.get(value[:1], mode)
                kind = _TYPES.get(value[:1], kind)
                force = force or value[:1] == "f"
    return RebootWords(mode, kind, force, cpu)
