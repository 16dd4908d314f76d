"""The BIOSes that could be this machine's, as far as real ones are known.

Which code a machine's BIOS has can't be seen from outside. So each rule set (`bios.rules`) that
could be the machine's searches memory for what is staged, and all of them have to take it:

- Where the BIOS code of the machine's own system was run, only that rule set is possible.
- Elsewhere `published` is, and each of the real ones that would take the image when nothing else is
  in memory. Their own code takes exactly 1 MiB of data; a BIOS of their kind with another flash
  takes as much as that flash has. They are not possible for images of over 3 MiB: the memory where
  they join packets is too small for one. A rule set without packets is not possible where the
  machine says that it takes packets.
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
from openrbu.memory.windows import VIEWED_BYTES, Window
from openrbu.units import KIB, MIB, PAGE_SIZE, PhysAddr, pages_for
from openrbu.update.options import Options
from openrbu.update.target import Target

_LARGEST_BYTES = 3 * MIB - 8 * KIB
"""From 0x101000 up to 4 MiB, less header and check words (run)."""

_IMAGE_AT = PhysAddr(8 * MIB)


@dataclass(frozen=True, slots=True)
class PossibleBios:
    """A BIOS that could be the machine's. `find` returns the image that it takes out of a memory.

    `searches_above_4_gib`: whether it searches for packets there. `find_anywhere` is `find` without
    the limit of 4 GiB that the published rules have; None: `find` has no such limit, or another.
    """

    name: str
    find: Callable[[ReadableMemory], FoundUpdate]
    searches_above_4_gib: bool
    find_anywhere: Callable[[ReadableMemory], FoundUpdate] | None = None


@dataclass(frozen=True, slots=True)
class PossibleBioses:
    """All of them. `refusal`: why the machine's own BIOS, where its code is known, does not take
    this image from any address; empty: it takes it."""

    all: tuple[PossibleBios, ...]
    refusal: str = ""

    def __iter__(self) -> Iterator[PossibleBios]:
        return iter(self.all)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(bios.name for bios in self.all)

    @property
    def search_above_4_gib(self) -> bool:
        """Whether all of them search for packets above 4 GiB."""
        return all(bios.searches_above_4_gib for bios in self.all)


def possible_bioses(
    image: Image, target: Target, options: Options, *, staged_crc: int | None = None
) -> PossibleBioses:
    """The BIOSes that this machine could have, for an update with this image. `staged_crc`: the
    CRC-32 of the password that its packets have already, which counts where `options` has none."""
    identity = _identity(image, target, options, staged_crc)
    own = rules_for(target.tables)
    if own is not PUBLISHED:
        bios = _possible_bios(own, identity, options)
        return PossibleBioses((bios,), _refusal(bios, image))
    real = (
        _possible_bios(rules, identity, options)
        for rules in RULE_SETS.values()
        if rules is not own
        and image.flash_size_bytes <= _LARGEST_BYTES
        and (rules.knows_packets or not identity.knows_packets)
    )
    others = (bios for bios in real if not _refusal(bios, image))
    return PossibleBioses((_possible_bios(PUBLISHED, identity, options), *others))


def _possible_bios(rules: RuleSet, identity: Identity, options: Options) -> PossibleBios:
    def find(memory: ReadableMemory) -> FoundUpdate:
        return rules.find_update(memory, identity)

    def anywhere(memory: ReadableMemory) -> FoundUpdate:
        return find_anywhere(memory, identity)

    if rules is not PUBLISHED:
        return PossibleBios(rules.name, find, rules.searches_above_4_gib)
    if options.memory_above_4g:
        return PossibleBios(rules.name, anywhere, searches_above_4_gib=True)
    return PossibleBios(rules.name, find, searches_above_4_gib=False, find_anywhere=anywhere)


def _identity(image: Image, target: Target, options: Options, staged_crc: int | None) -> Identity:
    """The machine as its BIOS knows it, as far as that can be read. The rest is taken to be right
    for the image: the flash's size, the system (with `allow_any_system`), the password."""
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
        password_crc=staged_crc if password is None else password_crc(password),
    )


def _refusal(bios: PossibleBios, image: Image) -> str:
    """Why a BIOS does not take the image even when nothing else is in memory; empty: it does."""
    try:
        bios.find(_MemoryWithImage(image))
    except RejectedError as refused:
        return str(refused).replace(f" at {_IMAGE_AT:#x}", "")  # the address is ours
    return ""


class _MemoryWithImage:
    """A `ReadableMemory` with nothing in it but one image, on a page above 4 MiB."""

    is_mapped = False

    def __init__(self, image: Image) -> None:
        data = image.build()
        size_bytes = pages_for(len(data)) * PAGE_SIZE
        self._data = memoryview(data.ljust(size_bytes, b"\0"))
        end = _IMAGE_AT + size_bytes
        self._image = Region(_IMAGE_AT, PhysAddr(end))
        spans = ((0, 640 * KIB), (1 * MIB, end))
        self.regions = tuple(Region(PhysAddr(low), PhysAddr(high)) for low, high in spans)

    def read(self, address: PhysAddr, size_bytes: int) -> bytes:
        start = address - _IMAGE_AT
        if 0 <= start <= len(self._data) - size_bytes:  # the usual case: copied once
            return bytes(self._data[start : start + size_bytes])
        data = bytearray(size_bytes)
        self.read_into(address, data)
        return bytes(data)

    def read_into(self, address: PhysAddr, buffer: bytearray | memoryview) -> None:
        low = max(address, _IMAGE_AT)
        high = min(address + len(buffer), _IMAGE_AT + len(self._data))
        buffer[:] = bytes(len(buffer))
        if low < high:
            buffer[low - address : high - address] = self._data[low - _IMAGE_AT : high - _IMAGE_AT]

    def view(self, address: PhysAddr, size_bytes: int) -> memoryview:
        return memoryview(self.read(address, size_bytes))

    def windows(self, start: PhysAddr, end: PhysAddr) -> Iterator[Window]:
        """The image itself, not copied."""
        for part in self.populated(start, end):
            for low in range(part.start, part.end, VIEWED_BYTES):
                high = min(low + VIEWED_BYTES, part.end)
                yield PhysAddr(low), self._data[low - _IMAGE_AT : high - _IMAGE_AT]

    def populated(self, start: PhysAddr, end: PhysAddr) -> Iterator[Region]:
        part = self._image.clip(start, end)
        if part is not None:
            yield part
