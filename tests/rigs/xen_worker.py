"""A program: a guest of a host in files, up and down at random, over real memory.

    python -m rigs.xen_worker HOST RAM GUEST SEED STEPS

It says a line before each step. It writes its own mark into every page that it gets, which has to
hold zeros then, and sees that the mark is there when it gives the page back: nobody else has had
that page. What was in its pages when it began was its own too. At the end it says
how often it got fewer pages than it asked for.
"""

from __future__ import annotations

import random
import sys
from pathlib import Path

import numpy as np

from openrbu.memory.frames import Frames
from openrbu.memory.physical import pc_regions
from openrbu.memory.ram_file import RamFile
from openrbu.units import MIB, PAGE_SIZE, PhysAddr
from openrbu.xen.guest_memory import GuestMemory
from openrbu.xen.hypervisor import INVALID, Domain, Hypervisor

RAM_BYTES = 64 * MIB


def main() -> None:
    host_directory, ram, name, seed, steps = sys.argv[1:]
    memory = RamFile(Path(ram), pc_regions(RAM_BYTES))
    domain = Hypervisor.open(Path(host_directory), backing=memory).domain(name)
    worker = Worker(domain, GuestMemory(domain, memory), random.Random(int(seed)))
    for step in range(int(steps)):
        print(step, flush=True)
        worker.step()
    print("short", worker.times_short, flush=True)


class Worker:
    def __init__(self, domain: Domain, memory: GuestMemory, rng: random.Random) -> None:
        self._domain, self._memory, self._rng = domain, memory, rng
        self.times_short = 0
        self._mark = f"guest {domain.name}".encode().ljust(32)

    def step(self) -> None:
        """Up or down by one batch of up to 512 pages."""
        present = np.flatnonzero(self._domain.table != INVALID).astype(np.uint32)
        missing = np.flatnonzero(self._domain.table == INVALID).astype(np.uint32)
        if self._rng.random() < 0.5:
            wanted = self._some(missing)
            granted = self._domain.populate(wanted)
            self.times_short += granted < len(wanted)
            self._see_zeros_and_mark(wanted[:granted])
        else:
            given = self._some(present)
            for frame in given.tolist():
                found = self._memory.read(PhysAddr(frame * PAGE_SIZE), len(self._mark))
                # zeros: it was killed before it could write its mark
                assert found in (self._mark, bytes(len(self._mark))), found
            self._domain.decrease(given)

    def _some(self, frames: Frames) -> Frames:
        count = min(self._rng.randrange(513), len(frames))
        return np.array(self._rng.sample(frames.tolist(), count), np.uint32)

    def _see_zeros_and_mark(self, frames: Frames) -> None:
        for frame in frames.tolist():
            address = PhysAddr(frame * PAGE_SIZE)
            assert self._memory.read(address, PAGE_SIZE) == bytes(PAGE_SIZE), frame
            self._memory.write(address, self._mark)


if __name__ == "__main__":
    main()
