"""The reader of what openrbu keeps in files: what it takes, and where it says that something is."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openrbu.errors import DamagedInputError, ExitCode
from openrbu.typed_json import DocumentError, Natural, read, to_document, to_text
from openrbu.units import PhysAddr


@dataclass(frozen=True, slots=True)
class Cat:
    kind: Literal["cat"]
    lives: Natural


@dataclass(frozen=True, slots=True)
class Dog:
    kind: Literal["dog"]
    name: str | None
    other: Dog | None


@dataclass(frozen=True, slots=True)
class House:
    is_open: bool
    height: int
    width: float
    at: PhysAddr
    due: float | Literal["at once"] | None
    pets: tuple[Cat | Dog, ...]
    rows: tuple[tuple[Natural, str], ...]
    rooms: dict[str, tuple[int, ...]]


GOOD: dict[str, Any] = {
    "is_open": True,
    "height": -3,
    "width": 2,
    "at": 4096,
    "due": "at once",
    "pets": [{"kind": "cat", "lives": 9}, {"kind": "dog", "name": None, "other": None}],
    "rows": [[0, "a"], [1, "b"]],
    "rooms": {"hall": [1, 2]},
}


def changed(*path: str | int, value: object) -> Any:
    """The good document with one thing changed; `...` takes it away."""
    document = json.loads(json.dumps(GOOD))
    place = document
    for step in path[:-1]:
        place = place[step]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return document


def test_a_document_becomes_the_record_and_the_record_the_document() -> None:
    house = read(House, GOOD)
    assert house.pets == (Cat("cat", 9), Dog("dog", None, None))
    assert (house.width, type(house.width), house.rows) == (2.0, float, ((0, "a"), (1, "b")))
    assert to_document(house) == GOOD
    assert read(House, json.loads(to_text(house))) == house


@pytest.mark.parametrize(
    ("path", "value", "where", "expected", "found"),
    [
        (["height"], "3", "height", "a number", '"3"'),
        (["height"], True, "height", "a number", "true"),
        (["height"], 3.0, "height", "a number", "3.0"),
        (["is_open"], 1, "is_open", "true or false", "1"),
        (["width"], math.nan, "width", "a number", "NaN"),
        (["width"], math.inf, "width", "a number", "Infinity"),
        (["width"], "wide", "width", "a number", '"wide"'),
        (["at"], None, "at", "a number", "null"),
        (["due"], "soon", "due", 'a number or "at once" or null', '"soon"'),
        (["due"], [], "due", 'a number or "at once" or null', "an array"),
        (["pets"], {}, "pets", "an array", "an object"),
        (["pets", 0, "lives"], -1, "pets[0].lives", "a number of 0 or more", "-1"),
        (["pets", 0, "kind"], "cow", "pets[0].kind", '"cat" or "dog"', '"cow"'),
        (["pets", 0, "kind"], ["cat"], "pets[0].kind", '"cat" or "dog"', "an array"),
        (["pets", 0, "kind"], ..., "pets[0]", "a key 'kind'", "none"),
        (["pets", 0], "cat", "pets[0]", "an object", '"cat"'),
        (["pets", 1, "name"], 4, "pets[1].name", "a text or null", "4"),
        (["pets", 1, "other"], {"kind": "dog", "name": 1, "other": None}, "pets[1].other.name",
         "a text or null", "1"),
        (["pets", 1, "age"], 4, "pets[1]", "no key but kind, name, other", 'a key "age"'),
        (["rows", 1], [1], "rows[1]", "an array of 2", "one of 1"),
        (["rows", 1, 0], "x" * 99, "rows[1][0]", "a number of 0 or more", f'"{"x" * 39}…'),
        (["rows", 1], "b", "rows[1]", "an array", '"b"'),
        (["rooms", "hall", 1], None, "rooms.hall[1]", "a number", "null"),
        (["rooms"], [], "rooms", "an object", "an array"),
        (["rows"], ..., "", "a key 'rows'", "none"),
        (["colour"], "red", "", "no key but is_open, height, width, at, due, pets, rows, rooms",
         'a key "colour"'),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_and_its_place_named(
    path: list[str | int], value: object, where: str, expected: str, found: str
) -> None:
    with pytest.raises(DocumentError) as refusal:
        read(House, changed(*path, value=value))
    error = refusal.value
    assert (error.path, error.expected, error.actual) == (where, expected, found)
    assert str(error) == f"{where}: {expected} expected, {found} found".removeprefix(": ")
    assert (isinstance(error, DamagedInputError), error.exit_code) == (True, ExitCode.DAMAGED_INPUT)


@pytest.mark.parametrize("document", [None, 3, "text", [], [GOOD]])
def test_a_document_that_is_no_object_is_refused(document: object) -> None:
    with pytest.raises(DocumentError, match="an object expected"):
        read(House, document)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(sorted(GOOD)), inner),
)


@given(st.sampled_from(sorted(GOOD)), _JSON)
def test_whatever_a_document_holds_it_is_read_whole_or_refused(key: str, value: object) -> None:
    try:
        house = read(House, changed(key, value=value))
    except DocumentError:
        return
    assert to_document(house) == changed(key, value=value)


def test_only_records_are_written_and_no_number_that_is_none() -> None:
    with pytest.raises(TypeError, match="set is not kept in files"):
        to_text({1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_text([math.inf])


def test_a_record_with_a_field_of_another_kind_can_not_be_read() -> None:
    @dataclass(frozen=True)
    class Odd:
        number: complex

    with pytest.raises(TypeError, match="complex"):
        read(Odd, {"number": 1})
