"""Fuzz the parsers of what others wrote: `python tests/fuzz --seconds N [--target NAME …]`.

Each target gets the same part of the time; two run at once. An input fails when it raises what its
target may not raise, takes over a second of the processor's time or a GiB of memory. Then this
ends with 1 and names the file with the input. The corpus stays in build/fuzz, and the next run
goes on from there.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from fuzz.corpus import KEPT, keep
from fuzz.targets import TARGETS

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "fuzz"
PROCESSES = 2
START_SECONDS = 2
"""What a process takes until its first input, about."""

_LAST_LINES = 25


@dataclass(frozen=True, slots=True)
class Run:
    """`inputs` is how many were run; `failed` are files with inputs that failed."""

    target: str
    inputs: int
    seconds: float
    failed: tuple[Path, ...]
    output: str
    is_whole: bool


def fuzz(name: str, seconds: float) -> Run:
    """Fuzz one target in a process of its own."""
    failures = BUILD / "failed" / name
    failures.mkdir(parents=True, exist_ok=True)
    before = set(failures.iterdir())
    command = [sys.executable, str(Path(__file__).with_name("one.py")), name]
    command += [str(BUILD / "corpus" / name), f"-max_total_time={max(1, round(seconds))}"]
    command += [f"-artifact_prefix={failures}/", "-print_final_stats=1", "-max_len=65536"]
    start = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    taken = time.monotonic() - start
    output = done.stderr + done.stdout
    found = re.search(r"^stat::number_of_executed_units: (\d+)", output, re.MULTILINE)
    failed = tuple(sorted(set(failures.iterdir()) - before))
    return Run(name, int(found[1]) if found else 0, taken, failed, output, done.returncode == 0)


def fuzz_all(names: Sequence[str], seconds: float) -> list[Run]:
    """Fuzz all of them, `PROCESSES` at once, until the time is over; tells of each."""
    end = time.monotonic() + seconds
    left = len(names)

    def one(name: str) -> Run:
        nonlocal left
        share = (end - time.monotonic()) * PROCESSES / max(left, PROCESSES) - START_SECONDS
        left -= 1
        run = fuzz(name, share)
        print(f"{name:<16}{run.inputs:>10,} inputs {run.seconds:8.1f} s", flush=True)
        return run

    with ThreadPoolExecutor(PROCESSES) as pool:
        return list(pool.map(one, names))


def tell(runs: Sequence[Run]) -> bool:
    """The total, and what failed; true when nothing did."""
    total, seconds = sum(run.inputs for run in runs), sum(run.seconds for run in runs)
    print(f"{'in all':<16}{total:>10,} inputs {seconds:8.1f} s of {PROCESSES} processes")
    for run in (each for each in runs if not each.is_whole):
        print(f"\n{run.target} failed:")
        print("\n".join(run.output.splitlines()[-_LAST_LINES:]))
        for path in run.failed:
            shown = path.relative_to(ROOT)
            print(f"again: python tests/fuzz/one.py {run.target} {shown}")
    return all(run.is_whole for run in runs)


def corpus_of(name: str) -> list[bytes]:
    """A target's inputs that took a new way when they were found."""
    directory = BUILD / "corpus" / name
    return [path.read_bytes() for path in directory.iterdir()] if directory.is_dir() else []


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests/fuzz", description="Fuzz all parsers.")
    parser.add_argument("--seconds", type=float, default=600, help="for all targets together (600)")
    parser.add_argument(
        "--target", action="append", choices=sorted(TARGETS), help="only this one; may be repeated"
    )
    parser.add_argument("--keep", action="store_true", help=f"put the corpus into {KEPT.name}")
    options = parser.parse_args()
    if options.keep:
        count = keep({name: corpus_of(name) for name in TARGETS})
        print(f"{count:,} inputs are kept in {KEPT.name}")
        return
    if not tell(fuzz_all(options.target or list(TARGETS), options.seconds)):
        sys.exit(1)


main()
