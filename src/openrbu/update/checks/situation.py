"""What the checks of a plan look at: a machine, an image, and how it would be staged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from openrbu.formats.buddyinfo import ZoneFree, has_high_memory, without_dma
from openrbu.formats.hdr import Image
from openrbu.formats.tokens import SmiToken
from openrbu.hosts.base import Host
from openrbu.linux.facts import LinuxFacts
from openrbu.linux.memory import read_zones
from openrbu.units import MAX_BLOCK_BYTES
from openrbu.update.driver import Mode
from openrbu.update.options import Options
from openrbu.update.possible_bioses import PossibleBioses
from openrbu.update.target import Target, is_on_xen


@dataclass(frozen=True, slots=True)
class Situation:
    """`linux`: what the machine says about itself. `zones`: the free memory of each zone that the
    driver gets memory from; empty where it can't be read. `mode` is the planned one. `on_xen`: this
    Linux is a guest of Xen, such as dom0."""

    host: Host
    linux: LinuxFacts
    image: Image
    target: Target
    options: Options
    bioses: PossibleBioses
    zones: tuple[ZoneFree, ...]
    on_xen: bool
    mode: Mode

    @classmethod
    def of(
        cls,
        host: Host,
        image: Image,
        target: Target,
        options: Options,
        *,
        bioses: PossibleBioses,
        mode: Mode = "packet",
    ) -> Self:
        """The machine as it is now.

        :raise ObstacleError: when it can't be known whether it is on Xen.
        """
        zones, on_xen = without_dma(read_zones(host)), is_on_xen(host)
        return cls(host, LinuxFacts(host), image, target, options, bioses, zones, on_xen, mode)

    @property
    def largest_block_bytes(self) -> int:
        """The size of the largest block of contiguous memory that the driver in use may get."""
        own = self.host.own_rbu
        return MAX_BLOCK_BYTES if own is None else own.largest_block_bytes

    @property
    def piece_bytes(self) -> int:
        """The size of a piece that has to be contiguous: the image, or a packet."""
        is_packets = self.mode == "packet"
        return self.options.packet_size_bytes if is_packets else self.image.size_bytes

    @property
    def takes_packets(self) -> bool:
        """Whether the machine's BIOS says that it takes packets."""
        return self.target.rbu is not None and self.target.rbu.packet_supported

    @property
    def is_armed_by_smi(self) -> bool:
        """Whether the activation token is set through the BIOS, which verifies a password then."""
        tokens = self.target.tokens
        return tokens is not None and isinstance(tokens.activate, SmiToken)

    @property
    def password_needs_packets(self) -> bool:
        """Whether a password was given that only packet 0 can carry to the BIOS, and the machine
        takes packets."""
        is_given = self.options.password is not None
        return is_given and self.takes_packets and not self.is_armed_by_smi

    @property
    def may_be_too_high(self) -> bool:
        """Whether packets may be placed above 4 GiB, and a possible BIOS does not search there.
        openrbu's own driver places none there."""
        if self.host.own_rbu is not None:
            return False
        return has_high_memory(self.zones) and not self.bioses.search_above_4_gib
