"""A host in a directory, which several processes have open at once."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrbu.balloon.model import ModelGuest
from openrbu.drivers.xen_balloon_profiles import balloon_profile
from openrbu.errors import MachineError
from openrbu.memory.physical import pc_regions
from openrbu.memory.ram_file import RamFile
from openrbu.units import MIB
from openrbu.xen import arrays
from openrbu.xen.hypervisor import INVALID, Hypervisor
from rigs.needs import leave_out
from rigs.small_disks import pages_taken, small_tmpfs
from rigs.xen_hosts import Stock, frames, machine_frames, ram, up
from rigs.xen_killed import CALLS
from rigs.xen_worker import RAM_BYTES

TESTS = Path(__file__).parents[2]

Popen = subprocess.Popen[str]


def files_of(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


# -- one host, seen by several ----------------------------------------------------------------


def test_what_one_process_does_the_others_see(tmp_path: Path) -> None:
    here = Hypervisor.create(tmp_path, ram((0, 50)), reserved=())
    there = Hypervisor.open(tmp_path)
    guest = here.create_domain("one", pages=5, max_pages=9, claim_pages=2)
    same = there.domain("one")
    same.populate(frames(7))
    guest.decrease(frames(1))
    assert machine_frames(guest) == machine_frames(same)
    assert guest.info() == same.info()
    assert (here.free_pages, here.claimed_pages) == (there.free_pages, there.claimed_pages)
    there.destroy("one")
    assert not guest.is_there
    here.check()
    assert files_of(tmp_path) == ["host.json", "lock", "next", "stack", "words"]


def test_guests_live_on_when_nobody_has_the_host_open(tmp_path: Path) -> None:
    host = Hypervisor.create(tmp_path, pc_regions(64 * MIB))
    guest = host.create_domain("one", pages=50, max_pages=90)
    guest.decrease(up(10, 20))
    before, table = guest.info(), machine_frames(guest)
    host.close()
    again = Hypervisor.open(tmp_path)
    assert again.domains() == [before]
    assert machine_frames(again.domain("one")) == table
    again.check()


def test_a_host_made_anew_is_out_of_reach_for_who_has_the_old_one_open(tmp_path: Path) -> None:
    stock = Stock(50)
    old = Hypervisor.create(tmp_path, ram((0, 50)), reserved=(), backing=stock)
    guest = old.create_domain("one", pages=30, max_pages=50)
    host = Hypervisor.create(tmp_path, ram((0, 20)), reserved=(), backing=stock)
    assert host.domains() == []
    assert (host.total_pages, host.free_pages) == (20, 20)
    host.create_domain("one", pages=20, max_pages=20)
    assert set(machine_frames(guest)) == {INVALID}
    assert not guest.is_there
    for call in (
        lambda: old.create_domain("two", pages=1, max_pages=1),
        lambda: guest.populate(frames(40)),
        lambda: old.domain("one"),
        old.domains,
    ):
        with pytest.raises(MachineError, match="switched off, or started again"):
            call()
    host.check()


def test_a_host_that_is_removed_is_gone(tmp_path: Path) -> None:
    directory = tmp_path / "xen"
    directory.mkdir()
    host = Hypervisor.create(directory, ram((0, 50)), reserved=())
    host.create_domain("one", pages=1, max_pages=1)
    Hypervisor.remove(directory)
    Hypervisor.remove(directory)
    assert not directory.exists()
    with pytest.raises(MachineError, match="there is no Xen host in"):
        Hypervisor.open(directory)
    with pytest.raises(MachineError, match="switched off"):
        host.domains()


def test_a_thousand_guests_are_on_one_host_in_files(tmp_path: Path) -> None:
    host = Hypervisor.create(tmp_path, ram((0, 1 << 20)))
    for number in range(1000):
        host.create_domain(f"guest{number}", pages=500, max_pages=600)
    Hypervisor.open(tmp_path).domain("guest999").decrease(up(0, 100))
    assert host.domain("guest0").populate(up(500, 600)) == 100
    assert host.domain("guest0").table[500] == host.domain("guest999").table[100] - 100
    host.check()


def test_without_its_backing_a_host_is_only_looked_at(tmp_path: Path) -> None:
    host = Hypervisor.create(tmp_path, ram((0, 50)), reserved=(), backing=Stock(50))
    host.create_domain("one", pages=5, max_pages=9)
    looked_at = Hypervisor.open(tmp_path)
    guest = looked_at.domain("one")
    guest.set_target_kib(8)
    assert host.domain("one").target_kib == 8
    for call in (
        lambda: guest.populate(frames(7)),
        lambda: guest.decrease(frames(0)),
        lambda: looked_at.destroy("one"),
        lambda: looked_at.create_domain("two", pages=1, max_pages=1),
    ):
        with pytest.raises(MachineError, match="memory is not open in this process"):
            call()
    host.check()


@pytest.mark.parametrize("name", ["words", "stack", "table.1"])
def test_a_file_that_is_lost_or_cut_is_said(tmp_path: Path, name: str) -> None:
    Hypervisor.create(tmp_path, ram((0, 50)), reserved=()).create_domain("a", pages=1, max_pages=9)
    (tmp_path / name).write_bytes(b"1234")
    with pytest.raises(MachineError, match=f"{name} was cut"):
        Hypervisor.open(tmp_path).domain("a")
    (tmp_path / name).unlink()
    with pytest.raises(MachineError, match=f"lost its file .*{name}"):
        Hypervisor.open(tmp_path).domain("a")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"format": 2}', "newer openrbu"),
        ('{"format": 1, "spans": [], "has_backing": false, "takes_memory": false}', "damaged"),
        ('{"format": 1, "spans": [[5, 5]], "has_backing": 0, "takes_memory": 0}', "damaged"),
        ('{"format": 1, "spans": [[0, 5]]}', "damaged"),
    ],
)
def test_a_damaged_description_is_said(tmp_path: Path, text: str, why: str) -> None:
    Hypervisor.create(tmp_path, ram((0, 50)), reserved=())
    (tmp_path / "host.json").write_text(text)
    with pytest.raises(MachineError, match=why):
        Hypervisor.open(tmp_path)


def test_a_full_disk_is_an_error_and_changes_nothing(tmp_path: Path) -> None:
    """The host's own files, not its RAM. In a process of its own, which a SIGBUS would end."""
    with small_tmpfs(tmp_path, 5 * MIB):
        done = subprocess.run(
            [sys.executable, "-c", FILL_THE_DISK, str(tmp_path)],
            cwd=TESTS,
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, "")
    *before, refused, pages, whole = done.stdout.splitlines()
    assert (before, pages, whole) == (["ENOSPC", "one"], "300000 pages", "whole")
    assert "free some space and try again" in refused


def test_a_balloon_whose_pages_the_hypervisor_can_not_take_keeps_them(tmp_path: Path) -> None:
    host = Hypervisor.create(tmp_path, ram((0, 50)), reserved=())
    host.create_domain("one", pages=30, max_pages=40)
    guest = ModelGuest(Hypervisor.open(tmp_path).domain("one"), balloon_profile("linux"))
    (tmp_path / "stack").rename(tmp_path / "aside")
    guest.balloon.set_target_pages(20)
    with pytest.raises(MachineError, match="can't write to the disk which pages are free"):
        guest.balloon.step(0.0)
    assert guest.domain.current_pages == guest.balloon.current_pages == 30
    assert (guest.balloon.low_pages, guest.pages.free_pages) == (10, 30)
    (tmp_path / "aside").rename(tmp_path / "stack")
    guest.balloon.run(0.0)
    guest.balloon.set_target_pages(40)
    guest.balloon.run(0.0)
    assert guest.domain.current_pages == guest.balloon.current_pages == 40
    host.check()


FILL_THE_DISK = """
import errno, sys
from pathlib import Path
from openrbu.errors import MachineError
from openrbu.xen.hypervisor import INVALID, Hypervisor
from rigs.small_disks import fill_up
from rigs.xen_hosts import ram, up

directory = Path(sys.argv[1])
host = Hypervisor.create(directory, ram((0, 1 << 21)), reserved=())
guest = host.create_domain("one", pages=1000, max_pages=500_000)
try:
    host.create_domain("two", pages=10, max_pages=1 << 20)
except OSError as error:
    print(errno.errorcode[error.errno])
print(*[info.name for info in host.domains()])
got = guest.populate(up(1000, 262_144))
filler = fill_up(directory)
try:
    guest.populate(up(262_144, 300_000))
except MachineError as error:
    print(error)
filler.unlink()
assert guest.current_pages == 262_144
guest.populate(up(262_144, 300_000))
guest.decrease(up(0, 300_000))
guest.populate(up(0, 300_000))
print(guest.current_pages, "pages")
host.check()
print("whole")
"""


# -- processes that are killed ----------------------------------------------------------------


@pytest.fixture
def shm() -> Iterator[Path]:
    """A directory on a tmpfs, which says exactly how much memory a file takes."""
    if not Path("/dev/shm").is_dir():
        leave_out("there is no /dev/shm")
    directory = Path(tempfile.mkdtemp(dir="/dev/shm"))
    yield directory
    shutil.rmtree(directory)


BEFORE = "one:12+4 two:12+0 24"
AFTER = {
    "populate": "one:24+0 two:12+0 36",
    "decrease": "one:5+4 two:12+0 17",
    "create": "one:12+4 two:12+0 three:9+2 33",
    "destroy": "two:12+0 12",
    "set_claim": "one:12+2 two:12+0 24",
    "end": "ended",
}


@pytest.mark.untraced
@pytest.mark.parametrize("call", CALLS)
def test_a_hypercall_killed_at_any_line_was_made_or_was_not(shm: Path, call: str) -> None:
    """Guests as `name:pages+claim`, and how many pages the RAM file takes: just what they have."""
    done = subprocess.run(
        [sys.executable, "-m", "rigs.xen_killed", shm, call],
        cwd=TESTS,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = done.stdout.splitlines()
    turn = seen.index(AFTER[call])
    assert turn > 10  # or the tracer does not see the lines that it should
    assert seen == [BEFORE] * turn + [AFTER[call]] * (len(seen) - turn)


_STAY = """
import os, signal, sys
from pathlib import Path
from openrbu.xen.hypervisor import Hypervisor

with Hypervisor.open(Path(sys.argv[1]))._state:
    os.kill(os.getpid(), signal.SIGSTOP)
"""


def test_a_process_stopped_inside_of_a_hypercall_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "LOCK_WITHIN_S", 0.05)
    host = Hypervisor.create(tmp_path, ram((0, 50)), reserved=())
    with subprocess.Popen([sys.executable, "-c", _STAY, str(tmp_path)]) as process:
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        for call in (host.domains, lambda: Hypervisor.remove(tmp_path)):
            with pytest.raises(MachineError, match=r"inside of a hypercall .* and stays there"):
                call()
        process.kill()
    assert host.domains() == []


def test_guests_of_several_processes_contend_and_one_is_killed_again_and_again(
    tmp_path: Path,
) -> None:
    """Four guests want up to 64 MiB together and there are 24. See `xen_worker` for what each one
    sees to: that what it gets is clean, and that nobody wrote into what it has."""
    rng = random.Random(5)
    directory, disk = tmp_path / "xen", tmp_path / "disk"
    directory.mkdir()
    disk.mkdir()
    with small_tmpfs(disk, 24 * MIB):
        memory = RamFile.create(disk / "ram", pc_regions(RAM_BYTES))
        host = Hypervisor.create(directory, memory.regions, backing=memory, takes_memory=True)
        names = [f"guest{number}" for number in range(4)]
        for name in names:
            host.create_domain(name, pages=1024, max_pages=4096)
        is_killed, times_short = 0, 0
        for turn in range(6):
            workers = [worker(directory, disk / "ram", name, turn, steps=20) for name in names]
            victim = rng.choice(workers)
            kill_after_lines(victim, rng.randrange(1, 16))
            for process in workers:
                out, err = process.communicate(timeout=120)
                if process is victim and process.returncode == -signal.SIGKILL:
                    is_killed += 1
                    continue
                assert (process.returncode, err) == (0, "")
                times_short += int(out.split()[-1])
            host.check()
            assert pages_taken(disk / "ram") == sum(info.current_pages for info in host.domains())
        host.close()
        memory.close()
    assert is_killed >= 4
    assert times_short > 0


def worker(directory: Path, ram: Path, name: str, seed: int, *, steps: int) -> Popen:
    arguments = [str(directory), str(ram), name, str(seed), str(steps)]
    return subprocess.Popen(
        [sys.executable, "-m", "rigs.xen_worker", *arguments],
        cwd=TESTS,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kill_after_lines(process: Popen, count: int) -> None:
    """Let a worker take so many steps, and kill it in the next one."""
    assert process.stdout is not None
    for _ in range(count):
        process.stdout.readline()
    process.kill()
