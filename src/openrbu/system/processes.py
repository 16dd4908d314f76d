"""The processes of this computer, from procfs."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path


def descendants(pid: int) -> Iterator[int]:
    """The processes that a process has started, and those that they have started; parents first.

    From `/proc/PID/stat`, proc(5): the number of the parent is the second word after the name,
    which is in brackets.
    """
    children = defaultdict(list)
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            words = path.read_bytes().rpartition(b")")[2].split()
            children[int(words[1])].append(int(path.parent.name))
    generation = [pid]
    while generation:
        generation = [child for each in generation for child in children[each]]
        yield from generation
