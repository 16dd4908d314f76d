"""A program that takes huge pages of this computer, in mount and process namespaces of its own.

It prints a line for each thing that it has seen. At most 12 pages are taken, and the number of huge
pages is put back, whatever happens.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from openrbu.errors import KernelError
from openrbu.own_driver.giving_back import give_back_of
from openrbu.own_driver.huge_pages import HugePageBackend
from openrbu.own_driver.hugetlbfs import OWN_MOUNT
from openrbu.own_driver.own_memory import HugePagesRecord, OwnMemoryRecord
from openrbu.own_driver.pagemap import addresses_in
from openrbu.own_driver.pools import LinuxHugePages, MappedPage
from openrbu.system.files import write_whole
from openrbu.system.mapping import AddressSpace
from openrbu.typed_json import read, to_text
from openrbu.units import HUGE_PAGE_BYTES, MIB, PAGE_SIZE, PhysAddr
from rigs.huge_pages import NUMBER, number_locked

PATTERN = bytes(range(251)) * (HUGE_PAGE_BYTES // 251 + 1)


def in_child(work: Callable[[], None]) -> int:
    """Do something in another process; its exit status."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            work()
            status = 0
        finally:
            sys.stdout.flush()
            os._exit(status)
    return os.waitpid(pid, 0)[1]


class Kept:
    """The record on disk. `step` is called before each change."""

    def __init__(self, path: Path, step: Callable[[], None] = lambda: None) -> None:
        self._path, self._step = path, step

    def __call__(self, record: OwnMemoryRecord) -> None:
        self._step()
        write_whole(self._path, to_text(record).encode())

    def read(self) -> HugePagesRecord:
        return read(HugePagesRecord, json.loads(self._path.read_text()))


class SteppedKernel(LinuxHugePages):
    def __init__(self, step: Callable[[], None]) -> None:
        super().__init__()
        self._step = step

    def set_count(self, path: str, count: int) -> int:
        self._step()
        return super().set_count(path, count)

    def addresses(self, pages: Iterable[MappedPage]) -> list[PhysAddr | None]:
        self._step()
        return super().addresses(pages)


def take(kept: Kept) -> None:
    memory = HugePageBackend().new(kept)
    for count in (2, 4):
        memory.reserve(count * HUGE_PAGE_BYTES, block_bytes=HUGE_PAGE_BYTES)
    for _ in range(4):
        address = memory.allocate(9)
        memory.memory.write(address, PATTERN[: HUGE_PAGE_BYTES - 1])
        memory.memory.write(PhysAddr(address + HUGE_PAGE_BYTES - 1), b"\xee")
    kept(memory.record())


def look(kept: Kept) -> None:
    """What another process sees: pages in their places, through its own mapping."""
    memory = HugePageBackend().open(kept.read(), kept)
    moved, whole = memory.moved(), PATTERN[: HUGE_PAGE_BYTES - 1] + b"\xee"
    print("moved", moved)
    addresses = [address for file in kept.read().files for _, address in file.pages]
    print("read back", all(memory.memory.read(PhysAddr(a), 2 * MIB) == whole for a in addresses))
    flags = os.open("/proc/kpageflags", os.O_RDONLY)
    huge = 1 << 17  # the kernel's document "pagemap"
    entries = [os.pread(flags, 8, address // PAGE_SIZE * 8) for address in addresses]
    print("kernel says huge", all(int.from_bytes(each, "little") & huge for each in entries))
    directory = Path(kept.read().directory)
    space = AddressSpace(HUGE_PAGE_BYTES, alignment_bytes=HUGE_PAGE_BYTES)
    own = []
    for file in kept.read().files:
        fd = os.open(directory / file.name, os.O_RDWR)
        for number, address in file.pages:
            space.map_part(0, HUGE_PAGE_BYTES, fd, number * HUGE_PAGE_BYTES)
            (seen,) = addresses_in(Path("/proc/self/pagemap"), [space.address])
            own.append(seen == address and space.view[:251] == PATTERN[:251])
    print("seen in another mapping", own)


def killed_at(kept_path: Path, number: int) -> int:
    """Take memory in a process that is killed before its step `number`; its exit status."""
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1
        if steps == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        kept = Kept(kept_path, step)
        memory = HugePageBackend(kernel=SteppedKernel(step)).new(kept)
        memory.memory.write(memory.allocate(9), b"staged")
        memory.give_back()

    return in_child(work)


def pages_left() -> tuple[int, ...]:
    """The counts of all pools, the number that was asked for, and whether it mounted."""
    pools = LinuxHugePages().pools()
    mounts = Path("/proc/self/mounts").read_text().count(OWN_MOUNT)
    return (*(pool.count for pool in pools), int(NUMBER.read_text()), mounts)


def _has_them_again(left: tuple[int, ...], seconds: float = 5.0) -> bool:
    """Whether the kernel has its pages again: at once, but where something else looks at the
    process that was killed."""
    deadline = time.monotonic() + seconds
    while not (is_so := pages_left() == left) and time.monotonic() < deadline:
        time.sleep(0.01)
    return is_so


def main(directory: Path) -> None:
    with number_locked():
        before = NUMBER.read_text()
        try:
            work(directory)
        finally:
            NUMBER.write_text(before)


def work(directory: Path) -> None:
    left = pages_left()
    kept = Kept(directory / "record")
    try:
        print("taken", in_child(lambda: take(kept)))
        print("asked while it is held", pages_left()[1] == left[1])
        print("looked", in_child(lambda: look(kept)))
    finally:
        give_back_of(kept.read())
    print("left", pages_left() == left)
    number = 0
    ends: list[int] = []
    while not ends or ends[-1]:
        number += 1
        record = directory / f"killed-{number}"
        ends.append(killed_at(record, number))
        if record.exists():
            give_back_of(Kept(record).read())
        if not _has_them_again(left):
            print(f"killed before step {number}: {pages_left()} left, {left} before")
    print("killed", len(ends) > 5, set(ends))


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except KernelError as error:
        print(error)
