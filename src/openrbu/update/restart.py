"""Restart: choose the kind that keeps RAM. A cold one clears RAM, and the staged image with it.

Facts: docs/reference/linux-files.md, L7.
"""

from __future__ import annotations

from collections.abc import Callable

from openrbu.errors import ObstacleError
from openrbu.hosts.base import Host, read_text

REBOOT_MODE = "/sys/kernel/reboot/mode"
WARM = "warm"
BOOT_ID = "/proc/sys/kernel/random/boot_id"


def boot_id(host: Host) -> str | None:
    """The ID of this boot of the machine; None where the kernel does not say."""
    return read_text(host, BOOT_ID) if host.exists(BOOT_ID) else None


def restart_mode(host: Host) -> str | None:
    """The kind of the next restart; None where the kernel does not say."""
    return read_text(host, REBOOT_MODE) if host.exists(REBOOT_MODE) else None


def choose_warm(host: Host, before_change: Callable[[str, str], None]) -> None:
    """Make the next restart a warm one, where that can be chosen. Before the file is changed,
    `before_change` is called with its path and what it will contain.

    :raise ObstacleError: when the kernel keeps another kind.
    """
    before = restart_mode(host)
    if before in (None, WARM):
        return
    before_change(REBOOT_MODE, WARM)
    host.write(REBOOT_MODE, WARM.encode())
    if restart_mode(host) != WARM:
        raise ObstacleError(
            f"the kernel keeps a {before} restart, which may clear memory: boot with reboot=w"
        )
