"""The inputs that are kept in the repository: of each target the smallest that took a new way.

One file, `corpus.zip`, has them: `TARGET/SHA256`. `python tests/fuzz --keep` makes it anew of the
corpus in `build/fuzz`. All of it was made by the fuzzer from seeds that this project makes.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

KEPT = Path(__file__).with_name("corpus.zip")

MOST_BYTES = 200 * 1024
"""Of the file."""

_SAME_TIME = (1980, 1, 1, 0, 0, 0)


def kept_inputs(name: str) -> Iterator[tuple[str, bytes]]:
    """A target's kept inputs, each with its SHA-256."""
    if not KEPT.exists():
        return
    with zipfile.ZipFile(KEPT) as archive:
        for entry in archive.namelist():
            target, _, digest = entry.partition("/")
            if target == name:
                yield digest, archive.read(entry)


def keep(inputs: dict[str, Iterable[bytes]]) -> int:
    """Write the kept inputs anew: of each target the smallest ones, in turns, while there is room.
    The same inputs give the same file. Returns how many are kept."""
    queues = [
        [(name, data) for data in sorted(set(each), key=lambda data: (len(data), data))]
        for name, each in sorted(inputs.items())
    ]
    in_turns = [
        queue[number]
        for number in range(max(map(len, queues), default=0))
        for queue in queues
        if number < len(queue)
    ]
    count = 0
    with zipfile.ZipFile(KEPT, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in in_turns:
            entry = zipfile.ZipInfo(f"{name}/{hashlib.sha256(data).hexdigest()[:16]}", _SAME_TIME)
            room = MOST_BYTES - archive.start_dir - count * 150  # the directory at the end
            if len(data) < room:
                archive.writestr(entry, data, zipfile.ZIP_DEFLATED, 9)
                count += 1
    return count
