"""An image in scattered pages of memory, as a kernel has it while it loads it.

Source: docs/reference/firmware-class.md, F4.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Sequence
from typing import Protocol

from openrbu.buffers import Buffer
from openrbu.drivers.extents import Block, Extents, blocks_in, free_all, to_rows
from openrbu.drivers.states import FirmwareImageState
from openrbu.errors import DamagedInputError, KernelError
from openrbu.memory.pages import PageSource
from openrbu.units import GIB, MAX_ORDER, PAGE_SIZE, pages_for

MAX_IMAGE_BYTES = 1 * GIB
"""The largest image: a write beyond this size is EFBIG, so that a wrong offset can't take all
memory. (A real 6.1 crashes on an offset of 2 GiB.)"""

_AHEAD_SHARE, _AHEAD_PAGES = 16, 16
"""For small writes, a sixteenth of the image's pages, 16 at most, are allocated ahead."""


class LoadedImage(Protocol):
    """An image that a driver gets; see `FirmwareImage`."""

    size_bytes: int
    is_from_file: bool

    def views(self, start: int = 0, size_bytes: int | None = None) -> Iterator[memoryview]: ...

    def read(self, start: int = 0, size_bytes: int | None = None) -> bytes: ...


class LoadingImage(LoadedImage, Protocol):
    """An image while it is loaded; see `FirmwareImage`."""

    def write(self, offset: int, data: Buffer) -> None: ...

    def release(self) -> None: ...

    def snapshot(self) -> FirmwareImageState: ...


class FirmwareImage:
    """The `size_bytes` bytes that were loaded. A driver only reads it.

    Its memory is freed when the driver's callback returns: the driver must not keep a view of it.
    `is_from_file`: the kernel has read it from a file, and not got it through an entry.
    """

    def __init__(self, pages: PageSource) -> None:
        self._pages = pages
        self._blocks: list[Block] = []
        self._extents = Extents(pages.memory)
        self.size_bytes = 0
        self.is_from_file = False

    @property
    def blocks(self) -> Sequence[Block]:
        """The blocks of pages that it is in."""
        return self._blocks

    def views(self, start: int = 0, size_bytes: int | None = None) -> Iterator[memoryview]:
        """Views of the bytes from `start` on, at most `size_bytes` in all, without a copy."""
        left = max(0, self.size_bytes - start)
        return self._extents.views(start, left if size_bytes is None else min(left, size_bytes))

    def read(self, start: int = 0, size_bytes: int | None = None) -> bytes:
        """A copy of the same bytes."""
        return b"".join(self.views(start, size_bytes))

    def write(self, offset: int, data: Buffer) -> None:
        """Write bytes; the image grows if it has to. Bytes that are skipped are zeros.

        :raise KernelError: EFBIG above MAX_IMAGE_BYTES; ENOMEM when there are no pages. The image
            is not changed then.
        """
        end = offset + len(data)
        if end > MAX_IMAGE_BYTES:
            raise KernelError(errno.EFBIG, detail=f"no image is larger than {MAX_IMAGE_BYTES}")
        self._reserve(end)
        if offset > self.size_bytes:
            self._extents.zero(self.size_bytes, offset - self.size_bytes)
        self._extents.write(offset, data)
        self.size_bytes = max(self.size_bytes, end)

    def release(self) -> None:
        """Free the memory without clearing it."""
        free_all(self._pages, self._blocks)
        self._blocks, self._extents, self.size_bytes = [], Extents(self._pages.memory), 0

    def snapshot(self) -> FirmwareImageState:
        """The state from which `restore` makes the same image, in the same memory."""
        return FirmwareImageState(self.size_bytes, to_rows(self._blocks))

    @classmethod
    def restore(cls, pages: PageSource, state: FirmwareImageState) -> FirmwareImage:
        """The image of which the snapshot was taken.

        :raise DamagedInputError: when its blocks are too small for it.
        """
        image = cls(pages)
        image._append(list(blocks_in(state.blocks)))
        image.size_bytes = state.size_bytes
        if image.size_bytes > image._extents.size_bytes:
            raise DamagedInputError(
                "a firmware image is larger than its blocks",
                expected=image._extents.size_bytes,
                actual=image.size_bytes,
            )
        return image

    def _reserve(self, size_bytes: int) -> None:
        """Allocate pages for `size_bytes` bytes, and some more for further small writes."""
        room_bytes = self._extents.size_bytes
        if size_bytes <= room_bytes:
            return
        missing = pages_for(size_bytes - room_bytes)
        ahead = min(room_bytes // PAGE_SIZE // _AHEAD_SHARE, _AHEAD_PAGES)
        if missing < ahead:
            with contextlib.suppress(KernelError):
                self._append(self._allocated(ahead))
                return
        self._append(self._allocated(missing))

    def _allocated(self, missing: int) -> list[Block]:
        """Allocate blocks of `missing` pages in all, each as large as possible.

        :raise KernelError: ENOMEM when there are not as many pages. None is allocated then.
        """
        added: list[Block] = []
        largest = MAX_ORDER
        while missing:
            order = min(largest, missing.bit_length() - 1)
            try:
                address = self._pages.allocate(order)
            except KernelError:
                if order == 0:
                    free_all(self._pages, added)
                    raise
                largest = order - 1
                continue
            added.append(Block(address, order, PAGE_SIZE << order))
            missing -= 1 << order
        return added

    def _append(self, blocks: list[Block]) -> None:
        self._blocks += blocks
        for block in blocks:
            self._extents.append(block.address, block.capacity_bytes)
