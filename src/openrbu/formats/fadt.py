"""The reset register in the ACPI table FADT: what a kernel writes, and where, to restart.

Source: the ACPI specification, "Fixed ACPI Description Table" and "Generic Address Structure".
"""

from __future__ import annotations

from dataclasses import dataclass

from openrbu.buffers import Buffer
from openrbu.formats.layout import Field, Layout

RESET_AT = 112
"""Where this part of the table begins."""

RESET = Layout(
    "the reset register of the FADT",
    Field("flags", "I"),
    Field("space", "B"),
    Field("width", "B", unit="bit"),
    Field("shift", "B", unit="bit"),
    Field("access", "B"),
    Field("address", "Q"),
    Field("value", "B"),
)

_RESET_REG_SUP = 1 << 10
_IN_IO_SPACE = 1

RESET_CONTROL_PORT = 0xCF9
"""The reset control register of PC chipsets (Intel's datasheets call it RST_CNT)."""

_FULL_RESET = 1 << 3
"""Of that register: the reset goes with a power cycle, and memory loses its content."""


@dataclass(frozen=True, slots=True)
class ResetRegister:
    """Where the firmware wants to have which value written for a reset."""

    is_port: bool
    address: int
    value: int

    @property
    def is_reset_control(self) -> bool:
        """Whether it is the reset control register of PC chipsets."""
        return self.is_port and self.address == RESET_CONTROL_PORT

    @property
    def cycles_power(self) -> bool:
        """Whether this value is known to bring a power cycle, which clears memory."""
        return self.is_reset_control and bool(self.value & _FULL_RESET)


def parse_reset_register(table: Buffer) -> ResetRegister | None:
    """The reset register of a FADT; None where the table does not have one, as older ones."""
    if bytes(table[:4]) != b"FACP" or len(table) < RESET_AT + RESET.size_bytes:
        return None
    fields = RESET.unpack(table, RESET_AT)
    if not fields["flags"] & _RESET_REG_SUP:
        return None
    return ResetRegister(fields["space"] == _IN_IO_SPACE, fields["address"], fields["value"])
