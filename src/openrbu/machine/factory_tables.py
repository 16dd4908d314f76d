"""A real machine's SMBIOS tables, from which a virtual machine is made.

They come in several forms: the file that `dmidecode --dump-bin` writes; the two files of
`/sys/firmware/dmi/tables`, or only the larger one, `DMI`. What a machine needs and such tables do
not have is filled in: a PowerEdge 8450's have no Dell system ID, and a BIOS version that is not in
one of Dell's styles.
"""

from __future__ import annotations

import re
from pathlib import Path

from openrbu.errors import DamagedInputError, UsageError
from openrbu.formats import dell
from openrbu.formats.smbios import Structure, Tables, parse_memory_dump, parse_structures
from openrbu.formats.version import BiosVersion, VersionStyle

ENTRY_POINT, TABLE = "smbios_entry_point", "DMI"
"""The files of `/sys/firmware/dmi/tables`."""

DUMP, CMOS = "smbios.dat", "cmos.dat"

MAX_FILE_BYTES = 16 << 20
"""Larger than any tables: those of SMBIOS 2.x have 64 KiB at most."""

MAX_SYSTEM_ID = 0xFFFF

_OEM_ID = re.compile(r"^1\[.*\]$")
"""The OEM string in which Dell's tables have the system ID."""

_UNKNOWN_DATE = "01/01/1980"


def read_tables(path: Path) -> tuple[Tables, bytes]:
    """A real machine's tables, from a file or a directory, and its CMOS (empty: unknown).

    :raise UsageError: when there are no tables, or they can't be read.
    :raise DamagedInputError: when their entry point is damaged, or they have no system information.
    """
    try:
        if not path.is_dir():
            return _of_file(_read(path), path), b""
        cmos = path / CMOS
        return _of_directory(path), _read(cmos) if cmos.exists() else b""
    except OSError as error:
        raise UsageError(f"{error.filename} can't be read: {error.strerror}") from None


def _of_directory(directory: Path) -> Tables:
    """:raise OSError: when a file can't be read. Else as `read_tables`."""
    dump, entry, table = directory / DUMP, directory / ENTRY_POINT, directory / TABLE
    if dump.exists():
        return _of_file(_read(dump), dump)
    if entry.exists():
        return Tables.parse(_read(entry), _read(table))
    if table.exists():
        return _of_file(_read(table), table)
    raise UsageError(
        f"{directory} has no SMBIOS tables: {DUMP} (what dmidecode --dump-bin writes), or "
        f"{ENTRY_POINT} and {TABLE}, or {TABLE} alone"
    )


def _of_file(data: bytes, path: Path) -> Tables:
    """Tables in one file, with or without an entry point in front."""
    if data.startswith((b"_SM_", b"_SM3_")):
        return parse_memory_dump(data)
    tables = parse_structures(data)
    if not any(found.type == dell.SYSTEM_INFORMATION for found in tables.structures):
        raise DamagedInputError(
            f"{path} has no SMBIOS tables: it does not start with an entry point, and there is no "
            "system information (type 1) in it"
        )
    return tables


def _read(path: Path) -> bytes:
    """:raise OSError: when the file can't be read."""
    with path.open("rb") as file:
        data = file.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise DamagedInputError(f"{path} is larger than any SMBIOS table")
    return data


def check_system_id(system_id: int) -> None:
    """:raise UsageError: when a system ID is 0, or has more than 16 bits."""
    if not 0 < system_id <= MAX_SYSTEM_ID:
        raise UsageError(
            f"a Dell system ID is from 0x0001 to {MAX_SYSTEM_ID:#06x}, not {system_id:#x}"
        )


def filled_in(
    tables: Tables,
    *,
    system_id: int | None,
    bios_version: str | None,
    flash_size_bytes: int | None,
) -> Tables:
    """The tables with what they lack. `system_id` replaces theirs; `bios_version` and
    `flash_size_bytes` are used only where the tables have no BIOS version.

    :raise DamagedInputError: when they have no BIOS version, and none is given.
    :raise UsageError: when they have no BIOS information and no flash size is given, or when they
        become too large for their entry point.
    """
    if system_id is not None:
        tables = _with_system_id(tables, system_id)
    information = tables.first(dell.BIOS_INFORMATION)
    if dell.BiosInformation.of(tables).version:
        return tables
    if bios_version is None:
        raise DamagedInputError(
            "the tables have no BIOS information (type 0), or no version in it: give --bios-version"
        )
    if information is not None:
        return dell.with_bios(tables, bios_version, _UNKNOWN_DATE)
    if flash_size_bytes is None:
        raise UsageError("the tables do not say how large the flash is: give --flash-size")
    fresh = dell.make_bios_information(
        vendor=dell.SystemInformation.of(tables).vendor or "unknown",
        version=bios_version,
        release_date=_UNKNOWN_DATE,
        rom_size_bytes=flash_size_bytes,
    )
    return tables.added(_with_free_handle(tables, fresh))


def _with_system_id(tables: Tables, system_id: int) -> Tables:
    """The tables with this Dell system ID: replaced wherever they have one, else added."""
    if dell.system_id(tables) == system_id:
        return tables
    for structure in tables.all(dell.OEM_STRINGS):
        texts = [structure.string(number + 1) for number in range(len(structure.strings))]
        fresh = dell.make_oem_strings([_OEM_ID.sub(f"1[{system_id:04X}]", text) for text in texts])
        tables = tables.replaced(structure, _with_handle(fresh, structure.handle))
    for structure in tables.all(dell.REVISIONS_AND_IDS):
        fresh = dell.make_revisions_and_ids(system_id)  # its other fields are not known
        tables = tables.replaced(structure, _with_handle(fresh, structure.handle))
    if dell.system_id(tables) == system_id:
        return tables
    return tables.added(_with_free_handle(tables, dell.make_revisions_and_ids(system_id)))


def _with_free_handle(tables: Tables, structure: Structure) -> Structure:
    """`structure` with a handle that no structure of the tables has: its own if that is free."""
    taken = {found.handle for found in tables.structures}
    free = (handle for handle in (structure.handle, *range(0xFEFF)) if handle not in taken)
    return _with_handle(structure, next(free))


def _with_handle(structure: Structure, handle: int) -> Structure:
    return structure.with_field(2, handle.to_bytes(2, "little"))


def lacking(tables: Tables) -> tuple[str, ...]:
    """A line for each thing that an update needs and the tables lack, with the option for it."""
    lines = []
    if dell.system_id(tables) is None:
        lines.append(
            "the tables have no Dell system ID, so no image fits the machine: --system gives one"
        )
    version = dell.BiosInformation.of(tables).version
    if BiosVersion.parse(version).style is VersionStyle.UNREADABLE:
        lines.append(
            f"the tables' BIOS version {version!r} can't be compared with an image's: "
            "--bios-version gives another"
        )
    return tuple(lines)
