"""The power fails at any operation of a start: the machine comes up, with one BIOS or the other."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest

from openrbu.formats.dell import CompletionCode
from openrbu.units import MIB
from rigs.boards import (
    IMAGE,
    NEW,
    NEW_VERSION,
    OLD,
    OLD_VERSION,
    OTHER,
    OTHER_IMAGE,
    OTHER_VERSION,
    TOKEN_PLACES,
    Computer,
    changed,
    packets_of,
    places_for,
)

COMPLETED = CompletionCode.COMPLETED
FLASH_FAILURE = CompletionCode.FLASH_FAILURE
NOT_FOUND = CompletionCode.IMAGE_NOT_FOUND

PROGRAMMING = 6  # two blocks and a selector block, each erased and programmed
ALL = {"cmos": PROGRAMMING + 4, "checked-cmos": PROGRAMMING + 6, "smi": PROGRAMMING + 4}
"""Besides: three times NVRAM, the token, and where there is one its check value of two bytes."""

RULES = ("published", "poweredge-2950")
"""One that clears the token first, one that clears it last and has the result in CMOS too. (A
Latitude D500's does in time what `published` does.)"""

Stage = Callable[[Computer], None]


def stage_mono(computer: Computer, image: bytes = IMAGE) -> None:
    computer.put(2 * MIB, image)
    computer.arm()


def stage_packets(computer: Computer) -> None:
    packets = packets_of(IMAGE)
    computer.put_all(packets, places_for(packets))
    computer.arm()


def check_came_up(computer: Computer, staged: str = NEW_VERSION) -> None:
    """After a start that was let through: one BIOS whole, the right code, no loop."""
    bioses = {OLD_VERSION: OLD, NEW_VERSION: NEW, OTHER_VERSION: OTHER}
    assert computer.bios == bioses[computer.version]
    assert not computer.is_armed
    assert computer.cmos_is_sound
    contents = computer.nvram
    assert (contents.flashing_from, contents.is_ending) == (None, False)
    assert (contents.completion_code == COMPLETED) == (computer.version == staged)
    assert contents.completion_code in (COMPLETED, FLASH_FAILURE, NOT_FOUND)
    kept = computer.kept()
    assert not computer.start().attempted
    assert computer.kept() == kept


@pytest.mark.parametrize("stage", [stage_mono, stage_packets])
@pytest.mark.parametrize("tokens", TOKEN_PLACES)
@pytest.mark.parametrize("ram_is_lost", [True, False])
@pytest.mark.parametrize("rules", RULES)
def test_after_a_power_cut_at_any_operation_of_an_update_one_bios_is_in_force_and_the_code_says_so(
    tmp_path: Path, stage: Stage, tokens: str, ram_is_lost: bool, rules: str
) -> None:
    codes = []
    for cut_at in count(1):
        computer = Computer(tmp_path, tokens=tokens, completion_code=COMPLETED, rules=rules)
        stage(computer)
        if computer.survives(cut_at):
            break
        was_programming = computer.nvram.flashing_from is not None
        if ram_is_lost:
            computer.lose_ram()
        computer.start()
        check_came_up(computer)
        code = computer.nvram.completion_code
        assert (code != NOT_FOUND) if was_programming else (code != FLASH_FAILURE)
        codes.append(code)
    check_came_up(computer)
    assert computer.version == NEW_VERSION
    if rules == "published":
        assert len(codes) == ALL[tokens]
    if ram_is_lost:
        early = ALL[tokens] - PROGRAMMING - 1 if rules == "published" else 1
        late = len(codes) - early - PROGRAMMING
        assert late >= 1
        assert codes == [NOT_FOUND] * early + [FLASH_FAILURE] * PROGRAMMING + [COMPLETED] * late


@pytest.mark.parametrize("tokens", TOKEN_PLACES)
@pytest.mark.parametrize("rules", RULES)
def test_a_second_power_cut_in_the_start_after_the_first_does_no_more_harm(
    tmp_path: Path, tokens: str, rules: str
) -> None:
    cuts = 0
    for first in count(1):
        for second in count(1):
            computer = Computer(tmp_path, tokens=tokens, completion_code=COMPLETED, rules=rules)
            stage_mono(computer)
            if computer.survives(first):
                assert cuts > PROGRAMMING
                return
            computer.lose_ram()
            if computer.survives(second):
                break
            computer.start()
            check_came_up(computer)
            cuts += 1
        check_came_up(computer)


@pytest.mark.parametrize("ram_is_lost", [True, False])
@pytest.mark.parametrize("tokens", TOKEN_PLACES)
def test_after_a_power_cut_while_a_refusal_is_recorded_last_nothing_is_tried_for_ever(
    tmp_path: Path, tokens: str, ram_is_lost: bool
) -> None:
    refused = CompletionCode.INCONSISTENT_IMAGE
    wild = changed(packets_of(IMAGE)[0], totPkts=1)
    codes = []
    for cut_at in count(1):
        computer = Computer(tmp_path, tokens=tokens, rules="poweredge-2950")
        computer.put(2 * MIB, wild)
        computer.arm()
        if computer.survives(cut_at):
            break
        if ram_is_lost:
            computer.lose_ram()
        computer.start()
        assert not computer.is_armed
        assert computer.cmos_is_sound
        assert computer.version == OLD_VERSION
        assert not computer.start().attempted
        codes.append(computer.nvram.completion_code)
    assert computer.nvram.completion_code == refused
    assert codes == [NOT_FOUND if ram_is_lost else refused] + [refused] * (len(codes) - 1)


def test_a_power_cut_in_the_next_attempt_after_a_power_cut_does_no_more_harm(
    tmp_path: Path,
) -> None:
    versions = set()
    for first in range(1, ALL["cmos"] + 1):
        for second in count(1):
            computer = Computer(tmp_path)
            stage_mono(computer)
            assert not computer.survives(first)
            computer.start()
            check_came_up(computer)
            stage_mono(computer, OTHER_IMAGE)
            if computer.survives(second):
                break
            computer.lose_ram()
            computer.start()
            check_came_up(computer, staged=OTHER_VERSION)
            versions.add(computer.version)
        assert computer.version == OTHER_VERSION
        check_came_up(computer, staged=OTHER_VERSION)
    assert versions == {OLD_VERSION, NEW_VERSION, OTHER_VERSION}


def test_the_start_after_an_interrupted_programming_tells_what_became_of_it(
    tmp_path: Path,
) -> None:
    last = ALL["cmos"]
    for cut_at, code in ((last - 1, FLASH_FAILURE), (last, COMPLETED)):
        computer = Computer(tmp_path)
        stage_mono(computer)
        assert not computer.survives(cut_at)
        report = computer.start()
        assert report.attempted
        assert report.completion_code == code
        assert "power failed" in report.reason
        assert report.version_after == computer.version
