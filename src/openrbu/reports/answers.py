"""Answers of rbu, read from files: one document in a file, or several, such as JSON lines.

What is no answer of rbu about a machine is an error that names the file and the reason: a report
that leaves out a machine would look as if all went well.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from openrbu.errors import DamagedInputError
from openrbu.file_format import object_of_pairs
from openrbu.reports import records
from openrbu.typed_json import known_part, read

SCHEMA = 1
"""Of documents; a newer one is refused."""

KINDS: Mapping[str, type[Any]] = {
    "status": records.Status,
    "plan": records.Plan,
    "update": records.Update,
    "arm": records.Arm,
    "cancel": records.Cancel,
    "history": records.History,
    "machine reboot": records.Post,
}
"""The commands whose answers say something of an update, and what they say."""

_SPACES = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: who says it, and when, and what. `source`: where it was read, for people."""

    source: str
    said: records.Said
    at: dt.datetime
    body: Any
    """One of the records of `KINDS`; `Failure`, where a command had nothing to say but that."""


def read_answers(data: bytes, source: str) -> list[Answer]:
    """The answers in a file that the user knows as `source`.

    :raise DamagedInputError: when it has none, or something else; the message names the file.
    """
    answers: list[Answer] = []
    try:
        for number, document in enumerate(_documents(data), start=1):
            place = source if number == 1 else f"{source} (document {number})"
            answers.append(_answer(document, place))
    except DamagedInputError as error:
        place = f"{source}: document {len(answers) + 1}" if answers else source
        raise DamagedInputError(f"{place} is no answer of rbu --json: {error}") from None
    if not answers:
        raise DamagedInputError(f"{source} is no answer of rbu --json: it is empty")
    return answers


def _documents(data: bytes) -> Iterator[object]:
    """The JSON documents in a file, one after the other."""
    decoder = json.JSONDecoder(object_pairs_hook=object_of_pairs)
    try:
        text = data.decode()
        end = _end_of_spaces(text, 0)
        while end < len(text):
            document, end = decoder.raw_decode(text, end)
            yield document
            end = _end_of_spaces(text, end)
    except (ValueError, RecursionError):
        raise DamagedInputError("it is not JSON") from None


def _end_of_spaces(text: str, start: int) -> int:
    found = _SPACES.match(text, start)
    return start if found is None else found.end()


def _answer(document: object, source: str) -> Answer:
    """:raise DamagedInputError: when it is no answer about a machine."""
    if not isinstance(document, dict) or "schema" not in document:
        raise DamagedInputError("it is not an object with a key 'schema'")
    if type(schema := document["schema"]) is not int or schema != SCHEMA:
        raise DamagedInputError(f"its schema is {str(schema)[:20]}, this openrbu knows {SCHEMA}")
    if "said" not in document:
        raise DamagedInputError("it does not say of which machine it is (no key 'said')")
    said = read(records.Said, known_part(records.Said, document["said"]))
    at = moment(said.at)
    is_failure = document.keys() == {"schema", "said", "error"}
    if said.command not in KINDS:
        known = ", ".join(KINDS)
        raise DamagedInputError(f"rbu {said.command} says nothing of an update; {known} do")
    kind = _OnlyError if is_failure else KINDS[said.command]
    if said.command in ("plan", "update") and document.get("choice", kind) is None:
        kind = records.NoStep
    body = read(kind, known_part(kind, document))
    return Answer(source, said, at, body.error if isinstance(body, _OnlyError) else body)


@dataclass(frozen=True, slots=True)
class _OnlyError:
    """The document of a command that failed and has nothing else to say."""

    error: records.Failure


def moment(text: str) -> dt.datetime:
    """A time with its zone, as documents have it.

    :raise DamagedInputError: when it is not one.
    """
    with contextlib.suppress(ValueError):
        when = dt.datetime.fromisoformat(text)
        if when.tzinfo is not None:
            return when
    raise DamagedInputError(f"{text[:40]!r} is no time with a zone")
