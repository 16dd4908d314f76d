"""What a plan says of memory: on trees of files that look like a real machine's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from openrbu.hosts.linux import LinuxHost
from openrbu.linux.memory import (
    NR_HUGEPAGES,
    HugePagePool,
    read_available_bytes,
    read_huge_page_pools,
    read_traits,
)
from openrbu.units import KIB, MIB
from openrbu.update.checks.check import Check, Verdict
from openrbu.update.options import Options
from openrbu.update.plan import make_plan
from rigs.hazards import sound_machine
from rigs.machines import image

DMA = "Node 0, zone      DMA {0}\n"
"""Which a kernel keeps for devices that reach no other memory, where there is more."""

LOW = "Node 0, zone    DMA32 {0}\n"
HIGH = "Node 0, zone   Normal {0}\n"
FULL = "9 9 9 9 9 9 9 9 9 9 700"
PAGES = "90000 0 0 0 0 0 0 0 0 0 0"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OPENRBU_HOME", str(tmp_path / "state"))
    return sound_machine(tmp_path)


def put(machine: Path, path: str, text: str) -> None:
    file = machine / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def row(machine: Path, name: str, **options: Any) -> Check:
    checks = make_plan(LinuxHost(machine), image(), Options(**options)).checks
    (found,) = [check for check in checks if check.name == name]
    return found


@pytest.mark.parametrize(
    ("way", "zones", "verdict", "says"),
    [
        (("mono", 4 * KIB), LOW.format(FULL), Verdict.FINE, "1 block of 256 KiB is needed"),
        (
            ("mono", 4 * KIB),
            LOW.format(PAGES),
            Verdict.UNKNOWN,
            "largest free block below 4 GiB is",
        ),
        (("mono", 4 * KIB), LOW.format(PAGES) + HIGH.format(FULL), Verdict.UNKNOWN, "0 are free"),
        (("packet", 4 * KIB), LOW.format(PAGES), Verdict.FINE, "34 blocks of 4 KiB are needed"),
        (("packet", 4 * KIB), LOW.format("1 0 0"), Verdict.UNKNOWN, "needed, 1 is free"),
        (("packet", 4 * KIB), LOW.format("9 0 0"), Verdict.UNKNOWN, "free some memory"),
        (("packet", 64 * KIB), LOW.format(FULL), Verdict.FINE, "DMA32 4 MiB"),
        (("mono", 4 * KIB), DMA.format(FULL) + LOW.format(PAGES), Verdict.UNKNOWN, "0 are free"),
        (("mono", 4 * KIB), DMA.format(FULL), Verdict.FINE, "DMA 4 MiB"),
        (("packet", 64 * KIB), LOW.format(PAGES), Verdict.HANDLED, "smaller packets are tried"),
    ],
)
def test_blocks_are_counted_for_each_mode_and_size(
    machine: Path, way: tuple[str, int], zones: str, verdict: Verdict, says: str
) -> None:
    mode, size = way
    put(machine, "/proc/buddyinfo", zones)
    found = row(machine, "free_blocks", mode=mode, packet_size_bytes=size)
    assert found.verdict is verdict
    assert says in found.message


@pytest.mark.parametrize(
    ("prepare", "options", "verdict", "says"),
    [
        (lambda machine: None, {}, Verdict.HANDLED, "in one piece"),
        (lambda machine: None, {"mode": "packet"}, Verdict.HANDLED, "all in one block"),
        (
            lambda machine: put(machine, NR_HUGEPAGES, "0\n"),
            {"mode": "packet", "packet_size_bytes": 4 * MIB},
            Verdict.HANDLED,
            "held in huge pages",
        ),
        (
            lambda machine: None,
            {"mode": "packet", "packet_size_bytes": 4 * MIB},
            Verdict.UNKNOWN,
            "mem=4G",
        ),
        (lambda machine: None, {"memory_above_4g": True}, Verdict.FINE, "searches, too"),
    ],
)
def test_memory_above_4_gib_is_told_with_the_way_around_it(
    machine: Path,
    prepare: Callable[[Path], None],
    options: dict[str, Any],
    verdict: Verdict,
    says: str,
) -> None:
    put(machine, "/proc/buddyinfo", LOW.format(FULL) + HIGH.format(FULL))
    prepare(machine)
    found = row(machine, "memory_above_4_gib", **options)
    assert found.verdict is verdict
    assert says in found.message


@pytest.mark.parametrize(("kib", "verdict"), [(900_000, "fine"), (28 * 1024, "unknown")])
def test_little_available_memory_is_told(machine: Path, kib: int, verdict: str) -> None:
    put(machine, "/proc/meminfo", f"MemTotal: 1 kB\nMemAvailable:  {kib} kB\n")
    assert read_available_bytes(LinuxHost(machine)) == kib * KIB
    assert row(machine, "available_memory").verdict == verdict


@pytest.mark.parametrize(
    ("flags", "words", "verdict"),
    [
        ("fpu sme", "ro mem_encrypt=on", "unknown"),
        ("fpu", "mem_encrypt=on", "unknown"),
        ("fpu sme sev", "ro", "unknown"),
        ("fpu tme", "", "unknown"),
        ("fpu sme", "mem_encrypt=on mem_encrypt=off", None),
        ("fpu", "ro", None),
    ],
)
def test_encrypted_memory_is_told(
    machine: Path, flags: str, words: str, verdict: str | None
) -> None:
    put(machine, "/proc/cpuinfo", f"processor\t: 0\nflags\t\t: {flags}\n")
    put(machine, "/proc/cmdline", f"{words}\n")
    checks = make_plan(LinuxHost(machine), image(), Options()).checks
    found = [check.verdict.value for check in checks if check.name == "memory_encryption"]
    assert found == ([] if verdict is None else [verdict])


def test_what_clears_pages_and_hibernation_are_told(machine: Path) -> None:
    put(machine, "/proc/cmdline", "ro init_on_free=1 page_poison=on page_poison=maybe\n")
    put(machine, "/sys/power/resume", "8:2\n")
    assert read_traits(LinuxHost(machine)).clears == ("init_on_free=1", "page_poison=on")
    assert row(machine, "cleared_pages").verdict is Verdict.FINE
    assert "do not hibernate" in row(machine, "hibernation").advice
    put(machine, "/sys/power/resume", "0:0\n")
    with pytest.raises(ValueError, match="not enough values"):
        row(machine, "hibernation")


# -- the pools of huge pages ----------------------------------------------------------------


def test_each_node_has_a_pool_of_its_own(machine: Path) -> None:
    node = "/sys/devices/system/node/node{}/hugepages/hugepages-2048kB/nr_hugepages"
    put(machine, "/proc/buddyinfo", LOW.format(FULL) + HIGH.replace("0,", "1,").format(FULL))
    put(machine, NR_HUGEPAGES, "7\n")
    host = LinuxHost(machine)
    assert read_huge_page_pools(host) == ()  # of two nodes nobody knows which gets how many
    for number in (0, 1):
        put(machine, node.format(number), f"{number + 3}\n")
    assert read_huge_page_pools(host) == tuple(
        HugePagePool(node.format(number), number, number + 3) for number in (0, 1)
    )


def test_other_sizes_of_huge_pages_are_left_alone(machine: Path) -> None:
    put(machine, "/proc/buddyinfo", LOW.format(FULL))
    put(machine, NR_HUGEPAGES, "7\n")
    host = LinuxHost(machine)
    assert read_huge_page_pools(host) == (HugePagePool(NR_HUGEPAGES, None, 7),)
    put(machine, "/proc/meminfo", "Hugepagesize:    1048576 kB\n")
    assert read_huge_page_pools(host) == ()
