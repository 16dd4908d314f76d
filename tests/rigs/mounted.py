"""A driver behind the files of a mount: a `System` of `rig`.

The mount is served by a thread of this process. Every call on it is a real system call.
"""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from openrbu.drivers.dell_rbu_profiles import KernelOopsError
from openrbu.errors import KernelError
from openrbu.machine.virtual import VirtualMachine
from openrbu.system.fuse_mounts import mount_device, mount_with_helper, open_device, unmount
from openrbu.units import PAGE_SIZE, PhysAddr
from rigs.machines import make
from rigs.needs import leave_out

if TYPE_CHECKING:
    from openrbu.fuse.mounting import Served

_READ_BYTES = 128 << 10

# The server is a thread here. With vfork a program that is started may wait for that thread, to
# close a file on the mount, while the thread waits for this process, which waits for the program.
subprocess._USE_VFORK = False  # type: ignore[misc]


def needs_fuse() -> None:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        leave_out("/dev/fuse is not there for this user")


class Mount:
    """Files that are mounted at `root`; `opened` is what they come from. `close` ends both."""

    free_bytes_may_stray = 0

    def __init__(
        self, root: Path, source: str, stack: contextlib.ExitStack, opened: Served
    ) -> None:
        from openrbu.fuse.callers import CallerMap
        from openrbu.fuse.session import FuseSession

        self.log: list[str] = []
        self.root = root
        root.mkdir()
        if os.geteuid():
            fd = mount_with_helper(str(root), source)
        else:
            fd = open_device()
            mount_device(fd, str(root), source)
        session = FuseSession(
            opened.files,
            fd,
            CallerMap.of_this_process(),
            log=self.log.append,
            path_lock=opened.path_lock,
        )
        stack.callback(unmount, str(root))
        stack.callback(session.stop)
        session.start()
        self._open = stack.pop_all()

    def close(self) -> None:
        self._open.close()
        assert self.log == []

    def path(self, path: str) -> Path:
        """Where a file of the machine is on this computer."""
        return self.root / path.lstrip("/")

    def run(self, argv: Sequence[str], standard_input: str = "") -> str:
        """Run a program; what it prints."""
        return subprocess.run(
            argv, check=True, input=standard_input, stdout=subprocess.PIPE, text=True
        ).stdout

    # -- a `System` -------------------------------------------------------------------------

    def read(self, path: str, offset: int = 0, size_bytes: int = _READ_BYTES) -> bytes:
        with self._opened(path, os.O_RDONLY) as fd:
            return os.pread(fd, size_bytes, offset)

    def write(self, path: str, data: bytes, offset: int = 0) -> None:
        with self._opened(path, os.O_WRONLY) as fd:
            done = os.pwrite(fd, data, offset)
            while done < len(data):
                done += os.pwrite(fd, data[done:], offset + done)

    @contextlib.contextmanager
    def _opened(self, path: str, flags: int) -> Iterator[int]:
        """What the system calls answer is told as the driver in process would tell it."""
        try:
            fd = os.open(self.path(path), flags)
            try:
                yield fd
            finally:
                os.close(fd)
        except OSError as error:
            if error.errno == errno.EIO and self._is_dead:
                raise KernelOopsError("that was seen on the mount") from None
            raise KernelError(error.errno or 0, path) from None

    @property
    def _is_dead(self) -> bool:
        """Whether a kernel has crashed that serves the files."""
        return False

    def exists(self, path: str) -> bool:
        return self.path(path).exists()

    def list(self, path: str) -> Sequence[str]:
        return sorted(os.listdir(self.path(path)))  # noqa: PTH208


class Mounted(Mount):
    """A machine in `directory`, on, with nothing loaded, and its mount."""

    def __init__(
        self,
        directory: Path,
        profile_name: str = "documented",
        *,
        model: str = "precision-390",
    ) -> None:
        needs_fuse()
        with contextlib.ExitStack() as stack:
            self.machine = stack.enter_context(
                VirtualMachine(make(directory, model, profile=profile_name))
            )
            self.machine.power_on()
            super().__init__(directory / "mount", str(self.machine.directory), stack, self.machine)

    @property
    def _is_dead(self) -> bool:
        kernel = self.machine.kernel
        return kernel is not None and kernel.is_dead

    def load_module(self, **parameters: str) -> None:
        self.machine.running_kernel().load_module("dell_rbu", parameters)

    def unload_module(self) -> None:
        kernel = self.machine.running_kernel()
        try:
            kernel.unload_module("dell_rbu")
        finally:
            if kernel.is_dead:
                raise KernelOopsError("the module was unloaded")

    def settle(self) -> None:
        """A write returns when all that it sets off is done."""

    def find_in_memory(self, data: bytes) -> Sequence[int]:
        ram = self.machine.ram
        return [
            address
            for region in ram.regions
            for address in range(region.start, region.end - len(data) + 1, PAGE_SIZE)
            if ram.view(PhysAddr(address), len(data)) == data
        ]

    def free_bytes(self) -> int:
        return self.machine.running_kernel().allocator.free_bytes
