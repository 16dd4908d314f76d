"""What all tests have."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from rigs import systems
from rigs.cli import Cli
from rigs.longest import longest_first
from rigs.privilege import WHY_LEFT_OUT, depends_on_the_user, left_out
from rigs.schemas import check_processes

pytest_plugins = ["rigs.lab", "rigs.xen"]

settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any speed")  # no test asserts a time


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """A temporary directory for this run alone, and signals as they are in a terminal.

    pytest's own directory is shared by all runs of a user, and each run closes it to others, tests
    of a run under way that work as another user included. A shell starts what it runs in the
    background with SIGINT ignored, nohup with SIGHUP.
    """
    if hasattr(config, "workerinput"):  # a worker has a part of the controller's
        systems.within = Path(config.option.basetemp).parent
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if config.option.basetemp is None:
        config.option.basetemp = tempfile.mkdtemp(prefix="openrbu-tests-")
        config.add_cleanup(partial(shutil.rmtree, config.option.basetemp, ignore_errors=True))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what may depend on who runs it. Where several processes share the tests, the longest
    come first."""
    for item in items:
        if depends_on_the_user(item.path):
            item.add_marker("privilege")
    if hasattr(config, "workerinput"):
        longest_first(items)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """What `-m privilege` leaves out is named."""
    if "privilege" not in config.option.markexpr:
        return
    files = left_out()
    terminalreporter.write_line(f"left out, for {WHY_LEFT_OUT}: {len(files)} files")
    terminalreporter.write_line(" ".join(files))


@pytest.fixture(autouse=True, scope="session")
def schemas_hold() -> Iterator[None]:
    """Each document that `rbu` prints is checked, whichever test reads it."""
    with pytest.MonkeyPatch.context() as patch:
        check_processes(patch)
        yield


@pytest.fixture
def rbu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command line, with no machines yet."""
    monkeypatch.setenv("OPENRBU_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("OPENRBU_DEBUG", raising=False)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return Cli(work, capsys)
