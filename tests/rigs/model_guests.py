"""Guests in model time, on small hosts (`xen_hosts`)."""

from __future__ import annotations

from openrbu.balloon.model import ModelGuest
from openrbu.drivers.xen_balloon_profiles import balloon_profile
from openrbu.xen.hypervisor import Hypervisor
from rigs.xen_hosts import small_host


def host_of(pages: int) -> Hypervisor:
    """A host with as many pages for its guests."""
    return small_host((0, pages))


def guest_on(
    hypervisor: Hypervisor,
    name: str,
    pages: int,
    *,
    max_pages: int | None = None,
    profile: str = "linux-2.6.18-xen",
    used_pages: int = 0,
    claim_pages: int = 0,
) -> ModelGuest:
    return ModelGuest.create(
        hypervisor,
        name,
        balloon_profile(profile),
        pages=pages,
        max_pages=pages if max_pages is None else max_pages,
        used_pages=used_pages,
        claim_pages=claim_pages,
    )
