"""docs/reference/environment.md has each variable that the code reads or sets, and each file that
it keeps on a real machine.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from rigs.pages import sources, table

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "environment.md"

BY_LIBRARIES = {"TERM", "NO_COLOR"}
"""Read by rich, too."""

OWN_FILE = re.compile(r"/(?:var/lib|run|dev|etc)/openrbu[\w./-]*")


def variables(code: str) -> Iterator[tuple[str, bool]]:
    """The variables that a module reads (False) or sets (True) in this process's environment."""
    tree = ast.parse(code)
    names = {
        target.id: node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr="get", value=of), args=[key, *_]) if is_env(of):
                yield named(key, names), False
            case ast.Call(func=ast.Attribute(attr="getenv"), args=[key, *_]):
                yield named(key, names), False
            case ast.Subscript(value=of, slice=key, ctx=context) if is_env(of):
                yield named(key, names), not isinstance(context, ast.Load)


def is_env(node: ast.expr) -> bool:
    return ast.unparse(node).endswith("environ")


def named(key: ast.expr, names: Mapping[str, object]) -> str:
    """The variable's name; of a constant of another module that constant's."""
    value = key.value if isinstance(key, ast.Constant) else names.get(ast.unparse(key))
    return str(value) if value is not None else ast.unparse(key)


def in_code(*, is_set: bool) -> set[str]:
    found = {
        name
        for path in sources()
        for name, sets in variables(path.read_text("utf-8"))
        if sets == is_set
    }
    return {"OPENRBU_HOME" if name == "HOME_VARIABLE" else name for name in found}


def test_each_variable_that_is_read_is_there() -> None:
    rows = table(PAGE, "read")
    assert sorted(row[0] for row in rows) == sorted(in_code(is_set=False) | BY_LIBRARIES)


def test_each_variable_that_is_set_for_a_program_is_there() -> None:
    named_here = {row[0] for row in table(PAGE, "set")}
    text = "".join(path.read_text("utf-8") for path in sources())
    own = set(re.findall(r'"(OPENRBU_[A-Z_]+)"', text))
    assert in_code(is_set=True) <= named_here
    assert own == {name for name in named_here | in_code(is_set=False) if "OPENRBU" in name}


def test_each_file_on_a_real_machine_is_there() -> None:
    named_here = {row[0] for row in table(PAGE, "files")}
    text = "".join(path.read_text("utf-8") for path in sources())
    kept = {path.rstrip("./") for path in re.findall(f'"({OWN_FILE.pattern})"', text)}
    assert kept == named_here


def test_a_variable_is_found_however_it_is_read() -> None:
    code = """
NAME = "FIRST"
os.environ.get(NAME)
os.environ["SECOND"]
os.getenv("THIRD")
os.environ["FOURTH"] = "x"
"""
    assert sorted(variables(code)) == [
        ("FIRST", False),
        ("FOURTH", True),
        ("SECOND", False),
        ("THIRD", False),
    ]
