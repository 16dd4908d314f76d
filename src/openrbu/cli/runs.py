"""The command `rbu run`: a program that sees a virtual machine's files in place."""

from __future__ import annotations

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
) -> int:
    """Run a program that finds a virtual machine's files in place.

    It sees this computer's /sys with the machine's entries at their true paths: its firmware class,
    its drivers, its SMBIOS tables. Nothing of that is seen outside of the program, and nothing is
    left behind. Other commands reach the machine while it runs.

    The exit code is the program's; 126 if it can't be executed, 127 if it isn't found, and 4 if
    something stands in the way. Without root it takes a kernel that lets plain users have
    namespaces; the program is then root in its own.

    \b
    Examples:  rbu run --machine demo -- dmidecode -t bios
               rbu run --machine demo -- smbios-token-ctl --token-id=0x5c --activate
               rbu run --machine demo -- \\
                   sh -c 'echo 1 > /sys/class/firmware/dell_rbu/loading'
    """
    from openrbu.cli.mounts import tell_waiting
    from openrbu.cli.show import complain
    from openrbu.fuse.run import CommandError
    from openrbu.system.interrupts import EXIT_SIGNAL

    try:
        status = api.run(machine, command, waiting=tell_waiting, log=complain)
    except CommandError as error:
        complain(str(error))
        return error.status
    return EXIT_SIGNAL - status if status < 0 else status
