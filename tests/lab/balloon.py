"""The balloon driver of a real dom0 and of our model of it, side by side.

The model is told what the real host has, and has the same then. Its time is passed in, and nothing
there takes any. The real one takes its time: what is waited for is the contents of its files.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from lab.differ import made
from openrbu.drivers.dell_rbu_profiles import profile
from openrbu.drivers.xen_balloon_profiles import balloon_profile
from openrbu.kernel.balloon import XenGuest
from openrbu.kernel.kernel import Kernel
from openrbu.lab.calls import Call, Read, Result, Write
from openrbu.memory.physical import Region
from openrbu.memory.ram_file import RamFile
from openrbu.units import KIB, PAGE_SIZE, PhysAddr
from openrbu.xen.guest_memory import GuestMemory
from openrbu.xen.hypervisor import DOM0, Hypervisor
from rigs.lab import SharedMachine

SUBSYSTEM = "/sys/devices/system/xen_memory"
DEVICE = f"{SUBSYSTEM}/xen_memory0"

CURRENT_KB, LOW_KB, TARGET_KB, RETRIES, DELAY = (
    f"{DEVICE}/{name}"
    for name in ("info/current_kb", "info/low_kb", "target_kb", "retry_count", "schedule_delay")
)
TARGET, MAX_RETRIES, MAX_DELAY, SCRUB = (
    f"{DEVICE}/{name}"
    for name in ("target", "max_retry_count", "max_schedule_delay", "scrub_pages")
)
SET = (TARGET_KB, TARGET, MAX_RETRIES, MAX_DELAY, SCRUB)
"""Files that a write has its effect on at once."""

FILES = (*SET, CURRENT_KB, LOW_KB, f"{DEVICE}/info/high_kb", RETRIES, DELAY)

PAGE_KIB = PAGE_SIZE // KIB

LIMIT_S = 60.0
"""For the real driver to come to where it is waited for: some 100 MiB, and a few seconds more."""

HURRY_S = 0.5
"""How much of a wait may be over by the time that its beginning was seen."""

LOOKS = 20
"""Where nothing is to happen: a driver that did something would have by then (it takes one)."""

Calls = Callable[[Sequence[Call]], list[Result]]
"""Makes calls on one side."""

Contents = tuple[Result, ...]
"""Of `FILES`."""


class Model:
    """Our dom0: so many pages of so many frames, on a host that has `free_pages` more."""

    def __init__(self, directory: Path, *, pages: int, frames: int, free_pages: int) -> None:
        total = Region(PhysAddr(0), PhysAddr((pages + free_pages) * PAGE_SIZE))
        self.memory = RamFile.create(directory / "ram", (total,))
        host = Hypervisor.in_memory((total,), reserved=())
        domain = host.create_domain(DOM0, pages=pages, max_pages=frames)
        self.now_s = 0.0
        self.kernel = Kernel(
            GuestMemory(domain, self.memory),
            profile=profile("linux"),
            boot_id="",
            dmi=None,
            xen=XenGuest(domain, balloon_profile("linux")),
            now=lambda: self.now_s,
        )

    def calls(self, wanted: Sequence[Call]) -> list[Result]:
        return [made(self.kernel, call) for call in wanted]

    @property
    def due_s(self) -> float | None:
        """When it does something next, of itself."""
        assert self.kernel.balloon is not None
        return self.kernel.balloon.driver.due_s

    def give_up(self) -> None:
        """Let time go on until it does nothing more."""
        while (due_s := self.due_s) is not None:
            self.now_s = due_s
            self.kernel.run_due()


class Both:
    """Real and model: what is done to one is done to the other, and has to come to the same."""

    def __init__(self, real: SharedMachine, model: Model) -> None:
        self._real, self.model = real, model

    def do(self, *calls: Call) -> None:
        """Make calls on both sides, and look at what was set.

        No time is between them: what a call sets off is still on its way when the next one comes.
        """
        wanted = [*calls, *map(Read, SET)]
        seen, expected = self._real.calls(wanted), self.model.calls(wanted)
        for call, one, other in zip(wanted, seen, expected, strict=True):
            assert one == other, (call, one, other)

    def set(self, path: str, text: bytes | int) -> None:
        """Write to a file, on both sides."""
        self.do(Write(path, text if isinstance(text, bytes) else str(text).encode()))

    def comes(self) -> dict[str, str]:
        """Wait until the real driver is where the model is; what is in the files then."""
        expected = contents(self.model.calls)
        until_s = time.monotonic() + LIMIT_S
        while (seen := contents(self._real.calls)) != expected and time.monotonic() < until_s:
            pass
        assert seen == expected, difference(seen, expected)
        return texts(seen)

    def stays(self) -> None:
        """See that the real driver does nothing, as the model."""
        expected = contents(self.model.calls)
        for look in range(LOOKS):
            seen = contents(self._real.calls)
            assert seen == expected, (look, difference(seen, expected))

    def comes_to(self, retries: int, delay_s: int) -> None:
        """The same, and see that this is what the next try's number and the wait for it are."""
        files = self.comes()
        assert (files[RETRIES], files[DELAY]) == (f"{retries:x}\n", f"{delay_s:x}\n")

    def tries_again(self, retries: int, delay_s: int) -> None:
        """Wait for the next try, which falls short; what that comes to, as `comes_to`."""
        due_s = self.model.due_s
        assert due_s is not None, "it has given up"
        wait_s = due_s - self.model.now_s
        self.model.now_s = due_s
        started_s = time.monotonic()
        self.comes_to(retries, delay_s)
        assert time.monotonic() - started_s > wait_s - HURRY_S


def contents(calls: Calls) -> Contents:
    """What is in `FILES` now."""
    return tuple(calls([Read(path) for path in FILES]))


def texts(seen: Contents) -> dict[str, str]:
    """The same by path, to be read."""
    return {
        path: result.value.decode() if isinstance(result.value, bytes) else str(result)
        for path, result in zip(FILES, seen, strict=True)
    }


def difference(seen: Contents, expected: Contents) -> dict[str, tuple[str, str]]:
    """By path: what the real one has, and what the model has."""
    one, other = texts(seen), texts(expected)
    return {path: (one[path], other[path]) for path in FILES if one[path] != other[path]}


def number(calls: Calls, path: str) -> int:
    """The number in a file."""
    (result,) = calls([Read(path)])
    assert isinstance(result.value, bytes)
    return int(result.value)


def make_both(real: SharedMachine, directory: Path) -> Both:
    """The model of a real dom0 that has just started, which is grown as far as its host lets it:
    that is how much the model's host has."""
    start_kib, low_kib = (number(real.calls, path) for path in (CURRENT_KB, LOW_KB))
    real.calls([Write(MAX_RETRIES, b"2"), Write(TARGET_KB, b"%d" % (start_kib + low_kib))])
    until_s = time.monotonic() + LIMIT_S
    while number(real.calls, RETRIES) == 1 and time.monotonic() < until_s:
        pass
    most_kib = number(real.calls, CURRENT_KB)
    assert start_kib < most_kib < start_kib + low_kib, "the host is short, and not at once"
    real.calls([Write(TARGET_KB, b"%d" % start_kib), Write(MAX_RETRIES, b"4")])
    model = Model(
        directory,
        pages=start_kib // PAGE_KIB,
        frames=(start_kib + low_kib) // PAGE_KIB,
        free_pages=(most_kib - start_kib) // PAGE_KIB,
    )
    both = Both(real, model)
    both.comes()
    return both


def move(real: SharedMachine, kib: int) -> None:
    """Have a real dom0 so much memory."""
    real.calls([Write(TARGET_KB, b"%d" % kib)])
    until_s = time.monotonic() + LIMIT_S
    while number(real.calls, CURRENT_KB) != kib:
        assert time.monotonic() < until_s, "it does not come to its target"
