"""The systems that the contract is checked on: one suite, every way of serving the driver."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mounted import Mounted
from rig import InProcess, NewSystem, System


@pytest.fixture(params=["in process", "mounted"])
def new_system(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NewSystem]:
    """The driver in this process, and on a mount. To be used once in a test."""
    made: list[Mounted] = []

    def new(profile_name: str) -> System:
        if request.param == "in process":
            return InProcess(tmp_path, profile_name)
        made.append(Mounted(tmp_path, profile_name))
        return made[0]

    yield new
    for system in made:
        system.close()
