"""CMOS behind its I/O ports, and the indexed I/O tokens that live there.

A token is read and set with port I/O only: the same code serves the BIOS, the tool on a virtual
machine, and the tool on a real one through `/dev/port`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from openrbu.bios.power import PowerRail
from openrbu.errors import MachineError
from openrbu.formats.tokens import (
    IndexedIoToken,
    UpdateTokens,
    check_value,
    effective_check_type,
)

INDEX_PORTS = (0x70, 0x72)
"""Index ports of a PC's CMOS banks; each one's data port is the next port."""

CMOS_FILE_BYTES = 256 * (max(INDEX_PORTS) + 1)
"""CMOS index i of index port p is kept at offset 256·p + i."""


class IoPorts(Protocol):
    """Port I/O, a byte at a time."""

    def out8(self, port: int, value: int) -> None: ...

    def in8(self, port: int) -> int: ...


class CmosFile:
    """A machine's CMOS, kept in a file. A power cut leaves each byte old or new.

    :raise MachineError: when the file is missing or cut.
    """

    def __init__(self, path: Path, rail: PowerRail | None = None) -> None:
        self._path = path
        self._rail = rail or PowerRail()
        self._index = dict.fromkeys(INDEX_PORTS, 0)
        try:
            self._bytes = bytearray(path.read_bytes())
        except FileNotFoundError:
            raise MachineError(f"the CMOS file {path} is missing") from None
        if len(self._bytes) != CMOS_FILE_BYTES:
            raise MachineError(
                f"the CMOS file {path} has {len(self._bytes)} bytes, not {CMOS_FILE_BYTES}"
            )

    def out8(self, port: int, value: int) -> None:
        """Write a port: an even one selects an index, an odd one stores a byte there."""
        if port in self._index:
            self._index[port] = value & 0xFF
        elif port - 1 in self._index:
            self._store(256 * (port - 1) + self._index[port - 1], value & 0xFF)

    def in8(self, port: int) -> int:
        """Read a port; one with nothing behind it floats high: 0xFF."""
        if port - 1 in self._index:
            return self._bytes[256 * (port - 1) + self._index[port - 1]]
        return self._index.get(port, 0xFF)

    def _store(self, offset: int, value: int) -> None:
        if self._bytes[offset] == value:
            return
        if self._rail.operation():
            self._rail.fail()
        fd = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.pwrite(fd, bytes([value]), offset)
        finally:
            os.close(fd)
        self._bytes[offset] = value


def read_first_bank(ports: IoPorts, index: int) -> int:
    """The byte at `index` of the CMOS that every PC has, at ports 0x70 and 0x71."""
    ports.out8(INDEX_PORTS[0], index)
    return ports.in8(INDEX_PORTS[0] + 1)


def write_first_bank(ports: IoPorts, index: int, value: int) -> None:
    """Store a byte at `index` of the CMOS that every PC has."""
    ports.out8(INDEX_PORTS[0], index)
    ports.out8(INDEX_PORTS[0] + 1, value)


def read_indexed(ports: IoPorts, token: IndexedIoToken, index: int) -> int:
    """The CMOS byte at `index`, through the token's port pair."""
    ports.out8(token.index_port, index)
    return ports.in8(token.data_port)


def write_indexed(ports: IoPorts, token: IndexedIoToken, index: int, value: int) -> None:
    """Store a CMOS byte at `index`, through the token's port pair."""
    ports.out8(token.index_port, index)
    ports.out8(token.data_port, value)


def token_is_active(ports: IoPorts, token: IndexedIoToken) -> bool:
    """Whether the token's bits in CMOS are those that it stands for."""
    return token.is_active(read_indexed(ports, token, token.location))


def expected_check_bytes(
    ports: IoPorts, token: IndexedIoToken, system_id: int | None
) -> bytes | None:
    """What the check value over the token's range should be, as stored; None where none is kept."""
    check = token.check
    if check.is_none:
        return None
    data = bytes(read_indexed(ports, token, i) for i in range(check.first, check.last + 1))
    kind = effective_check_type(check.type, token.structure_handle, system_id)
    return check_value(kind, data)


def check_value_holds(ports: IoPorts, token: IndexedIoToken, system_id: int | None) -> bool:
    """Whether CMOS carries the check value that its bytes have (true where none is kept)."""
    expected = expected_check_bytes(ports, token, system_id)
    if expected is None:
        return True
    indexes = range(token.check.index, token.check.index + len(expected))
    return bytes(read_indexed(ports, token, index) for index in indexes) == expected


def write_check_value(ports: IoPorts, token: IndexedIoToken, system_id: int | None) -> None:
    """Bring the stored check value in line with the bytes of its range."""
    expected = expected_check_bytes(ports, token, system_id)
    for offset, value in enumerate(expected or b""):
        write_indexed(ports, token, token.check.index + offset, value)


def set_token(ports: IoPorts, token: IndexedIoToken, system_id: int | None) -> None:
    """Set a token's bits, and the check value where the byte is in a checked range."""
    old = read_indexed(ports, token, token.location)
    write_indexed(ports, token, token.location, token.apply(old))
    check = token.check
    if not check.is_none and check.first <= token.location <= check.last:
        write_check_value(ports, token, system_id)


class IndexedSwitch:
    """The activation token as a switch, where it is an indexed I/O token.

    A `suspicious` one does not believe CMOS whose check value is wrong, as a BIOS, which loads its
    defaults then; and by default no update is wanted.
    """

    def __init__(
        self,
        ports: IoPorts,
        tokens: UpdateTokens,
        system_id: int | None,
        *,
        suspicious: bool = False,
    ) -> None:
        assert isinstance(tokens.activate, IndexedIoToken)
        assert isinstance(tokens.cancel, IndexedIoToken)
        self._ports, self._system_id, self._suspicious = ports, system_id, suspicious
        self._activate, self._cancel = tokens.activate, tokens.cancel

    @property
    def is_armed(self) -> bool:
        """Whether the token is in force."""
        if self._suspicious and not check_value_holds(self._ports, self._activate, self._system_id):
            return False
        return token_is_active(self._ports, self._activate)

    def arm(self) -> None:
        set_token(self._ports, self._activate, self._system_id)

    def disarm(self) -> None:
        set_token(self._ports, self._cancel, self._system_id)
