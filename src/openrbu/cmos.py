"""Indexed I/O tokens: settings in CMOS, read and set with port I/O only.

The same code serves the BIOS, the tool on a virtual machine, and the tool on a real one through
`/dev/port`. Facts: docs/reference/smbios-and-tokens.md, S12, S13 and S16.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from openrbu.formats.smbios import Tables
from openrbu.formats.tokens import (
    CheckRange,
    IndexedIoToken,
    UpdateTokens,
    check_value,
    effective_check_type,
    port_pairs,
)
from openrbu.ports import BANK_BYTES, PC_BANKS, PC_PORTS, IoPorts

_ALL_ONES = 0xFF
"""What a port without a device reads as."""

_FIRST_SETTING = 0x0E
"""The indexes below this are a PC's clock in the first bank, where a read may change registers."""

_MAX_READS = 16
"""After so many reads the last one counts: a byte such as a clock's seconds may always change."""


def banks_of(tables: Tables) -> dict[int, int]:
    """The index port of each data port: a PC's two pairs, and those that the tables' tokens name.
    Real tables name 0x70, 0x72 and 0x74, each with the next port for its data.

    A pair is left out when one of its ports has the other role in an earlier pair.
    """
    banks = dict(PC_BANKS)
    for index_port, data_port in port_pairs(tables):
        is_taken = index_port in banks or data_port in (index_port, *banks.values())
        if not is_taken:
            banks.setdefault(data_port, index_port)
    return banks


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
    """The CMOS byte at `index`, through the token's port pair: the value that two reads in a row
    agree on.

    When a kernel's clock driver uses the same ports, some single reads return another byte
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


def port_responds(ports: IoPorts, token: IndexedIoToken) -> bool:
    """Whether a device responds at the token's port pair. If none does, all bytes read as 0xFF.

    It stops at the first byte that is not 0xFF.
    """
    if read_indexed(ports, token, token.location) != _ALL_ONES:
        return True
    indexes = range(_FIRST_SETTING, BANK_BYTES)
    return any(read_indexed(ports, token, index) != _ALL_ONES for index in indexes)


def token_is_active(ports: IoPorts, token: IndexedIoToken) -> bool:
    """Whether the bits in CMOS have the value that makes the token active."""
    return token.is_active(read_indexed(ports, token, token.location))


def expected_check_bytes(
    ports: IoPorts, token: IndexedIoToken, system_id: int | None
) -> bytes | None:
    """The right check value over the token's range, as stored; None if it has no check value."""
    check = token.check
    if check.is_none:
        return None
    data = bytes(read_indexed(ports, token, i) for i in range(check.first, check.last + 1))
    kind = effective_check_type(check.type, token.structure_handle, system_id)
    return check_value(kind, data)


def check_value_is_right(ports: IoPorts, token: IndexedIoToken, system_id: int | None) -> bool:
    """Whether the check value in CMOS is right for its bytes (True if there is no check value)."""
    expected = expected_check_bytes(ports, token, system_id)
    if expected is None:
        return True
    indexes = range(token.check.index, token.check.index + len(expected))
    return bytes(read_indexed(ports, token, index) for index in indexes) == expected


def write_check_value(ports: IoPorts, token: IndexedIoToken, system_id: int | None) -> None:
    """Store the right check value for the bytes of its range."""
    expected = expected_check_bytes(ports, token, system_id)
    for offset, value in enumerate(expected or b""):
        write_indexed(ports, token, token.check.index + offset, value)


def set_token(ports: IoPorts, token: IndexedIoToken, system_id: int | None) -> None:
    """Set a token's bits, and the check value if the byte is in a checked range."""
    old = read_indexed(ports, token, token.location)
    write_indexed(ports, token, token.location, token.apply(old))
    check = token.check
    if not check.is_none and check.first <= token.location <= check.last:
        write_check_value(ports, token, system_id)


class IndexedActivation:
    """The activation token, if it is an indexed I/O token.

    `checks_cmos`: whether the token counts as clear while a check value of CMOS is wrong. A BIOS
    does that: it loads its defaults then, and by default no update is requested.
    """

    def __init__(
        self,
        ports: IoPorts,
        tokens: UpdateTokens,
        system_id: int | None,
        *,
        checks_cmos: bool = False,
    ) -> None:
        assert isinstance(tokens.activate, IndexedIoToken)
        assert isinstance(tokens.cancel, IndexedIoToken)
        self._ports, self._system_id, self._checks_cmos = ports, system_id, checks_cmos
        self._activate, self._cancel = tokens.activate, tokens.cancel
        self._checked = tokens.checked or (tokens.activate,)

    @property
    def is_armed(self) -> bool:
        """Whether the token is active (and, with `checks_cmos`, all check values are right)."""
        if self._checks_cmos and self.wrong_checks:
            return False
        return token_is_active(self._ports, self._activate)

    @property
    def responds(self) -> bool:
        """Whether a device responds at the token's ports."""
        return port_responds(self._ports, self._activate)

    @property
    def wrong_checks(self) -> tuple[CheckRange, ...]:
        """The checked ranges in the token's bank whose check value is wrong."""
        return tuple(
            token.check
            for token in self._checked
            if not check_value_is_right(self._ports, token, self._system_id)
        )

    def arm(self) -> None:
        set_token(self._ports, self._activate, self._system_id)

    def disarm(self) -> None:
        set_token(self._ports, self._cancel, self._system_id)

    def repair(self) -> None:
        """Repair all check values."""
        for token in self._checked:
            write_check_value(self._ports, token, self._system_id)

    def saved_checks(self) -> Callable[[], None]:
        """A function that restores the check values as they are now."""
        kept: dict[int, int] = {}
        for token in self._checked:
            size = len(expected_check_bytes(self._ports, token, self._system_id) or b"")
            for index in range(token.check.index, token.check.index + size):
                kept[index] = read_indexed(self._ports, token, index)

        def put_back() -> None:
            for index, value in kept.items():
                write_indexed(self._ports, self._activate, index, value)

        return put_back

    def clear_if_check_is_wrong(self) -> str:
        """Do what a BIOS does at its start if a check value is wrong: clear the token and repair
        the check values. Returns the reason; empty if all are right."""
        wrong = self.wrong_checks
        if not wrong:
            return ""
        self.disarm()  # first: after a power cut here, a check value is still wrong
        self.repair()
        return f"in CMOS {checks_text(wrong)}: the BIOS cleared the activation token"


def checks_text(wrong: Sequence[CheckRange]) -> str:
    """A text that says which check values are wrong."""
    ranges = ", ".join(f"{check.first:#04x} to {check.last:#04x}" for check in wrong)
    values = "the check values" if len(wrong) > 1 else "the check value"
    verb = "are" if len(wrong) > 1 else "is"
    return f"{values} over the indexes {ranges} {verb} wrong"
