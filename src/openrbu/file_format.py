"""Files of a numbered format: which number one has, and how an older one becomes today's.

A file is a JSON object with a key `format`. A newer one than this openrbu knows is refused. An
older one is changed by a chain of converters, one for each format that was released: number N makes
a document of format N + 1 out of one of format N.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from openrbu.errors import DamagedInputError

Document = dict[str, Any]
"""A JSON object."""

_MAX_SHOWN = 40


class NewerFormatError(DamagedInputError):
    """A file is of a format that only a newer openrbu knows."""

    kind = "newer_format"

    def __init__(self, found: int, known: int) -> None:
        super().__init__(
            f"a newer openrbu wrote it (format {_cut(str(found))}; this one knows up to {known})",
            expected=known,
            actual=found,
        )


def parse_object(data: bytes) -> Document:
    """The JSON object in a file.

    :raise DamagedInputError: when it is anything else, is not UTF-8, or has a key twice in an
        object.
    """
    try:
        document = json.loads(data.decode(), object_pairs_hook=object_of_pairs)
    except (ValueError, RecursionError):
        raise DamagedInputError("it is not JSON") from None
    if not isinstance(document, dict):
        raise DamagedInputError("it is not a JSON object")
    return document


def object_of_pairs(pairs: list[tuple[str, Any]]) -> Document:
    """A JSON object of these keys and values.

    :raise DamagedInputError: when a key is there twice: readers differ in which of them counts.
    """
    document = dict(pairs)
    if len(document) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise DamagedInputError(f"it has the key {_cut(ascii(twice))} twice")
    return document


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


class FileFormat:
    """A kind of file: the `number` of today's format, and a converter from each older one."""

    def __init__(
        self,
        number: int,
        converters: Mapping[int, Callable[[Document], Document]] = MappingProxyType({}),
    ) -> None:
        self.number, self.converters = number, converters

    def number_of(self, document: Document) -> int:
        """The format that a document says it has.

        :raise NewerFormatError: when it is newer than today's.
        :raise DamagedInputError: when it says none that ever was.
        """
        found = document.get("format")
        if type(found) is not int or found < 1:
            raise DamagedInputError("it has no format number")
        if found > self.number:
            raise NewerFormatError(found, self.number)
        return found

    def convert(self, document: Document, found: int) -> Document:
        """A document of format `found`, which is an old one or today's, in today's format.

        :raise DamagedInputError: when it is not of the format that it says.
        """
        for number in range(found, self.number):
            try:
                document = self.converters[number](document)
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                raise DamagedInputError(f"it is not of format {number} ({error!r})") from None
        return document
