"""The commands on Xen hosts under test: a host, its clock, and processes that watch it."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from openrbu.machine.guest_spec import GuestSpec
from openrbu.units import KIB, MIB
from rigs.cli import RBU, Cli

MIB_KIB = MIB // KIB
START_S = 1_800_000_000.0


class Clock:
    """The time, which passes only when a test, or a command that waits, says so. `wall_ahead_s`:
    how far somebody has set the wall clock. `waited` is called at the end of each wait."""

    def __init__(self) -> None:
        self.now_s = START_S
        self.wall_ahead_s = 0.0
        self.waited: Callable[[], object] = lambda: None

    def wall(self) -> float:
        return self.now_s + self.wall_ahead_s

    def monotonic(self) -> float:
        return self.now_s

    def wait(self, seconds: float) -> None:
        self.now_s += seconds
        self.waited()


@pytest.fixture
def clock(rbu: Cli) -> Clock:
    """The clock of `rbu` in this test."""
    rbu.clock = clock = Clock()
    return clock


@pytest.fixture
def xen(rbu: Cli, clock: Clock) -> Cli:
    """A host `xen` with 495 MiB for its guests, of which dom0 has 128."""
    rbu.json("balloon", "host", "xen", "--ram", "512M", "--dom0", "128M")
    return rbu


@pytest.fixture
def live_xen(rbu: Cli) -> Cli:
    """A host `xen` with a guest `a`, by the clock of this computer."""
    rbu.json("balloon", "host", "xen", "--ram", "512M", "--dom0", "128M")
    rbu.json("balloon", "guest", "xen", "a", "--memory", "100M", "--max", "300M")
    return rbu


def guests(shown: Any) -> dict[str, Any]:
    """The guests of a document by name."""
    return {each["name"]: each for each in shown["guests"]}


def current_mib(rbu: Cli) -> dict[str, float]:
    shown = guests(rbu.json("balloon", "show", "xen"))
    return {name: each["current_kib"] / MIB_KIB for name, each in shown.items()}


def up_while_another_comes_down(rbu: Cli, clock: Clock, profile: str) -> None:
    """The document's scenario: `a` wants more than there is, until `b` gives some back."""
    options = ("--max", "300M", "--profile", profile)
    rbu.json("balloon", "guest", "xen", "a", "--memory", "100M", *options)
    rbu.json("balloon", "guest", "xen", "b", "--memory", "250M", *options)
    told = rbu.json("balloon", "target", "xen", "a", "250M")
    assert told["current_kib"] < told["target_kib"] == 250 * MIB_KIB
    clock.now_s += 1.5
    assert rbu.json("balloon", "target", "xen", "b", "80M")["current_kib"] == 80 * MIB_KIB


def balloon_spec() -> GuestSpec:
    return GuestSpec(64 * MIB, 160 * MIB)


@contextlib.contextmanager
def watching(rbu: Cli, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A process that watches the host: it has its guests when this begins."""
    command = [*RBU, "balloon", "watch", "xen", *options]
    with subprocess.Popen(
        command, cwd=rbu.directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            until(process, "idle")
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def until(process: subprocess.Popen[str], text: str) -> str:
    """Read lines up to one that has this text."""
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return line
    raise AssertionError(text)
