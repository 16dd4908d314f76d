"""Checksums of many packets in RAM at once, at memory speed, with a limit on the work."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

from openrbu.formats.packet import block_rows, word_sums
from openrbu.lazy import np, npt
from openrbu.memory.ram_array import Addresses, RamArray
from openrbu.units import MIB

Rows: TypeAlias = "npt.NDArray[np.uint8]"

WORK_BYTES = 256 * MIB
"""How much is summed in addition to 4 times the populated RAM."""


def groups(keys: npt.NDArray[np.integer[Any]]) -> list[npt.NDArray[np.intp]]:
    """For each key, ascending: the indexes where `keys` has it, ascending, shape (n,)."""
    order = np.argsort(keys, kind="stable")
    return [
        group for group in np.split(order, np.flatnonzero(np.diff(keys[order])) + 1) if len(group)
    ]


def packet_rows(
    ram: RamArray, addresses: Addresses, size_bytes: int
) -> Iterator[tuple[slice, Rows]]:
    """The packets at these addresses, all of one size, in blocks: the block's slice of `addresses`,
    and its bytes, shape (n, size)."""
    step = block_rows(size_bytes)
    for low in range(0, len(addresses), step):
        part = slice(low, low + step)
        rows = ram.at(addresses[part], f"V{size_bytes}")
        yield part, rows.view(np.uint8).reshape(-1, size_bytes)


def packet_sums(
    ram: RamArray, addresses: Addresses, sizes: Addresses
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.bool_]]:
    """The word sum of each packet, and whether it was calculated; both have the shape of
    `addresses`. `sizes` are in bytes.

    The sizes of overlapping packets can add up to any amount. No more than 4 × the populated RAM
    plus 256 MiB is summed, small packets first.
    """
    sums = np.zeros(len(addresses), np.uint16)
    taken = np.zeros(len(addresses), np.bool_)
    budget = 4 * ram.populated_bytes + WORK_BYTES
    for group in groups(sizes):
        size = int(sizes[group[0]])
        members = group[: budget // size]
        budget -= len(members) * size
        taken[members] = True
        for part, rows in packet_rows(ram, addresses[members], size):
            sums[members[part]] = word_sums(rows)
    return sums, taken
