"""The SMBIOS tables of a boot: the BIOS that runs, and what became of the last update."""

from __future__ import annotations

from typing import Any

import pytest

from openrbu.bios.flash import BankRecord
from openrbu.bios.nvram import Nvram
from openrbu.bios.tables import tables_of_boot
from openrbu.errors import MachineError
from openrbu.formats import dell
from openrbu.formats.smbios import Tables, make_entry_point, make_structure, make_tables

TABLES: Tables = make_tables(
    make_entry_point(),
    [
        make_structure(dell.BIOS_INFORMATION, 0, bytes(20)),
        make_structure(dell.RBU, 0xDE00, bytes(24)),
    ],
)
WHEN = "2026-03-04T05:06:00"


def record(version: str = "A05") -> BankRecord:
    return BankRecord(1, 0, version, "03/04/2026", 0)


def test_the_bios_and_the_last_update_are_in_the_tables() -> None:
    tables = tables_of_boot(TABLES, record(), Nvram(completion_code=3, completed_at=WHEN))
    assert dell.BiosInformation.of(tables).version == "A05"
    information = dell.RbuInformation.of(tables)
    assert information is not None
    assert information.completion_code == 3
    assert information.when is not None
    assert information.when.isoformat() == WHEN


@pytest.mark.parametrize(
    "damaged",
    [
        {"completed_at": "yesterday"},
        {"completed_at": 5},
        {"completion_code": "0"},
        {"completion_code": 1 << 16},
    ],
)
def test_an_nvram_with_no_time_or_code_in_it_is_a_machine_error(damaged: dict[str, Any]) -> None:
    fields: dict[str, Any] = {"completion_code": 0, "completed_at": WHEN}
    nvram = Nvram(**fields | damaged)
    with pytest.raises(
        MachineError, match=r"nvram\.json is damaged: its time or its completion code"
    ):
        tables_of_boot(TABLES, record(), nvram)


def test_a_version_that_no_table_can_hold_is_not_laid_to_nvram() -> None:
    with pytest.raises(ValueError, match="can't be a string"):
        tables_of_boot(TABLES, record("A\0B"), Nvram(completed_at=WHEN))
