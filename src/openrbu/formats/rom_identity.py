"""The 12 bytes in which a PowerEdge's BIOS stores the machine's system ID and hardware revision.

Fact (docs/reference/smbios-and-tokens.md, S11): the code of a PowerEdge 2900, 2950, 1950 and 1900
BIOS (0.2.8), run in an emulator, compares an image's system list with the ID and the hardware
revision at physical address 0xFE840. Where other BIOSes store them is not known, so these bytes
count only if they have the right system ID.
"""

from __future__ import annotations

from openrbu.buffers import Buffer
from openrbu.formats.layout import Field, Layout
from openrbu.formats.revision import MAX_REVISION

ADDRESS = 0xFE840
"""Its physical address: in the last 64 KiB below 1 MiB, where the running BIOS is."""

IDENTITY = Layout(
    "the BIOS's identity",
    Field("system_id", "H"),
    Field("version", "3s"),
    Field("marker", "B", required=0xFE),
    Field("revision", "B"),
    Field("rest", "5s"),
)


def revision_in(identity: Buffer, system_id: int) -> int | None:
    """The hardware revision; None if these bytes are not the identity of that system."""
    if len(identity) < IDENTITY.size_bytes:
        return None
    fields = IDENTITY.unpack(identity)
    is_ours = IDENTITY.violation(fields) is None and fields["system_id"] == system_id
    revision: int = fields["revision"]
    return revision if is_ours and revision <= MAX_REVISION else None
