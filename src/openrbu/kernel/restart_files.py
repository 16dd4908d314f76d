"""The files of a kernel about its start and its restart: how it began, and how it will end.

Facts: docs/reference/linux-files.md, L7.
"""

from __future__ import annotations

import errno
from typing import get_args

from openrbu.drivers.sysfs import SysfsTree, TextAttribute
from openrbu.errors import KernelError
from openrbu.formats.reboot_words import parse_reboot_words
from openrbu.kernel.states import RebootMode

REBOOT_MODES: tuple[RebootMode, ...] = get_args(RebootMode)

_LINE = "BOOT_IMAGE=/boot/vmlinuz root=/dev/sda1 ro"
_GRUB, _KEXEC = 7 << 4, 0xD << 4
"""The number of the boot loader: GRUB's, and the one that kexec writes."""


class RestartFiles:
    """How a kernel began and will restart, and its files about that.

    `words`: more words of its command line. `has_files`: it has `/sys/kernel/reboot`, which kernels
    before 5.11 have not. `by_kexec`: another kernel started it, without the BIOS.
    """

    def __init__(self, words: str, *, has_files: bool, by_kexec: bool) -> None:
        self._line = f"{_LINE} {words}".rstrip()
        self._has_files = has_files
        self.by_kexec = by_kexec
        chosen = parse_reboot_words(words).mode
        self.mode: RebootMode = next((each for each in REBOOT_MODES if each == chosen), "cold")

    def install(self, sys: SysfsTree, proc: SysfsTree) -> None:
        """Add the files."""
        if self._has_files:
            sys.add("/kernel/reboot/mode", TextAttribute(self._show_mode, self._store_mode))
        sys.add("/kernel/kexec_loaded", TextAttribute(lambda: "0\n", mode=0o444))
        proc.add("/cmdline", TextAttribute(lambda: f"{self._line}\n", mode=0o444, size_bytes=0))
        loader = TextAttribute(self._show_loader, mode=0o444, size_bytes=0)
        proc.add("/sys/kernel/bootloader_type", loader)

    def _show_mode(self) -> str:
        return self.mode + "\n"

    def _store_mode(self, data: bytes) -> None:
        """A write to `/sys/kernel/reboot/mode`. Linux accepts what begins with a mode's name."""
        for mode in REBOOT_MODES:
            if data.startswith(mode.encode()):
                self.mode = mode
                return
        raise KernelError(errno.EINVAL, "/sys/kernel/reboot/mode")

    def _show_loader(self) -> str:
        return f"{_KEXEC if self.by_kexec else _GRUB}\n"
