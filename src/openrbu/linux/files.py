"""Files of a Linux that may be missing, or closed to this user."""

from __future__ import annotations

from openrbu.hosts.base import Host, read_text


def text_of(host: Host, path: str) -> str | None:
    """A whole file as text, without blanks at its ends; None where it is not there, or can't be
    read."""
    try:
        return read_text(host, path)
    except OSError:
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
    except OSError:
        return ()
