"""A file's lines, read from its end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from openrbu.system.kept_files import OddFileError
from openrbu.system.last_lines import end_of_lines, line_number, lines_from_end
from openrbu.units import GIB, MIB


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    """An open file, still empty."""
    fd = os.open(tmp_path / "lines", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


def fill(fd: int, data: bytes) -> None:
    os.ftruncate(fd, 0)
    os.pwrite(fd, data, 0)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.lists(st.sampled_from((b"\n", b"ab", "ü→".encode(), b"c" * 9))).map(b"".join),
    block_bytes=st.integers(1, 40),
)
def test_they_are_those_that_reading_from_the_start_finds(
    fd: int, data: bytes, block_bytes: int
) -> None:
    fill(fd, data)
    found = list(lines_from_end(fd, MIB, block_bytes=block_bytes))
    whole = data.split(b"\n")[:-1]
    assert [line for _, line in found] == whole[::-1]
    for number, (offset, line) in zip(range(len(whole), 0, -1), found, strict=True):
        assert data[offset:].startswith(line + b"\n")
        assert line_number(fd, offset) == number
    assert end_of_lines(fd, MIB) == data.rfind(b"\n") + 1


def test_a_line_far_into_a_file_of_many_blocks_is_numbered(fd: int) -> None:
    fill(fd, b"0123456\n" * (3 * MIB // 8 + 5))
    offset, _ = next(lines_from_end(fd, MIB))
    assert line_number(fd, offset) == 3 * MIB // 8 + 5


def test_a_file_without_an_end_does_not_fill_memory(fd: int) -> None:
    os.ftruncate(fd, 1024 * GIB)
    with pytest.raises(OddFileError, match="larger than 1 MiB"):
        next(lines_from_end(fd, MIB))
    os.pwrite(fd, b"\nlast\n", 1024 * GIB)
    lines = lines_from_end(fd, MIB)
    assert next(lines) == (1024 * GIB + 1, b"last")
    with pytest.raises(OddFileError, match="larger than 1 MiB"):
        next(lines)


def test_lines_that_are_added_meanwhile_are_not_seen(fd: int) -> None:
    fill(fd, b"one\ntwo\nthree\n")
    lines = lines_from_end(fd, MIB, block_bytes=5)
    assert next(lines) == (8, b"three")
    os.pwrite(fd, b"four\n", 14)
    assert list(lines) == [(4, b"two"), (0, b"one")]


def test_lines_that_are_taken_away_meanwhile_are_an_error(fd: int) -> None:
    fill(fd, b"one\ntwo\nthree\n")
    lines = lines_from_end(fd, MIB, block_bytes=5)
    next(lines)
    os.ftruncate(fd, 2)
    with pytest.raises(OSError, match="became shorter"):
        list(lines)


def test_a_cut_off_line_that_is_taken_away_meanwhile_is_left_out(
    fd: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another process does right between two reads, before it adds its own line."""
    fill(fd, b"one\n" + b"x" * 20)
    pread, left = os.pread, [b"two\n"]

    def replaced(file: int, size: int, offset: int) -> bytes:
        data = pread(file, size, offset)
        if left:
            os.ftruncate(fd, 4)
            os.pwrite(fd, left.pop(), 4)
        return data

    monkeypatch.setattr(os, "pread", replaced)
    assert list(lines_from_end(fd, MIB, block_bytes=5)) == [(4, b"two"), (0, b"one")]
