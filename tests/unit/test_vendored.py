"""The copies of other packages are what `make vendor` made."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VENDORED = ROOT / "src" / "openrbu" / "_vendor" / "typer"
SOURCES = sorted(VENDORED.rglob("*.py"))


def test_nobody_has_edited_them() -> None:
    """Another version of typer, or another cut: scripts/vendor-typer, and make vendor."""
    listed = (ROOT / "requirements" / "vendor.sha256").read_text().splitlines()
    digests = {name: digest for digest, name in (line.split("  ") for line in listed)}
    there = [path for path in VENDORED.rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert {str(path.relative_to(ROOT)) for path in there} == set(digests)
    for path in there:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == digests[str(path.relative_to(ROOT))]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(VENDORED)))
def test_they_have_no_documentation_that_would_be_compiled(path: Path) -> None:
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            assert ast.get_docstring(node) is None
        assert not (isinstance(node, ast.Name) and node.id == "Doc")


def test_whose_they_are_is_still_said() -> None:
    assert "Gregory P. Ward" in (VENDORED / "_click" / "parser.py").read_text()
    assert "Sebastián Ramírez" in (VENDORED / "LICENSE").read_text()
    assert "Pallets" in (VENDORED / "_click" / "LICENSE.txt").read_text()
