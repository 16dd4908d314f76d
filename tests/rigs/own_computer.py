"""This computer in namespaces of a test's own, for openrbu's own driver on its huge pages.

`/run` is empty there. `/dev` is another one: a directory that is removed takes the mounts on it
with it, in all namespaces. The process with the number 1 is one in these namespaces, so that the
mount of huge pages is made there, too. So all that a test leaves is gone with its processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from openrbu.system.processes import process_ids
from rigs.huge_pages import NUMBER, needs_huge_pages, number_locked
from rigs.mounted import needs_fuse
from rigs.needs import program
from rigs.own_rbu import RBU

_HOLDER = """
mount -t tmpfs none /run
mkdir /run/dev
mount --rbind /dev /run/dev
mount -t tmpfs -o mode=755 none /dev
for each in full fuse null random tty urandom zero; do
  touch /dev/$each
  mount --bind /run/dev/$each /dev/$each
done
ln -s /proc/self/fd /dev/fd
mount --bind /proc/$$ /proc/1
echo ready
exec cat
"""

_LOOK = """
import os, sys
from pathlib import Path
from openrbu.own_driver.pagemap import addresses_in
from openrbu.own_driver.store import Store
from openrbu.system.mapping import AddressSpace
from openrbu.units import HUGE_PAGE_BYTES

memory = Store().read().memory
space = AddressSpace(HUGE_PAGE_BYTES, alignment_bytes=HUGE_PAGE_BYTES)
pages = {}
for file in memory.files:
    fd = os.open(Path(memory.directory, file.name), os.O_RDWR)
    for number, _ in file.pages:
        space.map_part(0, HUGE_PAGE_BYTES, fd, number * HUGE_PAGE_BYTES)
        space.view[0]
        (address,) = addresses_in(Path("/proc/self/pagemap"), [space.address])
        pages[address] = bytes(space.view)
wanted = Path(sys.argv[1]).read_bytes()
for address, page in sorted(pages.items()):
    if wanted in page:
        print(address + page.find(wanted))
"""


class OwnComputer:
    """Runs commands in the namespaces."""

    def __init__(self, pid: int) -> None:
        self.prefix: tuple[str, ...] = ("nsenter", f"--target={pid}", "--mount")

    def line(self, *words: object) -> list[str]:
        """The command line of a command there."""
        return [*self.prefix, *map(str, words)]

    def rbu(self, *words: object, **how: Any) -> subprocess.CompletedProcess[str]:
        """Run `rbu`."""
        return subprocess.run(
            self.line(*RBU, *words), capture_output=True, check=False, text=True, **how
        )

    def says(self, *words: object) -> str:
        """What `rbu` prints; it has to end well, and without a word on standard error."""
        ended = self.rbu(*words)
        assert (ended.returncode, ended.stderr) == (0, ""), ended
        return ended.stdout

    def shell(self, script: str) -> str:
        """What a script prints under `rbu run`."""
        return self.says("run", "--", "sh", "-euc", script)

    def start(self, *words: object) -> subprocess.Popen[str]:
        """Run `rbu`; the caller ends it."""
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        return subprocess.Popen(self.line(*RBU, *words), text=True, **pipes)

    def do(self, *words: object) -> str:
        """What another command prints, outside of `rbu run`."""
        ended = subprocess.run(self.line(*words), capture_output=True, check=True, text=True)
        return ended.stdout

    @property
    def is_started(self) -> bool:
        """Whether the driver is loaded."""
        return bool(self._status()["is_started"])

    @property
    def staged(self) -> tuple[tuple[int, int], ...]:
        """Where something is staged: physical addresses, from and to."""
        found = self._status()["staged_in"]["extents"]
        return tuple((int(each["start"], 0), int(each["end"], 0)) for each in found)

    def _status(self) -> Any:
        return json.loads(self.says("driver", "status", "--json"))

    def places_of(self, data: Path) -> tuple[tuple[int, int], ...]:
        """Where the content of a file is in the driver's pages, of which it takes one: as `staged`,
        but as the kernel tells it of a mapping of another process."""
        found = map(int, self.do(sys.executable, "-c", _LOOK, data).split())
        return tuple((start, start + data.stat().st_size) for start in found)


def _end_all(holder: int) -> None:
    """Kill the processes in the mount namespace of a process."""
    theirs = Path(f"/proc/{holder}/ns/mnt").readlink()
    for pid in process_ids():
        with contextlib.suppress(OSError):  # it has ended
            if Path(f"/proc/{pid}/ns/mnt").readlink() == theirs:
                os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def own_computer() -> Iterator[OwnComputer]:
    """The namespaces. No other test changes how many huge pages there are meanwhile, and the number
    is put back."""
    needs_huge_pages()
    needs_fuse()
    words: Sequence[str] = [program("unshare", "util-linux"), "--mount", "sh", "-euc", _HOLDER]
    with number_locked():
        before = NUMBER.read_text()
        with subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as holder:
            try:
                assert holder.stdout is not None
                assert holder.stdout.readline() == "ready\n"
                yield OwnComputer(holder.pid)
            finally:
                _end_all(holder.pid)
        NUMBER.write_text(before)
