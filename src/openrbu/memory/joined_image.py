"""The image in a packet set that was found, and what its check words say about it."""

from __future__ import annotations

from openrbu.errors import DamagedInputError
from openrbu.formats.hdr import Image, image_at
from openrbu.formats.packet import set_id_text
from openrbu.memory.mending import MAX_JOINED_BYTES
from openrbu.memory.physical import ReadableMemory
from openrbu.memory.search_result import FoundSet
from openrbu.units import exact_size


def joined_image(memory: ReadableMemory, found: FoundSet) -> Image:
    """The image in a set, up to its check words; to the end of the last packet if these are right
    nowhere.

    :raise DamagedInputError: when a packet is missing, packets contradict each other, there is no
        image header, or the set is larger than any image. (Packets that overlap can claim any
        size.)
    """
    if found.is_usable and found.joined_size_bytes > MAX_JOINED_BYTES:
        raise DamagedInputError(
            f"packet set {set_id_text(found.set_id)}: its "
            f"{exact_size(found.joined_size_bytes)} are more than any image has"
        )
    padded = memoryview(found.assemble(memory))
    return image_at(padded) or Image.parse(padded)
