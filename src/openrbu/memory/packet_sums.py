"""Checksums of many packets in RAM at once, at memory speed, with a limit on the work."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from openrbu.formats.packet_header import word_sum, word_sums
from openrbu.lazy import np, npt
from openrbu.memory.ram_array import Addresses, RamArray
from openrbu.units import MIB, PhysAddr

Rows: TypeAlias = "npt.NDArray[np.uint8]"

FEW = 5000
"""So many packets are summed one by one in less time than numpy takes to load."""

FEW_BYTES = 32 * MIB
"""The same of their bytes."""

WORK_BYTES = 256 * MIB
"""How much is summed in addition to 4 times the populated RAM."""


def is_few(addresses: Sequence[int]) -> bool:
    """Whether these places are looked at one by one."""
    return len(addresses) <= FEW


def sums_of(ram: RamArray, addresses: Sequence[int], sizes: Sequence[int]) -> dict[int, int]:
    """The word sum of each packet, by its address; those for which there is no budget are left
    out, as in `packet_sums`."""
    if sum(sizes) > FEW_BYTES:
        found, taken = packet_sums(ram, np.array(addresses, np.int64), np.array(sizes, np.int64))
        rows = zip(addresses, found.tolist(), taken.tolist(), strict=True)
        return {address: total for address, total, is_taken in rows if is_taken}
    budget = 4 * ram.populated_bytes + WORK_BYTES
    sums: dict[int, int] = {}
    for size, address in sorted(zip(sizes, addresses, strict=True)):
        if budget < size:
            break
        budget -= size
        sums[address] = word_sum(ram.data(PhysAddr(address), size))
    return sums


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
    from openrbu.formats.packet import block_rows  # noqa: PLC0415  (start-up time)

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
