"""The demo's second act ends as the code of the machine's own BIOS would end it."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path

import pytest

from openrbu.bios.rules import Identity
from openrbu.units import KIB
from rigs.cli import Cli
from rigs.oracle import (
    POWEREDGE_SYSTEM,
    REAL_FLASH_BYTES,
    oracle_module,
    our_poweredge,
    real_poweredge,
)

DEMO = Path(__file__).parents[2] / "scripts" / "demo"


def second_act() -> list[list[str]]:
    """The commands of the second act, up to the restart."""
    _, act = re.split(r'^say "Act 2.*$', DEMO.read_text(), maxsplit=1, flags=re.MULTILINE)
    commands = [shlex.split(line)[1:] for line in act.splitlines() if line.startswith("run rbu")]
    names = [command[1:3] for command in commands]
    return commands[: names.index(["machine", "reboot"])]


def test_what_the_demo_stages_is_taken_by_the_code_of_a_poweredge(
    rbu: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    oracle_module("bioses")
    bios = rbu.write("bios.bin", os.urandom(256 * KIB))
    monkeypatch.setenv("bios", str(bios))
    monkeypatch.setenv("work", str(tmp_path))
    for command in second_act():
        ended = rbu(*map(os.path.expandvars, command[1:]))
        assert ended.code == 0, ended
    ram = tmp_path / "home" / "machines" / "pe2950" / "ram"
    machine = Identity(POWEREDGE_SYSTEM, REAL_FLASH_BYTES)
    told = real_poweredge(ram, machine)
    assert told.packets is not None
    assert told.second is not None
    assert told.second.accepted is not None
    assert our_poweredge(ram, machine) == told
    restarted = rbu.json("machine", "reboot", "pe2950")
    assert (restarted["version_after"], restarted["completion_code"]) == ("0.2.9", "0x0000")
