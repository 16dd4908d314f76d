"""What `rbu` says of the systems that an image is for and of the machine that it is on."""

from pathlib import Path

import pytest

from openrbu.formats.hdr import SystemId, make_image
from openrbu.formats.version import BiosVersion
from rigs.cli import FLASH_BYTES, Cli, image_bytes
from rigs.made_tables import dell_tables, put_tables


def test_info_names_each_system_and_says_what_is_known_against_rbu_there(rbu: Cli) -> None:
    made = make_image(
        b"flash" * 100,
        version=BiosVersion.parse("A11"),
        systems=[SystemId(0x0121), SystemId(0x0126, 1), SystemId(0x022E), SystemId(0x1ABC)],
    )
    path = rbu.write("a.hdr", made)
    lines = [line.strip() for line in rbu("info", path).out.splitlines()]
    start = next(number for number, line in enumerate(lines) if line.startswith("for systems:"))
    assert lines[start].split(maxsplit=2)[2] == "0x0121 (PowerEdge 2650)"
    assert lines[start + 1 : start + 6] == [
        "0x0126:1 (OptiPlex GX620)",
        "RBU sometimes leaves it unable to start; version A11 breaks USB keyboards, too",
        "0x022e (XPS M1530)",
        "version A07 breaks its wireless network",
        "0x1abc",
    ]
    (image,) = rbu.json("info", path)["images"]
    assert [system["name"] for system in image["systems"]] == [
        "PowerEdge 2650",
        "OptiPlex GX620",
        "XPS M1530",
        None,
    ]
    said = [(each["rbu_known_broken"], each["known_against_rbu"]) for each in image["systems"]]
    assert said == [
        (False, None),
        (True, lines[start + 2]),
        (False, lines[start + 4]),
        (False, None),
    ]


@pytest.fixture
def demo(rbu: Cli) -> Cli:
    """A PowerEdge 2650 with BIOS A05, called demo."""
    assert rbu("machine", "new", "demo", "--ram", "128M").code == 0
    return rbu


def made(rbu: Cli, tables: Path) -> Cli:
    """The machine of these tables, called made."""
    words = ("machine", "new", "made", "--from-tables", tables, "--ram", "128M")
    assert rbu(*words).code == 0
    return rbu


def test_a_plan_names_the_systems_of_the_image_and_the_machine(demo: Cli) -> None:
    shown = demo("plan", demo.image("A06"), "--machine", "demo").out
    assert "for 0x0121 (PowerEdge 2650), " in shown
    assert "demo: PowerEdge 2650, system 0x0121\n" in shown
    document = demo.json("plan", demo.image("A06"), "--machine", "demo")
    machine = document["machine"]
    assert (machine["system_name"], machine["hardware_revision"]) == ("PowerEdge 2650", 0)
    assert document["image"]["systems"][0]["name"] == "PowerEdge 2650"


def test_a_machine_that_calls_itself_other_than_its_id_does_is_shown_with_both(
    rbu: Cli, tmp_path: Path
) -> None:
    tables = dell_tables(system_id=0x02A6, product="PowerEdge R210")
    made(rbu, put_tables(tmp_path / "tables", tables))
    shown = rbu("status", "--machine", "made").out
    assert "made: PowerEdge R210, system 0x02a6 (PowerEdge T110)" in shown


def test_where_rbu_is_known_to_be_broken_it_takes_an_option_to_go_on(
    rbu: Cli, tmp_path: Path
) -> None:
    tables = dell_tables(system_id=0x0126, product="OptiPlex GX620")
    made(rbu, put_tables(tmp_path / "tables", tables))
    path, on = rbu.image("A06", system=0x0126), ("--machine", "made")
    for command in ("plan", "update"):
        ended = rbu(command, path, *on)
        assert (ended.code, ended.err.count("\n")) == (4, 1)
        assert "RBU is known to be broken on 0x0126 (OptiPlex GX620)" in ended.err
    (obstacle,) = rbu.json("plan", path, *on, code=4)["obstacles"]
    assert obstacle["kind"] == "rbu_known_broken"
    allowed = rbu("plan", path, *on, "--allow-known-broken")
    assert f"ready: rbu update {path} --machine made --allow-known-broken\n" in allowed.out
    done = rbu.json("update", path, *on, "--allow-known-broken", "--reboot")
    assert done["result"]["version_after"] == "A06"


def test_the_same_version_is_installed_once_more_with_reinstall(demo: Cli) -> None:
    path, on = demo.write("a.hdr", image_bytes("A05", filling=9)), ("--machine", "demo")
    assert "(--reinstall installs it once more)" in demo("plan", path, *on).out
    planned = demo("plan", path, *on, "--reinstall")
    assert (planned.code, "nothing to do" in planned.out) == (0, False)
    assert f"ready: rbu update {path} --machine demo --reinstall\n" in planned.out
    done = demo.json("update", path, *on, "--reinstall", "--reboot")
    assert (done["changed"], done["plan"]["is_needed"]) == (True, True)
    result = done["result"]
    assert (result["version_after"], result["completion_code"]) == ("A05", "0x0000")
    (listed,) = demo.json("history", *on)["updates"]
    assert (listed["from_version"], listed["succeeded"]) == ("A05", True)


def test_an_image_for_another_revision_ends_with_3(demo: Cli) -> None:
    words = ("build", demo.write("bios", bytes(FLASH_BYTES)), "-o", "b.hdr")
    demo(*words, "--bios-version", "A06", "--system", "0x0121:1")
    for command in ("plan", "update"):
        ended = demo(command, "b.hdr", "--machine", "demo")
        assert ended.code == 3
        assert "for revision 1 of this system, and PowerEdge 2650 (0x0121) has" in ended.err


def test_an_image_of_another_size_is_planned_with_a_note_and_the_bios_judges(demo: Cli) -> None:
    path, on = demo.image("A06", size_bytes=FLASH_BYTES // 2), ("--machine", "demo")
    planned = demo("plan", path, *on)
    assert planned.code == 0
    assert "the image has 256 KiB (262144 bytes) for the flash, and SMBIOS" in planned.out
    assert demo.json("update", path, *on, "--reboot", code=1)["result"]["version_after"] == "A05"


def test_a_version_that_can_not_be_read_asks_for_an_option(rbu: Cli, tmp_path: Path) -> None:
    tables = dell_tables(system_id=0x0121, product="PowerEdge 2650", version="1.100.0")
    made(rbu, put_tables(tmp_path / "tables", tables))
    path, on = rbu.image("A06"), ("--machine", "made")
    (obstacle,) = rbu.json("plan", path, *on, code=4)["obstacles"]
    assert obstacle["kind"] == "unclear_age"
    assert (
        "the age is not clear: this machine's version '1.100.0' can't be read"
        in obstacle["message"]
    )
    assert rbu.json("plan", path, *on, "--allow-downgrade")["obstacles"] == []
