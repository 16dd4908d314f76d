"""Restart: a kind that keeps RAM. A cold one clears it, and the staged image with it.

Facts: docs/reference/linux-files.md, L7.
"""

from __future__ import annotations

from openrbu.errors import ObstacleError
from openrbu.hosts.base import Host, read_text

REBOOT_MODE = "/sys/kernel/reboot/mode"
WARM = "warm"
BOOT_ID = "/proc/sys/kernel/random/boot_id"


def boot_id(host: Host) -> str | None:
    """What tells one boot of the machine from another; None where the kernel does not say."""
    return read_text(host, BOOT_ID) if host.exists(BOOT_ID) else None


def restart_mode(host: Host) -> str | None:
    """The kind of the next restart; None where the kernel does not say."""
    return read_text(host, REBOOT_MODE) if host.exists(REBOOT_MODE) else None


def choose_warm(host: Host) -> None:
    """Have the next restart be a warm one, where that can be chosen.

    :raise ObstacleError: when the kernel does not take it.
    """
    before = restart_mode(host)
    if before in (None, WARM):
        return
    host.write(REBOOT_MODE, WARM.encode())
    if restart_mode(host) != WARM:
        raise ObstacleError(
            f"the kernel keeps a {before} restart, which may clear memory: boot with reboot=w"
        )


def restore(host: Host, mode: str | None) -> None:
    """Have the next restart be of the kind that it was before `choose_warm`.

    One that somebody else has chosen since stays.
    """
    if mode is not None and mode != WARM and restart_mode(host) == WARM:
        host.write(REBOOT_MODE, mode.encode())
