"""The systems that the contract is checked on."""

from __future__ import annotations

from pathlib import Path

import pytest

from rig import InProcess, NewSystem


@pytest.fixture
def new_system(tmp_path: Path) -> NewSystem:
    """The driver in this process. To be used once in a test: there is one RAM file."""
    return lambda profile_name: InProcess(tmp_path, profile_name)
