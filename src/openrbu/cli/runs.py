"""The command `rbu run`: runs a program that finds a virtual machine's files at their paths."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from openrbu import api
from openrbu.cli.options import machine_option


def run(
    command: Annotated[
        list[str], typer.Argument(metavar="CMD …", help="The program, and its own arguments.")
    ],
    *,
    machine: Annotated[str, machine_option("The virtual machine.")],
    trace: Annotated[
        Path | None,
        typer.Option(
            "--trace",
            metavar="FILE",
            help="Write what the program does with the machine's files to FILE (rbu trace FILE).",
        ),
    ] = None,
) -> int:
    """Run a program that sees a virtual machine's files.

    It sees this computer's /sys with the machine's entries at their true paths: its firmware class,
    its drivers, its SMBIOS tables. Other programs don't see them, and nothing is left afterwards.
    Other commands can use the machine while the program runs.

    The exit code is the program's; 126 if it can't be executed, 127 if it isn't found, and 4 if
    an obstacle prevents it. Without root this needs a kernel that allows namespaces to all users;
    the program is then root in its own namespace.

    \b
    Examples:  rbu run --machine demo -- dmidecode -t bios
               rbu run --machine demo -- smbios-token-ctl --token-id=0x5c --activate
               rbu run --machine demo -- \\
                   sh -c 'echo 1 > /sys/class/firmware/dell_rbu/loading'
    """
    from openrbu.cli.mounts import print_waiting
    from openrbu.cli.show import print_error
    from openrbu.errors import CommandError
    from openrbu.system.interrupts import EXIT_SIGNAL

    try:
        status = api.run(machine, command, waiting=print_waiting, log=print_error, trace=trace)
    except CommandError as error:
        print_error(str(error))
        return error.status
    return EXIT_SIGNAL - status if status < 0 else status
