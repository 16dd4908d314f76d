"""Random system calls on the driver in this process and on a mount: both answer alike.

So does openrbu's own driver, on huge pages of this computer.

Every byte, every errno, every count of bytes taken, and what `stat` and `ls` show. Files stay open
over whatever happens to the driver.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from openrbu.drivers.sysfs import OpenFile
from openrbu.units import KIB, PAGE_SIZE
from rigs.driver import DEVICE, FIRMWARE, FLOOR, InProcess
from rigs.mounted import Mounted, needs_fuse
from rigs.own_mounted import KeptMemory, MountedOwnDriver

FILES = (
    f"{FIRMWARE}/loading",
    f"{FIRMWARE}/data",
    f"{DEVICE}/image_type",
    f"{DEVICE}/packet_size",
    f"{DEVICE}/data",
    FLOOR,
    "/sys/class/firmware/timeout",
)
DIRECTORIES = (
    "/sys/class/firmware",
    FIRMWARE,
    DEVICE,
    f"{DEVICE}/firmware",
    "/sys/module/dell_rbu",
    f"{FIRMWARE}/loading",
)
TEXTS = (
    *(b"1\n", b"0\n", b"-1\n", b"7", b"0x10\n", b"mono\n", b"packet", b"init\n", b"init packet"),
    *(b"1000\n", b"4096\n", b"99999999999999999999\n", b"-5", b" 12x", b"\n", b"", b"1" * 5000),
)
SIZES = (0, 1, 2, 3, 7, 100, 4095, 4096, 4097, 5000, 20 * KIB, 100 * KIB)
MODES = {"r": os.O_RDONLY, "w": os.O_WRONLY, "rw": os.O_RDWR, "wt": os.O_WRONLY | os.O_TRUNC}


class _Tree:
    """The driver in this process: what each call answers, errors as their errno."""

    def __init__(self, system: InProcess) -> None:
        self._system = system
        self._open: dict[int, OpenFile] = {}

    def open(self, key: int, path: str, mode: str) -> object:
        def call() -> str:
            self._open[key] = self._system.tree.open(
                _inner(path), reading="r" in mode, writing="w" in mode
            )
            return "open"

        return _told(call)

    def close(self, key: int) -> None:
        del self._open[key]

    def read(self, key: int, offset: int, size_bytes: int) -> object:
        return _told(lambda: self._open[key].read(offset, size_bytes))

    def write(self, key: int, data: bytes, offset: int) -> object:
        return _told(lambda: self._open[key].write(offset, data))

    def list(self, path: str) -> object:
        return _told(lambda: self._system.tree.list(_inner(path)))

    def stat(self, path: str) -> object:
        def call() -> tuple[int, ...]:
            seen = self._system.tree.stat(_inner(path))
            return seen.mode, seen.link_count, seen.size_bytes

        return _told(call)


class _Calls:
    """The same as system calls on a mount."""

    def __init__(self, system: Mounted | MountedOwnDriver) -> None:
        self._system = system
        self._open: dict[int, int] = {}

    def open(self, key: int, path: str, mode: str) -> object:
        def call() -> str:
            self._open[key] = os.open(self._system.path(path), MODES[mode])
            return "open"

        return _told(call)

    def close(self, key: int) -> None:
        os.close(self._open.pop(key))

    def read(self, key: int, offset: int, size_bytes: int) -> object:
        return _told(lambda: os.pread(self._open[key], size_bytes, offset))

    def write(self, key: int, data: bytes, offset: int) -> object:
        return _told(lambda: os.pwrite(self._open[key], data, offset))

    def list(self, path: str) -> object:
        return _told(lambda: sorted(os.listdir(self._system.path(path))))  # noqa: PTH208

    def stat(self, path: str) -> object:
        def call() -> tuple[int, ...]:
            seen = self._system.path(path).stat()
            return stat.S_IFMT(seen.st_mode) | seen.st_mode & 0o7777, seen.st_nlink, seen.st_size

        return _told(call)

    def close_all(self) -> None:
        for key in list(self._open):
            self.close(key)


def _told(call: Callable[[], Any]) -> object:
    """What a call answers, or its errno."""
    try:
        return call()
    except OSError as error:
        return f"errno {error.errno}"


def _inner(path: str) -> str:
    return path.removeprefix("/sys")


class TwoWays(RuleBasedStateMachine):
    """A machine in process, and one that is mounted; with `own`, openrbu's own driver on this
    memory."""

    profile_name = "documented"
    own: KeptMemory | None = None

    @initialize()
    def load(self) -> None:
        name = self.profile_name
        self._directory = tempfile.TemporaryDirectory()
        home = Path(self._directory.name)
        mounted = Mounted(home, name) if self.own is None else MountedOwnDriver(home, self.own)
        self.systems = InProcess(home, name), mounted
        self.ways = _Tree(self.systems[0]), _Calls(self.systems[1])
        self._modes: dict[int, str] = {}
        for system in self.systems:
            system.load_module()

    def teardown(self) -> None:
        self.ways[1].close_all()
        self.systems[0].memory.close()
        self.systems[1].close()
        self._directory.cleanup()

    def _both(self, name: str, *arguments: object) -> object:
        one, other = (getattr(way, name)(*arguments) for way in self.ways)
        assert one == other, (name, arguments)
        _met.add(one if isinstance(one, str) else name)
        if isinstance(one, bytes) and len(one) >= PAGE_SIZE:
            _met.add("a page" if len(one) == PAGE_SIZE else "more than a page")
        return one

    def _ready(self, key: int, letter: str) -> bool:
        """Whether a file is open there, in a way that this can be done to it."""
        return letter in self._modes.get(key, "")

    @rule(key=st.integers(0, 4), path=st.sampled_from(FILES), mode=st.sampled_from(sorted(MODES)))
    def open(self, key: int, path: str, mode: str) -> None:
        if self._modes.pop(key, ""):
            self._close(key)
        if self._both("open", key, path, mode) == "open":
            self._modes[key] = mode

    @rule(
        key=st.integers(0, 4),
        offset=st.sampled_from([0, 0, 0, 1, 5, 4096, 10_000]),
        size_bytes=st.sampled_from(SIZES),
    )
    def read(self, key: int, offset: int, size_bytes: int) -> None:
        if self._ready(key, "r") and size_bytes:  # FUSE answers a read of nothing by itself
            self._both("read", key, offset, size_bytes)

    @rule(key=st.integers(0, 4), text=st.sampled_from(TEXTS))
    def write_text(self, key: int, text: bytes) -> None:
        if self._ready(key, "w") and text:
            self._both("write", key, text, 0)

    @rule(
        key=st.integers(0, 4),
        offset=st.sampled_from([0, 1, 4095, 30_000]),
        size_bytes=st.sampled_from(SIZES),
        filling=st.binary(min_size=1, max_size=3),
    )
    def write_data(self, key: int, offset: int, size_bytes: int, filling: bytes) -> None:
        if self._ready(key, "w") and size_bytes:
            self._both("write", key, (filling * size_bytes)[:size_bytes], offset)

    @rule(
        chosen=st.sampled_from(["mono", "packet"]),
        packet_size_bytes=st.sampled_from([0, 1000, 4096, 5000]),
        size_bytes=st.sampled_from(SIZES[6:]),
        end=st.sampled_from([b"0", b"0", b"0", b"-1", b"1"]),
        step_bytes=st.sampled_from([3, 1000, 4096, 5000, 100 * KIB]),
    )
    def stage(
        self, chosen: str, packet_size_bytes: int, size_bytes: int, end: bytes, step_bytes: int
    ) -> None:
        """A whole load, so that random calls have something to meet; read back a few steps far."""
        self._say(f"{DEVICE}/image_type", chosen.encode())
        self._say(f"{DEVICE}/packet_size", str(packet_size_bytes).encode())
        self._say(f"{DEVICE}/image_type", b"init")
        is_held = self._both("open", -2, f"{FIRMWARE}/loading", "r") == "open"
        self._say(f"{FIRMWARE}/loading", b"1")
        self._say(f"{FIRMWARE}/data", bytes(range(1, 251)) * (size_bytes // 250))
        self._say(f"{FIRMWARE}/loading", end)
        if is_held:  # the entry may have gone, or another one of its name have come
            self._both("read", -2, 0, 10)
            self._close(-2)
        for path in (f"{DEVICE}/data", f"{FIRMWARE}/data"):
            if self._both("open", -1, path, "r") == "open":
                for step in range(4):
                    self._both("read", -1, step * step_bytes, step_bytes)
                self._close(-1)

    def _say(self, path: str, text: bytes) -> None:
        """Open, write once, close."""
        if self._both("open", -1, path, "w") == "open":
            self._both("write", -1, text, 0)
            self._close(-1)

    def _close(self, key: int) -> None:
        for way in self.ways:
            way.close(key)

    @rule()
    def unload_and_load(self) -> None:
        outcomes = [_told(system.unload_module) for system in self.systems]
        assert outcomes[0] == outcomes[1]
        if outcomes[0] is None:
            for system in self.systems:
                system.load_module()

    @rule(path=st.sampled_from(FILES + DIRECTORIES))
    def look(self, path: str) -> None:
        self._both("stat", path)
        self._both("list", path)

    @invariant()
    def the_same_files_are_there(self) -> None:
        if hasattr(self, "ways"):
            for path in (FIRMWARE, f"{FIRMWARE}/loading"):
                self._both("list", path)


_met: set[str] = set()
"""What the random calls have come upon, so that they can be seen to have come upon much."""


@pytest.mark.parametrize("name", ["documented", "linux-2.6.16", "linux-6.16", "linux"])
def test_the_driver_in_process_and_on_a_mount_answer_alike(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_fuse()
    monkeypatch.setattr(TwoWays, "profile_name", name)
    check()
    assert ("more than a page" in _met) == (name == "documented")


def test_the_driver_in_process_and_openrbus_own_on_huge_pages_answer_alike(
    own_memory: KeptMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TwoWays, "own", own_memory)
    check(max_examples=10)
    assert "more than a page" in _met


def check(max_examples: int = 25) -> None:
    """Try it, and see that much was met."""
    _met.clear()
    run_state_machine_as_test(
        TwoWays,
        settings=settings(
            derandomize=True,  # what it comes upon is asserted below
            max_examples=max_examples,
            stateful_step_count=80,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    errnos = (errno.ENOENT, errno.ENOMEM, errno.EACCES, errno.ENODEV, errno.ENOTDIR, errno.EINVAL)
    assert {f"errno {number}" for number in errnos} <= _met
    assert {"read", "write", "list", "stat", "a page"} <= _met
