"""Tables of the manual, which tests compare with the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "openrbu"


def sources() -> Iterator[Path]:
    """The modules of openrbu, without those of others that come with it."""
    for path in sorted(SOURCE.rglob("*.py")):
        if "_vendor" not in path.relative_to(SOURCE).parts:
            yield path


def table(page: Path, name: str) -> list[list[str]]:
    """The rows of the table below the mark `<!-- name -->`, without head and backticks."""
    (behind,) = page.read_text("utf-8").split(f"<!-- {name} -->\n")[1:]
    lines = re.match(r"(?:\|.*\n)+", behind)
    assert lines is not None, name
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines[0].splitlines()]
    return [[cell.strip().replace("`", "") for cell in row] for row in rows[2:]]
