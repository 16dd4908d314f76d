"""Planning: which way, what stands in it, what is worth a note; and that nothing changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from openrbu.errors import (
    DamagedInputError,
    ExitCode,
    NotForThisMachineError,
    ObstacleError,
    UsageError,
)
from openrbu.formats.dell import BiosInformation, make_bios_information
from openrbu.formats.hdr import Image
from openrbu.hosts.virtual import VirtualHost
from openrbu.linux.memory import BUDDYINFO
from openrbu.machine.models import MODELS
from openrbu.machine.virtual import VirtualMachine
from openrbu.units import GIB, KIB, MAX_BLOCK_BYTES, MIB
from openrbu.update import flow
from openrbu.update.cancelling import cancel
from openrbu.update.checks.check import Check, Question, Verdict
from openrbu.update.driver import Mode
from openrbu.update.options import Options
from openrbu.update.plan import Plan, make_plan
from rigs.machines import (
    REBOOT_MODE,
    PortsOnly,
    Watched,
    files,
    hidden_memory,
    image,
    image_bytes,
    make,
    running,
    update,
)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[VirtualMachine]:
    """A Precision 390: BIOS 2.1.2, packets, CMOS."""
    with running(make(tmp_path)) as machine:
        yield machine


@pytest.fixture
def host(machine: VirtualMachine) -> VirtualHost:
    return VirtualHost(machine)


def kinds(planned: Plan) -> list[str]:
    return [obstacle.kind for obstacle in planned.obstacles]


def plan_for(host: Any, what: Image, **options: Any) -> Plan:
    return make_plan(host, what, Options(**options))


# -- no change ------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("state", ["fresh", "armed", "module loaded"])
def test_planning_changes_nothing_at_all(tmp_path: Path, model: str, state: str) -> None:
    directory = make(tmp_path, model, flash_size_bytes=MIB)
    with running(directory) as machine:
        host = VirtualHost(machine)
        if state == "armed":
            update(host, image(model, flash_size_bytes=MIB))
        elif state == "module loaded":
            host.load_module("dell_rbu", {"image_type": "packet"})
    before = files(directory, leave_out=("lock", "summary"))
    with VirtualMachine(directory) as machine:
        kernel = machine.running_kernel().snapshot()
        planned = plan_for(VirtualHost(machine), image(model, "A09"))
        assert machine.running_kernel().snapshot() == kernel
        assert ("armed_already" in kinds(planned)) == (state == "armed")
    assert files(directory, leave_out=("lock", "summary")) == before


# -- which way ------------------------------------------------------------------------------


def test_a_bios_that_takes_no_packets_gets_a_monolithic_image(tmp_path: Path) -> None:
    with running(make(tmp_path, "poweredge-2650")) as machine:
        planned = plan_for(VirtualHost(machine), image("poweredge-2650"))
    assert (planned.mode, planned.packet_count) == ("mono", 0)
    assert planned.why_mode == "this machine's BIOS takes monolithic images only"
    assert planned.staged_size_bytes == planned.image.size_bytes
    assert planned.block_size_bytes == 256 * KIB


def test_packets_are_chosen_where_the_bios_takes_them(host: VirtualHost) -> None:
    planned = plan_for(host, image())
    assert (planned.mode, planned.why_mode) == ("packet", "packets fit into any free memory")
    assert planned.packet_count == 1 + -(-planned.image.size_bytes // (4096 - 32))
    assert planned.staged_size_bytes == 4096 * planned.packet_count
    assert planned.block_size_bytes == 4096


def test_a_mode_that_was_asked_for_is_taken(host: VirtualHost) -> None:
    for mode in ("mono", "packet"):
        planned = plan_for(host, image(), mode=mode)
        assert (planned.mode, planned.why_mode) == (mode, "as asked for")


@pytest.mark.parametrize(
    ("ram_bytes", "mode"), [(3 * GIB, "packet"), (3 * GIB + MIB, "mono"), (8 * GIB, "mono")]
)
def test_with_memory_above_4_gib_one_block_below_it_is_safer_than_packets(
    tmp_path: Path, ram_bytes: int, mode: str
) -> None:
    with running(make(tmp_path, ram_bytes=ram_bytes)) as machine:
        planned = plan_for(VirtualHost(machine), image())
        assert planned.mode == mode
        asked = plan_for(VirtualHost(machine), image(), mode="packet")
    notes = [note for note in asked.notes if "above 4 GiB" in note]
    assert bool(notes) == (mode == "mono")


def test_an_image_larger_than_any_block_takes_packets_whatever_the_memory(tmp_path: Path) -> None:
    size = 8 * MIB
    with running(make(tmp_path, ram_bytes=8 * GIB, flash_size_bytes=size)) as machine:
        host = VirtualHost(machine)
        planned = plan_for(host, image(flash_size_bytes=size))
        assert (planned.mode, kinds(planned)) == ("packet", [])
        assert "no block of memory is larger than 4 MiB" in planned.why_mode
        assert kinds(plan_for(host, image(flash_size_bytes=size), mode="mono")) == [
            "too_large_for_mono"
        ]


def test_fragmented_memory_is_told_of_before_it_is_tried(tmp_path: Path) -> None:
    with running(make(tmp_path, "poweredge-2650")) as machine:
        host = VirtualHost(machine)
        what = image("poweredge-2650")
        assert not any("in one piece" in note for note in plan_for(host, what).notes)
        machine.running_kernel().allocator.fragment(keep_free_order=4)
        (note,) = [note for note in plan_for(host, what).notes if "in one piece" in note]
        assert "the largest free block below 4 GiB is 64 KiB" in note


@pytest.mark.parametrize("text", ["", "Node zero, zone DMA 1 2 3\n", None])
def test_a_buddyinfo_that_does_not_say_is_no_obstacle(host: VirtualHost, text: str | None) -> None:
    def chunks(path: str, size_bytes: int, offset: int = 0) -> Iterator[bytes]:
        if path != BUDDYINFO:
            yield from host.chunks(path, size_bytes, offset)
        elif text is None:
            raise PermissionError(13, "Permission denied", path)
        else:
            yield text.encode()

    blind = Watched(host, lambda *_: None, {"chunks": chunks})
    planned = plan_for(blind, image())
    assert (planned.mode, kinds(planned)) == ("packet", [])


# -- the wrong machine ----------------------------------------------------------------------


def test_an_image_for_another_system_is_refused_unless_that_is_wanted(host: VirtualHost) -> None:
    what = image("poweredge-2650", "A06")
    planned = plan_for(host, what)
    (obstacle,) = [each for each in planned.obstacles if each.kind == "wrong_system"]
    assert obstacle.exit_code == ExitCode.NOT_FOR_THIS_MACHINE
    assert obstacle.message == (
        "the image is for 0x0121 (PowerEdge 2650), not for Precision WorkStation 390 (0x01de)"
    )
    allowed = plan_for(host, what, allow_any_system=True, allow_downgrade=True)
    assert kinds(allowed) == []


@pytest.fixture
def no_dell(tmp_path: Path) -> Iterator[VirtualMachine]:
    """A machine whose tables say nothing but its BIOS."""
    from openrbu.formats import smbios

    information = make_bios_information(
        vendor="SeaBIOS", version="1.16.2", release_date="04/01/2014", rom_size_bytes=128 * KIB
    )
    end = smbios.make_structure(127, 0x7F00, b"")
    tables = smbios.make_tables(smbios.make_entry_point(version=(2, 6)), [information, end])
    directory = tmp_path / "tables"
    directory.mkdir()
    for name, data in zip(("smbios_entry_point", "DMI"), tables.build(), strict=True):
        (directory / name).write_bytes(data)
    with running(make(tmp_path, tables=directory)) as machine:
        assert BiosInformation.of(machine.tables).vendor == "SeaBIOS"
        yield machine


def test_a_machine_that_is_no_dell_has_all_of_it_in_the_way(no_dell: VirtualMachine) -> None:
    host = VirtualHost(no_dell)
    planned = plan_for(host, image())
    assert kinds(planned) == ["not_a_dell", "no_rbu"]
    with pytest.raises(NotForThisMachineError, match="shows no Dell system ID"):
        flow.refuse(planned)
    forced = plan_for(host, image(), allow_any_system=True)
    assert kinds(forced) == ["no_rbu"]


def test_a_machine_whose_token_can_not_be_had_is_an_obstacle(host: VirtualHost) -> None:
    blind = PortsOnly(host, None)
    (obstacle,) = plan_for(blind, image()).obstacles
    assert (obstacle.kind, obstacle.exit_code) == ("no_switch", ExitCode.OBSTACLE)
    assert "CMOS at the ports" in obstacle.message


def test_an_armed_update_is_in_the_way_of_the_next_and_both_advices_work(
    machine: VirtualMachine, host: VirtualHost
) -> None:
    next_one = image(version="2.4.0", seed=2)
    for follow in (lambda: cancel(host), machine.restart):
        update(host, image())
        (obstacle,) = plan_for(host, next_one).obstacles
        assert obstacle.kind == "armed_already"
        assert "restart, or `rbu cancel` first" in obstacle.message
        follow()
        assert kinds(plan_for(host, next_one)) == []


# -- versions -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("current", "new", "says"),
    [
        ("A05", "A06", None),
        ("A05", "0.1.0", None),
        ("A05", "a06", None),
        ("2.1.2", "2.1.10", None),
        ("A05", "A04", "A04 is not newer than A05, which this machine runs"),
        ("A05", "X06", "X06 is not newer"),
        ("2.1.2", "A99", "A99 is not newer"),
        ("2.1.2", "2.1.1", "2.1.1 is not newer"),
        ("2.1.2", "99.9.9", "99.9.9 is a special build: it never counts as newer than 2.1.2"),
        ("99.1.0", "98.9.9", "98.9.9 is not newer"),
        ("99.1.0", "0.1.0", None),
        ("99.1.0", "99.1.1", None),
    ],
)
def test_an_older_version_is_installed_only_when_that_is_wanted(
    tmp_path: Path, current: str, new: str, says: str | None
) -> None:
    with running(make(tmp_path, bios_version=current)) as machine:
        host = VirtualHost(machine)
        planned = plan_for(host, image(version=new))
        assert planned.is_needed
        assert kinds(planned) == ([] if says is None else ["downgrade"])
        if says is not None:
            assert planned.obstacles[0].message.startswith(says)
            assert "--allow-downgrade" in planned.obstacles[0].message
            assert kinds(plan_for(host, image(version=new), allow_downgrade=True)) == []


@pytest.mark.parametrize(("current", "new"), [("A05", "A05"), ("A05", "a05"), ("2.1.2", "2.1.2")])
def test_the_same_version_is_not_needed_and_not_refused(
    tmp_path: Path, current: str, new: str
) -> None:
    with running(make(tmp_path, bios_version=current)) as machine:
        planned = plan_for(VirtualHost(machine), image(version=new))
        assert not planned.is_needed
        assert kinds(planned) == []


# -- the image itself -----------------------------------------------------------------------


@pytest.mark.parametrize("offset", [50, 5000, -1])
def test_a_changed_image_is_damage(host: VirtualHost, offset: int) -> None:
    data = bytearray(image_bytes())
    data[offset] ^= 1
    planned = plan_for(host, Image.parse(bytes(data)), allow_downgrade=True)
    (obstacle,) = planned.obstacles
    assert (obstacle.kind, obstacle.exit_code) == ("damaged_image", ExitCode.DAMAGED_INPUT)


def test_a_header_alone_is_no_image(host: VirtualHost) -> None:
    planned = plan_for(host, Image.parse(image_bytes()[:84]), allow_any_system=True)
    assert kinds(planned) == ["damaged_image"]


# -- packets --------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 33, 1000, 4097, 64 * MIB, 1 << 40, -1024])
@pytest.mark.parametrize("mode", [None, "mono", "packet"])
def test_a_packet_size_that_no_packet_can_have_is_a_usage_error(
    host: VirtualHost, size: int, mode: str | None
) -> None:
    with pytest.raises(UsageError, match=f"packet size {size} is"):
        plan_for(host, image(), mode=mode, packet_size_bytes=size)


@pytest.mark.parametrize("size", [1 * KIB, 2 * KIB, 5 * KIB, 64 * KIB, 4 * MIB])
def test_other_packet_sizes_are_planned_as_they_are(host: VirtualHost, size: int) -> None:
    planned = plan_for(host, image(), packet_size_bytes=size)
    assert kinds(planned) == []
    assert planned.packet_count == 1 + -(-planned.image.size_bytes // (size - 32))
    assert planned.block_size_bytes >= size


def test_a_packet_larger_than_a_block_of_memory_is_refused(host: VirtualHost) -> None:
    planned = plan_for(host, image(), packet_size_bytes=MAX_BLOCK_BYTES + KIB)
    (obstacle,) = planned.obstacles
    assert (obstacle.kind, obstacle.exit_code) == ("packet_too_large", ExitCode.USAGE)
    assert obstacle.message == "a packet can't be larger than one block of memory, 4 MiB"


def test_more_packets_than_a_set_has_are_refused(tmp_path: Path) -> None:
    size = 64 * MIB
    with running(make(tmp_path, flash_size_bytes=size)) as machine:
        planned = plan_for(
            VirtualHost(machine), image(flash_size_bytes=size), packet_size_bytes=1 * KIB
        )
    (obstacle,) = planned.obstacles
    assert (obstacle.kind, obstacle.exit_code) == ("too_many_packets", ExitCode.USAGE)
    assert obstacle.message == (
        "an image of 67108956 bytes makes 67652 packets of 1024 bytes, over the 65535 of a set: "
        "use packets of 2048 bytes or more"
    )


def test_packets_for_a_bios_that_takes_none_are_refused(tmp_path: Path) -> None:
    with running(make(tmp_path, "poweredge-2650")) as machine:
        planned = plan_for(VirtualHost(machine), image("poweredge-2650"), mode="packet")
    assert kinds(planned) == ["no_packets"]


def test_a_password_travels_in_packets_only(host: VirtualHost) -> None:
    assert kinds(plan_for(host, image(), mode="mono", password="x")) == ["password_needs_packets"]
    assert kinds(plan_for(host, image(), password="x")) == []
    assert "x'" not in repr(Options(password="x"))


# -- notes ----------------------------------------------------------------------------------


def test_what_is_worth_knowing_is_noted(tmp_path: Path) -> None:
    with running(make(tmp_path, faults=("no-battery",))) as machine:
        host = VirtualHost(machine)
        hidden = plan_for(hidden_memory(host), image()).notes
        assert any("physical memory can't be read here" in note for note in hidden)
        notes = plan_for(host, image()).notes
        assert notes == (
            "the dell_rbu module is not loaded: the update loads it",
            "the next restart is cold: the update makes it warm",
        )
        host.load_module("dell_rbu", {})
        host.write(REBOOT_MODE, b"warm")
        assert plan_for(host, image()).notes == ()
        update(host, image())
        machine.restart()
        failed, *_ = plan_for(host, image()).notes
        assert failed == "the last update failed: there is no battery"


# -- what a plan ends with ------------------------------------------------------------------


def in_the_way(name: str, found: str, code: ExitCode = ExitCode.OBSTACLE) -> Check:
    return Check(Question.REST, name, found, Verdict.IN_THE_WAY, exit_code=code)


def test_what_can_not_be_mended_is_told_first(host: VirtualHost) -> None:
    """Damage, then another machine's, then a value that is wrong, then what can be removed."""
    planned = plan_for(host, image())
    ends = {
        ExitCode.DAMAGED_INPUT: DamagedInputError,
        ExitCode.NOT_FOR_THIS_MACHINE: NotForThisMachineError,
        ExitCode.USAGE: UsageError,
        ExitCode.OBSTACLE: ObstacleError,
    }
    obstacles = [in_the_way(f"kind{code}", f"message {code}", code) for code in ends]
    while obstacles:
        refused = replace(planned, checks=tuple(reversed(obstacles)))
        with pytest.raises(ends[obstacles[0].exit_code], match=obstacles[0].message):
            flow.refuse(refused)
        del obstacles[0]
    flow.refuse(planned)


def test_what_is_in_the_way_of_an_update_that_is_not_needed_does_not_count(
    host: VirtualHost,
) -> None:
    """But an image that is damaged or for another machine is refused all the same."""
    planned = replace(plan_for(host, image()), is_needed=False)
    assert planned.nothing_to_do
    for code in ExitCode:
        if code in (ExitCode.DONE, ExitCode.FAILED):
            continue
        judged = replace(planned, checks=(in_the_way("kind", "message", code),))
        is_refused = code is not ExitCode.OBSTACLE
        assert (judged.refusal is not None) == is_refused
        assert judged.nothing_to_do == (not is_refused)


def test_of_two_alike_the_first_is_told(host: VirtualHost) -> None:
    both = (in_the_way("one", "the first"), in_the_way("two", "the second"))
    with pytest.raises(ObstacleError, match="the first"):
        flow.refuse(replace(plan_for(host, image()), checks=both))


def test_a_machine_that_is_off_can_not_be_looked_at(tmp_path: Path) -> None:
    with (
        VirtualMachine(make(tmp_path)) as machine,
        pytest.raises(ObstacleError, match="'box' is off; start it: rbu machine reboot box"),
    ):
        plan_for(VirtualHost(machine), image())


@pytest.mark.parametrize("mode", [None, "mono", "packet"])
def test_no_advice_leads_to_the_other_obstacle(tmp_path: Path, mode: Mode | None) -> None:
    large: dict[str, Any] = {"flash_size_bytes": 5 * MIB}
    with running(make(tmp_path, "poweredge-2650", **large)) as machine:
        what = image("poweredge-2650", "A06", **large)
        found = make_plan(VirtualHost(machine), what, Options(mode=mode))
        assert found.obstacles
        for obstacle in found.obstacles:
            assert "use " not in obstacle.message


# -- all that was looked at -----------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_each_question_has_an_answer_in_their_order_and_each_check_says_what_was_found(
    tmp_path: Path, model: str
) -> None:
    with running(make(tmp_path, model, flash_size_bytes=MIB)) as machine:
        planned = plan_for(VirtualHost(machine), image(model, flash_size_bytes=MIB))
    order = list(Question)
    asked = [order.index(each.question) for each in planned.checks]
    assert asked == sorted(asked)
    assert {*range(order.index(Question.ARMING) + 1)} <= {*asked}
    assert all(each.found and each.name.isidentifier() for each in planned.checks)


def test_obstacles_and_notes_are_the_checks_with_their_verdicts(host: VirtualHost) -> None:
    checks = tuple(
        Check(Question.REST, verdict.value, "seen", verdict, "do it", obstacle="for_scripts")
        for verdict in Verdict
    )
    planned = replace(plan_for(host, image()), checks=checks)
    (obstacle,) = planned.obstacles
    assert (obstacle.name, obstacle.kind, obstacle.message) == (
        "in_the_way",
        "for_scripts",
        "seen: do it",
    )
    assert planned.notes == ("seen: do it", "seen: do it")
