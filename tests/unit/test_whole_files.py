"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from openrbu.system.files import write_whole
from rigs.machines import in_child, kill_self
from rigs.small_disks import fill_up, no_writes, small_tmpfs


@pytest.mark.parametrize("lasting", [False, True])
def test_a_file_is_made_and_replaced_and_nothing_else_stays(tmp_path: Path, lasting: bool) -> None:
    path = tmp_path / "file"
    write_whole(path, b"one", lasting=lasting)
    assert path.read_bytes() == b"one"
    write_whole(path, b"another", lasting=lasting)
    assert path.read_bytes() == b"another"
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_has_the_mode_that_this_process_gives(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "file", b"one")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_a_disk_that_refuses_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    with no_writes() as refuse:
        refuse()
        with pytest.raises(OSError, match="File too large"):
            write_whole(path, b"another")
    assert path.read_bytes() == b"one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    with small_tmpfs(tmp_path, 64 * 1024) as disk:
        path = disk / "file"
        path.write_bytes(b"one")
        filler = fill_up(disk)
        with pytest.raises(OSError, match="No space left on device"):
            write_whole(path, bytes(8192))
        assert path.read_bytes() == b"one"
        assert set(disk.iterdir()) == {path, filler}


def test_what_a_killed_process_left_is_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")

    def die() -> None:
        monkeypatch.setattr(Path, "replace", lambda *_: kill_self())
        write_whole(path, b"another")

    assert in_child(die) != 0
    assert path.read_bytes() == b"one"
    assert len(list(tmp_path.iterdir())) == 2
    write_whole(path, b"the third")
    assert path.read_bytes() == b"the third"


def test_a_name_as_long_as_names_may_be_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    write_whole(path, b"one")
    assert path.read_bytes() == b"one"
