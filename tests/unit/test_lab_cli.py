"""rbu lab check, rbu lab bios."""

from __future__ import annotations

from pathlib import Path

import pytest

from openrbu.lab import accel
from openrbu.lab.packages import INSTALLED_SEABIOS
from openrbu.lab.seabios import bios_version
from openrbu.units import KIB, MIB
from rigs.cli import Cli
from rigs.needs import leave_out


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENRBU_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(accel, "_DEVICE", tmp_path / "kvm")


@pytest.fixture
def seabios() -> bytes:
    if not INSTALLED_SEABIOS.exists():
        leave_out("the package seabios is not installed here")
    return INSTALLED_SEABIOS.read_bytes()


def test_check_ends_with_4_and_one_line_where_something_is_missing(
    rbu: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(rbu.directory))
    ended = rbu("lab", "check")
    assert ended.code == 4
    assert ended.err.startswith("rbu: the lab lacks qemu-system-x86_64, ")
    assert ended.err.count("\n") == 1
    rows = [" ".join(line.split()) for line in ended.out.splitlines()]
    assert rows[0] == "NEED STATE WHAT IS HERE WHAT GETS IT"
    assert rows[1] == "qemu-system-x86_64 missing not in PATH apt-get install qemu-system-x86"


def test_check_as_json_has_every_need_and_the_error(
    rbu: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(rbu.directory))
    document = rbu.json("lab", "check", code=4)
    assert document["is_ready"] is False
    assert document["error"]["exit_code"] == 4
    assert document["needs"][0] == {
        "name": "qemu-system-x86_64",
        "state": "missing",
        "text": "not in PATH",
        "remedy": "apt-get install qemu-system-x86",
    }


def test_bios_writes_the_real_seabios_under_another_version(rbu: Cli, seabios: bytes) -> None:
    document = rbu.json("lab", "bios", "2.3.0", "-o", "bios.bin", "--size", "1M")
    assert document == {
        "schema": 1,
        "changed": True,
        "file": "bios.bin",
        "bios_version": "2.3.0",
        "seabios_version": bios_version(seabios),
        "size_bytes": MIB,
    }
    data = (rbu.directory / "bios.bin").read_bytes()
    assert (len(data), bios_version(data)) == (MIB, "2.3.0")
    assert data[-16:] == seabios[-16:]
    again = rbu.json("lab", "bios", "2.3.0", "-o", "bios.bin", "--size", "1M")
    assert again["changed"] is False


def test_without_a_size_bios_is_as_large_as_seabios(rbu: Cli, seabios: bytes) -> None:
    assert rbu("lab", "bios", "A06", "-o", "bios.bin").code == 0
    assert (rbu.directory / "bios.bin").stat().st_size == len(seabios) == 256 * KIB


def test_build_takes_what_bios_makes(rbu: Cli, seabios: bytes) -> None:
    assert rbu("lab", "bios", "2.3.0", "-o", "b").code == 0
    words = ["--bios-version", "2.3.0", "--system", "0x01de"]
    document = rbu.json("build", "b", "-o", "image.hdr", *words)
    assert document["flash_size_bytes"] == len(seabios)


def test_bios_overwrites_another_file_only_when_told_to(rbu: Cli, seabios: bytes) -> None:
    rbu.write("bios.bin", b"mine")
    assert "bios.bin" in rbu.fails(4, "lab", "bios", "A06", "-o", "bios.bin")
    assert rbu("lab", "bios", "A06", "-o", "bios.bin", "--force").code == 0


@pytest.mark.usefixtures("seabios")
def test_bios_refuses_versions_and_sizes_that_cant_be(rbu: Cli) -> None:
    assert "has room for" in rbu.fails(2, "lab", "bios", "v" * 100, "-o", "b")
    assert "has no room" in rbu.fails(2, "lab", "bios", "A06", "-o", "b", "--size", "64K")
    assert "--size: 'big'" in rbu.fails(2, "lab", "bios", "A06", "-o", "b", "--size", "big")
    assert rbu.files == []
