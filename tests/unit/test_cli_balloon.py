"""The commands on Xen hosts: balloon host, guest, target, show."""

from __future__ import annotations

from pathlib import Path

import pytest

from openrbu.machine import store
from openrbu.units import MIB
from rigs.cli import Cli
from rigs.served import serving
from rigs.xen import MIB_KIB, Clock, current_mib, guests, up_while_another_comes_down

# -- the document's story ---------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["linux", "linux-2.6.18-xen"])
def test_a_guest_reaches_its_target_once_another_one_has_given_memory_back(
    xen: Cli, clock: Clock, profile: str
) -> None:
    up_while_another_comes_down(xen, clock, profile)
    clock.now_s += 3600
    shown = guests(xen.json("balloon", "show", "xen"))
    assert shown["a"]["current_kib"] == 250 * MIB_KIB
    assert (shown["a"]["state"], shown["a"]["retry_in_s"]) == ("settled", None)


def test_under_hard_limit_it_stays_short_until_its_target_is_written_again(
    xen: Cli, clock: Clock
) -> None:
    up_while_another_comes_down(xen, clock, "hard-limit")
    clock.now_s += 3600
    shown = guests(xen.json("balloon", "show", "xen"))
    assert (shown["a"]["state"], shown["a"]["current_kib"]) == ("stalled", 116 * MIB_KIB)
    assert "gave up: hard limit 117 MiB" in xen("balloon", "show", "xen").out
    assert xen.json("balloon", "watch", "xen")["elapsed_s"] == 0
    again = xen.json("balloon", "target", "xen", "a", "250M")
    assert (again["state"], again["current_kib"]) == ("settled", 250 * MIB_KIB)


def test_what_was_granted_is_kept_but_under_hard_limit(xen: Cli, clock: Clock) -> None:
    up_while_another_comes_down(xen, clock, "linux")
    assert current_mib(xen)["a"] == 117  # all that was free


# -- host and guest ---------------------------------------------------------------------------


def test_a_host_is_a_machine_that_is_on_with_a_dom0(rbu: Cli) -> None:
    made = rbu.json(
        *("balloon", "host", "xen", "--ram", "1G", "--profile", "linux-2.6.18-xen"),
        *("--model", "precision-390", "--bios-version", "2.1.0"),
    )
    assert (made["changed"], made["host"], made["lost"]) == (True, "xen", [])
    dom0 = guests(made)["dom0"]
    assert (dom0["current_kib"], dom0["max_kib"]) == (256 * MIB_KIB, 512 * MIB_KIB)
    assert (dom0["profile"], dom0["state"]) == ("linux-2.6.18-xen", "settled")
    assert made["free_kib"] == made["total_kib"] - 256 * MIB_KIB
    shown = rbu.json("machine", "show", "xen")
    assert (shown["is_on"], shown["model"]) == (True, "precision-390")
    assert shown["bios_version"] == "2.1.0"


def test_a_host_is_a_precision_390_if_nothing_is_said_and_help_says_so(rbu: Cli) -> None:
    """Its BIOS takes packets: a balloon that has worked leaves dom0 no memory in one piece."""
    rbu.json("balloon", "host", "xen", "--ram", "512M")
    assert rbu.json("machine", "show", "xen")["model"] == "precision-390"
    assert "precision-390 (if none is named)" in rbu("balloon", "host", "--help").out


def test_a_guest_has_what_was_ordered(xen: Cli) -> None:
    made = xen.json(
        *("balloon", "guest", "xen", "a", "--memory", "100M", "--max", "200M"),
        *("--claim", "50M", "--profile", "hard-limit"),
    )
    a = guests(made)["a"]
    assert [a[f"{what}_kib"] for what in ("current", "target", "max", "claim", "balloon")] == [
        mib * MIB_KIB for mib in (100, 100, 200, 50, 100)
    ]
    assert a["profile"] == "hard-limit"
    assert made["claimed_kib"] == 50 * MIB_KIB
    line = xen("balloon", "show", "xen").out.splitlines()[-1]
    assert line == "267 MiB of 495 MiB free on xen, 50 MiB of it claimed"


def test_a_maximum_that_is_not_given_is_twice_the_start_or_all_there_is(xen: Cli) -> None:
    xen.json("balloon", "guest", "xen", "a", "--memory", "64M")
    xen.json("balloon", "guest", "xen", "b", "--memory", "300M")
    shown = guests(xen.json("balloon", "show", "xen"))
    assert shown["a"]["max_kib"] == 128 * MIB_KIB
    assert shown["b"]["max_kib"] == 495 * MIB_KIB


def test_a_guest_that_is_destroyed_gives_its_memory_back(xen: Cli) -> None:
    before = xen.json("balloon", "show", "xen")
    xen.json("balloon", "guest", "xen", "a", "--memory", "100M", "--claim", "50M")
    gone = xen.json("balloon", "guest", "xen", "a", "--rm")
    assert (gone["changed"], gone["name"]) == (True, "a")
    assert xen.json("balloon", "show", "xen") == before
    assert "has no guest 'a'" in xen.fails(4, "balloon", "guest", "xen", "a", "--rm")


def test_what_a_guest_uses_itself_it_does_not_give_away(xen: Cli) -> None:
    xen.json("balloon", "guest", "xen", "a", "--memory", "200M", "--uses", "120M")
    told = xen.json("balloon", "target", "xen", "a", "64M")
    assert 120 * MIB_KIB < told["current_kib"] < 160 * MIB_KIB
    assert (told["state"], told["retry_in_s"]) == ("waiting", 2)


def test_a_guest_told_to_have_more_than_its_maximum_stops_there_and_that_is_said(xen: Cli) -> None:
    xen.json("balloon", "guest", "xen", "a", "--memory", "100M", "--max", "150M")
    ended = xen("balloon", "target", "xen", "a", "200M")
    assert ended.code == 0
    assert "a may have 150 MiB at most: it will stop there" in ended.out
    a = guests(xen.json("balloon", "show", "xen"))["a"]
    assert (a["current_kib"], a["target_kib"]) == (150 * MIB_KIB, 200 * MIB_KIB)
    assert a["state"] == "settled"
    assert "idle: can't grow further" in xen("balloon", "show", "xen").out


def test_a_target_changes_something_where_it_or_what_the_guest_has_is_another(
    xen: Cli, clock: Clock
) -> None:
    xen.json("balloon", "guest", "xen", "a", "--memory", "100M", "--profile", "hard-limit")
    xen.json("balloon", "guest", "xen", "b", "--memory", "250M")
    for name, size, has_changed in (
        ("a", "100M", False),
        ("a", "150M", True),  # and gives up on the way
        ("a", "150M", False),  # tries again in vain
        ("b", "200M", True),
        ("a", "150M", True),  # tries again, and gets there
        ("dom0", "128M", False),
        ("dom0", "100M", True),
    ):
        assert xen.json("balloon", "target", "xen", name, size)["changed"] is has_changed


def test_dom0_is_told_through_its_file(xen: Cli) -> None:
    told = xen.json("balloon", "target", "xen", "dom0", "200M")
    assert (told["name"], told["current_kib"]) == ("dom0", 200 * MIB_KIB)
    assert current_mib(xen) == {"dom0": 200}
    assert xen.json("balloon", "target", "xen", "dom0", "100M")["current_kib"] == 100 * MIB_KIB


def test_dom0_of_a_served_host_is_told_through_the_process_that_serves_it(xen: Cli) -> None:
    with serving(store.machine_directory("xen")):
        assert xen.json("balloon", "target", "xen", "dom0", "200M")["state"] == "settled"
        assert current_mib(xen) == {"dom0": 200}


@pytest.mark.parametrize(
    ("profile", "state"),
    [("linux", "waiting"), ("linux-2.6.18-xen", "waiting"), ("hard-limit", "stalled")],
)
def test_what_dom0_is_at_is_told_from_its_files(
    rbu: Cli, clock: Clock, profile: str, state: str
) -> None:
    rbu.json("balloon", "host", "xen", "--ram", "512M", "--dom0", "128M", "--profile", profile)
    rbu.json("balloon", "guest", "xen", "a", "--memory", "300M")
    told = rbu.json("balloon", "target", "xen", "dom0", "250M")
    assert (told["state"], told["target_kib"]) == (state, 250 * MIB_KIB)
    assert told["retry_in_s"] is None  # the files don't tell


def test_ram_in_a_directory_of_limited_size_is_there(rbu: Cli, tmp_path: Path) -> None:
    (tmp_path / "ram").mkdir()
    made = rbu.json(
        "balloon", "host", "xen", "--ram", "256M", "--dom0", "64M", "--ram-in", tmp_path / "ram"
    )
    (file,) = (tmp_path / "ram").iterdir()

    def taken_mib() -> float:
        return file.stat().st_blocks * 512 / MIB

    assert 64 <= taken_mib() < 66
    rbu.json("balloon", "guest", "xen", "a", "--memory", "64M", "--max", "160M")
    assert 128 <= taken_mib() < 130
    rbu.json("balloon", "target", "xen", "a", "160M")
    assert 224 <= taken_mib() < 226
    rbu.json("balloon", "guest", "xen", "a", "--rm")
    assert taken_mib() < 66
    assert guests(made)["dom0"]["state"] == "settled"
    rbu.json("machine", "rm", "xen", "--yes")
    assert list((tmp_path / "ram").iterdir()) == []
