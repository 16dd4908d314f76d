"""What `rbu machine new` is told."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
        help="poweredge-2650 (if none is named), poweredge-2950, latitude-d500, precision-390, "
        "precision-t7600.",
        autocompletion=complete_models,
    ),
]
ProfileName = Annotated[
    str | None,
    typer.Option(
        "--profile",
        metavar="PROFILE",
        help="Whose dell_rbu it has: documented (if none is named), linux, linux-5.7, …",
        autocompletion=complete_profiles,
    ),
]
TablesDirectory = Annotated[
    Path | None,
    typer.Option(
        "--from-tables",
        metavar="FILE|DIR",
        help="Be the machine with these SMBIOS tables: a dump by dmidecode --dump-bin, the file "
        "DMI alone, or a directory with them.",
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
        help="What its BIOS does: a rule set, see rbu machine rules. Without it: what fits.",
        autocompletion=complete_rules,
    ),
]
Revision = Annotated[
    int, typer.Option("--revision", metavar="N", help="Its hardware's revision, 0 to 7.")
]
FlashSize = Annotated[
    str | None,
    typer.Option("--flash-size", metavar="SIZE", help="Of its flash (1M): an image's data."),
]
Faults = Annotated[
    list[str] | None,
    typer.Option(
        "--fault",
        metavar="FAULT",
        help="Break a part of it, such as no-battery; repeatable.",
        autocompletion=complete_faults,
    ),
]
AdminPasswordFile = Annotated[
    Path | None,
    typer.Option(
        "--admin-password-file", metavar="FILE", help="Its BIOS admin password is in FILE."
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
