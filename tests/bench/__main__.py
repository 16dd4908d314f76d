"""Speed, as ratios against a limit, measured side by side in one run: `make bench`.

Each row is a thing we do, and the fastest thing that could be done to the same bytes. Both are
measured in turns, several times, and the best of each counts, so that a busy moment of the machine
hits neither. Nothing here fails a build: the table says which wishes hold. OPENRBU_BENCH_PART=0.3,
as in CI, has three of ten rounds measured, at least one of each.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import balloon, cases, dumps, fleet, own_driver, scans, startup
from bench.mount import Mounts, mounted, piece_of
from openrbu.trials.matrix import default_matrix
from openrbu.units import GIB, KIB, MIB

PART = float(os.environ.get("OPENRBU_BENCH_PART", "1"))


@dataclass(frozen=True)
class Row:
    """One measurement. Times in seconds; `wish` is the highest ratio that is wanted."""

    name: str
    seconds: float
    limit: str
    limit_seconds: float
    wish: float

    @property
    def ratio(self) -> float:
        return self.seconds / self.limit_seconds

    @property
    def holds(self) -> bool:
        return self.ratio <= self.wish


def part_of(rounds: int) -> range:
    """The rounds that are measured."""
    return range(max(1, round(rounds * PART)))


def best(*actions: Callable[[], object], rounds: int) -> list[float]:
    """The shortest time of each action, the actions taking turns."""
    times = [float("inf")] * len(actions)
    for _ in part_of(rounds):
        for number, action in enumerate(actions):
            start = time.perf_counter()
            action()
            times[number] = min(times[number], time.perf_counter() - start)
    return times


def measure_packets() -> Iterator[Row]:
    work = cases.Packets()
    copy, split, join = best(work.copy, work.split, work.join, rounds=100)
    limit = "copy of 16 MiB: bytes(memoryview)"
    yield Row("packets out of a 16 MiB image", split, limit, copy, 2.0)
    yield Row("packets checked and joined", join, limit, copy, 2.0)


def measure_check_words() -> Iterator[Row]:
    work = cases.WholeImage()
    crc32, judge, find_end = best(work.crc32, work.judge, work.find_end, rounds=30)
    limit = "zlib.crc32 of 16 MiB"
    yield Row("check words of a 16 MiB image", judge, limit, crc32, 1.25)
    yield Row("its end found, with 4 KiB behind it", find_end, limit, crc32, 1.5)


def measure_search(directory: Path) -> Iterator[Row]:
    with cases.TouchedRam(directory / "ram") as work:
        find, first, again = best(work.find, work.search, work.search, rounds=6)
    limit = "mmap.find over it"
    yield Row("BIOS search of 1 GiB of RAM", again, limit, find, 1 / 20)
    yield Row("the same, out of a cold cache", first, limit, find, 1 / 20)


def measure_scan(directory: Path) -> Iterator[Row]:
    """The command, with its start. The limits are other commands over the same file."""
    commands = scans.Dumps(directory / "scan").commands
    actions = [partial(scans.run, command) for command in commands.values()]
    seconds = dict(zip(commands, best(*actions, rounds=7), strict=True))
    name, anywhere = "rbu scan", "rbu scan --any-alignment"
    for ours, theirs, wish in (
        (name, "rg -abo", 1.0),
        (name, "grep -abo", 1.0),
        (name, "cat", 1 / 0.9),
        (anywhere, "grep -abo", 1.0),
    ):
        if theirs in seconds:
            limit = f"{theirs} of the same file"
            yield Row(f"{ours} of 1 GiB, warm", seconds[ours], limit, seconds[theirs], wish)
    sparse = "rbu scan of 1 TiB, nearly all a hole"
    yield Row(sparse, seconds[sparse], "2 s", 2.0, 1.0)
    for each in (name, anywhere):
        row = f"{each} of 1 GiB: MiB resident"
        yield Row(row, scans.resident_mib(commands[each]), "256 MiB", 256.0, 1.0)


def measure_dumps(directory: Path) -> Iterator[Row]:
    """Dumps out of a cold cache, in each format; and a compressed one, warm."""
    path = directory / "dump"
    for name in dumps.HEADS:
        dumps.write(path, name)
        times: dict[str, list[float]] = {"cat": [], "rbu": []}
        for _ in part_of(2):
            for tool, command in (("cat", ("cat", str(path))), ("rbu", dumps.scan(path))):
                dumps.make_cold(path)
                times[tool] += best(partial(scans.run, command), rounds=1)
        row = f"rbu scan of {dumps.DUMP_GIB} GiB, {name}, cold"
        yield Row(row, min(times["rbu"]), "cat of the same file", min(times["cat"]), 1 / 0.9)
    dumps.write_packed(path)
    zcat, ours = best(
        partial(scans.run, ("zcat", str(path))), partial(scans.run, dumps.scan(path)), rounds=3
    )
    yield Row("rbu scan of 1 GiB in gzip", ours, "zcat of the same file", zcat, 1 / 0.9)
    row = "rbu scan of 1 GiB in gzip: MiB resident"
    yield Row(row, scans.resident_mib(dumps.scan(path)), "256 MiB", 256.0, 1.0)
    path.unlink()


def measure_update(directory: Path) -> Iterator[Row]:
    work = cases.WholeUpdate(directory / "home")
    updates, copies = [], []
    for _ in part_of(5):
        work.prepare()
        start = time.perf_counter()
        work.run()
        updates.append(time.perf_counter() - start)
        copies += best(cases.fresh_copy, rounds=1)
        work.tidy()
    update = min(updates)
    copy = min(copies)
    name = "update of 16 MiB in packets, plan to boot"
    yield Row(name, update, "copy of 16 MiB into fresh memory", copy, 20.0)
    yield Row(name, update, "half a second", 0.5, 1.0)
    (crc32,) = best(cases.WholeImage().crc32, rounds=10)
    yield Row(name, update, "zlib.crc32 of 16 MiB", crc32, 60.0)


def measure_own_driver() -> Iterator[Row]:
    """Needs root, for huge pages and their addresses."""
    name = "16 MiB on huge pages, staged and verified"
    yield Row(name, own_driver.seconds(), "300 ms", 0.300, 1.0)


def measure_balloon() -> Iterator[Row]:
    """The wishes are in the words of the issue: 5 million pages a second, a minute, and a cost that
    grows with the pages moved, not with the memory owned."""
    work = balloon.OneGuest(8 * GIB, balloon.MILLION)
    (seconds,) = best(work.balloon, rounds=6)
    limit_s = 2 * balloon.MILLION / 5_000_000
    yield Row("1,000,000 pages ballooned out and in", seconds, "5,000,000 pages/s", limit_s, 1.0)
    small, large = (balloon.OneGuest(size * GIB, 128 * 1024) for size in (1, 256))
    limit_s, seconds = best(small.balloon, large.balloon, rounds=12)
    name = "512 MiB ballooned out and in, of 256 GiB"
    yield Row(name, seconds, "the same of 1 GiB", limit_s, 1.25)


def measure_thousand_guests() -> Iterator[Row]:
    done = subprocess.run(
        [sys.executable, "-c", "from bench.balloon import thousand_guests; thousand_guests()"],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    name = "1,000 guests on 1 TiB, an hour of targets"
    yield Row(name, float(done.stdout), "60 s", 60.0, 1.0)


def measure_processes(directory: Path) -> Iterator[Row]:
    """Whole processes: what a person waits for."""
    image = directory / "image.hdr"
    cases.write_image(image)
    rbu = str(Path(sys.executable).with_name("rbu"))

    def run(*command: str) -> Callable[[], object]:
        return lambda: subprocess.run(command, check=True, capture_output=True)

    checksum = f"import zlib; zlib.crc32(open({str(image)!r}, 'rb').read())"
    python, crc32, version, info = best(
        run(sys.executable, "-c", "pass"),
        run(sys.executable, "-c", checksum),
        run(rbu, "--version"),
        run(rbu, "info", str(image)),
        rounds=12,
    )
    yield Row("rbu --version", version, "120 ms", 0.120, 1.0)
    yield Row("rbu info of 16 MiB", info, "250 ms", 0.250, 1.0)
    yield Row("rbu info of 16 MiB", info, "zlib.crc32 in a python of its own", crc32, 8.0)
    yield Row("rbu --version", version, "python -c pass", python, 120 / 15)


def measure_startup(directory: Path) -> Iterator[Row]:
    """CPU time of commands that only look, with what one does unasked: load and end."""
    seconds = startup.Home(directory / "startup").cpu_seconds(part_of(15))
    python = seconds[startup.PYTHON]
    uncompiled = {n + startup.UNCOMPILED: wish for n, wish in startup.UNCOMPILED_WISHES.items()}
    for name, wish in (startup.WISHES | uncompiled).items():
        yield Row(f"{name}: CPU", seconds[name], startup.PYTHON, python, wish)
    for ours, theirs, wish in startup.BESIDE:
        if theirs in seconds:
            yield Row(f"{ours}: CPU", seconds[ours], theirs, seconds[theirs], wish)


def measure_run(directory: Path) -> Iterator[Row]:
    """A program that sees a machine's files. Needs root, or a kernel that gives out namespaces."""
    environment = {**os.environ, "OPENRBU_HOME": str(directory / "run")}
    rbu = str(Path(sys.executable).with_name("rbu"))

    def run(*words: str) -> None:
        subprocess.run([rbu, *words], check=True, capture_output=True, env=environment)

    run("machine", "new", "bench")
    (seconds,) = best(lambda: run("run", "--machine", "bench", "--", "true"), rounds=8)
    yield Row("rbu run -- true", seconds, "600 ms", 0.600, 1.0)
    tool = ("sh", "-c", "sleep 0.1; exit 1")
    count = len(list(default_matrix()))
    words = ("try", "--matrix", "--make-image", "--expect", "not_tried", "--", *tool)
    (whole,) = best(lambda: run(*words), rounds=1)
    name = f"rbu try of {count} machines, a tool of 0.1 s"
    yield Row(name, whole, "60 s", 60.0, 1.0)
    yield Row(f"{name}: each", whole / count, "rbu run -- true", seconds, 1.5)


def measure_mount(directory: Path) -> Iterator[Row]:
    """Needs root. The wishes are in the words of the issue: 0.7 of the speed, twice the time."""
    cpus = sorted(os.sched_getaffinity(0))
    for client_cpu, where in ((cpus[-1], "two CPUs"), (cpus[0], "one CPU")):
        if where == "two CPUs" and len(cpus) == 1:
            continue
        with mounted(directory / where.replace(" ", "-"), cpus[0], client_cpu) as work:
            yield from _measure_mounted(work, where)


def _measure_mounted(work: Mounts, where: str) -> Iterator[Row]:
    limit = "the same into an empty file system"
    for size_bytes, name in ((MIB, "1 MiB"), (4 * KIB, "4 KiB")):
        piece = piece_of(size_bytes)
        ours, theirs = [], []
        for _ in part_of(8):
            work.begin()
            ours += best(partial(work.stage, work.machine, piece), rounds=1)
            theirs += best(partial(work.stage, work.empty, piece), rounds=1)
        yield Row(f"16 MiB staged in {name}, {where}", min(ours), limit, min(theirs), 1 / 0.7)
    echo, bare = best(partial(work.echo, work.machine), partial(work.echo, work.empty), rounds=8)
    yield Row(f"200 echoes to an attribute, {where}", echo, limit, bare, 2.0)


def measure_large_machine(directory: Path) -> Iterator[Row]:
    environment = {**os.environ, "OPENRBU_HOME": str(directory / "large")}
    done = subprocess.run(
        [sys.executable, "-c", "from bench.cases import large_machine; large_machine()"],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        env=environment,
    )
    seconds, resident_mib = map(float, done.stdout.split())
    name = "machine of 1 TiB made, updated, restarted"
    yield Row(name, seconds, "3 s", 3.0, 1.0)
    yield Row(f"{name}: MiB resident", resident_mib, "300 MiB", 300.0, 1.0)


def measure_fleet(directory: Path) -> Iterator[Row]:
    """Many machines, scaled down; `make bench-fleet` measures 10,000."""
    machines = fleet.Fleet(directory / "fleet", count := 200)
    cost = machines.work(fleet.PROCESSES_EACH_CPU * len(os.sched_getaffinity(0)))
    name = f"one of {count} machines made, updated, restarted"
    yield Row(f"{name}, on one CPU", cost.wall_s, "60 ms", 0.060, 1.0)
    yield Row(f"{name}: MiB on the disk", cost.disk_bytes / MIB, "500 KiB", 500 / KIB, 1.0)
    none = fleet.Fleet(directory / "none", 0)
    full, empty = best(machines.list_s, none.list_s, rounds=7)
    limit_s = empty + count * fleet.LIST_EACH_S
    yield Row(f"rbu machine list of {count}", full, "of none, and 0.1 ms each", limit_s, 1.0)
    lines = fleet.JOURNAL_LINES
    long, short = (fleet.LongJournal(directory / f"lines-{each}", each) for each in (lines, 0))
    for what in ("status", "update_and_cancel"):
        ours, theirs = best(getattr(long, what), getattr(short, what), rounds=9)
        name = f"{what.replace('_', ' ')}, a journal of {lines:,} lines"
        yield Row(name, ours, "the same with none", theirs, 1.1)


def show(rows: list[Row]) -> None:
    table = Table("what", "took", "limit", "took", "ratio", "wish", "holds")
    for row in rows:
        is_size = "MiB resident" in row.name or "MiB on the disk" in row.name
        scale, unit = (1.0, "MiB") if is_size else (1000.0, "ms")
        table.add_row(
            row.name,
            f"{row.seconds * scale:.1f} {unit}",
            row.limit,
            f"{row.limit_seconds * scale:.1f} {unit}",
            f"{row.ratio:.3f}",
            f"≤ {row.wish:.3f}",
            "[green]yes[/]" if row.holds else "[red]no[/]",
        )
    Console(width=None if sys.stdout.isatty() else 150).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    arguments = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="openrbu-bench-") as name:
        directory = Path(name)
        rows += measure_packets()
        rows += measure_check_words()
        rows += measure_search(directory)
        rows += measure_scan(directory)
        rows += measure_dumps(directory)
        rows += measure_update(directory)
        rows += measure_large_machine(directory)
        rows += measure_balloon()
        rows += measure_thousand_guests()
        rows += measure_processes(directory)
        rows += measure_startup(directory)
        rows += measure_own_driver()
        rows += measure_run(directory)
        rows += measure_fleet(directory)
        rows += measure_mount(directory)
    show(rows)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        document = {
            "schema": 1,
            "python": platform.python_version(),
            "rows": [asdict(row) | {"ratio": row.ratio, "holds": row.holds} for row in rows],
        }
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
