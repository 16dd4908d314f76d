"""NVRAM: a small file, replaced whole, and believed only where it is sound."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openrbu.bios.nvram import Nvram, NvramFile
from openrbu.bios.power import PowerRail
from openrbu.errors import MachineError, PowerCutError

U16, U32 = st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)
FULL = Nvram({0x5C: 1, 0x5D: 0}, 0x000B, "2026-03-04T05:06:00+00:00", 7, 0xDEADBEEF)

WITH_A_PATH = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "nvram.json"
    NvramFile.create(path, FULL)
    return path


@given(
    st.builds(
        Nvram,
        settings=st.dictionaries(U16, U16, max_size=5),
        completion_code=U16,
        completed_at=st.none() | st.datetimes().map(lambda moment: moment.isoformat()),
        flashing_from=st.none() | U32,
        admin_password_crc=st.none() | U32,
        admin_password_keys_crc=st.none() | U32,
    )
)
@WITH_A_PATH
def test_what_is_saved_comes_back(path: Path, contents: Nvram) -> None:
    file = NvramFile(path)
    file.contents = contents
    file.save()
    assert NvramFile(path).contents == contents


def test_a_new_one_has_no_update_tried_and_no_password() -> None:
    assert Nvram.parse(Nvram().build()) == Nvram({}, 0xFFFF, None, None, None)


@pytest.mark.parametrize(
    "wrong", [{"completed_at": None}, {"completion_code": 0x1234}, {"is_ending": 1}]
)
def test_an_end_under_way_without_a_result_is_damage(path: Path, wrong: dict[str, object]) -> None:
    right = json.loads(Nvram({}, 0, "2026-01-01T00:00:00", is_ending=True).build())
    path.write_text(json.dumps(right))
    assert NvramFile(path).contents.is_ending
    path.write_text(json.dumps(right | wrong))
    with pytest.raises(MachineError, match="damaged"):
        NvramFile(path)


def test_openrbu_before_0_2_reads_what_is_written_while_no_result_is_recorded() -> None:
    assert "is_ending" not in json.loads(FULL.build())
    assert Nvram.parse(FULL.build()) == FULL


def test_a_power_cut_leaves_what_was_there(path: Path) -> None:
    before = path.read_bytes()
    file = NvramFile(path, PowerRail(1))
    file.contents.completion_code = 0
    with pytest.raises(PowerCutError):
        file.save()
    assert path.read_bytes() == before
    again = NvramFile(path)
    assert again.contents == FULL
    again.contents.completion_code = 0
    again.save()
    assert NvramFile(path).contents.completion_code == 0


def test_a_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="missing"):
        NvramFile(tmp_path / "nvram.json")


def without(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(FULL.build())
    del document[name]
    return document


def with_value(name: str, value: object) -> dict[str, Any]:
    return {**json.loads(FULL.build()), name: value}


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        7,
        *(without(name) for name in json.loads(FULL.build())),
        with_value("another", 1),
        with_value("settings", []),
        with_value("settings", {"x": 1}),
        with_value("settings", {"1": "x"}),
        with_value("settings", {"1": None}),
        with_value("settings", {"1": 0x10000}),
        with_value("settings", {"-1": 1}),
        with_value("completion_code", None),
        with_value("completion_code", "0"),
        with_value("completion_code", 0x10000),
        with_value("completion_code", 0.0),
        with_value("completed_at", 20260304),
        with_value("completed_at", "yesterday"),
        with_value("flashing_from", -1),
        with_value("flashing_from", "1"),
        with_value("admin_password_crc", "secret"),
        with_value("admin_password_crc", 1 << 32),
        with_value("admin_password_keys_crc", "secret"),
        with_value("admin_password_keys_crc", 1 << 32),
    ],
)
def test_a_file_with_fields_or_values_that_nvram_can_not_have_is_refused(
    path: Path, document: object
) -> None:
    path.write_text(json.dumps(document))
    with pytest.raises(MachineError, match="damaged"):
        NvramFile(path)


@pytest.mark.parametrize("data", [b"", b"\xff", b"[" * 100_000, FULL.build()[:-1], b"Infinity"])
def test_a_file_that_is_not_json_is_refused(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    with pytest.raises(MachineError, match="damaged"):
        NvramFile(path)


@given(position=st.integers(0, len(FULL.build()) - 1), byte=st.integers(0, 255))
@WITH_A_PATH
def test_a_file_with_a_byte_changed_is_refused_or_holds_values_that_nvram_can_have(
    path: Path, position: int, byte: int
) -> None:
    data = bytearray(FULL.build())
    data[position] = byte
    path.write_bytes(data)
    try:
        contents = NvramFile(path).contents
    except MachineError:
        return
    assert Nvram.parse(contents.build()) == contents
