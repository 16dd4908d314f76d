"""Entries with fields for the journal of systemd, by its native protocol: one datagram each.

Source: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

SOCKET = Path("/run/systemd/journal/socket")

PATIENCE_S = 5
"""Where nobody reads from the socket, its queue is full some time."""


def write_entry(fields: Mapping[str, str], path: Path = SOCKET) -> None:
    """Write an entry. The names of fields are of A-Z, 0-9 and _.

    :raise OSError: when there is no journal, or it does not take it (within `PATIENCE_S`).
    """
    data = b"".join(_field(name, value) for name, value in fields.items())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.settimeout(PATIENCE_S)
        sender.sendto(data, str(path))


def _field(name: str, value: str) -> bytes:
    """A value of several lines has its size in front (8 bytes, little endian)."""
    content = value.encode(errors="backslashreplace")
    if b"\n" not in content:
        return name.encode() + b"=" + content + b"\n"
    return name.encode() + b"\n" + len(content).to_bytes(8, "little") + content + b"\n"
