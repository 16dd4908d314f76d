"""Flash: erased in blocks, two banks, a selector written last; old or new, whole, at any cut."""

from __future__ import annotations

import contextlib
import random
import zlib
from collections.abc import Collection, Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openrbu.bios.faults import FLASH_FAULTS, TWELVE_VOLTS_NOT_REMOVED, FlashFault
from openrbu.bios.flash import BLOCK_BYTES, RECORD, BankRecord, Flash, FlashError, FlashFile
from openrbu.bios.power import PowerRail
from openrbu.errors import MachineError, PowerCutError
from openrbu.faults import FaultKind
from openrbu.formats.dell import CompletionCode
from openrbu.machine.faults import parse_faults

SIZE = 2 * BLOCK_BYTES
SELECTOR = 2 * SIZE
OPERATIONS = 6  # two blocks and a selector block, each erased and programmed
DATE = "01/02/2026"


def firmware(seed: int) -> bytes:
    return random.Random(seed).randbytes(SIZE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "flash"
    Flash.create(path, firmware(0), version="0.0.0", release_date=DATE)
    return path


@contextlib.contextmanager
def opened(
    path: Path, *, cut_at: int | None = None, faults: Collection[FaultKind] = ()
) -> Iterator[Flash]:
    device = FlashFile(path, rail=PowerRail(cut_at), faults=faults)
    with contextlib.closing(device):
        yield Flash(device, faults=faults)


def install(path: Path, number: int, cut_at: int | None = None) -> bool:
    """Install BIOS `number`; False when the power is damaged."""
    with opened(path, cut_at=cut_at) as flash:
        try:
            flash.install(firmware(number), version=f"0.0.{number}", release_date=DATE)
        except PowerCutError:
            return False
        assert flash.image() == firmware(number)
        return True


def in_force(path: Path) -> int:
    """The number of the BIOS in force, which is whole."""
    with opened(path) as flash:
        number = int(flash.current.version.removeprefix("0.0."))
        assert flash.image() == firmware(number)
        return number


def damage(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


def test_a_new_flash_runs_what_it_left_the_factory_with(path: Path) -> None:
    with opened(path) as flash:
        assert flash.size_bytes == SIZE
        assert flash.image() == firmware(0)
        assert flash.current == BankRecord(1, 0, "0.0.0", DATE, zlib.crc32(firmware(0)))


def test_what_was_installed_is_in_force_at_once_and_after_opening_again(path: Path) -> None:
    for number in (1, 2, 3):
        assert install(path, number)
        assert in_force(path) == number
        with opened(path) as flash:
            assert flash.current.sequence == number + 1
            assert flash.current.bank == number % 2
            assert flash.current.release_date == DATE


def test_after_a_power_cut_at_any_operation_old_or_new_is_in_force_whole(path: Path) -> None:
    whole = path.read_bytes()
    outcomes = []
    for cut_at in count(1):
        path.write_bytes(whole)
        if install(path, 1, cut_at):
            break
        outcomes.append(in_force(path))
    assert outcomes == [0] * OPERATIONS


def test_after_two_power_cuts_at_any_operations_the_third_try_gets_through(path: Path) -> None:
    whole = path.read_bytes()
    for first in range(1, OPERATIONS + 1):
        for second in range(1, OPERATIONS + 1):
            path.write_bytes(whole)
            assert not install(path, 1, first)
            assert not install(path, 2, second)
            assert in_force(path) == 0
            assert install(path, 3)
            assert in_force(path) == 3


@given(st.lists(st.tuples(st.integers(1, 5), st.none() | st.integers(1, OPERATIONS)), max_size=8))
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_through_any_row_of_installs_and_power_cuts_the_last_whole_install_is_in_force(
    path: Path, attempts: list[tuple[int, int | None]]
) -> None:
    path.unlink()
    Flash.create(path, firmware(0), version="0.0.0", release_date=DATE)
    expected = 0
    for number, cut_at in attempts:
        if install(path, number, cut_at):
            expected = number
        assert in_force(path) == expected


def test_a_power_cut_leaves_half_of_an_erase_and_half_of_a_program_done(path: Path) -> None:
    device = FlashFile(path, rail=PowerRail())
    device.erase(SIZE)
    device.program(SIZE, b"\x55" * BLOCK_BYTES)
    device.close()
    half = BLOCK_BYTES // 2

    with contextlib.closing(FlashFile(path, rail=PowerRail(1))) as device:
        with pytest.raises(PowerCutError, match="operation 1"):
            device.erase(SIZE)
        assert device.read(SIZE, BLOCK_BYTES) == b"\xff" * half + b"\x55" * half
        device.erase(SIZE)

    with contextlib.closing(FlashFile(path, rail=PowerRail(1))) as device:
        with pytest.raises(PowerCutError):
            device.program(SIZE, b"\x33" * BLOCK_BYTES)
        assert device.read(SIZE, BLOCK_BYTES) == b"\x33" * half + b"\xff" * half


def test_programming_only_clears_bits_and_erasing_sets_them_all_in_one_block(path: Path) -> None:
    with contextlib.closing(FlashFile(path)) as device:
        device.erase(SIZE)
        device.program(SIZE, b"\xf0\xff")
        device.program(SIZE, b"\x3c\x0f")
        assert device.read(SIZE, 3) == b"\x30\x0f\xff"
        next_block = device.read(SIZE + BLOCK_BYTES, BLOCK_BYTES)
        device.erase(SIZE)
        assert device.read(SIZE, BLOCK_BYTES) == b"\xff" * BLOCK_BYTES
        assert device.read(SIZE + BLOCK_BYTES, BLOCK_BYTES) == next_block


def test_the_bank_in_force_and_its_record_are_never_touched_by_an_install(path: Path) -> None:
    assert install(path, 1)  # bank 1, selector block 1
    before = path.read_bytes()
    assert install(path, 2)
    after = path.read_bytes()
    assert after[SIZE : 2 * SIZE] == before[SIZE : 2 * SIZE]
    assert after[SELECTOR + BLOCK_BYTES :] == before[SELECTOR + BLOCK_BYTES :]


@pytest.mark.parametrize("offset", [SIZE + 5, SELECTOR + BLOCK_BYTES + 20])
def test_when_the_newest_bank_or_its_record_is_damaged_the_one_before_is_in_force(
    path: Path, offset: int
) -> None:
    assert install(path, 1)
    damage(path, offset)
    assert in_force(path) == 0
    assert install(path, 2)
    assert in_force(path) == 2


def test_a_flash_without_a_whole_bios_is_dead(path: Path) -> None:
    damage(path, 7)
    with opened(path) as flash, pytest.raises(MachineError, match="no whole BIOS"):
        _ = flash.current


@pytest.mark.parametrize("cut", [1, 100, BLOCK_BYTES, 4 * BLOCK_BYTES + 1, 6 * BLOCK_BYTES])
def test_a_flash_file_of_a_size_that_no_pair_of_banks_has_is_refused(path: Path, cut: int) -> None:
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(MachineError, match="is damaged"), opened(path):
        pass


def test_a_flash_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="missing"):
        FlashFile(tmp_path / "flash")


@given(
    st.builds(
        BankRecord,
        sequence=st.integers(0, 2**32 - 1),
        bank=st.integers(0, 1),
        version=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=64),
        release_date=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=16),
        data_crc32=st.integers(0, 2**32 - 1),
    ),
    st.integers(0, RECORD.size_bytes * 8 - 1),
)
@settings(deadline=None)
def test_a_record_comes_back_as_it_was_built_and_not_at_all_with_a_bit_changed(
    record: BankRecord, bit: int
) -> None:
    data = record.build()
    assert BankRecord.parse(data) == record
    wrong = bytearray(data)
    wrong[bit // 8] ^= 1 << bit % 8
    assert BankRecord.parse(bytes(wrong)) is None


def test_a_record_of_a_bank_that_is_not_there_is_none() -> None:
    assert BankRecord.parse(BankRecord(1, 2, "A00", DATE, 0).build()) is None


def test_a_version_that_does_not_fit_the_record_is_cut() -> None:
    record = BankRecord.parse(BankRecord(1, 0, "é" * 70, DATE, 0).build())
    assert record is not None
    assert record.version == "?" * 64


@pytest.mark.parametrize("fault", FLASH_FAULTS, ids=lambda fault: fault.name)
def test_each_fault_stops_an_install_with_its_code(path: Path, fault: FlashFault) -> None:
    with opened(path, faults=[fault]) as flash, pytest.raises(FlashError) as raised:
        flash.install(firmware(1), version="0.0.1", release_date=DATE)
    assert raised.value.code is fault.code
    assert str(raised.value) == fault.code.text
    assert in_force(path) == (1 if fault is TWELVE_VOLTS_NOT_REMOVED else 0)


@pytest.mark.parametrize("label", ["no-battery", "no-external-power", "12v-not-set"])
def test_what_a_bios_finds_out_first_leaves_every_byte_of_the_flash(path: Path, label: str) -> None:
    before = path.read_bytes()
    with opened(path, faults=parse_faults([label])) as flash, pytest.raises(FlashError):
        flash.install(firmware(1), version="0.0.1", release_date=DATE)
    assert path.read_bytes() == before


def test_there_is_a_fault_for_each_completion_code_that_the_flash_can_cause() -> None:
    found_in_memory = {
        CompletionCode.COMPLETED,
        CompletionCode.INCONSISTENT_IMAGE,
        CompletionCode.IMAGE_NOT_FOUND,
        CompletionCode.NEVER_TRIED,
    }
    assert {fault.code for fault in FLASH_FAULTS} == set(CompletionCode) - found_in_memory
