"""A kernel that crashes when its driver drops packets: known by what it does, and never made to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from openrbu.errors import ObstacleError, UpdateFailedError
from openrbu.formats.packet import split
from openrbu.hosts.virtual import VirtualHost
from openrbu.memory.scan import search
from openrbu.units import KIB, PhysAddr
from openrbu.update import flow, stage
from openrbu.update.cancelling import cancel
from openrbu.update.clearing import Clearing, MayCrashError, clearing_of
from openrbu.update.driver import RbuDriver, ReadBack
from openrbu.update.options import Options
from openrbu.update.plan import make_plan
from openrbu.update.report import read_status
from rigs.cli import Cli
from rigs.machines import (
    FLASH_BYTES,
    NEWER,
    Quiet,
    hidden_memory,
    image,
    image_bytes,
    make,
    running,
    update,
)

SIZE = 4 * KIB
PACKETS = bytes(split(image_bytes(flash_size_bytes=32 * KIB), set_id=7))
COUNT = len(PACKETS) // SIZE


def packets(*numbers: int) -> bytes:
    return b"".join(PACKETS[number * SIZE : (number + 1) * SIZE] for number in numbers)


ALL = tuple(range(COUNT))


@pytest.mark.parametrize(
    ("staged", "clearing"),
    [
        (b"", "is_safe"),
        (PACKETS, "is_safe"),
        (packets(0), "is_safe"),
        (packets(0, 1) + b"?" * SIZE, "is_safe"),
        (packets(*ALL[3:]), "is_safe"),  # of another tool, and whole to the end
        (packets(*ALL[1:]) + bytes(SIZE), "crashes"),
        (packets(0, *ALL[2:]) + bytes(SIZE), "crashes"),
        (packets(*ALL[1:]) + packets(3), "crashes"),  # what the kernel had in its buffer before
        (packets(1) + bytes(SIZE), "crashes"),
        (bytes(SIZE), "unknown"),
        (b"?" * 3 * SIZE, "unknown"),
        (packets(2, 1, 0), "unknown"),
        (packets(*ALL[3:]) + bytes(SIZE), "unknown"),
        (packets(0) + b"?" * SIZE, "unknown"),
    ],
)
def test_a_packet_that_is_skipped_shows_the_bug(staged: bytes, clearing: str) -> None:
    assert clearing_of(staged, SIZE) == clearing


def test_packets_of_no_known_size_are_not_known_to_be_safe() -> None:
    assert clearing_of(b"?" * 100, 0) is Clearing.UNKNOWN


Call = Callable[[VirtualHost], object]

DROPPING: dict[str, Call] = {
    "set_type": lambda host: RbuDriver(host).set_type("mono"),
    "set_packet_size": lambda host: RbuDriver(host).set_packet_size(8192),
    "request_entry": lambda host: RbuDriver(host).request_entry(),
    "deliver": lambda host: RbuDriver(host).deliver(bytes(8192), lambda done: None),
    "overwrite_freed": lambda host: RbuDriver(host).overwrite_freed(8192),
    "unload": lambda host: RbuDriver(host).unload(),
    "load_driver": lambda host: stage.load_driver(host, "packet"),
    "clear_memory": lambda host: stage.clear_memory(host, 8192),
    "restore": lambda host: stage.restore(
        host, stage.DriverState(was_loaded=True), delivered_bytes=8192
    ),
    "restore what was not loaded": lambda host: stage.restore(
        host, stage.DriverState(was_loaded=False), delivered_bytes=0
    ),
}
"""All that makes a driver drop what is staged."""


@pytest.mark.parametrize("name", DROPPING)
@pytest.mark.parametrize("what", ["packets", "something else"])
def test_nothing_makes_such_a_kernel_drop_its_packets(tmp_path: Path, name: str, what: str) -> None:
    with running(make(tmp_path, profile="linux-5.7")) as machine:
        host = VirtualHost(machine)
        driver = RbuDriver(host)
        driver.load("packet")
        driver.set_packet_size(SIZE)
        driver.deliver(PACKETS if what == "packets" else b"x" * 3 * SIZE, lambda done: None)
        with pytest.raises(
            MayCrashError, match=r"CVE-2025-38197.*: restart the machine"
        ) as refused:
            DROPPING[name](host)
        assert refused.value.clearing == ("crashes" if what == "packets" else "unknown")
        assert not cancel(host).changed
        assert not machine.running_kernel().is_dead
        assert driver.has_staged_data


@pytest.mark.parametrize("size_kib", [4, 8, 64])
def test_an_update_on_such_a_kernel_is_armed_named_and_cancelled_by_its_token(
    tmp_path: Path, size_kib: int
) -> None:
    """Seen in memory the packets are right, those above a page, too."""
    with running(make(tmp_path, profile="linux-5.7")) as machine:
        host = VirtualHost(machine)
        outcome = update(host, image(), mode="packet", packet_size_bytes=size_kib * KIB)
        assert outcome.verified.read_back is ReadBack.SKIPS_A_PACKET
        assert outcome.verified.extents
        now = read_status(host)
        assert (now.has_driver_bug, now.next_restart) == (True, "updates")
        done = cancel(host)
        assert (done.was_armed, done.left_staged, done.problem) == (True, True, "")
        now = read_status(host)
        assert (now.is_armed, now.restart_mode, now.has_driver_bug) == (False, "cold", True)
        with pytest.raises(ObstacleError, match=r"CVE-2025-38197 .* restart the machine first"):
            update(host, image(), mode="packet")
        assert not machine.running_kernel().is_dead
        machine.restart()
        update(host, image(), mode="packet")
        assert machine.restart().version_after == NEWER["precision-390"]


def test_where_memory_can_not_be_read_the_bug_is_named_and_nothing_is_armed(
    tmp_path: Path,
) -> None:
    with running(make(tmp_path, profile="linux-5.7")) as machine:
        host = hidden_memory(VirtualHost(machine))
        with pytest.raises(
            UpdateFailedError,
            match=r"CVE-2025-38197 .* can't be checked: restart, then use --mode mono",
        ):
            update(host, image(), mode="packet")
        assert not machine.is_armed
        assert not machine.running_kernel().is_dead


def test_a_packet_above_a_page_that_a_neighbour_has_overwritten_is_seen(tmp_path: Path) -> None:
    """As such a kernel does it: it clears the packet before too far."""
    with running(make(tmp_path, profile="linux-5.7")) as machine:

        class Overwriting(Quiet):
            def step(self, text: str) -> None:
                if text.startswith("verifying"):
                    (found,) = search(machine.ram, flash_size_bytes=FLASH_BYTES).packet_sets
                    for address in found.places[1]:  # and where it was delivered
                        machine.ram.zero(PhysAddr(address + SIZE), SIZE)

        host = VirtualHost(machine)
        plan = make_plan(host, image(), Options(mode="packet", packet_size_bytes=2 * SIZE))
        with pytest.raises(UpdateFailedError, match="something else than was delivered"):
            flow.perform(host, plan, Overwriting())
        assert not machine.is_armed
        assert not machine.running_kernel().is_dead


def test_the_commands_name_the_bug(rbu: Cli) -> None:
    assert (
        rbu("machine", "new", "demo", "--model", "precision-390", "--profile", "linux-5.7").code
        == 0
    )
    image_file = rbu.image("2.3.0", system=0x01DE)
    said = rbu("update", image_file, "--machine", "demo", "--mode", "packet").out
    assert "note: this kernel's dell_rbu has the bug CVE-2025-38197" in " ".join(said.split())
    assert rbu.json("status", "--machine", "demo")["driver_bug"] == "CVE-2025-38197"
    assert "CVE-2025-38197" in rbu("status", "--machine", "demo").out
    said = rbu("cancel", "--machine", "demo").out
    assert "may crash when it drops the staged packets (CVE-2025-38197)" in " ".join(said.split())
