"""The JSON Schemas of the package, and the check of every document that a test makes `rbu` print.

A document is checked twice: against the schema as it is published, as other programs do, and
against one that is stricter. A schema allows keys that it does not name, because later versions may
add some. The stricter one allows none: a key that is not described is a fault of the schema. A
document without a schema is a fault, too.

`rigs.cli.Cli` checks what it runs in this process. What runs as a process of its own, under
whatever other program, is checked where its output is read: `Popen.communicate`, which
`subprocess.run` calls, too (`check_processes`).
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import subprocess
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import best_match

from openrbu.cli.app import COMMANDS, Group
from openrbu.cli.main import _own_words as own_words
from openrbu.cli.schemas import ERROR, schema_names, schema_of

PROGRAMS = ("sys.exit(entry())", "sys.exit(main())", "raise SystemExit(main())")
"""How a Python program ends that is `rbu` (`rigs.cli.RBU` and others). The words after it are the
command line."""

_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")

_FORMATS = FormatChecker(())


@_FORMATS.checks("date-time", ValueError)
def _is_date_time(value: object) -> bool:
    """Whether it is a time with a zone, as RFC 3339 has it (section 5.6)."""
    if isinstance(value, str):
        dt.datetime.fromisoformat(value)
        return _RFC_3339.fullmatch(value) is not None
    return True  # of another type


def check_document(name: str, document: Any) -> None:
    """Fail where a document is not as the schema of that name says, or there is none."""
    assert name in _names(), f"no schema in src/openrbu/schemas describes {name}"
    for validator in validators(name):
        faults = list(validator.iter_errors(document))
        if faults:  # keys are not evaluated, too, where something else is wrong
            others = [each for each in faults if each.validator != "unevaluatedProperties"]
            fault = best_match(others or faults)
            said = f"{name}: {fault.json_path}: {fault.message}"
            raise AssertionError(f"{said} (src/openrbu/schemas, scripts/json-page)")


def check_output(words: Sequence[str], output: str | bytes) -> None:
    """Fail where a command line has `--json`, and its output is not as its schema says.

    There is none where it could not be written.
    """
    own = own_words(list(words))  # those of a program that is run are its own
    if "--json" not in own or not output.strip():
        return
    name = command_name(own)
    document = json.loads(output)
    is_error = document.keys() - {"said"} == {"schema", "error"}
    check_document(ERROR if is_error or name is None else name, document)


def command_name(words: Sequence[str]) -> str | None:
    """The name of the schema for a command line; None: there is no such command."""
    row = COMMANDS.get(words[0]) if words else None
    if isinstance(row, Group):
        known = len(words) > 1 and words[1] in row.rows
        return f"{words[0]}-{words[1]}" if known else None
    return None if row is None else words[0]


def check_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check what each `rbu` prints whose output is read to its end."""
    communicate = subprocess.Popen.communicate

    def communicate_and_check(process: Any, *arguments: Any, **named: Any) -> Any:
        said = communicate(process, *arguments, **named)
        words = _words_of(process.args)
        if words is not None and said[0] is not None:
            check_output(words, said[0])
        return said

    monkeypatch.setattr(subprocess.Popen, "communicate", communicate_and_check)


def _words_of(arguments: Any) -> list[str] | None:
    """The command line of the innermost `rbu` among a process's arguments; None: it has none."""
    if not isinstance(arguments, list | tuple):
        return None
    words = [os.fsdecode(each) for each in arguments]
    last = max((n for n, each in enumerate(words) if each.rstrip().endswith(PROGRAMS)), default=-1)
    return None if last < 0 else words[last + 1 :]


@cache
def _names() -> frozenset[str]:
    return frozenset(schema_names())


@cache
def validators(name: str) -> list[Draft202012Validator]:
    """That of the published schema, and that of the stricter one."""
    published = schema_of(name)
    return [
        Draft202012Validator(each, format_checker=_FORMATS)
        for each in (published, _closed(published))
    ]


def _closed(part: Any) -> Any:
    """The same schema without room for keys that it does not name. One without a type is a part of
    others, which have more keys."""
    if isinstance(part, list):
        return [_closed(each) for each in part]
    if not isinstance(part, dict):
        return part
    closed = {key: _closed(value) for key, value in part.items()}
    if "object" in part.get("type", ()) and "additionalProperties" not in part:
        has_others = not part.keys().isdisjoint(("allOf", "$ref"))
        closed["unevaluatedProperties" if has_others else "additionalProperties"] = False
    return closed
