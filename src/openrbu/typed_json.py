"""Dataclasses out of JSON and into it: what openrbu keeps in files, read by one strict reader.

A record is a frozen dataclass. Its fields are of these kinds, which are all that a reader needs:

==========================  =================================================================
Python                      JSON
==========================  =================================================================
`bool`, `int`, `str`        the same; `true` is not a number
`Natural`                   a number of 0 or more
`float`                     a number
`None`, `Literal[...]`      the value itself
`X | Y`                     what one of them is. Several records: each has one field of the
                            same name with a `Literal`, which tells them apart
`tuple[X, ...]`             an array
`tuple[X, Y]`               an array of just as many elements
`dict[str, X]`              an object with any keys
a dataclass                 an object with exactly the keys that are its fields
==========================  =================================================================

A key that is missing, one that is not known and a value of another kind are errors, which say
where in the document they are: a file that is not understood in full is not understood.
(`docs/decisions/0021` tells why this is no library.)
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from openrbu.errors import DamagedInputError

Natural = Annotated[int, "0 or more"]
"""A number of 0 or more."""

_Reader = Callable[[Any], Any]

_Record = TypeVar("_Record")

_NAMES = {
    dict: "an object",
    list: "an array",
    str: "a text",
    bool: "true or false",
    int: "a number",
}

_MAX_SHOWN = 40


class DocumentError(DamagedInputError):
    """A document is not what the reader knows. `path` says where in it, such as `modules[0].cursor`
    (empty: the document itself); `expected` and `actual` what should be there and what is."""

    kind = "document"

    def __init__(self, path: str, expected: str, actual: str) -> None:
        where = path.lstrip(".")
        text = f"{where}: " if where else ""
        super().__init__(f"{text}{expected} expected, {actual} found")
        self.path, self.expected, self.actual = where, expected, actual


def read(kind: type[_Record], document: object) -> _Record:
    """The record of this kind that a document, as `json.loads` gives it, holds.

    :raise DocumentError: when it holds anything else.
    """
    try:
        record: _Record = _reader_of(kind)(document)
    except _MismatchError as mismatch:
        raise DocumentError(mismatch.path, mismatch.expected, mismatch.actual) from None
    return record


def known_part(kind: Any, document: object) -> object:
    """What `read` knows of a document that others wrote, or a newer openrbu: without keys that are
    no fields of the record of this kind, and with the default of a field whose key is missing.
    What is not as `read` expects is left as it is."""
    if is_dataclass(kind) and isinstance(document, dict):
        defaults = {each.name: each.default for each in fields(kind) if each.default is not MISSING}
        record: Any = kind
        hints = {name: hint for name, hint in _hints(record).items() if name in document}
        return defaults | {name: known_part(hint, document[name]) for name, hint in hints.items()}
    kinds = get_args(kind)
    if get_origin(kind) is tuple and isinstance(document, list):
        return [known_part(kinds[0], each) for each in document]
    if get_origin(kind) in (Union, types.UnionType):
        records = [each for each in kinds if is_dataclass(each)]
        return known_part(records[0], document) if len(records) == 1 else document
    return document


def to_text(record: object, *, indent: int | None = None) -> str:
    """A record as JSON text, which `read` makes the same record of."""
    return json.dumps(record, default=_fields, allow_nan=False, indent=indent)


def to_document(record: object) -> Any:
    """A record as `json.loads` would give it."""
    return json.loads(to_text(record))


def _fields(record: Any) -> dict[str, Any]:
    """A record as an object, one level of it.

    :raise TypeError: when it is not a record.
    """
    if not is_dataclass(record):
        raise TypeError(f"{type(record).__name__} is not kept in files")
    return {name: getattr(record, name) for name in record.__dataclass_fields__}


class _MismatchError(Exception):
    """Something is not as it should be. Its path grows on the way out."""

    def __init__(self, expected: str, value: object, *, path: str = "") -> None:
        super().__init__()
        self.expected, self.path = expected, path
        self.actual = value if isinstance(value, _Words) else _shown(value)

    def within(self, step: str) -> _MismatchError:
        """The same, seen from one level further out."""
        self.path = step + self.path
        return self


class _Words(str):
    """What was found, in words."""

    __slots__ = ()


def _shown(value: object) -> str:
    if isinstance(value, dict | list):
        return _NAMES[type(value)]
    text = json.dumps(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


def _reader_of(kind: Any) -> _Reader:
    """The reader for a kind, made once."""
    reader = _readers.get(kind)
    if reader is None:
        reader = _readers[kind] = _make_reader(kind)
    return reader


def _make_reader(kind: Any) -> _Reader:
    """
    :raise TypeError: when a record has a field of a kind that can't be read.
    """
    if is_dataclass(kind):
        return _record_reader(kind)
    if hasattr(kind, "__supertype__"):  # a NewType
        return _reader_of(kind.__supertype__)
    make = _MAKERS.get(get_origin(kind))
    if make is None:
        raise TypeError(f"{kind} is not kept in files")
    return make(get_args(kind))


def _plain_reader(kind: type) -> _Reader:
    def read_plain(value: object) -> object:
        if type(value) is not kind:
            raise _MismatchError(_NAMES[kind], value)
        return value

    return read_plain


def _read_text(value: Any) -> object:
    """A text that can be written again: JSON may have half of a surrogate pair. One that stands for
    a byte which is not UTF-8 (`surrogateescape`) can."""
    if type(value) is not str:
        raise _MismatchError(_NAMES[str], value)
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise _MismatchError("a text of whole characters", value) from None
    return value


def _read_natural(value: Any) -> object:
    if type(value) is not int or value < 0:
        raise _MismatchError("a number of 0 or more", value)
    return value


def _read_float(value: Any) -> object:
    """A number that is one: JSON as Python reads it has NaN and infinities, too."""
    if type(value) not in (int, float) or value - value != 0:
        raise _MismatchError("a number", value)
    return float(value)


def _literal_reader(values: tuple[object, ...]) -> _Reader:
    known = {(type(value), value) for value in values}

    def read_literal(value: object) -> object:
        if isinstance(value, dict | list) or (type(value), value) not in known:
            raise _MismatchError(" or ".join(json.dumps(each) for each in values), value)
        return value

    return read_literal


def _union_reader(kinds: tuple[Any, ...]) -> _Reader:
    records = [kind for kind in kinds if is_dataclass(kind)]
    others = [_reader_of(kind) for kind in kinds if not is_dataclass(kind)]
    read_record = None
    if records:
        read_record = _reader_of(records[0]) if len(records) == 1 else _tagged_reader(records)

    def read_one(value: object) -> object:
        if read_record is not None and isinstance(value, dict):
            return read_record(value)
        expected = [] if read_record is None else [_NAMES[dict]]
        for reader in others:
            try:
                return reader(value)
            except _MismatchError as mismatch:
                if mismatch.path:  # an array or an object, with something wrong in it
                    raise
                expected.append(mismatch.expected)
        raise _MismatchError(" or ".join(expected), value)

    return read_one


def _tagged_reader(kinds: list[Any]) -> _Reader:
    """Records that the value of one field tells apart."""
    tags = [
        {(name, each) for name, kind in _hints(record).items() for each in _literals(kind)}
        for record in kinds
    ]
    name = next(name for name, _ in tags[0])
    known = {value: _reader_of(kind) for kind, own in zip(kinds, tags, strict=True)
             for own_name, value in own if own_name == name}  # fmt: skip

    def read_tagged(value: dict[str, Any]) -> object:
        if name not in value:
            raise _MismatchError(f"a key {name!r}", _Words("none"))
        tag = value[name]
        if not isinstance(tag, str) or tag not in known:
            raise _MismatchError(" or ".join(map(json.dumps, known)), tag, path=f".{name}")
        return known[tag](value)

    return read_tagged


def _literals(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) is Literal else ()


def _tuple_reader(kinds: tuple[Any, ...]) -> _Reader:
    if kinds[-1] is Ellipsis:
        return _array_reader(_reader_of(kinds[0]))
    return _row_reader([_reader_of(kind) for kind in kinds])


def _array_reader(read_item: _Reader) -> _Reader:
    def read_array(value: object) -> object:
        if type(value) is not list:
            raise _MismatchError(_NAMES[list], value)
        items: list[object] = []
        try:
            for item in value:
                items.append(read_item(item))
        except _MismatchError as mismatch:
            raise mismatch.within(f"[{len(items)}]") from None
        return tuple(items)

    return read_array


def _row_reader(readers: list[_Reader]) -> _Reader:
    count = len(readers)

    def read_row(value: object) -> object:
        if type(value) is not list:
            raise _MismatchError(_NAMES[list], value)
        if len(value) != count:
            raise _MismatchError(f"an array of {count}", _Words(f"one of {len(value)}"))
        items: list[object] = []
        try:
            for reader, item in zip(readers, value, strict=True):
                items.append(reader(item))
        except _MismatchError as mismatch:
            raise mismatch.within(f"[{len(items)}]") from None
        return tuple(items)

    return read_row


def _object_reader(kinds: tuple[Any, ...]) -> _Reader:
    _, item = kinds
    read_item = _reader_of(item)

    def read_object(value: object) -> object:
        if type(value) is not dict:
            raise _MismatchError(_NAMES[dict], value)
        items: dict[str, object] = {}
        for key in value:
            _read_text(key)
        key = ""
        try:
            for key, item in value.items():
                items[key] = read_item(item)
        except _MismatchError as mismatch:
            raise mismatch.within(f".{key}") from None
        return items

    return read_object


def _record_reader(kind: Any) -> _Reader:
    readers: dict[str, _Reader] = {}

    def read_record(value: object) -> object:
        if not readers:  # made at the first use, so that a record may have its own kind inside
            readers.update({name: _reader_of(hint) for name, hint in _hints(kind).items()})
        if type(value) is not dict:
            raise _MismatchError(_NAMES[dict], value)
        if value.keys() != readers.keys():
            _refuse_keys(value, readers)
        fields: dict[str, object] = {}
        key = ""
        try:
            for key, reader in readers.items():
                fields[key] = reader(value[key])
        except _MismatchError as mismatch:
            raise mismatch.within(f".{key}") from None
        return kind(**fields)

    return read_record


def _refuse_keys(value: dict[str, object], readers: dict[str, _Reader]) -> None:
    for key in readers:
        if key not in value:
            raise _MismatchError(f"a key {key!r}", _Words("none"))
    unknown = next(key for key in value if key not in readers)
    known = ", ".join(readers)
    raise _MismatchError(f"no key but {known}", _Words(f"a key {_shown(unknown)}"))


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


_MAKERS: dict[Any, Callable[[tuple[Any, ...]], _Reader]] = {
    Literal: _literal_reader,
    Union: _union_reader,
    types.UnionType: _union_reader,
    tuple: _tuple_reader,
    dict: _object_reader,
}
"""How a reader is made for what `typing.get_origin` says of a kind, with the kind's arguments."""

_readers: dict[Any, _Reader] = {
    bool: _plain_reader(bool),
    int: _plain_reader(int),
    str: _read_text,
    float: _read_float,
    Natural: _read_natural,
    types.NoneType: _literal_reader((None,)),
}
"""The readers that there are yet."""
