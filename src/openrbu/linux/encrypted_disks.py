"""Encrypted disks, and whether a TPM unlocks them, as far as that shows without a key.

udev knows what is on a block device; where it does not run, the first sectors are read. Facts:
docs/reference/platform.md, V6.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from openrbu.hosts.base import Host
from openrbu.linux.files import names_in, number_of, text_of

CRYPTTAB = "/etc/crypttab"
_BLOCK = "/sys/class/block"
_UDEV = "/run/udev/data"

_LUKS, _BITLOCKER = b"LUKS\xba\xbe", b"-FVE-FS-"
_BITLOCKER_AT = 3
_LUKS2_JSON_AT = 4096
_MAX_HEADER_BYTES = 4 << 20
"""A LUKS2 header has at most 4 MiB."""

_HEAD_BYTES = 16
_WITHOUT_DISK = re.compile(r"(loop|ram|zram|sr|fd|nbd)[0-9]")

_MAX_PINS_DEPTH = 8


@dataclass(frozen=True, slots=True)
class EncryptedDisk:
    """`kind` is LUKS1, LUKS2 or BitLocker, or the name of the file that tells of it; `tokens` are
    the names of what unlocks it, beside passphrases. `is_readable`: its header could be read."""

    device: str
    kind: str
    tokens: tuple[str, ...] = ()
    is_readable: bool = True

    @property
    def uses_tpm(self) -> bool:
        """Whether its header says that a TPM unlocks it."""
        return any("tpm" in token for token in self.tokens)


def read_encrypted_disks(host: Host) -> tuple[EncryptedDisk, ...]:
    """The encrypted block devices of this machine, and what crypttab(5) says a TPM unlocks."""
    return (*_read_disks(host), *_in_crypttab(host))


def _in_crypttab(host: Host) -> Iterator[EncryptedDisk]:
    """The volumes that crypttab says a TPM unlocks, by their own names."""
    for line in (text_of(host, CRYPTTAB) or "").splitlines():
        name, *words = line.split() or ["#"]
        if len(words) >= 3 and not name.startswith("#"):
            options = words[2].split(",")
            if any(each.startswith("tpm2-device=") for each in options):
                yield EncryptedDisk(name, CRYPTTAB, ("tpm2-device",))


def _read_disks(host: Host) -> Iterator[EncryptedDisk]:
    for name in names_in(host, _BLOCK):
        if _WITHOUT_DISK.match(name) or not number_of(host, f"{_BLOCK}/{name}/size"):
            continue
        kind = _kind_by_udev(host, name)
        device = f"/dev/{name.replace('!', '/')}"
        disk = None if kind == "" else _read_disk(host, device)
        if disk is not None:
            yield disk
        elif kind:
            yield EncryptedDisk(device, kind, is_readable=False)


def _kind_by_udev(host: Host, name: str) -> str | None:
    """What udev's database says of a device; empty: not encrypted. None: it does not know it."""
    number = text_of(host, f"{_BLOCK}/{name}/dev")
    record = None if number is None else text_of(host, f"{_UDEV}/b{number}")
    if record is None:
        return None
    properties = dict(
        line[2:].split("=", 1)
        for line in record.splitlines()
        if line.startswith("E:") and "=" in line
    )
    kind, version = properties.get("ID_FS_TYPE", ""), properties.get("ID_FS_VERSION", "")
    if kind == "crypto_LUKS":
        return "LUKS1" if version == "1" else "LUKS2"
    return "BitLocker" if kind == "BitLocker" else ""


def _read_disk(host: Host, device: str) -> EncryptedDisk | None:
    """What the first bytes of a device say; None: it is not encrypted, or can't be read."""
    try:
        head = _start_of(host, device, _HEAD_BYTES)
        if head[_BITLOCKER_AT:].startswith(_BITLOCKER):
            return EncryptedDisk(device, "BitLocker")
        if not head.startswith(_LUKS):
            return None
        if int.from_bytes(head[6:8], "big") == 1:
            return EncryptedDisk(device, "LUKS1")
        size_bytes = min(int.from_bytes(head[8:16], "big"), _MAX_HEADER_BYTES)
        area = _start_of(host, device, size_bytes)[_LUKS2_JSON_AT:]
    except OSError:
        return None
    return EncryptedDisk(device, "LUKS2", tuple(_tokens(area)))


def _start_of(host: Host, device: str, size_bytes: int) -> bytes:
    """The first bytes of a device.

    :raise OSError: the kernel's error.
    """
    data = b""
    for chunk in host.chunks(device, max(size_bytes, 512)):
        data += chunk
        if len(data) >= size_bytes:
            break
    return data[:size_bytes]


def _tokens(area: bytes) -> Iterator[str]:
    """The types of a LUKS2 header's tokens; with those of Clevis its pins, `clevis tpm2`."""
    try:
        metadata = json.loads(area.partition(b"\0")[0])
        tokens = [each for each in metadata["tokens"].values() if isinstance(each, dict)]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return
    for token in tokens:
        kind = str(token.get("type", ""))
        if kind != "clevis":
            yield kind
            continue
        jwe = token.get("jwe")
        pins = _pins(jwe.get("protected") if isinstance(jwe, dict) else None)
        yield " ".join([kind, *sorted(set(pins))])


def _pins(protected: Any, depth: int = 0) -> Iterator[str]:
    """The pins of Clevis that a protected header of a JWE names, also within its pin `sss`."""
    if not isinstance(protected, str) or depth > _MAX_PINS_DEPTH:
        return
    try:
        header = json.loads(base64.urlsafe_b64decode(protected + "=" * (-len(protected) % 4)))
        own = header["clevis"]
        yield str(own["pin"])
        parts = own.get("sss", {}).get("jwe", [])
    except (ValueError, LookupError, TypeError, AttributeError, binascii.Error, RecursionError):
        return
    for part in parts:
        yield from _pins(str(part).partition(".")[0], depth + 1)
