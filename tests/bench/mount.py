"""What a mount of a machine costs beside one of the same library that does nothing.

The two are served by processes of their own, side by side. `python -m bench.mount TARGET` is the
one that does nothing: every name is there, and every write is swallowed.

Where the client and the server run decides more than what they do: on one CPU a request takes some
7 µs, on two the wake-up of the other one takes ten times that. A scheduler chooses now this, now
that. So both are measured, each with its processes tied to their CPUs.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from openrbu.fuse.library import mfusepy
from openrbu.machine.factory import MachineSpec, make_machine
from openrbu.machine.virtual import VirtualMachine
from openrbu.system.fuse_mounts import mount_device, open_device, unmount
from openrbu.units import GIB, MIB

IMAGE_BYTES = 16 * MIB
ECHOES = 200

_FILES = ("loading", "data", "timeout")
_ENTRY = "sys/devices/platform/dell_rbu/firmware/dell_rbu"
_ATTRIBUTE = "sys/class/firmware/timeout"


class Empty(mfusepy.Operations):  # type: ignore[misc]  # mfusepy has no types
    """Files that take all and keep nothing, with the settings of `fuse.filesystem`."""

    use_ns = True

    def init_with_config(self, _connection: object, config: Any) -> None:
        config.entry_timeout = config.attr_timeout = config.negative_timeout = 0.0
        config.direct_io = config.use_ino = config.nullpath_ok = 1

    def getattr(self, path: str | None, _fh: int | None = None) -> dict[str, int]:
        is_file = path is None or path.rpartition("/")[2] in _FILES
        kind = stat.S_IFREG | 0o644 if is_file else stat.S_IFDIR | 0o755
        times = dict.fromkeys(("st_atime", "st_mtime", "st_ctime"), 0)
        return {"st_mode": kind, "st_nlink": 1, "st_size": 0, "st_ino": 1, **times}

    def open(self, _path: str, _flags: int) -> int:
        return 0

    def write(self, _path: str | None, data: bytes, _offset: int, _fh: int) -> int:
        return len(data)


class Mounts:
    """A machine and the empty file system, each at a directory of its own."""

    def __init__(self, directory: Path, server_cpu: int, client_cpu: int) -> None:
        os.environ["OPENRBU_HOME"] = str(directory / "mounts")
        self.machine, self.empty = directory / "machine", directory / "empty"
        self._stack = contextlib.ExitStack()
        self._stack.callback(os.sched_setaffinity, 0, os.sched_getaffinity(0))
        for target in (self.machine, self.empty):
            target.mkdir()
        spec = MachineSpec(model="precision-t7600", ram_bytes=GIB, flash_size_bytes=IMAGE_BYTES)
        with VirtualMachine(make_machine("mount", spec)) as machine:
            machine.power_on()
            machine.load_module("dell_rbu", {})
        os.sched_setaffinity(0, {server_cpu})  # the servers inherit it
        rbu = str(Path(sys.executable).with_name("rbu"))
        self._serve(self.machine, rbu, "mount", str(self.machine), "--machine", "mount")
        self._serve(self.empty, sys.executable, "-m", "bench.mount", str(self.empty))
        os.sched_setaffinity(0, {client_cpu})

    def _serve(self, target: Path, *command: str) -> None:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1])
        self._stack.enter_context(process)
        self._stack.callback(unmount, str(target))
        assert process.stdout is not None
        assert process.stdout.readline(), command

    def begin(self) -> None:
        """Begin a load anew."""
        (self.machine / _ENTRY / "loading").write_bytes(b"1\n")

    def stage(self, target: Path, piece: mmap.mmap) -> None:
        """Write 16 MiB, `piece` after `piece`. It is page aligned, as those of cp and dd are."""
        fd = os.open(target / _ENTRY / "data", os.O_WRONLY)
        try:
            for _ in range(IMAGE_BYTES // len(piece)):
                os.write(fd, piece)
        finally:
            os.close(fd)

    def echo(self, target: Path) -> None:
        """`echo 60 > timeout`, again and again."""
        path = target / _ATTRIBUTE
        for _ in range(ECHOES):
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.write(fd, b"60\n")
            os.close(fd)

    def close(self) -> None:
        self._stack.close()


@contextlib.contextmanager
def mounted(directory: Path, server_cpu: int, client_cpu: int) -> Iterator[Mounts]:
    directory.mkdir()
    with contextlib.closing(Mounts(directory, server_cpu, client_cpu)) as mounts:
        yield mounts


def piece_of(size_bytes: int) -> mmap.mmap:
    """Something to write."""
    piece = mmap.mmap(-1, size_bytes)
    piece[:] = os.urandom(size_bytes)
    return piece


def _serve_empty(target: str) -> None:
    fd = open_device()
    mount_device(fd, target, "empty")
    threading.Thread(target=lambda: print(Path(target).stat(), flush=True)).start()
    mfusepy.FUSE(Empty(), f"/dev/fd/{fd}", foreground=True, nothreads=True)


if __name__ == "__main__":
    _serve_empty(sys.argv[1])
