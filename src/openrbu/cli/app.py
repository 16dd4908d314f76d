"""The commands and how they hang together."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from openrbu import __version__
from openrbu.cli import (
    balloon,
    balloon_watch,
    images,
    lab_guests,
    labs,
    machines,
    modules,
    mounts,
    packages,
    runs,
    scans,
    status,
    updates,
)
from openrbu.cli.show import Answer

if TYPE_CHECKING:
    from typer._click import Command

CommandFunction = Callable[..., "Answer | int"]

EXIT_CODES = (
    "Exit codes: 0 done, or nothing to do; 1 the update failed; 2 usage; 3 the image is not for "
    "this machine; 4 something stands in the way; 5 the input is damaged."
)

_MACHINES_PANEL = "Virtual machines and memory"

_COMMANDS: tuple[tuple[str, tuple[CommandFunction, ...]], ...] = (
    ("Images", (packages.info, packages.extract, images.build, images.packets, images.join)),
    (
        "Updates",
        (updates.plan, updates.update, status.status, updates.cancel, status.history),
    ),
    (_MACHINES_PANEL, (scans.scan, mounts.mount, runs.run)),
)
"""The panels of help, and the commands in them."""

_GROUPS: tuple[tuple[str, str, dict[str, CommandFunction]], ...] = (
    (
        "machine",
        "Virtual Dell machines: make one, restart it, remove it.",
        {
            "new": machines.new,
            "list": machines.list_machines,
            "show": machines.show_machine,
            "reboot": machines.reboot,
            "off": machines.off,
            "rm": machines.remove,
            "rules": machines.rules,
        },
    ),
    (
        "module",
        "The kernel modules that an update needs.",
        {"load": modules.load, "unload": modules.unload},
    ),
    (
        "balloon",
        "Xen hosts, and the memory that their guests hand to and fro.",
        {
            "host": balloon.host,
            "guest": balloon.guest,
            "target": balloon.target,
            "show": balloon.show,
            "watch": balloon_watch.watch,
        },
    ),
    (
        "lab",
        "Real Linux with the real dell_rbu module, and a real BIOS, in QEMU.",
        {
            "check": labs.check,
            "bios": labs.bios,
            "update": lab_guests.update,
            "shell": lab_guests.shell,
        },
    ),
)
"""Commands of two words: the first one, what help says of it, and the second ones."""

_AS_TYPED = "\b\n"
"""Begins a paragraph of help whose lines are not filled."""


def build_command() -> Command:
    """All of `rbu`. Help has boxes and colours on a terminal, and is plain text elsewhere."""
    is_rich = sys.stdout is not None and sys.stdout.isatty()
    app = _typer(is_rich)
    app.callback(help=_help(_root, is_rich), epilog=EXIT_CODES)(_root)
    for panel, functions in _COMMANDS:
        for function in functions:
            _add(app, function.__name__, function, is_rich, panel)
    for name, text, members in _GROUPS:
        group = _typer(is_rich)
        for member, function in members.items():
            _add(group, member, function, is_rich)
        panel = _MACHINES_PANEL
        app.add_typer(group, name=name, help=text, epilog=EXIT_CODES, rich_help_panel=panel)
    return typer.main.get_command(app)


def _typer(is_rich: bool) -> typer.Typer:
    return typer.Typer(
        rich_markup_mode="rich" if is_rich else None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["--help", "-h"]},
    )


def _add(
    app: typer.Typer, name: str, function: CommandFunction, is_rich: bool, panel: str | None = None
) -> None:
    text = _help(function, is_rich)
    is_run = function in (runs.run, lab_guests.shell)
    app.command(
        name,
        help=text,
        epilog=None if is_run else EXIT_CODES,  # they are the program's there
        rich_help_panel=panel,
        context_settings=runs.ANY_WORDS if is_run else None,
    )(function)


def _help(function: Callable[..., object], is_rich: bool) -> str:
    """A command's docstring as its help. Rich help fills no lines but those of one paragraph."""
    text = inspect.getdoc(function) or ""
    if not is_rich:
        return text
    paragraphs = (
        paragraph.removeprefix(_AS_TYPED)
        if paragraph.startswith(_AS_TYPED)
        else paragraph.replace("\n", " ")
        for paragraph in text.split("\n\n")
    )
    return "\n\n".join(paragraphs)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"rbu {__version__}")
        raise typer.Exit


def _root(
    _: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Update the BIOS of Dell machines from Linux, real and virtual ones.

    A first session: make a machine, look, update, look again.

    \b
    rbu machine new demo
    rbu plan A06.hdr --machine demo
    rbu update A06.hdr --machine demo --reboot
    rbu history --machine demo
    """
