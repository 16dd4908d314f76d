"""Indexed I/O tokens: settings in CMOS, read and set.

The same code serves the BIOS and the tool, whatever the way to the bytes (`ports.Cmos`). Facts:
docs/reference/smbios-and-tokens.md, S12, S13 and S16.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from openrbu.errors import UpdateFailedError
from openrbu.formats.smbios import Tables
from openrbu.formats.tokens import (
    CheckRange,
    IndexedIoToken,
    UpdateTokens,
    check_value,
    effective_check_type,
    port_pairs,
)
from openrbu.ports import PC_BANKS, PC_PORTS, Cmos, IoPorts

_ALL_ONES = 0xFF
"""What a port without a device reads as."""

_CENTURY = 0x32
"""The index of the clock's century on most PCs: a kernel or a BIOS may set it at any time."""

_MAX_WRITES = 3
"""How often bytes are written that are not there afterwards."""


class StrayWriteError(UpdateFailedError):
    """Another byte of CMOS changed while this program wrote to CMOS. `index`: of that byte;
    `before` and `after`: its values."""

    kind = "stray_write"

    def __init__(self, index: int, before: int, after: int) -> None:
        super().__init__(
            f"the byte at index {index:#04x} of CMOS changed from {before:#04x} to {after:#04x} "
            "while the token was written: another program writes to CMOS, or it went wrong; check "
            "the BIOS's setup"
        )
        self.index, self.before, self.after = index, before, after


class NotKeptError(UpdateFailedError):
    """CMOS does not keep what is written to it. `index`: of the byte."""

    kind = "not_kept"

    def __init__(self, index: int) -> None:
        super().__init__(f"CMOS does not keep the byte at index {index:#04x}")
        self.index = index


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


def store(cmos: Cmos, changes: Mapping[int, int]) -> None:
    """Write bytes, in the order of `changes`, and compare the whole bank with how it was before.

    A byte that is not there afterwards is written again. Another byte that has changed to a value
    that was written went astray: it gets its own value back. (On ports, a kernel's clock driver may
    select another index between the two accesses.)

    :raise NotKeptError: when a byte is still not there.
    :raise StrayWriteError: when another byte has changed to another value.
    """
    before = _settings(cmos, changes)
    wanted = {**before, **changes}
    missing = dict(changes)
    for _ in range(_MAX_WRITES):
        for index, value in missing.items():
            cmos.write(index, value)
        now = _settings(cmos, changes)
        missing = {
            index: wanted[index]
            for index in wanted
            if now[index] != wanted[index] and (index in changes or index != _CENTURY)
        }
        for index in missing:
            if index not in changes and now[index] not in changes.values():
                raise StrayWriteError(index, before[index], now[index])
        if not missing:
            return
    raise NotKeptError(next(iter(missing)))


def _settings(cmos: Cmos, others: Iterable[int] = ()) -> dict[int, int]:
    """Every byte of a bank's settings, and the `others`, by index."""
    indexes = cmos.indexes
    found = dict(zip(indexes, cmos.read(indexes.start, len(indexes)), strict=True))
    return found | {index: cmos.read(index)[0] for index in others if index not in found}


def responds(cmos: Cmos, token: IndexedIoToken) -> bool:
    """Whether a device responds at the token's ports. If none does, all bytes read as 0xFF."""
    if cmos.read(token.location)[0] != _ALL_ONES:
        return True
    return any(value != _ALL_ONES for value in _settings(cmos).values())


def token_is_active(cmos: Cmos, token: IndexedIoToken) -> bool:
    """Whether the bits in CMOS have the value that makes the token active."""
    return token.is_active(cmos.read(token.location)[0])


def expected_check_bytes(
    cmos: Cmos,
    token: IndexedIoToken,
    system_id: int | None,
    changes: Mapping[int, int] | None = None,
) -> bytes | None:
    """The right check value over the token's range, as stored; None if it has no check value.
    `changes`: bytes that will be other ones."""
    check = token.check
    if check.is_none:
        return None
    data = bytearray(cmos.read(check.first, check.last - check.first + 1))
    for index, value in (changes or {}).items():
        if check.first <= index <= check.last:
            data[index - check.first] = value
    kind = effective_check_type(check.type, token.structure_handle, system_id)
    return check_value(kind, bytes(data))


def check_value_is_right(cmos: Cmos, token: IndexedIoToken, system_id: int | None) -> bool:
    """Whether the check value in CMOS is right for its bytes (True if there is no check value)."""
    expected = expected_check_bytes(cmos, token, system_id)
    if expected is None:
        return True
    return cmos.read(token.check.index, len(expected)) == expected


def write_check_value(cmos: Cmos, token: IndexedIoToken, system_id: int | None) -> None:
    """Store the right check value for the bytes of its range."""
    expected = expected_check_bytes(cmos, token, system_id) or b""
    if expected:
        store(cmos, dict(enumerate(expected, token.check.index)))


def set_token(cmos: Cmos, token: IndexedIoToken, system_id: int | None) -> None:
    """Set a token's bits, and the check value if the byte is in a checked range."""
    changes = {token.location: token.apply(cmos.read(token.location)[0])}
    check = token.check
    if not check.is_none and check.first <= token.location <= check.last:
        expected = expected_check_bytes(cmos, token, system_id, changes) or b""
        changes |= dict(enumerate(expected, check.index))
    store(cmos, changes)


def needed_indexes(tokens: UpdateTokens) -> range:
    """All indexes that the use of tokens in CMOS needs: the tokens, and the ranges whose check
    values have to be right."""
    needed = set()
    for token in (tokens.activate, tokens.cancel, *tokens.checked):
        assert isinstance(token, IndexedIoToken)
        needed.add(token.location)
        if not token.check.is_none:
            check = token.check
            needed |= {check.first, check.last, check.index, check.end - 1}
    return range(min(needed), max(needed) + 1)


class IndexedActivation:
    """The activation token, if it is an indexed I/O token. `cmos` is the bank behind its ports,
    `way` the file that leads there.

    `checks_cmos`: whether the token counts as clear while a check value of CMOS is wrong. A BIOS
    does that: it loads its defaults then, and by default no update is requested.
    """

    def __init__(
        self,
        cmos: Cmos,
        tokens: UpdateTokens,
        system_id: int | None,
        *,
        way: str = "",
        checks_cmos: bool = False,
    ) -> None:
        self.way = way
        assert isinstance(tokens.activate, IndexedIoToken)
        assert isinstance(tokens.cancel, IndexedIoToken)
        self._cmos, self._system_id, self._checks_cmos = cmos, system_id, checks_cmos
        self._activate, self._cancel = tokens.activate, tokens.cancel
        self._checked = tokens.checked or (tokens.activate,)

    @property
    def is_armed(self) -> bool:
        """Whether the token is active (and, with `checks_cmos`, all check values are right)."""
        if self._checks_cmos and self.wrong_checks:
            return False
        return token_is_active(self._cmos, self._activate)

    @property
    def responds(self) -> bool:
        """Whether a device responds at the token's ports."""
        return responds(self._cmos, self._activate)

    @property
    def check_ranges(self) -> tuple[CheckRange, ...]:
        """The checked ranges in the token's bank."""
        return tuple(token.check for token in self._checked if not token.check.is_none)

    @property
    def wrong_checks(self) -> tuple[CheckRange, ...]:
        """The checked ranges in the token's bank whose check value is wrong."""
        return tuple(
            token.check
            for token in self._checked
            if not check_value_is_right(self._cmos, token, self._system_id)
        )

    def arm(self) -> None:
        """Set the token.

        :raise NotKeptError | StrayWriteError: as `store`.
        """
        set_token(self._cmos, self._activate, self._system_id)

    def disarm(self) -> None:
        """Clear the token.

        :raise NotKeptError | StrayWriteError: as `store`.
        """
        set_token(self._cmos, self._cancel, self._system_id)

    def repair(self) -> None:
        """Repair all check values.

        :raise NotKeptError | StrayWriteError: as `store`.
        """
        for token in self._checked:
            write_check_value(self._cmos, token, self._system_id)

    def spoil(self) -> None:
        """Make all check values wrong.

        :raise NotKeptError | StrayWriteError: as `store`.
        """
        for check in self.check_ranges:
            value = self._cmos.read(check.index)[0]
            store(self._cmos, {check.index: value ^ 0xFF})

    def saved_checks(self) -> Callable[[], None]:
        """A function that restores the check values as they are now."""
        kept: dict[int, int] = {}
        for token in self._checked:
            size = len(expected_check_bytes(self._cmos, token, self._system_id) or b"")
            kept |= dict(enumerate(self._cmos.read(token.check.index, size), token.check.index))
        return lambda: store(self._cmos, kept)

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
