"""Restart: a kind that keeps RAM. A cold one clears it, and the staged image with it."""

from __future__ import annotations

from openrbu.errors import ObstacleError
from openrbu.hosts.base import Host, read_text

REBOOT_MODE = "/sys/kernel/reboot/mode"


def choose_warm(host: Host) -> str | None:
    """Have the next restart be a warm one; what it was before, None where that can't be chosen.

    :raise ObstacleError: when the kernel does not take it.
    """
    if not host.exists(REBOOT_MODE):
        return None
    before = read_text(host, REBOOT_MODE)
    if before != "warm":
        host.write(REBOOT_MODE, b"warm")
        if read_text(host, REBOOT_MODE) != "warm":
            raise ObstacleError(
                f"the kernel keeps a {before} restart, which may clear memory: boot with reboot=w"
            )
    return before


def restore(host: Host, mode: str | None) -> None:
    """Have the next restart be of the kind that it was before."""
    if mode is not None and host.exists(REBOOT_MODE):
        host.write(REBOOT_MODE, mode.encode())
