"""What a lab needs: what is found, what is missing, and the command that gets it."""

from __future__ import annotations

import re
import shutil
from functools import partial
from pathlib import Path

import pytest

from openrbu.lab import accel, packages
from openrbu.lab import check as check_module
from openrbu.lab.check import Need, State, check, obstacle
from openrbu.lab.packages import get_guest_software
from rigs.archive import KERNEL, Archive, program
from rigs.machines import as_nobody, opened_up
from rigs.needs import leave_out

NEEDS = [
    *("qemu-system-x86_64", "9p in QEMU", "qemu.qmp", "virtme-ng", "file", "setpriv"),
    *("kernel", "busybox", "kmod", "seabios", "accelerator", "memory", "disk"),
]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache's directory, not made yet; on a machine without KVM and SeaBIOS."""
    for module in (packages, check_module):
        monkeypatch.setattr(module, "INSTALLED_SEABIOS", tmp_path / "none")
    monkeypatch.setattr(accel, "_DEVICE", tmp_path / "kvm")
    monkeypatch.setenv("OPENRBU_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Archive:
    """An archive that has all that a guest's software is made of."""
    archive = Archive(tmp_path, monkeypatch)
    archive.fill()
    return archive


def needs() -> dict[str, Need]:
    return {need.name: need for need in check(lambda _: None)}


def states(names: list[str]) -> list[State]:
    found = needs()
    return [found[name].state for name in names]


@pytest.mark.usefixtures("archive")
def test_packages_are_to_be_fetched_and_then_here() -> None:
    found = needs()
    assert list(found) == NEEDS
    assert found["kernel"].state is State.TO_FETCH
    assert found["kernel"].text.startswith(f"{KERNEL} 9.9.1-1 (")
    names = ["kernel", "busybox", "kmod", "seabios"]
    assert states(names) == [State.TO_FETCH] * 4
    get_guest_software(lambda _: None)
    assert states(names) == [State.HERE] * 4


@pytest.mark.usefixtures("archive")
def test_kmod_is_needed_until_the_initramfs_is_made(cache: Path) -> None:
    get_guest_software(lambda _: None)
    (kmod,) = cache.glob("packages/kmod_*")
    shutil.rmtree(kmod)
    assert "kmod" not in needs()
    (initramfs,) = cache.glob("initramfs/*")
    of_another_kernel = initramfs.rename(initramfs.with_name(f"other+{initramfs.name}"))
    assert needs()["kmod"].state is State.TO_FETCH
    of_another_kernel.rename(initramfs)
    (busybox,) = cache.glob("packages/busybox*")
    shutil.rmtree(busybox)
    assert states(["busybox", "kmod"]) == [State.TO_FETCH] * 2


@pytest.mark.usefixtures("archive")
def test_nothing_is_missing_where_all_is_installed() -> None:
    if any(shutil.which(name) is None for name in ("qemu-system-x86_64", "file", "setpriv")):
        leave_out("there is no QEMU here, no file or no setpriv")
    assert obstacle(check(lambda _: None)) is None


def test_nothing_is_made_by_looking(archive: Archive, cache: Path) -> None:
    needs()
    assert not cache.exists()


def test_what_is_missing_is_named_with_the_command_that_gets_it(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(check_module, "MEMORY_BYTES", 1 << 60)
    found = needs()
    for in_python in ("qemu.qmp", "virtme-ng"):  # which PATH does not matter for
        del found[in_python]
    missing = {name: need.remedy for name, need in found.items() if need.state is State.MISSING}
    copy = "copy the cache of a Debian system here"
    assert missing == {
        "qemu-system-x86_64": "apt-get install qemu-system-x86",
        "file": "apt-get install file",
        "setpriv": "apt-get install util-linux",
        "kernel": copy,
        "busybox": copy,
        "kmod": copy,
        "seabios": copy,
        "memory": "end programs that use much of it",
    }
    error = obstacle(list(found.values()))
    assert str(error) == (
        "the lab lacks qemu-system-x86_64, file, setpriv, a kernel, busybox, kmod, "
        "seabios, free memory: "
        "apt-get install qemu-system-x86; apt-get install file; apt-get install util-linux; "
        f"{copy}; end programs that use much of it"
    )


def test_an_apt_that_knows_no_packages_is_to_be_updated(
    cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Archive(tmp_path, monkeypatch)
    assert needs()["kernel"].remedy == "apt-get update"


@pytest.mark.usefixtures("archive")
def test_a_qemu_without_9p_is_found_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program(tmp_path / "bin", "qemu-system-x86_64", "echo QEMU emulator version 1.0")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    found = needs()
    assert found["qemu-system-x86_64"].text == "QEMU emulator version 1.0"
    assert found["9p in QEMU"].state is State.MISSING


@pytest.mark.usefixtures("archive")
def test_a_qemu_that_does_not_run_counts_as_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program(tmp_path / "bin", "qemu-system-x86_64", "exit 127")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    assert needs()["qemu-system-x86_64"].state is State.MISSING


def test_a_disk_too_small_for_what_is_to_be_fetched_is_found_out(archive: Archive) -> None:
    archive.add(KERNEL, "9.9.1-2", {}, installed_size_kib=1 << 50)
    archive.add("linux-image-amd64", "9.9.1-2", {}, f"Depends: {KERNEL} (= 9.9.1-2)\n")
    archive.update()
    disk = needs()["disk"]
    assert (disk.state, disk.remedy) == (State.MISSING, "OPENRBU_CACHE=DIR names another directory")


@pytest.mark.usefixtures("archive")
def test_a_cache_that_can_not_be_made_is_told_with_why_and_the_way_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    for place in (Path("/dev/null"), tmp_path / "file"):
        monkeypatch.setenv("OPENRBU_CACHE", str(place / "x"))
        found = needs()
        assert "disk" not in found
        cache = found["writable cache"]
        assert cache.text == f"the cache {place}/x can't be written: {place} is not a directory"
        assert cache.state is State.MISSING
        error = str(obstacle([cache]))
        assert error == "the lab lacks writable cache: OPENRBU_CACHE=DIR names another directory"


@pytest.mark.usefixtures("archive")
def test_a_cache_of_another_user_is_needed_for_reading_alone_once_it_has_all(cache: Path) -> None:
    closed = f"can't be written: .*{re.escape(str(cache))}"

    def look(has_all: bool) -> None:
        found = needs()
        assert ("disk" in found) == has_all
        assert has_all or re.search(closed, found["writable cache"].text)

    def closed_to_me() -> None:
        opened_up(cache)
        cache.chmod(0o555)

    cache.mkdir()
    closed_to_me()
    as_nobody(partial(look, has_all=False))
    cache.chmod(0o755)
    get_guest_software(lambda _: None)
    closed_to_me()
    as_nobody(partial(look, has_all=True))
    cache.chmod(0o755)
    shutil.rmtree(next(cache.glob("packages/busybox*")))
    closed_to_me()
    as_nobody(partial(look, has_all=False))
    cache.chmod(0o755)


@pytest.mark.usefixtures("archive")
def test_a_kvm_that_there_is_gets_a_trial_when_there_is_a_kernel(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "kvm").touch()
    assert needs()["accelerator"].text.startswith("tcg, or kvm")
    get_guest_software(lambda _: None)
    program(tmp_path / "bin", "qemu-system-x86_64", "echo Unable to mount root fs")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    assert needs()["accelerator"].text == "kvm"
