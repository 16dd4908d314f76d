"""Dell tokens: named settings, and where a machine stores them.

There are two kinds. *Indexed I/O tokens* (SMBIOS type 0xD4) are bits of CMOS, which is accessed
through an index port and a data port. *Calling interface tokens* (type 0xDA) are stored by the BIOS
and accessed by SMI calls. RBU has two tokens: 0x005C makes the BIOS search for an update at the
next start, 0x005D cancels that.

Facts: docs/reference/smbios-and-tokens.md, S12 to S15. The check values were calculated over the
known CMOS contents of real machines, and are right for all of them (`tests/unit/test_tokens.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from enum import IntEnum

from openrbu.buffers import Buffer
from openrbu.errors import DamagedInputError
from openrbu.formats.layout import Field, Layout
from openrbu.formats.smbios import Structure, Tables, make_structure
from openrbu.ports import BANK_BYTES

ACTIVATE = 0x005C
CANCEL = 0x005D

INDEXED_IO = 0xD4
CALLING_INTERFACE = 0xDA

_BODY = 4
"""Where a structure's own fields start."""

_UNUSED = 0x0000
_END = 0xFFFF
_STRING_MASK = 0x00

_INDEXED_BODY = Layout(
    "indexed I/O tokens",
    Field("index_port", "H"),
    Field("data_port", "H"),
    Field("check_type", "B"),
    Field("check_first", "B", unit="CMOS index"),
    Field("check_last", "B", unit="CMOS index"),
    Field("check_index", "B", unit="CMOS index"),
)

_INDEXED_TOKEN = Layout(
    "indexed I/O token",
    Field("id", "H"),
    Field("location", "B", unit="CMOS index"),
    Field("and_mask", "B"),
    Field("or_value", "B"),
)

_CALLING_BODY = Layout(
    "calling interface tokens",
    Field("command_port", "H"),
    Field("command_code", "B"),
    Field("supported", "I"),
)

_CALLING_TOKEN = Layout(
    "calling interface token",
    Field("id", "H"),
    Field("location", "H"),
    Field("value", "H"),
)


class CheckType(IntEnum):
    """How the check value over a range of CMOS is calculated."""

    WORD_SUM = 0
    BYTE_SUM = 1
    CRC = 2
    NEGATED_WORD_SUM = 3


_WRONG_CHECK_HANDLE = 0xD402

_WORD_SUM_SYSTEMS = frozenset(
    (0x0134, 0x0141, 0x0135, 0x011B, 0x8012, 0x0124, 0x014A, 0x0123, 0x0121, 0x0106, 0x0109)
)
"""Systems whose structure 0xD402 says 3 and means 0."""

_BYTE_SUM_SYSTEMS = frozenset((0x008E,))
"""Systems whose structure 0xD402 says 3 and means 1."""


def effective_check_type(declared: int, structure_handle: int, system_id: int | None) -> int:
    """The check type that a system really uses; the tables of some systems have a wrong one."""
    if structure_handle == _WRONG_CHECK_HANDLE and declared == CheckType.NEGATED_WORD_SUM:
        if system_id in _WORD_SUM_SYSTEMS:
            return CheckType.WORD_SUM
        if system_id in _BYTE_SUM_SYSTEMS:
            return CheckType.BYTE_SUM
    return declared


def check_value(check_type: int, data: bytes) -> bytes:
    """The check value over `data` as it is in CMOS: two bytes, the high one first, or one byte for
    the byte sum.

    :raise ValueError: when there is no such check type.
    """
    total = sum(data)
    match CheckType(check_type):
        case CheckType.BYTE_SUM:
            return bytes([total & 0xFF])
        case CheckType.CRC:
            total = _crc(data)
        case CheckType.NEGATED_WORD_SUM:
            total = -total
    return (total & 0xFFFF).to_bytes(2, "big")


def _crc(data: bytes) -> int:
    """A CRC-16 (0xA001, reflected) that shifts seven times for each byte, not eight times."""
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(7):
            shifted_out = value & 1
            value >>= 1
            if shifted_out:
                value = (value | 0x8000) ^ 0xA001
    return value


@dataclass(frozen=True, slots=True)
class CheckRange:
    """The CMOS indexes `first` to `last` have a check value at `index`, of a type."""

    type: int
    first: int
    last: int
    index: int

    @property
    def is_none(self) -> bool:
        """Whether there is no check value."""
        return self.first == self.last == self.index == 0

    @property
    def end(self) -> int:
        """The index after the check value."""
        return self.index + (1 if self.type == CheckType.BYTE_SUM else 2)

    @property
    def is_sound(self) -> bool:
        """Whether the check value can be calculated and is in the bank, or there is none."""
        can_be = self.type in tuple(CheckType) and self.first <= self.last
        return self.is_none or (can_be and self.end <= BANK_BYTES)


@dataclass(frozen=True, slots=True)
class IndexedIoToken:
    """A setting in CMOS: bits of the byte at index `location` of the bank of a pair of ports."""

    id: int
    index_port: int
    data_port: int
    location: int
    and_mask: int
    or_value: int
    check: CheckRange
    structure_handle: int

    @property
    def ports(self) -> tuple[int, int]:
        """Its index port and data port."""
        return self.index_port, self.data_port

    @property
    def is_string(self) -> bool:
        """Whether the token is a text, not bits: its mask is 0."""
        return self.and_mask == _STRING_MASK

    def apply(self, data: int) -> int:
        """The byte with the token active."""
        return (data & self.and_mask) | self.or_value

    def is_active(self, data: int) -> bool:
        """Whether the token is active in this byte."""
        return data & ~self.and_mask & 0xFF == self.or_value


@dataclass(frozen=True, slots=True)
class SmiToken:
    """A setting that the BIOS stores. It is active when the value at `location` is `value`."""

    id: int
    location: int
    value: int
    command_port: int
    command_code: int


Token = IndexedIoToken | SmiToken


@dataclass(frozen=True, slots=True)
class UpdateTokens:
    """The two tokens of RBU; both are of the same kind.

    `checked` has one token for each checked range in their bank: if one check value is wrong, a
    BIOS ignores all of its CMOS.
    """

    activate: Token
    cancel: Token
    checked: tuple[IndexedIoToken, ...] = ()


def all_tokens(tables: Tables) -> list[Token]:
    """All tokens of a machine, those in CMOS first."""
    found: list[Token] = []
    for structure in tables.all(INDEXED_IO):
        found.extend(_indexed_tokens(structure))
    for structure in tables.all(CALLING_INTERFACE):
        found.extend(_calling_tokens(structure))
    return found


def tokens_for_update(tables: Tables) -> UpdateTokens | None:
    """The first activate token, and the first cancel token of the same kind and behind the same
    ports; None if there are none. Texts, and tokens in a range that is not sound, do not count.
    """
    tokens = [token for token in all_tokens(tables) if _can_be_switched(token)]
    for kind in (IndexedIoToken, SmiToken):
        of_kind = [token for token in tokens if isinstance(token, kind)]
        for activate in (token for token in of_kind if token.id == ACTIVATE):
            for cancel in (token for token in of_kind if token.id == CANCEL):
                if _is_same_place(activate, cancel):
                    return UpdateTokens(activate, cancel, checked_ranges([activate, *tokens]))
    return None


def _is_same_place(one: Token, other: Token) -> bool:
    """Whether both tokens are set in the same way, in CMOS through the same ports."""
    if isinstance(one, IndexedIoToken):
        return isinstance(other, IndexedIoToken) and one.ports == other.ports
    return isinstance(other, SmiToken)


def checked_ranges(tokens: Sequence[Token]) -> tuple[IndexedIoToken, ...]:
    """One token for each checked range in the bank of the first token, that token's range first.

    If several structures name one check value, the first one counts. Real machines have two ranges
    in the first bank, 0x10 to 0x2D and one from 0x40 on, whose check values are right.
    """
    if not tokens or not isinstance(one := tokens[0], IndexedIoToken):
        return ()
    by_index: dict[int, IndexedIoToken] = {}
    for token in tokens:
        if isinstance(token, IndexedIoToken) and token.ports == one.ports:
            by_index.setdefault(token.check.index, token)
    return tuple(token for token in by_index.values() if not token.check.is_none)


def port_pairs(tables: Tables) -> tuple[tuple[int, int], ...]:
    """The index and data ports of all tokens in CMOS, each pair once."""
    tokens = all_tokens(tables)
    return tuple(
        dict.fromkeys(token.ports for token in tokens if isinstance(token, IndexedIoToken))
    )


def _can_be_switched(token: Token) -> bool:
    return isinstance(token, SmiToken) or (not token.is_string and token.check.is_sound)


def _rows(structure: Structure, body: Layout, row: Layout) -> Iterator[dict[str, int]]:
    """The whole rows after a structure's fixed fields, up to the end mark if there is one."""
    formatted = structure.formatted
    start = _BODY + body.size_bytes
    for offset in range(start, len(formatted) - row.size_bytes + 1, row.size_bytes):
        values = row.unpack(formatted, offset)
        if values["id"] == _END:
            return
        if values["id"] != _UNUSED:
            yield values


def _indexed_tokens(structure: Structure) -> Iterator[IndexedIoToken]:
    if len(structure.formatted) < _BODY + _INDEXED_BODY.size_bytes:
        return
    common = _INDEXED_BODY.unpack(structure.formatted, _BODY)
    check = CheckRange(
        common["check_type"], common["check_first"], common["check_last"], common["check_index"]
    )
    for values in _rows(structure, _INDEXED_BODY, _INDEXED_TOKEN):
        yield IndexedIoToken(
            **values,
            index_port=common["index_port"],
            data_port=common["data_port"],
            check=check,
            structure_handle=structure.handle,
        )


def _calling_tokens(structure: Structure) -> Iterator[SmiToken]:
    if len(structure.formatted) < _BODY + _CALLING_BODY.size_bytes:
        return
    common = _CALLING_BODY.unpack(structure.formatted, _BODY)
    for values in _rows(structure, _CALLING_BODY, _CALLING_TOKEN):
        yield SmiToken(
            **values, command_port=common["command_port"], command_code=common["command_code"]
        )


def make_indexed_io(
    *,
    handle: int,
    index_port: int,
    data_port: int,
    check: CheckRange,
    tokens: Sequence[tuple[int, int, int, int]],
) -> Structure:
    """A structure 0xD4; a token is (id, location, AND mask, OR value)."""
    body = _INDEXED_BODY.pack(
        index_port=index_port,
        data_port=data_port,
        check_type=check.type,
        check_first=check.first,
        check_last=check.last,
        check_index=check.index,
    )
    for token_id, location, and_mask, or_value in (*tokens, (_END, 0, 0, 0)):
        body += _INDEXED_TOKEN.pack(
            id=token_id, location=location, and_mask=and_mask, or_value=or_value
        )
    return make_structure(INDEXED_IO, handle, body)


def make_calling_interface(
    *, handle: int, port: int, code: int, supported: int, tokens: Sequence[tuple[int, int, int]]
) -> Structure:
    """A structure 0xDA; a token is (id, location, value)."""
    body = _CALLING_BODY.pack(command_port=port, command_code=code, supported=supported)
    for token_id, location, value in (*tokens, (_END, _END, 0)):
        body += _CALLING_TOKEN.pack(id=token_id, location=location, value=value)
    return make_structure(CALLING_INTERFACE, handle, body)


READ_SETTING = (0, 0)
WRITE_SETTING = (1, 0)
"""Class and select of two calls: read the setting at location arg1; write arg2 there."""

NO_REPLY = -3
"""What a caller puts into res1 before a call, as libsmbios does: a BIOS that does not reply leaves
it there. A 0 would look like success."""

SMI_CALL = Layout(
    "SMI calling interface buffer",
    Field("magic", "I", required=0x534D4931),
    Field("ebx", "I"),
    Field("ecx", "I", default=0x42534931),
    Field("command_port", "H"),
    Field("command_code", "B"),
    Field("reserved", "B"),
    Field("smi_class", "H"),
    Field("smi_select", "H"),
    Field("arguments", "I", count=4),
    Field("results", "i", count=4),
)


@dataclass(frozen=True, slots=True)
class SmiCall:
    """One call: 16 bytes for the `dcdbas` driver, 36 for the BIOS. `results` are signed."""

    command_port: int
    command_code: int
    smi_class: int
    smi_select: int
    arguments: tuple[int, ...] = (0, 0, 0, 0)
    results: tuple[int, ...] = (0, 0, 0, 0)

    @classmethod
    def unpack(cls, data: Buffer) -> SmiCall:
        """The call in a buffer.

        :raise DamagedInputError: when it is too short, or its magic is wrong.
        """
        values = SMI_CALL.unpack(data)
        wrong = SMI_CALL.violation(values)
        if wrong is not None:
            raise DamagedInputError(
                f"not an SMI call: its magic is {wrong[1]:#010x}",
                offset=0,
                expected=wrong[0].required,
                actual=wrong[1],
            )
        return cls(**{field.name: values[field.name] for field in fields(cls)})

    def pack(self) -> bytes:
        """The 52 bytes of the call."""
        return SMI_CALL.pack(**asdict(self))
