"""`rbu`, whose own driver takes a few huge pages of this computer at most, wherever they lie.

A kernel gives those above 4 GiB first, where this computer has such; to get one below, nearly all
of its memory may have to be taken. That is for the guests of the lab.
"""

from __future__ import annotations

import sys
from pathlib import Path

from openrbu.own_driver import backends
from openrbu.own_driver.huge_pages import HugePageBackend, HugePages
from openrbu.own_driver.own_memory import HugePagesRecord, Note, OwnMemoryRecord
from openrbu.own_driver.pools import LinuxHugePages
from openrbu.units import PhysAddr

MOST_PAGES = 24

_TESTS = str(Path(__file__).parents[1])
_PROGRAM = f"""
import sys
sys.path.insert(0, {_TESTS!r})
from rigs.own_rbu import main
sys.exit(main())
"""

RBU = (sys.executable, "-c", _PROGRAM)


class PagesAnywhere(HugePages):
    """Huge pages that count as being below any address."""

    def allocate(self, order: int, *, below: PhysAddr | None = None) -> PhysAddr:
        return super().allocate(order)

    def reserve(self, size_bytes: int, *, block_bytes: int, below: PhysAddr | None = None) -> None:
        super().reserve(size_bytes, block_bytes=block_bytes)


class FewPages(HugePageBackend):
    """Makes such memory."""

    def __init__(self, root: Path = Path("/")) -> None:
        super().__init__(root, LinuxHugePages(), most_pages=MOST_PAGES)

    def new(self, note: Note) -> PagesAnywhere:
        return PagesAnywhere(self, note)

    def open(self, record: OwnMemoryRecord, note: Note) -> PagesAnywhere:
        assert isinstance(record, HugePagesRecord)
        memory = PagesAnywhere(self, note)
        memory.restore(record)
        return memory


def main() -> int:
    """As `openrbu.cli.main.entry`."""
    from openrbu.cli.main import entry

    backends.default_backend = FewPages
    return entry()
