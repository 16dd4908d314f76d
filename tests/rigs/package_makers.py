"""Packages made for tests, in the layouts that vendors' have (docs/reference/packages.md, K1)."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import lzma
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any

from openrbu.formats.hdr import SystemId, make_image
from openrbu.formats.version import BiosVersion

SCRIPT = b"#!/bin/sh\nexec tail -n +4 $0 | tar xz\n".ljust(512, b"#")


def image_of(flash_data: bytes, version: str = "A06", system: int = 0x0121) -> bytes:
    return make_image(flash_data, version=BiosVersion.parse(version), systems=[SystemId(system)])


IMAGE = image_of(bytes(range(256)) * 40)
OTHER = image_of(bytes(range(255, 0, -1)) * 40, "A07")
CUT = image_of(random.Random(1).randbytes(20_000))[:9_000]
"""Nothing in it tells where it ends."""

NOISE = random.Random(2).randbytes(3000)

GCAB_IMAGE = image_of(bytes(range(256)) * 300)
GCAB_CABINET = base64.b64decode(
    """
    TVNDRgAAAADxBQAAAAAAACwAAAAAAAAAAwEBAAIAAAAAAAAAYAAAAAMAAQAGAAAAAAAAAAAAfF1xbSAAcmVhZG1lLnR4
    dABcLAEABgAAAAAAfF1xbSAAYmlvcy5oZHIA4DtfvxYCAIBDS+3P11uNAQCA8XNCEhLJSPgaKCNHqZTRRMlqUTZJJ45O
    KiM0bWUWFRrIKKMkUvbeK4pCVGjYoygjbrrx+Ad6nve9fa9+Uk+ZTK6s62Tt6iIWiW3kvoF+3l7SAMFQIjEWbP9Owd7H
    w0D4JyuJiag+LSXR/xMrNGrcRLGpUjPl5i1aqrRSbd1Gra16u/YdOmp00uzcpaugpa2j2617Dz39nr169zHoK+lnaNTf
    2MR0gJn5wEGDh1hYWlnb2A4dNtzOfoTDyFGjx4x1dHJ2cR033s19wsRJk6dMnTZ9hsdMz1leUu/Zc2RzfeS+8/z8A+Yv
    WLgocPGSpUHBIaFh4cuWr1i5avWatRGR69Zv2Lhpc1T0lq0xsXHbtu+IT0hM2rlrd/Kevfv2p6QeOHjocFr6kYyjmceO
    Z53Izjl56vSZs+fOX7h46fKVq9eu37h56/adu/fu5z54mJf/6HFB4ZOnz4qevyguKX356nVZeUXlm7fv3n/4+Onzl69V
    1d++19T++Pnrdx1+/Pjx48ePHz9+/Pjx48ePHz9+/Pjx48ePHz9+/Pjx48ePHz9+/Pjx48ePHz9+/Pjx48ePHz9+/Pjx
    48ePHz9+/Pjx48ePHz9+/Pjx48ePHz9+/Pjx48ePHz9+/Pjx48ePHz9+/Pjx48ePHz9+/Pjx48ePHz9+/Pjx48ePHz9+
    /Pjx48ePHz9+/Pjx429I/j/QKPTt3wEAgENL7c+HIhAAAEBBkSiEREqiVCiUpqJIU1IoKatC0VSUlGSmaRRFQ2QXDZU9
    ispsURRNLYqIBgrVh7z7g0tMSr54KSX18pWr19Ku37iZnpGZlZ2Tm5dfcOt2YdGdu/eKS0rLyivuP3j46HFl1ZOn1TXP
    ntfWvXj56vWbt/Xv3n/4+Kmh8fOXpuavLa3f2tq///j5q6Oz6/ef7p7evwJ9BIX6CvcTEe0/QExcYqCklPQgmcGyckPk
    hw5TGK44Qkl55CiV0WPGqqqpjxuvoak1YaL2pMlTpk6brjNjpq7erNn6BnMM586bv2DhIqPFxktMli4zNTNfvsJipeWq
    1VbWNrZ2a9aus3dwXL/ByXnjps1btm5z2b7D1W3nLvfdHnv2eu7z2u/t4+vnH3Ag8OChw0eOHgsKDgk9fiIs/OSpiMjT
    Z86eizofHXMhNi4+IZE/f/78+fPnz58/f/78+fPnz58/f/78+fPnz58/f/78+fPnz58/f/78+fPnz58/f/78+fPnz58/
    f/78+fPnz58/f/78+fPnz58/f/78+fPnz58/f/78+fPnz58/f/78+fPnz58/f/78+fPnz58/f/78+fPnz58/f/78+fPn
    z58/f/78+fPnz58/f/78+fP///8HyA5o5YQBYixDS1u2fMXKVavXrF23fsPGTZu3bN22fcfOXbv37N23/8DBQ4ePHD12
    /MTJU6fPnD13/sLFS5evXL12/cbNW7fv3L13/8HDR4+fPH32/MXLV6/fvH33/sPHT5+/fP32/cfPX7///P33n4GRiZmF
    lY2dg5OLm4eXj19AUEhYRFRMXEJSSlpGVk5eQVFJWUVVTV1DU0tbR1dP38DQyNjE1MzcwtLK2sbWzt7B0cnZxdXN3cPT
    y9vH188/IDAoOCQ0LDwiMio6JjYuPiExKTklNS09IzMrOyc3L7+gsKi4pLSsvKKyqrqmtq6+obGpuaW1rb2js6u7p7ev
    f8LESZOnTJ02fcbMWbPnzJ03f8HCRYuXLF026v9R/4/6f9T/o/4f9f+o/0f9P+r/Uf+P+n/U/6P+H/X/qP9H/T/q/1H/
    j/p/1P+j/h/1/6j/R/0/6v9R/4/6f9T/o/4f9f+o/0f9P+r/Uf+P+n/U/6P+H/X/qP9H/T/q/1H/j/of6P+XbMku82Q/
    bgYA
    """
)
"""What gcab 1.5 made of a small text and `GCAB_IMAGE` (`gcab -c -z`): three blocks of MSZIP."""


# -- containers -----------------------------------------------------------------------------


def tar_of(*members: tuple[str, bytes], **how: Any) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", **how) as archive:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def zip_of(*members: tuple[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return file.getvalue()


def gzip_of(content: bytes, level: int = 9) -> bytes:
    return gzip.compress(content, level, mtime=0)


def lzma_alone_of(content: bytes) -> bytes:
    return lzma.compress(content, lzma.FORMAT_ALONE)


def cabinet_of(
    *members: tuple[str, bytes],
    compression: int = 1,
    block_bytes: int = 32768,
    reserve: tuple[int, int, int] | None = None,
    compression_name: int | None = None,
) -> bytes:
    """A cabinet of one folder. `compression`: 0 stored, 1 MSZIP; `compression_name`: what it says
    that it is. `reserve`: bytes kept free in header, folder and block."""
    content = b"".join(data for _, data in members)
    blocks = []
    for start in range(0, len(content), block_bytes):
        piece = packed = content[start : start + block_bytes]
        if compression:
            window = content[max(0, start - 32768) : start]
            deflate = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=window)
            packed = b"CK" + deflate.compress(piece) + deflate.flush()
        blocks.append(_block(packed, len(piece), reserve[2] if reserve else 0))
    extra = b""
    if reserve:
        extra = struct.pack("<HBB", *reserve) + bytes(reserve[0])
    files, offset = b"", 0
    for name, data in members:
        files += struct.pack("<IIHHHH", len(data), offset, 0, 0, 0, 0x20) + name.encode() + b"\0"
        offset += len(data)
    files_at = 36 + len(extra) + 8 + (reserve[1] if reserve else 0)
    data_at = files_at + len(files)
    says = compression if compression_name is None else compression_name
    folder = struct.pack("<IHH", data_at, len(blocks), says) + bytes(reserve[1] if reserve else 0)
    body = extra + folder + files + b"".join(blocks)
    header = struct.pack(
        "<4sIIIIIBBHHHHH",
        *(b"MSCF", 0, 36 + len(body), 0, files_at, 0),
        *(3, 1, 1, len(members), 4 if reserve else 0, 0, 0),
    )
    return header + body


def _block(packed: bytes, unpacked_size: int, reserve: int) -> bytes:
    sizes = struct.pack("<HH", len(packed), unpacked_size)
    checksum = int.from_bytes(packed[len(packed) & ~3 :], "big")
    for (word,) in struct.iter_unpack("<I", sizes + packed[: len(packed) & ~3]):
        checksum ^= word
    return struct.pack("<I", checksum) + sizes + bytes(reserve) + packed


# -- programs -------------------------------------------------------------------------------


def pe_of(text: bytes = b"", *, subsystem: int = 2) -> bytes:
    """The start of a Windows program."""
    head = bytearray(1024)
    head[:2] = b"MZ"
    struct.pack_into("<I", head, 0x3C, 0x80)
    head[0x80:0x84] = b"PE\0\0"
    struct.pack_into("<H", head, 0x80 + 24 + 68, subsystem)
    return bytes(head) + text.ljust(1024, b"\0")


def elf_of(text: bytes) -> bytes:
    return b"\x7fELF\x01\x01\x01".ljust(64, b"\0") + NOISE + text + b"\0" + NOISE


# -- what packages say of themselves --------------------------------------------------------


def manifest_of(
    version: str = "A06", *, minimum: str | None = None, systems: Sequence[str] = ("0121",)
) -> str:
    """As a vendor's `package.xml`."""
    least = f' minimumVersion="{minimum}"' if minimum else ""
    models = "".join(
        f'<Model systemID="{each}" systemIDType="BIOS">'
        f'<Display lang="en"><![CDATA[{number}50]]></Display></Model>'
        for number, each in enumerate(systems, 26)
    )
    return (
        '<?xml version="1.0" encoding="utf-16"?>\n'
        f'<SoftwareComponent dateTime="2004-03-15T00:00:00-06:00" releaseDate="March 15, 2004" '
        f'vendorVersion="{version}" dellVersion="{version}" packageID="R1"{least}>'
        '<Name><Display lang="de">BIOS auf Deutsch</Display>'
        '<Display lang="en"><![CDATA[Dell Server System BIOS]]></Display></Name>'
        '<ComponentType value="BIOS"><Display lang="en"><![CDATA[BIOS]]></Display></ComponentType>'
        '<SupportedSystems><Brand key="3" prefix="PE"><Display lang="en"><![CDATA[PowerEdge]]>'
        f"</Display>{models}</Brand></SupportedSystems>"
        '<SupportedOperatingSystems><OperatingSystem osCode="LIN" minVersion="9.9"/>'
        "</SupportedOperatingSystems></SoftwareComponent>\n"
    )


# -- the layouts ----------------------------------------------------------------------------


def server_bin(
    archive: bytes, manifest: str = "", *, marker: bytes = b"#####Startofarchive#####"
) -> bytes:
    """8G to 13G servers: a script that speaks of its markers, the manifest, the archive."""
    script = b'#!/bin/sh\ngrep -an "#####Startofpackage#####" "$0"\n' + b"# more\n" * 40
    package = b""
    if manifest:
        package = b"#####Startofpackage#####\n" + manifest.encode() + b"\n"
    return script + b"exit 0\n" + package + marker + b"\n" + archive


def server_capsule(outer: bytes = CUT[:84]) -> bytes:
    """14G servers: an 84-byte header, the header of an image, LZMA with more of them in it."""
    inner = lzma_alone_of(IMAGE[:84] + bytes(4096) + IMAGE)
    return b"\x5a" * 84 + outer + inner


def uefi_capsule() -> bytes:
    guid = bytes.fromhex("edd5cb6d2de8444cbda17194199ad92a")
    body = b"\x01" * 500
    return guid + struct.pack("<III", 32, 0, 32 + len(body)) + bytes(4) + body


def precision_bin(option: bytes = b"--WriteHDRFile") -> bytes:
    """Precision workstations: a script, a line, an ELF that has the image in its own way."""
    return b"#!/bin/sh\nexit\n__ARC__\n" + gzip_of(elf_of(option))


def client_exe(image: bytes) -> bytes:
    """Clients up to 2010: the image in gzip, somewhere in the program."""
    return pe_of(b"/writehdrfile\0-writehdrfile\0/readgzfile\0") + NOISE + gzip_of(image) + NOISE


def pfs_exe() -> bytes:
    """Clients from about 2011 on: sections between a marker and a footer."""
    content = zlib.compress(b"PFS.HDR." + struct.pack("<I", 1) + NOISE)
    marker = bytes.fromhex("eeaa761becbb20f1e651")
    footer = bytes.fromhex("eeaaee8f491be8ae143790")
    section = struct.pack("<I", len(content)) + b"\xaa" + marker + b"\x5c" + content + footer
    return pe_of(b"-writehdrfile") + NOISE + section


def lvfs_cabinet() -> bytes:
    return cabinet_of(
        ("firmware.bin", uefi_capsule()),
        ("firmware.metainfo.xml", b"<?xml version='1.0'?><component type='firmware'/>"),
    )


def installshield_exe() -> bytes:
    return pe_of() + zip_of(("setup.exe", NOISE), ("data1.cab", b"ISc(" + NOISE))


def bzip2_of(content: bytes) -> bytes:
    return bz2.compress(content)
