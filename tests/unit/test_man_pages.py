"""Each command has a manual page, made of its own help, that says what it takes and how it ends."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrbu.cli.app import COMMANDS, Group
from openrbu.cli.completion import Shell
from rigs import needs
from rigs.cli import Cli

SCRIPT = Path(__file__).parents[2] / "scripts" / "make-man"


def commands() -> Iterator[tuple[str, ...]]:
    """The words of each command."""
    for name, row in COMMANDS.items():
        yield (name,)
        if isinstance(row, Group):
            yield from ((name, each) for each in row.rows)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with all pages."""
    directory = tmp_path_factory.mktemp("man")
    subprocess.run(
        [sys.executable, SCRIPT, directory],
        check=True,
        env={**os.environ, "SOURCE_DATE_EPOCH": "86400"},
    )
    return directory


def unescaped(page: str) -> str:
    return re.sub(r"\\f[BP]", "", page).replace("\\-", "-").replace("\\e", "\\")


def test_there_is_a_page_for_each_command_and_no_other(pages: Path) -> None:
    expected = {"rbu.1", *(f"rbu-{'-'.join(words)}.1" for words in commands())}
    assert {path.name for path in pages.iterdir()} == expected


def test_a_page_names_no_path_of_the_repository(pages: Path) -> None:
    assert [path.name for path in pages.iterdir() if "docs/" in path.read_text()] == []
    assert 'page "Searching memory"' in " ".join((pages / "rbu-scan.1").read_text().split())


def test_a_page_has_each_option_and_argument_of_the_help(pages: Path, rbu: Cli) -> None:
    for words in commands():
        text = unescaped((pages / f"rbu-{'-'.join(words)}.1").read_text())
        shown = rbu(*words, "--help").out.partition("\nOptions:\n")[2]
        named = re.findall(r"^  (-.(?:, --[\w-]+)?|--[\w-]+)(?= |$)", shown, re.MULTILINE)
        assert named, words
        for option in named:
            assert f"\n{option}" in text, (words, option)


def test_a_page_has_its_date_from_the_build(pages: Path) -> None:
    assert '.TH RBU 1 1970-01-02 "openrbu ' in (pages / "rbu.1").read_text()


def test_the_page_of_rbu_has_what_the_reference_says_of_environment_and_exit_codes(
    pages: Path,
) -> None:
    text = unescaped((pages / "rbu.1").read_text())
    for words in ("OPENRBU_HOME\nThe directory of the virtual machines", "\n5\nA file or a table"):
        assert words in text
    assert "](" not in text


def test_no_page_has_a_fault_that_mandoc_finds(pages: Path, tmp_path: Path) -> None:
    mandoc = needs.program("mandoc", "mandoc")
    found = subprocess.run(
        [mandoc, "-Tlint", "-W", "warning", *sorted(pages.iterdir())],
        capture_output=True,
        check=False,
        text=True,
    )
    assert (found.returncode, found.stdout) == (0, "")
    wrong = tmp_path / "wrong.1"
    wrong.write_text((pages / "rbu.1").read_text().replace(".SH NAME", ".SG NAME", 1))
    judged = subprocess.run(
        [mandoc, "-Tlint", "-W", "warning", wrong], capture_output=True, check=False
    )
    assert judged.returncode != 0


def test_the_script_says_how_it_is_used() -> None:
    ended = subprocess.run([sys.executable, SCRIPT], capture_output=True, check=False, text=True)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "scripts/make-man DIRECTORY" in ended.stderr


def test_completions_are_built_for_each_shell_that_has_a_script() -> None:
    """scripts/make-dist has a list of its own."""
    listed = re.search(r"^for shell in (.*); do$", SCRIPT.with_name("make-dist").read_text(), re.M)
    assert listed is not None
    assert listed[1].split() == [shell.value for shell in Shell]
