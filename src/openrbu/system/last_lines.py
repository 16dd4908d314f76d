"""The lines of a file, read from its end: what stands there costs the same however long it is."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator

from openrbu.system.kept_files import too_large
from openrbu.units import KIB, MIB

BLOCK_BYTES = 64 * KIB


def lines_from_end(
    fd: int, max_bytes: int, *, block_bytes: int = BLOCK_BYTES
) -> Iterator[tuple[int, bytes]]:
    """The whole lines of the open file `fd`, the last one first: the offset at which each begins,
    and its bytes without the line's end. What is behind the last line's end is left out.

    Another process may add lines meanwhile, and replace a last line that was cut off.

    :raise OddFileError: when more than `max_bytes` would have to be read.
    :raise OSError: when it can't be read, or when whole lines were cut off meanwhile.
    """
    end, pieces, is_whole = os.fstat(fd).st_size, list[bytes](), False
    least = max(0, end - max_bytes)
    while end:
        if end <= least:
            raise too_large(max_bytes)
        start = max(0, end - block_bytes)
        block = os.pread(fd, end - start, start)
        if len(block) < end - start:
            if is_whole:
                raise OSError(errno.EIO, "it became shorter while it was read")
            pieces.clear()  # of a last line that was cut off, and has just been taken away
        before = len(block)
        while (found := block.rfind(b"\n", 0, before)) >= 0:
            pieces.append(block[found + 1 : before])
            if is_whole:
                yield start + found + 1, b"".join(reversed(pieces))
            pieces, is_whole, before = [], True, found
        pieces.append(block[:before])
        end = start
    if is_whole:
        yield 0, b"".join(reversed(pieces))


def end_of_lines(fd: int, max_bytes: int) -> int:
    """The offset behind the end of the last whole line of the open file `fd`.

    :raise OSError: as `lines_from_end`.
    """
    for offset, line in lines_from_end(fd, max_bytes):
        return offset + len(line) + 1
    return 0


def line_number(fd: int, offset: int) -> int:
    """The number of the line that begins at `offset` of the open file `fd`, the first one being 1.

    :raise OSError: when it can't be read.
    """
    starts = range(0, offset, MIB)
    blocks = (os.pread(fd, min(MIB, offset - start), start) for start in starts)
    return 1 + sum(block.count(b"\n") for block in blocks)
