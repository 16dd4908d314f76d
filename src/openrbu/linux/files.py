"""Files of a Linux that may be missing, or closed to this user."""

from __future__ import annotations

from openrbu.hosts.base import Host, read_text

COMMAND_LINE = "/proc/cmdline"
"""The kernel's command line."""

RELEASE = "/proc/sys/kernel/osrelease"
"""The kernel's release, as `uname -r` has it."""


def text_of(host: Host, path: str) -> str | None:
    """A whole file as text, without blanks at its ends; None where it is not there, or can't be
    read."""
    try:
        return read_text(host, path)
    except (OSError, ValueError):  # ValueError: a path with a zero byte
        return None


def text_if_there(host: Host, path: str) -> str | None:
    """As `text_of`; but only a file that is not there, or that is closed to this user, has no text.
    For what must not be taken for missing because of another error.

    :raise OSError: another error of the kernel.
    """
    try:
        return read_text(host, path) if host.exists(path) else None
    except (FileNotFoundError, PermissionError):
        return None


def number_of(host: Host, path: str) -> int | None:
    """A file with a decimal number; None where it is not there, can't be read, or has another
    content."""
    text = text_of(host, path)
    try:
        return None if text is None else int(text)
    except ValueError:
        return None


def names_in(host: Host, path: str) -> tuple[str, ...]:
    """The names in a directory, sorted; none where it is not there, or can't be read."""
    try:
        return tuple(sorted(host.names(path)))
    except (OSError, ValueError):
        return ()
