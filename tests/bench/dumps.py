"""`rbu scan` of dumps: out of a cold cache beside `cat`, and of gzip beside `zcat`.

The three files are made one after the other, as a disk may not have room for all. They have 4 GiB;
OPENRBU_BENCH_DUMP_GIB says otherwise, as in CI, where that would take minutes.
"""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench.scans import RBU, Command
from openrbu.units import GIB, MIB
from rigs.dumps import elf_header, lime_header, program_64

DUMP_GIB = int(os.environ.get("OPENRBU_BENCH_DUMP_GIB", "4"))
DUMP_BYTES = DUMP_GIB * GIB
PACKED_BYTES = GIB


def contents(size_bytes: int) -> Iterator[bytes]:
    """Memory as it looks: a part zeros, a part text, a part that can't be compressed."""
    text = (b"physical memory as a search sees it, line after line\n" * 20_000)[:MIB]
    for number in range(size_bytes // MIB):
        kinds = (bytes(MIB), text, random.Random(number % 64).randbytes(MIB), text[::-1])
        yield kinds[number % 4]


HEADS = {
    "raw": b"",
    "LiME": lime_header(0, DUMP_BYTES - 1),
    "ELF": elf_header(1) + program_64(1, 120, 0, 0, DUMP_BYTES, DUMP_BYTES),
}


def write(path: Path, format_name: str) -> None:
    """A dump of `DUMP_BYTES`, on the disk and not in the cache."""
    with path.open("wb") as file:
        file.write(HEADS[format_name])
        for part in contents(DUMP_BYTES):
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


def make_cold(path: Path) -> None:
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def write_packed(path: Path) -> None:
    with (
        path.open("wb") as file,
        subprocess.Popen(("gzip", "-1"), stdin=subprocess.PIPE, stdout=file) as packer,
    ):
        assert packer.stdin is not None
        for part in contents(PACKED_BYTES):
            packer.stdin.write(part)
        packer.stdin.close()


def scan(path: Path) -> Command:
    return (RBU, "scan", str(path))
