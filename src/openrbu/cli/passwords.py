"""The ways in which a command gets the BIOS admin password: a file, a descriptor, a terminal.

It is never an argument, which all users of the computer can see, and never in the environment,
which all programs inherit that are started from here. It is shown nowhere.
"""

from __future__ import annotations

import os
import shlex
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from openrbu._vendor import typer
from openrbu.errors import UsageError

MAX_PASSWORD_FILE_BYTES = 4096

TERMINAL = "/dev/tty"

_STANDARD_INPUT = "-"

PasswordFile = Annotated[
    Path | None,
    typer.Option(
        "--password-file",
        metavar="FILE",
        help="File with the BIOS admin password; - is standard input.",
    ),
]
PasswordFd = Annotated[
    int | None,
    typer.Option(
        "--password-fd", metavar="N", help="Open descriptor from which the password is read."
    ),
]
AskPassword = Annotated[
    bool,
    typer.Option("--ask-password", help="Ask for the password on the terminal, without echo."),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordOptions:
    """How the BIOS admin password is given, as it is on the command line."""

    password_file: PasswordFile = None
    password_fd: PasswordFd = None
    ask_password: AskPassword = False

    def password(self) -> str | None:
        """The password; None: it is not given.

        :raise UsageError: when it is given in several ways, or can't be read.
        """
        file, fd = self.password_file, self.password_fd
        if (file is not None) + (fd is not None) + self.ask_password > 1:
            raise UsageError(
                "the password is given in one way: --password-file, --password-fd or --ask-password"
            )
        if file is not None:
            return password_in(file)
        if fd is not None:
            return _read_descriptor(fd)
        return ask() if self.ask_password else None

    @property
    def words(self) -> str:
        """The given options as words of a command."""
        words = ""
        if self.password_file is not None:
            words += f" --password-file {shlex.quote(str(self.password_file))}"
        if self.password_fd is not None:
            words += f" --password-fd {self.password_fd}"
        return words + (" --ask-password" if self.ask_password else "")


def password_of(file: Path | None) -> str | None:
    """The password in a file that an option may name; None: it names none.

    :raise UsageError: as `password_in`.
    """
    return None if file is None else password_in(file)


def password_in(file: Path) -> str:
    """The password in a file, without a line end after it; `-` is standard input.

    :raise UsageError: when the file can't be read, is empty or has several lines.
    """
    from openrbu.system.files import read_input

    if str(file) == _STANDARD_INPUT:
        return _read_descriptor(0)
    return _the_line(read_input(file, max_size_bytes=MAX_PASSWORD_FILE_BYTES), str(file))


def _is_inherited(fd: int) -> bool:
    """Whether a descriptor is open, and was not opened here, by chance with this number."""
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False


def _read_descriptor(fd: int) -> str:
    """The password from a descriptor that this process was started with, which is closed then.

    :raise UsageError: when it can't be read, is a terminal, or has not one line.
    """
    name = "standard input" if fd == 0 else f"descriptor {fd}"
    try:
        if fd and not _is_inherited(fd):
            raise UsageError(f"{name} is not open")
        if os.isatty(fd):
            raise UsageError(f"{name} is a terminal, which would show it: use --ask-password")
        with os.fdopen(fd, "rb", buffering=0, closefd=fd > 2) as file:
            data = b""
            while len(data) <= MAX_PASSWORD_FILE_BYTES and (
                piece := file.read(MAX_PASSWORD_FILE_BYTES)
            ):
                data += piece
    except (OSError, OverflowError) as error:
        why = error.strerror if isinstance(error, OSError) else "no such descriptor"
        raise UsageError(f"{name} can't be read: {why}") from None
    if len(data) > MAX_PASSWORD_FILE_BYTES:
        raise UsageError(f"there is more than one password in {name}")
    return _the_line(data, name)


def _the_line(data: bytes, name: str) -> str:
    """The one line in `data`, which may have an end.

    :raise UsageError: when it is empty, or there are several.
    """
    text = data.decode("utf-8", "surrogateescape").removesuffix("\n").removesuffix("\r")
    if not text:
        raise UsageError(f"there is no password in {name}")
    if "\n" in text:
        raise UsageError(f"there is more than one line in {name}")
    return text


def can_ask() -> bool:
    """Whether there is somebody to ask: a terminal, which is also what standard input is."""
    try:
        os.close(os.open(TERMINAL, os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY))
    except OSError:
        return False
    return sys.stdin is not None and sys.stdin.isatty()


def ask() -> str:
    """Ask for the password on the terminal, without echo. Nothing is written to standard output.

    :raise UsageError: when there is no terminal, or the answer is empty.
    """
    import getpass

    try:
        os.close(os.open(TERMINAL, os.O_RDWR | os.O_CLOEXEC | os.O_NOCTTY))
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)  # it would echo
            password = getpass.getpass("BIOS admin password (it is not shown): ")
    except (OSError, getpass.GetPassWarning):
        raise UsageError(
            "there is no terminal to ask for the password on: use --password-file or --password-fd"
        ) from None
    except EOFError:
        password = ""
    if not password:
        raise UsageError("no password was given; nothing was changed")
    return password
