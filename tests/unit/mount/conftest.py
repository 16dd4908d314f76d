"""A machine to be mounted, and where."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from rigs.cli import Cli
from rigs.mounted import needs_fuse
from rigs.mounts import empty_directory, machine_with_driver, unmounted


@pytest.fixture
def directory(rbu: Cli, tmp_path: Path) -> Iterator[Path]:
    """A machine called `box`, on, with its driver."""
    needs_fuse()
    path = machine_with_driver(tmp_path / "home")
    with unmounted(path):
        yield path


@pytest.fixture
def target(directory: Path, tmp_path: Path) -> Path:
    """A directory to mount it at, which other users reach."""
    return empty_directory(tmp_path / "mount")
