"""Xen in the lab: fetched where it is asked for, and the words that QEMU starts it with."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from openrbu.errors import UsageError
from openrbu.lab import packages, xen
from openrbu.lab.packages import get_guest_software, get_xen
from openrbu.lab.xen import XenBoot
from openrbu.units import GIB, MIB
from rigs.archive import Archive
from rigs.cli import Cli, names_in

HYPERVISOR = "xen-hypervisor-4.17-amd64"


def test_xen_is_fetched_only_where_it_is_asked_for_and_is_there_uncompressed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENRBU_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(packages, "INSTALLED_SEABIOS", tmp_path / "none")
    archive = Archive(tmp_path, monkeypatch)
    compressed = gzip.compress(b"the hypervisor")
    archive.add(HYPERVISOR, "4.17.7-1", {"boot/xen-4.17-amd64.gz": compressed})
    archive.add("xen-system-amd64", "4.17.7-1", {}, f"Depends: {HYPERVISOR}, xen-utils-4.17\n")
    archive.fill()
    get_guest_software(lambda _: None)
    kept = names_in(tmp_path / "cache" / "packages")
    assert not [name for name in kept if name.startswith("xen")]

    lines: list[str] = []
    assert get_xen(lines.append).read_bytes() == b"the hypervisor"
    assert [line.split(" (")[0] for line in lines] == [f"fetching {HYPERVISOR} 4.17.7-1"]
    assert get_xen(pytest.fail).read_bytes() == b"the hypervisor"


def test_dom0_starts_with_half_of_the_memory_and_restarts_warm() -> None:
    words = XenBoot.of(Path("/xen.elf"), 1 * GIB).arguments(7, 8, "quiet")
    assert words[:2] == ["-kernel", "/xen.elf"]
    line = words[words.index("-append") + 1].split()
    assert {"dom0_mem=512M,max:768M", "reboot=warm"} <= set(line)


def test_a_comma_in_the_kernels_words_ends_no_module() -> None:
    words = XenBoot(Path("/xen.elf"), 512 * MIB, 768 * MIB).arguments(7, 8, 'init "/a b, c/x"')
    modules = words[words.index("-initrd") + 1]
    assert modules == '/proc/self/fd/7 init "/a b,, c/x",/proc/self/fd/8'


def test_a_machine_that_is_too_small_for_xen_is_refused(rbu: Cli) -> None:
    with pytest.raises(UsageError, match="needs 640 MiB of RAM or more, not 639 MiB"):
        xen.check_ram(639 * MIB)
    ended = rbu("lab", "shell", "--xen", "--ram", "512M", "--", "true")
    assert ended.code == 2
    assert ended.err == "rbu: a machine with Xen needs 640 MiB of RAM or more, not 512 MiB\n"
