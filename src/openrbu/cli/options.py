"""Arguments and options that several commands have: completion and reading of their values."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from openrbu._vendor import typer
from openrbu.errors import OpenRbuError, UsageError
from openrbu.units import parse_size


class ModeChoice(StrEnum):
    """How to stage: in one block of memory, in packets, or in the mode that fits the machine."""

    AUTO = "auto"
    MONO = "mono"
    PACKET = "packet"


class DriverChoice(StrEnum):
    """Which `dell_rbu` this computer uses: see `hosts.own_driver`."""

    AUTO = "auto"
    KERNEL = "kernel"
    OWN = "own"


class ModuleChoice(StrEnum):
    """The kernel modules that an update needs."""

    DELL_RBU = "dell_rbu"
    DCDBAS = "dcdbas"
    XEN_BALLOON = "xen_balloon"


def complete_machines(incomplete: str) -> list[str]:
    from openrbu.machine.store import machine_names

    with contextlib.suppress(OpenRbuError, OSError):
        return _starting(incomplete, machine_names())
    return []


def complete_models(incomplete: str) -> list[str]:
    from openrbu.machine.models import MODELS

    return _starting(incomplete, list(MODELS))


def complete_profiles(incomplete: str) -> list[str]:
    from openrbu.drivers.dell_rbu_profiles import PROFILES

    return _starting(incomplete, list(PROFILES))


def complete_rules(incomplete: str) -> list[str]:
    from openrbu.bios.rules import RULE_SETS

    return _starting(incomplete, list(RULE_SETS))


def complete_faults(incomplete: str) -> list[str]:
    from openrbu.machine.faults import all_faults

    return _starting(incomplete, [kind.name + "=" * kind.needs_value for kind in all_faults()])


def complete_verdicts(incomplete: str) -> list[str]:
    from openrbu.trials.verdicts import Verdict

    return _starting(incomplete, list(Verdict))


def complete_kernels(incomplete: str) -> list[str]:
    """Kernels' packages that the lab has fetched, or could fetch; and files."""
    from openrbu.lab.packages import kernels_to_name
    from openrbu.system.home import cache_home

    names: list[str] = []
    with contextlib.suppress(OpenRbuError, OSError):
        names = _starting(incomplete, kernels_to_name(cache_home()))
        if not names:
            start = Path(incomplete)
            directory = start if incomplete.endswith("/") else start.parent
            names = _starting(incomplete, sorted(map(str, directory.iterdir())))
    return names


def _starting(incomplete: str, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def machine_option(text: str) -> Any:
    """The option `--machine` with the help text `text`."""
    return typer.Option(
        "--machine", "-m", metavar="NAME", help=text, autocompletion=complete_machines
    )


OnMachine = Annotated[
    str | None,
    machine_option("A virtual machine. Without it: the computer that rbu runs on."),
]
MachineName = Annotated[
    str,
    typer.Argument(
        metavar="NAME", help="The virtual machine's name.", autocompletion=complete_machines
    ),
]
ImageSource = Annotated[
    Path,
    typer.Argument(
        metavar="IMAGE",
        help="A BIOS image (.HDR), a package, or a directory: the newest that fits is taken.",
    ),
]
ImageFile = Annotated[
    Path,
    typer.Argument(metavar="IMAGE", help="A BIOS image (.HDR), or a package with one inside."),
]
OutputFile = Annotated[
    Path,  # what may not be read is told by `files.save`, with the reason
    typer.Option("--output", "-o", metavar="FILE", help="The file to write.", readable=False),
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite a file with other content.")]
PacketSize = Annotated[
    str,
    typer.Option(
        "--packet-size", metavar="SIZE", help="Size of a packet with its header (4096, 8K)."
    ),
]
AllowKnownBroken = Annotated[
    bool,
    typer.Option(
        "--allow-known-broken", help="Try it even if RBU is known to be broken on this system."
    ),
]
Reinstall = Annotated[
    bool,
    typer.Option("--reinstall", help="Install the version even if the machine runs it already."),
]


def size_of(text: str, what: str) -> int:
    """The number of bytes in a size such as `512K`.

    :raise UsageError: when `text` is not a size; the message begins with `what`.
    """
    return _number(parse_size, text, what)


def hex_number_of(text: str, what: str) -> int:
    """A number such as `0x1234abcd`.

    :raise UsageError: when `text` is not one; the message begins with `what`.
    """
    if not text.lower().startswith("0x"):
        raise UsageError(f"{what}: {text!r} is not a hexadecimal number (example: 0x1234abcd)")
    return _number(lambda digits: int(digits, 16), text, what)


def _number(read: Callable[[str], int], text: str, what: str) -> int:
    try:
        return read(text)
    except ValueError as error:
        raise UsageError(f"{what}: {error}") from None


def set_id_of(text: str) -> int | bytes:
    """A packet set's ID: `0x…`, or four ASCII characters such as `_A05`.

    :raise UsageError: when it is neither.
    """
    if text.lower().startswith("0x"):
        return hex_number_of(text, "--set-id")
    if not (len(text) == 4 and text.isascii()):
        raise UsageError(f"--set-id: {text!r} is neither 0x… nor four ASCII characters (_A05)")
    return text.encode("ascii")


def confirm(question: str, *, yes: bool) -> None:
    """Ask on a terminal whether to continue.

    :raise UsageError: when the answer is no, or standard input is not a terminal.
    """
    if yes:
        return
    if not (sys.stdin and sys.stdin.isatty()):
        raise UsageError(f"{question} This is not a terminal: use --yes to confirm")
    from openrbu._vendor.typer._click.termui import confirm as ask

    if not ask(question, err=True):
        raise UsageError("the answer was no; nothing was changed")
