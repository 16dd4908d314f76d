"""A command that a stand-in was called with, and what it says."""

from __future__ import annotations

import getopt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from openrbu.kernel.files import File
from openrbu.machine.base import Machine
from openrbu.run.power import PowerSwitch


class ModuleHost(Protocol):
    """Where the commands for modules act. A virtual machine is one, and its `Machine` says what
    each of these does."""

    @property
    def name(self) -> str: ...

    @property
    def modules(self) -> tuple[str, ...]: ...

    def exists(self, path: str) -> bool: ...

    def open(self, path: str, *, reading: bool = False, writing: bool = False) -> File: ...

    def load_module(self, name: str, parameters: Mapping[str, str]) -> None: ...

    def unload_module(self, name: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Command:
    """`name` and `words` of a command, the machine that it acts on, and whether root called it.
    `lacks`: the known modules that its kernel does not have."""

    name: str
    words: tuple[str, ...]
    machine: ModuleHost
    is_root: bool = True
    lacks: frozenset[str] = frozenset()

    def options(
        self, short: str, long: Sequence[str] = ()
    ) -> tuple[list[tuple[str, str]], list[str]]:
        """The options and the other words; what `short` and `long` are, getopt(3) says.

        :raise UnknownOptionError: for an option that there is not.
        """
        try:
            return getopt.gnu_getopt(self.words, short, long)
        except getopt.GetoptError as error:
            raise UnknownOptionError(f"{self.name}: {_as_glibc(error)}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerCommand(Command):
    """A command that may also act on the power of a virtual machine."""

    machine: Machine
    switch: PowerSwitch


@dataclass(frozen=True, slots=True)
class Said:
    """How a command ends: exit status, lines for standard output and for standard error. `waits`:
    it does not end by itself, because the machine ends it."""

    status: int = 0
    out: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    waits: bool = False


class UnknownOptionError(Exception):
    """A command has an option that is not known. The text says which."""


def _as_glibc(error: getopt.GetoptError) -> str:
    """What getopt_long(3) writes of an option that there is not; Python's text of other errors."""
    if not error.msg.endswith("not recognized"):
        return error.msg
    is_long = error.msg.startswith("option --")
    return f"unrecognized option '--{error.opt}'" if is_long else f"invalid option -- '{error.opt}'"


def failed(*errors: str, status: int = 1) -> Said:
    """What a command says that fails."""
    return Said(status, errors=errors)
