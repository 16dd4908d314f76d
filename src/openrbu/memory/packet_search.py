"""The packets at places that begin like one: headers that keep the rules, words that add up to 0.

Of few places each is looked at by itself; of many, all are at once, with numpy, which takes longer
to load than a few thousand places. Both ways find the same, and reject the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from openrbu.formats.packet_header import (
    HEADER_RULES,
    PACKET_HEADER,
    PARAGRAPH_BYTES,
    PacketHeader,
)
from openrbu.lazy import np, npt
from openrbu.memory.packet_sums import is_few, packet_sums, sums_of
from openrbu.memory.ram_array import Addresses, RamArray
from openrbu.memory.rejects import MAX_REJECTS, Rejects
from openrbu.memory.search_result import DamagedPacket
from openrbu.units import KIB, PhysAddr

_CUT_BY_END = "packet: cut by the end of RAM"
_TOO_MANY = "packet: not checked, too many overlapping ones claim to be here"
_DAMAGED = "packet: wrong checksum"


class Packet(NamedTuple):
    """A valid packet at an address; sizes in bytes."""

    address: PhysAddr
    size_bytes: int
    header_size_bytes: int
    set_id: int
    number: int
    total: int


def packets_at(ram: RamArray, addresses: Sequence[int], rejects: Rejects) -> list[Packet]:
    """The valid packets at these addresses, which ascend and begin with `$RPK`."""
    find = _among_few if is_few(addresses) else _among_many
    return find(ram, addresses, rejects)


class _Seen(NamedTuple):
    """A place and what its header says."""

    address: int
    fields: dict[str, Any]

    @property
    def size_bytes(self) -> int:
        size: int = self.fields["pktSize"] * KIB
        return size


def _among_few(ram: RamArray, addresses: Sequence[int], rejects: Rejects) -> list[Packet]:
    header_bytes = PACKET_HEADER.size_bytes
    fits = [at for at in addresses if ram.bytes_left_at(at) >= header_bytes]
    if len(fits) < len(addresses):
        rejects.add([at for at in addresses if ram.bytes_left_at(at) < header_bytes], _CUT_BY_END)
    seen = [_Seen(at, PACKET_HEADER.unpack(ram.data(PhysAddr(at), header_bytes))) for at in fits]
    for rule in HEADER_RULES:
        bad = [each.address for each in seen if rule.is_broken(each.fields)]
        if bad:
            rejects.add(bad, f"packet: {rule.field} {rule.says}")
            seen = [each for each in seen if not rule.is_broken(each.fields)]
    cut = {each.address for each in seen if each.size_bytes > ram.bytes_left_at(each.address)}
    rejects.add(sorted(cut), _CUT_BY_END)
    seen = [each for each in seen if each.address not in cut]
    sums = sums_of(ram, [each.address for each in seen], [each.size_bytes for each in seen])
    rejects.add([each.address for each in seen if each.address not in sums], _TOO_MANY)
    seen = [each for each in seen if each.address in sums]
    wrong = [each for each in seen if sums[each.address]]
    damaged = [
        DamagedPacket(
            PhysAddr(each.address),
            PacketHeader.parse(PACKET_HEADER.pack(**each.fields)),
            sums[each.address],
        )
        for each in wrong[:MAX_REJECTS]
    ]
    rejects.add_damaged(damaged, len(wrong))
    rejects.add([each.address for each in wrong], _DAMAGED)
    return [
        Packet(
            PhysAddr(address),
            fields["pktSize"] * KIB,
            fields["hdrSize"] * PARAGRAPH_BYTES,
            fields["pktSetId"],
            fields["pktNum"],
            fields["totPkts"],
        )
        for address, fields in seen
        if not sums[address]
    ]


class _Candidates:
    """Pages that may be packets; `drop` removes those that are not.

    `addresses` and `headers` (of `PACKET_HEADER`'s dtype) both have shape (n,).
    """

    def __init__(self, ram: RamArray, addresses: Addresses, rejects: Rejects) -> None:
        self.addresses = addresses
        self.headers = ram.at(addresses, PACKET_HEADER.dtype)
        self._rejects = rejects

    @property
    def sizes(self) -> Addresses:
        """The size of each packet in bytes, shape (n,)."""
        sizes: Addresses = self.headers["pktSize"].astype(np.int64) * KIB
        return sizes

    def drop(self, bad: npt.NDArray[np.bool_], why: str) -> None:
        if bad.any():
            self._rejects.add(self.addresses[bad].tolist(), why)
            self.addresses, self.headers = self.addresses[~bad], self.headers[~bad]

    def drop_damaged(self, sums: npt.NDArray[np.uint16]) -> None:
        """Drop those whose words do not add up to 0; `sums` has shape (n,)."""
        bad = np.flatnonzero(sums)
        damaged = [
            DamagedPacket(
                PhysAddr(int(self.addresses[place])),
                PacketHeader.parse(self.headers[place].tobytes()),
                int(sums[place]),
            )
            for place in bad[:MAX_REJECTS].tolist()
        ]
        self._rejects.add_damaged(damaged, len(bad))
        self.drop(sums != 0, _DAMAGED)


def _among_many(ram: RamArray, addresses: Sequence[int], rejects: Rejects) -> list[Packet]:
    every = np.array(addresses, np.int64)
    fits = ram.bytes_left(every) >= PACKET_HEADER.size_bytes
    rejects.add(every[~fits].tolist(), _CUT_BY_END)
    found = _Candidates(ram, every[fits], rejects)
    for rule in HEADER_RULES:
        found.drop(rule.is_broken(found.headers), f"packet: {rule.field} {rule.says}")
    found.drop(found.sizes > ram.bytes_left(found.addresses), _CUT_BY_END)
    sums, affordable = packet_sums(ram, found.addresses, found.sizes)
    found.drop(~affordable, _TOO_MANY)
    found.drop_damaged(sums[affordable])
    headers = found.headers
    columns = (
        found.addresses,
        found.sizes,
        headers["hdrSize"].astype(np.int64) * PARAGRAPH_BYTES,
        headers["pktSetId"],
        headers["pktNum"],
        headers["totPkts"],
    )
    return list(map(Packet._make, zip(*(each.tolist() for each in columns), strict=True)))
