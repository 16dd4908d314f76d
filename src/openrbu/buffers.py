"""Buffers of bytes that are compared without a copy."""

from __future__ import annotations

from openrbu.lazy import np

Buffer = bytes | bytearray | memoryview

_WORD_BYTES = 8
_BLOCK_BYTES = 1 << 20


def same_bytes(one: Buffer, other: Buffer) -> bool:
    """Whether two buffers have the same bytes, at memory speed.

    To compare two memoryviews with `==` goes byte by byte (measured: 60 ms for 16 MiB in CPython
    3.11, 3 ms here).
    """
    if len(one) != len(other):
        return False
    bulk = len(one) - len(one) % _WORD_BYTES
    if bytes(one[bulk:]) != bytes(other[bulk:]):
        return False
    words = [np.frombuffer(buffer, "<u8", bulk // _WORD_BYTES) for buffer in (one, other)]
    step = _BLOCK_BYTES // _WORD_BYTES
    return all(
        np.array_equal(words[0][start : start + step], words[1][start : start + step])
        for start in range(0, bulk // _WORD_BYTES, step)
    )
