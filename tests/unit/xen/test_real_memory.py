"""Real memory behind a host: what guests have is taken of a tmpfs or a memfd, and comes back."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openrbu.errors import AddressError, KernelError
from openrbu.memory.frames import frame_runs
from openrbu.memory.physical import pc_regions
from openrbu.memory.ram_file import RamFile
from openrbu.units import MIB, PAGE_SIZE, PhysAddr
from openrbu.xen.guest_memory import GuestMemory
from openrbu.xen.hypervisor import XEN_RESERVED, Hypervisor
from rigs.small_disks import fill_up, pages_taken, small_tmpfs
from rigs.xen_hosts import frames, up

TESTS = Path(__file__).parents[2]
RAM = pc_regions(64 * MIB)
FIRST = 17 * MIB // PAGE_SIZE
"""The first machine frame that guests get."""


@pytest.fixture
def memfd() -> Iterator[Path]:
    """The path of a file that is nothing but memory."""
    fd = os.memfd_create("ram")
    yield Path(f"/proc/self/fd/{fd}")
    os.close(fd)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs with room for 256 pages."""
    with small_tmpfs(tmp_path, 256 * PAGE_SIZE):
        yield tmp_path


# -- runs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("numbers", "runs"),
    [
        ([], []),
        ([7], [(7, 1)]),
        ([7, 8, 9], [(7, 3)]),
        ([7, 8, 9, 2], [(7, 3), (2, 1)]),
        ([9, 8, 7], [(9, 1), (8, 1), (7, 1)]),
        ([5, 5], [(5, 1), (5, 1)]),
    ],
)
def test_frames_are_told_as_runs_in_their_order(
    numbers: list[int], runs: list[tuple[int, int]]
) -> None:
    assert frame_runs(frames(*numbers)) == runs


@given(st.lists(st.integers(0, 30), max_size=40))
def test_runs_are_the_frames_again(numbers: list[int]) -> None:
    runs = frame_runs(frames(*numbers))
    assert [frame for first, count in runs for frame in range(first, first + count)] == numbers
    assert all(first + count != after for (first, count), (after, _) in pairwise(runs))


# -- a RAM file whose pages are taken and given back -------------------------------------------


@pytest.mark.parametrize("kind", ["memfd", "disk"])
def test_memory_is_taken_and_goes_back(kind: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(kind)
    path = path if kind == "memfd" else path / "ram"
    ram = RamFile.create(path, RAM)
    assert ram.commit(frames(300, 301, 302, 500, 9000)) == 5
    assert pages_taken(path) == 5
    assert ram.commit(frames(302, 303)) == 2
    assert pages_taken(path) == 6
    ram.release(frames(301, 302, 9000, 9001))
    assert pages_taken(path) == 3
    ram.discard(0, 160)
    ram.discard(256, 16384 - 256)
    assert pages_taken(path) == 0
    ram.close()


def test_what_is_taken_keeps_what_it_holds_and_what_is_given_back_is_zeros(memfd: Path) -> None:
    ram = RamFile.create(memfd, RAM)
    ram.write(PhysAddr(300 * PAGE_SIZE), b"\xaa" * 3 * PAGE_SIZE)
    ram.commit(frames(300, 301, 302, 303))
    assert ram.read(PhysAddr(300 * PAGE_SIZE), 3 * PAGE_SIZE) == b"\xaa" * 3 * PAGE_SIZE
    ram.release(frames(301))
    assert ram.read(PhysAddr(300 * PAGE_SIZE), 3 * PAGE_SIZE) == (
        b"\xaa" * PAGE_SIZE + bytes(PAGE_SIZE) + b"\xaa" * PAGE_SIZE
    )
    ram.close()


@pytest.mark.parametrize("wanted", [up(1000, 1400), up(1000, 1400)[::-1], up(1000, 1800)[::2]])
def test_as_many_pages_are_taken_as_there_is_memory_for(disk: Path, wanted: np.ndarray) -> None:
    ram = RamFile.create(disk / "ram", RAM)
    (disk / "other").write_bytes(bytes(56 * PAGE_SIZE))
    count = ram.commit(wanted)
    assert count == pages_taken(disk / "ram") == 200
    assert list(ram.populated(PhysAddr(0), PhysAddr(64 * MIB))) == []  # taken, and still zeros
    for frame in wanted[:count].tolist():  # and these are the ones that were taken
        ram.write(PhysAddr(frame * PAGE_SIZE), b"there is room")
    with pytest.raises(OSError, match="No space left") as caught:
        ram.write(PhysAddr(int(wanted[count]) * PAGE_SIZE), b"and here is none")
    assert caught.value.errno == errno.ENOSPC
    assert ram.commit(wanted[count:]) == 0
    ram.close()


def test_a_full_disk_still_lets_pages_be_written_that_were_taken(disk: Path) -> None:
    ram = RamFile.create(disk / "ram", RAM)
    ram.commit(up(1000, 1010))
    fill_up(disk)
    ram.write(PhysAddr(1000 * PAGE_SIZE), b"\xaa" * 10 * PAGE_SIZE)
    assert ram.view(PhysAddr(1009 * PAGE_SIZE), 4) == b"\xaa" * 4
    ram.close()


@pytest.mark.parametrize("frame", [0xA0, 0xFF, 64 * MIB // PAGE_SIZE, 2**32 - 1])
def test_what_is_no_ram_is_neither_taken_nor_given_back(memfd: Path, frame: int) -> None:
    ram = RamFile.create(memfd, RAM)
    for call in (ram.commit, ram.release):
        with pytest.raises(AddressError):
            call(frames(frame))
    assert pages_taken(memfd) == 0
    ram.close()


# -- a host over it ---------------------------------------------------------------------------


def host_over(path: Path) -> tuple[Hypervisor, RamFile]:
    ram = RamFile.create(path, RAM)
    return Hypervisor.in_memory(RAM, backing=ram, takes_memory=True), ram


def test_resident_memory_falls_and_rises_with_the_balloon(memfd: Path) -> None:
    host, ram = host_over(memfd)
    guest = host.create_domain("one", pages=1024, max_pages=2048)
    assert pages_taken(memfd) == 1024
    guest.decrease(up(0, 512))
    assert pages_taken(memfd) == 512
    guest.decrease(up(512, 1024)[::2])
    assert pages_taken(memfd) == 256
    assert guest.populate(up(1024, 1536)) == 512
    assert pages_taken(memfd) == 768
    host.destroy("one")
    assert pages_taken(memfd) == 0
    ram.close()


def test_the_file_system_has_the_more_free_the_less_guests_have(disk: Path) -> None:
    host, ram = host_over(disk / "ram")
    guest = host.create_domain("one", pages=200, max_pages=250)
    memory = GuestMemory(guest, ram)
    memory.write(PhysAddr(0), b"\xaa" * 200 * PAGE_SIZE)
    free = [os.statvfs(disk).f_bfree]
    guest.decrease(up(50, 150))
    free.append(os.statvfs(disk).f_bfree)
    assert guest.populate(up(50, 150)) == 100
    free.append(os.statvfs(disk).f_bfree)
    assert free == [free[0], free[0] + 100, free[0]]
    assert memory.read(PhysAddr(50 * PAGE_SIZE), 100 * PAGE_SIZE) == bytes(100 * PAGE_SIZE)
    assert memory.read(PhysAddr(150 * PAGE_SIZE), 4) == b"\xaa" * 4
    ram.close()


def test_a_guest_grows_by_just_what_the_tmpfs_has_and_on_when_it_has_more(disk: Path) -> None:
    host, ram = host_over(disk / "ram")
    guest = host.create_domain("one", pages=100, max_pages=1000)
    other = disk / "other"
    other.write_bytes(bytes(56 * PAGE_SIZE))
    assert guest.populate(up(100, 612)) == 100
    assert guest.populate(up(200, 612)) == 0
    host.check()
    other.unlink()
    assert guest.populate(up(200, 612)) == 56
    assert pages_taken(disk / "ram") == guest.current_pages == 256
    assert (guest.table[:256] == up(FIRST, FIRST + 256)).all()
    host.check()
    ram.close()


def test_one_guest_grows_into_what_another_one_gave_back(disk: Path) -> None:
    host, ram = host_over(disk / "ram")
    one = host.create_domain("one", pages=128, max_pages=128)
    two = host.create_domain("two", pages=128, max_pages=256)
    secret = GuestMemory(one, ram)
    secret.write(PhysAddr(0), b"secret!!" * (128 * PAGE_SIZE // 8))
    assert two.populate(up(128, 256)) == 0
    one.decrease(up(10, 60))
    assert two.populate(up(128, 256)) == 50
    assert GuestMemory(two, ram).read(PhysAddr(0), 178 * PAGE_SIZE) == bytes(178 * PAGE_SIZE)
    assert (two.table[128:178] == up(FIRST + 10, FIRST + 60)).all()
    ram.close()


def test_a_guest_that_does_not_fit_the_tmpfs_takes_nothing_of_it(disk: Path) -> None:
    host, ram = host_over(disk / "ram")
    host.create_domain("one", pages=100, max_pages=100)
    with pytest.raises(KernelError, match="157 pages wanted, 156 are free"):
        host.create_domain("two", pages=157, max_pages=200)
    assert pages_taken(disk / "ram") == 100
    host.check()
    ram.close()


def test_a_host_need_not_take_memory_before_it_is_written(memfd: Path) -> None:
    ram = RamFile.create(memfd, RAM)
    host = Hypervisor.in_memory(RAM, backing=ram)
    guest = host.create_domain("one", pages=1024, max_pages=1024)
    assert pages_taken(memfd) == 0
    GuestMemory(guest, ram).write(PhysAddr(0), bytes(10 * PAGE_SIZE))
    assert pages_taken(memfd) == 10
    guest.decrease(up(0, 4))
    assert pages_taken(memfd) == 6
    ram.close()


def test_a_host_that_starts_scrubs_all_memory_but_its_own(memfd: Path) -> None:
    ram = RamFile.create(memfd, RAM)
    ram.write(PhysAddr(MIB), b"\xaa" * 63 * MIB)
    Hypervisor.in_memory(RAM, backing=ram)
    assert pages_taken(memfd) == 16 * MIB // PAGE_SIZE
    assert XEN_RESERVED[0].end == 17 * MIB
    ram.close()


def test_no_balloon_ends_in_a_bus_error(tmp_path: Path) -> None:
    """In a process of its own, which a SIGBUS would end, on a tmpfs that is full all the time."""
    with small_tmpfs(tmp_path, 64 * PAGE_SIZE):
        done = subprocess.run(
            [sys.executable, "-c", LIVE_ON_A_FULL_DISK, str(tmp_path / "ram")],
            cwd=TESTS,
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "30 30 10\n"


LIVE_ON_A_FULL_DISK = """
import sys
from pathlib import Path
from openrbu.xen.guest_memory import GuestMemory
from openrbu.xen.hypervisor import Hypervisor
from openrbu.memory.physical import pc_regions
from openrbu.memory.ram_file import RamFile
from openrbu.memory.ram_array import RamArray
from openrbu.units import MIB, PAGE_SIZE, PhysAddr
from rigs.small_disks import fill_up
from rigs.xen_hosts import up

path, end = Path(sys.argv[1]), PhysAddr(64 * MIB)
ram = RamFile.create(path, pc_regions(64 * MIB))
host = Hypervisor.in_memory(ram.regions, backing=ram, takes_memory=True)
guest = host.create_domain("one", pages=40, max_pages=500)
memory = GuestMemory(guest, ram)
memory.write(PhysAddr(0), bytes([0xAA]) * 30 * PAGE_SIZE)  # and 10 that are still holes
looking = RamFile(path, ram.regions, writable=False, is_mapped=False)
arrays = [RamArray(each, PhysAddr(0), end) for each in (memory, looking)]
view = memory.view(PhysAddr(0), PAGE_SIZE)
before = [len(array.pages_with(0xAAAAAAAA)[0]) for array in arrays]
guest.decrease(up(5, 25))
fill_up(path.parent)
assert guest.populate(up(40, 500)) == 0
assert [len(looking.read(PhysAddr(17 * MIB), MIB)), len(view)] == [MIB, PAGE_SIZE]
after = len(arrays[1].pages_with(0xAAAAAAAA)[0])
found = RamArray(memory, PhysAddr(0), end).pages_with(0xAAAAAAAA)[0].tolist()
assert found == [frame * PAGE_SIZE for frame in [*range(5), *range(25, 30)]]
memory.write(PhysAddr(30 * PAGE_SIZE), bytes([0xBB]) * 10 * PAGE_SIZE)
memory.zero(PhysAddr(25 * PAGE_SIZE), 15 * PAGE_SIZE)
print(*before, after)
"""


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 1000))
def test_what_a_file_takes_is_what_guests_have(seed: int) -> None:
    fd = os.memfd_create("ram")
    path = Path(f"/proc/self/fd/{fd}")
    rng = np.random.default_rng(seed)
    host, ram = host_over(path)
    guest = host.create_domain("one", pages=64, max_pages=256)
    present = np.zeros(256, np.bool_)
    present[:64] = True
    for _ in range(20):
        chosen = rng.random(256) < 0.3
        guest.populate(rng.permutation(np.flatnonzero(chosen & ~present)).astype(np.uint32))
        present |= chosen
        assert pages_taken(path) == present.sum()
        chosen = rng.random(256) < 0.3
        guest.decrease(rng.permutation(np.flatnonzero(chosen & present)).astype(np.uint32))
        present &= ~chosen
        assert pages_taken(path) == present.sum()
    host.check()
    ram.close()
    os.close(fd)
