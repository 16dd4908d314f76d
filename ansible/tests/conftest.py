"""What the tests of the collection share. `make ansible` runs them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rigs.playbooks import Fleet


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """No machines yet, and a directory for playbooks."""
    return Fleet(tmp_path)
