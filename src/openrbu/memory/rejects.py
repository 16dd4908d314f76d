"""What a search leaves out, with the reasons."""

from __future__ import annotations

from collections.abc import Sequence

from openrbu.memory.search_result import DamagedPacket, Reject
from openrbu.units import PhysAddr

MAX_REJECTS = 1000


class Rejects:
    """Keeps the first `MAX_REJECTS` rejects, and as many packets with a wrong checksum; counts
    all."""

    def __init__(self) -> None:
        self.kept: list[Reject] = []
        self.count = 0
        self.damaged: list[DamagedPacket] = []
        self.damaged_count = 0

    def add(self, addresses: Sequence[int], why: str) -> None:
        self.count += len(addresses)
        room = MAX_REJECTS - len(self.kept)
        self.kept += [Reject(PhysAddr(address), why) for address in addresses[:room]]

    def add_damaged(self, packets: Sequence[DamagedPacket], count: int) -> None:
        """Packets with a wrong checksum, at least the first `MAX_REJECTS` of `count`. They are
        rejects as well, which `add` is told."""
        self.damaged_count += count
        self.damaged += packets[:MAX_REJECTS]
