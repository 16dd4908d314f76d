"""Who has a file locked, as /proc/locks says."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from openrbu.system.lock_holders import flock_holders, process_title


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """A made /proc."""
    (tmp_path / "proc").mkdir()
    return tmp_path / "proc"


def locks(proc: Path, *lines: str) -> None:
    (proc / "locks").write_text("".join(f"{line}\n" for line in lines))


def line(fd: int, pid: int, *, kind: str = "FLOCK", inode: int = 0, number: str = "7:") -> str:
    seen = os.fstat(fd)
    device = f"{os.major(seen.st_dev):02x}:{os.minor(seen.st_dev):02x}"
    return f"{number} {kind}  ADVISORY  WRITE {pid} {device}:{seen.st_ino + inode} 0 EOF"


def test_a_process_that_has_the_lock_is_found_in_the_real_file(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        assert flock_holders(file.fileno()) == ()
        fcntl.flock(file, fcntl.LOCK_EX)
        assert flock_holders(file.fileno()) == (os.getpid(),)


def test_only_flocks_of_this_file_that_are_held_count(tmp_path: Path, proc: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        fd = file.fileno()
        locks(
            proc,
            line(fd, 11, kind="POSIX"),
            line(fd, 12, inode=1),
            line(fd, 13, number="7: ->"),
            line(fd, 0),
            line(fd, -1),
            "not a lock",
            line(fd, 14),
        )
        assert flock_holders(fd, proc) == (14,)


def test_without_the_file_nobody_is_known(tmp_path: Path, proc: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        assert flock_holders(file.fileno(), proc) == ()


def test_a_process_has_its_name_where_it_still_runs(proc: Path) -> None:
    (proc / "12").mkdir()
    (proc / "12/comm").write_text("smbios-token-ct\n")
    assert process_title(12, proc) == "smbios-token-ct (process 12)"
    assert process_title(13, proc) == "process 13"
