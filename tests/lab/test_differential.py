"""Random sequences of operations come out on the real kernel as in the profile `linux`.

One machine serves them all; the module is loaded anew before each. A difference is shrunk, and kept
as a shell script in build/lab/. `make lab-soak` goes on for as long as it is told.
"""

from __future__ import annotations

import datetime
import os
from pathlib import Path

import pytest

from lab.differ import MOMENTS, Hunt
from lab_rig import SharedMachine

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
