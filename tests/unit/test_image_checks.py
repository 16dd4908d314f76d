"""What stands between an image and a machine: system, revision, version, size, what is known."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from openrbu.errors import DamagedInputError, ExitCode, NotForThisMachineError, ObstacleError
from openrbu.formats.check_words import check_words
from openrbu.formats.hdr import Image, SystemId, make_image
from openrbu.formats.image_check import ImageState
from openrbu.formats.version import BiosVersion
from openrbu.hosts.virtual import VirtualHost
from openrbu.machine.virtual import VirtualMachine
from openrbu.units import KIB
from openrbu.update import flow
from openrbu.update.checks.check import Check
from openrbu.update.checks.image import image_checks, is_same_version
from openrbu.update.options import Options
from openrbu.update.plan import Plan, make_plan
from openrbu.update.target import Target, read_target
from rigs.images import each_notebook_a10, image_named
from rigs.machines import (
    Quiet,
    Watched,
    files,
    image,
    image_bytes,
    make,
    running,
    status,
    update,
)
from rigs.made_tables import dell_tables, put_tables

SYSTEM = 0x01DE

EVERYTHING_ALLOWED = {
    "reinstall": True,
    "allow_downgrade": True,
    "allow_any_system": True,
    "allow_known_broken": True,
}

UNSEEN = (
    "the image is for revision 1 of this system; the revision of this machine can't be read here"
)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[VirtualMachine]:
    """A Precision 390, system 0x01de: BIOS 2.1.2."""
    with running(make(tmp_path)) as machine:
        yield machine


@pytest.fixture
def target(machine: VirtualMachine) -> Target:
    return read_target(VirtualHost(machine))


def plan_for(host: Any, what: Image, **options: Any) -> Plan:
    return make_plan(host, what, Options(**options))


def kinds(planned: Plan) -> list[str]:
    return [obstacle.kind for obstacle in planned.obstacles]


def obstacles(what: Image, target: Target, options: Options) -> list[Check]:
    return [each for each in image_checks(what, target, options) if each.is_in_the_way]


def image_for(*systems: SystemId, version: str = "2.3.0") -> Image:
    data = make_image(b"flash" * 1000, version=BiosVersion.parse(version), systems=systems)
    return Image.parse(data)


def with_version(version: bytes, major: int) -> Image:
    """An image whose header has these three bytes for its version; its check words are right."""
    header = bytearray(image_bytes()[:84])
    header[5], header[48:51] = major, version
    data = b"flash" * 1000
    return Image.parse(bytes(header) + data + check_words(bytes(header), data))


def running_version(target: Target, text: str) -> Target:
    return replace(target, bios=replace(target.bios, version=text))


# -- hardware revision ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("revision", "listed", "kind"),
    [
        (0, (0,), None),
        (1, (1,), None),
        (1, (0, 1), None),
        (0, (1,), "wrong_revision"),
        (1, (0,), "wrong_revision"),
        (2, (0, 1), "wrong_revision"),
        (None, (0,), None),
        (None, (1,), None),
    ],
)
def test_the_hardware_revision_counts_where_it_is_known(
    target: Target, revision: int | None, listed: tuple[int, ...], kind: str | None
) -> None:
    what = image_for(SystemId(0x0121, 2), *(SystemId(SYSTEM, each) for each in listed))
    here = replace(target, hardware_revision=revision)
    found = list(obstacles(what, here, Options()))
    assert [each.kind for each in found] == ([] if kind is None else [kind])
    assert list(obstacles(what, here, Options(allow_any_system=True))) == []


def test_an_image_for_another_revision_is_not_for_this_machine(machine: VirtualMachine) -> None:
    planned = plan_for(VirtualHost(machine), image_for(SystemId(SYSTEM, 1), SystemId(SYSTEM, 3)))
    (obstacle,) = planned.obstacles
    assert (obstacle.kind, obstacle.exit_code) == ("wrong_revision", ExitCode.NOT_FOR_THIS_MACHINE)
    assert obstacle.message == (
        "the image is for revisions 1, 3 of this system, and Precision WorkStation 390 (0x01de) "
        "has revision 0"
    )
    with pytest.raises(NotForThisMachineError, match="revisions 1, 3"):
        flow.refuse(planned)


@pytest.mark.parametrize(
    ("revision", "listed", "note"),
    [
        (0, (0,), None),
        (None, (0,), None),
        (1, (1,), "the image is for revision 1 of this system; this machine has revision 1"),
        (
            1,
            (0, 1),
            "the image is for revisions 0, 1 of this system; this machine has revision 1",
        ),
        (
            None,
            (1,),
            UNSEEN,
        ),
    ],
)
def test_an_image_for_another_revision_than_0_is_noted(
    machine: VirtualMachine, revision: int | None, listed: tuple[int, ...], note: str | None
) -> None:
    host = Watched(VirtualHost(machine), lambda *_: None, {"hardware_revision": lambda _: revision})
    planned = plan_for(host, image_for(*(SystemId(SYSTEM, each) for each in listed)))
    assert planned.target.hardware_revision == revision
    assert kinds(planned) == []
    found = [each.found for each in planned.checks if each.name == "revision"]
    assert found == ([note] if note else [])


# -- what is known of RBU -------------------------------------------------------------------


def test_a_system_on_which_rbu_is_known_to_be_broken_is_an_obstacle_of_its_own(
    tmp_path: Path,
) -> None:
    tables = dell_tables(system_id=0x01AD, product="OptiPlex GX620", packets=True)
    with running(make(tmp_path, tables=put_tables(tmp_path / "t", tables))) as machine:
        host, what = VirtualHost(machine), image_for(SystemId(0x01AD), version="A11")
        planned = plan_for(host, what)
        (obstacle,) = planned.obstacles
        assert (obstacle.kind, obstacle.exit_code) == ("rbu_known_broken", ExitCode.OBSTACLE)
        assert obstacle.message == (
            "RBU is known to be broken on 0x01ad (OptiPlex GX620): RBU sometimes leaves it unable "
            "to start; version A11 breaks USB keyboards, too (--allow-known-broken ignores this)"
        )
        with pytest.raises(ObstacleError, match="known to be broken"):
            update(host, what)
        assert "rbu_known_broken" in kinds(plan_for(host, what, allow_any_system=True))
        assert kinds(plan_for(host, what, allow_known_broken=True)) == []


def test_what_else_is_known_of_a_system_is_a_note(tmp_path: Path) -> None:
    tables = dell_tables(system_id=0x022E, product="XPS M1530", packets=True)
    with running(make(tmp_path, tables=put_tables(tmp_path / "t", tables))) as machine:
        planned = plan_for(VirtualHost(machine), image_for(SystemId(0x022E), version="A07"))
    assert kinds(planned) == []
    assert (
        "known about 0x022e (XPS M1530): version A07 breaks its wireless network" in planned.notes
    )


# -- versions -------------------------------------------------------------------------------

UNREADABLE = [
    (with_version(bytes([1, 100, 0]), 2), "the image's version '1.100.0' can't be read"),
    (with_version(b"v1.", 1), "the image's version 'v1.' can't be read"),
    (with_version(b"\0\xff1", 1), r"the image's version '\x00\xff1' can't be read"),
    (with_version(bytes([49, 0, 48]), 2), "the image's version '49.0.48' can't be read"),
    (with_version(b"A06", 0), "the image's version 'A06' can't be read"),
    (with_version(b"   ", 1), "the image's version is empty"),
]


@pytest.mark.parametrize(("what", "says"), UNREADABLE)
def test_an_image_whose_version_can_not_be_read_is_of_unclear_age(
    target: Target, what: Image, says: str
) -> None:
    (obstacle,) = obstacles(what, target, Options())
    assert (obstacle.kind, obstacle.exit_code) == ("unclear_age", ExitCode.OBSTACLE)
    assert obstacle.message == (f"the age is not clear: {says} (--allow-downgrade installs it)")
    assert list(obstacles(what, target, Options(allow_downgrade=True))) == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1.100.0", "this machine's version '1.100.0' can't be read"),
        ("v1.2.3", "this machine's version 'v1.2.3' can't be read"),
        ("unknown", "this machine's version 'unknown' can't be read"),
        ("49.0.48", "this machine's version '49.0.48' can't be read"),
        ("", "this machine's version is empty"),
    ],
)
def test_an_image_for_a_machine_whose_version_can_not_be_read_is_of_unclear_age(
    target: Target, text: str, says: str
) -> None:
    here = running_version(target, text)
    (obstacle,) = obstacles(image(), here, Options())
    assert obstacle.kind == "unclear_age"
    assert obstacle.message == (f"the age is not clear: {says} (--allow-downgrade installs it)")
    assert not is_same_version(image(), here)
    assert list(obstacles(image(), here, Options(allow_downgrade=True))) == []


def test_two_versions_that_can_not_be_read_are_the_same_where_they_are_written_the_same(
    target: Target,
) -> None:
    what = with_version(bytes([1, 100, 0]), 2)
    same, other = running_version(target, "1.100.0"), running_version(target, "1.100.1")
    assert is_same_version(what, same)
    assert list(obstacles(what, same, Options())) == []
    assert not is_same_version(what, other)
    (obstacle,) = obstacles(what, other, Options())
    assert obstacle.message.startswith(
        "the age is not clear: the image's version '1.100.0' can't be read and this machine's "
        "version '1.100.1' can't be read (--allow"
    )


def test_two_versions_of_which_nothing_is_said_are_not_known_to_be_the_same(
    target: Target,
) -> None:
    what, here = with_version(b"   ", 1), running_version(target, "")
    assert not is_same_version(what, here)
    assert [each.kind for each in obstacles(what, here, Options())] == ["unclear_age"]


def test_a_machine_with_a_version_that_can_not_be_read_is_updated_when_that_is_wanted(
    tmp_path: Path,
) -> None:
    tables = dell_tables(system_id=0x0121, product="PowerEdge 2650", version="v1.2.3")
    with running(make(tmp_path, tables=put_tables(tmp_path / "t", tables))) as machine:
        host, what = VirtualHost(machine), image("poweredge-2650")
        planned = plan_for(host, what)
        assert (kinds(planned), planned.is_needed) == (["unclear_age"], True)
        with pytest.raises(ObstacleError, match="age is not clear: this machine's version"):
            update(host, what)
        update(host, what, allow_downgrade=True)
        assert machine.restart().version_after == "A06"


# -- the same version -----------------------------------------------------------------------


def test_the_same_version_is_installed_again_where_that_is_wanted(machine: VirtualMachine) -> None:
    host, what = VirtualHost(machine), image(version="2.1.2", seed=7)
    assert not plan_for(host, what).is_needed
    planned = plan_for(host, what, reinstall=True)
    assert (planned.is_needed, kinds(planned)) == (True, [])
    update(host, what, reinstall=True)
    report = machine.restart()
    assert (report.version_after, report.completion_code) == ("2.1.2", 0)
    assert machine.flash.image() == bytes(what.flash_data)


def test_reinstall_takes_nothing_else_out_of_the_way(machine: VirtualMachine) -> None:
    host = VirtualHost(machine)
    assert kinds(plan_for(host, image(version="2.1.1"), reinstall=True)) == ["downgrade"]
    assert kinds(plan_for(host, image(version="2.3.0"), reinstall=True)) == []


# -- sizes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("size_bytes", "text"), [(64 * KIB, "64 KiB"), (192 * KIB, "192 KiB")])
def test_an_image_of_another_size_than_smbios_tells_is_noted_and_not_refused(
    machine: VirtualMachine, size_bytes: int, text: str
) -> None:
    planned = plan_for(VirtualHost(machine), image(flash_size_bytes=size_bytes))
    assert kinds(planned) == []
    (note,) = [each for each in planned.notes if "SMBIOS" in each]
    assert note == (
        f"the image has {text} ({size_bytes} bytes) for the flash, and SMBIOS says that this "
        "machine's ROM has 128 KiB (131072 bytes): SMBIOS is often wrong there; a BIOS whose flash "
        "is of another size refuses the image and changes nothing"
    )


def test_an_image_of_the_size_that_smbios_tells_is_not_noted(machine: VirtualMachine) -> None:
    assert not any("SMBIOS" in note for note in plan_for(VirtualHost(machine), image()).notes)


def test_a_bios_whose_flash_has_another_size_refuses_and_that_is_what_the_note_said(
    machine: VirtualMachine,
) -> None:
    update(VirtualHost(machine), image(flash_size_bytes=64 * KIB))
    report = machine.restart()
    assert report.version_after == "2.1.2"
    assert report.completion_code in (0x0001, 0x000D)


@each_notebook_a10
def test_a_latitude_d500s_own_a10_is_ready_on_a_machine_like_it(tmp_path: Path, name: str) -> None:
    """Its SMBIOS says a ROM of 512 KiB; the BIOS demands 1 MiB of data."""
    what = Image.parse(image_named(name))
    tables = dell_tables(system_id=0x0152, product="Latitude D500", version="A09")
    directory = put_tables(tmp_path / "t", tables)
    with running(make(tmp_path, tables=directory, flash_size_bytes=None)) as machine:
        planned = plan_for(VirtualHost(machine), what)
    assert (kinds(planned), planned.is_needed, planned.mode) == ([], True, "mono")
    assert not [each for each in planned.notes if "SMBIOS" in each]


# -- damage ---------------------------------------------------------------------------------

GOOD = image_bytes()
FORMER = struct.pack("<II", len(GOOD) - 92, zlib.crc32(GOOD[:-8]))
STATES = {
    ImageState.WHOLE: GOOD,
    ImageState.HEADER_CHANGED: GOOD[:51] + b"\1" + GOOD[52:],
    ImageState.DATA_CHANGED: GOOD[:5000] + bytes([GOOD[5000] ^ 1]) + GOOD[5001:],
    ImageState.BYTES_BEHIND: GOOD + b"more",
    ImageState.CUT: GOOD[:-100],
    ImageState.FORMER: GOOD[:-8] + FORMER,
    ImageState.NO_DATA: GOOD[:84],
}


@pytest.mark.parametrize("state", ImageState)
def test_every_kind_of_damage_is_refused_before_anything_is_touched(
    machine: VirtualMachine, state: ImageState
) -> None:
    what, host = Image.parse(STATES[state]), VirtualHost(machine)
    assert what.state is state
    for options in ({}, EVERYTHING_ALLOWED):
        planned = plan_for(host, what, **options)
        if state is ImageState.WHOLE:
            assert planned.obstacles == ()
            flow.refuse(planned)
            continue
        (obstacle,) = planned.obstacles
        assert (obstacle.kind, obstacle.exit_code) == ("damaged_image", ExitCode.DAMAGED_INPUT)
        assert obstacle.message == what.damage
        before = status(machine), files(machine.directory)
        with pytest.raises(DamagedInputError, match=re.escape(str(what.damage))):
            flow.perform(host, planned, Quiet())
        assert (status(machine), files(machine.directory)) == before
        assert not host.journal_path.exists()


@pytest.mark.parametrize("state", [each for each in ImageState if each is not ImageState.WHOLE])
def test_damage_is_told_first_of_an_image_with_all_that_can_be_in_its_way(
    tmp_path: Path, state: ImageState
) -> None:
    tables = dell_tables(system_id=0x0126, product="OptiPlex GX620", version="unknown")
    with running(make(tmp_path, tables=put_tables(tmp_path / "t", tables))) as machine:
        planned = plan_for(VirtualHost(machine), Image.parse(STATES[state]))
    assert kinds(planned) == ["damaged_image", "wrong_system", "rbu_known_broken", "unclear_age"]
    with pytest.raises(DamagedInputError):
        flow.refuse(planned)
    assert not any("SMBIOS" in note for note in planned.notes)


@pytest.mark.parametrize(
    ("minimum", "is_enough"), [("2.1.2", True), ("2.1.1", True), ("2.2.0", False)]
)
def test_a_package_may_want_a_version_that_the_machine_runs_already(
    machine: VirtualMachine, minimum: str, is_enough: bool
) -> None:
    planned = plan_for(VirtualHost(machine), image(), minimum_version=BiosVersion.parse(minimum))
    assert kinds(planned) == ([] if is_enough else ["below_minimum_version"])
    if not is_enough:
        assert "run 2.2.0 or newer, and this one runs 2.1.2" in planned.obstacles[0].message
