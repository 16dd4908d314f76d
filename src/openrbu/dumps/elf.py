"""The memory in an ELF core: a dump of QEMU, of kdump, `/proc/vmcore` (docs/reference/dumps.md,
U3)."""

from __future__ import annotations

from openrbu.dumps.pieces import Piece
from openrbu.errors import DamagedInputError
from openrbu.formats import elf_core
from openrbu.formats.elf_core import Read, loadable_segments

_KERNELS_PART = {elf_core.CLASS_64: 1 << 63, elf_core.CLASS_32: 1 << 30}
"""From here on, or above, virtual addresses are the kernel's. (A kernel of 32 bits has 1, 2 or 3 of
the 4 GiB: its lowest is 0x40000000, far above that at which a program is loaded.)"""

_CLASS_AT = 4


def elf_pieces(read: Read, size_bytes: int) -> list[Piece]:
    """The memory in a core of `size_bytes`, as its segments follow each other: they may overlap.

    What a segment has in memory and not in the file is zeros.

    :raise DamagedInputError: when it is no core of that kind, gives no physical addresses, or ends
        inside of a segment.
    """
    pieces: list[Piece] = []
    kernels_part = _KERNELS_PART.get(int.from_bytes(read(_CLASS_AT, 1), "little"), 0)
    at_zero = with_address = without_address = users = 0
    for each in loadable_segments(read):
        size = max(each.file_bytes, each.memory_bytes)
        if not size:
            continue
        if each.physical_address is None:
            without_address += 1
            continue
        if each.file_bytes and each.offset + each.file_bytes > size_bytes:
            raise DamagedInputError(
                f"it is cut: the segment of {each.file_bytes} bytes at {each.physical_address:#x} "
                f"needs a file of {each.offset + each.file_bytes} bytes, and this one has "
                f"{size_bytes}"
            )
        start = each.physical_address
        with_address += 1
        at_zero += start == 0
        users += 0 < each.virtual_address < kernels_part
        if each.file_bytes:
            pieces.append(Piece(start, start + each.file_bytes, each.offset))
        if each.file_bytes < size:
            pieces.append(Piece(start + each.file_bytes, start + size, None))
    if at_zero == with_address and (at_zero > 1 or users or without_address):
        raise DamagedInputError(
            "it gives no physical addresses, as a core of a program, or of the kernel of Linux "
            "before 4.11: where in memory its bytes were can't be told"
        )
    if not pieces:
        raise DamagedInputError("it has no loadable segment, so no memory (as a core of Xen's xl)")
    return pieces
