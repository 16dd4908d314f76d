"""The 12 bytes in which a PowerEdge's BIOS keeps who the machine is: system ID and revision.

Fact (docs/reference/smbios-and-tokens.md, S11): the code of a PowerEdge 2900, 2950, 1950 and 1900
BIOS (0.2.8), run in an emulator, compares an image's system list with what stands at physical
0xFE840, ID and hardware revision. Where else BIOSes keep that is not known, so the bytes count only
where they are of the right system.
"""

from __future__ import annotations

from openrbu.buffers import Buffer
from openrbu.formats.layout import Field, Layout
from openrbu.formats.revision import MAX_REVISION

ADDRESS = 0xFE840
"""Where it is, physical: in the last 64 KiB below 1 MiB, where the running BIOS is."""

IDENTITY = Layout(
    "the BIOS's identity",
    Field("system_id", "H"),
    Field("version", "3s"),
    Field("marker", "B", required=0xFE),
    Field("revision", "B"),
    Field("rest", "5s"),
)


def revision_in(identity: Buffer, system_id: int) -> int | None:
    """The hardware revision; None: these bytes are no identity of that system."""
    if len(identity) < IDENTITY.size_bytes:
        return None
    fields = IDENTITY.unpack(identity)
    is_ours = IDENTITY.violation(fields) is None and fields["system_id"] == system_id
    revision: int = fields["revision"]
    return revision if is_ours and revision <= MAX_REVISION else None
