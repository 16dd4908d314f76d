"""The manual for real machines explains each row that a plan can have, and each verdict."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrbu.update.checks.check import Question, Verdict

ROOT = Path(__file__).parents[2]
MANUAL = ROOT / "docs" / "real-machine.md"
CHECKS = ROOT / "src" / "openrbu" / "update" / "checks"

MAKERS = re.compile(r"Check|partial|_?check|_in_the_way|_fine|_handled|_unknown")
"""What makes a check; its name is the first text among the arguments."""


def names() -> set[str]:
    """The names of all checks that the modules of the questions can make."""
    return {name for path in sorted(CHECKS.glob("*.py")) for name in names_in(path.read_text())}


def names_in(code: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
            maker = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
            texts = (arg.value for arg in node.args if isinstance(arg, ast.Constant))
            first = next((text for text in texts if isinstance(text, str)), "")
            if MAKERS.fullmatch(maker) and re.fullmatch(r"[a-z][a-z0-9_]*", first):
                yield first


def rows(question: str) -> list[str]:
    """The rows that the manual's table below this question explains."""
    text = MANUAL.read_text(encoding="utf-8").partition(f"### {question}\n")[2]
    table = re.split(r"^#", text, maxsplit=1, flags=re.MULTILINE)[0]
    first = re.findall(r"^\| ([^|]+?) \|", table, re.MULTILINE)
    return [name.strip() for cell in first[2:] for name in cell.split(",")]


def test_each_row_of_a_plan_is_explained() -> None:
    explained = {name for question in Question for name in rows(question.text)}
    assert sorted(name.replace("_", " ") for name in names()) == sorted(explained)


@pytest.mark.parametrize("question", Question)
def test_each_row_is_explained_once(question: Question) -> None:
    explained = rows(question.text)
    assert sorted(explained) == sorted(set(explained))


@pytest.mark.parametrize("outcome", ["cancelled", "failed", "interrupted", "in progress", "armed"])
def test_each_way_in_which_an_update_ends_before_its_restart_is_explained(outcome: str) -> None:
    _, _, told = MANUAL.read_text(encoding="utf-8").partition("\n## After the restart\n")
    assert re.search(rf"^\| {outcome}\b(?!, with)", told, re.MULTILINE)


@pytest.mark.parametrize("verdict", Verdict)
def test_each_verdict_is_explained(verdict: Verdict) -> None:
    word = verdict.value.replace("_", " ")
    assert f"| `{word}` |" in MANUAL.read_text(encoding="utf-8")


def test_a_check_is_found_by_its_name() -> None:
    code = (
        'yield _check("mains", "text")\nreturn Check(Question.REST, "tpm", found)\n_check(name)\n'
    )
    assert set(names_in(code)) == {"mains", "tpm"}
