"""The code of two real BIOSes, beside the checkout and no part of it: what it does with a memory.

`../shared/oracle` runs the vendor's machine code in an emulator (the package unicorn). What it says
of a memory, and what our rule sets say, are brought into one shape here, so that they can be
compared whole. Where the oracle or unicorn is not there, the tests are left out by name.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openrbu.bios.rules import latitude_d500, poweredge_2950
from openrbu.bios.rules.ruleset import Collected, Identity, MonoSearch
from openrbu.memory.physical import Region
from openrbu.memory.ram_file import RamFile
from openrbu.units import GIB, KIB, MIB, PhysAddr
from rigs.needs import leave_out

_BESIDE = Path(__file__).parents[2].parent / "shared" / "data"
DATA = Path(os.environ.get("OPENRBU_DATA") or _BESIDE)
ORACLE = DATA.parent / "oracle"

POWEREDGE_SYSTEM, D500_SYSTEM = 0x01B2, 0x0152
REAL_FLASH_BYTES = 1 * MIB
"""The data that both real BIOSes want."""

_SECONDS = 60.0


def oracle_module(name: str) -> Any:
    """One of the oracle's modules: `bioses`, `emulator`, `cases`.

    Without the oracle the test is left out.
    """
    if not (ORACLE / f"{name}.py").is_file():
        leave_out(f"there is no oracle in {ORACLE} (beside what OPENRBU_DATA names)")
    if importlib.util.find_spec("unicorn") is None:
        leave_out("the Python package unicorn is not installed")
    keeps_bytecode = sys.dont_write_bytecode
    sys.path.insert(0, str(ORACLE))
    sys.dont_write_bytecode = True
    try:
        return importlib.import_module(name)
    finally:
        sys.dont_write_bytecode = keeps_bytecode
        sys.path.remove(str(ORACLE))


@dataclass(frozen=True, slots=True)
class Piece:
    """What a search for an image in one piece came to."""

    accepted: int | None
    candidates: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class Joined:
    """What a collector came to. One that runs wild has nothing more to tell."""

    reason: str
    set_id: int | None = None
    total: int = 0
    data_size: int = 0
    header_size: int = 0
    seen: int = 0
    sound: int = 0
    taken: tuple[int, ...] = ()
    password_crc: int | None = None
    image: bytes = b""


WILD = Joined("runs wild")


@dataclass(frozen=True, slots=True)
class Told:
    """All that a BIOS did with a memory."""

    first: Piece
    packets: Joined | None = None
    second: Piece | None = None

    def __str__(self) -> str:
        parts = [str(self.first)]
        if self.packets is not None:
            short = {name: getattr(self.packets, name) for name in Joined.__slots__}
            short["image"] = len(self.packets.image)
            short["taken"] = [hex(address) for address in self.packets.taken]
            parts.append(str(short))
        return "; ".join([*parts, str(self.second)])


def ram_regions(size_bytes: int, low_top: int | None = None) -> tuple[Region, ...]:
    """RAM as the oracle has it, out of a file of this size."""
    low = min(size_bytes, low_top or 3 * GIB)
    spans = [(0, 640 * KIB), (MIB, low)]
    if size_bytes > 4 * GIB:
        spans.append((4 * GIB, size_bytes))
    return tuple(Region(PhysAddr(start), PhysAddr(end)) for start, end in spans)


@contextlib.contextmanager
def opened(path: Path, low_top: int | None = None) -> Iterator[RamFile]:
    """A RAM file, to be looked at."""
    regions = ram_regions(path.stat().st_size, low_top)
    with contextlib.closing(RamFile(path, regions, writable=False)) as ram:
        yield ram


# -- the real code -------------------------------------------------------------------------------


def real_poweredge(path: Path, machine: Identity, low_top: int | None = None) -> Told:
    """What the code of the PowerEdge 2950 does with this RAM."""
    bioses = oracle_module("bioses")
    memory = oracle_module("emulator").Memory(path, low_top)
    system = bioses.System(machine.system_id, machine.revision, machine.features)
    whole = bioses.PowerEdge(memory, _SECONDS).whole(system)
    return Told(
        _real_piece(whole.first),
        None if whole.packets is None else _real_packets(whole.packets),
        None if whole.second is None else _real_piece(whole.second),
    )


def real_d500(path: Path, machine: Identity, low_top: int | None = None) -> Told:
    """What the code of the Latitude D500 does with this RAM."""
    bioses = oracle_module("bioses")
    memory = oracle_module("emulator").Memory(path, low_top)
    system = bioses.System(machine.system_id, machine.revision, machine.features)
    return Told(_real_piece(bioses.LatitudeD500(memory, _SECONDS).mono(system)))


def _real_piece(search: Any) -> Piece:
    assert "the BIOS" not in search.reason, search.reason
    return Piece(search.address if search.accepted else None, tuple(search.candidates))


def _real_packets(found: Any) -> Joined:
    if "runs wild" in found.reason:
        return WILD
    assert "hangs" not in found.reason, found.reason
    return Joined(
        found.reason,
        found.set_id,
        found.total,
        found.data_size,
        found.header_size,
        found.seen,
        found.sound,
        tuple(found.taken),
        found.password_crc,
        found.image,
    )


# -- our rule sets -------------------------------------------------------------------------------


def our_poweredge(path: Path, machine: Identity, low_top: int | None = None) -> Told:
    """What the rule set `poweredge-2950` says of this RAM."""
    with opened(path, low_top) as ram:
        trace = poweredge_2950.trace(ram, machine)
    return Told(
        _our_piece(trace.first),
        None if trace.packets is None else _our_packets(trace.packets),
        None if trace.second is None else _our_piece(trace.second),
    )


def our_d500(path: Path, machine: Identity, low_top: int | None = None) -> Told:
    """What the rule set `latitude-d500` says of this RAM."""
    with opened(path, low_top) as ram:
        return Told(_our_piece(latitude_d500.trace(ram, machine).first))


def _our_piece(search: MonoSearch) -> Piece:
    assert not search.unchecked
    return Piece(search.accepted, tuple((bad.address, bad.failed) for bad in search.candidates))


def _our_packets(found: Collected) -> Joined:
    if found.leaves_ram:
        return WILD
    return Joined(
        found.reason,
        found.set_id,
        found.total,
        found.data_size,
        found.header_size,
        found.seen,
        found.sound,
        found.taken,
        found.password_crc,
        found.image,
    )
