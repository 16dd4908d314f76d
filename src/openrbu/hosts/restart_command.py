"""The command that restarts a Linux through its firmware.

`systemctl reboot` starts another kernel, or user space alone, where one is prepared for that, and
the BIOS does not run then; two variables keep it from that (systemctl(1)).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

SYSTEMD_RUNS = "/run/systemd/system"
"""sd_booted(3): this directory exists where systemd is the init system."""

_NO_SHORT_CUTS = {"SYSTEMCTL_SKIP_AUTO_KEXEC": "1", "SYSTEMCTL_SKIP_AUTO_SOFT_REBOOT": "1"}


@dataclass(frozen=True, slots=True)
class RestartCommand:
    """The words of a command, and variables for its environment."""

    words: tuple[str, ...]
    variables: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def text(self) -> str:
        """As a line for a shell."""
        settings = [f"{name}={value}" for name, value in self.variables.items()]
        return " ".join([*settings, *self.words])


def restart_command(*, runs_systemd: bool) -> RestartCommand:
    """The command of systemd, or of another init system."""
    if runs_systemd:
        return RestartCommand(("systemctl", "reboot"), _NO_SHORT_CUTS)
    return RestartCommand(("reboot",))
