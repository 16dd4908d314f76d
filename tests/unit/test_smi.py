"""The BIOS's side of the SMI calling interface."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openrbu.bios.nvram import Nvram, NvramFile
from openrbu.bios.power import PowerRail
from openrbu.bios.smi import SmiHandler
from openrbu.errors import PowerCutError
from openrbu.formats.tokens import ACTIVATE, CANCEL, SMI_CALL, SmiCall, SmiToken

PORT, CODE = 0xB2, 0x37
OTHER = 0x0123
RESULTS = SMI_CALL.offset_of("results")

GARBAGE = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def token(number: int, value: int, location: int | None = None) -> SmiToken:
    return SmiToken(number, number if location is None else location, value, PORT, CODE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "nvram.json"
    NvramFile.create(path, Nvram({ACTIVATE: 0, CANCEL: 0, OTHER: 5}))
    return path


def handler(path: Path, rail: PowerRail | None = None) -> SmiHandler:
    return SmiHandler(NvramFile(path, rail), token(ACTIVATE, 1), token(CANCEL, 0))


def call(
    bios: SmiHandler, operation: tuple[int, int], location: int, value: int = 0
) -> tuple[int, ...]:
    """res1 to res4 of a call."""
    request = SmiCall(PORT, CODE, *operation, arguments=(location, value, 0, 0))
    return SmiCall.unpack(bios(request.pack())).results


READ, WRITE = (0, 0), (1, 0)


def test_a_setting_is_read(path: Path) -> None:
    assert call(handler(path), READ, OTHER) == (0, 5, 0, 0)


def test_a_setting_that_is_written_reads_so_and_lasts(path: Path) -> None:
    assert call(handler(path), WRITE, OTHER, 0xFFFF)[0] == 0
    assert call(handler(path), READ, OTHER) == (0, 0xFFFF, 0, 0)
    assert not handler(path).is_armed


def test_writing_activate_arms_and_ends_cancel_and_writing_cancel_does_the_reverse(
    path: Path,
) -> None:
    bios = handler(path)
    assert call(bios, WRITE, ACTIVATE, 1)[0] == 0
    assert handler(path).is_armed
    assert call(bios, READ, ACTIVATE)[1] == 1
    assert call(bios, READ, CANCEL)[1] != 0
    assert call(bios, WRITE, CANCEL, 0)[0] == 0
    assert not handler(path).is_armed
    assert call(bios, READ, ACTIVATE)[1] != 1
    assert call(bios, READ, CANCEL)[1] == 0


def test_writing_another_value_to_activate_disarms_and_to_cancel_changes_nothing(
    path: Path,
) -> None:
    bios = handler(path)
    bios.set_armed(True)
    call(bios, WRITE, CANCEL, 9)
    assert handler(path).is_armed
    call(bios, WRITE, ACTIVATE, 9)
    assert not handler(path).is_armed
    call(bios, WRITE, CANCEL, 9)
    assert not handler(path).is_armed


@pytest.mark.parametrize(("activate", "cancel"), [(1, 0), (0, 1), (2, 1)])
def test_tokens_that_share_a_location_exclude_each_other_too(
    path: Path, activate: int, cancel: int
) -> None:
    bios = SmiHandler(
        NvramFile(path), token(ACTIVATE, activate, OTHER), token(CANCEL, cancel, OTHER)
    )
    for _ in range(2):
        call(bios, WRITE, OTHER, activate)
        assert bios.is_armed
        assert call(bios, READ, OTHER)[1] == activate
        call(bios, WRITE, OTHER, cancel)
        assert not handler(path).is_armed
        assert call(bios, READ, OTHER)[1] == cancel


def test_disarming_puts_cancel_in_force(path: Path) -> None:
    bios = handler(path)
    bios.set_armed(True)
    bios.disarm()
    assert not handler(path).is_armed
    assert call(bios, READ, CANCEL)[1] == 0


@pytest.mark.parametrize("operation", [READ, WRITE])
@pytest.mark.parametrize("location", [0, OTHER + 1, 0xFFFFFFFF])
def test_a_location_that_no_token_has_is_a_failure(
    path: Path, operation: tuple[int, int], location: int
) -> None:
    before = path.read_bytes()
    assert call(handler(path), operation, location, 1) == (-1, 0, 0, 0)
    assert path.read_bytes() == before


@pytest.mark.parametrize("location", [ACTIVATE, CANCEL, OTHER])
@pytest.mark.parametrize("value", [0x10000, 0x10001, 0x80000000, 0xFFFFFFFF])
def test_a_value_of_more_than_16_bits_is_a_failure_and_changes_nothing(
    path: Path, location: int, value: int
) -> None:
    before = path.read_bytes()
    assert call(handler(path), WRITE, location, value) == (-1, 0, 0, 0)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "operation",
    [(10, 1), (10, 2), (10, 3), (10, 4), (9, 3), (9, 0), (12, 0), (0, 1), (1, 1), (2, 0), (9, 1)],
)
def test_all_other_classes_and_selects_are_unsupported(
    path: Path, operation: tuple[int, int]
) -> None:
    before = path.read_bytes()
    assert call(handler(path), operation, ACTIVATE, 1) == (-2, 0, 0, 0)
    assert path.read_bytes() == before


def test_an_answer_changes_the_results_and_no_other_byte_of_the_buffer(path: Path) -> None:
    request = bytearray(SmiCall(PORT, CODE, *READ, arguments=(OTHER, 2, 3, 4)).pack())
    request[4:12] = b"ebx!BSI1"
    request[15] = 0x77
    answer = handler(path)(bytes(request) + b"what is behind the call")
    assert answer[:RESULTS] == request[:RESULTS]
    assert answer[RESULTS : RESULTS + 16] == bytes([0] * 4 + [5] + [0] * 11)
    assert answer[RESULTS + 16 :] == b"what is behind the call"


@pytest.mark.parametrize("field", ["command_port", "command_code"])
def test_a_call_for_another_port_or_code_is_left_as_it_is(path: Path, field: str) -> None:
    request = SmiCall(PORT, CODE, *WRITE, arguments=(ACTIVATE, 1, 0, 0))
    change: dict[str, Any] = {field: 1}
    other = replace(request, **change).pack()
    assert handler(path)(other) == other
    assert not handler(path).is_armed


@pytest.mark.parametrize("size_bytes", [0, 15, 16, SMI_CALL.size_bytes - 1])
def test_a_buffer_with_no_room_for_a_call_is_left_as_it_is(path: Path, size_bytes: int) -> None:
    request = SmiCall(PORT, CODE, *WRITE, arguments=(ACTIVATE, 1, 0, 0)).pack()[:size_bytes]
    assert handler(path)(request) == request
    assert not handler(path).is_armed


@given(st.binary(max_size=80))
@GARBAGE
def test_garbage_comes_back_as_it_is(path: Path, garbage: bytes) -> None:
    assert handler(path)(garbage) == garbage


@given(st.binary(min_size=37, max_size=80), st.sampled_from([ACTIVATE, CANCEL, OTHER, 0]))
@GARBAGE
def test_garbage_behind_the_magic_is_answered_and_leaves_nvram_that_can_be_read(
    path: Path, garbage: bytes, location: int
) -> None:
    head = SmiCall(PORT, CODE, 0, 0).pack()[:15] + garbage[:1]
    operation = bytes([garbage[1] & 1, 0, garbage[2] & 1, 0])
    buffer = head + operation + location.to_bytes(4, "little") + garbage[3:]
    answer = handler(path)(buffer)
    assert len(answer) == len(buffer)
    assert SmiCall.unpack(answer).results[0] in (0, -1, -2)
    assert answer[:RESULTS] == buffer[:RESULTS]
    assert NvramFile(path).contents.settings.keys() == {ACTIVATE, CANCEL, OTHER}


def test_a_power_cut_while_arming_leaves_the_tokens_as_they_were(path: Path) -> None:
    with pytest.raises(PowerCutError):
        call(handler(path, PowerRail(1)), WRITE, ACTIVATE, 1)
    assert not handler(path).is_armed
