"""Recognises files without an image that can be read here, and says what to do with them.

The signatures are those of the package table (docs/reference/packages.md, K1 and K3), of UEFI's
specification (capsules, firmware volumes, the subsystem of an EFI program), and the formats' own
magic numbers. They are checked only if no image was found.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum

from openrbu.errors import DamagedInputError
from openrbu.formats.hdr import HEADER_SIZE_BYTES, MAGIC, Header

_FWUPD = "fwupd installs it (fwupdmgr)"
_IDRAC = "iDRAC or the Lifecycle Controller installs it"


class NoImageReason(Enum):
    """Why no image was found in a file."""

    NOTHING_FOR_RBU = "nothing_for_rbu"
    """Its contents are not installed by RBU."""

    NOT_READ_HERE = "not_read_here"
    """It may have an image, but only its own program, or another one, can unpack it."""


@dataclass(frozen=True, slots=True)
class FileKind:
    """A kind of file: `what` it is and what to do. `name` is for scripts."""

    name: str
    why: NoImageReason
    what: str
    advice: str

    def __str__(self) -> str:
        return f"{self.what}: {self.advice}"


CAPSULE = FileKind(
    "capsule",
    NoImageReason.NOTHING_FOR_RBU,
    "a UEFI capsule, not for RBU",
    f"{_IDRAC} on a server, fwupd on a client",
)
SERVER_CAPSULE = FileKind(
    "server_capsule",
    NoImageReason.NOTHING_FOR_RBU,
    "a capsule for servers of the 14th generation and later, which is not installed by RBU",
    _IDRAC,
)
PFS = FileKind(
    "dell_pfs",
    NoImageReason.NOTHING_FOR_RBU,
    "a Dell PFS package for a client of about 2011 and later, whose BIOS takes UEFI capsules, not "
    "RBU",
    _FWUPD,
)
LVFS = FileKind(
    "lvfs_cabinet", NoImageReason.NOTHING_FOR_RBU, "a cabinet for fwupd, not for RBU", _FWUPD
)
THINOS = FileKind(
    "xz_without_image",
    NoImageReason.NOTHING_FOR_RBU,
    "an xz archive without an RBU image, as ThinOS packages are",
    "ThinOS itself or Wyse Management Suite installs it",
)
EFI_PROGRAM = FileKind(
    "efi_program",
    NoImageReason.NOTHING_FOR_RBU,
    "a UEFI program, not for RBU",
    f"start it from the machine's boot menu or UEFI shell; on a server {_IDRAC}",
)
UEFI_FIRMWARE = FileKind(
    "uefi_firmware",
    NoImageReason.NOTHING_FOR_RBU,
    "UEFI firmware without an RBU header",
    "use the vendor's package for RBU, or fwupd if the machine takes capsules",
)
INSTALLSHIELD = FileKind(
    "installshield_cabinet",
    NoImageReason.NOT_READ_HERE,
    "an InstallShield cabinet (data1.cab), which is not read here",
    "unpack it with unshield (a Debian package) and use the .hdr file below BiosHeader",
)
CABINET_LZX = FileKind(
    "cabinet_lzx",
    NoImageReason.NOT_READ_HERE,
    "a cabinet packed with LZX or Quantum, which is not read here",
    "unpack it with cabextract (a Debian package) and use the .hdr file in it",
)
WRITES_HDR_LINUX = FileKind(
    "writes_hdr_linux",
    NoImageReason.NOT_READ_HERE,
    "a Linux program with an image in its own packed format",
    "run it with --WriteHDRFile, and use the .hdr file that it writes",
)
WRITES_HDR_WINDOWS = FileKind(
    "writes_hdr_windows",
    NoImageReason.NOT_READ_HERE,
    "a Windows or DOS program with an image in its own packed format",
    "run it with -writehdrfile, and use the .hdr file that it writes",
)

_CAPSULE_IDS = (
    bytes.fromhex("edd5cb6d2de8444cbda17194199ad92a"),  # 6DCBD5ED-E82D-4C44-BDA1-7194199AD92A
    bytes.fromhex("bd86663b760d3040b70eb5519e2fc5a0"),  # 3B6686BD-0D76-4030-B70E-B5519E2FC5A0
)
"""The firmware management capsule, and the older firmware volume capsule (UEFI specification, PI
1.0)."""

_PFS_SIGNATURES = rb"\xee\xaa\x76\x1b\xec\xbb\x20\xf1\xe6\x51|PFS\.HDR\."
_WRITE_OPTION = rb"(?i:(?:w\0?r\0?i\0?t\0?e\0?h\0?d\0?r\0?f\0?i\0?l\0?e))"
_EFI_SUBSYSTEMS = range(10, 14)
_FIRMWARE_VOLUME = b"_FVH"
_FIRMWARE_VOLUME_OFFSET = 40
_LVFS_NAMES = re.compile(r".*\.metainfo\.xml", re.IGNORECASE)


def kind_of(view: memoryview) -> FileKind | None:
    """The kind of a file without an image; None if it is not known here."""
    return next((kind for kind, is_it in _TESTS if is_it(view)), None)


def kind_of_cabinet(names: Sequence[str]) -> FileKind | None:
    """The kind of a Microsoft cabinet with files of these names; None if it is not known here."""
    return LVFS if any(_LVFS_NAMES.fullmatch(name) for name in names) else None


def is_server_capsule(view: memoryview) -> bool:
    """Whether 84 bytes that are not an image header are directly followed by one that is."""
    if bytes(view[:4]) == MAGIC:
        return False
    try:
        Header.parse(view, HEADER_SIZE_BYTES)
    except DamagedInputError:
        return False
    return True


def _is_capsule(view: memoryview) -> bool:
    """Whether it has the header of a UEFI capsule: GUID, size of the header, flags, whole size."""
    if len(view) < 28:
        return False
    header_size, _, size = struct.unpack_from("<III", view, 16)
    if bytes(view[:16]) in _CAPSULE_IDS:
        return True
    return bool(28 <= header_size <= 4096 and header_size < size == len(view))


def _has(pattern: bytes, view: memoryview) -> bool:
    return re.search(pattern, view) is not None


def _is_program(view: memoryview) -> bool:
    return bytes(view[:2]) == b"MZ"


def _is_pfs(view: memoryview) -> bool:
    is_bare = bytes(view[:8]) == b"PFS.HDR."
    return is_bare or (_is_program(view) and _has(_PFS_SIGNATURES, view))


def _is_efi_program(view: memoryview) -> bool:
    """Whether the optional header of a PE program names a subsystem of EFI."""
    if not _is_program(view) or len(view) < 0x40:
        return False
    (start,) = struct.unpack_from("<I", view, 0x3C)
    if bytes(view[start : start + 4]) != b"PE\0\0" or len(view) < start + 24 + 70:
        return False
    (subsystem,) = struct.unpack_from("<H", view, start + 24 + 68)
    return subsystem in _EFI_SUBSYSTEMS


def _is_uefi_firmware(view: memoryview) -> bool:
    start = _FIRMWARE_VOLUME_OFFSET
    return bytes(view[start : start + 4]) == _FIRMWARE_VOLUME


_TESTS: tuple[tuple[FileKind, Callable[[memoryview], bool]], ...] = (
    (SERVER_CAPSULE, is_server_capsule),
    (CAPSULE, _is_capsule),
    (PFS, _is_pfs),
    (EFI_PROGRAM, _is_efi_program),
    (UEFI_FIRMWARE, _is_uefi_firmware),
    (INSTALLSHIELD, lambda view: bytes(view[:4]) == b"ISc("),
    (
        WRITES_HDR_LINUX,
        lambda view: bytes(view[:4]) == b"\x7fELF" and _has(_WRITE_OPTION, view),
    ),
    (WRITES_HDR_WINDOWS, lambda view: _is_program(view) and _has(_WRITE_OPTION, view)),
)
