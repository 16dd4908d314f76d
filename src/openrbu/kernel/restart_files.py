"""The files of a kernel about its start and its restart: how it began, and how it will end.

Only the mode decides here whether a restart keeps memory: this machine has no ACPI tables and no
UEFI, so the ways by these pass on to the next one, and all others follow the mode.

Facts: docs/reference/linux-files.md, L7.
"""

from __future__ import annotations

import errno
from typing import TypeVar, get_args

from openrbu.drivers.numbers import strict_bool, strict_unsigned_any_base
from openrbu.drivers.sysfs import SysfsTree, TextAttribute
from openrbu.errors import KernelError
from openrbu.formats.reboot_words import parse_reboot_words
from openrbu.kernel.states import RebootMode, RebootType, RestartState

REBOOT_MODES: tuple[RebootMode, ...] = get_args(RebootMode)
REBOOT_TYPES: tuple[RebootType, ...] = get_args(RebootType)

REBOOT = "/kernel/reboot"
"""In sysfs."""

PROCESSORS = 1
"""How many processors the machine has."""

_Name = TypeVar("_Name", RebootMode, RebootType)

_LINE = "BOOT_IMAGE=/boot/vmlinuz root=/dev/sda1 ro"
_GRUB, _KEXEC = 7 << 4, 0xD << 4
"""The number of the boot loader: GRUB's, and the one that kexec writes."""


class RestartFiles:
    """How a kernel began and will restart, and its files about that.

    `words`: more words of its command line. `has_files`: it has `/sys/kernel/reboot`, which kernels
    before 5.11 have not. `by_kexec`: another kernel started it, without the BIOS. `loads_kexec`:
    somebody loads a kernel for kexec after each start through the BIOS.

    `kexec_loaded`: a kernel is loaded that a plain restart starts.
    """

    def __init__(
        self, words: str, *, has_files: bool, by_kexec: bool, loads_kexec: bool = False
    ) -> None:
        self.words = words
        self._line = f"{_LINE} {words}".rstrip()
        self._has_files = has_files
        self.by_kexec = by_kexec
        self.kexec_loaded = loads_kexec and not by_kexec
        chosen = parse_reboot_words(words)
        self.mode: RebootMode = next((x for x in REBOOT_MODES if x == chosen.mode), "cold")
        self.type: RebootType = next((x for x in REBOOT_TYPES if x == chosen.type), "acpi")
        self.force = chosen.force

    def install(self, sys: SysfsTree, proc: SysfsTree) -> None:
        """Add the files."""
        if self._has_files:
            sys.add(f"{REBOOT}/mode", TextAttribute(lambda: f"{self.mode}\n", self._store_mode))
            sys.add(f"{REBOOT}/type", TextAttribute(lambda: f"{self.type}\n", self._store_type))
            force = TextAttribute(lambda: f"{int(self.force)}\n", self._store_force)
            sys.add(f"{REBOOT}/force", force)
            sys.add(f"{REBOOT}/cpu", TextAttribute(lambda: "0\n", _store_cpu))
        sys.add("/kernel/kexec_loaded", TextAttribute(self._show_kexec, mode=0o444))
        proc.add("/cmdline", TextAttribute(lambda: f"{self._line}\n", mode=0o444, size_bytes=0))
        loader = TextAttribute(self._show_loader, mode=0o444, size_bytes=0)
        proc.add("/sys/kernel/bootloader_type", loader)

    def snapshot(self) -> RestartState:
        """The state that `restore` needs."""
        return RestartState(self.mode, self.type, self.force, self.by_kexec, self.kexec_loaded)

    def restore(self, state: RestartState) -> None:
        """Have the state of a snapshot."""
        self.mode, self.type, self.force = state.mode, state.type, state.force
        self.by_kexec, self.kexec_loaded = state.by_kexec, state.kexec_loaded

    def _store_mode(self, data: bytes) -> None:
        self.mode = _named(REBOOT_MODES, data, "mode")

    def _store_type(self, data: bytes) -> None:
        self.type = _named(REBOOT_TYPES, data, "type")

    def _store_force(self, data: bytes) -> None:
        """A write to `force`.

        :raise KernelError: EINVAL when it is neither yes nor no.
        """
        value = strict_bool(data)
        if value is None:
            raise KernelError(errno.EINVAL, f"/sys{REBOOT}/force")
        self.force = value

    def _show_kexec(self) -> str:
        return f"{int(self.kexec_loaded)}\n"

    def _show_loader(self) -> str:
        return f"{_KEXEC if self.by_kexec else _GRUB}\n"


def _named(names: tuple[_Name, ...], data: bytes, file: str) -> _Name:
    """The name that a text begins with: Linux does not look at the rest.

    :raise KernelError: EINVAL when there is none.
    """
    for name in names:
        if data.startswith(name.encode()):
            return name
    raise KernelError(errno.EINVAL, f"/sys{REBOOT}/{file}")


def _store_cpu(data: bytes) -> None:
    """A write to `cpu`. There is one processor, so it changes nothing.

    :raise KernelError: EINVAL when it is not a number, ERANGE for a processor that is not there.
    """
    number = strict_unsigned_any_base(data)
    if number is None:
        raise KernelError(errno.EINVAL, f"/sys{REBOOT}/cpu")
    if number >= PROCESSORS:
        raise KernelError(errno.ERANGE, f"/sys{REBOOT}/cpu")
