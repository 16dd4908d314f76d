"""The shell blocks of the README's first session work, word for word."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from openrbu.system.fuse_mounts import mounts, unmount
from rigs.mounted import needs_fuse
from rigs.needs import leave_out
from rigs.run import needs_namespaces

ROOT = Path(__file__).parents[2]

SETUP = "make setup && . .venv/bin/activate\n"

PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

PROGRAMS = ("dmidecode", "smbios-token-ctl")


def blocks() -> list[str]:
    """The `sh` blocks of "A first session"."""
    text = (ROOT / "README.md").read_text()
    _, _, behind = text.partition("## A first session\n")
    session, _, _ = behind.partition("\n## ")
    return re.findall(r"```sh\n(.*?)```", session, re.DOTALL)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    path = tmp_path / "work"
    path.mkdir()
    return path


def session(work: Path, commands: list[str]) -> str:
    """What the commands say, run one after another; none may fail."""
    first = commands[0]
    assert first.startswith(SETUP)  # this is set up
    script = "\n".join(["set -e", first.removeprefix(SETUP), *commands[1:]])
    path = f"{Path(sys.executable).parent}:{PATH}"
    if shutil.which("rbu", path=path) is None:
        leave_out("openrbu is not installed in the environment of this Python")
    ended = subprocess.run(
        ["sh", "-c", script],
        cwd=work,
        env={**os.environ, "PATH": path, "TMPDIR": str(work.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended
    return ended.stdout


def test_the_first_block_updates_a_machine(work: Path) -> None:
    first, *others = blocks()
    assert len(others) == 2
    said = session(work, [first])
    assert "A06" in said
    assert "0x0000" in said


def test_the_whole_session_works_with_its_mount_and_its_programs(work: Path) -> None:
    needs_fuse()
    if os.geteuid():
        needs_namespaces()
    for program in PROGRAMS:
        if shutil.which(program, path=PATH) is None:
            leave_out(f"{program} is not installed")
    try:
        said = session(work, blocks())
    finally:
        for mount in mounts():
            if Path(mount.target).is_relative_to(work):
                unmount(mount.target)
    assert f"mounted at {work}/mnt" in said
    assert "BIOS Information" in said
    assert said.split()[-2:] == ["value:", "true"]
