"""What several unit tests share."""

from pathlib import Path

import pytest

from cli_rig import Cli


@pytest.fixture
def rbu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command line, with no machines yet."""
    monkeypatch.setenv("OPENRBU_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("OPENRBU_PASSWORD", raising=False)
    monkeypatch.delenv("OPENRBU_DEBUG", raising=False)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    return Cli(work, capsys)
