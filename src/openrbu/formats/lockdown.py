"""How far a kernel is locked down: the text of `/sys/kernel/security/lockdown`, and of its command
line.

Facts: docs/reference/platform.md, V5.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

LOCKDOWN = "/sys/kernel/security/lockdown"

LockdownLevel: TypeAlias = Literal["none", "integrity", "confidentiality"]

LEVELS: tuple[LockdownLevel, ...] = get_args(LockdownLevel)
"""From open to closed."""


def lockdown_in(text: str) -> LockdownLevel | None:
    """The level of `LEVELS` that stands in brackets; None where none does."""
    return next((level for level in LEVELS if f"[{level}]" in text.split()), None)


def lockdown_asked(command_line: str) -> LockdownLevel:
    """The level that a kernel's command line asks for: the highest that it names. A word that is no
    level is passed over. (Seen on Debian's 6.1.192.)"""
    words = command_line.split()
    return next((level for level in reversed(LEVELS) if f"lockdown={level}" in words), "none")
