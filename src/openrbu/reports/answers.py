"""Answers of rbu, read from files: one document in a file, or several, as JSON lines or an array.

What is no answer of rbu about a machine is kept as such, with the file and the reason: a report
that leaves out a machine would look as if all went well, and one that fails because of a single
file would say nothing of all the others.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from openrbu.errors import DamagedInputError, UsageError
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

_SPACES = re.compile("[ \t\r\n\ufeff]*")
"""Between documents. A byte order mark, as Windows writes it, is allowed before each (RFC 8259,
section 8.1, leaves that to the reader)."""
_NEXT_DOCUMENT = re.compile("\n(?=\ufeff?\\{)")
"""Where reading goes on behind what is not JSON: of rbu's documents, as of JSON lines, only
the first character is a brace at the begin of a line."""
_ENDINGS = (".json", ".jsonl", ".txt")
"""Of the names of files with answers."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: who says it, and when, and what. `source`: where it was read, for people."""

    source: str
    said: records.Said
    at: dt.datetime
    body: Any
    """One of the records of `KINDS`; `Failure`, where a command had nothing to say but that."""


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """Something that is no answer of rbu about an update. `name`: of the machine, as far as the
    file's name tells it. `why`: the file and the reason, for people."""

    name: str
    why: str


def read_files(files: Iterable[tuple[str, Callable[[], bytes]]]) -> list[Answer | NoAnswer]:
    """The answers in files: of each the name that the user knows, and what reads it.

    :raise UsageError: when none of them can be read.
    """
    told: list[Answer | NoAnswer] = []
    unread: list[UsageError] = []
    is_any_read = False
    for source, read_data in files:
        try:
            data = read_data()
        except UsageError as error:
            unread.append(error)
            told.append(NoAnswer(_name_of(source), str(error)))
        else:
            told += read_answers(data, source)
            is_any_read = True
    if unread and not is_any_read:
        raise unread[0]
    return told


def read_answers(data: bytes, source: str) -> list[Answer | NoAnswer]:
    """What is in a file that the user knows as `source`; at least one."""
    told: list[Answer | NoAnswer] = []
    for number, document in enumerate(_documents(data), start=1):
        place = source if number == 1 else f"{source} (document {number})"
        try:
            told.append(_answer(document, place))
        except DamagedInputError as error:
            told.append(no_answer(place, error))
    return told or [no_answer(source, "it is empty")]


def no_answer(source: str, why: object) -> NoAnswer:
    """What is read in `source`, a file and perhaps the number of a document, is no answer."""
    return NoAnswer(_name_of(source), f"{source} is no answer of rbu --json: {why}")


def _name_of(source: str) -> str:
    """A machine's name, out of that of the file in which its answer should be."""
    file = source.partition(" (document ")[0].rpartition("/")[2]
    ending = next((each for each in _ENDINGS if file.endswith(each)), "")
    return file.removesuffix(ending) or file


def _documents(data: bytes) -> Iterator[object]:
    """The JSON documents in a file, one after the other; where there is something else, an error in
    place of one, and reading goes on with the next document."""
    decoder = json.JSONDecoder(object_pairs_hook=object_of_pairs)
    not_json = DamagedInputError("it is not JSON")
    try:
        text = data.decode(json.detect_encoding(data))  # PowerShell writes UTF-16
    except UnicodeDecodeError:
        yield not_json
        return
    end, is_json = _end_of_spaces(text, 0), True
    while end < len(text):
        try:
            document, end = decoder.raw_decode(text, end)
        except (DamagedInputError, ValueError, RecursionError) as error:
            if isinstance(error, DamagedInputError):
                yield error
            elif is_json:  # of several parts in a row that are not JSON one is told
                yield not_json
            is_json = False
            following = _NEXT_DOCUMENT.search(text, end)
            end = len(text) if following is None else following.end()
        else:
            is_json = True
            if isinstance(document, list) and document:  # as jq --slurp makes one
                yield from document
            else:
                yield document
        end = _end_of_spaces(text, end)


def _end_of_spaces(text: str, start: int) -> int:
    found = _SPACES.match(text, start)
    return start if found is None else found.end()


def _answer(document: object, source: str) -> Answer:
    """:raise DamagedInputError: when it is no answer about a machine."""
    if isinstance(document, DamagedInputError):
        raise document
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
