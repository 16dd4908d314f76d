"""The models that a virtual machine can be: identity, flash, kind of RBU, tokens.

What is taken from real tables of these machines: system ID, names, the size that SMBIOS type 0
gives for the ROM, the length of the RBU structure, the ports, masks, locations and check ranges of
the tokens. The rest of a real machine's tables is not there. The Precision T7600 differs in one
point: a real one's RBU structure does not claim packets, and its 10 MiB flash is too large for a
monolithic image, so that it could not be updated this way at all; ours claims packets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from openrbu.errors import UsageError
from openrbu.units import GIB, KIB, MIB


class TokenKind(Enum):
    """Where the RBU tokens are."""

    INDEXED_IO = "0xD4: CMOS, by port I/O"
    CALLING_INTERFACE = "0xDA: the BIOS, by SMI"


@dataclass(frozen=True, slots=True)
class Model:
    """A kind of machine. `packets` None: an RBU structure of 13 bytes, monolithic only."""

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
    ),
)

MODELS: Mapping[str, Model] = {model.name: model for model in _ALL}

DEFAULT_MODEL = "poweredge-2650"


def model(name: str) -> Model:
    """The model called `name`.

    :raise UsageError: when there is none; the message names them all.
    """
    try:
        return MODELS[name]
    except KeyError:
        raise UsageError(f"no model is called {name!r}; there are: {', '.join(MODELS)}") from None
