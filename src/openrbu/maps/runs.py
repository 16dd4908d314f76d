"""Packets that lie one after the other: a set in memory as few runs."""

from __future__ import annotations

from dataclasses import dataclass

from openrbu.maps.memory_map import MappedSet


@dataclass(frozen=True, slots=True)
class PacketRun:
    """Packets `first` to `last` from `start` up to `end`, without a gap. `step` is 1 where their
    numbers ascend with the address, -1 where they descend. `is_ghost`: they are leftover copies."""

    start: int
    end: int
    first: int
    last: int
    step: int
    is_ghost: bool

    @property
    def text(self) -> str:
        """Such as `packets 3 to 17`."""
        what = "a copy of " if self.is_ghost else ""
        if self.first == self.last:
            return f"{what}packet {self.first}"
        order = "" if self.step == 1 else ", descending"
        return f"{what}packets {self.first} to {self.last}{order}"


def packet_runs(mapped: MappedSet) -> list[PacketRun]:
    """All packets of a set, copies included, as runs; they ascend by address."""
    runs: list[PacketRun] = []
    ghosts = [False] * len(mapped.numbers) if mapped.is_ghost is None else mapped.is_ghost.tolist()
    places = zip(mapped.addresses.tolist(), mapped.numbers.tolist(), ghosts, strict=True)
    for address, number, ghost in places:
        end = address + mapped.found.size_of(number)
        last = runs[-1] if runs else None
        step = 0 if last is None else number - last.last
        joins = last is not None and address == last.end and ghost == last.is_ghost
        if last is not None and joins and abs(step) == 1 and step in (last.step, last.step or step):
            runs[-1] = PacketRun(last.start, end, last.first, number, step, ghost)
        else:
            runs.append(PacketRun(address, end, number, number, 0, ghost))
    return runs
