"""The options of `rbu plan` and `rbu update`."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from openrbu._vendor import typer
from openrbu.cli.options import (
    AllowKnownBroken,
    DriverChoice,
    ModeChoice,
    PacketSize,
    Reinstall,
    size_of,
)
from openrbu.errors import UsageError

if TYPE_CHECKING:
    from openrbu.api import Options
    from openrbu.cli.passwords import PasswordOptions
    from openrbu.update.driver import Mode as StagingMode

_MODES: dict[ModeChoice, StagingMode | None] = {
    ModeChoice.AUTO: None,
    ModeChoice.MONO: "mono",
    ModeChoice.PACKET: "packet",
}

_PACKET_SIZE = "4096"

Mode = Annotated[
    ModeChoice,
    typer.Option("--mode", help="How to stage: in one block of memory, or in packets."),
]
AllowDowngrade = Annotated[
    bool,
    typer.Option(
        "--allow-downgrade", help="Install an older version, or one whose age is not clear."
    ),
]
AllowAnySystem = Annotated[
    bool,
    typer.Option(
        "--allow-any-system",
        help="Try it even if the image is for another system or hardware revision.",
    ),
]
WithoutPassword = Annotated[
    bool,
    typer.Option(
        "--without-password", help="There is no BIOS admin password, even if SMBIOS says so."
    ),
]
MemoryAbove4g = Annotated[
    bool,
    typer.Option(
        "--memory-above-4g",
        help="Packets may be above 4 GiB, where a BIOS with the published rules does not search.",
    ),
]
MendCmos = Annotated[
    bool,
    typer.Option(
        "--mend-cmos", help="Repair wrong check values of CMOS, so that the BIOS reads the token."
    ),
]
DropCaches = Annotated[
    bool,
    typer.Option(
        "--drop-caches",
        help="Where memory is short, drop the kernel's caches of files; they are read again later.",
    ),
]

Driver = Annotated[
    DriverChoice,
    typer.Option(
        "--driver",
        help="Stage with the kernel's dell_rbu, or with openrbu's own (of this computer alone). "
        "auto: its own where the kernel has none.",
    ),
]

AllowAnyRestart = Annotated[
    bool,
    typer.Option(
        "--allow-any-restart",
        help="Go on even if the restart may clear memory, and the update with it.",
    ),
]


PolicyFile = Annotated[
    Path | None,
    typer.Option(
        "--policy",
        metavar="FILE",
        help="A policy (TOML): the update has to be its next step, in one of its windows.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateOptions:
    """The options of an update, as they are on the command line."""

    mode: Mode = ModeChoice.AUTO
    packet_size: PacketSize = _PACKET_SIZE
    reinstall: Reinstall = False
    allow_downgrade: AllowDowngrade = False
    allow_any_system: AllowAnySystem = False
    allow_known_broken: AllowKnownBroken = False
    memory_above_4g: MemoryAbove4g = False
    without_password: WithoutPassword = False
    mend_cmos: MendCmos = False
    allow_any_restart: AllowAnyRestart = False
    drop_caches: DropCaches = False
    driver: Driver = DriverChoice.AUTO
    policy: PolicyFile = None

    def options(self, secret: PasswordOptions) -> Options:
        """The same options for `openrbu.api`, with the BIOS admin password.

        :raise UsageError: when the packet size is not valid, or given with --mode mono, when the
            password or the policy can't be read, or when a password is given beside
            --without-password.
        :raise DamagedInputError: when something is wrong with the policy.
        """
        from openrbu.api import Options, read_policy
        from openrbu.formats.packet import check_packet_size

        if self.without_password and secret.words:
            option = secret.words.split()[0]
            raise UsageError(f"--without-password and {option} don't go together")
        if self.mode is ModeChoice.MONO and self.packet_size != _PACKET_SIZE:
            raise UsageError("--packet-size is for packets: it does not go with --mode mono")
        size_bytes = size_of(self.packet_size, "--packet-size")
        check_packet_size(size_bytes)
        return Options(
            mode=_MODES[self.mode],
            packet_size_bytes=size_bytes,
            reinstall=self.reinstall,
            allow_downgrade=self.allow_downgrade,
            allow_any_system=self.allow_any_system,
            allow_known_broken=self.allow_known_broken,
            memory_above_4g=self.memory_above_4g,
            password=secret.password(),
            without_password=self.without_password,
            mend_cmos=self.mend_cmos,
            allow_any_restart=self.allow_any_restart,
            drop_caches=self.drop_caches,
            policy=None if self.policy is None else read_policy(self.policy),
        )

    @property
    def words(self) -> str:
        """The given options as words of a command, so that `rbu update` does what was planned."""
        flags = {
            "--reinstall": self.reinstall,
            "--allow-downgrade": self.allow_downgrade,
            "--allow-any-system": self.allow_any_system,
            "--allow-known-broken": self.allow_known_broken,
            "--memory-above-4g": self.memory_above_4g,
            "--without-password": self.without_password,
            "--mend-cmos": self.mend_cmos,
            "--allow-any-restart": self.allow_any_restart,
            "--drop-caches": self.drop_caches,
        }
        words = [option for option, is_given in flags.items() if is_given]
        if self.mode is not ModeChoice.AUTO:
            words += ["--mode", self.mode.value]
        if self.driver is not DriverChoice.AUTO:
            words += ["--driver", self.driver.value]
        if self.packet_size != _PACKET_SIZE:
            words += ["--packet-size", self.packet_size]
        return "".join(f" {word}" for word in words) + self.arm_words

    @property
    def arm_words(self) -> str:
        """Those that `rbu arm` needs, too: what it takes over from the update is left out."""
        return "" if self.policy is None else f" --policy {shlex.quote(str(self.policy))}"
