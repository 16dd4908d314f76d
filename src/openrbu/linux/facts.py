"""What a Linux says about itself, each fact read when it is asked for first, and once.

A module is loaded only where the machine has what it is about: a plan needs few of them.
"""

from __future__ import annotations

import re
from functools import cached_property
from typing import TYPE_CHECKING

from openrbu.formats.lockdown import LOCKDOWN, lockdown_asked, lockdown_in
from openrbu.hosts.base import Host
from openrbu.linux.files import COMMAND_LINE, names_in, text_of
from openrbu.linux.memory import MemoryTraits, read_traits

if TYPE_CHECKING:
    from openrbu.linux.efi import Efi
    from openrbu.linux.encrypted_disks import EncryptedDisk
    from openrbu.linux.firmware_class import FirmwareRequests
    from openrbu.linux.memory_added import MemoryAdded
    from openrbu.linux.modules import Module
    from openrbu.linux.power import Supply

EFI = "/sys/firmware/efi"
SUPPLIES = "/sys/class/power_supply"
SECURITYFS = "/sys/kernel/security"
TPM = "/sys/class/tpm"


class LinuxFacts:
    """The facts of `host`."""

    def __init__(self, host: Host) -> None:
        self._host = host

    @cached_property
    def efi(self) -> Efi | None:
        """What UEFI shows; None where Linux was not started by it."""
        if not self._host.exists(EFI):
            return None
        from openrbu.linux.efi import read_efi  # noqa: PLC0415  (start-up time)

        return read_efi(self._host)

    @cached_property
    def supplies(self) -> tuple[Supply, ...] | None:
        """The machine's power supplies and batteries; None: this kernel shows none."""
        if not self._host.exists(SUPPLIES):
            return None
        from openrbu.linux.power import read_supplies  # noqa: PLC0415  (start-up time)

        return read_supplies(self._host, SUPPLIES)

    @cached_property
    def memory(self) -> MemoryTraits:
        """What this kernel does with its memory."""
        return read_traits(self._host)

    @cached_property
    def lockdown(self) -> str | None:
        """`none`, `integrity` or `confidentiality`; None where the kernel does not say it. Where
        its file can't be seen, because securityfs is not mounted: what the command line asks for.

        Source: docs/reference/platform.md, V5.
        """
        found = lockdown_in(text_of(self._host, LOCKDOWN) or "")
        if found is not None or not self.hides_lockdown:
            return found
        asked = lockdown_asked(text_of(self._host, COMMAND_LINE) or "")
        return None if asked == "none" else asked

    @cached_property
    def hides_lockdown(self) -> bool:
        """Whether securityfs, where the kernel says how far it is locked down, is not mounted: its
        directory is there, and empty."""
        if not self._host.exists(SECURITYFS) or self._host.exists(LOCKDOWN):
            return False
        return not names_in(self._host, SECURITYFS)

    @cached_property
    def memory_added(self) -> MemoryAdded | None:
        """Memory that may have come while the machine ran; None where the kernel does not say."""
        from openrbu.linux.memory_added import read_memory_added  # noqa: PLC0415  (start-up time)

        return read_memory_added(self._host)

    @cached_property
    def tpm(self) -> str | None:
        """`TPM 1.2`, `TPM 2.0`, or just `TPM` where its version can't be read; None: none is seen.

        Source: docs/reference/platform.md, V6.
        """
        for name in names_in(self._host, TPM):
            if re.fullmatch(r"tpm[0-9]+", name):
                major = text_of(self._host, f"{TPM}/{name}/tpm_version_major")
                return {"1": "TPM 1.2", "2": "TPM 2.0"}.get(major or "", "TPM")
        return None

    @cached_property
    def encrypted_disks(self) -> tuple[EncryptedDisk, ...]:
        """The encrypted block devices, and the volumes that crypttab says a TPM unlocks."""
        from openrbu.linux.encrypted_disks import read_encrypted_disks  # noqa: PLC0415  (as above)

        return read_encrypted_disks(self._host)

    @cached_property
    def rbu_module(self) -> Module:
        """The kernel's module `dell_rbu`."""
        from openrbu.linux.modules import read_module  # noqa: PLC0415  (as above)

        return read_module(self._host, "dell_rbu")

    @cached_property
    def firmware_class(self) -> FirmwareRequests:
        """How an image can be given to `dell_rbu`."""
        from openrbu.linux.firmware_class import read_firmware_class  # noqa: PLC0415  (as above)

        return read_firmware_class(self._host, "dell_rbu")


def kernel_has_none(host: Host) -> bool:
    """Whether the kernel has no `dell_rbu`, or would refuse to load it."""
    from openrbu.linux.modules import lack_of, refusal_of  # noqa: PLC0415  (start-up time)

    facts = LinuxFacts(host)
    module = facts.rbu_module
    if module.is_present:
        return False
    return lack_of(module) is not None or refusal_of(module, facts.lockdown) is not None
