"""What is known about a Dell system ID: the system's name, and known problems of RBU on it.

The facts (docs/reference/packages.md, K5) are in `systems.tsv` beside this module, with their
sources at its start. That an ID is missing there means nothing: with few exceptions, the table ends
in 2010.
"""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from openrbu.formats.hdr import SystemId

_TABLE = "systems.tsv"


class KnownProblem(Enum):
    """How serious the known problem of RBU on a system is."""

    NOTHING = ""
    """No problem is known."""

    CAUTION = "caution"
    """The user should know about it before an update."""

    BROKEN = "broken"
    """RBU does not work on it, or does damage: Dell's own tool does not use it."""


@dataclass(frozen=True, slots=True)
class KnownSystem:
    """A system. `name` is empty if only the ID is known. `what` describes the problem; it is empty
    if there is none."""

    id: int
    name: str
    problem: KnownProblem
    what: str

    @property
    def is_broken(self) -> bool:
        return self.problem is KnownProblem.BROKEN


def known_system(system_id: int) -> KnownSystem:
    """What is known about a system; nothing for most IDs."""
    line = _lines().get(system_id)
    return KnownSystem(system_id, "", KnownProblem.NOTHING, "") if line is None else _parse(line)


def title_of(system: SystemId) -> str:
    """A system's ID (and revision, if that is not 0), and its name if that is known."""
    name = known_system(system.id).name
    return f"{system} ({name})" if name else str(system)


@cache
def _lines() -> dict[int, str]:
    """The lines of the table by their IDs; they are read at the first call."""
    data = pkgutil.get_data(__package__, _TABLE)
    assert data is not None, f"{_TABLE} is a part of this package"
    lines = data.decode("utf-8").splitlines()
    return {_id_in(line): line for line in lines if not line.startswith("#")}


def _id_in(line: str) -> int:
    return int(line.partition("\t")[0], 16)


def _parse(line: str) -> KnownSystem:
    """A line of the table: ID, name, how serious the problem is, its description."""
    _, name, problem, what = (line.split("\t") + [""] * 3)[:4]
    return KnownSystem(_id_in(line), name, KnownProblem(problem), what)
