"""How far a simulated kernel is locked down: `/sys/kernel/security/lockdown`, and what it closes.

A level is chosen on the command line (`lockdown=integrity`), or written to the file; it can be
raised, and not lowered again before the next start. Facts: docs/reference/platform.md, V5.
"""

from __future__ import annotations

import errno
from collections.abc import Callable

from openrbu.drivers.sysfs import SysfsTree, TextAttribute
from openrbu.errors import KernelError
from openrbu.formats.lockdown import LEVELS, LOCKDOWN, LockdownLevel, lockdown_asked


class Lockdown:
    """The level, and its file. `words`: of the kernel's command line."""

    def __init__(self, words: str) -> None:
        self.level: LockdownLevel = lockdown_asked(words)

    def install(self, sys: SysfsTree) -> None:
        """Add the file."""
        sys.add(LOCKDOWN.removeprefix("/sys"), TextAttribute(self._show, self._store, size_bytes=0))

    def of_ports(self) -> None:
        """Whether `/dev/port` may be opened.

        :raise KernelError: EPERM when it may not.
        """
        self.closes("/dev/port", "integrity")()

    def closes(self, path: str, from_level: LockdownLevel) -> Callable[[], None]:
        """What an `Attribute.may_open` is: EPERM from this level on."""

        def may_open() -> None:
            if LEVELS.index(self.level) >= LEVELS.index(from_level):
                raise KernelError(errno.EPERM, path)

        return may_open

    def _show(self) -> str:
        shown = (f"[{each}]" if each == self.level else each for each in LEVELS)
        return " ".join(shown) + "\n"

    def _store(self, text: bytes) -> None:
        """A write to the file.

        :raise KernelError: EINVAL for another word, EPERM for a level that is not higher.
        """
        word = text.decode("latin-1").removesuffix("\n")
        chosen = next((level for level in LEVELS if level == word), None)
        if chosen is None:
            raise KernelError(errno.EINVAL, LOCKDOWN)
        if LEVELS.index(chosen) <= LEVELS.index(self.level):
            raise KernelError(errno.EPERM, LOCKDOWN)
        self.level = chosen
