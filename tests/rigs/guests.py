"""A Xen host in a directory, with guests that come, go and move in time."""

from __future__ import annotations

from openrbu.machine.guest_spec import GuestSpec
from openrbu.machine.xen_guests import run_due
from openrbu.machine.xen_host import XenHost
from openrbu.units import KIB, MIB, PAGES_PER_MIB

TOTAL_MIB = 512 - 17
"""What a host of 512 MiB has for its guests: Xen keeps 17 of them."""


class Clock:
    """The time, as a test has it."""

    def __init__(self) -> None:
        self.now_s = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now_s


def guest_spec(
    memory_mib: int = 100,
    max_mib: int = 300,
    profile: str = "linux",
    *,
    claim_mib: int = 0,
    used_mib: int = 0,
) -> GuestSpec:
    sizes = (memory_mib, max_mib, claim_mib, used_mib)
    memory, maximum, claim, used = (size * MIB for size in sizes)
    return GuestSpec(memory, maximum, claim_bytes=claim, used_bytes=used, profile=profile)


def free_mib(host: XenHost) -> float:
    return host.hypervisor.free_pages / PAGES_PER_MIB


def current_mib(host: XenHost, name: str) -> float:
    return host.domain_of(name).current_pages / PAGES_PER_MIB


def tell(host: XenHost, name: str, mib: int) -> None:
    """What the toolstack does."""
    host.hypervisor.domain(name).set_target_kib(mib * MIB // KIB)


def look(host: XenHost, clock: Clock, *, after_s: float = 0.0) -> None:
    """A command looks at the host, so much later."""
    clock.now_s += after_s
    with host.attached() as guests:
        run_due(guests, clock.now_s)
