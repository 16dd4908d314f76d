"""The words `reboot=` of a kernel's command line.

Source: "The kernel's command-line parameters" and "AMD64 Specific Boot Options" in the kernel's
documentation.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

_MODES = {"w": "warm", "c": "cold", "h": "hard", "s": "soft", "g": "gpio"}
_TYPES = {"a": "acpi", "k": "kbd", "e": "efi", "b": "bios", "p": "pci", "t": "triple"}

TYPES = frozenset(_TYPES.values())
"""The ways in which a kernel can reset a machine."""


@dataclass(frozen=True, slots=True)
class RebootWords:
    """What they choose, by the names of `/sys/kernel/reboot`; None: they don't say."""

    mode: str | None = None
    type: str | None = None


def parse_reboot_words(line: str) -> RebootWords:
    """What a command line chooses. Each word counts by its first letter, and the last one wins;
    `smp…` names a processor, and `panic_…` is for panics only. What follows a word `--` is for the
    init program."""
    mode = kind = None
    for word in itertools.takewhile(lambda each: each != "--", line.split()):
        name, _, values = word.partition("=")
        for value in values.split(",") if name == "reboot" else ():
            if not value.startswith(("sm", "panic_")):
                mode = _MODES.get(value[:1], mode)
                kind = _TYPES.get(value[:1], kind)
    return RebootWords(mode, kind)
