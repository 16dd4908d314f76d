"""The command `rbu run`: runs a program that finds a virtual machine's files at their paths."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from openrbu import api
from openrbu._vendor import typer
from openrbu.cli.options import machine_option

if TYPE_CHECKING:
    from openrbu.run.programs import ProgramEnd

TraceFile = Annotated[
    Path | None,
    typer.Option(
        "--trace",
        metavar="FILE",
        help="Write what the program does with the machine's files to FILE (rbu trace FILE).",
    ),
]
AfterRestart = Annotated[
    list[str] | None,
    typer.Option(
        "--after-restart",
        metavar="CMD",
        help="Run this shell command on the machine after the program has restarted it. May be "
        "given more than once.",
    ),
]


def run(
    command: Annotated[
        list[str], typer.Argument(metavar="CMD …", help="The program, and its own arguments.")
    ],
    *,
    machine: Annotated[
        str | None, machine_option("The virtual machine; without it, this computer.")
    ] = None,
    trace: TraceFile = None,
    after_restart: AfterRestart = None,
) -> int:
    """Run a program that sees a virtual machine's files, or those of openrbu's own driver.

    With --machine it sees this computer's /sys with the machine's entries at their true paths: its
    firmware class, its drivers, its SMBIOS tables. Other programs don't see them, and nothing is
    left afterwards. Other commands can use the machine while the program runs.

    modprobe, insmod, rmmod, lsmod, reboot, shutdown, poweroff, halt, kexec and systemctl act on the
    machine. A restart ends the program; the BIOS's report is printed on standard error.

    The exit code is the program's, 0 if its own restart ended it; 126 if it can't be executed, 127
    if it isn't found, and 4 if an obstacle prevents it. If it is 0, it is that of the first command
    of --after-restart that fails. Without root this needs a kernel that allows namespaces to all
    users; the program is then root in its own namespace.

    Without --machine the program runs on this computer, whose kernel has no dell_rbu: it finds the
    files of openrbu's own driver, with this computer's memory behind them. Whatever else it does,
    it does to this computer. This needs root.

    \b
    Examples:  rbu run --machine demo -- dmidecode -t bios
               rbu run --machine demo -- smbios-token-ctl --token-id=0x5c --activate
               rbu run --machine demo --after-restart 'dmidecode -s bios-version' -- ./update.sh
               rbu run --machine demo -- \\
                   sh -c 'echo 1 > /sys/class/firmware/dell_rbu/loading'
               rbu run -- ./update.sh
    """
    from openrbu.cli.mounts import print_waiting
    from openrbu.cli.show import print_error
    from openrbu.errors import CommandError, ObstacleError

    ends: list[ProgramEnd] = []

    def told(end: ProgramEnd) -> None:
        ends.append(end)
        _tell(machine, end)

    commands = [command, *(["/bin/sh", "-c", line] for line in after_restart or ())]
    try:
        api.run_all(
            machine, commands, told=told, waiting=print_waiting, log=print_error, trace=trace
        )
    except CommandError as error:
        print_error(str(error))
        return error.status
    except ObstacleError as error:
        if not (ends and _exit_code(ends)):
            raise
        print_error(str(error))
    return _exit_code(ends)


def _exit_code(ends: Sequence[ProgramEnd]) -> int:
    """That of the first program that failed; 0: none failed."""
    from openrbu.system.interrupts import EXIT_SIGNAL

    status = next((end.status for end in ends if end.status), 0)
    return EXIT_SIGNAL - status if status < 0 else status


def _tell(name: str | None, end: ProgramEnd) -> None:
    """Print on standard error what the machine has done at the wish of a program."""
    if name is None or end.power is None:
        return
    from openrbu.cli.machines import kexec_words, off_words, restarted_facts
    from openrbu.cli.show import emit_on_stderr, print_error
    from openrbu.run.power import PowerAction

    if end.restarted is not None:
        emit_on_stderr([restarted_facts(name, end.restarted.post)])
        if end.restarted.failure is not None:
            print_error(str(end.restarted.failure))
    elif end.power is PowerAction.KEXEC:
        emit_on_stderr([kexec_words(name)])
    else:
        emit_on_stderr([off_words(name)])
