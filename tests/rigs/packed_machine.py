"""A machine's directory as small text, to be kept in the repository, and made again out of it.

Text files are kept as they are. Each other file becomes `NAME.packed`: its size, then a line for
each piece of it that is not zeros. A piece of a frame table or a stack is `run FIRST COUNT STEP
PLACE`, numbers of 32 bits; of counters `word PLACE VALUE`, numbers of 64 bits; of all else `bytes
OFFSET TEXT`, where the text is zlib and base 64.
"""

from __future__ import annotations

import base64
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

PAGE = 4096
SUFFIX = ".packed"

_LEFT_OUT = {"lock", "next", "socket", "state.spare", "summary", ".making", "room"}
"""What says nothing of the machine."""


def pack(machine: Path, golden: Path) -> None:
    """Write a machine's directory as text."""
    for path in sorted(machine.rglob("*")):
        is_left_out = path.name in _LEFT_OUT or path.name.startswith("mount")
        if is_left_out or not path.is_file():
            continue
        to = golden / path.relative_to(machine)
        to.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in (".json", ".jsonl", ".lost"):
            to.write_text(path.read_text().rstrip(" \0") or "\n")
        else:
            size = path.stat().st_size
            lines = [f"size {size}", *_lines(path)]
            to.with_name(to.name + SUFFIX).write_text("\n".join(lines) + "\n")


def unpack(golden: Path, machine: Path) -> None:
    """Make the directory again."""
    for path in sorted(golden.rglob("*")):
        to = machine / path.relative_to(golden)
        to.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if path.name.endswith(SUFFIX):
            _unpack_file(path, to.with_name(to.name.removesuffix(SUFFIX)))
        elif path.is_file():
            to.write_bytes(path.read_bytes())
        if path.name in ("machine.json", "guest.json"):
            (to.parent / "lock").touch()


def _lines(path: Path) -> Iterator[str]:
    if path.name == "stack" or path.name.startswith("table."):
        yield from _runs(np.fromfile(path, np.uint32))
        return
    if path.name == "words":
        words = np.fromfile(path, np.uint64)
        yield from (f"word {place} {words[place]}" for place in np.flatnonzero(words))
        return
    for offset, data in pieces(path):
        yield f"bytes {offset:#x} {base64.b64encode(zlib.compress(data, 9)).decode()}"


def _runs(numbers: np.ndarray[tuple[int], np.dtype[np.uint32]]) -> Iterator[str]:
    """Numbers that go up by 1, or stay the same; zeros are left out."""
    place = 0
    values = numbers.astype(np.int64)
    steps = np.diff(values)
    while place < len(values):
        step = int(steps[place]) if place < len(steps) and steps[place] in (-1, 0, 1) else 0
        ends = np.flatnonzero(steps[place:] != step)
        count = int(ends[0]) + 1 if len(ends) else len(values) - place
        if values[place] or step:
            yield f"run {values[place]} {count} {step} {place}"
        place += count


def pieces(path: Path) -> Iterator[tuple[int, bytes]]:
    """The runs of pages that are not zeros; holes are not read."""
    size, start, piece = path.stat().st_size, 0, bytearray()
    with path.open("rb") as file:
        position = 0
        while position < size:
            try:
                position = os.lseek(file.fileno(), position, os.SEEK_DATA) // PAGE * PAGE
            except OSError:  # nothing but a hole from here on
                break
            page = os.pread(file.fileno(), PAGE, position)
            if any(page) and start + len(piece) == position and piece:
                piece += page
            elif any(page):
                if piece:
                    yield start, bytes(piece)
                start, piece = position, bytearray(page)
            position += PAGE
    if piece:
        yield start, bytes(piece)


def _unpack_file(packed: Path, to: Path) -> None:
    size, *lines = packed.read_text().splitlines()
    with to.open("wb") as file:
        file.truncate(int(size.removeprefix("size ")))
        for line in lines:
            kind, *words = line.split()
            if kind == "bytes":
                offset, data = int(words[0], 16), zlib.decompress(base64.b64decode(words[1]))
            elif kind == "word":
                offset, data = int(words[0]) * 8, np.uint64(int(words[1])).tobytes()
            else:
                first, count, step, place = map(int, words)
                numbers = first + step * np.arange(count, dtype=np.int64)
                offset, data = place * 4, numbers.astype(np.uint32).tobytes()
            os.pwrite(file.fileno(), data, offset)
