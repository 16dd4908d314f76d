"""Commands on Xen hosts and the memory of their guests: balloon host, guest, target, show."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

from openrbu import api
from openrbu._vendor import typer
from openrbu.cli.balloon_view import driver_cell, host_blocks, orphan_lines
from openrbu.cli.options import complete_machines, complete_models, size_of
from openrbu.cli.show import Answer, Block, caution, cell_text, good
from openrbu.errors import OpenRbuError, UsageError
from openrbu.units import GIB, PAGE_SIZE, exact_size, human_sizes

if TYPE_CHECKING:
    from openrbu.balloon.clock import Clock
    from openrbu.balloon.status import GuestStatus
    from openrbu.cli.commands import Invocation

DEFAULT_RAM_BYTES = 4 * GIB
DEFAULT_GUEST = "512M"
DEFAULT_HOST_MODEL = "precision-390"
"""A model that takes packets, too: dom0's memory is scattered once its balloon has worked."""


def clock_of(context: typer.Context) -> Clock:
    """The clock that the caller of `main` passed; this computer's where there is none."""
    from openrbu.balloon.clock import SystemClock

    clock = cast("Invocation", context.obj).clock
    return SystemClock() if clock is None else clock


def complete_hosts(incomplete: str) -> list[str]:
    from openrbu.machine.config import load_config
    from openrbu.machine.store import machine_directory

    hosts = []
    for name in complete_machines(incomplete):
        with contextlib.suppress(OpenRbuError):
            if load_config(machine_directory(name)).xen is not None:
                hosts.append(name)
    return hosts


def complete_guests(context: typer.Context, incomplete: str) -> list[str]:
    from openrbu.machine.store import machine_directory
    from openrbu.machine.xen_host import guest_names

    with contextlib.suppress(UsageError, OSError):
        names = guest_names(machine_directory(str(context.params.get("host"))))
        return [name for name in ("dom0", *names) if name.startswith(incomplete)]
    return []


def complete_balloon_profiles(incomplete: str) -> list[str]:
    from openrbu.drivers.xen_balloon_profiles import BALLOON_PROFILES

    return [name for name in BALLOON_PROFILES if name.startswith(incomplete)]


HostName = Annotated[
    str, typer.Argument(metavar="HOST", help="The Xen host's name.", autocompletion=complete_hosts)
]
GuestName = Annotated[
    str,
    typer.Argument(metavar="GUEST", help="A guest, or dom0.", autocompletion=complete_guests),
]
BalloonProfileName = Annotated[
    str | None,
    typer.Option(
        "--profile",
        metavar="PROFILE",
        help="Its balloon driver: linux (if none is named), linux-2.6.18-xen, hard-limit.",
        autocompletion=complete_balloon_profiles,
    ),
]
HostRam = Annotated[
    str | None,
    typer.Option("--ram", metavar="SIZE", help="Its memory (4G, if not given)."),
]
Dom0Memory = Annotated[
    str | None,
    typer.Option("--dom0", metavar="SIZE", help="What dom0 starts with (a quarter of it)."),
]
Dom0Maximum = Annotated[
    str | None,
    typer.Option("--dom0-max", metavar="SIZE", help="The most dom0 may have (twice that)."),
]
HostModelName = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help=f"{DEFAULT_HOST_MODEL} (if none is named), precision-t7600; poweredge-2650 takes no "
        "packets.",
        autocompletion=complete_models,
    ),
]
BiosVersionName = Annotated[
    str | None, typer.Option("--bios-version", metavar="VERSION", help="Its first BIOS.")
]
RamDirectory = Annotated[
    str | None,  # not Path, which makes the current directory of an empty text
    typer.Option(
        "--ram-in",
        metavar="DIR",
        help="Keep its RAM in a file there, such as on a tmpfs of limited size: a guest that "
        "grows takes memory from it, and gives it back when it shrinks.",
    ),
]
GuestMemorySize = Annotated[
    str | None,
    typer.Option("--memory", metavar="SIZE", help=f"What it starts with ({DEFAULT_GUEST})."),
]
GuestMaximum = Annotated[
    str | None,
    typer.Option("--max", metavar="SIZE", help="The most it may have (twice that)."),
]
GuestClaim = Annotated[
    str | None,
    typer.Option("--claim", metavar="SIZE", help="How much more memory it is promised (none)."),
]
GuestUses = Annotated[
    str | None,
    typer.Option(
        "--uses", metavar="SIZE", help="What its programs use and never give back (nothing)."
    ),
]


def host(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it.")],
    *,
    ram: HostRam = None,
    dom0: Dom0Memory = None,
    dom0_max: Dom0Maximum = None,
    model: HostModelName = None,
    bios_version: BiosVersionName = None,
    profile: BalloonProfileName = None,
    ram_in: RamDirectory = None,
) -> Answer:
    """Make a virtual Dell machine that runs Xen, and switch it on.

    Its own Linux is the guest dom0, from which its BIOS is updated as on any machine. Other guests
    share its memory: each has a balloon driver, which gives memory back and takes it again.

    \b
    What the driver is for: one guest grows while another one shrinks.
        rbu balloon host xen1 --ram 2G --dom0 512M
        rbu balloon guest xen1 a --max 1G --profile linux-2.6.18-xen
        rbu balloon guest xen1 b --memory 960M
        rbu balloon target xen1 a 1G      # falls short: the host has too little
        rbu balloon target xen1 b 256M    # gives memory back
        rbu balloon watch xen1            # a reaches its target

    With --profile hard-limit, a stays as it is until its target is set again. With linux it tries
    for some 14 s, and then stays as it is until another target is set.
    """
    from openrbu.balloon.session import open_xen_host
    from openrbu.drivers.xen_balloon_profiles import DEFAULT_BALLOON_PROFILE
    from openrbu.machine.config import XenConfig

    ram_bytes = DEFAULT_RAM_BYTES if ram is None else size_of(ram, "--ram")
    dom0_bytes = _pages_of(dom0, "--dom0", default=ram_bytes // 4)
    spec = api.MachineSpec(
        model=DEFAULT_HOST_MODEL if model is None else model,
        bios_version=bios_version,
        ram_bytes=ram_bytes,
        xen=XenConfig(
            dom0_bytes=dom0_bytes,
            dom0_max_bytes=_pages_of(dom0_max, "--dom0-max", default=2 * dom0_bytes),
            profile=DEFAULT_BALLOON_PROFILE if profile is None else profile,
            takes_memory=ram_in is not None,
        ),
        ram_directory=None if ram_in is None else Path(ram_in),
    )
    api.make_machine(name, spec)
    with open_xen_host(name, clock=clock_of(context)) as session:
        status = session.status()
    said: list[Block] = [good(f"made and on: {name}"), *host_blocks(status)]
    return Answer({"changed": True, **status.document()}, said)


def guest(
    context: typer.Context,
    host: HostName,
    name: Annotated[
        str,
        typer.Argument(metavar="NAME", help="The guest's.", autocompletion=complete_guests),
    ],
    *,
    memory: GuestMemorySize = None,
    maximum: GuestMaximum = None,
    claim: GuestClaim = None,
    uses: GuestUses = None,
    profile: BalloonProfileName = None,
    rm: Annotated[bool, typer.Option("--rm", help="Destroy it instead.")] = False,
) -> Answer:
    """Make a guest on a Xen host, or destroy one.

    The part of its maximum that it does not have is in its balloon. A claim is memory that no other
    guest gets meanwhile.

    \b
    Examples:  rbu balloon guest xen1 a --memory 512M --max 1G
               rbu balloon guest xen1 b --uses 300M --profile hard-limit
               rbu balloon guest xen1 a --rm
    """
    from openrbu.balloon.session import open_xen_host
    from openrbu.drivers.xen_balloon_profiles import DEFAULT_BALLOON_PROFILE
    from openrbu.machine.guest_spec import GuestSpec

    if rm:
        if any(each is not None for each in (memory, maximum, claim, uses, profile)):
            raise UsageError("--rm takes HOST and NAME alone")
        return _remove(host, name, clock_of(context))
    memory_bytes = _pages_of(DEFAULT_GUEST if memory is None else memory, "--memory")
    max_bytes = _pages_of(maximum, "--max", default=2 * memory_bytes)
    spec = GuestSpec(
        memory_bytes=memory_bytes,
        max_bytes=max_bytes,
        claim_bytes=_pages_of(claim, "--claim", default=0),
        used_bytes=_pages_of(uses, "--uses", default=0),
        profile=DEFAULT_BALLOON_PROFILE if profile is None else profile,
    )
    spec.check()
    with open_xen_host(host, clock=clock_of(context)) as session:
        total_bytes = session.host.hypervisor.total_pages * PAGE_SIZE
        if maximum is None:
            spec = replace(spec, max_bytes=max(memory_bytes, min(max_bytes, total_bytes)))
        session.create(name, spec)
        status = session.status()
    said: list[Block] = [good(f"made: guest {name} of {host}"), *host_blocks(status)]
    return Answer({"changed": True, **status.document()}, said)


def _remove(host: str, name: str, clock: Clock) -> Answer:
    from openrbu.balloon.session import open_xen_host

    with open_xen_host(host, clock=clock) as session:
        session.destroy(name)
        lost = [each for each in session.lost if each != name]
    document = {"changed": True, "host": host, "name": name, "lost": lost}
    return Answer(document, [good(f"destroyed: guest {name} of {host}"), *orphan_lines(host, lost)])


def target(
    context: typer.Context,
    host: HostName,
    guest: GuestName,
    size: Annotated[
        str, typer.Argument(metavar="SIZE", help="The memory that it shall have (512M, 1G).")
    ],
) -> Answer:
    """Set how much memory a guest shall have, as Xen's toolstack does.

    Its balloon driver moves there batch by batch. If the host is short of memory, the driver keeps
    what it gets and tries again without further action: every second with the profile
    linux-2.6.18-xen; for some 14 s with linux, which then gives up until another target is set.
    With hard-limit it gives up at once, until a target is set, even the same one.

    If another process has the guest (rbu balloon watch), that process moves it.

    dom0's target is set through its own file, target_kb.

    \b
    Examples:  rbu balloon target xen1 a 1G
               rbu balloon target xen1 dom0 256M
    """
    from openrbu.balloon.session import open_xen_host
    from openrbu.xen.hypervisor import DOM0

    size_bytes = _pages_of(size, "SIZE")
    if not size_bytes:
        raise UsageError("SIZE: a guest can't do without memory")
    with open_xen_host(host, clock=clock_of(context), for_dom0=guest == DOM0) as session:
        if size_bytes > session.host.hypervisor.total_pages * PAGE_SIZE:
            raise session.host.excess_error(size_bytes)
        status, has_changed = session.set_target_bytes(guest, size_bytes)
        lost = session.lost
    max_bytes = status.info.max_pages * PAGE_SIZE
    said: list[Block] = [_progress_of(status, size_bytes), *orphan_lines(host, lost)]
    if size_bytes > max_bytes:
        said.append(
            caution(f"{guest} may have {exact_size(max_bytes)} at most: it will stop there")
        )
    document = {"changed": has_changed, "host": host, **status.document(), "lost": lost}
    return Answer(document, said)


def _progress_of(guest: GuestStatus, size_bytes: int) -> Block:
    """How far a guest has come at once."""
    name = guest.info.name
    current, wanted = human_sizes(guest.info.current_pages * PAGE_SIZE, size_bytes)
    if guest.balloon is None:
        owner = guest.owner or "unknown"
        return f"{name} has the target {wanted}: process {owner} has the guest, and will move it"
    if guest.info.current_pages * PAGE_SIZE == size_bytes:
        return good(f"{name} has {current}")
    state = cell_text(driver_cell(guest))
    return caution(f"{name} has the target {wanted}, and has {current}: {state}")


def show(
    context: typer.Context,
    host: HostName,
) -> Answer:
    """Show the memory of the guests of a Xen host, and what their drivers do.

    A guest whose process was killed has lost its power: it is destroyed, and named here.

    \b
    Example:  rbu balloon show xen1
    """
    from openrbu.balloon.session import open_xen_host

    with open_xen_host(host, clock=clock_of(context)) as session:
        status = session.status()
    return Answer(status.document(), host_blocks(status))


def _pages_of(text: str | None, what: str, *, default: int = 0) -> int:
    """The bytes of a size in whole pages. None: `default`, rounded down to whole pages.

    :raise UsageError: when `text` is not a size, or not in whole pages.
    """
    if text is None:
        return default // PAGE_SIZE * PAGE_SIZE
    size_bytes = size_of(text, what)
    if size_bytes % PAGE_SIZE:
        raise UsageError(f"{what}: {text!r} is not whole pages of 4 KiB")
    return size_bytes
