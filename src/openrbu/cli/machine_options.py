"""The options of `rbu machine new`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from openrbu._vendor import typer
from openrbu.cli.options import (
    complete_faults,
    complete_models,
    complete_profiles,
    complete_rules,
)

ModelName = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="MODEL",
        help="poweredge-2650 (the default), poweredge-2950, latitude-d500, precision-390, "
        "precision-t7600.",
        autocompletion=complete_models,
    ),
]
ProfileName = Annotated[
    str | None,
    typer.Option(
        "--profile",
        metavar="PROFILE",
        help="Which kernel's dell_rbu it has: documented (the default), linux, linux-5.7, …",
        autocompletion=complete_profiles,
    ),
]
TablesDirectory = Annotated[
    Path | None,
    typer.Option(
        "--from-tables",
        metavar="FILE|DIR",
        help="Make the machine with these SMBIOS tables: a dump by dmidecode --dump-bin, the file "
        "DMI alone, or a directory with the files.",
    ),
]
OfSystem = Annotated[
    str | None,
    typer.Option("--system", metavar="ID", help="Its Dell system ID, such as 0x0121."),
]
BiosRules = Annotated[
    str | None,
    typer.Option(
        "--bios",
        metavar="RULES",
        help="The rule set of its BIOS, see rbu machine rules (default: that of the model).",
        autocompletion=complete_rules,
    ),
]
Revision = Annotated[
    int, typer.Option("--revision", metavar="N", help="The revision of its hardware, 0 to 7.")
]
FlashSize = Annotated[
    str | None,
    typer.Option(
        "--flash-size",
        metavar="SIZE",
        help="The size of its flash (1M). The data of an image must be as large.",
    ),
]
Faults = Annotated[
    list[str] | None,
    typer.Option(
        "--fault",
        metavar="FAULT",
        help="An accident on purpose, such as no-battery, see rbu machine faults; repeatable.",
        autocompletion=complete_faults,
    ),
]
Fragment = Annotated[
    int | None,
    typer.Option(
        "--fragment",
        metavar="ORDER",
        help="Leave no free block of memory above this order (0: single pages), as --fault "
        "fragmented=ORDER.",
    ),
]
AdminPasswordFile = Annotated[
    Path | None,
    typer.Option(
        "--admin-password-file", metavar="FILE", help="File with its BIOS admin password."
    ),
]
KernelWords = Annotated[
    str,
    typer.Option(
        "--kernel-words",
        metavar="WORDS",
        help="More words of its kernel's command line, such as reboot=w.",
    ),
]
WithoutRebootFiles = Annotated[
    bool,
    typer.Option(
        "--without-reboot-files",
        help="Its kernel has no /sys/kernel/reboot, as those before 5.11.",
    ),
]
EntryDelay = Annotated[
    float,
    typer.Option(
        "--entry-delay",
        metavar="SECONDS",
        help="How long its kernel takes to make a firmware entry.",
    ),
]
