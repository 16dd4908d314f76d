"""This computer's memory as `rbu scan` sees it, and what it says about what it can't see."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from openrbu.errors import AddressError, ObstacleError
from openrbu.hosts.live_memory import DevMem, open_live_memory
from openrbu.memory.scan import search
from openrbu.units import KIB, MIB, PAGE_SIZE, PhysAddr
from rigs.cli import Cli, image_bytes
from rigs.cores import IOMEM, LOW, RAM_END, SEGMENTS, direct, put, put_core, regions
from rigs.machines import as_nobody, opened_up

IMAGE = image_bytes(size_bytes=64 * KIB)


def why_not(root: Path) -> str:
    with pytest.raises(ObstacleError) as caught:
        open_live_memory(root)
    return str(caught.value)


def put_mem(root: Path) -> Path:
    """`dev/mem`, with an image at 2 MiB."""
    path = root / "dev/mem"
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        file.truncate(RAM_END)
        file.seek(2 * MIB)
        file.write(IMAGE)
    return path


def test_kcore_is_taken_and_nothing_is_missing(tmp_path: Path) -> None:
    put_core(tmp_path)
    put(tmp_path, 2 * MIB, IMAGE)
    live = open_live_memory(tmp_path)
    assert (live.source, live.notes) == ("/proc/kcore", ())
    assert [each.address for each in search(live.memory).images] == [2 * MIB]


def test_what_kcore_lacks_is_named_and_the_rest_is_searched(tmp_path: Path) -> None:
    parts = [(MIB, 3 * MIB), (5 * MIB, RAM_END - MIB)]
    put_core(tmp_path, [SEGMENTS[1], *(direct(*part) for part in parts)])
    put(tmp_path, 2 * MIB, IMAGE)
    live = open_live_memory(tmp_path)
    assert live.memory.regions == regions(*parts)
    (note,) = live.notes
    assert note == (
        f"3.6 MiB of the memory can't be seen: {LOW[0]:#x}-{LOW[1]:#x}, 0x300000-0x500000, "
        "0x700000-0x800000"
    )
    assert len(search(live.memory).images) == 1


def test_persistent_memory_is_named_as_not_seen(tmp_path: Path) -> None:
    put_core(tmp_path)
    with (tmp_path / "proc/iomem").open("a") as iomem:
        iomem.write("c000000-dffffff : Persistent Memory (legacy)\n  c000000-cffffff : namespace\n")
    (note,) = open_live_memory(tmp_path).notes
    assert note.startswith("32 MiB of persistent memory at 0xc000000-0xe000000 can't be seen")


def test_dev_mem_is_taken_where_kcore_is_not_there(tmp_path: Path) -> None:
    put_core(tmp_path).unlink()
    put_mem(tmp_path)
    live = open_live_memory(tmp_path)
    assert isinstance(live.memory, DevMem)
    assert live.source == "/dev/mem"
    assert live.memory.regions == regions((MIB, RAM_END))
    assert "No such file" in live.notes[0]
    assert "0x0-0x100000" in live.notes[1]
    assert [each.address for each in search(live.memory).images] == [2 * MIB]
    assert live.memory.read(PhysAddr(2 * MIB), 4) == b"$RBU"


def test_dev_mem_that_shows_no_ram_is_an_obstacle(tmp_path: Path) -> None:
    put_core(tmp_path).unlink()
    os.truncate(put_mem(tmp_path), MIB)
    assert "/dev/mem: the file ends where RAM should be" in why_not(tmp_path) or os.geteuid()


@pytest.mark.parametrize(
    ("lockdown", "says"),
    [
        ("none [integrity] confidentiality", "the kernel is locked down (integrity)"),
        ("[none] integrity confidentiality", "No such file"),
    ],
)
def test_a_kernel_that_is_locked_down_is_said(tmp_path: Path, lockdown: str, says: str) -> None:
    put_core(tmp_path).unlink()
    (tmp_path / "sys/kernel/security").mkdir(parents=True)
    (tmp_path / "sys/kernel/security/lockdown").write_text(lockdown + "\n")
    assert says in why_not(tmp_path) or os.geteuid()


def test_addresses_that_are_hidden_are_said(tmp_path: Path) -> None:
    put_core(tmp_path, iomem="00000000-00000000 : System RAM\n" * 3)
    assert "/proc/iomem hides where RAM is" in why_not(tmp_path)


def test_xen_is_said_and_dev_mem_is_not_tried(tmp_path: Path) -> None:
    put_core(tmp_path)
    put_mem(tmp_path)
    (tmp_path / "sys/hypervisor").mkdir(parents=True)
    (tmp_path / "sys/hypervisor/type").write_text("xen\n")
    (tmp_path / "sys/hypervisor/guest_type").write_text("PV\n")
    assert "runs on Xen" in why_not(tmp_path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_another_user_is_told_that_root_is_needed(tmp_path: Path) -> None:
    core = put_core(tmp_path, iomem=IOMEM)
    opened_up(tmp_path)
    core.chmod(0o600)

    def work() -> None:
        assert "only root can read memory" in why_not(tmp_path)

    as_nobody(work)


@pytest.mark.skipif(Path("/proc/kcore").exists(), reason="this computer shows its memory")
def test_without_a_memory_and_without_a_way_to_see_it_one_line_says_why(rbu: Cli) -> None:
    said = rbu.fails(4, "scan")
    assert "the memory of this computer can't be seen: /proc/kcore: No such file" in said
    assert "name one" in rbu.fails(2, "scan", "--offset", "0x1000")
    assert rbu.files == []
    assert "can't be seen" in rbu.fails(4, "scan", "--map", "map.svg")


def test_reading_across_the_end_is_refused(tmp_path: Path) -> None:
    put_core(tmp_path).unlink()
    put_mem(tmp_path)
    memory = open_live_memory(tmp_path).memory
    with pytest.raises(AddressError):
        memory.read(PhysAddr(RAM_END - PAGE_SIZE), 2 * PAGE_SIZE)
