"""Files that stay open over whatever happens to the driver, on a mount and on a real kernel.

The same random calls are made in both, by a program that runs there. The differential test of the
lab opens a file anew for each call, and the one of two ways knows no kernel.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrbu.units import KIB
from rigs import held_files
from rigs.driver import DEVICE, FIRMWARE, FLOOR
from rigs.kernel import RealKernel
from rigs.lab import SharedMachine
from rigs.mounted import Mounted

pytestmark = pytest.mark.lab

CALLS, SEED = 2200, 1

LOADING, DATA = f"{FIRMWARE}/loading", f"{FIRMWARE}/data"
IMAGE_TYPE, PACKET_SIZE, STAGED = (f"{DEVICE}/{n}" for n in ("image_type", "packet_size", "data"))

EVENTS = ("add", "change\n", "junk", "add 1")
TEXTS = {
    LOADING: ("1\n", "1", "0\n", "0", "-1\n", "7", "0x10\n", "", "\n"),
    DATA: ("x", "an image"),
    IMAGE_TYPE: ("mono\n", "packet", "init\n", "init packet", "none", ""),
    f"{FIRMWARE}/uevent": EVENTS,
    f"{DEVICE}/uevent": EVENTS,
    PACKET_SIZE: ("1000\n", "4096\n", "0", "-5", " 12x", "\n", "", "9" * 20),
    STAGED: ("x",),
}
"""What is written. No packet size is so small that there were more packets than memory, and what
is in the kernel's other files stays: a short timeout ends a load at a moment of its own."""

FILES = (*TEXTS, FLOOR, "/sys/class/firmware/timeout")
DIRECTORIES = ("/sys/class/firmware", FIRMWARE, DEVICE, f"{DEVICE}/firmware")
OFFSETS = (0, 0, 0, 1, 5, 4095, 4096, 10_000)
SEND_OFFSETS = (0, 0, 0, 1, 5, 4095)
"""On a mount, what is behind the size that `stat` shows of a text file can't be sent: the kernel
says end of file, also of a file that has gone."""
WRITE_OFFSETS = (0, 0, 0, 0, 1, 4095, 30_000)
SIZES = (1, 2, 3, 7, 100, 4095, 4096, 4097, 20 * KIB)
KEYS = range(6)
MODES = (0o644, 0o600, 0o200, 0o400, 0o4755, 0)
LENGTHS = (0, 10, 4096, (1 << 31) - 1, 1 << 31)
KINDS = ("open", "read", "read", "write", "write", "look", "load", "ask", "chmod")
KEPT = (IMAGE_TYPE, PACKET_SIZE, STAGED)
"""Files that stay while the driver does. A mount has one number for the files of a path: `fstat` of
one that has gone shows the mode of one that has come since (docs/kernel-differences.md)."""

Call = tuple[str | int, ...]


def random_calls(rng: random.Random) -> Iterator[Call]:
    """Calls, one behind the other: single ones, and whole loads among them.

    Nothing is written through a file that is open for reading only. That never comes to the driver:
    of sysfs's files `pwrite` says ESPIPE then, of all others EBADF (seen on Debian's 6.1.192).
    """
    paths: dict[int, str] = {}
    modes: dict[int, str] = {}
    while True:
        key = rng.choice(KEYS)
        kind = rng.choice(
            ("open", "read", "read", "write", "write", "look", "load", "ask", "chmod")
        )
        if kind == "open" or key not in paths:
            paths[key] = rng.choice(FILES)
            modes[key] = rng.choice(sorted(held_files.MODES))
            yield "open", key, paths[key], modes[key]
        elif kind == "read":
            how = rng.choice(("read", "send", "send", "read_vector"))
            offsets = SEND_OFFSETS if how == "send" else OFFSETS
            yield how, key, rng.choice(offsets), rng.choice(SIZES)
        elif kind == "write" and paths[key] in TEXTS and "w" in modes[key]:
            times = rng.choice((1, 1, 1, 1000))
            how = rng.choice(("write", "write", "splice", "write_vector"))
            yield how, key, rng.choice(TEXTS[paths[key]]), times, rng.choice(WRITE_OFFSETS)
        elif kind == "ask":
            yield "fstat", key
            yield "truncate", key, rng.choice(LENGTHS)
            if paths[key] in KEPT:  # and then it is looked up, so that it can be sent again
                yield "end", key
                yield "stat", paths[key]
        elif kind == "chmod":
            yield "chmod", rng.choice(KEPT), rng.choice((0o644, *MODES))
        elif kind == "look":
            path = rng.choice(FILES + DIRECTORIES)
            yield "stat", path
            yield "list", path
        elif kind == "load":
            yield from _load(rng)


def _load(rng: random.Random) -> Iterator[Call]:
    """A load, or what becomes of one, and some of what it brought."""
    for path in (IMAGE_TYPE, PACKET_SIZE, STAGED):
        yield "chmod", path, 0o644
    for path, text, times in (
        (IMAGE_TYPE, rng.choice(("mono", "packet")), 1),
        (PACKET_SIZE, rng.choice(("0", "1000", "4096", "5000")), 1),
        (IMAGE_TYPE, "init", 1),
        (LOADING, "1", 1),
        *[(DATA, "13 bytes long", rng.choice((1, 80, 300, 1000)))] * rng.choice((0, 1, 1, 1)),
        (LOADING, rng.choice(("0", "0", "0", "-1", "1")), 1),
    ):
        yield "open", -1, path, "w"
        yield "write", -1, text, times, 0
    for path in (STAGED, DATA):
        yield "open", -1, path, "r"
        step = rng.choice((3, 1000, 4096, 5000))
        for number in range(4):
            yield "read", -1, number * step, step


def test_files_held_open_answer_alike_on_a_mount_and_on_a_kernel(
    shared_machine: SharedMachine, tmp_path: Path
) -> None:
    source = random_calls(random.Random(SEED))
    calls = [next(source) for _ in range(CALLS)]
    answers = []
    for system in (RealKernel(shared_machine), Mounted(tmp_path, "linux")):
        system.load_module()
        program = [sys.executable, "-IS", held_files.__file__, str(system.path("/"))]
        answers.append(json.loads(system.run(program, json.dumps(calls))))
        system.close()
    on_kernel, on_mount = answers
    for number, call in enumerate(calls):
        assert on_mount[number] == on_kernel[number], (call, calls[max(0, number - 30) : number])
    met = {str(each) for each in on_kernel}
    assert {f"errno {n}" for n in (2, 9, 12, 13, 19, 20, 22, 27)} <= met
