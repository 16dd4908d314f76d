"""What a file is, by its first bytes: docs/reference/dumps.md, U1, U5 and U6.

A file that is none of these is taken for a raw dump.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

from openrbu.formats import elf_core, lime

HEAD_BYTES = 4096
"""How much of a file is needed to tell."""


class Format(Enum):
    """A format that is read; the value is its name for people and scripts."""

    RAW = "raw"
    LIME = "LiME"
    ELF = "ELF core"


@dataclass(frozen=True, slots=True)
class NotRead:
    """A format that is known and not read. `advice` says what to do instead. `has_addresses`:
    it is memory with its physical addresses, so `--offset` makes no sense for it."""

    name: str
    advice: str
    has_addresses: bool = True


PLUGIN = "vol -p examples/volatility3 -f {} rbu.RbuScan"
"""Searches a file with volatility3. What its plugin reads is tested beside it."""

_PLUGIN = f"search it with volatility3: {PLUGIN.format('FILE')}"
_VMEM = f"search the .vmem beside it with volatility3: {PLUGIN.format('NAME.vmem')}"
_AS_ELF = "dump as an uncompressed ELF core instead (makedumpfile -E)"
_AWAKE = "start it, and dump its memory"
_QEMU = "dump the guest's memory with dump-guest-memory (virsh dump --memory-only) instead"


def _packed(name: str, program: str) -> NotRead:
    return NotRead(name, f"unpack it: {program} FILE | rbu scan -", has_addresses=False)


def _other(name: str) -> NotRead:
    return NotRead(name, "it is not memory", has_addresses=False)


_NOT_READ: tuple[tuple[int, bytes, NotRead], ...] = (
    (0, b"KDUMP   ", NotRead("a compressed dump of makedumpfile", _AS_ELF)),
    (0, b"DISKDUMP", NotRead("a dump of diskdump", _AS_ELF)),
    (
        0,
        b"makedumpfile\0",
        NotRead("a flattened dump of makedumpfile", "first: makedumpfile -R NEW < FILE"),
    ),
    (0, b"AVML", NotRead("a compressed dump of AVML", "first: avml-convert FILE NEW")),
    (0, b"LiME", NotRead("a big-endian LiME dump", "no PC makes one")),
    (0, b"\xd0\xbe\xd2\xbe", NotRead("a suspended VMware machine", _VMEM)),
    (0, b"\xd1\xba\xd1\xba", NotRead("a suspended VMware machine", _VMEM)),
    (0, b"\xd2\xbe\xd2\xbe", NotRead("a snapshot of a VMware machine", _VMEM)),
    (0, b"\xd3\xbe\xd3\xbe", NotRead("a snapshot of a VMware machine", _VMEM)),
    (0, b"PAGEDUMP", NotRead("a Windows crash dump (32 bit)", _PLUGIN)),
    (0, b"PAGEDU64", NotRead("a Windows crash dump (64 bit)", _PLUGIN)),
    (0, b"MDMP", NotRead("a Windows minidump", "it has no physical memory: dump all of it")),
    *(
        (0, magic, NotRead("a hibernation file of Windows", _AWAKE))
        for magic in (b"hibr", b"HIBR", b"wake", b"WAKE", b"RSTR", b"HORM")
    ),
    (
        4086,
        b"S1SUSPEND",
        NotRead("a hibernated Linux in its swap", _AWAKE),
    ),
    (0, b"QEVM", NotRead("a saved state of QEMU (savevm, migrate)", _QEMU)),
    (0, b"LibvirtQemudSave", NotRead("a saved state of libvirt (virsh save)", _QEMU)),
    (0, b"LibvirtQemudPart", NotRead("a part of a saved state of libvirt", _QEMU)),
    (
        0,
        b"\x7fVirtualBox SavedState",
        NotRead("a saved state of VirtualBox", "dump with: VBoxManage debugvm NAME dumpvmcore"),
    ),
    (0, b"Xen saved domain", NotRead("a saved Xen guest", "restore it, and dump its memory")),
    (0, b"LibxenFmt", NotRead("a saved Xen guest", "restore it, and dump its memory")),
    (0, b"EVF\x09\r\n\xff\0", NotRead("an EnCase image", "first: ewfexport", has_addresses=False)),
    (0, b"\x04\x22\x4d\x18", _packed("an lz4 stream", "lz4 -dc")),
    (0, b"\x89LZO\0\r\n\x1a\n", _packed("an lzop stream", "lzop -dc")),
    (0, b"LZIP", _packed("an lzip stream", "lzip -dc")),
    (0, b"\xff\x06\0\0sNaPpY", _packed("a Snappy stream", "snzip -dc")),
    (0, b"\x1f\x9d", _packed("a compress stream", "zcat")),
    (0, b"PK\x03\x04", _packed("a zip archive", "unzip -p")),
    (0, b"7z\xbc\xaf\x27\x1c", _packed("a 7z archive", "7z e -so")),
    (0, b"Rar!\x1a\x07", _packed("a RAR archive", "unrar p -inul")),
    (257, b"ustar", _packed("a tar archive", "tar -xOf")),
    (0, b"QFI\xfb", _other("a disk image (qcow2)")),
    (0, b"KDMV", _other("a disk image (VMDK)")),
    (0, b"vhdxfile", _other("a disk image (VHDX)")),
)


def format_of(head: bytes) -> Format | NotRead:
    """The format of a file that begins with `head`, and is not a compressed stream."""
    for offset, magic, what in _NOT_READ:
        if head.startswith(magic, offset):
            return what
    if head.startswith(lime.MAGIC):
        return Format.LIME
    if head.startswith(elf_core.MAGIC):
        return Format.ELF
    return Format.RAW


def is_zlib(head: bytes) -> bool:
    """Whether a file begins like a zlib stream, as LiME writes one (RFC 1950, 2.2). Other bytes may
    match by chance, so it has to unpack."""
    return re.match(rb"\x78[\x01\x5e\x9c\xda]", head) is not None
