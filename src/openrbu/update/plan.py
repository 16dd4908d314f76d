"""Plan: what an update would do here, and what prevents it. Changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from openrbu.errors import (
    DamagedInputError,
    ExitCode,
    NotForThisMachineError,
    ObstacleError,
    OpenRbuError,
    UsageError,
)
from openrbu.formats import packet
from openrbu.formats.buddyinfo import (
    ZoneFree,
    largest_low_block_bytes,
)
from openrbu.formats.hdr import Image
from openrbu.hosts.base import Host
from openrbu.linux.facts import LinuxFacts
from openrbu.linux.memory import read_zones
from openrbu.units import MAX_BLOCK_BYTES, PAGE_SIZE, human_size, order_for
from openrbu.update.arming_checks import lacks_password
from openrbu.update.checks import (
    arming,
    history,
    identity,
    platform,
    rest,
    restart,
    search,
    staging,
)
from openrbu.update.checks import image as image_question
from openrbu.update.checks.check import Check, Verdict
from openrbu.update.checks.situation import Situation, is_too_high
from openrbu.update.driver import Mode
from openrbu.update.exclusion import BusyError
from openrbu.update.options import Options
from openrbu.update.possible_bioses import PossibleBioses, possible_bioses
from openrbu.update.target import Target, is_on_xen, read_target
from openrbu.update.ways import Way, first_way, staged_bytes

_REFUSALS: Mapping[ExitCode, type[OpenRbuError]] = {
    ExitCode.DAMAGED_INPUT: DamagedInputError,
    ExitCode.NOT_FOR_THIS_MACHINE: NotForThisMachineError,
    ExitCode.USAGE: UsageError,
    ExitCode.OBSTACLE: ObstacleError,
}
"""The errors that obstacles become, the worst first: damage, then the wrong machine, which no
option and no waiting changes."""

_OWN_REFUSALS: Mapping[str, type[OpenRbuError]] = {"other_update": BusyError}
"""Obstacles that become an error of their own, by their name."""

_CHECKS = (
    identity.checks,
    image_question.checks,
    staging.checks,
    search.checks,
    arming.checks,
    restart.checks,
    platform.checks,
    rest.checks,
    history.checks,
)
"""The checks of a plan, in the order of `Question`."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What an update would do.

    `is_needed` is False when the machine runs this version already and `Options.reinstall` is not
    set. `packet_count` is 0 in mono mode. `why_mode` is text for people. `checks` is all that was
    looked at, in the order of `Question`.
    `possible_bioses` are the BIOSes that could be the machine's; all have to take what is staged.
    `made_for` is the machine's name (`Host.name`). `way` is the way of staging that is tried first.
    """

    image: Image
    target: Target
    options: Options
    mode: Mode
    why_mode: str
    packet_count: int
    staged_size_bytes: int
    is_needed: bool
    checks: tuple[Check, ...]
    possible_bioses: PossibleBioses
    made_for: str
    way: Way

    @property
    def obstacles(self) -> tuple[Check, ...]:
        """The checks that are in the way."""
        return tuple(each for each in self.checks if each.is_in_the_way)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the update takes care of, and what can't be known: a line each, for people."""
        told = (Verdict.HANDLED, Verdict.UNKNOWN)
        return tuple(each.message for each in self.checks if each.verdict in told)

    @property
    def block_size_bytes(self) -> int:
        """The size of the blocks of contiguous memory that staging needs."""
        piece = self.staged_size_bytes
        if self.mode == "packet" and not self.way.in_one_block:
            piece = self.options.packet_size_bytes
        return PAGE_SIZE << order_for(piece)

    @property
    def refusal(self) -> OpenRbuError | None:
        """The error with which an update would end before it begins: the worst obstacle. None: it
        can begin, or there is nothing to do.

        Most obstacles don't matter on a machine that runs the version already; but an image that is
        damaged, or for another machine, is always refused.
        """
        if not self.obstacles:
            return None
        order = list(_REFUSALS)
        worst = min(self.obstacles, key=lambda each: order.index(each.exit_code))
        if worst.exit_code is ExitCode.OBSTACLE and not self.is_needed:
            return None
        error = _OWN_REFUSALS.get(worst.kind, _REFUSALS[worst.exit_code])
        return error(worst.message)

    @property
    def nothing_to_do(self) -> bool:
        """Whether the machine runs the version already, so that an update leaves it alone."""
        return not self.is_needed and self.refusal is None


def make_plan(host: Host, image: Image, options: Options) -> Plan:
    """Check the machine and the image; change nothing.

    :raise UsageError: when the packet size is not valid.
    :raise ObstacleError: when the machine's SMBIOS tables can't be read.
    :raise DamagedInputError: when they are damaged.
    """
    packet.check_packet_size(options.packet_size_bytes)
    target = read_target(host)
    zones = read_zones(host)
    on_xen = is_on_xen(host)
    bioses = possible_bioses(image, target, options)
    is_high = is_too_high(zones, bioses)
    mode, why_mode = _choose_mode(image, target, options, zones, is_high=is_high, on_xen=on_xen)
    seen = Situation(host, LinuxFacts(host), image, target, options, bioses, zones, on_xen, mode)
    packet_count, staged = 0, image.size_bytes
    if mode == "packet":
        staged = staged_bytes(seen, options.packet_size_bytes)  # 0, too many: an obstacle
        packet_count = staged // options.packet_size_bytes
    return Plan(
        image,
        target,
        options,
        mode,
        why_mode,
        packet_count,
        staged,
        is_needed=options.reinstall or not image_question.is_same_version(image, target),
        checks=tuple(check for look in _CHECKS for check in look(seen)),
        possible_bioses=bioses,
        made_for=host.name,
        way=first_way(seen),
    )


def _choose_mode(
    image: Image,
    target: Target,
    options: Options,
    zones: tuple[ZoneFree, ...],
    *,
    is_high: bool,
    on_xen: bool,
) -> tuple[Mode, str]:
    """The mode, and why. `is_high`: packets may be placed above 4 GiB, and a possible BIOS does not
    search there."""
    if options.mode is not None:
        return options.mode, "as asked for"
    if target.rbu is None or not target.rbu.packet_supported:
        return "mono", "this machine's BIOS takes monolithic images only"
    if image.size_bytes > MAX_BLOCK_BYTES:
        return "packet", f"no block of memory is larger than {human_size(MAX_BLOCK_BYTES)}"
    if on_xen:
        return "packet", "on Xen only single pages are sure to be contiguous in machine memory"
    fits_low = largest_low_block_bytes(zones) >= image.size_bytes
    # only packets carry a password
    has_password = options.password is not None or lacks_password(target, options)
    if is_high and fits_low and not has_password:
        return "mono", "packets may be placed above 4 GiB, where not every BIOS searches"
    return "packet", "packets fit into any free memory"
