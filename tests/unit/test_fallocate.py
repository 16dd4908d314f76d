"""A hole is put into a file, and what was behind it stays as it was."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from openrbu.system import fallocate
from openrbu.system.fallocate import insert_hole
from openrbu.units import MIB

BLOCK = 64 * 1024


def contents(path: Path) -> bytes:
    """A file with data, a hole, and more data than is moved in one step."""
    first, last = os.urandom(3 * BLOCK), os.urandom(5 * MIB + 5)
    with path.open("wb") as file:
        file.write(first)
        file.seek(2 * MIB)
        file.write(last)
    return path.read_bytes()


@pytest.mark.parametrize("is_moved", [False, True], ids=["by the file system", "by moving"])
@pytest.mark.parametrize("at", [0, 2 * BLOCK, 3 * MIB, 10 * MIB])
def test_bytes_behind_a_new_hole_are_moved_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, is_moved: bool
) -> None:
    if is_moved:  # as on a tmpfs
        known = fallocate._system_call()

        def call(fd: int, mode: int, start: int, size_bytes: int) -> int:
            if mode == fallocate._INSERT_RANGE:
                mode |= 1 << 30  # a mode that no file system knows: EOPNOTSUPP
            return known(fd, mode, start, size_bytes)

        monkeypatch.setattr(fallocate, "_system_call", lambda: call)
    path = tmp_path / "file"
    before = contents(path)
    with path.open("r+b") as file:
        insert_hole(file.fileno(), at, MIB)
        assert path.read_bytes() == (
            before[:at] + bytes(MIB) + before[at:]
            if at < len(before)
            else before.ljust(len(before) + MIB, b"\0")
        )


def test_a_file_that_is_not_open_for_writing_gets_no_hole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    before = contents(path)
    with path.open("rb") as file, pytest.raises(OSError) as caught:  # noqa: PT011
        insert_hole(file.fileno(), 0, MIB)
    assert caught.value.errno == errno.EBADF
    assert path.read_bytes() == before
