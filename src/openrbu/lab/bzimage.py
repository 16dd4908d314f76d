"""Unpack a kernel here, because an emulated guest takes half of its start for it.

A bzImage has the kernel as a compressed ELF file and unpacks it when it starts: measured under
emulation, that takes 4 to 6 seconds of 14. QEMU can start the ELF file itself, by its PVH entry.
Source for the layout of a bzImage: the kernel's document "The Linux/x86 Boot Protocol".
"""

from __future__ import annotations

import lzma
from pathlib import Path

from openrbu.system.files import write_whole
from openrbu.units import MIB

_SECTOR_BYTES = 512
_SETUP_SECTORS_AT = 0x1F1
_MAGIC_AT, _MAGIC = 0x202, b"HdrS"
_PAYLOAD_AT = 0x248
"""Two u32: the offset of the compressed kernel from the end of the setup, and its length."""

_VERSION_AT = 0x20E
"""A u16: where the text of the version is, counted from the end of the first sector."""

_ELF = b"\x7fELF"

_MOST_UNPACKED_BYTES = 256 * MIB
"""Debian's kernels have 60 to 90 MiB."""


def unpack(image: bytes) -> bytes | None:
    """The ELF file in a bzImage; None when the image has none that is packed with xz, as Debian's
    is, or it is far larger than a kernel."""
    if image[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] != _MAGIC:
        return None
    start, size = (
        int.from_bytes(image[at : at + 4], "little") for at in (_PAYLOAD_AT, _PAYLOAD_AT + 4)
    )
    setup_bytes = (image[_SETUP_SECTORS_AT] + 1) * _SECTOR_BYTES
    payload = image[setup_bytes + start : setup_bytes + start + size]
    try:  # behind the stream is its length, for the kernel's own decompressor
        unpacking = lzma.LZMADecompressor(lzma.FORMAT_XZ)
        kernel = unpacking.decompress(payload, _MOST_UNPACKED_BYTES)
    except lzma.LZMAError:
        return None
    is_whole = len(kernel) < _MOST_UNPACKED_BYTES
    return kernel if is_whole and kernel.startswith(_ELF) else None


def release_of(vmlinuz: Path) -> str | None:
    """The release of the kernel in a bzImage, as `uname -r` has it; None when it is none."""
    with vmlinuz.open("rb") as file:
        head = file.read((0xFF + 1) * _SECTOR_BYTES)  # all of the setup
    if head[_MAGIC_AT : _MAGIC_AT + len(_MAGIC)] != _MAGIC:
        return None
    start = _SECTOR_BYTES + int.from_bytes(head[_VERSION_AT : _VERSION_AT + 2], "little")
    text, end, _ = head[start:].partition(b"\0")
    words = text.decode("ascii", "replace").split()
    return words[0] if end and words else None


def unpacked(vmlinuz: Path) -> Path:
    """The file to start: the ELF file, which the first call makes beside `vmlinuz`; or `vmlinuz`
    where that is not possible."""
    elf = vmlinuz.with_name(vmlinuz.name.replace("vmlinuz", "vmlinux"))
    if elf.exists():
        return elf
    kernel = unpack(vmlinuz.read_bytes())
    if kernel is None or elf == vmlinuz:
        return vmlinuz
    try:
        write_whole(elf, kernel)
    except OSError:  # the cache is another user's, or its disk is full
        return vmlinuz
    return elf
