"""What a command of the lab shows while it waits."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from rich.console import Console

from openrbu.cli.waits import Waits, waits


def terminal(encoding: str = "utf-8") -> tuple[Console, io.BytesIO]:
    written = io.BytesIO()
    stream = io.TextIOWrapper(written, encoding=encoding, write_through=True)
    return Console(file=stream, force_terminal=True, width=100), written


def test_in_a_pipe_each_step_is_a_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with waits() as shown:
        shown.say("fetching kmod")
        with shown.downloading((tmp_path, 100)):
            pass
        shown.say("starting")
    assert capsys.readouterr().err == "rbu: fetching kmod\nrbu: starting\n"


def test_on_a_terminal_the_last_step_is_shown_and_nothing_of_it_stays() -> None:
    console, written = terminal()
    shown = Waits(console)
    shown.say("fetching kmod ...")
    shown.say("starting a machine ...")
    assert shown._progress is not None
    shown._progress.refresh()
    text = written.getvalue().decode()
    assert "starting a machine " in text
    shown.end()
    assert written.getvalue().endswith(b"\x1b[2K") or b"\x1b[?25h" in written.getvalue()
    shown.end()  # once more is no harm


def test_a_long_name_leaves_room_for_the_bar_and_the_bytes(tmp_path: Path) -> None:
    """80 columns; a line that is too long would be cut at its end."""
    console, written = terminal()
    shown = Waits(console)
    shown.say("fetching linux-image-6.12.117+deb13-amd64 6.12.117-1 (103.5 MiB)")
    size_bytes = 1035 * (1 << 20) // 10
    with shown.downloading((tmp_path, size_bytes)):
        (tmp_path / "kernel.deb").touch()
        os.truncate(tmp_path / "kernel.deb", size_bytes - 4096)
        assert shown._progress is not None
        shown._progress.refresh()
    assert "103.5 MiB of 103.5 MiB" in written.getvalue().decode()
    shown.end()


@pytest.mark.parametrize(("encoding", "bar"), [("utf-8", "\N{FULL BLOCK}"), ("ascii", "#")])
def test_a_download_has_a_bar_and_its_bytes(encoding: str, bar: str, tmp_path: Path) -> None:
    console, written = terminal(encoding)
    shown = Waits(console)
    shown.say("fetching kmod")
    with shown.downloading((tmp_path, 4096)):
        (tmp_path / "kmod.deb").write_bytes(bytes(1024))
        assert shown._progress is not None
        shown._progress.refresh()
        (tmp_path / "kmod.deb").write_bytes(bytes(2048))
        shown._progress.refresh()
    text = written.getvalue().decode(encoding)
    assert "1 KiB of 4 KiB" in text
    assert f"{bar * 8}" in text
    assert "2 KiB of 4 KiB" in text
    shown.say("starting")
    shown._progress.refresh()
    shown.end()
