"""The page of messages: each that it names is in the code, and each obstacle of a plan is there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import pytest

from openrbu.cli.main import main
from openrbu.update.passwords import PasswordNeededError, WrongPasswordError
from rigs.pages import sources

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "troubleshooting.md"
SOURCE = ROOT / "src" / "openrbu"
CHECKS = SOURCE / "update" / "checks"
OBSTACLES = SOURCE / "own_driver" / "obstacles.py"

UPDATE = SOURCE / "update"

NOT_FOR_USERS = {"UsageError", "TypeError", "ValueError", "AssertionError"}

IDENTIFIER = re.compile(r"[a-z][a-z0-9]*(?:_[a-z0-9]+)*")
GAP = "…"


def tables() -> Iterator[list[list[str]]]:
    """The cells of each table of messages, without its head."""
    for part in PAGE.read_text("utf-8").split("<!-- messages -->\n")[1:]:
        lines = re.match(r"(?:\|.*\n)+", part)
        assert lines is not None
        rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines[0].splitlines()]
        yield [[cell.strip() for cell in row] for row in rows if set("".join(row)) - set("- ")]


def messages() -> list[str]:
    """All messages that the page names."""
    found = []
    for head, *rows in tables():
        column = head.index("message")
        for row in rows:
            assert re.fullmatch(r"`[^`]+`", row[column]), row
            found.append(row[column].strip("`"))
    return found


def kinds_named() -> list[str]:
    """The kinds of obstacles that the page names."""
    return [row[0].strip("`") for head, *rows in tables() for row in rows if head[0] == "kind"]


@cache
def texts() -> tuple[str, ...]:
    """The texts in the code, with a gap in place of each value."""
    return tuple(
        text
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if (text := text_of(node)) is not None
    )


def text_of(node: ast.AST) -> str | None:
    match node:
        case ast.Constant(value=str(value)):
            return value
        case ast.JoinedStr(values=values):
            return "".join(
                str(each.value) if isinstance(each, ast.Constant) else GAP for each in values
            )
    return None


def pattern_of(message: str) -> re.Pattern[str]:
    """What finds a message in a text with its values, or with gaps in place of them."""
    return re.compile(".*".join(re.escape(piece.strip()) for piece in message.split(GAP)))


def is_in_code(message: str) -> bool:
    pattern = pattern_of(message)
    return any(pattern.search(text) for text in texts())


def raised_in(code: str) -> Iterator[str]:
    """The texts of the errors that a module raises, but for those of command lines, those that are
    made of values only, and what a mistake in a program raises."""
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Raise(exc=ast.Call(func=ast.Name(id=name), args=[first, *_])):
                text = text_of(first) or ""
                is_ours = name.endswith("Error") and name not in NOT_FOR_USERS
                if is_ours and len(text.replace(GAP, "")) > 12:
                    yield text


def kinds_in(code: str) -> Iterator[str]:
    """The kinds of obstacles that a module of checks can make: an obstacle's own, that of a check
    in the way without one, and texts that are chosen for a variable `kind`."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        match node:
            case ast.Call():
                yield from kind_of_call(node)
            case ast.Assign(targets=[ast.Tuple(elts=[ast.Name(id="kind"), *_])], value=value):
                yield from identifiers([value.elts[0]] if isinstance(value, ast.Tuple) else [])
            case ast.FunctionDef(name="_wrong_machine" | "_wrong_version"):
                returned = (each.value for each in ast.walk(node) if isinstance(each, ast.Return))
                yield from identifiers(
                    each.elts[0] for each in returned if isinstance(each, ast.Tuple)
                )


def kind_of_call(call: ast.Call) -> Iterator[str]:
    maker = ast.unparse(call.func)
    own = [each.value for each in call.keywords if each.arg == "obstacle"]
    names = list(identifiers(call.args))
    words = [ast.unparse(each).rpartition(".")[2] for each in call.args]
    at = words.index("IN_THE_WAY") if "IN_THE_WAY" in words else None
    if at is not None:
        own += call.args[at + 2 : at + 3]  # behind the advice
    if own:
        yield from identifiers(own)
    elif names and (at is not None or maker in ("_in_the_way", "Obstacle")):
        yield names[0]


def identifiers(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """The texts among the nodes that can be a kind."""
    for node in nodes:
        match node:
            case ast.Constant(value=str(value)) if IDENTIFIER.fullmatch(value):
                yield value


def kinds() -> set[str]:
    """All kinds of obstacles that a plan can have."""
    of_errors = {PasswordNeededError.kind, WrongPasswordError.kind}
    paths = [*sorted(CHECKS.glob("*.py")), OBSTACLES]
    return of_errors | {kind for path in paths for kind in kinds_in(path.read_text("utf-8"))}


@pytest.mark.parametrize("message", messages())
def test_each_message_is_in_the_code(message: str) -> None:
    assert len(message.replace(GAP, "").strip()) > 3
    assert is_in_code(message)


def test_what_no_code_says_is_not_found() -> None:
    assert not is_in_code("the image is for …, not for … on Sundays")


def test_each_error_that_an_update_can_end_with_is_there() -> None:
    patterns = [pattern_of(message) for message in messages()]
    raised = {text for path in UPDATE.glob("*.py") for text in raised_in(path.read_text("utf-8"))}
    assert len(raised) > 30
    missing = [text for text in raised if not any(each.search(text) for each in patterns)]
    assert sorted(missing) == []


@pytest.mark.parametrize(
    "command",
    [
        "info nothere.hdr",
        "plan nothere.hdr",
        "info zeros",
        "join zeros -o out",
        "packets zeros -o out --packet-size 1025",
        "scan nothere",
        "machine new a/b",
        "machine new demo --ram 1K",
        "status -m one -m two",
        "build zeros -o nothere/out --bios-version A01 --system 0x0121",
    ],
)
def test_the_error_of_a_wrong_word_is_there(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENRBU_HOME", str(tmp_path / "home"))
    (tmp_path / "zeros").write_bytes(bytes(1 << 20))
    assert main(command.split()) != 0
    told = capsys.readouterr().err
    named = [each for each in messages() if pattern_of(each).search(told)]
    assert named, told


def test_each_obstacle_of_a_plan_is_there_once() -> None:
    assert sorted(kinds_named()) == sorted(kinds())


def test_a_kind_is_found_however_it_is_given() -> None:
    code = """
kind, what, advice = "first", *problem
yield _check("driver", text, Verdict.IN_THE_WAY, advice, obstacle="second")
yield Check(Question.STAGING, "third", text, Verdict.IN_THE_WAY, advice)
yield _in_the_way("mode", text, obstacle="fourth")
yield _check("own_driver", text, Verdict.IN_THE_WAY, text, "fifth")
yield Obstacle("sixth", "some text", "advice")
yield _check("fine", text, Verdict.FINE)
"""
    assert list(kinds_in(code)) == ["first", "second", "third", "fourth", "fifth", "sixth"]
