"""Random sequences of operations come out on the real kernel as in the profile `linux`.

One machine serves them all; the module is loaded anew before each. A difference is shrunk, and kept
as a shell script in build/lab/. `make lab-soak` goes on for as long as it is told.
"""

from __future__ import annotations

import datetime
import os
import re
from pathlib import Path

import pytest

from lab.differ import MOMENTS, Hunt
from lab.script import Difference, as_script
from openrbu.lab.calls import Call, Load, Read, Result, Unload, WaitForDriver, Write
from rigs.driver import DEVICE, FIRMWARE
from rigs.lab import SharedMachine

FIXED_SEED = 1
FIXED_OPERATIONS, DAILY_OPERATIONS = 5000, 2000

pytestmark = pytest.mark.lab


def seed_of_the_day() -> int:
    """The date, or OPENRBU_LAB_SEED, which repeats another day's."""
    today = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d")
    return int(os.environ.get("OPENRBU_LAB_SEED", today))


@pytest.fixture
def hunt(shared_machine: SharedMachine, tmp_path: Path) -> Hunt:
    return Hunt(shared_machine, tmp_path)


def test_five_thousand_operations_agree_and_all_deep_states_are_met(hunt: Hunt) -> None:
    tally = hunt(FIXED_SEED, lambda tally: tally.operations >= FIXED_OPERATIONS)
    assert tally.operations >= FIXED_OPERATIONS
    assert set(hunt.moments) == set(MOMENTS)
    assert {"EACCES", "EAGAIN", "EEXIST", "EINVAL", "ENOENT", "ENOMEM"} <= set(tally.errnos)


def test_two_thousand_operations_of_the_day_agree(hunt: Hunt) -> None:
    tally = hunt(seed_of_the_day(), lambda tally: tally.operations >= DAILY_OPERATIONS)
    assert tally.operations >= DAILY_OPERATIONS


def test_the_script_of_a_difference_does_in_a_guest_what_it_says(
    shared_machine: SharedMachine,
) -> None:
    calls: list[Call] = [
        Unload("dell_rbu"),
        Load("dell_rbu", {"image_type": "packet"}),
        WaitForDriver(),
        Read(f"{DEVICE}/image_type", 0, 64),
        Write(f"{DEVICE}/image_type", b"no such type"),
        Write(f"{DEVICE}/image_type", b"init"),
        WaitForDriver(),
        Write(f"{FIRMWARE}/loading", b"1"),
        Write(f"{FIRMWARE}/data", b"\xfe\0x", 4095),
        Read(f"{FIRMWARE}/data", 4095, 3),
        Write(f"{FIRMWARE}/loading", b"-1"),
        WaitForDriver(),
        Unload("dell_rbu"),
    ]
    results = [Result()] * len(calls)
    script = as_script(Difference(calls, results, results))
    said = shared_machine.run(["sh"], script)
    assert re.findall(r">(.*)<", said) == ["packet.", "..x"], said
    assert re.findall(r"image_type': (.*)", said) == ["Invalid argument"], said
