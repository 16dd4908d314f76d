"""A program: system calls on files that stay open, as its standard input has them in JSON.

`python tests/rigs/held_files.py ROOT`: the driver's `/sys` is at ROOT/sys. It prints what each call
answered. It is run where the files are, beside a mount or in a guest, and so imports nothing of
ours.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

MODES = {"r": os.O_RDONLY, "w": os.O_WRONLY, "rw": os.O_RDWR, "wt": os.O_WRONLY | os.O_TRUNC}

_CHECK_S = 0.001


class Files:
    """Files under `root` that are kept open by number."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._open: dict[int, int] = {}

    def answer(self, name: str, *arguments: object) -> object:
        """What a call came to, or its errno."""
        try:
            value = getattr(self, name)(*arguments)
        except OSError as error:
            value = f"errno {error.errno}"
        self._settle()
        return value

    def open(self, key: int, path: str, mode: str) -> str:
        if key in self._open:
            os.close(self._open.pop(key))
        self._open[key] = os.open(self._at(path), MODES[mode])
        return "open"

    def read(self, key: int, offset: int, size_bytes: int) -> str:
        return os.pread(self._fd(key), size_bytes, offset).decode("latin-1")

    def write(self, key: int, text: str, times: int, offset: int) -> int:
        return os.pwrite(self._fd(key), text.encode("latin-1") * times, offset)

    def send(self, key: int, offset: int, size_bytes: int) -> str:
        """sendfile(2) to a pipe; where that is refused, what a program reads then."""
        reading, writing = os.pipe()
        try:
            os.sendfile(writing, self._fd(key), offset, size_bytes)
            os.close(writing)
            with os.fdopen(os.dup(reading), "rb") as pipe:
                return pipe.read().decode("latin-1")
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            os.close(writing)
            return self.read(key, offset, size_bytes)
        finally:
            os.close(reading)

    def splice(self, key: int, text: str, times: int, offset: int) -> Sequence[int]:
        """splice(2) from a pipe that holds all of it; how much was taken."""
        reading, writing = os.pipe()
        data = text.encode("latin-1") * times
        try:
            os.write(writing, data)
            return [os.splice(reading, self._fd(key), len(data), offset_dst=offset)]
        finally:
            os.close(reading)
            os.close(writing)

    def read_vector(self, key: int, offset: int, size_bytes: int) -> str:
        parts = [bytearray(3), bytearray(size_bytes)]
        done = os.preadv(self._fd(key), parts, offset)
        return b"".join(parts)[:done].decode("latin-1")

    def write_vector(self, key: int, text: str, times: int, offset: int) -> int:
        data = text.encode("latin-1") * times
        return os.pwritev(self._fd(key), [data[:2], b"", data[2:]], offset)

    def fstat(self, key: int) -> Sequence[int]:
        seen = os.fstat(self._fd(key))
        return seen.st_mode, seen.st_nlink, seen.st_size

    def end(self, key: int) -> int:
        return os.lseek(self._fd(key), 0, os.SEEK_END)

    def truncate(self, key: int, length: int) -> None:
        os.ftruncate(self._fd(key), length)

    def chmod(self, path: str, mode: int) -> None:
        self._at(path).chmod(mode)

    def list(self, path: str) -> Sequence[str]:
        return sorted(each.name for each in self._at(path).iterdir())

    def stat(self, path: str) -> Sequence[int]:
        seen = self._at(path).stat()
        return seen.st_mode, seen.st_nlink, seen.st_size

    def _at(self, path: str) -> Path:
        return self._root / path.lstrip("/")

    def _fd(self, key: int) -> int:
        return self._open.get(key, -1)  # on which a call is EBADF

    def _settle(self) -> None:
        """Wait until the kernel has done what the call set off: twice in a row as many entries as
        there are uses of the module. A kernel tells nobody when a use of a module begins or ends,
        so this looks again and again."""
        in_a_row = 0
        while in_a_row < 2:
            uses = int(self._at("/sys/module/dell_rbu/refcnt").read_text())
            is_there = self._at("/sys/class/firmware/dell_rbu/loading").exists()
            in_a_row = in_a_row + 1 if uses == is_there else 0
            if in_a_row < 2:
                time.sleep(_CHECK_S)


def main() -> None:
    files = Files(Path(sys.argv[1]))
    json.dump([files.answer(*call) for call in json.load(sys.stdin)], sys.stdout)


if __name__ == "__main__":
    main()
