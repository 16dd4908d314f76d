"""`rbu scan` of what another user may not read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from openrbu.cli.main import main
from openrbu.errors import ExitCode
from rigs.cli import Cli
from rigs.machines import as_nobody, opened_up


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
@pytest.mark.parametrize("name", ["demo", "nowhere"])
def test_a_machine_of_another_user_is_an_obstacle(rbu: Cli, name: str) -> None:
    rbu("machine", "new", "demo")
    machines = Path(os.environ["OPENRBU_HOME"]) / "machines"
    opened_up(machines)
    machines.chmod(0o700)
    assert rbu("scan", "demo").code == 0

    def scan() -> None:
        assert main(["scan", name]) == ExitCode.OBSTACLE

    as_nobody(scan)
