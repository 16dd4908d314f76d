"""Tables of `docs/reference` that list what the code has: profiles, codes, models, limits."""

from __future__ import annotations

import dataclasses
import re
from enum import Enum
from pathlib import Path

import pytest

from openrbu.bios.faults import FLASH_FAULTS
from openrbu.bios.rules import RULE_SETS
from openrbu.drivers.dell_rbu_profiles import PROFILES, Profile
from openrbu.drivers.xen_balloon_profiles import BALLOON_PROFILES
from openrbu.formats.dell import CompletionCode
from openrbu.formats.packet_header import MAX_HEADER_BYTES, MAX_PACKET_BYTES, MAX_PACKETS
from openrbu.machine.models import MODELS
from openrbu.units import KIB, human_size

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def rows_of(page: str, section: str) -> list[list[str]]:
    """The cells of a section's first table, its head included; backticks are left out."""
    text = (REFERENCE / page).read_text(encoding="utf-8")
    body = re.split(r"^#{2,3} ", text.partition(f"### {section}: ")[2], maxsplit=1, flags=re.M)[0]
    lines = [line for line in re.findall(r"^\|.*\|$", body, re.M) if set(line) - set("|- ")]
    return [[cell.strip().replace("`", "") for cell in line[1:-1].split("|")] for line in lines]


def shown(field: str, value: object) -> str:
    """A profile's field as the page writes it."""
    match value:
        case None | False:
            return ""
        case True:
            return "yes"
        case Enum():
            return str(value.value)
        case int() if field.endswith(("_bytes", "below")):
            return human_size(value)
    return f"{value:,}"


def test_the_profiles_are_those_of_the_code_field_by_field() -> None:
    head, *rows = rows_of("driver-files.md", "D7")
    assert head == ["field", *PROFILES]
    texts = ("name", "summary")
    names = [field.name for field in dataclasses.fields(Profile) if field.name not in texts]
    expected = [
        [name, *(shown(name, getattr(profile, name)) for profile in PROFILES.values())]
        for name in names
    ]
    *fields, sources = rows
    assert fields == expected
    assert sources[0] == "source"
    assert all(sources)


def test_the_completion_codes_are_those_of_the_code() -> None:
    rows = rows_of("smbios-and-tokens.md", "S9")[1:]
    assert [int(row[0], 16) for row in rows] == [int(code) for code in CompletionCode]
    faults = {fault.code for fault in FLASH_FAULTS}
    assert faults <= {int(row[0], 16) for row in rows}


def test_the_rule_sets_are_those_of_the_code() -> None:
    table = rows_of("bios-rules.md", "B4")
    assert table[0][1:] == list(RULE_SETS)


def test_each_model_has_the_rule_set_that_the_page_says() -> None:
    rows = rows_of("bios-rules.md", "B7")[1:]
    assert {row[0]: row[1] for row in rows[:-1]} == {
        model.name: model.bios_rules for model in MODELS.values()
    }


def test_the_balloon_profiles_are_those_of_the_code() -> None:
    assert set(rows_of("balloon.md", "X3")[0][1:]) == set(BALLOON_PROFILES)


@pytest.mark.parametrize(
    ("what", "limit"),
    [
        ("packet", f"64 MiB; pktSize can say {human_size(MAX_PACKET_BYTES + KIB)} − 1 KiB at most"),
        ("header", f"{human_size(MAX_HEADER_BYTES)} (hdrSize 256)"),
        ("packets of a set", f"{MAX_PACKETS:,}"),
    ],
)
def test_the_limits_of_packets_are_those_of_the_code(what: str, limit: str) -> None:
    assert [row[1] for row in rows_of("packets.md", "P7") if row[0] == what] == [limit]
