"""Packages for the lab: fetched by the real apt from an archive made here, kept whole or not."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from openrbu.errors import ObstacleError
from openrbu.lab import packages
from openrbu.lab.apt import FetchError
from openrbu.lab.packages import GuestSoftware, get_guest_software
from openrbu.system.descriptors import readable
from openrbu.system.lockfile import LockFile
from rigs.archive import KERNEL, KERNEL_DIRECTORY, RELEASE, Archive, program, put_first
from rigs.cli import names_in

END_LIMIT_S = 20
"""For processes that have been killed."""

_GET_KIT = """\
from openrbu.system.interrupts import signals_raised
from openrbu.lab.packages import get_guest_software
with signals_raised():
    print(get_guest_software(lambda line: print(line, flush=True)))
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache's directory, not made yet."""
    monkeypatch.setenv("OPENRBU_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Archive:
    """An archive that nothing is in yet, on a machine without SeaBIOS."""
    monkeypatch.setattr(packages, "INSTALLED_SEABIOS", tmp_path / "none")
    return Archive(tmp_path, monkeypatch)


@pytest.fixture
def full(archive: Archive) -> Archive:
    """An archive that has all that a guest's software is made of."""
    archive.fill()
    return archive


def software_and_lines() -> tuple[GuestSoftware, list[str]]:
    lines: list[str] = []
    return get_guest_software(lines.append), lines


def refusal() -> str:
    """What is said when no software is available: one line."""
    with pytest.raises(ObstacleError) as caught:
        get_guest_software(lambda _: None)
    text = str(caught.value)
    assert "\n" not in text
    return text


def in_the_making(cache: Path) -> list[str]:
    return [name for name in names_in(cache / "packages") if name.startswith(".")]


def test_a_kit_is_fetched_with_a_line_about_each_package_and_nothing_else_is_said(
    full: Archive, cache: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    software, lines = software_and_lines()
    assert software.release == RELEASE
    assert software.vmlinuz.name == f"vmlinuz-{RELEASE}"
    assert "kernel/9p.ko:\n" in (software.modules / "modules.dep").read_text()
    assert b"modules/virtio_console.ko" in software.initramfs.read_bytes()
    assert software.busybox.read_text() == "#!/bin/sh\n"
    assert software.seabios.read_bytes() == b"bios"
    assert [line.split(" (")[0] for line in lines] == [
        f"fetching {KERNEL} 9.9.1-1",
        "fetching kmod 30-1",
        "fetching busybox-static 1:1.2-3",
        f"making an initramfs for {KERNEL_DIRECTORY}",
        "fetching seabios 1.0-1",
    ]
    assert capfd.readouterr() == ("", "")
    assert in_the_making(cache) == []


@pytest.mark.usefixtures("cache")
def test_programs_may_be_in_usr_bin_as_from_debian_13_on(archive: Archive) -> None:
    archive.fill(programs="usr/bin")
    software, _ = software_and_lines()
    assert "kernel/9p.ko:\n" in (software.modules / "modules.dep").read_text()
    assert software.busybox.parts[-3:] == ("usr", "bin", "busybox")


_ASKS_FILE = """\
[ "$1" = --kimg ] || exit 2
file "$2" | grep -q 'Linux kernel' || {{ echo "No such file or directory: 'strings'" >&2; exit 1; }}
exec {virtme_run} "$@"
"""


@pytest.mark.usefixtures("full", "cache")
def test_a_virtme_ng_that_asks_file_about_the_kernel_is_told_that_it_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """1.35, which Debian 13 has. Of a link `file` says that it is a link."""
    real = packages.virtme_run()
    assert real is not None
    script = _ASKS_FILE.format(virtme_run=shlex.quote(str(real)))
    old = program(tmp_path / "old", "virtme-run", script)
    monkeypatch.setattr(packages, "virtme_run", lambda: old)
    software, _ = software_and_lines()
    assert b"modules/virtio_console.ko" in software.initramfs.read_bytes()


@pytest.mark.usefixtures("full", "cache")
def test_drivers_for_what_no_guest_has_are_not_kept() -> None:
    software, _ = software_and_lines()
    kept = sorted(path.name for path in software.modules.rglob("*.ko"))
    assert kept == ["9p.ko", "9pnet_virtio.ko", "overlay.ko", "virtio_console.ko"]


@pytest.mark.usefixtures("cache")
def test_what_is_in_the_cache_is_used_without_apt(
    full: Archive, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    software, _ = software_and_lines()
    full.vanish()
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert software_and_lines() == (software, [])


@pytest.mark.usefixtures("cache")
def test_a_newer_kernel_in_the_archive_does_not_replace_the_one_in_the_cache(full: Archive) -> None:
    software, _ = software_and_lines()
    full.add("linux-image-amd64", "9.9.2-1", {}, "Depends: linux-image-9.9.0-2-amd64\n")
    full.update()
    assert software_and_lines() == (software, [])


def test_a_package_that_cant_be_fetched_is_named_and_nothing_of_it_stays(
    full: Archive, cache: Path
) -> None:
    full.vanish()
    assert refusal().startswith(f"{KERNEL} 9.9.1-1 can't be fetched: ")
    assert names_in(cache / "packages") == []


def test_a_package_that_is_not_what_the_archive_signed_is_not_taken(
    full: Archive, cache: Path
) -> None:
    deb = full.directory / f"{KERNEL}.deb"
    data = bytearray(deb.read_bytes())
    data[-1] ^= 1
    deb.write_bytes(data)
    assert "can't be fetched" in refusal()
    assert names_in(cache / "packages") == []


@pytest.mark.usefixtures("archive", "cache")
def test_an_apt_that_does_not_know_the_packages_is_to_be_updated() -> None:
    assert "apt does not know the package linux-image-amd64: try apt-get update" in refusal()


@pytest.mark.usefixtures("cache")
def test_without_apt_and_with_nothing_in_the_cache_it_is_said_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FetchError, match=r"apt-cache is not installed: .* copy it here"):
        packages.wanted_packages()


@pytest.mark.usefixtures("cache")
def test_nothing_is_fetched_where_qemu_or_file_is_missing(
    full: Archive, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert refusal() == "the lab needs qemu-system-x86_64: apt-get install qemu-system-x86"


def test_a_kernel_without_the_modules_that_a_guest_needs_gets_no_initramfs(
    archive: Archive, cache: Path
) -> None:
    archive.fill(without="virtio_console")
    text = f"no guest starts with the kernel {RELEASE}: it has no module virtio_console"
    assert refusal() == text
    assert not (cache / "initramfs").exists()


def test_a_package_that_does_not_fit_on_the_disk_is_not_fetched(full: Archive, cache: Path) -> None:
    huge = 1 << 50
    full.add(KERNEL, "9.9.1-2", {}, installed_size_kib=huge)
    full.add("linux-image-amd64", "9.9.1-2", {}, f"Depends: {KERNEL} (= 9.9.1-2)\n")
    full.update()
    text = refusal()
    assert f"the cache {cache} has room for" in text
    assert "OPENRBU_CACHE=DIR names another directory" in text
    assert names_in(cache / "packages") == []


def test_a_cache_that_cant_be_made_is_named(full: Archive, cache: Path) -> None:
    cache.write_text("a file\n")
    assert refusal().startswith(f"the cache {cache} can't be used: ")


def test_what_was_taken_out_of_the_cache_is_asked_to_be_taken_out_whole(
    full: Archive, cache: Path
) -> None:
    software, _ = software_and_lines()
    software.vmlinuz.unlink()
    place = cache / "packages" / KERNEL_DIRECTORY
    assert (
        refusal()
        == f"there is no boot/vmlinuz-* in {place}: remove that directory, and it is made again"
    )
    shutil.rmtree(place)
    again, lines = software_and_lines()
    assert again == software
    assert len(lines) == 1


def _fetching() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _GET_KIT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.fixture
def stuck(full: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A FIFO. apt-get has come to a halt in the middle of a download when it says its number there;
    it ends, when apt-get and what it started have ended."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    text = f"exec 9>{fifo}; echo half >kernel.deb; echo $$ >&9; sleep 1000 & wait"
    program(tmp_path / "bin", "apt-get", text)
    put_first(monkeypatch, tmp_path / "bin")
    return fifo


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_a_download_ends_it_and_all_that_it_started(
    stuck: Path, cache: Path, signum: signal.Signals
) -> None:
    with _fetching() as process, stuck.open() as said:
        assert said.readline().strip().isdigit()
        assert len(in_the_making(cache)) == 1
        process.send_signal(signum)
        _, err = process.communicate()
        assert f"TerminatedBySignal: interrupted by {signum.name}" in err
        has_ended = readable([said], END_LIMIT_S)
        assert has_ended
    assert names_in(cache / "packages") == []


def test_what_a_killed_download_left_is_not_taken_for_whole_and_goes_with_the_next(
    stuck: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _fetching() as process, stuck.open() as said:
        apt = int(said.readline())
        process.kill()
        process.communicate()
        os.killpg(apt, signal.SIGKILL)
        assert said.read() == ""
    assert len(in_the_making(cache)) == 1
    (stuck.parent / "bin" / "apt-get").unlink()
    _, lines = software_and_lines()
    assert lines[0].startswith(f"fetching {KERNEL}")
    assert in_the_making(cache) == []


def test_who_comes_while_another_one_fetches_waits_for_it(full: Archive, cache: Path) -> None:
    cache.mkdir()
    with LockFile(cache / "lock", create=True) as lock:
        assert lock.acquire()
        process = _fetching()
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line == "waiting for another process that fetches packages …\n"
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    assert out.splitlines()[-1].startswith("GuestSoftware(")


def test_of_several_who_come_at_once_one_fetches(full: Archive, cache: Path) -> None:
    processes = [_fetching() for _ in range(3)]
    outs = [process.communicate()[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len({out.splitlines()[-1] for out in outs}) == 1
    assert "".join(outs).count(f"fetching {KERNEL}") == 1
