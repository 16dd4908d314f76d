"""The parameters of a simulated kernel's modules, as modprobe(8) gets them."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any

from openrbu.drivers.dell_rbu import FLOOR_PATH
from openrbu.drivers.numbers import unsigned_long
from openrbu.errors import KernelError, UsageError

KNOWN_PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "dell_rbu": ("image_type", "allocation_floor"),
    "dcdbas": (),
}
"""The modules, and the parameters of each."""


def dell_rbu_parameters(parameters: Mapping[str, str]) -> dict[str, Any]:
    """What `DellRbu` takes.

    :raise UsageError: for a parameter that does not exist, or an address that is not one.
    :raise KernelError: ERANGE for an address of more than 64 bits.
    """
    refuse_unknown("dell_rbu", parameters, KNOWN_PARAMETERS["dell_rbu"])
    known: dict[str, Any] = dict(parameters)
    if "allocation_floor" in known:
        text = parameters["allocation_floor"]
        try:
            # Bytes that are not UTF-8 come from a command line as surrogates. They become "?".
            known["allocation_floor"] = unsigned_long(text.encode(errors="replace"), FLOOR_PATH)
        except KernelError as error:
            if error.errno != errno.EINVAL:
                raise
            raise UsageError(f"allocation_floor takes an address, not {text!r}") from None
    return known


def refuse_unknown(name: str, parameters: Mapping[str, str], known: tuple[str, ...]) -> None:
    """:raise UsageError: for a parameter that is not `known`."""
    for parameter in parameters:
        if parameter not in known:
            have = ", ".join(known) or "none"
            raise UsageError(f"{name} has no parameter {parameter!r} (it has: {have})")
