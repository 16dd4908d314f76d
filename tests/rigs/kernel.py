"""The kernel's own `dell_rbu`, in a machine that QEMU emulates: a `System` of `rig`."""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np

from openrbu.errors import KernelError
from openrbu.lab.calls import (
    Call,
    Exists,
    ListDir,
    Load,
    Read,
    Result,
    Unload,
    Value,
    WaitForDriver,
    Write,
)
from openrbu.units import KIB, PAGE_SIZE, PhysAddr
from rigs.driver import DEVICE, FIRMWARE, cat
from rigs.lab import SharedMachine

MODULE = "dell_rbu"

_FREE_PAGES = re.compile(rb"^ +(?:nr_free_pages|count:) +([0-9]+)$", re.MULTILINE)
"""In /proc/zoneinfo: of a zone, and of a processor's own lists, which a zone's do not count."""


class RealKernel:
    """The kernel of the shared machine, with the module not loaded.

    What a call answers is told as the driver in process would tell it. A lost machine is none of
    that: it is a `GuestLostError`.
    """

    free_bytes_may_stray = 128 * KIB
    """Seen over some stagings: 40 KiB, and as much as this for the first ones."""

    def __init__(self, shared: SharedMachine) -> None:
        self._shared = shared
        self._clear()

    def _clear(self) -> None:
        """Bring the driver back to where it was before the first test, or end the machine.

        :raise AssertionError: when the driver does not go.
        """
        self._calls(
            Write(f"{FIRMWARE}/loading", b"-1"),
            WaitForDriver(),
            Unload(MODULE),
            Write("/sys/class/firmware/timeout", b"60"),
        )
        if self.exists(DEVICE):
            self._shared.close()
            raise AssertionError("a test left a driver behind that can't be unloaded")

    def close(self) -> None:
        """Leave nothing behind in the machine, where it is not lost."""
        if self._shared.is_up:
            self._clear()

    def _calls(self, *wanted: Call) -> list[Result]:
        return self._shared.calls(wanted)

    def _value(self, call: Call, path: str) -> Value:
        return _value_of(self._calls(call)[0], path)

    def path(self, path: str) -> Path:
        """Where programs in the machine find a file."""
        return Path(path)

    def run(self, argv: Sequence[str], standard_input: str = "") -> str:
        """Run a program in the machine; what it prints."""
        return self._shared.run(argv, standard_input)

    # -- a `System` -------------------------------------------------------------------------

    def read(self, path: str, offset: int = 0, size_bytes: int = 128 * KIB) -> bytes:
        return cast(bytes, self._value(Read(path, offset, size_bytes), path))

    def write(self, path: str, data: bytes, offset: int = 0) -> None:
        """A `pwrite` takes a page at most. The first one is made alone, so that where it is
        refused nothing follows; the others come in one message."""
        pieces = [
            Write(path, data[start : start + PAGE_SIZE], offset + start)
            for start in range(0, max(len(data), 1), PAGE_SIZE)
        ]
        for group in (pieces[:1], pieces[1:]):
            results = self._calls(*group) if group else []
            for piece, result in zip(group, results, strict=True):
                taken = _value_of(result, path)
                assert taken == len(piece.data), f"{path} took {taken!r} of {len(piece.data)} bytes"

    def exists(self, path: str) -> bool:
        return bool(self._value(Exists(path), path))

    def list(self, path: str) -> Sequence[str]:
        return list(cast("tuple[str, ...]", self._value(ListDir(path), path)))

    def load_module(self, **parameters: str) -> None:
        self._value(Load(MODULE, parameters), MODULE)

    def unload_module(self) -> None:
        result = self._calls(Unload(MODULE))[0]
        if result.errno == errno.EAGAIN:  # the system call's word for what rmmod calls "in use"
            result = Result(errno=errno.EBUSY)
        _value_of(result, MODULE)

    def settle(self) -> None:
        assert self._value(WaitForDriver(), FIRMWARE), "the driver does not come to rest"

    def find_in_memory(self, data: bytes) -> Sequence[int]:
        """Looked at from outside. All memory is: the driver's, and what others have of the same."""
        ram = self._shared.machine.ram
        head, step = np.frombuffer(data[:8], np.uint64)[0], PAGE_SIZE // 8
        found = []
        for region in ram.regions:
            words = np.frombuffer(ram.view(region.start, region.size_bytes), np.uint64)
            for page in np.flatnonzero(words[::step] == head):
                address = PhysAddr(region.start + int(page) * PAGE_SIZE)
                if address + len(data) <= region.end and ram.view(address, len(data)) == data:
                    found.append(address)
        return found

    def free_bytes(self) -> int:
        found = _FREE_PAGES.findall(cat(self, "/proc/zoneinfo"))
        return sum(map(int, found)) * PAGE_SIZE


def _value_of(result: Result, path: str) -> Value:
    if result.errno is not None:
        raise KernelError(result.errno, path)
    return result.value
