"""A program that keeps a mount busy: KIND SEED MOUNT LOCKFILE.

It works until its standard input ends. To each line there it answers `on` once it has done another
turn of its work. It ends with an error when it finds what can't be.

Turns that load anything, or restart the machine, are taken under a lock among these programs, so
that what is read back is known byte by byte. All others take theirs at any time.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from rigs.cli import RBU

ENTRY = "sys/class/firmware/dell_rbu"
DEVICE = "sys/devices/platform/dell_rbu"

EXPECTED = {
    errno.ENOENT,  # it has gone
    errno.ENODEV,  # the same, of a file that is open
    errno.ENOMEM,  # `data` while nothing is loaded
    errno.EINVAL,  # /proc/kpageflags, which is read by eights
    errno.EPERM,  # /dev/mem behind the first MiB
    errno.EIO,  # autosuspend_delay_ms, which dell_rbu has none of
    errno.EISDIR,  # `sys`, and a link to a directory that was not there yet when it was asked for
}
"""What happens to programs that look while others load, change the type, or restart the machine.
Which file answers what is compared elsewhere, where nothing else goes on. What keeps the load
honest is what is done in turns: there every error ends the program, and each byte is looked at."""


class Load:
    def __init__(self, seed: int, root: Path, lock: Path) -> None:
        self._random = random.Random(seed)
        self._root = root
        self._lock = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
        self._held: list[int] = []

    # -- one at a time ----------------------------------------------------------------------

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def _write(self, name: str, text: str) -> None:
        fd = os.open(self._root / name, os.O_WRONLY)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)

    def _have_entry(self) -> None:
        if not (self._root / ENTRY).is_dir():
            self._write(f"{DEVICE}/image_type", "init")
        assert (self._root / ENTRY / "loading").is_file()

    def _stage(self, data: bytes) -> None:
        """Write it in pieces of any size."""
        self._write(f"{ENTRY}/loading", "1")
        fd = os.open(self._root / ENTRY / "data", os.O_WRONLY)
        try:
            done = 0
            while done < len(data):
                size = self._random.choice((1, 511, 4096, 65536, 1 << 20))
                done += os.pwrite(fd, data[done : done + size], done)
        finally:
            os.close(fd)

    def load(self) -> None:
        data = self._random.randbytes(self._random.randrange(1, 300_000))
        with self._turn():
            self._have_entry()
            self._stage(data)
            fd = os.open(self._root / ENTRY / "data", os.O_RDONLY)
            try:
                found = b""
                while piece := os.pread(fd, self._random.choice((3, 4096, 100_000)), len(found)):
                    found += piece
                    if len(found) > len(data) + 8192:
                        break
            finally:
                os.close(fd)
            assert found.rstrip(b"\0") == data.rstrip(b"\0"), (len(found), len(data))
            assert len(found) >= len(data)
            self._write(f"{ENTRY}/loading", "0")

    def abort(self) -> None:
        with self._turn():
            self._have_entry()
            self._stage(self._random.randbytes(self._random.randrange(1, 100_000)))
            self._write(f"{ENTRY}/loading", "-1")

    def kind(self) -> None:
        with self._turn():
            kind = self._random.choice(("mono", "packet", "mono"))
            self._write(f"{DEVICE}/image_type", kind)
            assert (self._root / DEVICE / "image_type").read_text().strip() == kind
            size = self._random.choice((100, 4096, 8000))
            self._write(f"{DEVICE}/packet_size", str(size))
            assert (self._root / DEVICE / "packet_size").read_text().strip() == str(size)
            self._write(f"{DEVICE}/image_type", "mono")

    def restart(self) -> None:
        with self._turn():
            self._rbu("machine", "reboot", "box")
            self._rbu("module", "load", "dell_rbu", "--machine", "box")
        time.sleep(2)  # a machine restarts now and then only

    # -- at any time ------------------------------------------------------------------------

    def read(self) -> None:
        for directory, _, names in os.walk(self._root):
            for name in names:
                path = os.path.join(directory, name)  # noqa: PTH118
                if not os.path.islink(path):  # noqa: PTH114
                    self._look(partial(self._read_some, path))

    def _read_some(self, path: str) -> None:
        if not os.stat(path).st_mode & 0o444:  # noqa: PTH116  (sysfs refuses it to root, too)
            return
        fd = os.open(path, os.O_RDONLY)
        try:
            size = self._random.choice((1, 7, 4096, 131072))
            for _ in range(20):
                if not os.read(fd, size):
                    break
        finally:
            os.close(fd)

    def look(self) -> None:
        for directory, folders, names in os.walk(self._root):
            for name in folders + names:
                path = os.path.join(directory, name)  # noqa: PTH118
                self._look(partial(os.lstat, path))
                self._look(Path(path).stat)
                self._look(partial(os.access, path, os.W_OK))

    def hold(self) -> None:
        """Have handles open over what others do, and use them when all may have changed."""
        for name in (f"{ENTRY}/data", f"{ENTRY}/loading", f"{DEVICE}/data", "sys"):
            with contextlib.suppress(OSError):
                self._held.append(os.open(self._root / name, os.O_RDONLY))
        while len(self._held) > 30:
            fd = self._held.pop(self._random.randrange(len(self._held)))
            self._look(partial(os.fstat, fd))
            self._look(partial(os.pread, fd, 4096, 0))
            os.close(fd)
        time.sleep(0.05)  # so that others change something while the handles are open

    def status(self) -> None:
        ended = subprocess.run(
            [*RBU, "status", "--machine", "box"], capture_output=True, check=False
        )
        # the module may be gone for a moment, between a restart and its loading
        assert ended.returncode in (0, 4), ended
        assert b"Traceback" not in ended.stderr

    def _look(self, work: Callable[[], object]) -> None:
        try:
            work()
        except OSError as error:
            if error.errno not in EXPECTED:
                raise

    def _rbu(self, *words: str) -> None:
        subprocess.run([*RBU, *words], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    kind, seed, root, lock = sys.argv[1:]
    turn = getattr(Load(int(seed), Path(root), Path(lock)), kind)
    asked, told = threading.Semaphore(0), threading.Event()

    def listen() -> None:
        for _ in sys.stdin:
            asked.release()
        told.set()

    threading.Thread(target=listen, daemon=True).start()
    while not told.is_set():
        was_asked = asked.acquire(blocking=False)
        turn()
        if was_asked:
            print("on", flush=True)


main()
