"""The sessions in the project's pages: their blocks of commands, and what the pages say that they
say.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rigs.needs import leave_out

ROOT = Path(__file__).parents[2]

PATH = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

SETUP = "make setup && . .venv/bin/activate"
"""How a session begins in a checkout. Where it is tested this is done."""

CUT = "…"
"""A line of it in a page stands for any number of lines."""

_PART = re.compile(
    r"^## (?P<section>[^\n]+)$|^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


class Block(NamedTuple):
    """Commands, in a section of a page, and what is shown as their output (None: nothing is)."""

    section: str
    commands: str
    output: str | None


def blocks(page: Path) -> list[Block]:
    """The `sh` blocks of a page, each with the `text` block right behind it."""
    found: list[Block] = []
    section, end = "", -1
    text = page.read_text(encoding="utf-8")
    for part in _PART.finditer(text):
        if part["section"]:
            section = part["section"]
        elif part["kind"] == "sh":
            found.append(Block(section, part["text"], None))
            end = part.end()
        elif part["kind"] == "text" and not text[end : part.start()].strip():
            found[-1] = found[-1]._replace(output=part["text"])
    return found


def run(session: Sequence[Block], work: Path) -> list[str]:
    """What the blocks say, run one after another in one shell; no command of them may fail."""
    if shutil.which("rbu", path=PATH) is None:
        leave_out("openrbu is not installed in the environment of this Python")
    mark = "-- the next block --"
    parts = [f"echo '{mark}'\n{block.commands.replace(SETUP, '', 1)}" for block in session]
    ended = subprocess.run(
        ["sh", "-ec", "\n".join(parts)],
        cwd=work,
        env={**os.environ, "PATH": PATH, "TMPDIR": str(work.parent), "LC_ALL": "C.UTF-8"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout
    return ended.stdout.split(f"{mark}\n")[1:]


def shows(page: str, said: str) -> bool:
    """Whether a page shows what was said, but for the lines that it leaves out."""
    lines = (".*" if line == CUT else re.escape(line) + "\n" for line in page.splitlines())
    return re.fullmatch("".join(lines), said, re.DOTALL) is not None


def differences(session: Sequence[Block], said: Sequence[str]) -> list[str]:
    """Where the pages show something else than what was said."""
    return [
        f"of\n{block.commands}the page shows\n{block.output}and it is\n{text}"
        for block, text in zip(session, said, strict=True)
        if block.output is not None and not shows(block.output, text)
    ]
