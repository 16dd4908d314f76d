"""What a kernel returns to a step of an update, as an error of the update."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from openrbu.errors import UpdateFailedError


def kernel_refusal(error: OSError) -> UpdateFailedError:
    """The error of an update that the kernel refused with `error`."""
    path = f" ({error.filename})" if error.filename else ""
    return UpdateFailedError(f"the kernel refused: {error.strerror}{path}")


@contextlib.contextmanager
def kernel_refusals() -> Iterator[None]:
    """:raise UpdateFailedError: for an `OSError` in the block."""
    try:
        yield
    except OSError as error:
        raise kernel_refusal(error) from None
