"""What several unit tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from openrbu.machine.base import Machine
from openrbu.sharing import access
from rigs.boards import Computer
from rigs.machines import make
from rigs.served import Server, serving


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a Precision 390 that is off."""
    monkeypatch.setenv("OPENRBU_HOME", str(tmp_path))
    return make(tmp_path)


@pytest.fixture
def server(directory: Path) -> Iterator[Server]:
    """That machine, on and served by another process."""
    with serving(directory) as server:
        yield server


@pytest.fixture
def machine(server: Server, directory: Path) -> Iterator[Machine]:
    """The same as a program uses it."""
    with access.open_or_connect(directory) as machine:
        yield machine


@pytest.fixture
def computer(tmp_path: Path) -> Computer:
    """One with an old BIOS, nothing in memory, and no update ordered."""
    return Computer(tmp_path / "computer")
