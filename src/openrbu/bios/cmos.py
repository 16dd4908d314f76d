"""CMOS behind its I/O ports, and the indexed I/O tokens that live there.

A token is read and set with port I/O only: the same code serves the BIOS, the tool on a virtual
machine, and the tool on a real one through `/dev/port`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from openrbu.bios.power import PowerRail
from openrbu.errors import MachineError
from openrbu.formats.smbios import Tables
from openrbu.formats.tokens import (
    CheckRange,
    IndexedIoToken,
    UpdateTokens,
    check_value,
    effective_check_type,
    port_pairs,
)

PC_PORTS = ((0x70, 0x71), (0x72, 0x73))
"""Index port and data port of the two banks of CMOS that every PC has."""

PC_BANKS = {data_port: index_port for index_port, data_port in PC_PORTS}

BANK_BYTES = 256

CMOS_FILE_BYTES = BANK_BYTES * (max(index_port for index_port, _ in PC_PORTS) + 1)
"""The size of a file with a PC's two banks: CMOS index i of index port p is at offset 256·p + i."""

_NOBODY = 0xFF
"""What a port reads as that nobody answers."""

_FIRST_SETTING = 0x0E
"""Below this a PC's first bank is its clock, of which reading one register changes others."""


def banks_of(tables: Tables) -> dict[int, int]:
    """The index port behind which each data port's bank of CMOS is: a PC's, and those that the
    tables' tokens name. Real ones name 0x70, 0x72 and 0x74, each with the next port for its data.

    A pair of which one port has the other's part in a pair before it is not there.
    """
    banks = dict(PC_BANKS)
    for index_port, data_port in port_pairs(tables):
        is_taken = index_port in banks or data_port in (index_port, *banks.values())
        if not is_taken:
            banks.setdefault(data_port, index_port)
    return banks


def cmos_file_bytes(banks: Mapping[int, int]) -> int:
    """The size of a file with these banks."""
    return BANK_BYTES * (max(banks.values()) + 1)


_MAX_READS = 16
"""A byte that changes all the time, as a clock's seconds may, has to be something."""


class IoPorts(Protocol):
    """Port I/O, a byte at a time."""

    def out8(self, port: int, value: int) -> None: ...

    def in8(self, port: int) -> int: ...


class CmosFile:
    """A machine's CMOS, kept in a file. A power cut leaves each byte old or new.

    `banks` has the index port of each data port. A file with a PC's two banks only, as machines
    made before openrbu 0.2 have it, has zeros in the others, and grows when one is written to.

    :raise MachineError: when the file is missing or cut.
    """

    def __init__(
        self, path: Path, rail: PowerRail | None = None, *, banks: Mapping[int, int] = PC_BANKS
    ) -> None:
        self._path = path
        self._rail = rail or PowerRail()
        self.banks = dict(banks)
        self._index = dict.fromkeys(self.banks.values(), 0)
        self._size_bytes = cmos_file_bytes(self.banks)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise MachineError(f"the CMOS file {path} is missing") from None
        if len(data) not in (CMOS_FILE_BYTES, self._size_bytes):
            raise MachineError(
                f"the CMOS file {path} has {len(data)} bytes, not {self._size_bytes}"
            )
        self._bytes = bytearray(data.ljust(self._size_bytes, b"\0"))

    def out8(self, port: int, value: int) -> None:
        """Write a port: an index port selects an index, a data port stores a byte there."""
        if port in self._index:
            self._index[port] = value & 0xFF
        elif port in self.banks:
            self._store(self._place(port), value & 0xFF)

    def in8(self, port: int) -> int:
        """Read a port; one with nothing behind it floats high: 0xFF."""
        if port in self._index:
            return self._index[port]
        return self._bytes[self._place(port)] if port in self.banks else 0xFF

    def _place(self, data_port: int) -> int:
        """Where in the file the byte is that is behind a data port now."""
        index_port = self.banks[data_port]
        return BANK_BYTES * index_port + self._index[index_port]

    def _store(self, offset: int, value: int) -> None:
        if self._bytes[offset] == value:
            return
        if self._rail.operation():
            self._rail.fail()
        fd = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            if os.fstat(fd).st_size < self._size_bytes:
                os.posix_fallocate(fd, 0, self._size_bytes)
            os.pwrite(fd, bytes([value]), offset)
        finally:
            os.close(fd)
        self._bytes[offset] = value


def read_first_bank(ports: IoPorts, index: int) -> int:
    """The byte at `index` of the CMOS that every PC has, at ports 0x70 and 0x71."""
    index_port, data_port = PC_PORTS[0]
    ports.out8(index_port, index)
    return ports.in8(data_port)


def write_first_bank(ports: IoPorts, index: int, value: int) -> None:
    """Store a byte at `index` of the CMOS that every PC has."""
    index_port, data_port = PC_PORTS[0]
    ports.out8(index_port, index)
    ports.out8(data_port, value)


def read_indexed(ports: IoPorts, token: IndexedIoToken, index: int) -> int:
    """The CMOS byte at `index`, through the token's port pair: what two reads in a row agree on.

    Where a kernel's clock driver uses the same ports, single reads are another byte's now and then
    (measured on Debian's 6.1.192: 1,177 of 22,585).
    """
    before = None
    for _ in range(_MAX_READS):
        ports.out8(token.index_port, index)
        value = ports.in8(token.data_port)
        if value == before:
            break
        before = value
    return value


def write_indexed(ports: IoPorts, token: IndexedIoToken, index: int, value: int) -> None:
    """Store a CMOS byte at `index`, through the token's port pair."""
    ports.out8(token.index_port, index)
    ports.out8(token.data_port, value)


def answers(ports: IoPorts, token: IndexedIoToken) -> bool:
    """Whether anything is behind the token's port pair: what nobody answers reads as all ones.

    As few bytes are read as it takes.
    """
    if read_indexed(ports, token, token.location) != _NOBODY:
        return True
    indexes = range(_FIRST_SETTING, BANK_BYTES)
    return any(read_indexed(ports, token, index) != _NOBODY for index in indexes)


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

    A `suspicious` one does not believe CMOS with a wrong check value, as a BIOS, which loads its
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
        self._checked = tokens.checked or (tokens.activate,)

    @property
    def is_armed(self) -> bool:
        """Whether the token is in force."""
        if self._suspicious and self.wrong_checks:
            return False
        return token_is_active(self._ports, self._activate)

    @property
    def is_there(self) -> bool:
        """Whether anything answers behind the token's ports."""
        return answers(self._ports, self._activate)

    @property
    def wrong_checks(self) -> tuple[CheckRange, ...]:
        """The ranges behind the token's ports whose check value is wrong."""
        return tuple(
            token.check
            for token in self._checked
            if not check_value_holds(self._ports, token, self._system_id)
        )

    def arm(self) -> None:
        set_token(self._ports, self._activate, self._system_id)

    def disarm(self) -> None:
        set_token(self._ports, self._cancel, self._system_id)

    def mend(self) -> None:
        """Make all check values right."""
        for token in self._checked:
            write_check_value(self._ports, token, self._system_id)

    def kept_checks(self) -> Callable[[], None]:
        """What puts the check values back as they are now."""
        kept: dict[int, int] = {}
        for token in self._checked:
            size = len(expected_check_bytes(self._ports, token, self._system_id) or b"")
            for index in range(token.check.index, token.check.index + size):
                kept[index] = read_indexed(self._ports, token, index)

        def put_back() -> None:
            for index, value in kept.items():
                write_indexed(self._ports, self._activate, index, value)

        return put_back

    def drop_unbelieved(self) -> str:
        """What a BIOS does at its start about CMOS that it does not believe: no update is wanted,
        and the check values are right again. Why; empty: it believes CMOS."""
        wrong = self.wrong_checks
        if not wrong:
            return ""
        self.disarm()  # first: a power cut here leaves it unbelieved
        self.mend()
        return f"CMOS was not believed ({checks_text(wrong)}): the settings in it were dropped"


def checks_text(wrong: Sequence[CheckRange]) -> str:
    """Which check values are wrong, in words."""
    ranges = ", ".join(f"{check.first:#04x} to {check.last:#04x}" for check in wrong)
    values = "the check values" if len(wrong) > 1 else "the check value"
    verb = "are" if len(wrong) > 1 else "is"
    return f"{values} over the indexes {ranges} {verb} wrong"
