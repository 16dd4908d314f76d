"""Tables and CMOS of machines that never were, in the shapes that those of real machines have.

They are beside the real ones in `rigs.systems`, so that a checkout without the real data runs the
same tests. `like` names the real machine whose shape a made one has. All values are made up; system
IDs and product names are those of the machines, because the tests compare the two.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from openrbu.formats import dell, security
from openrbu.formats.smbios import (
    END_OF_TABLE,
    Structure,
    Tables,
    make_entry_point,
    make_structure,
    make_tables,
)
from openrbu.formats.tokens import (
    ACTIVATE,
    CANCEL,
    CheckRange,
    CheckType,
    check_value,
    make_calling_interface,
    make_indexed_io,
)
from openrbu.units import KIB, MIB

_BANK_BYTES = 128
_PORTS = (0x70, 0x72)
_CMOS_BYTES = 256 * _PORTS[-1] + _BANK_BYTES

_NO_CHECK = CheckRange(0, 0, 0, 0)
_LOWER = CheckRange(CheckType.WORD_SUM, 0x10, 0x2D, 0x2E)
_UPPER = CheckRange(CheckType.NEGATED_WORD_SUM, 0x40, 0x5B, 0x6D)
_PAIR = ((ACTIVATE, 0x78, 0xBF, 0x40), (CANCEL, 0x78, 0xBF, 0x00))
_UNUSED = (0x0000, 0x00, 0x00, 0x00)
_OTHERS = ((0x0002, 0x12, 0xFE, 0x01), _UNUSED, (0x0003, 0x12, 0xFE, 0x00))
_TEXT = ((0x00C0, 0x50, 0x00, 0x08),)
"""A token that is a text: its mask is 0."""

_END = make_structure(END_OF_TABLE, 0x7F00, b"")


@dataclass(frozen=True, slots=True)
class MadeSystem:
    """A made machine. `cmos` is empty where it is not known. `is_dump`: its tables are one file, a
    dump of memory, and not two. `expected` is what is known of it from elsewhere."""

    like: str
    tables: Tables
    expected: dict[str, str]
    cmos: bytes = b""
    is_dump: bool = False

    def write(self, directory: Path) -> None:
        """Put its files into a directory, which is there."""
        entry_point, table = self.tables.build()
        if self.is_dump:
            (directory / "smbios.dat").write_bytes(entry_point + b"\0" + table)
        else:
            (directory / "smbios_entry_point").write_bytes(entry_point)
            (directory / "DMI").write_bytes(table)
        if self.cmos:
            (directory / "cmos.dat").write_bytes(self.cmos)
        (directory / "expected.json").write_text(json.dumps(self.expected))


@dataclass(frozen=True, slots=True)
class _Machine:
    """What the tables say of a machine as a whole."""

    like: str
    product: str
    system_id: int
    tag: str
    version: str = "A05"
    rom_size_bytes: int = 512 * KIB
    smbios: tuple[int, int] = (2, 3)

    def tables(
        self, structures: Sequence[Structure], *, ids: Structure | None = None, end: bool = True
    ) -> Tables:
        """Tables with these structures behind the common ones. `ids` has the system ID; None: the
        OEM strings do."""
        tagged = dell.make_oem_strings(["Dell System", f"1[{self.system_id:04X}]", "3[1.0]"])
        common = [
            dell.make_bios_information(
                vendor="Dell Inc.",
                version=self.version,
                release_date="02/13/2003",
                rom_size_bytes=self.rom_size_bytes,
            ),
            dell.make_system_information(
                vendor="Dell Inc.", product=f"{self.product}  ", service_tag=self.tag or " "
            ).with_field(8, _uuid(self.tag)),
            tagged if ids is None else ids,
        ]
        last = [_END] if end else []
        return make_tables(make_entry_point(self.smbios), [*common, *structures, *last])

    @property
    def expected(self) -> dict[str, str]:
        return {
            "system_id": f"0x{self.system_id:04X}",
            "product": self.product,
            "service_tag": self.tag,
            "bios_version": self.version,
            "vendor": "Dell Inc.",
        }


def _uuid(tag: str, *, mirrored: bool = False) -> bytes:
    """A UUID with a service tag in it: `dell` says where. `mirrored`: the tag is in reverse."""
    letters = tag.rjust(7, "\0").encode()
    letters = letters[::-1] if mirrored else letters
    uuid = bytearray(b"DELL" + bytes(12))
    uuid[10] = letters[0] | 0x80
    for place, letter in zip((4, 7, 9, 13, 14, 15), letters[1:], strict=True):
        uuid[place] = letter
    if mirrored:
        uuid[11:13] = b"\x4f\xc0"
    return bytes(uuid)


def _indexed(
    handle: int,
    check: CheckRange,
    tokens: Sequence[tuple[int, int, int, int]],
    *,
    ports: tuple[int, int] = (0x70, 0x71),
    end: str = "mark",
) -> Structure:
    """A structure 0xD4 whose list ends with its mark, with half a row, or with nothing."""
    made = make_indexed_io(
        handle=handle, index_port=ports[0], data_port=ports[1], check=check, tokens=tokens
    )
    size = len(made.formatted) - {"mark": 0, "half": 3, "none": 5}[end]
    return replace(made, formatted=made.formatted[:size]).with_field(1, bytes([size]))


def _calling(count: int, *rbu: tuple[int, int, int]) -> list[Structure]:
    """So many structures 0xDA of 36 tokens each; the tokens of RBU are in the last one."""
    structures = []
    for number in range(count):
        first = 0x0100 + 36 * number
        tokens = [(first + place, first + place, place % 3) for place in range(36)]
        if number == count - 1:
            tokens = [*tokens[:10], *rbu, *tokens[10:]]
        structures.append(
            make_calling_interface(
                handle=0xDA00 + number, port=0xB2, code=0x37, supported=0x1F, tokens=tokens
            )
        )
    return structures


def _rbu(
    *, packet: bool | None = None, code: int = dell.CompletionCode.NEVER_TRIED, when: str = ""
) -> Structure:
    """A structure 0xDE; `when` are year, month, day, hour and minute in two digits each."""
    made = dell.make_rbu(packet=packet, minimum_size_kib=449)
    return made.with_field(6, code.to_bytes(2, "little")).with_field(8, bytes.fromhex(when))


def _cmos(ranges: Sequence[tuple[int, int, CheckRange]], seed: int) -> bytes:
    """CMOS with right check values: of each range its index port, its real type, and itself. No
    update is requested in it."""
    data = bytearray(_CMOS_BYTES)
    chooser = random.Random(seed)
    for port in _PORTS:
        data[256 * port : 256 * port + _BANK_BYTES] = chooser.randbytes(_BANK_BYTES)
    data[256 * 0x70 + 0x78] &= 0xBF
    data[256 * 0x72 + 0x68] &= 0xF8
    for port, kind, check in ranges:
        start = 256 * port
        value = check_value(kind, bytes(data[start + check.first : start + check.last + 1]))
        data[start + check.index : start + check.index + len(value)] = value
    return bytes(data)


def _server(seed: int, machine: _Machine, *, wrong: int | None = None) -> MadeSystem:
    """Several structures of tokens in CMOS, and the two of RBU in one of them. `wrong`: they
    are in a structure 0xD402, which says type 3 and has this one in fact."""
    structures = [
        _indexed(0xD400, _LOWER, _OTHERS),
        _indexed(0xD403, _LOWER, _TEXT, end="none"),
        _indexed(0xD401 if wrong is None else 0xD402, _UPPER, (*_PAIR, *_TEXT), end="half"),
        # two strings, one of them odd, and a string number without a string
        make_structure(0xD8, 0xD800, b"\1\2\7\0", ["\xa9 blanks   ", "  "]),
        _rbu(),
    ]
    kind = CheckType.NEGATED_WORD_SUM if wrong is None else wrong
    cmos = _cmos([(0x70, _LOWER.type, _LOWER), (0x70, kind, _UPPER)], seed)
    return MadeSystem(
        machine.like, machine.tables(structures), machine.expected, cmos, is_dump=True
    )


def _old(machine: _Machine) -> MadeSystem:
    """The system ID is one byte of a structure of its own, the tag in the UUID is in reverse, and
    a check value is one byte."""
    ids = make_structure(dell.REVISIONS_AND_IDS, 0xD000, bytes([2, 0, machine.system_id, 0, 0, 0]))
    structures = [
        _indexed(0xD401, _LOWER, _OTHERS),
        _indexed(0xD402, _UPPER, _PAIR, end="none"),
        _rbu(),
    ]
    tables = machine.tables(structures, ids=ids)
    system = tables.structures[1]
    tables = tables.replaced(system, system.with_field(8, _uuid(machine.tag, mirrored=True)))
    cmos = _cmos([(0x70, _LOWER.type, _LOWER), (0x70, CheckType.BYTE_SUM, _UPPER)], seed=3)
    return MadeSystem(machine.like, tables, machine.expected, cmos, is_dump=True)


def _foreign(machine: _Machine) -> MadeSystem:
    """Another vendor's board: no system ID, no tag in the UUID, its tokens behind other ports, and
    no end of the table."""
    pair = ((ACTIVATE, 0x68, 0xF8, 0x02), (CANCEL, 0x68, 0xF8, 0x00))
    structures = [
        _indexed(0x007A, _NO_CHECK, pair, ports=(0x72, 0x73)),
        _rbu(code=dell.CompletionCode.IMAGE_NOT_FOUND, when="0308041417"),
    ]
    tables = machine.tables(structures, ids=dell.make_oem_strings(["Board"]), end=False)
    system = tables.structures[1]
    tables = tables.replaced(system, system.with_field(8, bytes(range(16))))
    return MadeSystem(machine.like, tables, machine.expected, _cmos([], seed=4), is_dump=True)


def _workstation(machine: _Machine) -> MadeSystem:
    """It takes packets, was updated once, and also has tokens behind an SMI."""
    structures = [
        _indexed(0xD400, _LOWER, _OTHERS),
        _indexed(0xD401, _UPPER, _PAIR),
        *_calling(2),
        make_structure(security.HARDWARE_SECURITY, 0x1800, b"\x66"),
        _rbu(packet=True, code=dell.CompletionCode.COMPLETED, when="0801311513"),
    ]
    cmos = _cmos([(0x70, _LOWER.type, _LOWER), (0x70, _UPPER.type, _UPPER)], seed=5)
    return MadeSystem(machine.like, machine.tables(structures), machine.expected, cmos)


def _packet_server(machine: _Machine) -> MadeSystem:
    """It takes packets, its flash is larger than any block of memory, and its token is in CMOS."""
    structures = [_indexed(0xD401, _NO_CHECK, _PAIR), _rbu(packet=True)]
    return MadeSystem(machine.like, machine.tables(structures), machine.expected, _cmos([], seed=9))


def _crc(machine: _Machine) -> MadeSystem:
    """One check value is a CRC, and other tokens have none."""
    check = CheckRange(CheckType.CRC, 0x40, 0x5B, 0x6D)
    structures = [
        _indexed(0xD400, _NO_CHECK, _OTHERS),
        _indexed(0xD401, check, _PAIR),
        _rbu(packet=False),
    ]
    cmos = _cmos([(0x70, check.type, check)], seed=6)
    return MadeSystem(machine.like, machine.tables(structures), machine.expected, cmos)


def _not_updatable(machine: _Machine) -> MadeSystem:
    """No structure of RBU, and no tokens of it."""
    structures = [_indexed(0xD400, _LOWER, _OTHERS)]
    cmos = _cmos([(0x70, _LOWER.type, _LOWER)], seed=7)
    return MadeSystem(machine.like, machine.tables(structures), machine.expected, cmos)


def _behind_smi(machine: _Machine, structures: int = 6) -> MadeSystem:
    """All tokens are behind an SMI, in so many structures."""
    found = [
        *_calling(structures, (ACTIVATE, 0x5C, 1), (CANCEL, 0x5D, 0)),
        security.make_hardware_security(),
        _rbu(packet=False),
    ]
    return MadeSystem(machine.like, machine.tables(found), machine.expected)


MADE: Final = {
    "made-2650": _server(1, _Machine("PE2650", "PowerEdge 2650", 0x0121, "MADE001")),
    "made-390": _workstation(
        _Machine("Precision_390", "Precision WorkStation 390", 0x01DE, "MADE002", "2.5.0")
    ),
    "made-1650": _server(
        8, _Machine("PE1650", "PowerEdge 1650", 0x011B, "MADE3"), wrong=CheckType.WORD_SUM
    ),
    "made-1300": _old(_Machine("PE1300", "PowerEdge 1300", 0x008E, "MADE4")),
    "made-8450": _foreign(
        _Machine("PE8450", "PowerEdge 8450", 0x008C, "MADE008", "MADE1.86X.0001.P01.0102030405")
    ),
    "made-4400": _not_updatable(_Machine("dimension_4400", "DIM4400", 0x0115, "MADE006")),
    "made-2600": _crc(_Machine("", "PowerEdge 2600", 0x0123, "MADE007")),
    "made-t7600": _behind_smi(
        _Machine("precisiont7600", "Precision T7600", 0x0495, "", smbios=(2, 7))
    ),
    "made-9365": _behind_smi(
        _Machine("xps9365", "XPS 13 9365", 0x077A, "MADE009", "1.0.21", 16 * MIB, smbios=(3, 0))
    ),
    "made-640": _packet_server(
        _Machine("", "PowerEdge R640", 0x0716, "MADE011", "2.2.11", 16 * MIB, smbios=(3, 2))
    ),
    "made-large": _behind_smi(
        _Machine("", "PowerEdge R640", 0x0716, "MADE010", "2.2.11", 16 * MIB, smbios=(3, 2)),
        structures=300,
    ),
}
"""By name. The last one's table has over 64 KiB, which only an entry point of version 3 allows."""
