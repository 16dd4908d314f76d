"""Memory above 4 GiB is held while an image is staged, so that its packets come to lie below.

A kernel takes its pages from above 4 GiB first, where not every BIOS searches. With its number of
huge pages raised until nothing is left there, the next pages come from below. Two things matter.
The machine has to live meanwhile: the number is raised in steps, and no further than until the
memory below 4 GiB begins to go, of which a part is left in any case. And it has to be given back:
the old numbers are noted before the first change, so that the next command finds them even where
this process is killed.

Facts: docs/reference/linux-files.md, L10; docs/decisions/0005.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePath

from openrbu.errors import DamagedInputError, ObstacleError
from openrbu.formats.buddyinfo import ZoneFree, free_bytes, free_in_blocks, high_zones, low_zones
from openrbu.formats.meminfo import MARGIN_BYTES
from openrbu.hosts.base import Host
from openrbu.linux.memory import (
    NR_HUGEPAGES,
    HugePagePool,
    read_available_bytes,
    read_count,
    read_huge_page_pools,
    read_zones,
)
from openrbu.units import HUGE_PAGE_BYTES, HUGE_PAGE_ORDER, human_sizes
from openrbu.update.exclusion import alone_on
from openrbu.update.journal import Change, Journal
from openrbu.update.stage import OVERWRITE_FACTOR, OutOfMemoryError
from openrbu.update.undo import changes_to_put_back, put_back

_LAST_PAGES, _STEP_PAGES = 64, 8
"""So many huge pages before the end of the memory above 4 GiB the steps begin, and are as large."""

_MOST_STEPS = 64

_FILE_NAME = PurePath(NR_HUGEPAGES).name

Note = Callable[[Change], None]
"""Called before a number is changed, and with `_undone` when it is again what it was."""


def needed_low_bytes(staged_bytes: int) -> int:
    """How much has to be free below 4 GiB to stage so much there: the delivery, what is staged, the
    zeros that overwrite both where it fails, and what the machine needs to live."""
    return (2 + OVERWRITE_FACTOR) * staged_bytes + MARGIN_BYTES


def why_not_held(host: Host, zones: Sequence[ZoneFree], staged_bytes: int) -> str:
    """Why memory above 4 GiB can't be held while so much is staged; empty: it can."""
    try:
        pools = read_huge_page_pools(host)
    except OSError as error:
        return f"the number of huge pages can't be read ({error.strerror})"
    if not pools:
        return "this kernel has no huge pages of 2 MiB"
    return _too_little(host, zones, staged_bytes)


def _too_little(host: Host, zones: Sequence[ZoneFree], staged_bytes: int) -> str:
    """Why there is too little memory for the machine to live; empty: there is enough."""
    needed = needed_low_bytes(staged_bytes)
    low, available = free_bytes(low_zones(zones)), read_available_bytes(host)
    if low < needed:
        there, least = human_sizes(low, needed)
        return f"{there} are free below 4 GiB, and {least} are needed there"
    if available is not None and available < needed:
        there, least = human_sizes(available, needed)
        return f"{there} are available, and {least} are needed"
    return ""


class HeldMemory:
    """The memory above 4 GiB that this process holds, none at first. `note`: see `Note`."""

    def __init__(self, host: Host, note: Note) -> None:
        self._host, self._note = host, note
        self._changes: list[Change] = []

    @contextlib.contextmanager
    def held(self, staged_bytes: int) -> Iterator[None]:
        """Hold memory in the block, in which so much is staged.

        :raise OutOfMemoryError: when too little is left for the machine to live.
        :raise OSError: what the kernel returns.
        """
        try:
            self._hold(staged_bytes)
            yield
        finally:
            self.give_back()

    def give_back(self) -> None:
        """Give back what is held; nothing where nothing is.

        :raise OSError: what the kernel returns.
        """
        while self._changes:
            put_back(self._host, self._changes[-1])
            change = self._changes.pop()
            with contextlib.suppress(ObstacleError):  # what it has does no harm: nothing is held
                self._note(_undone(change))

    def _hold(self, staged_bytes: int) -> None:
        pools = read_huge_page_pools(self._host)
        for pool in [] if self._changes else pools:  # else some could not be given back
            change = Change(pool.path, str(pool.count), None)
            self._note(change)
            self._changes.append(change)
        low_nodes = {zone.node for zone in low_zones(read_zones(self._host))}
        for pool in sorted(pools, key=lambda pool: pool.node in low_nodes):
            for zones in self._raised(pool):
                if problem := _too_little(self._host, zones, staged_bytes):
                    raise OutOfMemoryError(f"memory above 4 GiB can't be held: {problem}")

    def _raised(self, pool: HugePagePool) -> Iterator[tuple[ZoneFree, ...]]:
        """Raise the number of a pool until nothing is left above 4 GiB. Gives the zones after each
        step."""
        zones = read_zones(self._host)
        low_before = free_bytes(_of_node(low_zones(zones), pool.node))
        left = free_in_blocks(_of_node(high_zones(zones), pool.node), HUGE_PAGE_ORDER)
        count, step = pool.count, max(_STEP_PAGES, left - _LAST_PAGES)
        for _ in range(_MOST_STEPS):
            low = free_bytes(_of_node(low_zones(zones), pool.node))
            left = free_in_blocks(_of_node(high_zones(zones), pool.node), HUGE_PAGE_ORDER)
            if not left or low_before - low >= _STEP_PAGES * HUGE_PAGE_BYTES // 2:
                return
            self._host.write(pool.path, f"{count + step}\n".encode())
            raised, step = read_count(self._host, pool.path), _STEP_PAGES
            if raised <= count:
                return
            count, zones = raised, read_zones(self._host)
            yield zones


def give_back_of_killed(host: Host) -> None:
    """Give back what the last update of this boot has held, if it was killed and could not: where
    this user can do that, and no update is under way."""
    with contextlib.suppress(OSError, ObstacleError, DamagedInputError):
        journal = Journal.of(host)
        if not _held_by(host, journal):
            return
        with alone_on(host):
            for attempt_id, change in _held_by(host, journal):
                put_back(host, change)
                journal.append_change(attempt_id, _undone(change), host.now())


def _held_by(host: Host, journal: Journal) -> list[tuple[str, Change]]:
    """The changes of numbers of huge pages that the last update has not undone, with its ID."""
    last = journal.last
    if last is None:
        return []
    changes = changes_to_put_back(host, last)
    return [(last.id, each) for each in changes if PurePath(each.path).name == _FILE_NAME]


def _undone(change: Change) -> Change:
    """The change that says that this one was undone."""
    return Change(change.path, change.before, change.before)


def _of_node(zones: Sequence[ZoneFree], node: int | None) -> list[ZoneFree]:
    """The zones of a node; all for None."""
    return [zone for zone in zones if node in (None, zone.node)]
