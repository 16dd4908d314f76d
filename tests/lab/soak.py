"""Random sequences for as long as it is told: `make lab-soak SECONDS=600`.

With OPENRBU_LAB_SEED the ones of that seed, else others each time. No part of the normal test run.
"""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path

import pytest

from lab.differ import Hunt, Tally
from rigs.lab import SharedMachine

pytestmark = pytest.mark.lab


def test_random_sequences_agree_for_as_long_as_it_is_told(
    shared_machine: SharedMachine, tmp_path: Path
) -> None:
    seed = int(os.environ.get("OPENRBU_LAB_SEED", secrets.randbelow(1 << 32)))
    end = time.monotonic() + float(os.environ["OPENRBU_SOAK_SECONDS"])

    def enough(tally: Tally) -> bool:
        return time.monotonic() >= end

    assert Hunt(shared_machine, tmp_path)(seed, enough).operations
