"""UEFI as Linux shows it: whether it started Linux, its variables, and what takes its capsules.

Facts: docs/reference/platform.md, V3.
"""

from __future__ import annotations

from dataclasses import dataclass

from openrbu.hosts.base import EFI_VARIABLES, Host, read_file
from openrbu.linux.files import names_in, number_of, text_of

_EFI = "/sys/firmware/efi"
_ENTRIES = f"{_EFI}/esrt/entries"

_GLOBAL = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
"""The vendor GUID of the variables that the UEFI specification defines."""

_ATTRIBUTES_BYTES = 4
_SYSTEM_FIRMWARE = 1

_ATTEMPTS = {
    0: "succeeded",
    1: "failed: not enough resources",
    2: "failed: a wrong version",
    3: "failed: a wrong format",
    4: "failed: the signature is not right",
    5: "failed: no mains power",
    6: "failed: the battery is too low",
    7: "failed: something else has to be updated first",
}
"""`last_attempt_status` in words."""


@dataclass(frozen=True, slots=True)
class CapsuleTarget:
    """An entry of the ESRT: a firmware that capsules update. `attempted` is the version that was
    tried last, with its `status`; None where this user can't read it."""

    guid: str
    is_system_firmware: bool
    version: int | None
    attempted: int | None
    status: int | None

    @property
    def last_attempt(self) -> str:
        """How the last capsule ended, in words; empty: none is known to have been tried."""
        if self.status is None or (not self.status and not self.attempted):
            return ""
        ended = _ATTEMPTS.get(self.status, f"failed: status {self.status:#x}")
        return f"version {self.attempted or 0:#010x} {ended}"


@dataclass(frozen=True, slots=True)
class Efi:
    """`is_secure_boot`: Secure Boot is on; None: its variable can't be read."""

    is_secure_boot: bool | None
    targets: tuple[CapsuleTarget, ...]

    @property
    def system_firmware(self) -> CapsuleTarget | None:
        """The machine's own firmware, where capsules update it."""
        return next((each for each in self.targets if each.is_system_firmware), None)


def read_efi(host: Host) -> Efi:
    """What UEFI shows where it started Linux."""
    value = read_variable(host, "SecureBoot", _GLOBAL)
    entries = names_in(host, _ENTRIES)
    return Efi(
        None if not value else value[0] == 1,
        tuple(_read_target(host, f"{_ENTRIES}/{entry}") for entry in entries),
    )


def read_variable(host: Host, name: str, guid: str) -> bytes | None:
    """The value of a variable of the firmware; None where there is none, or it can't be read.

    Source: efivarfs in the kernel's documentation; four bytes of attributes come first.
    """
    try:
        return read_file(host, f"{EFI_VARIABLES}/{name}-{guid}")[_ATTRIBUTES_BYTES:]
    except OSError:
        return None


def _read_target(host: Host, entry: str) -> CapsuleTarget:
    return CapsuleTarget(
        text_of(host, f"{entry}/fw_class") or "",
        number_of(host, f"{entry}/fw_type") == _SYSTEM_FIRMWARE,
        number_of(host, f"{entry}/fw_version"),
        number_of(host, f"{entry}/last_attempt_version"),
        number_of(host, f"{entry}/last_attempt_status"),
    )
