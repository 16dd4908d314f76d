"""Copies of packets that are not the same: of few compared one by one, of many at once, as in
`packet_search`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from openrbu.lazy import np
from openrbu.memory.packet_search import Packet
from openrbu.memory.packet_sums import FEW_BYTES, groups, is_few, packet_rows
from openrbu.memory.ram_array import RamArray
from openrbu.memory.search_result import DifferingCopy

_Pair = tuple[Packet, Packet]
"""A packet, and the lowest one with its number."""


def differing_copies(ram: RamArray, packets: Sequence[Packet]) -> tuple[DifferingCopy, ...]:
    """Each packet of a set that differs from the lowest packet with the same number. The packets
    ascend by address."""
    lowest: dict[int, Packet] = {}
    pairs = [
        (packet, first)
        for packet in packets
        if (first := lowest.setdefault(packet.number, packet)) is not packet
    ]
    same_size = [pair for pair in pairs if pair[0].size_bytes == pair[1].size_bytes]
    read_bytes = sum(packet.size_bytes for packet, _ in same_size)
    if is_few([packet.address for packet, _ in same_size]) and read_bytes <= FEW_BYTES:
        unequal = _unequal_of_few(ram, same_size)
    else:
        unequal = _unequal_of_many(ram, same_size)
    found = {packet.address for packet in unequal}
    found |= {packet.address for packet, first in pairs if packet.size_bytes != first.size_bytes}
    return tuple(
        DifferingCopy(packet.number, packet.address, first.address)
        for packet, first in pairs
        if packet.address in found
    )


def _unequal_of_few(ram: RamArray, pairs: Sequence[_Pair]) -> Iterator[Packet]:
    for packet, first in pairs:
        one, other = (ram.data(each.address, each.size_bytes) for each in (packet, first))
        if one != other:  # without a copy, which might begin on a page of this process
            yield packet


def _unequal_of_many(ram: RamArray, pairs: Sequence[_Pair]) -> Iterator[Packet]:
    addresses, originals = (
        np.array([pair[place].address for pair in pairs], np.int64) for place in (0, 1)
    )
    sizes = np.array([packet.size_bytes for packet, _ in pairs], np.int64)
    for group in groups(sizes):
        size = int(sizes[group[0]])
        ours = packet_rows(ram, addresses[group], size)
        firsts = packet_rows(ram, originals[group], size)
        for (part, rows), (_, others) in zip(ours, firsts, strict=True):
            for place in np.flatnonzero((rows != others).any(axis=1)).tolist():
                yield pairs[group[part][place]][0]
