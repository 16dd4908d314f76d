"""A machine that is restarted again and again, shared by the tests of updates."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.story import Story
from rigs.lab import Lab, SharedMachine


@pytest.fixture(scope="session")
def restarting(lab: Lab) -> Iterator[SharedMachine]:
    shared = SharedMachine(lab.machine)
    yield shared
    shared.close()


@pytest.fixture
def story(
    lab: Lab, restarting: SharedMachine, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Story]:
    """The machine, up, not armed, with nothing staged. After a test that failed there is a new one.

    A test leaves nothing in its RAM that makes a BIOS refuse the next one's update, as packets of a
    cancelled update do. A cold restart clears it, and so does a BIOS that tried an update.
    """
    failures = request.session.testsfailed
    yield Story(lab, restarting.machine, tmp_path)
    if request.session.testsfailed > failures:
        restarting.close()
