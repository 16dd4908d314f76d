"""Modes, owners and times on a mount, as they were seen to be on a Linux 6.1.

tests/unit/test_sysfs.py has who may change what; tests/contract/test_changes.py asks a real kernel.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrbu.drivers.sysfs import Caller
from openrbu.fuse.callers import CallerMap
from rigs.mounted import Mounted
from rigs.mounts import DEVICE, ENTRY

LOADING, UEVENT, TYPE = f"{ENTRY}/loading", f"{DEVICE}/uevent", f"{DEVICE}/image_type"
NS = 10**9


@pytest.fixture
def system(tmp_path: Path) -> Iterator[Mounted]:
    mounted = Mounted(tmp_path, "linux")
    try:
        mounted.load_module()
        mounted.write(f"/{TYPE}", b"init")
        yield mounted
    finally:
        mounted.close()


def test_a_copy_onto_a_file_keeps_what_the_original_has(system: Mounted, tmp_path: Path) -> None:
    original = tmp_path / "original"
    original.write_text("packet")
    original.chmod(0o640)
    os.utime(original, ns=(NS, 2 * NS + 9))
    shutil.copy2(original, system.root / TYPE)
    subprocess.run(["cp", "-a", original, system.root / TYPE], check=True)
    seen = (system.root / TYPE).stat()
    assert stat.S_IMODE(seen.st_mode) == 0o640
    assert seen.st_mtime_ns == 2 * NS + 9
    assert (system.root / TYPE).read_text() == "packet\n"
    subprocess.run(["touch", "-d", "@5", system.root / TYPE], check=True)
    assert (system.root / TYPE).stat().st_mtime == 5


def test_times_are_set_one_by_one_and_before_the_epoch(system: Mounted) -> None:
    path = system.root / UEVENT
    before = path.stat()
    subprocess.run(["touch", "-a", "-d", "1969-12-31 23:59:58.25Z", path], check=True)
    after = path.stat()
    assert after.st_atime_ns == -1_750_000_000
    assert after.st_mtime_ns == after.st_ctime_ns > before.st_ctime_ns
    os.utime(path)
    now = path.stat()
    assert now.st_atime_ns == now.st_mtime_ns >= after.st_ctime_ns


def test_a_mode_holds_until_the_entry_is_removed(system: Mounted) -> None:
    path = system.root / LOADING
    path.chmod(0o200)
    with pytest.raises(PermissionError):
        path.read_bytes()
    path.write_bytes(b"-1\n")
    system.write(f"/{TYPE}", b"init")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert path.read_bytes() == b"0\n"


def test_a_file_that_was_removed_still_has_its_attributes(system: Mounted) -> None:
    reader = os.open(system.root / LOADING, os.O_RDONLY)
    directory = os.open(system.root / ENTRY, os.O_RDONLY)
    try:
        before = os.fstat(reader)
        (system.root / LOADING).write_bytes(b"-1")
        assert not (system.root / LOADING).exists()
        assert os.fstat(reader) == before
        assert stat.S_IMODE(os.fstat(directory).st_mode) == 0o755
        assert os.listdir(directory) == []  # noqa: PTH208
    finally:
        os.close(reader)
        os.close(directory)


def test_other_users_and_groups_keep_their_numbers() -> None:
    callers = CallerMap(root_uid=1000, root_gid=100, capabilities_count=False)
    assert callers.caller(1000, 100, os.getpid()) == Caller(0, sys_rawio=True)
    other = callers.caller(1001, 100, os.getpid())
    assert (other.uid, other.gids[0]) == (1001, 0)
    assert callers.caller(0, 0, 0) == Caller(65534, False, (65534,))
    numbers = [0, 7]
    assert [callers.uid_here(number) for number in numbers] == [1000, 7]
    assert [callers.gid_here(number) for number in numbers] == [100, 7]
