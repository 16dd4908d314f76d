"""What is known of a Dell system ID: whose it is, and what speaks against RBU there.

The facts (docs/reference/packages.md, K5) are in `systems.tsv` beside this module; its head says
where they are from. An ID that is not there is no worse for that: the table ends in 2010, but for a
few.
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


class Against(Enum):
    """How much speaks against RBU on a system."""

    NOTHING = ""
    """Nothing that is known here."""

    CAUTION = "caution"
    """Something to know before an update."""

    BROKEN = "broken"
    """RBU does not work there, or does harm: Dell's own tool would not use it."""


@dataclass(frozen=True, slots=True)
class KnownSystem:
    """A system. `name` is empty where only the ID is known, `what` where nothing is `against`."""

    id: int
    name: str
    against: Against
    what: str

    @property
    def is_broken(self) -> bool:
        return self.against is Against.BROKEN


def known_system(system_id: int) -> KnownSystem:
    """What is known of a system; of most IDs that a u16 can be that is nothing."""
    line = _lines().get(system_id)
    return KnownSystem(system_id, "", Against.NOTHING, "") if line is None else _parse(line)


def title_of(system: SystemId) -> str:
    """A system's ID (and revision, where that is not 0), and its name where that is known."""
    name = known_system(system.id).name
    return f"{system} ({name})" if name else str(system)


@cache
def _lines() -> dict[int, str]:
    """The lines of the table by their IDs, read when somebody asks for the first time."""
    data = pkgutil.get_data(__package__, _TABLE)
    assert data is not None, f"{_TABLE} is a part of this package"
    lines = data.decode("utf-8").splitlines()
    return {_id_in(line): line for line in lines if not line.startswith("#")}


def _id_in(line: str) -> int:
    return int(line.partition("\t")[0], 16)


def _parse(line: str) -> KnownSystem:
    """From a line of the table: ID, name, how much is against it, in what words."""
    _, name, against, what = (line.split("\t") + [""] * 3)[:4]
    return KnownSystem(_id_in(line), name, Against(against), what)
