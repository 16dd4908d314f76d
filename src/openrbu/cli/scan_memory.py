"""Opens the memory that `rbu scan` searches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from openrbu import api
from openrbu.cli.options import hex_number_of
from openrbu.errors import UsageError

if TYPE_CHECKING:
    from openrbu.api import Machine, ReadableMemory
    from openrbu.bios.findings import ReadFreePages


@dataclass(frozen=True, slots=True)
class Searched:
    """A memory, what says which of its pages are free (None: nothing does), and the machine whose
    memory it is (None: it is a dump)."""

    memory: ReadableMemory
    read_free_pages: ReadFreePages | None = None
    machine: Machine | None = None
    source: str = ""
    """The file through which it is seen, of this computer."""

    notes: tuple[str, ...] = ()


@contextlib.contextmanager
def open_memory(memory: str | None, offset: str | None) -> Iterator[Searched]:
    """A machine's RAM, or a file as RAM; `-` is standard input, and None this computer's own.

    Raises what `api.open_dump` raises, a UsageError when it is neither, and an ObstacleError when
    this computer's memory can't be seen.
    """
    start = None if offset is None else _address_of(offset)
    if memory is None:
        if start is not None:
            raise UsageError("--offset is for a file: name one")
        with api.open_machine() as machine:
            yield _this_computer(machine)
        return
    if memory == "-":
        with api.open_dump(memory, offset=start) as ram:
            yield Searched(ram)
        return
    if "/" not in memory and _is_machine(memory):
        if start is not None:
            raise UsageError(f"--offset is for a file: {memory} is a virtual machine")
        from openrbu.update.verify import read_free_pages

        with api.open_machine(memory, reading=True) as machine:
            physical = machine.memory
            yield Searched(physical, partial(read_free_pages, machine.host), machine)
        return
    path = Path(memory)
    with contextlib.suppress(PermissionError):  # opening it says that
        if not path.exists():
            raise UsageError(f"{memory} is neither a machine nor a file")
    with api.open_dump(path, offset=start) as ram:
        yield Searched(ram)


def _this_computer(machine: Machine) -> Searched:
    from openrbu.hosts.live_memory import open_live_memory
    from openrbu.update.verify import read_free_pages

    live = open_live_memory()
    read = partial(read_free_pages, machine.host)
    return Searched(live.memory, read, machine, source=live.source, notes=live.notes)


def _address_of(text: str) -> int:
    """The number in `0x…`, or in decimal digits."""
    if text.isdecimal():
        return int(text[:32])
    return hex_number_of(text, "--offset")


def _is_machine(name: str) -> bool:
    """Whether there is such a machine, or may be: where this user can't see whether, opening it
    says so."""
    from openrbu.system.home import state_home

    try:
        return (state_home() / "machines" / name).is_dir()
    except PermissionError:
        return not Path(name).exists()
