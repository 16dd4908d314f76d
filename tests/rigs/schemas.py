"""The JSON Schemas of the package, and a check of documents against them.

A schema allows keys that it does not name, because later versions may add some. Here none are
allowed: a key that is not described is a fault of the schema.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any

from jsonschema import Draft202012Validator

FOLDER = resources.files("openrbu") / "schemas"


def schema_names() -> list[str]:
    """The documents that are described."""
    return sorted(each.name.removesuffix(".json") for each in FOLDER.iterdir())


def schema(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text())


def check_document(name: str, document: object) -> None:
    """Fail where a document is not as its schema says. Without a schema all is right."""
    if name in schema_names():
        for fault in _validator(name).iter_errors(document):
            raise AssertionError(f"{name}: {fault.json_path}: {fault.message}")


@cache
def _validator(name: str) -> Draft202012Validator:
    Draft202012Validator.check_schema(schema(name))
    return Draft202012Validator(_closed(schema(name)))


def _closed(part: Any) -> Any:
    """The same schema without room for keys that it does not name."""
    if isinstance(part, list):
        return [_closed(each) for each in part]
    if not isinstance(part, dict):
        return part
    closed = {key: _closed(value) for key, value in part.items()}
    if part.get("type") == "object" and "properties" in part:
        closed["additionalProperties"] = False
    return closed
