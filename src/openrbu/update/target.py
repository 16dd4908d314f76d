"""What an update needs to know about its machine, read from the host's files."""

from __future__ import annotations

from dataclasses import dataclass

from openrbu.errors import NotForThisMachineError, ObstacleError
from openrbu.formats import dell
from openrbu.formats.smbios import Tables
from openrbu.formats.tokens import UpdateTokens, tokens_for_update
from openrbu.formats.version import BiosVersion
from openrbu.hosts.base import DMI_TABLE, ENTRY_POINT, Host, read_file, read_text
from openrbu.units import FLASH_UNIT_BYTES

_NAMES = "/sys/class/dmi/id"
"""What the kernel shows of SMBIOS to all users: vendor and product, and no serial numbers."""

A_VIRTUAL_ONE = "for a virtual machine: --machine NAME (rbu machine new NAME makes one)"

HYPERVISOR_PATH = "/sys/hypervisor/type"


@dataclass(frozen=True, slots=True)
class Target:
    """A machine: its system, the BIOS that it runs, and what kind of update that BIOS takes."""

    tables: Tables
    system_id: int | None
    system: dell.SystemInformation
    bios: dell.BiosInformation
    rbu: dell.RbuInformation | None
    tokens: UpdateTokens | None
    hardware_revision: int | None = None
    """The revision of the machine's hardware; None: it can't be read from here."""

    @classmethod
    def of(cls, tables: Tables, hardware_revision: int | None) -> Target:
        """The machine with these tables."""
        return cls(
            tables,
            dell.system_id(tables),
            dell.SystemInformation.of(tables),
            dell.BiosInformation.of(tables),
            dell.RbuInformation.of(tables),
            tokens_for_update(tables),
            hardware_revision,
        )

    @property
    def version(self) -> BiosVersion:
        return BiosVersion.parse(self.bios.version)

    @property
    def flash_size_bytes(self) -> int | None:
        """The size of its flash by SMBIOS type 0; None where that has no usable value."""
        size = self.bios.rom_size_bytes
        return None if size is None or size <= FLASH_UNIT_BYTES else size

    @property
    def is_dell(self) -> bool:
        """Whether this is a machine of Dell's, as far as its tables say that."""
        return self.system_id is not None or _is_dells(self.system.vendor)

    @property
    def title(self) -> str:
        """Its product name, or a text in place of an empty one."""
        return self.system.product or "a machine without a name"


def is_on_xen(host: Host) -> bool:
    """Whether this Linux is a guest of Xen, such as dom0: its page frames are not the machine's,
    and may be anywhere in the machine's memory.

    :raise ObstacleError: when the file exists and can't be read.
    """
    try:
        return host.exists(HYPERVISOR_PATH) and read_text(host, HYPERVISOR_PATH) == "xen"
    except OSError as error:
        raise ObstacleError(
            f"whether this is a guest of Xen can't be known: {HYPERVISOR_PATH} can't be read "
            f"({error.strerror})"
        ) from None


def no_dell(host: Host, vendor: str, product: str) -> NotForThisMachineError:
    """The error for a machine that is not one of Dell's: what it is, and what can be done."""
    return NotForThisMachineError(
        f"{host.name} is no Dell ({name_of(vendor, product)}), and RBU updates only those; "
        f"{A_VIRTUAL_ONE}"
    )


def name_of(vendor: str, product: str) -> str:
    """A machine by its vendor and its product, as far as its tables name them."""
    return " ".join(filter(None, (vendor, product))) or "without a name"


def _is_dells(vendor: str) -> bool:
    return "dell" in vendor.lower()


def _name_of(host: Host, file: str) -> str:
    try:
        return read_text(host, f"{_NAMES}/{file}")
    except OSError:
        return ""


def read_target(host: Host) -> Target:
    """Read the machine's SMBIOS tables.

    :raise NotForThisMachineError: when this user may not read them, and the kernel says that the
        machine is not one of Dell's.
    :raise ObstacleError: when they can't be read: no SMBIOS, or no permission.
    :raise DamagedInputError: when the entry point is broken.
    """
    try:
        tables = Tables.parse(read_file(host, ENTRY_POINT), read_file(host, DMI_TABLE))
    except FileNotFoundError:
        raise ObstacleError(
            f"{host.name} has no SMBIOS tables, so its model can't be known; {A_VIRTUAL_ONE}"
        ) from None
    except PermissionError:
        vendor, product = _name_of(host, "sys_vendor"), _name_of(host, "product_name")
        if vendor and not _is_dells(vendor):
            raise no_dell(host, vendor, product) from None
        raise ObstacleError("only root can read the SMBIOS tables: run this as root") from None
    except OSError as error:
        path = error.filename or DMI_TABLE
        raise ObstacleError(f"the SMBIOS tables can't be read: {error.strerror} ({path})") from None
    return Target.of(tables, host.hardware_revision(dell.system_id(tables)))
