"""The tree of the manual's pages is whole, and what looks at the made site sees what is wrong."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from openrbu.cli.app import COMMANDS, Group
from rigs.cli import Cli

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CHECK = ROOT / "scripts" / "check-site"


def test_each_page_is_in_one_tree() -> None:
    conf = runpy.run_path(str(DOCS / "conf.py"))
    named = [
        page
        for tree, captions in conf["TREES"].items()
        for names in captions.values()
        for page in conf["pages"](tree, names)
    ]
    pages = {path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md")}
    assert sorted([*named, conf["root_doc"]]) == sorted(pages)


def test_the_page_of_options_has_each_command_with_all_its_options(rbu: Cli) -> None:
    script = str(ROOT / "scripts" / "options-page")
    made = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    sections = dict(re.findall(r"^## rbu (.+)\n((?:(?!## ).*\n)+)", made.stdout, re.MULTILINE))
    rows = {
        name: row.rows if isinstance(row, Group) else {"": row} for name, row in COMMANDS.items()
    }
    commands = [f"{name} {second}".strip() for name, below in rows.items() for second in below]
    assert list(sections) == commands
    for command, text in sections.items():
        said = rbu(*command.split(), "--help").out.partition("\nOptions:\n")[2]
        options = set(re.findall(r"^  +(?:-\w, )?(--[\w-]+)", said, re.MULTILINE)) - {"--help"}
        in_rows = set(re.findall(r"^\| `(?:-\w, )?(--[\w-]+)", text, re.MULTILINE))
        assert in_rows == options, command


def test_the_page_of_commands_has_each_of_them() -> None:
    page = (DOCS / "commands.md").read_text("utf-8")
    cells = re.findall(r"^\| (`rbu .+?) (?<!\\)\| ", page, re.MULTILINE)
    words = [set(re.findall(r"[a-z]+", cell)) for cell in cells]
    for name, row in COMMANDS.items():
        for second in row.rows if isinstance(row, Group) else (name,):
            assert any({name, second} <= each for each in words), f"rbu {name} {second}"


def test_the_reference_lists_all_its_pages() -> None:
    text = (DOCS / "reference" / "README.md").read_text("utf-8")
    pages = {path.name for path in (DOCS / "reference").glob("*.md")} - {"README.md"}
    assert {page for page in pages if f"]({page})" not in text} == set()


@pytest.mark.parametrize(
    ("page", "says"),
    [
        ('<a href="b.html#there">b</a><p id="here"><a href="#here">a</a>', ""),
        ('<a href="elsewhere.html">b</a>', "elsewhere.html leads nowhere"),
        ('<a href="b.html#nowhere">b</a>', "b.html#nowhere names no element"),
        ('<a href="https://example.org/">a link for the reader</a>', ""),
        ('<script src="https://example.org/a.js"></script>', "asks for https://example.org/a.js"),
        ('<img src="//example.org/a.png">', "asks for //example.org/a.png"),
        ('<link href="missing.css" rel="stylesheet">', "missing.css leads nowhere"),
        ('<p style="background: url(http://example.org/a)">', "asks for http://example.org/a"),
    ],
)
def test_what_is_wrong_with_a_site_is_told(tmp_path: Path, page: str, says: str) -> None:
    (tmp_path / "a.html").write_text(page)
    (tmp_path / "b.html").write_text('<p id="there">')
    assert_says(tmp_path, says)


def test_a_font_from_elsewhere_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("<p>")
    (tmp_path / "a.css").write_text('@import "https://example.org/font.css";')
    assert_says(tmp_path, "asks for https://example.org/font.css")


def test_no_site_is_wrong(tmp_path: Path) -> None:
    assert_says(tmp_path, "no pages")


def assert_says(site: Path, says: str) -> None:
    words = [sys.executable, str(CHECK), str(site)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert says in ended.stderr
    assert ended.returncode == (1 if says else 0), ended
