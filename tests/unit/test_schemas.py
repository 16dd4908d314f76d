"""The documents of `rbu --json`: each has a schema, and each that a test sees is checked."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from openrbu.cli import show
from openrbu.cli.app import COMMANDS, Group, Row, load
from openrbu.cli.schemas import COMMON, ERROR, schema_names, schema_of
from rigs.cli import Cli
from rigs.schemas import check_document, check_output, validators
from rigs.wheels import file_in_wheel

ROOT = Path(__file__).parents[2]

PART = "scan-part"
"""A file that `rbu scan --extract` writes."""

POLICY = "policy"
"""A file that `rbu plan --policy` reads."""

SAID = {"command": "c", "machine": "m", "computer": "h", "at": "2026-11-29T06:30:00Z"}

UNITS = ("_bytes", "_kib", "_s", "seconds")
"""How the name of a size or a duration ends."""


def schema(name: str) -> Any:
    """A schema as it is in its file."""
    path = ROOT / "src" / "openrbu" / "schemas" / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))


def references(part: Any) -> Iterator[str]:
    if isinstance(part, list):
        for each in part:
            yield from references(each)
    elif isinstance(part, dict):
        yield from [part["$ref"]] if "$ref" in part else []
        for each in part.values():
            yield from references(each)


def rows() -> Iterator[tuple[str, Row]]:
    for word, row in COMMANDS.items():
        if isinstance(row, Group):
            yield from ((f"{word}-{second}", each) for second, each in row.rows.items())
        else:
            yield word, row


def properties(part: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """All keys that a schema describes, with what it says of them."""
    if isinstance(part, list):
        for each in part:
            yield from properties(each)
    elif isinstance(part, dict):
        yield from part.get("properties", {}).items()
        for each in part.values():
            yield from properties(each)


def all_properties() -> list[tuple[str, dict[str, Any]]]:
    return [each for name in (COMMON, *schema_names()) for each in properties(schema(name))]


def document(**changes: object) -> dict[str, Any]:
    return {"schema": 1, "said": SAID, "changed": True, "name": "demo"} | changes


def test_each_command_that_answers_in_json_has_a_schema_and_nothing_else_has() -> None:
    answering = [
        name
        for name, row in rows()
        if inspect.signature(load(row), eval_str=True).return_annotation is not int
    ]
    assert sorted([*answering, ERROR, PART, POLICY]) == schema_names()


def test_the_page_of_all_documents_is_made_from_the_schemas(tmp_path: Path) -> None:
    """After a change of a schema: scripts/json-page."""
    made = tmp_path / "json.md"
    subprocess.run([sys.executable, ROOT / "scripts" / "json-page", made], check=True)
    page = ROOT / "docs" / "reference" / "json.md"
    assert made.read_text(encoding="utf-8") == page.read_text(encoding="utf-8")


def test_the_schemas_are_in_the_wheel(tmp_path: Path) -> None:
    content = file_in_wheel(tmp_path, "openrbu/schemas/plan.json")
    assert json.loads(content) == schema("plan")


@pytest.mark.parametrize("name", schema_names())
def test_a_schema_is_printed_with_all_that_it_refers_to(rbu: Cli, name: str) -> None:
    printed = rbu("schema", *name.split("-"))
    assert (printed.code, printed.err) == (0, "")
    assert json.loads(printed.out) == schema_of(name)
    parts = schema_of(name)["$defs"]
    assert {each.removeprefix("#/$defs/") for each in references(schema_of(name))} <= set(parts)
    own, common = schema(name).get("$defs", {}), schema(COMMON)["$defs"]
    assert own.keys().isdisjoint(common), "each part has a name of its own"


def test_the_schemas_are_listed_and_an_unknown_one_is_refused(rbu: Cli) -> None:
    listed = rbu("schema").out.splitlines()
    assert [name.replace(" ", "-") for name in listed] == schema_names()
    assert "rbu schema lists those that there are" in rbu.fails(2, "schema", "machine", "sell")
    rbu.fails(2, "schema", COMMON)


@pytest.mark.parametrize("name", [COMMON, *schema_names()])
def test_a_schema_is_one_of_draft_2020_12(name: str) -> None:
    assert schema(name)["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    Draft202012Validator.check_schema(schema(name))


@pytest.mark.parametrize("name", [COMMON, *schema_names()])
def test_no_schema_is_one_of_several(name: str) -> None:
    """Each allows more keys than it names, so a document may be as two of them say: `anyOf`."""
    assert '"oneOf"' not in json.dumps(schema(name))


def test_each_key_is_described() -> None:
    silent = {
        name
        for name, described in all_properties()
        if described.keys().isdisjoint(("description", "$ref", "const", "anyOf"))
    }
    assert silent == set()


@pytest.mark.parametrize("kind", ["integer", "number"])
def test_a_size_and_a_duration_say_their_unit_in_their_name(kind: str) -> None:
    for name, described in all_properties():
        words = described.get("description", "").lower()
        if kind in described.get("type", ()) and ("size" in words or "seconds" in words):
            assert name.endswith(UNITS), name


def test_what_is_called_a_time_is_one() -> None:
    timed = {name for name, described in all_properties() if described.get("format") == "date-time"}
    named = {name for name, _ in all_properties() if name == "at" or name.endswith("_at")}
    assert timed == named - {"found_at"}  # a place


@pytest.mark.parametrize(
    "wrong",
    [document(changed=1), document(more=1), {"schema": 1, "said": SAID}, document(schema=2)],
    ids=["type", "key", "missing", "version"],
)
def test_a_document_that_differs_from_its_schema_fails(wrong: dict[str, Any]) -> None:
    check_document("machine-off", document())
    with pytest.raises(AssertionError, match="machine-off: "):
        check_document("machine-off", wrong)


def test_a_document_that_only_the_published_schema_refuses_fails(
    rbu: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is as two parts of a `oneOf` say, of which the stricter schema refuses one."""
    rbu("machine", "new", "demo")
    said = rbu.told("machine", "reboot", "demo")
    assert said["attempted"] is False
    described = schema_of("machine-reboot")
    described["oneOf"] = described.pop("anyOf")
    monkeypatch.setattr("rigs.schemas.schema_of", lambda _: described)
    validators.cache_clear()
    try:
        with pytest.raises(AssertionError, match=r"machine-reboot: \$: .* is valid under each of"):
            check_document("machine-reboot", said)
    finally:
        validators.cache_clear()


def test_a_plain_validator_takes_what_a_restart_says(rbu: Cli) -> None:
    rbu("machine", "new", "demo")
    plain = Draft202012Validator(rbu("schema", "machine", "reboot").document)
    for words in ((), ("--cold",), ("--kexec",)):
        ended = rbu("machine", "reboot", "demo", *words, "--json")
        assert ended.code == 0
        plain.validate(ended.document)


def test_a_document_without_a_schema_fails() -> None:
    with pytest.raises(AssertionError, match=r"no schema .* describes machine-sell"):
        check_document("machine-sell", document())


@pytest.mark.parametrize(
    ("at", "is_right"),
    [
        ("2026-11-29T06:30:00Z", True),
        ("2026-11-29T06:30:00.5+01:00", True),
        ("2026-11-29T06:30:00", False),
        ("2026-11-29 06:30:00Z", False),
        ("2026-11-31T06:30:00Z", False),
    ],
)
def test_a_time_has_a_zone(at: str, is_right: bool) -> None:
    line = {"number": 1, "at": at, "event": "line", "boot_id": "1", "text": ""}
    said = {"schema": 1, "said": SAID, "name": "demo", "lines": [line]}
    if is_right:
        check_document("machine-log", said)
    else:
        with pytest.raises(AssertionError, match=r"lines\[0\]\.at"):
            check_document("machine-log", said)


def test_what_a_command_says_in_this_process_is_checked(
    rbu: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    rbu("machine", "models", "--json")
    monkeypatch.setattr(show, "emit_document", lambda _: print('{"schema": 1, "models": 5}'))
    with pytest.raises(AssertionError, match=r"machine-models: \$\.models: 5"):
        rbu("machine", "models", "--json")


def test_what_a_command_says_in_another_process_is_checked() -> None:
    words = ("machine", "models", "--json")
    for models, is_right in (([], True), (5, False)):
        text = json.dumps({"schema": 1, "models": models})
        program = f"import sys; main = lambda: print({text!r}); sys.exit(main())"
        command = ["env", sys.executable, "-c", program, *words]
        if is_right:
            subprocess.run(command, capture_output=True, check=True)
        else:
            with pytest.raises(AssertionError, match="machine-models: "):
                subprocess.run(command, capture_output=True, check=True)


def test_the_words_of_a_program_that_is_run_are_its_own() -> None:
    check_output(["run", "--machine", "demo", "--", "lsblk", "--json"], "no JSON")
    check_output(["run", "--machine", "demo", "lsblk", "--json"], "no JSON")
