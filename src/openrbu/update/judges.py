"""Judges: the BIOSes that could be this machine's, as far as real ones are known.

Nobody outside of a machine sees which code its BIOS has. So what is staged is shown to each rule
set (`bios.rules`) that could be the machine's, and all of them have to take it:

- Where the code of the machine's own system was run, that rule set alone is the judge.
- Elsewhere `published` is, and with it each of the real ones that would take the image when
  nothing else is in memory. Their own code wants exactly 1 MiB of data; a BIOS of their kind with
  another flash wants as much as that has. Images of over 3 MiB they do not judge: the place where
  they put packets together has no room for one, so a BIOS for such a flash is another. One that
  knows no packets is no judge where the machine says that it takes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from openrbu.bios.rules import PUBLISHED, RULE_SETS, known_flash_size, rules_for
from openrbu.bios.rules.published import find_anywhere
from openrbu.bios.rules.ruleset import FoundUpdate, Identity, RejectedError, RuleSet
from openrbu.formats.hdr import Image, SystemId
from openrbu.formats.packet import password_crc
from openrbu.memory.physical import ReadableMemory, Region
from openrbu.units import KIB, MIB, PAGE_SIZE, PhysAddr, pages_for
from openrbu.update.options import Options
from openrbu.update.target import Target

_LARGEST_BYTES = 3 * MIB - 8 * KIB
"""From 0x101000 up to 4 MiB, less header and check words (run)."""

_ALONE_AT = PhysAddr(8 * MIB)


@dataclass(frozen=True, slots=True)
class Judge:
    """A BIOS that could be the machine's: `find` says what it takes out of a memory.

    `searches_above_4_gib`: for packets. `find_anywhere` is the same without the limit of 4 GiB, if
    only the published rules set it; else None.
    """

    name: str
    find: Callable[[ReadableMemory], FoundUpdate]
    searches_above_4_gib: bool
    find_anywhere: Callable[[ReadableMemory], FoundUpdate] | None = None


@dataclass(frozen=True, slots=True)
class Judges:
    """All of them. `refusal`: why the machine's own BIOS, where its code is known, takes this image
    from nowhere; empty: it takes it."""

    all: tuple[Judge, ...]
    refusal: str = ""

    def __iter__(self) -> Iterator[Judge]:
        return iter(self.all)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(judge.name for judge in self.all)

    @property
    def look_above_4_gib(self) -> bool:
        """Whether all of them find packets above 4 GiB."""
        return all(judge.searches_above_4_gib for judge in self.all)


def judges_for(image: Image, target: Target, options: Options) -> Judges:
    """The judges of an update of this machine with this image."""
    identity = _identity(image, target, options)
    own = rules_for(target.tables)
    if own is not PUBLISHED:
        judge = _judge(own, identity, options)
        return Judges((judge,), _refusal(judge, image))
    real = (
        _judge(rules, identity, options)
        for rules in RULE_SETS.values()
        if rules is not own
        and image.flash_size_bytes <= _LARGEST_BYTES
        and (rules.knows_packets or not identity.knows_packets)
    )
    others = (judge for judge in real if not _refusal(judge, image))
    return Judges((_judge(PUBLISHED, identity, options), *others))


def _judge(rules: RuleSet, identity: Identity, options: Options) -> Judge:
    def find(memory: ReadableMemory) -> FoundUpdate:
        return rules.find_update(memory, identity)

    def anywhere(memory: ReadableMemory) -> FoundUpdate:
        return find_anywhere(memory, identity)

    if rules is not PUBLISHED:
        return Judge(rules.name, find, rules.searches_above_4_gib)
    if options.memory_above_4g:
        return Judge(rules.name, anywhere, searches_above_4_gib=True)
    return Judge(rules.name, find, searches_above_4_gib=False, find_anywhere=anywhere)


def _identity(image: Image, target: Target, options: Options) -> Identity:
    """The machine as its BIOS knows it, as far as can be seen; for the rest, as the image wants it:
    the size of the flash, the system where any is to be tried, the password that was given."""
    header = image.header
    system = SystemId(target.system_id or 0, target.hardware_revision or 0)
    if system not in header.systems:
        of_this = [each for each in header.systems if each.id == system.id]
        system = next(iter([*of_this, *header.systems]), system)
    rbu, password = target.rbu, options.password
    return Identity(
        system_id=system.id,
        revision=system.revision,
        flash_size_bytes=known_flash_size(target.tables) or image.flash_size_bytes,
        knows_packets=rbu is not None and rbu.packet_supported,
        password_crc=None if password is None else password_crc(password),
    )


def _refusal(judge: Judge, image: Image) -> str:
    """Why a BIOS does not even take the image when it lies in memory alone; empty: it does."""
    try:
        judge.find(_ImageAlone(image))
    except RejectedError as refused:
        return str(refused).replace(f" at {_ALONE_AT:#x}", "")  # nobody else has it there
    return ""


class _ImageAlone:
    """A `ReadableMemory` with nothing in it but one image, on a page above 4 MiB."""

    is_mapped = False

    def __init__(self, image: Image) -> None:
        self._data = image.build()
        end = _ALONE_AT + pages_for(len(self._data)) * PAGE_SIZE
        self._image = Region(_ALONE_AT, PhysAddr(end))
        spans = ((0, 640 * KIB), (1 * MIB, end))
        self.regions = tuple(Region(PhysAddr(low), PhysAddr(high)) for low, high in spans)

    def read(self, address: PhysAddr, size_bytes: int) -> bytes:
        start = address - _ALONE_AT
        if 0 <= start <= len(self._data) - size_bytes:  # as most is: copied once
            return bytes(self._data[start : start + size_bytes])
        data = bytearray(size_bytes)
        self.read_into(address, data)
        return bytes(data)

    def read_into(self, address: PhysAddr, buffer: bytearray | memoryview) -> None:
        low = max(address, _ALONE_AT)
        high = min(address + len(buffer), _ALONE_AT + len(self._data))
        buffer[:] = bytes(len(buffer))
        if low < high:
            buffer[low - address : high - address] = self._data[low - _ALONE_AT : high - _ALONE_AT]

    def view(self, address: PhysAddr, size_bytes: int) -> memoryview:
        return memoryview(self.read(address, size_bytes))

    def populated(self, start: PhysAddr, end: PhysAddr) -> Iterator[Region]:
        part = self._image.clip(start, end)
        if part is not None:
            yield part
