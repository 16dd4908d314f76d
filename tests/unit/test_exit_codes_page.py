"""docs/reference/exit-codes.md has each exit code, and each kind of error with its code."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

from openrbu.errors import ExitCode, OpenRbuError
from rigs.pages import sources, table

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "openrbu"
PAGE = ROOT / "docs" / "reference" / "exit-codes.md"


def load_all_errors() -> None:
    """Import each module that gives an error a kind."""
    for path in sources():
        if re.search(r"^    kind(?:: str)? = ", path.read_text("utf-8"), re.MULTILINE):
            name = path.relative_to(SOURCE.parent).with_suffix("").as_posix().replace("/", ".")
            importlib.import_module(name.removesuffix(".__init__"))


def classes(root: type[OpenRbuError]) -> set[type[OpenRbuError]]:
    """All classes of errors below `root` that are openrbu's, not a test's."""
    below = {each for child in root.__subclasses__() for each in classes(child)}
    return {each for each in {root, *below} if each.__module__.startswith("openrbu.")}


def test_each_exit_code_is_there() -> None:
    rows = table(PAGE, "exit codes")
    assert [(int(row[0]), row[1]) for row in rows] == [
        (int(code), code.name.lower()) for code in ExitCode
    ]
    assert all(row[2] for row in rows)


def test_each_kind_of_error_is_there_with_its_exit_code() -> None:
    load_all_errors()
    expected = {(each.kind, int(each.exit_code)) for each in classes(OpenRbuError)}
    rows = table(PAGE, "kinds")
    assert [(row[0], int(row[1])) for row in rows] == sorted(expected)
    assert all(row[2] for row in rows)
