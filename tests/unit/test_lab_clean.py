"""What `rbu lab clean` removes, and what it never removes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from openrbu.lab.scratch import MACHINE_PREFIX, cache_in_use
from openrbu.system.lockfile import LockFile
from rigs.cli import Cli, names_in

OF_THE_LAB = (
    "packages/linux-image-6.1.0-50-amd64_6.1.158-1/boot/vmlinuz-6.1.0-50-amd64",
    "packages/busybox-static_1%3a1.35.0-4/bin/busybox",
    "packages/.new-abc/root/bin/busybox",
    "kernels/linux-image-amd64@trixie/linux-image-6.12_6.12-1/boot/vmlinuz",
    "apt/trixie/apt.conf",
    "apt/trixie/sources.list",
    "initramfs/6.1.0+busybox.cpio",
    "accelerator",
    "lock",
    "used",
)
OF_OTHERS = (
    "packages/my-thesis_final/text",
    "kernels/popcorn/kernel",
    "apt/notes/apt.conf",
    "initramfs/other.img",
    "letter",
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that the lab has filled."""
    place = tmp_path / "cache"
    put(place, OF_THE_LAB)
    monkeypatch.setenv("OPENRBU_CACHE", str(place))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    return place


def put(directory: Path, names: tuple[str, ...]) -> None:
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(5000))


def files(directory: Path) -> list[str]:
    return sorted(str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file())


def test_all_that_the_lab_has_fetched_goes_and_what_that_was_is_told(rbu: Cli, cache: Path) -> None:
    document = rbu.json("lab", "clean")
    assert document["changed"] is True
    assert {Path(each["path"]).name for each in document["removed"]} == {
        "linux-image-6.1.0-50-amd64_6.1.158-1",
        "busybox-static_1%3a1.35.0-4",
        ".new-abc",
        "linux-image-amd64@trixie",
        "trixie",
        "6.1.0+busybox.cpio",
        "accelerator",
    }
    assert document["freed_bytes"] >= 8 * 5000
    assert not cache.exists()
    again = rbu.json("lab", "clean")
    assert (again["changed"], again["freed_bytes"]) == (False, 0)
    assert rbu("lab", "clean").out.startswith("nothing to do: ")


def test_people_see_sizes_and_paths(rbu: Cli, cache: Path) -> None:
    out = rbu("lab", "clean").out
    assert "8 KiB" in out
    assert str(cache / "accelerator") in out
    assert out.splitlines()[-1].endswith("are free again")


def test_what_is_not_the_labs_stays(rbu: Cli, cache: Path, tmp_path: Path) -> None:
    put(cache, OF_OTHERS)
    put(tmp_path / "elsewhere", ("file",))
    (cache / "packages" / "kmod_30").symlink_to(tmp_path / "elsewhere")
    assert rbu("lab", "clean").code == 0
    assert files(cache) == sorted(OF_OTHERS)
    assert files(tmp_path / "elsewhere") == ["file"]
    assert (cache / "packages" / "kmod_30").is_symlink()


def test_what_a_running_guest_uses_stays(rbu: Cli, cache: Path) -> None:
    before = files(cache)
    with cache_in_use():
        ended = rbu("lab", "clean", "--json")
    assert ended.code == 4
    assert "a guest runs with it" in ended.err
    assert ended.document["changed"] is False
    assert len(ended.document["left"]) == 7
    assert files(cache) == before
    assert rbu("lab", "clean").code == 0


def test_what_a_process_is_fetching_stays(rbu: Cli, cache: Path) -> None:
    before = files(cache)
    with LockFile(cache / "lock", create=True) as lock:
        assert lock.acquire()
        assert "a process fetches packages" in rbu("lab", "clean").err
    assert files(cache) == before


@pytest.mark.usefixtures("cache")
def test_the_directory_of_a_killed_process_goes_and_that_of_a_running_one_stays(rbu: Cli) -> None:
    place = Path(tempfile.gettempdir())
    with subprocess.Popen([sys.executable, "-c", "pass"]) as ended:
        pass
    dead, alive = f"{MACHINE_PREFIX}{ended.pid}-x", f"{MACHINE_PREFIX}{os.getpid()}-x"
    others = "openrbu-lab-notes-x"
    for name in (dead, alive, others):
        put(place / name, ("flash", "disk/file"))
    (place / dead / "disk").chmod(0)
    removed = {Path(each["path"]).name for each in rbu.json("lab", "clean")["removed"]}
    assert dead in removed
    assert names_in(place) == sorted((alive, others))
