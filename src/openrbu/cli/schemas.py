"""The command schema: the JSON Schema of what another command writes with --json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import resources
from typing import Annotated, Any

from openrbu._vendor import typer
from openrbu.cli.show import emit
from openrbu.errors import UsageError

COMMON, ERROR = "common", "error"
"""What the other schemas refer to, which is no document; and the document of a command that fails
and has nothing to show."""

_FOLDER = resources.files("openrbu") / "schemas"


def schema_names() -> list[str]:
    """The documents that are described: `machine-show` is that of `rbu machine show --json`."""
    names = {each.name.removesuffix(".json") for each in _FOLDER.iterdir()}
    return sorted(names - {COMMON})


def schema_of(name: str) -> dict[str, Any]:
    """The schema of one document, with all that it refers to inside.

    :raise UsageError: when no document has that name.
    """
    if name not in schema_names():
        command = name.replace("-", " ")
        raise UsageError(f"no schema describes {command!r}; rbu schema lists those that there are")
    whole = _read(name)
    parts: dict[str, Any] = whole.setdefault("$defs", {})
    missing = list(_brought_in(whole, parts))
    while missing:
        key, part = missing.pop(0)
        parts[key] = part
        missing += _brought_in(part, parts)
    return whole


def _brought_in(part: Any, known: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """What a part of a schema refers to in other files, by the name that it gets in this one. The
    references are changed to that."""
    if isinstance(part, list):
        for each in part:
            yield from _brought_in(each, known)
    elif isinstance(part, dict):
        for each in part.values():
            yield from _brought_in(each, known)
        file, _, place = part.get("$ref", "").partition("#")
        if file:
            name = file.removesuffix(".json")
            key = place.rpartition("/")[2] or f"rbu-{name}"
            part["$ref"] = f"#/$defs/{key}"
            if key not in known:
                yield key, _part_of(name, place)


def _part_of(name: str, place: str) -> Any:
    """A part of another schema; its references into its own file are into that file, by name."""
    schema = json.loads(json.dumps(_read(name)).replace('"$ref": "#/', f'"$ref": "{name}.json#/'))
    for step in filter(None, place.split("/")):
        schema = schema[step]
    return schema


def _read(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((_FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return document


def complete_schemas(incomplete: str) -> list[str]:
    return [name for name in schema_names() if name.startswith(incomplete)]


def schema(
    command: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[COMMAND]",
            help="The command, such as: machine show. error: what each writes when it fails.",
            autocompletion=complete_schemas,
        ),
    ] = None,
) -> int:
    """Print the JSON Schema (draft 2020-12) of what a command writes with --json.

    Without COMMAND, list those that there are.

    \b
    Example:  rbu schema machine show >machine-show.schema.json
    """
    if not command:
        emit([name.replace("-", " ") for name in schema_names()])
        return 0
    emit(json.dumps(schema_of("-".join(command)), indent=2).splitlines())
    return 0
