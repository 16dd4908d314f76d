"""An image in the ordinary memory of this process, while it is delivered to openrbu's own driver.

It is there for as long as the delivery takes. A BIOS looks for an image at the start of a page; so
no byte of the image that is at the start of a page of it is at the start of a page here, and what
is left in memory when the process has ended is no second image (docs/decisions/0008).
"""

from __future__ import annotations

import errno
from collections.abc import Iterator

from openrbu.buffers import Buffer
from openrbu.drivers.firmware_image import MAX_IMAGE_BYTES
from openrbu.drivers.states import FirmwareImageState
from openrbu.errors import KernelError
from openrbu.memory.physical import unaligned_buffer
from openrbu.units import MIB

_PIECE_BYTES = MIB


class ProcessImage:
    """The `size_bytes` bytes that were loaded: see `FirmwareImage`, which is in pages instead."""

    def __init__(self) -> None:
        self._pieces: list[memoryview] = []
        self.size_bytes = 0
        self.is_from_file = False

    def views(self, start: int = 0, size_bytes: int | None = None) -> Iterator[memoryview]:
        """Views of the bytes from `start` on, at most `size_bytes` in all, without a copy."""
        left = max(0, self.size_bytes - start)
        return self._parts(start, left if size_bytes is None else min(left, size_bytes))

    def read(self, start: int = 0, size_bytes: int | None = None) -> bytes:
        """A copy of the same bytes."""
        return b"".join(self.views(start, size_bytes))

    def write(self, offset: int, data: Buffer) -> None:
        """Write bytes; the image grows if it has to. Bytes that are skipped are zeros.

        :raise KernelError: EFBIG above MAX_IMAGE_BYTES; ENOMEM when this process gets no memory.
            The image is not changed then.
        """
        end = offset + len(data)
        if end > MAX_IMAGE_BYTES:
            raise KernelError(errno.EFBIG, detail=f"no image is larger than {MAX_IMAGE_BYTES}")
        self._reserve(end)
        source, done = memoryview(data), 0
        for part in self._parts(offset, len(source)):
            part[:] = source[done : done + len(part)]
            done += len(part)
        self.size_bytes = max(self.size_bytes, end)

    def release(self) -> None:
        """Forget the bytes. Their memory is the process's, and is freed without being cleared."""
        self._pieces, self.size_bytes = [], 0

    def snapshot(self) -> FirmwareImageState:
        """An image without bytes: they do not outlive the process."""
        return FirmwareImageState(0, ())

    def _reserve(self, size_bytes: int) -> None:
        try:
            while len(self._pieces) * _PIECE_BYTES < size_bytes:
                self._pieces.append(unaligned_buffer(_PIECE_BYTES))
        except OSError as error:
            raise KernelError(errno.ENOMEM, detail=str(error)) from None

    def _parts(self, start: int, size_bytes: int) -> Iterator[memoryview]:
        """The parts of the pieces with the bytes [start, start + size_bytes)."""
        end = start + size_bytes
        while start < end:
            number, offset = divmod(start, _PIECE_BYTES)
            part = self._pieces[number][offset : offset + end - start]
            yield part
            start += len(part)
