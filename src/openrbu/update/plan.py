"""Plan: what an update would do here, and what stands in its way. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from openrbu.errors import DamagedInputError, ExitCode, ObstacleError, UsageError
from openrbu.formats import packet
from openrbu.formats.dell import CompletionCode, describe_completion
from openrbu.formats.hdr import Image
from openrbu.hosts.base import Host, read_text
from openrbu.memory.buddyinfo import ZoneFree, parse_buddyinfo
from openrbu.units import MAX_BLOCK_BYTES, PAGE_SIZE, human_size, order_for
from openrbu.update.arm import read_armed, switch_for
from openrbu.update.driver import Mode, RbuDriver
from openrbu.update.target import Target, is_on_xen, read_target

BUDDYINFO = "/proc/buddyinfo"

DEFAULT_PACKET_BYTES = 4096
"""What the old tools always used, and what fits one page."""

_SCATTERED = (
    "on Xen what is one piece for the driver, and reads back right, may lie scattered in the "
    "machine's memory, where no BIOS finds it"
)

_XEN_RESTARTS = (
    "on Xen the kernel's reboot mode counts for nothing: Xen has to be started with reboot=warm, "
    "or the restart clears memory and the update with it"
)

ARMED_ALREADY = "an update is staged and armed already: restart, or `rbu cancel` first"


@dataclass(frozen=True, slots=True)
class Options:
    """What the operator asks for. `mode` None: choose one that fits."""

    mode: Mode | None = None
    packet_size_bytes: int = DEFAULT_PACKET_BYTES
    allow_downgrade: bool = False
    allow_any_system: bool = False
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Something in the way: a name for scripts, one line for people, how the command ends."""

    kind: str
    message: str
    exit_code: ExitCode = ExitCode.OBSTACLE


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be done. `is_needed` is False when the machine runs this version already."""

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

    @property
    def block_size_bytes(self) -> int:
        """The largest block of contiguous memory that staging takes."""
        piece = self.staged_size_bytes
        if self.mode == "packet":
            piece = self.options.packet_size_bytes
        return PAGE_SIZE << order_for(piece)


def make_plan(host: Host, image: Image, options: Options) -> Plan:
    """Look at the machine and at the image; change nothing.

    :raise UsageError: when the packet size can't be one.
    :raise ObstacleError: when the machine can't be looked at.
    """
    packet.check_packet_size(options.packet_size_bytes)
    target = read_target(host)
    zones = _zones(host)
    on_xen = is_on_xen(host)
    mode, why_mode = _choose_mode(image, target, options, zones, on_xen=on_xen)
    packet_count, staged = 0, image.size_bytes
    obstacles = [
        *_wrong_machine(image, target, options),
        *_wrong_version(image, target, options),
        *_bad_image(image),
    ]
    if mode == "packet":
        try:
            packet_count = packet.packets_needed(image.size_bytes, options.packet_size_bytes)
        except UsageError as error:
            obstacles.append(Obstacle("too_many_packets", str(error), ExitCode.USAGE))
        staged = packet_count * options.packet_size_bytes
    obstacles += _mode_obstacles(image, target, options, mode)
    obstacles += _host_obstacles(host, target)
    notes = list(_notes(host, image, target, mode, zones))
    piece = image.size_bytes if mode == "mono" else options.packet_size_bytes
    if on_xen:
        notes.append(_XEN_RESTARTS)
    if on_xen and piece > PAGE_SIZE:
        if host.physical_memory is None:
            obstacles.append(_scattered_unseen(piece))
        else:
            notes.append(_SCATTERED + ": verify will tell")
    is_needed = not target.version.same_as(image.header.version)
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
    )


def _zones(host: Host) -> list[ZoneFree]:
    """The free memory of each zone; nothing where the host does not say, or not to this user."""
    try:
        return parse_buddyinfo(read_text(host, BUDDYINFO))
    except (OSError, DamagedInputError):
        return []


def largest_low_block_bytes(zones: list[ZoneFree]) -> int:
    """The largest free block below 4 GiB; zone Normal lies above where there is a zone DMA32."""
    has_dma32 = any(zone.zone == "DMA32" for zone in zones)
    orders = [
        order
        for zone in zones
        if zone.zone.startswith("DMA") or not has_dma32
        for order, count in enumerate(zone.counts)
        if count
    ]
    return PAGE_SIZE << max(orders) if orders else 0


def _has_high_memory(zones: list[ZoneFree]) -> bool:
    """Whether there is free memory above 4 GiB."""
    names = {zone.zone for zone in zones if any(zone.counts)}
    return "Normal" in names and any(zone.zone == "DMA32" for zone in zones)


def _choose_mode(
    image: Image, target: Target, options: Options, zones: list[ZoneFree], *, on_xen: bool
) -> tuple[Mode, str]:
    if options.mode is not None:
        return options.mode, "as asked for"
    if target.rbu is None or not target.rbu.packet_supported:
        return "mono", "this machine's BIOS takes monolithic images only"
    if image.size_bytes > MAX_BLOCK_BYTES:
        return "packet", f"no block of memory is larger than {human_size(MAX_BLOCK_BYTES)}"
    if on_xen:
        return "packet", "on Xen only a page is sure to lie in one piece in the machine's memory"
    if _has_high_memory(zones) and largest_low_block_bytes(zones) >= image.size_bytes:
        return "mono", "packets may come to lie above 4 GiB, where a BIOS does not look"
    return "packet", "packets fit any free memory"


def _wrong_machine(image: Image, target: Target, options: Options) -> Iterator[Obstacle]:
    """What makes this an image for another machine."""
    end = ExitCode.NOT_FOR_THIS_MACHINE
    if options.allow_any_system:
        return
    if target.system_id is None:
        yield Obstacle(
            "not_a_dell", f"{target.title} shows no Dell system ID: no image is for it", end
        )
    elif not image.header.is_for(target.system_id):
        systems = ", ".join(str(system) for system in image.header.systems) or "no system"
        yield Obstacle(
            "wrong_system",
            f"the image is for {systems}, not for {target.title} ({target.system_id:#06x})",
            end,
        )
    size, flash = image.flash_size_bytes, target.flash_size_bytes
    if flash is not None and size != flash:
        relation = "larger" if size > flash else "smaller"
        yield Obstacle(
            f"{relation}_than_flash",
            f"the image's {human_size(size)} ({size} bytes) are {relation} than this machine's "
            f"flash of {human_size(flash)} ({flash} bytes)",
            end,
        )


def _wrong_version(image: Image, target: Target, options: Options) -> Iterator[Obstacle]:
    """What makes this no update: older, or not comparable."""
    new, current = image.header.version, target.version
    if options.allow_downgrade or new.same_as(current):
        return
    if new.is_special and not current.is_special:
        text = f"{new.text} is a special build: it never counts as newer than {current.text}"
    elif new.beats(current):
        return
    else:
        text = f"{new.text} is not newer than {current.text}, which this machine runs"
    yield Obstacle("downgrade", f"{text} (--allow-downgrade installs it all the same)")


def _bad_image(image: Image) -> Iterator[Obstacle]:
    if image.damage is not None:
        yield Obstacle("damaged_image", image.damage, ExitCode.DAMAGED_INPUT)


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
            "password_needs_packets", "a password travels in packet 0: it takes packet mode"
        )


def _scattered_unseen(piece_bytes: int) -> Obstacle:
    """Read-back alone proves nothing there, and nobody can see the machine's memory."""
    return Obstacle(
        "scattered_on_xen",
        f"{_SCATTERED}, and that can't be seen from here: {human_size(piece_bytes)} in one piece "
        f"are too much (--mode packet --packet-size {PAGE_SIZE}; or start Linux without Xen for "
        "the update)",
    )


def _host_obstacles(host: Host, target: Target) -> Iterator[Obstacle]:
    if target.rbu is None:
        return
    try:
        switch_for(host, target)
    except ObstacleError as error:
        yield Obstacle("no_switch", str(error))
        return
    if read_armed(host, target):
        yield Obstacle("armed_already", ARMED_ALREADY)


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
            f"{human_size(largest_low_block_bytes(zones))}: there may be no room in one piece"
        )
    if mode == "packet" and _has_high_memory(zones):
        yield "packets may come to lie above 4 GiB, where a BIOS does not look: verify will tell"
    if host.physical_memory is None:
        yield "physical memory can't be seen here: only the driver's own read-back is compared"
    if not RbuDriver(host).is_loaded:
        yield "the dell_rbu module is not loaded: it will be, for this update"
