"""An update on a machine with each fault there is: how it ends, what is said, which BIOS runs.

The page docs/machines.md has the same table, for people.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from openrbu.machine.faults import all_faults
from openrbu.units import KIB
from rigs.cli import Cli

PAGE = Path(__file__).parents[2] / "docs" / "machines.md"


class Accident(NamedTuple):
    """A fault, and what an update with `--reboot` on a Precision 390 comes to: its exit code, some
    words of the one line that it says; and whether the new BIOS runs after the restart."""

    fault: str
    code: int
    words: str = ""
    is_new: bool = False


def works(fault: str) -> Accident:
    return Accident(fault, 0, is_new=True)


REFUSED = "the BIOS did not install the update: "

ACCIDENTS = (
    works("fragmented=2"),  # packets of a page fit
    works("little-memory"),
    works("allocation-fails=2"),  # tried once more
    Accident("allocations-fail-after=3", 1, "no free memory for 34 blocks of 4 KiB; .*once more"),
    works("allocations-fail-above=3"),
    works("memory-changes"),
    Accident("no-module", 4, "and the running kernel .* has no such module"),
    works("built-in"),
    works("linux-5.7-bugs"),
    works("no-firmware-entry"),  # given as a file
    works("slow-entries=1"),
    works("lockdown-integrity"),
    works("lockdown-confidentiality"),
    Accident("cold-restart", 4, "restarts cold, which clears memory: start Linux with reboot=w"),
    Accident("kexec-loaded", 4, "a kernel is loaded for kexec: the BIOS may not run at a restart"),
    Accident("flash-not-accessible", 1, f"{REFUSED}the flash could not be accessed"),
    Accident("programming-disabled", 1, f"{REFUSED}flash programming is disabled"),
    Accident("no-battery", 1, f"{REFUSED}there is no battery"),
    Accident("battery-not-charged", 1, f"{REFUSED}the battery is not charged"),
    Accident("no-external-power", 1, f"{REFUSED}there is no external power"),
    Accident("12v-not-set", 1, f"{REFUSED}12 V could not be set"),
    Accident("flash-not-ready", 1, f"{REFUSED}the flash was not ready for an erase"),
    Accident("erase-fails", 1, f"{REFUSED}a block of the flash could not be erased"),
    Accident("flash-fails", 1, f"{REFUSED}the flash failed"),
    Accident("miscompare", 1, f"{REFUSED}the flash did not keep what was programmed"),
    Accident("12v-not-removed", 1, "the BIOS installed 2.3.0, but reports a failure", is_new=True),
    Accident("password", 4, "a BIOS admin password is set, and then the BIOS takes no packets"),
    Accident("ports-dont-answer", 4, "the CMOS with the token does not respond"),
    Accident("cmos-check-wrong", 4, "the check value over the indexes 0x40 to 0x5b is wrong"),
    Accident("token-does-not-stay", 1, "the BIOS's token does not stay set"),
    Accident("token-lost-at-restart", 1, "the BIOS found none armed; 2.1.2 runs"),
    Accident("restart-clears-memory", 1, f"{REFUSED}nothing in memory looks like an update"),
    Accident("wrong-check-values", 1, f"{REFUSED}the check values of the image .* are wrong"),
    Accident("power-cut=3", 4, "the power failed while the BIOS wrote its flash"),
)


def test_there_is_an_accident_for_each_fault() -> None:
    assert [each.fault.partition("=")[0] for each in ACCIDENTS] == [x.name for x in all_faults()]


@pytest.mark.parametrize("accident", ACCIDENTS, ids=lambda each: each.fault)
def test_an_update_says_what_is_wrong_and_leaves_a_bios_that_runs(
    rbu: Cli, accident: Accident
) -> None:
    image = rbu.image("2.3.0", system=0x01DE, size_bytes=128 * KIB)
    how = ["--model", "precision-390", "--ram", "64M", "--flash-size", "128K"]
    rbu.json("machine", "new", "box", *how, "--fault", accident.fault)
    ended = rbu("update", image, "--machine", "box", "--reboot")
    assert ended.code == accident.code, ended
    if accident.words:
        assert re.search(accident.words, ended.err), ended.err
        assert ended.err.count("\n") == 1
    if accident.fault.startswith("power-cut"):
        assert rbu.json("machine", "show", "box")["lost_power"]
        assert "still runs the old BIOS" in rbu("machine", "reboot", "box").err
    status = rbu.json("status", "--machine", "box")
    assert not status["is_armed"]
    shown = rbu.json("machine", "show", "box")
    assert shown["faults"] == [accident.fault]
    assert shown["bios_version"] == ("2.3.0" if accident.is_new else "2.1.2")


def test_the_manual_has_the_same_table() -> None:
    text = PAGE.read_text().partition("<!-- faults -->")[2].partition("\n\n#")[0]
    rows = [line.strip("| ").split(" | ") for line in text.strip().splitlines()[2:]]
    listed = [(row[0].strip("`"), row[1], int(row[2].split()[0])) for row in rows]
    assert listed == [
        (kind.usage, kind.does, accident.code)
        for kind, accident in zip(all_faults(), ACCIDENTS, strict=True)
    ]
