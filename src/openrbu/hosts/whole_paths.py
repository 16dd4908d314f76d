"""Errors of a kernel whose files are in this process, with the path that was asked for."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from openrbu.errors import KernelError


@contextlib.contextmanager
def whole_path(path: str) -> Iterator[None]:
    """A `KernelError` of the block tells the path as it was asked for; the kernel knows a file by
    its path within `/sys`, `/proc` or `/dev`."""
    try:
        yield
    except KernelError as error:
        error.filename = path
        raise
