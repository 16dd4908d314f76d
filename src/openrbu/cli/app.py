"""The table of all commands, and the parser made from it.

A command is a row of the table: its name, and its function as `module:function`, which is imported
when the command is used. So a command line loads the module of one command and builds one parser;
help and completion load all of them. (`tests/unit/test_startup.py` goes through the table.)
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from functools import cache
from typing import TYPE_CHECKING, Annotated, NamedTuple, cast

from openrbu import __version__
from openrbu._vendor import typer
from openrbu._vendor.typer.core import TyperCommand, TyperGroup
from openrbu._vendor.typer.models import TyperPath
from openrbu.cli import letters
from openrbu.cli.commands import CommandFunction, as_command

if TYPE_CHECKING:
    from openrbu._vendor.typer._click import Command, Context

EXIT_CODES = (
    "Exit codes: 0 done, or nothing to do; 1 the update failed; 2 usage; 3 the image is not for "
    "this machine; 4 an obstacle prevents it; 5 the input is damaged."
)

COMPLETE_VARIABLE = "_RBU_COMPLETE"
"""With this set, `rbu` answers a shell's question and does nothing else."""

ANY_WORDS = {"allow_interspersed_args": False}
"""Parsing ends at the first word that is not an option: the rest belongs to the program."""


class Row(NamedTuple):
    """One command: where its function is, and which panel of help it is in.

    `runs_program`: it runs a program, whose words follow, and returns that program's exit code.
    """

    where: str
    panel: str | None = None
    runs_program: bool = False


class Group(NamedTuple):
    """Commands of two words: the help text of the first word, and the rows of the second ones."""

    text: str
    rows: Mapping[str, Row]
    panel: str | None = None


_IMAGES = "Images"
_UPDATES = "Updates"
_MACHINES = "Virtual machines and memory"
_ABOUT = "About rbu"

COMMANDS: Mapping[str, Row | Group] = {
    "info": Row("openrbu.cli.packages:info", _IMAGES),
    "extract": Row("openrbu.cli.packages:extract", _IMAGES),
    "build": Row("openrbu.cli.images:build", _IMAGES),
    "packets": Row("openrbu.cli.packets:packets", _IMAGES),
    "join": Row("openrbu.cli.packets:join", _IMAGES),
    "plan": Row("openrbu.cli.updates:plan", _UPDATES),
    "update": Row("openrbu.cli.updates:update", _UPDATES),
    "arm": Row("openrbu.cli.arming:arm", _UPDATES),
    "status": Row("openrbu.cli.status:status", _UPDATES),
    "cancel": Row("openrbu.cli.updates:cancel", _UPDATES),
    "history": Row("openrbu.cli.history:history", _UPDATES),
    "report": Row("openrbu.cli.reports:report", _UPDATES),
    "scan": Row("openrbu.cli.scans:scan", _MACHINES),
    "mount": Row("openrbu.cli.mounts:mount", _MACHINES),
    "run": Row("openrbu.cli.runs:run", _MACHINES, runs_program=True),
    "trace": Row("openrbu.cli.traces:trace", _MACHINES),
    "try": Row("openrbu.cli.trials:try_tool", _MACHINES),
    "machine": Group(
        "Virtual Dell machines: make one, restart it, remove it.",
        {
            "new": Row("openrbu.cli.machines:new"),
            "list": Row("openrbu.cli.machines:list_machines"),
            "show": Row("openrbu.cli.machines:show_machine"),
            "reboot": Row("openrbu.cli.machines:reboot"),
            "off": Row("openrbu.cli.machines:off"),
            "rm": Row("openrbu.cli.machines:remove"),
            "map": Row("openrbu.cli.maps:machine_map"),
            "log": Row("openrbu.cli.machine_log:log"),
            "models": Row("openrbu.cli.machine_lists:models"),
            "profiles": Row("openrbu.cli.machine_lists:profiles"),
            "rules": Row("openrbu.cli.machine_lists:rules"),
            "faults": Row("openrbu.cli.machine_lists:faults"),
        },
        _MACHINES,
    ),
    "policy": Group(
        "What the machines of a fleet are to run, by which steps, and when.",
        {"check": Row("openrbu.cli.policies:check")},
        _UPDATES,
    ),
    "driver": Group(
        "openrbu's own dell_rbu, on this computer's memory, where the kernel has none.",
        {
            "start": Row("openrbu.cli.drivers:start"),
            "status": Row("openrbu.cli.drivers:status"),
            "stop": Row("openrbu.cli.drivers:stop"),
        },
        _UPDATES,
    ),
    "module": Group(
        "The kernel modules that an update needs.",
        {
            "load": Row("openrbu.cli.modules:load"),
            "unload": Row("openrbu.cli.modules:unload"),
        },
        _MACHINES,
    ),
    "balloon": Group(
        "Xen hosts, and the memory that their guests give and take.",
        {
            "host": Row("openrbu.cli.balloon:host"),
            "guest": Row("openrbu.cli.balloon:guest"),
            "target": Row("openrbu.cli.balloon:target"),
            "show": Row("openrbu.cli.balloon:show"),
            "watch": Row("openrbu.cli.balloon_watch:watch"),
        },
        _MACHINES,
    ),
    "lab": Group(
        "Real Linux with the real dell_rbu, and a real BIOS, in QEMU.",
        {
            "check": Row("openrbu.cli.labs:check"),
            "bios": Row("openrbu.cli.labs:bios"),
            "clean": Row("openrbu.cli.labs:clean"),
            "update": Row("openrbu.cli.lab_guests:update"),
            "shell": Row("openrbu.cli.lab_guests:shell", runs_program=True),
        },
        _MACHINES,
    ),
    "completion": Row("openrbu.cli.completion:completion", _ABOUT),
    "help": Row("openrbu.cli.about:show_help", _ABOUT),
    "version": Row("openrbu.cli.about:version", _ABOUT),
    "schema": Row("openrbu.cli.schemas:schema", _ABOUT),
}
"""All commands, in the order in which help lists them."""

_AS_TYPED = "\b\n"
"""Begins a paragraph of help whose lines are kept as they are."""


class _Command(TyperCommand):
    """A command whose help has only characters that standard output can write: typer would write
    help in UTF-8 where that is ASCII. It takes no empty path, as a shell has it of a variable that
    is not set: that would be the working directory, and whatever image is there."""

    def get_help(self, ctx: Context) -> str:
        return _writable(super().get_help(ctx))

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        left = super().parse_args(ctx, args)
        for each in self.params:
            given = ctx.params.get(each.name or "")
            paths = given if isinstance(given, (list, tuple)) else [given]
            is_path = isinstance(each.type, TyperPath) or each.metavar == "DIR"
            if is_path and "" in paths:
                raise typer.BadParameter("the path is empty", ctx, each)
        return left


class _Group(TyperGroup):
    """The same for the first of two words."""

    def get_help(self, ctx: Context) -> str:
        return _writable(super().get_help(ctx))


def _writable(text: str) -> str:
    return letters.like(text, getattr(sys.stdout, "encoding", None))


class _Commands(Mapping[str, "Command"]):
    """The commands of a table, each built when it is first used."""

    def __init__(self, rows: Mapping[str, Row | Group], is_rich: bool) -> None:
        self._rows = rows
        self._is_rich = is_rich
        self._built: dict[str, Command] = {}

    def __getitem__(self, name: str) -> Command:
        if name not in self._built:
            self._built[name] = self._build(name, self._rows[name])
        return self._built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def _build(self, name: str, row: Row | Group) -> Command:
        if isinstance(row, Group):
            return _build_group(name, row, self._is_rich)
        return _build_one(name, row, self._is_rich)


def build_command(*, is_rich: bool | None = None) -> Command:
    """The parser of `rbu`. Help has boxes and colours with `is_rich`, else it is plain text; None:
    as standard output is a terminal or not."""
    if is_rich is None:
        is_rich = sys.stdout is not None and sys.stdout.isatty()
    return _build_root(is_rich)


@cache
def _build_root(is_rich: bool) -> Command:
    app = _typer(is_rich)
    app.callback(help=_help(_root, is_rich), epilog=EXIT_CODES)(_root)
    if COMPLETE_VARIABLE in os.environ:
        from openrbu._vendor.typer._completion_classes import completion_init

        completion_init()
    root = typer.main.get_command(app)
    _fill(cast("TyperGroup", root), COMMANDS, is_rich)
    return root


def _build_group(name: str, group: Group, is_rich: bool) -> Command:
    app = _typer(is_rich)
    app.info.name, app.info.help, app.info.epilog = name, group.text, EXIT_CODES
    app.info.rich_help_panel = group.panel
    built = typer.main.get_group(app)
    _fill(built, group.rows, is_rich)
    return built


def _build_one(name: str, row: Row, is_rich: bool) -> Command:
    function = load(row)
    app = _typer(is_rich)
    app.command(
        name,
        cls=_Command,
        help=_help(function, is_rich),
        epilog=None if row.runs_program else EXIT_CODES,
        rich_help_panel=row.panel,
        context_settings=ANY_WORDS if row.runs_program else None,
    )(as_command(function))
    return typer.main.get_command(app)


def _fill(group: TyperGroup, rows: Mapping[str, Row | Group], is_rich: bool) -> None:
    """Give a group its commands. Typer only looks them up, so they can be built later."""
    group.commands = cast("MutableMapping[str, Command]", _Commands(rows, is_rich))


def load(row: Row) -> CommandFunction:
    """The function of a command."""
    module, _, name = row.where.partition(":")
    function: CommandFunction = getattr(importlib.import_module(module), name)
    return function


def _typer(is_rich: bool) -> typer.Typer:
    return typer.Typer(
        cls=_Group,
        rich_markup_mode="rich" if is_rich else None,
        pretty_exceptions_enable=False,
        add_completion=False,  # its options write scripts that answer zsh's first question wrong
        context_settings={"help_option_names": ["--help", "-h"]},
    )


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
            "--version", "-V", help="Show the version and exit.", callback=_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Update the BIOS of Dell machines, real and virtual ones, from Linux.

    A first session: make a machine, plan an update, do it, and show the history.

    \b
    rbu machine new demo
    rbu plan A06.hdr --machine demo
    rbu update A06.hdr --machine demo --reboot
    rbu history --machine demo
    """
