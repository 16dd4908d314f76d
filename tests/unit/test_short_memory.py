"""Memory that does not suffice as it is: the update goes through in another way, or tells all that
was tried."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from openrbu.errors import KernelError, OpenRbuError, UpdateFailedError
from openrbu.formats.dell import CompletionCode
from openrbu.formats.hdr import Image, SystemId, make_image
from openrbu.formats.version import BiosVersion
from openrbu.hosts.base import read_text
from openrbu.hosts.virtual import VirtualHost
from openrbu.linux.memory import NR_HUGEPAGES, read_count
from openrbu.machine.virtual import VirtualMachine
from openrbu.units import GIB, KIB, MIB, PhysAddr
from openrbu.update import flow
from openrbu.update.arm import activation_for, set_armed
from openrbu.update.cancelling import cancel
from openrbu.update.driver import IMAGE_TYPE
from openrbu.update.journal import Change, Journal
from openrbu.update.options import Options
from openrbu.update.outcome import Outcome
from openrbu.update.plan import Plan, make_plan
from openrbu.update.report import read_status
from openrbu.update.stage import DROP_CACHES
from openrbu.update.target import read_target
from openrbu.update.ways import COMPACT_MEMORY, LADDER, Trouble
from rigs.machines import (
    FailAt,
    Quiet,
    Watched,
    image,
    in_child,
    is_a_look,
    kill_self,
    make,
    running,
    status,
    update,
)
from rigs.systems import directory_of, each_packet_server

pytestmark = pytest.mark.untraced  # each fails at every call in turn: traced it takes minutes

SERVER_FLASH_BYTES = 32 * MIB


@pytest.fixture
def server(tmp_path: Path) -> Iterator[VirtualMachine]:
    """8 GiB, a real kernel's driver, and a BIOS with the published rules."""
    with running(make(tmp_path, ram_bytes=8 * GIB, profile="linux")) as machine:
        yield machine


def ends_well(machine: VirtualMachine) -> bool:
    report = machine.restart()
    return (report.version_after, report.completion_code) == ("2.3.0", CompletionCode.COMPLETED)


def highest(outcome: Outcome) -> int:
    """Where in memory the staged packets end."""
    assert outcome.verified.extents
    return max(extent.end for extent in outcome.verified.extents)


def noted_changes(host: VirtualHost) -> list[Change]:
    """What the journal says of the number of huge pages."""
    last = Journal.of(host).last
    assert last is not None
    return [change for change in last.changes if change.path == NR_HUGEPAGES]


class Without(Watched):
    """A host whose kernel does not have these files."""

    def __init__(self, host: Any, *paths: str) -> None:
        exists = {"exists": lambda path: path not in paths and host.exists(path)}
        super().__init__(host, lambda *_: None, exists)


class Noted(Watched):
    """A host that has files which take what is written to them, and notes it."""

    def __init__(self, host: Any, *paths: str, then: Callable[[], None] = lambda: None) -> None:
        self.written: list[str] = []

        def write(path: str, data: bytes, offset: int = 0) -> None:
            if path in paths:
                self.written.append(path)
                then()
            else:
                host.write(path, data, offset)

        exists = {"exists": lambda path: path in paths or host.exists(path)}
        super().__init__(host, lambda *_: None, {"write": write} | exists)


# -- memory above 4 GiB ---------------------------------------------------------------------


@each_packet_server
@pytest.mark.parametrize("ram_gib", [8, 64])
def test_a_server_with_much_memory_is_updated_in_packets(
    tmp_path: Path, name: str, ram_gib: int
) -> None:
    directory = make(
        tmp_path,
        tables=directory_of(name),
        ram_bytes=ram_gib * GIB,
        flash_size_bytes=SERVER_FLASH_BYTES,
        profile="linux",
    )
    what = make_image(
        random.Random(7).randbytes(SERVER_FLASH_BYTES),
        version=BiosVersion.parse("2.3.0"),
        systems=[SystemId(0x0716)],
    )
    with running(directory) as machine:
        host = VirtualHost(machine)
        planned = make_plan(host, Image.parse(what), Options())
        assert (planned.refusal, planned.mode, planned.way.name) == (None, "packet", "held")
        (row,) = [check for check in planned.checks if check.name == "memory_above_4_gib"]
        assert row.verdict == "handled"
        outcome = flow.perform(host, planned, Quiet())
        assert outcome is not None
        assert (outcome.way.name, outcome.tried) == ("held", ())
        assert highest(outcome) <= 4 * GIB
        assert read_count(host, NR_HUGEPAGES) == 0
        assert ends_well(machine)


@pytest.mark.parametrize("size", [4 * KIB, 64 * KIB, 1 * MIB])
def test_packets_of_any_size_come_to_lie_below_4_gib(tmp_path: Path, size: int) -> None:
    large = 6 * MIB
    directory = make(tmp_path, ram_bytes=8 * GIB, profile="linux", flash_size_bytes=large)
    with running(directory) as machine:
        host = VirtualHost(machine)
        what = image(flash_size_bytes=large)
        outcome = update(host, what, mode="packet", packet_size_bytes=size)
        assert outcome.way.holds_memory
        assert highest(outcome) <= 4 * GIB
        assert ends_well(machine)


def test_small_sets_of_packets_are_staged_in_one_block(server: VirtualMachine) -> None:
    host = VirtualHost(server)
    planned = make_plan(host, image(), Options(mode="packet"))
    assert (planned.way.name, planned.block_size_bytes) == ("one_block", 256 * KIB)
    outcome = flow.perform(host, planned, Quiet())
    assert outcome is not None
    assert (outcome.mode, outcome.way.in_one_block, outcome.tried) == ("packet", True, ())
    (extent,) = outcome.verified.extents or ()
    assert extent.end <= 4 * GIB
    assert read_text(host, "/sys/devices/platform/dell_rbu/image_type") == "mono"
    assert ends_well(server)
    assert server.last_post is not None
    assert server.last_post.mode == "packet"


def test_one_block_has_a_password_too(tmp_path: Path) -> None:
    """And the mode that is chosen by itself has a place for it."""
    secret = make(tmp_path, ram_bytes=8 * GIB, profile="linux", admin_password="secret")
    with running(secret) as machine:
        host = VirtualHost(machine)
        planned = make_plan(host, image(), Options(password="secret"))
        assert (planned.refusal, planned.mode, planned.way.name) == (None, "packet", "one_block")
        assert flow.perform(host, planned, Quiet()) is not None
        assert ends_well(machine)


def test_without_a_free_block_memory_is_held(server: VirtualMachine) -> None:
    allocator = server.running_kernel().allocator
    high = [allocator.allocate(10) for _ in range(5 * GIB // (4 * MIB))]
    allocator.fragment(keep_free_order=5)
    for address in high:
        allocator.free(address, 10)
    outcome = update(VirtualHost(server), image(), mode="packet")
    assert outcome.way.name == "held"
    assert highest(outcome) <= 4 * GIB
    assert ends_well(server)


def test_what_is_left_above_in_small_pieces_is_passed_by_large_packets(tmp_path: Path) -> None:
    """Zone Normal has no huge page left, and thousands of smaller blocks: packets of a page come
    from there first."""
    large = 6 * MIB
    directory = make(tmp_path, ram_bytes=8 * GIB, profile="linux", flash_size_bytes=large)
    with running(directory) as machine:
        host = VirtualHost(machine)
        allocator = machine.running_kernel().allocator
        pieces = [allocator.allocate(7) for _ in range(8 * 16)]
        for piece in pieces[::2]:
            allocator.free(piece, 7)
        outcome = update(host, image(flash_size_bytes=large), mode="packet")
        assert (outcome.way.name, outcome.way.packet_size_bytes) == ("held_large", 2 * MIB)
        assert outcome.tried[0].startswith("packets are above 4 GiB")
        assert highest(outcome) <= 4 * GIB
        assert ends_well(machine)


def test_memory_that_is_short_while_a_try_is_taken_back_does_not_end_the_update(
    tmp_path: Path,
) -> None:
    """Other programs take all memory below 4 GiB, from the first look at what was staged until that
    is dropped."""
    large = 6 * MIB
    directory = make(tmp_path, ram_bytes=8 * GIB, profile="linux", flash_size_bytes=large)
    with running(directory) as machine:
        allocator = machine.running_kernel().allocator
        pieces = [allocator.allocate(7) for _ in range(8 * 16)]
        for piece in pieces[::2]:
            allocator.free(piece, 7)
        plan = make_plan(
            VirtualHost(machine), image(flash_size_bytes=large), Options(mode="packet")
        )
        taken: list[PhysAddr] = []
        looks = 0

        def before(name: str, arguments: tuple[Any, ...]) -> None:
            nonlocal looks
            if name == "physical_memory":
                looks += 1
                with contextlib.suppress(KernelError):
                    while looks == 1:
                        taken.append(allocator.allocate(10, below=PhysAddr(4 * GIB)))
            elif name == "write" and arguments[0] == IMAGE_TYPE:
                while taken:
                    allocator.free(taken.pop(), 10)

        outcome = flow.perform(Watched(VirtualHost(machine), before), plan, Quiet())
        assert looks > 1
        assert outcome is not None
        assert outcome.way.name == "held_large"
        assert ends_well(machine)


def test_without_huge_pages_the_error_says_what_is_left_to_do(tmp_path: Path) -> None:
    large = 6 * MIB
    directory = make(tmp_path, ram_bytes=8 * GIB, profile="linux", flash_size_bytes=large)
    with running(directory) as machine:
        host = Without(VirtualHost(machine), NR_HUGEPAGES)
        before = status(machine)
        what = image(flash_size_bytes=large)
        planned = make_plan(host, what, Options())
        assert planned.way.name == "planned"
        assert any("start Linux with mem=4G" in note for note in planned.notes)
        with pytest.raises(
            UpdateFailedError,
            match=r"packets are above 4 GiB.*only up to 4 MiB.*can't be held: this kernel has no "
            r"huge pages.*mem=4G.*--memory-above-4g",
        ):
            flow.perform(host, planned, Quiet())
        assert status(machine) == before
        assert flow.perform(host, make_plan(host, what, Options(memory_above_4g=True)), Quiet())


def test_a_bios_that_searches_above_4_gib_gets_its_packets_there(tmp_path: Path) -> None:
    directory = make(
        tmp_path, "poweredge-2950", ram_bytes=8 * GIB, profile="linux", flash_size_bytes=1 * MIB
    )
    with running(directory) as machine:
        host = VirtualHost(machine)
        what = image("poweredge-2950", flash_size_bytes=1 * MIB)
        outcome = update(host, what, mode="packet")
        assert outcome.way.name == "planned"
        assert highest(outcome) > 4 * GIB


# -- what is held is given back -------------------------------------------------------------


@pytest.fixture
def large_plan(tmp_path: Path) -> Iterator[tuple[VirtualMachine, Plan]]:
    """A machine on which memory has to be held, with 3 huge pages of its own."""
    large = 5 * MIB
    directory = make(tmp_path, ram_bytes=5 * GIB, profile="linux", flash_size_bytes=large)
    with running(directory) as machine:
        host = VirtualHost(machine)
        host.write(NR_HUGEPAGES, b"3")
        plan = make_plan(host, image(flash_size_bytes=large), Options())
        assert plan.way.holds_memory
        yield machine, plan


def test_the_old_number_is_in_the_journal_before_the_first_change(
    large_plan: tuple[VirtualMachine, Plan],
) -> None:
    machine, plan = large_plan
    host = VirtualHost(machine)
    noted: list[Any] = []

    def before(name: str, arguments: tuple[Any, ...]) -> None:
        if name == "write" and arguments[0] == NR_HUGEPAGES:
            noted.append((noted_changes(host), arguments[1]))

    assert flow.perform(Watched(host, before), plan, Quiet()) is not None
    assert len(noted) > 2
    assert all(changes == [Change(NR_HUGEPAGES, "3", None)] for changes, _ in noted)
    assert noted[-1][1] == b"3"
    assert noted_changes(host) == [Change(NR_HUGEPAGES, "3", "3")]
    assert read_count(host, NR_HUGEPAGES) == 3


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), KeyboardInterrupt()])
def test_a_failure_at_any_call_gives_back_what_is_held(
    large_plan: tuple[VirtualMachine, Plan], error: BaseException
) -> None:
    """At calls before, while and after the number is raised."""
    machine, plan = large_plan
    host = VirtualHost(machine)
    before = status(machine)
    calls: list[str] = []

    def note(*call: Any) -> None:
        if not is_a_look():  # as `FailAt` counts
            calls.append(str(call))

    flow.perform(Watched(host, note), plan, Quiet())
    cancel(host)
    host.unload_module("dell_rbu")
    assert status(machine) == before
    writes = [n for n, call in enumerate(calls) if "write" in call and NR_HUGEPAGES in call]
    first, last = writes[0], writes[-1]
    around = [first, first + 1, first + 2, last - 1, last, last + 1, last + 2, len(calls) - 1]
    failed = 0
    for number in [*around, (first + last) // 2]:
        fail = FailAt(number, error)
        try:
            flow.perform(Watched(host, fail), plan, Quiet())
        except (OpenRbuError, KeyboardInterrupt):
            failed += 1
        else:  # a call that nobody waits for
            cancel(host)
            host.unload_module("dell_rbu")
        assert fail.has_failed
        assert status(machine) == before, fail.failed
    assert failed > 5


@pytest.mark.parametrize("then", ["status", "cancel", "update"])
def test_a_kill_while_memory_is_held_is_made_good_by_the_next_command(
    tmp_path: Path, then: str
) -> None:
    large = 5 * MIB
    directory = make(tmp_path, ram_bytes=5 * GIB, profile="linux", flash_size_bytes=large)
    what = image(flash_size_bytes=large)
    with running(directory) as machine:
        VirtualHost(machine).write(NR_HUGEPAGES, b"3")

    def killed() -> None:
        with VirtualMachine(directory) as machine:
            host = VirtualHost(machine)

            def before(name: str, arguments: tuple[Any, ...]) -> None:
                if arguments[:1] == ("/sys/class/firmware/dell_rbu/loading",) and name == "write":
                    machine.close()  # what the kernel has stays, as on a real machine
                    kill_self()

            flow.perform(Watched(host, before), make_plan(host, what, Options()), Quiet())

    assert in_child(killed) == -9
    with VirtualMachine(directory) as machine:
        host = VirtualHost(machine)
        assert read_count(host, NR_HUGEPAGES) > 100
        if then == "status":
            read_status(host)
        elif then == "cancel":
            cancel(host)
        else:
            update(host, what)
            assert machine.is_armed
        assert read_count(host, NR_HUGEPAGES) == 3
        host.write(NR_HUGEPAGES, b"5")  # what somebody sets from now on stays
        cancel(host)
        assert read_count(host, NR_HUGEPAGES) == 5


def test_too_little_memory_below_4_gib_is_not_held_for(tmp_path: Path) -> None:
    """The machine has to live: what the update and it need is left below 4 GiB."""
    large = 5 * MIB
    directory = make(tmp_path, ram_bytes=5 * GIB, profile="linux", flash_size_bytes=large)
    with running(directory) as machine:
        allocator = machine.running_kernel().allocator
        taken = []
        while allocator.free_bytes > 2 * GIB + 100 * MIB:
            taken.append(allocator.allocate(10, below=4 * GIB))  # type: ignore[arg-type]
        with pytest.raises(UpdateFailedError, match=r"free below 4 GiB, and .* are needed there"):
            update(VirtualHost(machine), image(flash_size_bytes=large))
        assert read_count(VirtualHost(machine), NR_HUGEPAGES) == 0


# -- memory in small pieces -----------------------------------------------------------------


def test_large_packets_become_smaller_ones_that_fit(tmp_path: Path) -> None:
    with running(make(tmp_path, profile="linux")) as machine:
        host = VirtualHost(machine)
        machine.running_kernel().allocator.fragment(keep_free_order=2)
        outcome = update(host, image(), mode="packet", packet_size_bytes=64 * KIB)
        assert (outcome.way.name, outcome.way.packet_size_bytes) == ("smaller_packets", 16 * KIB)
        assert outcome.tried[0] == "no free memory for 4 blocks of 64 KiB"
        assert ends_well(machine)


def test_in_the_end_a_page_is_enough_for_a_packet(tmp_path: Path) -> None:
    with running(make(tmp_path, profile="linux")) as machine:
        machine.running_kernel().allocator.fragment(keep_free_order=0)
        outcome = update(VirtualHost(machine), image(), mode="packet", packet_size_bytes=8 * KIB)
        assert (outcome.way.name, outcome.way.packet_size_bytes) == ("smallest_packets", 4 * KIB)
        assert ends_well(machine)


def test_a_failure_says_that_what_was_staged_before_is_gone(tmp_path: Path) -> None:
    with running(make(tmp_path, profile="linux")) as machine:
        host = VirtualHost(machine)
        update(host, image(), mode="packet")
        set_armed(activation_for(host, read_target(host)), armed=False)  # packets of another tool
        machine.running_kernel().allocator.fragment(keep_free_order=0)
        with pytest.raises(UpdateFailedError, match="staged before this update was dropped for it"):
            update(host, image(), mode="mono")
        with pytest.raises(UpdateFailedError) as again:
            update(host, image(), mode="mono")
        assert "dropped" not in str(again.value)


def test_a_block_is_named_by_the_size_that_the_kernel_has_to_find(tmp_path: Path) -> None:
    """An image of 1 MiB and its header needs 2 MiB; two of 1 MiB are of no use."""
    directory = make(tmp_path, flash_size_bytes=1 * MIB, profile="linux")
    with running(directory) as machine:
        machine.running_kernel().allocator.fragment(keep_free_order=8)
        with pytest.raises(
            UpdateFailedError,
            match=r"no free block of 2 MiB for an image of 1024.1 KiB.*packets would fit: "
            "use --mode packet",
        ):
            update(VirtualHost(machine), image(flash_size_bytes=1 * MIB), mode="mono")


def test_caches_are_dropped_when_that_is_asked_for_and_not_else(tmp_path: Path) -> None:
    with running(make(tmp_path, profile="linux")) as machine:
        fragments = machine.running_kernel().allocator.fragment(keep_free_order=2)
        plain = Noted(VirtualHost(machine), DROP_CACHES)
        with pytest.raises(UpdateFailedError, match="no free block of 256 KiB"):
            update(plain, image(), mode="mono")
        assert plain.written == []
        asked = Noted(VirtualHost(machine), COMPACT_MEMORY, DROP_CACHES)
        with pytest.raises(UpdateFailedError, match=r"once more, memory compacted, caches dropped"):
            update(asked, image(), mode="mono", drop_caches=True)
        helps = Noted(VirtualHost(machine), DROP_CACHES, then=fragments.release)
        outcome = update(helps, image(), mode="mono", drop_caches=True)
        assert (outcome.way.name, helps.written) == ("without_caches", [DROP_CACHES])
        assert ends_well(machine)


def test_all_that_was_tried_is_told(tmp_path: Path) -> None:
    with running(make(tmp_path, profile="linux")) as machine:
        allocator = machine.running_kernel().allocator
        while allocator.free_bytes > 200 * KIB:
            allocator.allocate(0)
        host = VirtualHost(machine)
        before = status(machine)
        with pytest.raises(
            UpdateFailedError,
            match=r"^the kernel has no memory to receive .*once more.*; .*: free some memory, try "
            "--drop-caches or restart the machine$",
        ):
            update(host, image(), mode="packet", packet_size_bytes=64 * KIB)
        assert status(machine) == before


# -- the ladder itself ----------------------------------------------------------------------


def test_every_trouble_has_a_way_and_every_way_a_name_of_its_own() -> None:
    names = [rung.name for rung in LADDER]
    assert len(set(names)) == len(names)
    assert set().union(*(rung.helps for rung in LADDER)) == set(Trouble)
