"""Which of some open files can be read now."""

from __future__ import annotations

import select
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

    File = TypeVar("File", bound=FileDescriptorLike)


def readable(files: Iterable[File], limit_s: float | None = None) -> list[File]:
    """Wait until one of these can be read, has an error, or is at its end: all that are; none when
    the time is over. `limit_s`: at most 24 days; None: for ever.

    By poll(2): select(2) has an error for a descriptor from 1024 on, and a program that uses
    openrbu as a library may have so many.
    """
    poller = select.poll()
    by_number = {each if isinstance(each, int) else each.fileno(): each for each in files}
    for number in by_number:
        poller.register(number, select.POLLIN)
    ready = poller.poll(None if limit_s is None else limit_s * 1000)
    return [by_number[number] for number, _ in ready]
