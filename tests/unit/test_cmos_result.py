"""The result of an update in CMOS, where a rule set keeps it there, and its check value."""

from __future__ import annotations

from pathlib import Path

import pytest

from openrbu.bios.cmos_result import result_of
from openrbu.bios.faults import ERASE_FAILS
from openrbu.formats.dell import CompletionCode
from openrbu.units import MIB
from rigs.boards import (
    COMPLETED,
    IMAGE,
    NOT_FOUND,
    NOW,
    TOKEN_PLACES,
    Computer,
    changed,
    packets_of,
)

RULES = "poweredge-2950"
BCD_DATE = bytes.fromhex("26 03 04 05")


def result_bits(computer: Computer) -> int:
    return computer.cmos_bytes(0x78)[0] >> 4 & 3


@pytest.mark.parametrize("tokens", TOKEN_PLACES)
def test_a_finished_update_is_recorded_in_cmos_as_well_and_the_token_is_clear(
    tmp_path: Path, tokens: str
) -> None:
    computer = Computer(tmp_path / "computer", tokens=tokens, rules=RULES)
    computer.put(2 * MIB, IMAGE)
    assert computer.start_armed().completion_code == COMPLETED
    assert (result_bits(computer), computer.cmos_bytes(0x50, 4)) == (0, BCD_DATE)
    assert not computer.is_armed
    assert computer.cmos_is_sound
    assert NOW.strftime("%y %m %d %H") == BCD_DATE.hex(" ")


def test_an_update_that_was_not_found_is_a_3_and_one_that_failed_is_a_2(tmp_path: Path) -> None:
    computer = Computer(tmp_path / "none", rules=RULES)
    assert computer.start_armed().completion_code == NOT_FOUND
    assert result_bits(computer) == 3
    wild = Computer(tmp_path / "wild", rules=RULES)
    wild.put(2 * MIB, changed(packets_of(IMAGE)[0], totPkts=1))
    assert wild.start_armed().completion_code == CompletionCode.INCONSISTENT_IMAGE
    assert result_bits(wild) == 2
    broken = Computer(tmp_path / "broken", faults=[ERASE_FAILS], rules=RULES)
    broken.put(2 * MIB, IMAGE)
    assert broken.start_armed().completion_code == CompletionCode.ERASE_FAILED
    assert result_bits(broken) == 2
    assert all(each.cmos_is_sound and not each.is_armed for each in (computer, wild, broken))


def test_the_other_bits_of_the_byte_stay_as_they_are(tmp_path: Path) -> None:
    computer = Computer(tmp_path / "computer", rules=RULES)
    cmos = computer.directory / "cmos"
    data = bytearray(cmos.read_bytes())
    data[256 * 0x70 + 0x78] = 0x8F
    cmos.write_bytes(data)
    assert computer.start_armed().completion_code == NOT_FOUND
    assert computer.cmos_bytes(0x78) == b"\xbf"


@pytest.mark.parametrize("rules", ["published", "latitude-d500"])
def test_other_rule_sets_leave_those_bytes_alone(tmp_path: Path, rules: str) -> None:
    computer = Computer(tmp_path / "computer", rules=rules)
    assert computer.start_armed().completion_code == NOT_FOUND
    assert (computer.cmos_bytes(0x78), computer.cmos_bytes(0x50, 4)) == (b"\0", bytes(4))


def test_each_completion_code_has_its_two_bits() -> None:
    told = {code.name: result_of(code) for code in CompletionCode}
    assert told.pop("COMPLETED") == 0
    assert told.pop("IMAGE_NOT_FOUND") == 3
    assert set(told.values()) == {2}
