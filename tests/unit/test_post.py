"""POST: when the BIOS looks for an update at all, how it programs one, and what it records."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest

from openrbu.bios.faults import FLASH_FAULTS, MISCOMPARE, TWELVE_VOLTS_NOT_REMOVED, FlashFault
from openrbu.bios.flash import Flash
from openrbu.bios.post import ActivationToken, post
from openrbu.bios.post_report import PostReport
from openrbu.errors import MachineError
from openrbu.formats.dell import CompletionCode
from openrbu.memory.physical import PhysicalMemory, Region
from openrbu.units import MIB, PhysAddr
from rigs.boards import (
    COMPLETED,
    IMAGE,
    NEW,
    NEW_VERSION,
    NOW,
    OLD,
    OLD_VERSION,
    OTHER_IMAGE,
    PACKETS,
    STRAY,
    TOKEN_PLACES,
    Computer,
    check_recorded,
    check_took,
    scatter,
)

# -- the token ------------------------------------------------------------------------------


@pytest.mark.parametrize("tokens", [*TOKEN_PLACES, None])
def test_without_the_token_a_start_changes_no_byte_whatever_is_in_memory(
    tmp_path: Path, tokens: str | None
) -> None:
    computer = Computer(tmp_path / "computer", tokens=tokens)
    scatter(computer, *PACKETS, OTHER_IMAGE, STRAY)
    kept = computer.kept()
    assert computer.start() == PostReport(OLD_VERSION, OLD_VERSION)
    assert computer.kept() == kept


@pytest.mark.parametrize("tokens", TOKEN_PLACES)
@pytest.mark.parametrize("pieces", [[IMAGE], PACKETS], ids=["mono", "packet"])
def test_with_the_token_a_staged_image_is_taken_wherever_the_token_is_kept(
    tmp_path: Path, tokens: str, pieces: list[bytes]
) -> None:
    computer = Computer(tmp_path / "computer", tokens=tokens)
    scatter(computer, *pieces)
    check_took(computer, computer.start_armed(), "mono" if len(pieces) == 1 else "packet")


@pytest.mark.parametrize("index", [0x60, 0x6F, 0x70, 0x71])
def test_cmos_whose_check_value_is_wrong_over_the_range_of_the_token_is_not_believed(
    tmp_path: Path, index: int
) -> None:
    computer = Computer(tmp_path / "computer", tokens="checked-cmos")
    computer.put(2 * MIB, IMAGE)
    computer.arm()
    cmos = tmp_path / "computer" / "cmos"
    data = bytearray(cmos.read_bytes())
    data[256 * 0x72 + index] ^= 0x80
    cmos.write_bytes(data)
    report = computer.start()
    assert not report.attempted
    assert report.reason == (
        "in CMOS the check value over the indexes 0x60 to 0x6f is wrong: "
        "the BIOS cleared the activation token"
    )
    assert computer.version == OLD_VERSION
    assert computer.start() == PostReport(OLD_VERSION, OLD_VERSION)
    check_took(computer, computer.start_armed(), "mono")


def test_cmos_that_is_not_believed_is_dropped_whole_or_still_not_believed_after_a_power_cut(
    tmp_path: Path,
) -> None:
    """The update in memory is never taken, wherever the power fails."""
    for cut_at in count(1):
        computer = Computer(tmp_path / "computer", tokens="checked-cmos")
        computer.put(2 * MIB, IMAGE)
        computer.arm()
        cmos = tmp_path / "computer" / "cmos"
        data = bytearray(cmos.read_bytes())
        data[256 * 0x72 + 0x60 : 256 * 0x72 + 0x62] = b"\x12\x34"
        cmos.write_bytes(data)
        was_through = computer.survives(cut_at)
        assert not computer.start().attempted
        assert computer.start() == PostReport(OLD_VERSION, OLD_VERSION)
        if was_through:
            break
    assert cut_at > 2


class Watched:
    """RAM that notes whether the token was set when anything of it was looked at."""

    def __init__(self, memory: PhysicalMemory, activation: ActivationToken) -> None:
        self._memory, self._activation = memory, activation
        self.armed_at_looks: list[bool] = []

    def _look(self) -> PhysicalMemory:
        self.armed_at_looks.append(self._activation.is_armed)
        return self._memory

    @property
    def regions(self) -> tuple[Region, ...]:
        return self._look().regions

    def read(self, address: PhysAddr, size_bytes: int) -> bytes:
        return self._look().read(address, size_bytes)

    @property
    def is_mapped(self) -> bool:
        return self._look().is_mapped

    def read_into(self, address: PhysAddr, buffer: bytearray | memoryview) -> None:
        self._look().read_into(address, buffer)

    def view(self, address: PhysAddr, size_bytes: int) -> memoryview:
        return self._look().view(address, size_bytes)

    def write(self, address: PhysAddr, data: bytes | bytearray | memoryview) -> None:
        raise AssertionError("a BIOS does not write to what it searches")

    def zero(self, address: PhysAddr, size_bytes: int) -> None:
        raise AssertionError("a BIOS does not write to what it searches")

    def populated(self, start: PhysAddr, end: PhysAddr) -> Iterator[Region]:
        return self._look().populated(start, end)


@pytest.mark.parametrize("tokens", TOKEN_PLACES)
def test_the_token_is_clear_before_anything_in_memory_is_looked_at(
    tmp_path: Path, tokens: str
) -> None:
    computer = Computer(tmp_path / "computer", tokens=tokens)
    computer.put(2 * MIB, IMAGE)
    computer.arm()
    with computer.board() as board:
        assert board.activation is not None
        watched = Watched(board.memory, board.activation)
        assert post(replace(board, memory=watched), NOW).completion_code == COMPLETED
    assert watched.armed_at_looks
    assert not any(watched.armed_at_looks)


# -- the flash ------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", FLASH_FAULTS, ids=lambda fault: fault.name)
@pytest.mark.parametrize("pieces", [[IMAGE], PACKETS], ids=["mono", "packet"])
def test_each_fault_is_recorded_by_its_code_and_the_version_stays(
    tmp_path: Path, fault: FlashFault, pieces: list[bytes]
) -> None:
    computer = Computer(tmp_path / "computer", faults=[fault])
    scatter(computer, *pieces)
    report = computer.start_armed()
    assert (report.completion_code, report.reason) == (fault.code, fault.code.text)
    assert report.mode is not None
    is_new = fault is TWELVE_VOLTS_NOT_REMOVED
    assert computer.bios == (NEW if is_new else OLD)
    assert report.version_after == (NEW_VERSION if is_new else OLD_VERSION)
    check_recorded(computer, fault.code, report.version_after)


def test_once_a_fault_is_mended_the_next_attempt_gets_through(tmp_path: Path) -> None:
    faults = [MISCOMPARE]
    computer = Computer(tmp_path / "computer", faults=faults)
    computer.put(2 * MIB, IMAGE)
    assert computer.start_armed().completion_code == CompletionCode.MISCOMPARE
    faults.clear()
    check_took(computer, computer.start_armed(), "mono")


def test_the_day_of_the_flash_is_the_release_date_that_the_new_bios_has(computer: Computer) -> None:
    computer.put(2 * MIB, IMAGE)
    computer.start_armed()
    with computer.board() as board:
        assert board.flash.current.release_date == "03/04/2026"


def test_the_bios_that_is_in_force_can_be_installed_again(computer: Computer) -> None:
    computer.put(2 * MIB, IMAGE)
    computer.start_armed()
    report = computer.start_armed()
    assert report.completion_code == COMPLETED
    assert (report.version_before, report.version_after) == (NEW_VERSION, NEW_VERSION)
    assert computer.bios == NEW


def test_a_machine_without_a_whole_bios_does_not_start(computer: Computer) -> None:
    flash = computer.directory / "flash"
    flash.unlink()
    Flash.create(flash, OLD, version=OLD_VERSION, release_date="")
    data = bytearray(flash.read_bytes())
    data[0] ^= 1
    flash.write_bytes(data)
    with computer.board() as board, pytest.raises(MachineError, match="can't start"):
        post(board, NOW)
