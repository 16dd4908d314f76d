"""Plan: what an update would do here, and what prevents it. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    has_high_memory,
    largest_low_block_bytes,
    parse_buddyinfo,
)
from openrbu.formats.dell import CompletionCode, describe_completion
from openrbu.formats.hdr import Image
from openrbu.hosts.base import Host, read_text
from openrbu.units import MAX_BLOCK_BYTES, PAGE_SIZE, human_size, order_for
from openrbu.update import arming_checks, fit
from openrbu.update.driver import Mode, RbuDriver
from openrbu.update.obstacle import Obstacle
from openrbu.update.options import Options
from openrbu.update.possible_bioses import PossibleBioses, possible_bioses
from openrbu.update.target import Target, is_on_xen, read_target

BUDDYINFO = "/proc/buddyinfo"

_REFUSALS: Mapping[ExitCode, type[OpenRbuError]] = {
    ExitCode.DAMAGED_INPUT: DamagedInputError,
    ExitCode.NOT_FOR_THIS_MACHINE: NotForThisMachineError,
    ExitCode.USAGE: UsageError,
    ExitCode.OBSTACLE: ObstacleError,
}
"""The errors that obstacles become, the worst first: damage, then the wrong machine, which no
option and no waiting changes."""

_SCATTERED = (
    "on Xen one block of the driver's memory may be scattered in the machine's memory, where no "
    "BIOS finds it, although it reads back right"
)

_MAY_BE_HIGH = (
    "packets may be placed above 4 GiB, where a BIOS with the published rules does not search "
    "(that of a PowerEdge 2950 does): verification will show it; start Linux with mem=3G for the "
    "update to keep them below, or ignore this with --memory-above-4g"
)

_XEN_RESTARTS = (
    "on Xen the kernel's reboot mode has no effect: start Xen with reboot=warm, or the restart "
    "clears memory and the update with it"
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What an update would do.

    `is_needed` is False when the machine runs this version already and `Options.reinstall` is not
    set. `packet_count` is 0 in mono mode. `why_mode` and `notes` are text for people.
    `possible_bioses` are the BIOSes that could be the machine's; all have to take what is staged.
    `made_for` is the machine's name (`Host.name`).
    """

    image: Image
    target: Target
    options: Options
    mode: Mode
    why_mode: str
    packet_count: int
    staged_size_bytes: int
    is_needed: bool
    obstacles: tuple[Obstacle, ...]
    notes: tuple[str, ...]
    possible_bioses: PossibleBioses
    made_for: str

    @property
    def block_size_bytes(self) -> int:
        """The size of the blocks of contiguous memory that staging needs."""
        piece = self.staged_size_bytes
        if self.mode == "packet":
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
        return _REFUSALS[worst.exit_code](worst.message)

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
    zones = _zones(host)
    on_xen = is_on_xen(host)
    bioses = possible_bioses(image, target, options)
    is_high = has_high_memory(zones) and not bioses.search_above_4_gib
    mode, why_mode = _choose_mode(image, target, options, zones, is_high=is_high, on_xen=on_xen)
    packet_count, staged = 0, image.size_bytes
    obstacles = list(fit.obstacles(image, target, options))
    if bioses.refusal and not obstacles:
        obstacles.append(_own_bios_refuses(target, bioses))
    if mode == "packet":
        try:
            packet_count = packet.packets_needed(image.size_bytes, options.packet_size_bytes)
        except UsageError as error:
            obstacles.append(Obstacle("too_many_packets", str(error), ExitCode.USAGE))
        staged = packet_count * options.packet_size_bytes
    obstacles += _mode_obstacles(image, target, options, mode)
    obstacles += arming_checks.obstacles(host, target, options, mode)
    notes = [*fit.notes(image, target, options), *_notes(host, image, target, mode, zones)]
    if mode == "packet" and is_high:
        notes.append(_MAY_BE_HIGH)
    notes += arming_checks.notes(host, target, options, mode)
    piece = image.size_bytes if mode == "mono" else options.packet_size_bytes
    if on_xen:
        notes.append(_XEN_RESTARTS)
    if on_xen and piece > PAGE_SIZE:
        if host.physical_memory is None:
            obstacles.append(_scattered_unseen(piece))
        else:
            notes.append(_SCATTERED + ": verification will show it")
    is_needed = options.reinstall or not fit.is_same_version(image, target)
    return Plan(
        image,
        target,
        options,
        mode,
        why_mode,
        packet_count,
        staged,
        is_needed,
        tuple(obstacles),
        tuple(notes),
        bioses,
        host.name,
    )


def _own_bios_refuses(target: Target, bioses: PossibleBioses) -> Obstacle:
    return Obstacle(
        "bios_refuses",
        f"the BIOS of {target.title} (rule set {', '.join(bioses.names)}) does not take this "
        f"image: {bioses.refusal}",
        ExitCode.NOT_FOR_THIS_MACHINE,
    )


def _zones(host: Host) -> list[ZoneFree]:
    """The free memory of each zone; empty where this user can't read it."""
    try:
        return parse_buddyinfo(read_text(host, BUDDYINFO))
    except (OSError, DamagedInputError):
        return []


def _choose_mode(
    image: Image,
    target: Target,
    options: Options,
    zones: list[ZoneFree],
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
    if is_high and largest_low_block_bytes(zones) >= image.size_bytes:
        return "mono", "packets may be placed above 4 GiB, where not every BIOS searches"
    return "packet", "packets fit into any free memory"


def _mode_obstacles(
    image: Image, target: Target, options: Options, mode: Mode
) -> Iterator[Obstacle]:
    largest = human_size(MAX_BLOCK_BYTES)
    takes_packets = target.rbu is not None and target.rbu.packet_supported
    if target.rbu is None:
        yield Obstacle("no_rbu", f"{target.title} does not say that it takes RBU updates")
    if mode == "mono" and image.size_bytes > MAX_BLOCK_BYTES:
        yield Obstacle(
            "too_large_for_mono",
            f"a monolithic image can't be larger than one block of memory, {largest}"
            + (
                ": use packets (--mode packet)"
                if takes_packets
                else f", and the BIOS of {target.title} takes no packets"
            ),
        )
    if mode == "packet":
        if target.rbu is not None and not takes_packets:
            advice = ": use --mode mono" if image.size_bytes <= MAX_BLOCK_BYTES else ""
            yield Obstacle("no_packets", f"the BIOS of {target.title} takes no packets{advice}")
        if options.packet_size_bytes > MAX_BLOCK_BYTES:
            yield Obstacle(
                "packet_too_large",
                f"a packet can't be larger than one block of memory, {largest}",
                ExitCode.USAGE,
            )
    elif options.password is not None:
        yield Obstacle(
            "password_needs_packets", "a password is sent in packet 0: use --mode packet"
        )


def _scattered_unseen(piece_bytes: int) -> Obstacle:
    """The obstacle where read-back proves nothing and the machine's memory can't be read."""
    return Obstacle(
        "scattered_on_xen",
        f"{_SCATTERED}, and that can't be checked from here: blocks of {human_size(piece_bytes)} "
        f"are too large (use --mode packet --packet-size {PAGE_SIZE}, or start Linux without Xen "
        "for the update)",
    )


def _notes(
    host: Host, image: Image, target: Target, mode: Mode, zones: list[ZoneFree]
) -> Iterator[str]:
    rbu = target.rbu
    if rbu is not None and rbu.completion_code not in (
        CompletionCode.COMPLETED,
        CompletionCode.NEVER_TRIED,
    ):
        yield "the last update failed: " + describe_completion(rbu.completion_code)
    if mode == "mono" and zones and largest_low_block_bytes(zones) < image.size_bytes:
        yield (
            f"the largest free block of memory below 4 GiB is "
            f"{human_size(largest_low_block_bytes(zones))}: it may not fit in one piece"
        )
    if host.physical_memory is None:
        yield "physical memory can't be read here: only the driver's read-back is compared"
    if not RbuDriver(host).is_loaded:
        yield "the dell_rbu module is not loaded: the update loads it"
