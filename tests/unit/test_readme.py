"""The README and the pages to get started with: their commands say what the pages show.

Blocks `sh` are run, one after the other in one directory. The block `text` behind one is what it
says; a line `…` in it stands for any lines.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrbu.cli.main import main
from openrbu.system.fuse_mounts import mounts, unmount
from rigs import sessions
from rigs.mounted import needs_fuse
from rigs.needs import leave_out
from rigs.run import needs_namespaces

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
DOCS = ROOT / "docs"

DOORS = ("You run servers", "You write an update tool", "You study firmware or memory")

SET_UP_OR_ELSEWHERE = ("Install", "Real Linux, without a Dell")
"""The sections whose blocks others run: who sets this up, and tests/lab/test_lab_commands.py."""

MOST_WORDS = 1000


@pytest.fixture
def work(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "work"
    path.mkdir()
    yield path
    for mount in mounts():
        if Path(mount.target).is_relative_to(path):
            unmount(mount.target)


def needs_run() -> None:
    """What `rbu run`, `mount` and `try` take."""
    needs_fuse()
    if os.geteuid():
        needs_namespaces()


def expect_shown(session: list[sessions.Block], work: Path) -> None:
    assert sessions.differences(session, sessions.run(session, work)) == []


def door(name: str) -> list[sessions.Block]:
    return [block for block in sessions.blocks(README) if block.section == name]


@pytest.mark.parametrize("name", DOORS)
def test_each_door_of_the_readme_shows_what_its_commands_say(
    name: str, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENRBU_HOME", str(work.parent / "home"))
    if any("rbu try" in block.commands for block in door(name)):
        needs_run()
    if name == DOORS[2]:  # its machine is the first door's
        sessions.run(door(DOORS[0]), work)
    expect_shown(door(name), work)
    assert all(block.output for block in door(name))


def test_each_block_of_the_readme_is_run_somewhere() -> None:
    sections = {block.section for block in sessions.blocks(README)}
    assert sections == {*DOORS, *SET_UP_OR_ELSEWHERE}


def test_what_the_readme_installs_by_is_there() -> None:
    dist, pipx, work_on_it = (block.commands for block in door("Install"))
    assert work_on_it.startswith(sessions.SETUP)
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"make ([\w-]+)", README.read_text())) <= set(targets)
    package = re.search(r" \./(\S+)$", dist, re.MULTILINE)
    assert package is not None
    assert package[1] in (DOCS / "install.md").read_text()  # scripts/check-dist tries it
    extras = re.search(r"\[([\w,]+)\]", pipx)
    assert extras is not None
    declared = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2]
    for extra in extras[1].split(","):
        assert re.search(rf"^{extra} = ", declared, re.MULTILINE)


def test_what_a_debian_has_not_is_installed_by_a_line_of_its_own() -> None:
    lines = re.findall(r"apt-get install ([^#\n]+)", README.read_text())
    assert [line.split() for line in lines if "smbios-utils" in line] == [["smbios-utils"]]


def test_the_readme_is_read_in_a_minute_and_says_first_what_was_not_tried() -> None:
    text = README.read_text()
    assert len(text.split()) < MOST_WORDS
    first = "\n".join(text.splitlines()[:6])
    assert "An update of a real Dell has not been tried" in first


def test_a_server_is_updated_as_its_page_shows(work: Path) -> None:
    expect_shown(sessions.blocks(DOCS / "start-administrator.md"), work)


def test_a_tool_is_tested_as_its_page_shows(work: Path) -> None:
    needs_run()
    for program in ("dmidecode", "smbios-token-ctl"):
        if shutil.which(program, path=sessions.PATH) is None:
            leave_out(f"{program} is not installed")
    expect_shown(sessions.blocks(DOCS / "start-tool-author.md"), work)


def test_memory_is_read_as_its_page_shows(work: Path) -> None:
    expect_shown(sessions.blocks(DOCS / "start-researcher.md"), work)


@pytest.mark.parametrize(
    ("page", "said", "same"),
    [
        ("a\nb\n", "a\nb\n", True),
        ("a\n", "a\nb\n", False),
        ("a\n…\nc\n", "a\nb\nb\nc\n", True),
        ("a\n…\n", "b\n", False),
        ("a.c\n", "abc\n", False),
    ],
)
def test_a_page_that_shows_something_else_is_found(page: str, said: str, same: bool) -> None:
    assert sessions.shows(page, said) == same


def commands_of_the_page() -> set[str]:
    """Of its table: `rbu machine new|list NAME` names two."""
    found = set()
    table = (DOCS / "commands.md").read_text().partition("\n\n## ")[0].replace("\\|", "|")
    for words in re.findall(r"`(?:rbu )?([a-z|]+(?: [a-z|]+)?)", table):
        first, _, second = words.partition(" ")
        found |= {
            *first.split("|"),
            *(f"{one} {two}" for one in first.split("|") for two in second.split("|")),
        }
    return found


def listed(*group: str, said: str) -> list[str]:
    """The commands in a help text."""
    _, _, table = said.partition("\nCommands:\n")
    names = re.findall(r"^  ([a-z]+) ", table.partition("\n\n")[0], re.MULTILINE)
    return [" ".join([*group, name]) for name in names]


def test_the_table_of_commands_has_each_command(capsys: pytest.CaptureFixture[str]) -> None:
    missing, groups = [], {"machine", "module", "balloon", "lab", "driver"}
    main(["--help"])
    for name in listed(said=capsys.readouterr().out):
        names = [name]
        if name in groups:
            main([name, "--help"])
            names = listed(name, said=capsys.readouterr().out)
        missing += [each for each in names if each not in commands_of_the_page()]
    assert missing == []


def words(picture: Path) -> list[str]:
    """The words in a drawing. Where lines are broken, rich decides: its versions differ there."""
    parts = ET.parse(picture).iter("{http://www.w3.org/2000/svg}text")
    return " ".join(part.text or "" for part in parts).split()


def test_the_picture_of_a_session_is_what_the_commands_say(tmp_path: Path) -> None:
    """After a change that is meant: scripts/session-picture."""
    drawn = tmp_path / "session.svg"
    script = ROOT / "scripts" / "session-picture"
    subprocess.run([sys.executable, script, drawn], check=True)
    assert words(drawn) == words(DOCS / "session.svg")


def test_the_picture_asks_for_nothing_from_outside() -> None:
    text = (DOCS / "session.svg").read_text().replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"://|url\(|href|@import|<script", text)
