"""Xen hosts to try things on."""

from __future__ import annotations

import numpy as np

from openrbu.errors import MachineError
from openrbu.memory.frames import Frames
from openrbu.memory.physical import Region
from openrbu.units import PAGE_SIZE, PhysAddr
from openrbu.xen.arrays import PrivateArrays
from openrbu.xen.hypervisor import Domain, Hypervisor
from openrbu.xen.state import WORD_COUNT, HostState


def ram(*spans: tuple[int, int]) -> tuple[Region, ...]:
    """RAM in these machine frames, (first, behind the last)."""
    return tuple(Region(PhysAddr(a * PAGE_SIZE), PhysAddr(b * PAGE_SIZE)) for a, b in spans)


def small_host(*spans: tuple[int, int], backing: Stock | None = None) -> Hypervisor:
    """A host that has all of its RAM to give, 100 pages unless said otherwise."""
    return Hypervisor.in_memory(
        ram(*spans or ((0, 100),)),
        reserved=(),
        backing=backing,
        takes_memory=backing is not None,
    )


def private_host(total: int = 100) -> HostState:
    """The state of a host, to be tampered with."""
    arrays = PrivateArrays(WORD_COUNT, total)
    return HostState(arrays, ((0, total),), None, takes_memory=False)


def frames(*numbers: int) -> Frames:
    return np.array(numbers, np.uint32)


def up(first: int, end: int) -> Frames:
    """The frames from `first` up to, not including, `end`."""
    return np.arange(first, end, dtype=np.uint32)


def machine_frames(domain: Domain) -> list[int]:
    """What the frame table says, all of it."""
    frames: list[int] = domain.table.tolist()
    return frames


class Stock:
    """Memory for machine frames, of which there is only so much: `capacity` pages."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.taken: set[int] = set()

    def commit(self, frames: Frames) -> int:
        count = min(len(frames), self.capacity - len(self.taken))
        fresh = set(frames[:count].tolist())
        if fresh & self.taken or len(fresh) != count:
            raise MachineError("memory is taken twice")
        self.taken |= fresh
        return count

    def release(self, frames: Frames) -> None:
        self.taken -= set(frames.tolist())

    def discard(self, first: int, count: int) -> None:
        self.taken -= set(range(first, first + count))
