"""A guest as the hypervisor knows it, and the hypercalls that it makes about its memory."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from openrbu.errors import KernelError, MachineError
from openrbu.lazy import np, npt
from openrbu.memory.frames import Frames
from openrbu.xen.records import Row
from openrbu.xen.state import INVALID, HostState


@dataclass(frozen=True, slots=True)
class DomainInfo:
    """A guest at one moment. `frame_count` is how many frames its memory has, with and without a
    machine page."""

    id: int
    name: str
    frame_count: int
    current_pages: int
    max_pages: int
    claim_pages: int
    target_kib: int
    target_serial: int


class Domain:
    """A guest of a host. Its frames are 0 up to, not including, `frame_count`.

    Any process may destroy it. Then its table has no machine frames any more, and all calls but
    `is_there` raise a `MachineError`.
    """

    def __init__(self, host: HostState, row: Row) -> None:
        number = row.domain_id
        assert number is not None
        self._host, self._row = host, row
        self.id, self.name, self.frame_count = number, row.name, row.frame_count
        self._table = host.table(row)

    @property
    def is_there(self) -> bool:
        """Whether it has not been destroyed."""
        return self._row.domain_id == self.id

    @property
    def table(self) -> Frames:
        """The machine frame of each frame, or INVALID. This is a read-only view of the table."""
        table = self._table.view()
        table.flags.writeable = False
        return table

    @property
    def current_pages(self) -> int:
        """How many machine pages the guest has."""
        return self._checked_row().current_pages

    @property
    def max_pages(self) -> int:
        """How many machine pages the guest may have."""
        return self._checked_row().max_pages

    @property
    def claim_pages(self) -> int:
        """How many more machine pages the guest was promised."""
        return self._checked_row().claim_pages

    @property
    def target_kib(self) -> int:
        """xenstore's `memory/target`: how much memory the toolstack wants the guest to have."""
        return self._checked_row().target_kib

    @property
    def target_serial(self) -> int:
        """How often the target was written."""
        return self._checked_row().target_serial

    def info(self) -> DomainInfo:
        return info_of(self._checked_row())

    def populate(self, frames: Frames) -> int:
        """Get machine pages for these frames, in their order. Returns how many got one.

        These are fewer than asked when the host is short of memory, when the guest's maximum is
        reached, or when what is free is promised to others. The pages have zeros. What the guest
        gets is taken off its own claim.

        :raise ValueError: when one of the frames has a machine page, is there twice, or is not a
            frame of the guest. Then nothing changes.
        :raise MachineError: when the guest was destroyed, or the disk with the host's own files
            refuses. Then nothing changes.
        """
        with self._host as host:
            row = self._checked_row()
            indices, machine = self._look_up(frames)
            if len(machine) and machine.min() != INVALID:
                raise ValueError("a frame to be populated has a machine page")
            if _has_duplicates(np.sort(frames)):
                raise ValueError("a frame to be populated is there twice")
            current, claim = row.current_pages, row.claim_pages
            room = min(row.max_pages - current, host.unclaimed_pages + claim)
            count = min(len(frames), room)
            if count <= 0:
                return 0
            host.begin_change(handing_out=count)
            machine = host.commit(count)
            count = len(machine)
            self._table[indices[:count]] = machine
            host.heap.drop(count)
            host.set_counts(row, current + count, max(0, claim - count))
            host.end_change()
            return count

    def decrease(self, frames: Frames) -> None:
        """Give the machine pages of these frames back.

        :raise ValueError: when one of the frames has none, is there twice, or is not a frame of the
            guest. Then nothing changes.
        :raise MachineError: when the guest was destroyed, or the disk with the host's own files
            refuses. Then nothing changes.
        :raise OSError: when the file behind the memory refuses. The next hypercall tries again.
        """
        with self._host as host:
            row = self._checked_row()
            indices, machine = self._look_up(frames)
            if not len(machine):
                return
            ordered = np.sort(machine)
            if ordered[-1] == INVALID:
                raise ValueError("a frame to be taken has no machine page")
            if _has_duplicates(ordered):
                raise ValueError("a frame to be taken is there twice")
            host.begin_change()
            self._table[indices] = INVALID
            host.take_back(ordered)
            host.set_counts(row, row.current_pages - len(ordered), row.claim_pages)
            host.end_change()

    def set_maximum(self, pages: int) -> None:
        """Set how many machine pages the guest may have. It keeps what it has beyond that, but not
        what it has claimed beyond that.

        :raise ValueError: when it is negative.
        :raise MachineError: when the guest was destroyed.
        """
        if pages < 0:
            raise ValueError(f"a maximum of {pages} pages")
        with self._host as host:
            row = self._checked_row()
            host.begin_change()
            row.max_pages = pages
            claim = min(row.claim_pages, max(0, pages - row.current_pages))
            host.set_counts(row, row.current_pages, claim)
            host.end_change()

    def set_claim(self, pages: int) -> None:
        """Promise the guest so many *more* pages, which no other guest gets meanwhile. 0: none.

        :raise KernelError: ENOMEM when that much is not free, or claimed by others. EINVAL when it
            is more than its maximum allows. Then the old claim stays.
        :raise ValueError: when it is negative.
        :raise MachineError: when the guest was destroyed.
        """
        if pages < 0:
            raise ValueError(f"a claim of {pages} pages")
        with self._host as host:
            row = self._checked_row()
            free = host.unclaimed_pages + row.claim_pages
            if pages and row.current_pages + pages > row.max_pages:
                text = f"guest {self.name!r} has {row.current_pages} of at most {row.max_pages}"
                raise KernelError(errno.EINVAL, detail=f"{text} pages: no room for {pages} more")
            if pages > free:
                text = f"{pages} pages claimed, {free} are free and not promised to others"
                raise KernelError(errno.ENOMEM, detail=text)
            host.begin_change()
            host.set_counts(row, row.current_pages, pages)
            host.end_change()

    def set_target_kib(self, kib: int) -> None:
        """Write xenstore's `memory/target`. The serial goes up even when the value is the same.

        :raise ValueError: when it is not a number of 64 bits.
        :raise MachineError: when the guest was destroyed.
        """
        if not 0 <= kib < 1 << 64:
            raise ValueError(f"a target of {kib} KiB")
        with self._host:
            self._checked_row().set_target_kib(kib)

    def _look_up(self, frames: Frames) -> tuple[npt.NDArray[np.intp], Frames]:
        """The indices of these frames in the table, and its entries there."""
        indices = frames.astype(np.intp)  # once: numpy would do it at each use
        try:
            return indices, self._table[indices]
        except IndexError:
            text = f"guest {self.name!r} has frames 0 to {self.frame_count - 1}"
            raise ValueError(text) from None

    def _checked_row(self) -> Row:
        if not self.is_there:
            raise MachineError(f"guest {self.name!r} was destroyed")
        return self._row


def _has_duplicates(ordered: Frames) -> bool:
    """Whether an ascending array has a frame twice."""
    return bool((ordered[1:] == ordered[:-1]).any())


def info_of(row: Row) -> DomainInfo:
    """The `DomainInfo` of a row."""
    assert row.domain_id is not None
    return DomainInfo(
        row.domain_id,
        row.name,
        row.frame_count,
        row.current_pages,
        row.max_pages,
        row.claim_pages,
        row.target_kib,
        row.target_serial,
    )
