"""The front door: the examples of docs/library.md work word for word; what is public is known."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from openrbu import api, errors, testing
from openrbu.api import images, machines, memory

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "docs" / "library.md"
GOLDEN = ROOT / "tests" / "data" / "api.txt"


def examples() -> list[tuple[str, str]]:
    """Each example, and what it prints."""
    text = LIBRARY.read_text()
    found = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.DOTALL)
    assert len(found) == text.count("```python")
    return found


def test_the_examples_work_one_after_the_other_and_print_what_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENRBU_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for number, (code, wanted) in enumerate(examples(), 1):
        with contextlib.redirect_stdout(io.StringIO()) as said:
            exec(compile(code, f"example {number}", "exec"), names)  # our own page
        assert said.getvalue() == wanted


def test_the_examples_are_right_by_their_types(tmp_path: Path) -> None:
    program = tmp_path / "examples.py"
    program.write_text("\n".join(code for code, _ in examples()))
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", str(program)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert ended.returncode == 0, ended.stdout + ended.stderr


# -- what is public -------------------------------------------------------------------------


def type_text(annotation: object) -> str:
    """A type as the source has it."""
    text = annotation.__name__ if inspect.isclass(annotation) else str(annotation)
    return text.strip("'")


def signature_text(function: Callable[..., object]) -> str:
    signature = inspect.signature(function)
    words: list[str] = []
    for each in signature.parameters.values():
        if each.kind is each.KEYWORD_ONLY and "*" not in words:
            words.append("*")
        kind = "" if each.annotation is each.empty else f": {type_text(each.annotation)}"
        words.append(
            f"{each.name}{kind}" + ("" if each.default is each.empty else f" = {each.default!r}")
        )
    return f"({', '.join(words)}) -> {type_text(signature.return_annotation)}"


def described(name: str, module: ModuleType = api) -> Iterator[str]:
    """A public name, as lines of text."""
    thing = getattr(module, name)
    if inspect.ismodule(thing):
        yield f"module {name}"
    elif not inspect.isclass(thing):
        yield f"{name}{signature_text(thing)}"
    else:
        yield f"class {name}"
        fields = dataclasses.fields(thing) if dataclasses.is_dataclass(thing) else ()
        yield from (f"    {field.name}: {type_text(field.type)}" for field in fields)
        known = {field.name for field in fields}
        for member, value in sorted(vars(thing).items()):
            if member.startswith("_") or member in known:
                continue
            function = getattr(value, "__func__", value)  # of a class method
            getter = getattr(value, "fget", None) or getattr(value, "func", None)  # of a property
            if inspect.isfunction(function):
                yield f"    {member}{signature_text(function)}"
            elif inspect.isfunction(getter):
                returned = inspect.signature(getter).return_annotation
                yield f"    {member} -> {type_text(returned)}"


def test_a_change_of_what_is_public_is_seen() -> None:
    """After a change that is meant: write the text anew, and a line in CHANGELOG.md."""
    lines = [line for name in sorted(api.__all__) for line in described(name)]
    lines += [
        f"error {name}({', '.join(base.__name__ for base in kind.__bases__)})"
        for name, kind in sorted(vars(errors).items())
        if inspect.isclass(kind) and issubclass(kind, errors.OpenRbuError)
    ]
    for name in sorted(testing.__all__):
        lines += [f"testing: {line}" for line in described(name, testing)]
    text = "\n".join(lines) + "\n"
    if text != GOLDEN.read_text():
        fresh = ROOT / "build" / GOLDEN.name
        fresh.parent.mkdir(exist_ok=True)
        fresh.write_text(text)
        pytest.fail(f"what is public has changed: compare {GOLDEN} with {fresh}")


def test_all_that_is_public_is_there_and_documented() -> None:
    assert set(api.__all__) == {*api._PUBLIC, "errors"}
    for name in api.__all__:
        assert getattr(api, name).__doc__, name
    for name in testing.__all__:
        assert getattr(testing, name).__doc__, name


@pytest.mark.parametrize("module", [images, machines, memory])
def test_what_the_modules_of_the_api_define_is_public(module: ModuleType) -> None:
    own = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_") and getattr(value, "__module__", "") == module.__name__
    }
    assert own
    assert {name: (module.__name__, name) for name in own}.items() <= api._PUBLIC.items()


def test_the_names_are_listed_before_they_are_used() -> None:
    code = "from openrbu import api; print(sorted(set(api.__all__) - set(dir(api))))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert ended.stdout == b"[]\n"


def test_each_error_is_in_the_table_of_who_is_at_fault() -> None:
    found = re.findall(r"^\| `(\w+Error)` \|.*\| (\d)", LIBRARY.read_text(), re.MULTILINE)
    real = {
        (name, str(int(kind.exit_code)))
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, errors.OpenRbuError)
    }
    assert set(found) == real - {("OpenRbuError", "1")}


def test_what_is_not_there_is_said_to_be_missing() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = api.nothing


def test_the_import_costs_a_program_next_to_nothing() -> None:
    code = "import json, sys; from openrbu import api; print(json.dumps(sorted(sys.modules)))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    modules = set(json.loads(ended.stdout))
    ours = {name for name in modules if name.startswith("openrbu.")}
    assert ours == {"openrbu.api", "openrbu.errors"}
    assert not modules & {"numpy", "openrbu._vendor", "rich", "platformdirs"}


def test_the_package_says_that_it_has_types() -> None:
    assert (Path(inspect.getfile(errors)).parent / "py.typed").exists()


def test_the_tree_of_errors_is_drawn_as_it_is() -> None:
    """Each class with its parent, by the indent, and its exit code."""
    drawn: dict[str, tuple[str, int]] = {}
    parents: dict[int, str] = {}
    assert errors.__doc__ is not None
    for line in errors.__doc__.splitlines():
        match = re.match(r"([ │├└─]*)(\w+Error)\b.*?(?:exit code )?(\d)(?: |$)", line)
        if match is None:
            continue
        indent, name, code = len(match[1]), match[2], int(match[3])
        parents[indent] = name
        above = max((each for each in parents if each < indent), default=None)
        drawn[name] = ("OpenRbuError" if above is None else parents[above], code)
    real = {
        name: (kind.__bases__[0].__name__, int(kind.exit_code))
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, errors.OpenRbuError)
    }
    real["OpenRbuError"] = ("OpenRbuError", 1)
    assert drawn == real
