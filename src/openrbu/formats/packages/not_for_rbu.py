"""What a file is that holds no image which can be read here, and what to do instead.

The signs are those of the package table (docs/reference/packages.md, K1 and K3), of UEFI's
specification (capsules, firmware volumes, the subsystem of an EFI program), and of the formats' own
magics. They are looked at only where no image was found.
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


class Why(Enum):
    """Why no image comes out of a file."""

    NOTHING_FOR_RBU = "nothing_for_rbu"
    """What is in it is installed in another way."""

    NOT_READ_HERE = "not_read_here"
    """It may hold an image, which its own program, or another one, can get out."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of file: `what` it is and what to do. `name` is for scripts."""

    name: str
    why: Why
    what: str
    advice: str

    def __str__(self) -> str:
        return f"{self.what}: {self.advice}"


CAPSULE = Kind(
    "capsule",
    Why.NOTHING_FOR_RBU,
    "a UEFI capsule, not for RBU",
    f"{_IDRAC} on a server, fwupd on a client",
)
SERVER_CAPSULE = Kind(
    "server_capsule",
    Why.NOTHING_FOR_RBU,
    "a capsule for servers of the 14th generation and later, which is not installed by RBU",
    _IDRAC,
)
PFS = Kind(
    "dell_pfs",
    Why.NOTHING_FOR_RBU,
    "a Dell PFS package for a client of about 2011 and later, whose BIOS takes UEFI capsules and "
    "no RBU",
    _FWUPD,
)
LVFS = Kind("lvfs_cabinet", Why.NOTHING_FOR_RBU, "a cabinet for fwupd, not for RBU", _FWUPD)
THINOS = Kind(
    "xz_without_image",
    Why.NOTHING_FOR_RBU,
    "an xz archive without an RBU image, as ThinOS packages are",
    "the system that it is for installs it (ThinOS, or Wyse Management Suite)",
)
EFI_PROGRAM = Kind(
    "efi_program",
    Why.NOTHING_FOR_RBU,
    "a UEFI program, not for RBU",
    f"start it from the machine's boot menu or UEFI shell; on a server {_IDRAC}",
)
UEFI_FIRMWARE = Kind(
    "uefi_firmware",
    Why.NOTHING_FOR_RBU,
    "UEFI firmware without an RBU header",
    "get the vendor's package for RBU, or use fwupd where the machine takes capsules",
)
INSTALLSHIELD = Kind(
    "installshield_cabinet",
    Why.NOT_READ_HERE,
    "an InstallShield cabinet (data1.cab), which is not read here",
    "take it apart with unshield (a Debian package) and use the .hdr below BiosHeader",
)
CABINET_LZX = Kind(
    "cabinet_lzx",
    Why.NOT_READ_HERE,
    "a cabinet packed with LZX or Quantum, which is not read here",
    "take it apart with cabextract (a Debian package) and use the .hdr in it",
)
WRITES_HDR_LINUX = Kind(
    "writes_hdr_linux",
    Why.NOT_READ_HERE,
    "a Linux program that has the image packed in its own way",
    "run it with --WriteHDRFile, and use the .hdr that it writes",
)
WRITES_HDR_WINDOWS = Kind(
    "writes_hdr_windows",
    Why.NOT_READ_HERE,
    "a Windows or DOS program that has the image packed in its own way",
    "run it with -writehdrfile, and use the .hdr that it writes",
)

_CAPSULE_IDS = (
    bytes.fromhex("edd5cb6d2de8444cbda17194199ad92a"),  # 6DCBD5ED-E82D-4C44-BDA1-7194199AD92A
    bytes.fromhex("bd86663b760d3040b70eb5519e2fc5a0"),  # 3B6686BD-0D76-4030-B70E-B5519E2FC5A0
)
"""Firmware management, and the older firmware volume capsule (UEFI specification, PI 1.0)."""

_PFS_SIGNS = rb"\xee\xaa\x76\x1b\xec\xbb\x20\xf1\xe6\x51|PFS\.HDR\."
_WRITE_OPTION = rb"(?i:(?:w\0?r\0?i\0?t\0?e\0?h\0?d\0?r\0?f\0?i\0?l\0?e))"
_EFI_SUBSYSTEMS = range(10, 14)
_FIRMWARE_VOLUME = b"_FVH"
_FIRMWARE_VOLUME_OFFSET = 40
_LVFS_NAMES = re.compile(r".*\.metainfo\.xml", re.IGNORECASE)


def kind_of(view: memoryview) -> Kind | None:
    """What a file without an image is; None: nothing that is known here."""
    return next((kind for kind, is_it in _TESTS if is_it(view)), None)


def kind_of_cabinet(names: Sequence[str]) -> Kind | None:
    """What a Microsoft cabinet with files of such names is."""
    return LVFS if any(_LVFS_NAMES.fullmatch(name) for name in names) else None


def is_server_capsule(view: memoryview) -> bool:
    """An 84-byte header that is no image's, and the header of an image right behind it."""
    if bytes(view[:4]) == MAGIC:
        return False
    try:
        Header.parse(view, HEADER_SIZE_BYTES)
    except DamagedInputError:
        return False
    return True


def _is_capsule(view: memoryview) -> bool:
    """The header of UEFI's capsules: GUID, size of the header, flags, size of the whole."""
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
    return is_bare or (_is_program(view) and _has(_PFS_SIGNS, view))


def _is_efi_program(view: memoryview) -> bool:
    """By the subsystem in the optional header of a PE program."""
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


_TESTS: tuple[tuple[Kind, Callable[[memoryview], bool]], ...] = (
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
