"""Binary structures, each declared once: field, width, unit, default, required constant.

Sizes, offsets, the `struct` format and the numpy dtype are all derived from the declaration.
All integers of this project's formats are little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from openrbu.buffers import Buffer
from openrbu.errors import DamagedInputError
from openrbu.lazy import np

Value = int | bytes | tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Field:
    """One field: `code` is a `struct` letter (`B`, `H`, `I`, `Q`, `i`) or `Ns` for N bytes.

    With a `count` above 1 the value is a tuple of that length. `required` is the constant of every
    valid structure; `pack` writes it. `default` is what `pack` writes if it is given no value.
    """

    name: str
    code: str
    unit: str = ""
    count: int = 1
    default: Value | None = None
    required: Value | None = None

    @property
    def format(self) -> str:
        return self.code if self.count == 1 else f"{self.count}{self.code}"

    @property
    def size_bytes(self) -> int:
        return struct.calcsize("<" + self.format)

    def initial(self) -> Value:
        """What `pack` writes if it is given no value for this field."""
        for value in (self.required, self.default):
            if value is not None:
                return value
        if self.code.endswith("s"):
            return bytes(self.size_bytes)
        return 0 if self.count == 1 else (0,) * self.count


class Layout:
    """A structure of fields with fixed sizes, in sequence."""

    def __init__(self, name: str, *fields: Field) -> None:
        self.name = name
        self.fields = fields
        self._struct = struct.Struct("<" + "".join(field.format for field in fields))
        self.size_bytes = self._struct.size
        self._initials = [(field.name, field.initial()) for field in fields]
        self._offsets: dict[str, int] = {}
        offset = 0
        for field in fields:
            self._offsets[field.name] = offset
            offset += field.size_bytes

    def offset_of(self, name: str) -> int:
        """Where a field starts, in bytes from the start of the structure."""
        return self._offsets[name]

    def unpack(self, data: Buffer, offset: int = 0) -> dict[str, Any]:
        """The fields by name. Constants are not checked here: see `violation`.

        :raise DamagedInputError: when `data` ends before the end of the structure.
        """
        available = len(data) - offset
        if available < self.size_bytes:
            raise DamagedInputError(
                f"{self.name} is cut short: {max(0, available)} of {self.size_bytes} bytes",
                offset=offset,
                expected=self.size_bytes,
                actual=max(0, available),
            )
        flat = iter(self._struct.unpack_from(data, offset))
        values: dict[str, Any] = {}
        for field in self.fields:
            if field.count == 1 or field.code.endswith("s"):
                values[field.name] = next(flat)
            else:
                values[field.name] = tuple(next(flat) for _ in range(field.count))
        return values

    def pack(self, values: Mapping[str, Value] | None = None, /, **more: Value) -> bytes:
        """The bytes of a structure. Fields that are not given get their constant, default or zero.

        Bytes shorter than their field are padded with zeros.

        :raise TypeError: when there is no field of a name.
        :raise ValueError: when bytes are longer than their field, or a tuple has another length.
        :raise struct.error: when a number does not fit its field.
        """
        given = {**(values or {}), **more}
        unknown = given.keys() - self._offsets.keys()
        if unknown:
            raise TypeError(f"{self.name} has no field {', '.join(sorted(unknown))}")
        flat: list[int | bytes] = []
        for field, (name, initial) in zip(self.fields, self._initials, strict=True):
            value = given.get(name, initial)
            if isinstance(value, bytes) and len(value) > field.size_bytes:  # struct would cut it
                raise ValueError(f"{self.name}: {field.name} has room for {field.size_bytes} bytes")
            if isinstance(value, tuple):
                if len(value) != field.count:
                    raise ValueError(f"{self.name}: {field.name} is {field.count} numbers")
                flat.extend(value)
            else:
                flat.append(value)
        return self._struct.pack(*flat)

    def violation(self, values: Mapping[str, Any], *skip: str) -> tuple[Field, Any] | None:
        """The first field that has not its required constant, and its value; None if all have."""
        for field in self.fields:
            if field.required is not None and field.name not in skip:
                actual = values[field.name]
                if actual != field.required:
                    return field, actual
        return None

    @cached_property
    def dtype(self) -> np.dtype[np.void]:
        """The same structure as a numpy dtype (packed, little-endian)."""
        parts: list[tuple[str, str] | tuple[str, str, tuple[int]]] = []
        for field in self.fields:
            if field.code.endswith("s"):
                parts.append((field.name, f"V{field.size_bytes}"))
            elif field.count == 1:
                parts.append((field.name, "<" + _NUMPY[field.code]))
            else:
                parts.append((field.name, "<" + _NUMPY[field.code], (field.count,)))
        return np.dtype(parts)


_NUMPY = {"B": "u1", "H": "u2", "I": "u4", "Q": "u8", "i": "i4"}
