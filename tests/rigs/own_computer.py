"""This computer in namespaces of a test's own, for openrbu's own driver on its huge pages.

`/run` is empty there, and the mount of huge pages is one of these namespaces: all that a test
leaves is gone with them.
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

from rigs.cli import RBU
from rigs.huge_pages import NUMBER, needs_huge_pages, number_locked
from rigs.mounted import needs_fuse
from rigs.needs import program

_HOLDER = "mount -t tmpfs none /run\necho ready\nexec cat"
_NAMESPACES = ("--mount", "--pid", "--fork", "--kill-child", "--mount-proc")

_LOOK = """
import json, mmap, os, sys
from pathlib import Path
from openrbu.own_driver.pagemap import addresses_in
from openrbu.system.mapping import AddressSpace
from openrbu.units import HUGE_PAGE_BYTES, PAGE_SIZE

record = json.loads(Path("/run/openrbu/driver/record.json").read_text())
space = AddressSpace(HUGE_PAGE_BYTES, alignment_bytes=HUGE_PAGE_BYTES)
pages = {}
for file in record["memory"]["files"]:
    fd = os.open(Path(record["memory"]["directory"], file["name"]), os.O_RDWR)
    for number, _ in file["pages"]:
        space.map_part(0, HUGE_PAGE_BYTES, fd, number * HUGE_PAGE_BYTES)
        space.view[0]
        (address,) = addresses_in(Path("/proc/self/pagemap"), [space.address])
        pages[address] = bytes(space.view)
wanted = Path(sys.argv[1]).read_bytes()
memory = b"".join(pages[address] for address in sorted(pages))
print(json.dumps(sorted(pages)))
print(sorted(pages)[0] + memory.find(wanted) if wanted in memory else None)
"""


class OwnComputer:
    """Runs commands in the namespaces."""

    def __init__(self, pid: int) -> None:
        self.prefix = ("nsenter", f"--target={pid}", "--mount", "--pid")

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

    def record(self) -> Any:
        """The state of the driver; None: it is not loaded."""
        path = "/run/openrbu/driver/record.json"
        text = self.do("sh", "-c", f"cat {path} 2>/dev/null || echo null")
        return json.loads(text)

    def address_of(self, file: Path) -> int | None:
        """Where the content of a file is in the driver's pages: the physical address, as the kernel
        tells it of a mapping of another process. None: it is not there."""
        _pages, found = self.do(sys.executable, "-c", _LOOK, file).splitlines()
        return None if found == "None" else int(found)


def kill(started: subprocess.Popen[str]) -> None:
    """Kill what `OwnComputer.start` has started, and wait for its end."""
    os.kill(_child_of(started.pid), signal.SIGKILL)
    started.communicate()


def _child_of(pid: int) -> int:
    """The only child of a process: nsenter(1) and unshare(1) wait for theirs."""
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


@contextlib.contextmanager
def own_computer() -> Iterator[OwnComputer]:
    """The namespaces. No other test changes how many huge pages there are meanwhile, and the number
    is put back."""
    needs_huge_pages()
    needs_fuse()
    words: Sequence[str] = [program("unshare", "util-linux"), *_NAMESPACES, "sh", "-euc", _HOLDER]
    with number_locked():
        before = NUMBER.read_text()
        with subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as holder:
            try:
                assert holder.stdout is not None
                assert holder.stdout.readline() == "ready\n"
                yield OwnComputer(_child_of(holder.pid))
            finally:
                holder.kill()
        NUMBER.write_text(before)
