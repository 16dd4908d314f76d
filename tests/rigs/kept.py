"""What is kept in a file and read back."""

from __future__ import annotations

import json
from typing import TypeVar

from openrbu.typed_json import read, to_text

_Record = TypeVar("_Record")


def kept(record: _Record) -> _Record:
    """The record as it comes out of a file again, which has to be the same one."""
    again = read(type(record), json.loads(to_text(record)))
    assert again == record
    assert to_text(again) == to_text(record)
    return again
