"""What many virtual machines cost: `make bench-fleet N=10000` prints it.

Each machine is made, planned for, updated, restarted and asked for its status, and opened anew for
each of these, as commands do. Processes share the work. There are more of them than processors,
because a machine's process waits for the disk, too.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import cases
from openrbu import api
from openrbu.units import KIB
from openrbu.update.journal import Journal

RBU = str(Path(sys.executable).with_name("rbu"))
MODEL = "poweredge-2650"
VERSION = "A06"
FLASH_BYTES = 512 * KIB
PROCESSES_EACH_CPU = 3
JOURNAL_LINES = 100_000
LIST_EACH_S = 1.0 / 10_000
"""What is wanted of `rbu machine list`: 10,000 machines in a second."""


@dataclass(frozen=True)
class Cost:
    """Of one machine. `wall_s` counts all processors: what each of them has for a machine."""

    wall_s: float
    cpu_s: float
    disk_bytes: float


class Fleet:
    """Machines in a home of their own, below `directory`, and an image for them."""

    def __init__(self, directory: Path, count: int) -> None:
        directory.mkdir()
        self._home, self._image = directory / "home", directory / "image.hdr"
        self.names = [f"m{number:05}" for number in range(count)]
        cases.write_image(self._image, FLASH_BYTES, MODEL, VERSION)
        self.environment = {**os.environ, "OPENRBU_HOME": str(self._home)}

    def work(self, processes: int) -> Cost:
        """Do everything with every machine."""
        os.environ["OPENRBU_HOME"] = str(self._home)
        start, before = time.perf_counter(), _cpu_s()
        with ProcessPoolExecutor(processes) as pool:
            for _ in pool.map(partial(one, self._image), self.names, chunksize=8):
                pass
        wall_s, cpu_s = time.perf_counter() - start, _cpu_s() - before
        count = len(self.names)
        cpus = len(os.sched_getaffinity(0))
        return Cost(wall_s * cpus / count, cpu_s / count, disk_bytes(self._home) / count)

    def list_s(self, *words: str) -> float:
        """How long `rbu machine list` takes."""
        start = time.perf_counter()
        command = (RBU, "machine", "list", *words)
        subprocess.run(command, check=True, capture_output=True, env=self.environment)
        return time.perf_counter() - start


def one(image: Path, name: str) -> None:
    """A machine's life: made, planned for, updated, restarted, looked at."""
    api.make_machine(name, api.MachineSpec(model=MODEL))
    loaded = api.read_image(image)
    with api.open_machine(name, reading=True) as machine:
        assert machine.plan(loaded).refusal is None
    with api.open_machine(name) as machine:
        machine.update(machine.plan(loaded))
    with api.open_machine(name) as machine:
        restarted = machine.restart()
        assert restarted is not None
        assert restarted.failure is None
    with api.open_machine(name, reading=True) as machine:
        last = machine.status().last
        assert last is not None
        assert last.outcome == "result"


def _cpu_s() -> float:
    """The CPU time of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def disk_bytes(directory: Path) -> int:
    """The disk space that is allocated for all in a directory, each file once, as `du` counts."""
    seen: dict[tuple[int, int], int] = {}
    for path in (directory, *directory.rglob("*")):
        found = path.lstat()
        seen[found.st_dev, found.st_ino] = found.st_blocks * 512
    return sum(seen.values())


class LongJournal:
    """A machine with a journal of many lines, and what its commands take."""

    def __init__(self, directory: Path, lines: int) -> None:
        self._fleet = Fleet(directory, 1)
        os.environ["OPENRBU_HOME"] = self._fleet.environment["OPENRBU_HOME"]
        (self._name,) = self._fleet.names
        path = api.make_machine(self._name, api.MachineSpec(model=MODEL)) / "journal.jsonl"
        journal, at = Journal(path), dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
        journal.append("000000000000", "started", at, to_version="A06", from_version="A05")
        journal.append("000000000000", "failed", at, why="a test")
        pair = path.read_bytes()
        with path.open("wb") as file:
            for number in range(lines // 2):
                file.write(pair.replace(b"000000000000", b"%012d" % number))

    def status(self) -> None:
        with api.open_machine(self._name, reading=True) as machine:
            assert (machine.status().last is None) == (not machine.history(last=1))

    def update_and_cancel(self) -> None:
        """The image is read, too; a cancel leaves all for the next time."""
        with api.open_machine(self._name) as machine:
            machine.update(machine.plan(api.read_image(self._fleet._image)))
            machine.cancel()


def report(count: int, processes: int) -> Iterator[str]:
    """The figures for so many machines, a line each."""
    with tempfile.TemporaryDirectory(prefix="openrbu-fleet-") as name:
        fleet = Fleet(Path(name) / "fleet", count)
        start = time.perf_counter()
        cost = fleet.work(processes)
        took_s = time.perf_counter() - start
        yield f"{count:,} machines made, planned for, updated, restarted, looked at: {took_s:.1f} s"
        yield f"each, on one processor: {cost.wall_s * 1000:.1f} ms"
        yield f"each, CPU time: {cost.cpu_s * 1000:.1f} ms"
        yield f"each, disk: {cost.disk_bytes / KIB:.0f} KiB"
        for words in ((), ("--json",)):
            seconds = min(fleet.list_s(*words) for _ in range(3))
            yield f"{' '.join(('rbu machine list', *words))}: {seconds:.2f} s"
        shutil.rmtree(Path(name) / "fleet")
        for lines in (0, JOURNAL_LINES):
            journal = LongJournal(Path(name) / f"journal-{lines}", lines)
            for what in (journal.status, journal.update_and_cancel):
                start = time.perf_counter()
                what()
                took_ms = (time.perf_counter() - start) * 1000
                yield f"{what.__name__}, a journal of {lines:,} lines: {took_ms:.1f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    cpus = len(os.sched_getaffinity(0))
    parser.add_argument("machines", type=int)
    parser.add_argument("--processes", type=int, default=PROCESSES_EACH_CPU * cpus)
    arguments = parser.parse_args()
    for line in report(arguments.machines, arguments.processes):
        print(line, flush=True)


if __name__ == "__main__":
    main()
