"""Faults that a machine can have on purpose: what a fault is, and how it is written.

A fault is data, and one place where it acts. Each group has its own in its folder, in a module
`faults`: `memory`, `kernel`, `bios`. All of them together are in `machine.faults`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from openrbu.errors import UsageError


@dataclass(frozen=True, slots=True)
class FaultKind:
    """A kind of fault.

    `does`: one sentence, what it does and where. `value`: the name of the number that follows its
    name and `=`, such as `ORDER`; empty: none. `values`: the numbers that are possible. `default`:
    the number where none is given; None: one has to be given.
    """

    name: str
    does: str
    value: str = ""
    values: range = range(1, 2)
    default: int | None = None

    @property
    def usage(self) -> str:
        """How it is written: `no-battery`, `fragmented=ORDER`, `little-memory[=MIB]`."""
        if not self.value:
            return self.name
        number = f"={self.value}"
        return f"{self.name}{number}" if self.needs_value else f"{self.name}[{number}]"

    @property
    def needs_value(self) -> bool:
        """Whether a number has to be given with it."""
        return bool(self.value) and self.default is None


Faults: TypeAlias = Mapping[FaultKind, int]
"""The faults of one machine, each with its number; 1 where it has none."""


def parse_faults(labels: Iterable[str], kinds: Iterable[FaultKind]) -> Faults:
    """The faults that `labels` name, such as `no-battery` and `fragmented=3`, in their order.

    :raise UsageError: when one is not among `kinds`, is named twice, or has a number that is not
        possible.
    """
    known = {kind.name: kind for kind in kinds}
    faults: dict[FaultKind, int] = {}
    for label in labels:
        name, equals, number = label.partition("=")
        kind = known.get(name)
        if kind is None:
            raise UsageError(f"no fault is called {name!r}; there are: {', '.join(known)}")
        if kind in faults:
            raise UsageError(f"the fault {name} is given twice")
        faults[kind] = _number(kind, number if equals else None)
    return faults


def _number(kind: FaultKind, text: str | None) -> int:
    """The number of a fault that was written with this text behind `=`; None: without one.

    :raise UsageError: when it is not possible.
    """
    if not kind.value:
        if text is not None:
            raise UsageError(f"the fault {kind.name} takes no number, not even {text!r:.40}")
        return 1
    if text is None:
        if kind.default is None:
            raise UsageError(f"the fault {kind.name} needs a number: {kind.usage}")
        return kind.default
    # Other digits than those of ASCII, and thousands of them, are not numbers here.
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None
    if number is None or number not in kind.values:
        least, most = kind.values[0], kind.values[-1]
        raise UsageError(
            f"the fault {kind.name} takes a number from {least} to {most}, not {text!r:.40}"
        )
    return number
