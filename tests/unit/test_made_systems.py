"""Files that tests make of machines that never were are gone when the tests are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]

KILLED = """
import os, signal
from rigs.made_systems import MADE
from rigs.systems import directory_of

def test_killed():
    for name in MADE:
        assert directory_of(name).is_dir()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_worker_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    temporary, module = tmp_path / "temporary", tmp_path / "test_killed.py"
    temporary.mkdir()
    module.write_text(KILLED)
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", str(tmp_path)),
            *("-p", "conftest", "-p", "no:cacheprovider", "-n", "1", str(module)),
        ],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TESTS), "TMPDIR": str(temporary)},
    )
    assert "crashed while running" in ended.stdout
    assert list(temporary.iterdir()) == []
