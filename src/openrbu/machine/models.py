"""The models that a virtual machine can be: identity, flash, kind of RBU, tokens.

These values are from real tables of these machines: system ID, names, the size that SMBIOS type 0
gives for the ROM, the length of the RBU structure, the ports, masks, locations and check ranges of
the tokens. The other structures of a real machine's tables are left out. The Precision T7600
differs in one point: the RBU structure of a real one does not say that it takes packets, and its
10 MiB flash is too large for a monolithic image, so it could not be updated this way. Here its
structure says that it takes packets. For the PowerEdge 2950 and the Latitude D500 no real tables
are known: theirs are made like those of machines of the same age, with what is known about the
D500's ROM and RBU structure.

The rule set of each BIOS (`bios.rules`) is that of its own code where that is known, else that of
the known code that is closest in age and kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from openrbu.errors import UsageError
from openrbu.units import GIB, KIB, MIB


class TokenKind(Enum):
    """Where a machine has the RBU tokens."""

    INDEXED_IO = "0xD4: CMOS, by port I/O"
    CALLING_INTERFACE = "0xDA: the BIOS, by SMI"


@dataclass(frozen=True, slots=True)
class Model:
    """A kind of machine.

    `packets`: whether the RBU structure says that the BIOS takes packets; None: the structure has
    13 bytes, and the BIOS takes monolithic images only. `bios_rules`: the name of its BIOS's rule
    set. `rom_size_bytes`: the size in SMBIOS type 0; None: that of the flash.
    """

    name: str
    vendor: str
    product: str
    system_id: int
    bios_version: str
    release_date: str
    flash_size_bytes: int
    ram_bytes: int
    tokens: TokenKind
    packets: bool | None
    bios_rules: str
    rom_size_bytes: int | None = None


_ALL = (
    Model(
        name="poweredge-2650",
        vendor="Dell Computer Corporation",
        product="PowerEdge 2650",
        system_id=0x0121,
        bios_version="A05",
        release_date="02/13/2003",
        flash_size_bytes=512 * KIB,
        ram_bytes=1 * GIB,
        tokens=TokenKind.INDEXED_IO,
        packets=None,
        # Of 2003 and with old-style versions, monolithic only, as the Latitude D500.
        bios_rules="latitude-d500",
    ),
    Model(
        name="precision-390",
        vendor="Dell Inc.",
        product="Precision WorkStation 390",
        system_id=0x01DE,
        bios_version="2.1.2",
        release_date="10/31/2006",
        flash_size_bytes=1 * MIB,
        ram_bytes=1 * GIB,
        tokens=TokenKind.INDEXED_IO,
        packets=True,
        # Of 2006 and with new-style versions and packets, a year after the PowerEdge 2950's.
        bios_rules="poweredge-2950",
    ),
    Model(
        name="precision-t7600",
        vendor="Dell Inc.",
        product="Precision T7600",
        system_id=0x0495,
        bios_version="A01",
        release_date="04/06/2012",
        flash_size_bytes=10 * MIB,
        ram_bytes=2 * GIB,
        tokens=TokenKind.CALLING_INTERFACE,
        packets=True,
        # Of 2012: no code of that age is known.
        bios_rules="published",
    ),
    Model(
        name="poweredge-2950",
        vendor="Dell Inc.",
        product="PowerEdge 2950",
        system_id=0x01B2,
        bios_version="0.2.7",
        release_date="11/16/2005",
        flash_size_bytes=1 * MIB,
        ram_bytes=1 * GIB,
        tokens=TokenKind.INDEXED_IO,
        packets=True,
        bios_rules="poweredge-2950",  # its own
    ),
    Model(
        name="latitude-d500",
        vendor="Dell Computer Corporation",
        product="Latitude D500",
        system_id=0x0152,
        bios_version="A08",
        release_date="01/05/2005",
        flash_size_bytes=1 * MIB,
        ram_bytes=512 * MIB,
        tokens=TokenKind.INDEXED_IO,
        packets=None,
        bios_rules="latitude-d500",  # its own
        rom_size_bytes=512 * KIB,  # the size in its SMBIOS; its BIOS's code requires 1 MiB
    ),
)

MODELS: Mapping[str, Model] = {model.name: model for model in _ALL}

DEFAULT_MODEL = "poweredge-2650"


def model(name: str) -> Model:
    """The model `name`.

    :raise UsageError: when there is no such model; the message names all models.
    """
    try:
        return MODELS[name]
    except KeyError:
        raise UsageError(f"there is no model {name!r}; there are: {', '.join(MODELS)}") from None
