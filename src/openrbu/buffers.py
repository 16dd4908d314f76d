"""Buffers of bytes."""

from __future__ import annotations

Buffer = bytes | bytearray | memoryview

_BLOCK_BYTES = 1 << 18


def same_bytes(one: Buffer, other: Buffer) -> bool:
    """Whether two buffers have the same bytes.

    To compare two memoryviews with `==` goes byte by byte (measured: 60 ms for 16 MiB in CPython
    3.11, 5 ms here, where parts of them are copied that stay in the processor's cache).
    """
    return len(one) == len(other) and all(
        bytes(one[start : start + _BLOCK_BYTES]) == bytes(other[start : start + _BLOCK_BYTES])
        for start in range(0, len(one), _BLOCK_BYTES)
    )
